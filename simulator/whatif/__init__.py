"""What if: sweeps over lists of everything, and the search for the best mix of strategies."""

from .search import search
from .sweep import sweep

__all__ = ["search", "sweep"]
