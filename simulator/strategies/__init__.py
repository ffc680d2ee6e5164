"""Strategies: one file per order or layer."""

from .data_parallel import DataParallel
from .parameter_server import ParameterServer
from .pipeline import Pipeline
from .single import Single

__all__ = ["DataParallel", "ParameterServer", "Pipeline", "Single"]
