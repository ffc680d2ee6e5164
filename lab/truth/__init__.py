"""Predictions beside what was measured, by others and on this machine: the reports in ``docs/truth``."""
