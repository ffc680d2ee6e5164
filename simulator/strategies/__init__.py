"""Strategies: one file per order or layer."""

from . import aggregation, graphs
from .ad_psgd import ADPSGD
from .byteps import BytePS
from .collectives import (
    AllReduceBy,
    ChainBroadcast,
    DoubleTreeAllReduce,
    HalvingDoubling,
    HierarchicalAllReduce,
    RecursiveDoubling,
    RingAllReduce,
    ScatterBroadcast,
    ServerAllReduce,
    TreeAllReduce,
)
from .compressed import Compressed
from .context_parallel import ContextParallel
from .data_parallel import DataParallel
from .expert_parallel import ExpertParallel
from .gossip import Gossip
from .horovod import Horovod
from .hybrid import Hybrid
from .local import (
    EASGD,
    SCAFFOLD,
    ConstantWeight,
    DiLoCo,
    FedAsync,
    FedAvg,
    FedBuff,
    FedProx,
    GaussianNoise,
    HingeWeight,
    LocalSGD,
    PolynomialWeight,
    PostLocalSGD,
    SecureAggregation,
)
from .parameter_server import ParameterServer
from .pipedream import PipeDream
from .pipeline import Pipeline
from .sharded import Sharded
from .single import Single
from .tensor_parallel import TensorParallel

__all__ = [
    "ADPSGD",
    "AllReduceBy",
    "BytePS",
    "ChainBroadcast",
    "Compressed",
    "ConstantWeight",
    "ContextParallel",
    "DataParallel",
    "DiLoCo",
    "DoubleTreeAllReduce",
    "EASGD",
    "ExpertParallel",
    "FedAsync",
    "FedAvg",
    "FedBuff",
    "FedProx",
    "GaussianNoise",
    "Gossip",
    "HalvingDoubling",
    "HierarchicalAllReduce",
    "HingeWeight",
    "Horovod",
    "Hybrid",
    "LocalSGD",
    "ParameterServer",
    "PipeDream",
    "Pipeline",
    "PolynomialWeight",
    "PostLocalSGD",
    "RecursiveDoubling",
    "RingAllReduce",
    "SCAFFOLD",
    "ScatterBroadcast",
    "SecureAggregation",
    "ServerAllReduce",
    "Sharded",
    "Single",
    "TensorParallel",
    "TreeAllReduce",
    "aggregation",
    "graphs",
]
