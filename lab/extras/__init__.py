"""Engines of other frameworks: TensorFlow, Ray Train, MPI and DeepSpeed. Each is an extra, installed by itself.

    run = lab.execute(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2, engine="tensorflow")

They train the same problem from the same weights on the same batches, and return a Run like any other. Whatever the
framework starts, it starts in fresh processes, which end with the run.
"""
