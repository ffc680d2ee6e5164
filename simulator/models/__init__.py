"""Models as operations: transformers of any shape, published models by name, torch modules."""

from .attention import Latent
from .catalogue import model, models
from .from_knobs import transformer
from .knobs import with_knobs
from .transformer import Transformer

__all__ = ["Latent", "Transformer", "model", "models", "transformer", "with_knobs"]
