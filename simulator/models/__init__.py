"""Models as operations: transformers of any shape, published models by name, torch modules."""

from .catalogue import model, models
from .knobs import with_knobs
from .transformer import Transformer, transformer

__all__ = ["Transformer", "model", "models", "transformer", "with_knobs"]
