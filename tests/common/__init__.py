"""What several files of tests share: problems, clusters, orders and runs that are made once."""
