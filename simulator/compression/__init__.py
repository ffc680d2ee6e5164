"""How gradients are made smaller before they travel: one file per compressor.

>>> from simulator import compression
>>> compressor = compression.ErrorFeedback(compression.TopK(0.01))
>>> payload = compressor.compress([0.1] * 999 + [5.0], seed=0)
>>> payload.nbytes, sum(compressor.decompress(payload)) > 5.8  # ten numbers of 8 bytes, ten indices of 4
(120, True)

NaN and infinity pass through ``Identity``, ``FP16`` and ``BF16``, which send every number for itself, as through an
all-reduce: a loss scaler must see them. All others mix numbers or leave some out, where they would spoil the rest or go
unseen, and refuse them with DivergedError; so does ``ErrorFeedback``, whose memory they would spoil for good.
"""

from . import ratios
from .base import Compressor, Payload
from .bf16 import BF16
from .dgc import DGC
from .error_feedback import ErrorFeedback
from .fp16 import FP16
from .identity import Identity
from .int8 import Int8
from .power_sgd import PowerSGD
from .qsgd import QSGD
from .random_k import RandomK
from .sign import Sign
from .terngrad import TernGrad
from .threshold import Threshold
from .top_k import TopK

__all__ = [
    "BF16",
    "DGC",
    "FP16",
    "Compressor",
    "ErrorFeedback",
    "Identity",
    "Int8",
    "Payload",
    "PowerSGD",
    "QSGD",
    "RandomK",
    "Sign",
    "TernGrad",
    "Threshold",
    "TopK",
    "ratios",
]
