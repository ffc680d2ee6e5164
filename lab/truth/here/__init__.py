"""Truth against this machine: strategies predicted from calibration alone, then measured.

``python -m lab.truth here`` measures every strategy of a table and writes ``docs/truth/here.md``.
"""

from .commands import main

__all__ = ["main"]
