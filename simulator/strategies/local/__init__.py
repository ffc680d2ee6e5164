"""Local and federated methods: workers that train for themselves, and meet now and then."""

from .diloco import DiLoCo
from .discount import ConstantWeight, HingeWeight, PolynomialWeight
from .easgd import EASGD
from .fedasync import FedAsync
from .fedavg import FedAvg
from .fedbuff import FedBuff
from .fedprox import FedProx
from .gaussian_noise import GaussianNoise
from .local_sgd import LocalSGD
from .post_local_sgd import PostLocalSGD
from .scaffold import SCAFFOLD
from .secure_aggregation import SecureAggregation

__all__ = [
    "ConstantWeight",
    "DiLoCo",
    "EASGD",
    "FedAsync",
    "FedAvg",
    "FedBuff",
    "FedProx",
    "GaussianNoise",
    "HingeWeight",
    "LocalSGD",
    "PolynomialWeight",
    "PostLocalSGD",
    "SCAFFOLD",
    "SecureAggregation",
]
