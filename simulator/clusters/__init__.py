"""What clusters are made of: devices, and the ways in which they are wired."""

from .device import Device, dtype_name
from .graph import Graph
from .grid import Grid
from .mesh import Mesh
from .rails import Box, Rails
from .slowed import Slowed
from .star import Star
from .subset import Subset
from .tiers import Tiers
from .wiring import Link, Speed, Wiring

__all__ = [
    "Box", "Device", "Graph", "Grid", "Link", "Mesh", "Rails", "Slowed", "Speed", "Star", "Subset",
    "Tiers", "Wiring", "dtype_name",
]  # fmt: skip
