"""Collectives as programs: written out in messages and additions of chunks, one file per algorithm.

Each is a layer without an axis that takes the place of ``AllReduce`` or ``Broadcast`` (and of their siblings, where it
has them): ``stack(DataParallel(), RingAllReduce())``. It works inside sub-programs, along any axis, and on any value.
"""

from .all_to_all import bruck, pairwise
from .broadcast import ChainBroadcast, ScatterBroadcast
from .double_tree import DoubleTreeAllReduce
from .doubling import RecursiveDoubling
from .group import Group
from .halving import HalvingDoubling
from .hierarchical import HierarchicalAllReduce
from .own import AllReduceBy
from .ring import RingAllReduce
from .server import ServerAllReduce
from .tree import TreeAllReduce

__all__ = [
    "AllReduceBy",
    "ChainBroadcast",
    "DoubleTreeAllReduce",
    "Group",
    "HalvingDoubling",
    "HierarchicalAllReduce",
    "RecursiveDoubling",
    "RingAllReduce",
    "ScatterBroadcast",
    "ServerAllReduce",
    "TreeAllReduce",
    "bruck",
    "pairwise",
]
