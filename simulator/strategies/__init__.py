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
from .global_clip import GlobalClip
from .gossip import Gossip
from .horovod import Horovod
from .hybrid import Hybrid
from .loader import Loader
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
from .mixed_precision import MixedPrecision
from .noise_scale import NoiseScale
from .onebit_adam import OneBitAdam
from .parameter_server import ParameterServer
from .pipedream import PipeDream
from .pipeline import Pipeline
from .sharded import Sharded
from .shares import Shares
from .single import Single
from .sync_buffers import SyncBuffers
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
    "GlobalClip",
    "Gossip",
    "HalvingDoubling",
    "HierarchicalAllReduce",
    "HingeWeight",
    "Horovod",
    "Hybrid",
    "Loader",
    "LocalSGD",
    "MixedPrecision",
    "NoiseScale",
    "OneBitAdam",
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
    "Shares",
    "Single",
    "SyncBuffers",
    "TensorParallel",
    "TreeAllReduce",
    "aggregation",
    "graphs",
]
