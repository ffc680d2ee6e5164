"""The shape of a transformer, of any size: language models, encoders, mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from types import NoneType

from .. import checks
from ..clusters.device import dtype_name
from ..model import Block, Model, Part, saved
from ..operations import WIDTHS, MatMul, Operations, Stream, held_width
from .attention import Latent, attention
from .parts import IDENTIFIER, add, lookup, norm, pool, score
from .perceptrons import mixture, think

RECOMPUTE = ("none", "selective", "full")
ADAM = 28
"""Bytes that an update by Adam moves per parameter: gradient, parameter and two means in, the last three out."""
CHOICES = {"recompute": RECOMPUTE, "norm": ("layer", "rms"), "positions": ("learned", "rotary", "none")}


@dataclass(frozen=True)
class Transformer:
    """The shape of a transformer. ``model()`` makes the Model; see ``transformer`` for the knobs.

    ``pooled``: it ends with a product of the first token and a square matrix, and begins with vectors for two segments
    and a norm, as BERT does (Devlin et al. 2019, arXiv:1810.04805).
    """

    layers: int
    hidden: int
    heads: int
    sequence: int
    vocab: int
    kv_heads: int | None = None
    ffn: int | None = None
    gated: bool = False
    dtype: str = "bf16"
    batch: int = 1
    recompute: str = "none"
    experts: int = 0
    top: int = 1
    routing: float = 1.0
    causal: bool = True
    flash: bool | float = False
    dropout: bool = True
    bias: bool = True
    norm: str = "layer"
    positions: str = "learned"
    tied: bool = True
    final_norm: bool = False
    pooled: bool = False
    name: str | None = None
    latent: Latent | None = None
    shared: int = 0
    dense: int = 0
    dense_ffn: int | None = None
    gate_bias: bool = False

    def __post_init__(self) -> None:
        checks.owned(self)
        for name in ("layers", "hidden", "heads", "sequence", "vocab", "top"):
            checks.whole(name, getattr(self, name), least=1, of="of a transformer")
        for name in ("ffn", "dense_ffn"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), least=1, of="of a transformer")
        if not isinstance(self.flash, bool) and checks.number("flash", self.flash, above=0) > 1:
            raise ValueError(f"flash is True, False, or a share of a device's peak, up to 1; got flash={self.flash!r}")
        for name, choices in CHOICES.items():
            checks.one_of(name, getattr(self, name), choices)
        checks.flags(self)
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        self._check_heads()
        self._check_experts()

    def _check_heads(self) -> None:
        checks.kind("latent", self.latent, (Latent, NoneType), "a simulator.models.Latent, or None")
        columns = checks.whole("kv_heads", self.keys, least=1) * self.hidden
        if self.latent is not None and self.keys != self.heads:
            raise ValueError(f"latent attention gives each head its own keys; got kv_heads={self.keys}: leave it out")
        if self.latent is None and (self.heads > self.hidden or self.heads % self.keys or columns % self.heads):
            raise ValueError(
                f"kv_heads divides heads, which share its keys and values, and these have a whole number of columns,"
                f" hidden·kv_heads/heads; got hidden={self.hidden}, heads={self.heads}, kv_heads={self.keys}"
            )

    def _check_experts(self) -> None:
        checks.number("routing", self.routing, least=1, of="of the busiest rank over the mean")
        for name in ("experts", "shared", "dense"):
            checks.whole(name, getattr(self, name), of="of a transformer")
        if self.experts and self.top > self.experts:
            raise ValueError(f"a token uses at most all experts; got top={self.top} of {self.experts}")
        asked = [name for name in ("shared", "dense", "dense_ffn", "gate_bias") if getattr(self, name)]
        if asked and not self.experts:
            given = f"{asked[0]}={getattr(self, asked[0])!r}"
            raise ValueError(f"{asked[0]} belongs to a mixture of experts; got {given} with experts=0")
        if self.dense > self.layers:
            raise ValueError(f"dense layers are the first of all; got dense={self.dense} of layers={self.layers}")

    # ------------------------------------------------------------ sizes

    @property
    def width(self) -> int:
        """Bytes of a number that passes from part to part, which with "fp8" stays in bf16."""
        return held_width(self.dtype)

    @property
    def kept(self) -> int:
        """Bytes of a number of a product's input, which is kept as the product reads it."""
        return WIDTHS[self.dtype]

    @property
    def wide(self) -> str | None:
        """The dtype of attention, scores and gates, where it is not that of the other products."""
        return "bf16" if self.dtype == "fp8" else None

    def casts(self, numbers: float) -> tuple[Stream, ...]:
        """What makes so many numbers of fp8: it reads two bytes of each, and writes it, and it again transposed.

        Products in fp8 take both matrices along their inner dimension, which is another one in the backward pass.
        """
        return (Stream((self.width + 2 * self.kept) * numbers),) if self.wide else ()

    def work(self, *ops: MatMul | Stream) -> Operations:
        """Operations, one after another, with numbers of its dtype."""
        return Operations(ops, self.dtype)

    def normed(self, columns: int) -> int:
        """Parameters of a norm of so many columns."""
        return (2 if self.norm == "layer" else 1) * columns

    @property
    def recomputations(self) -> tuple[str, ...]:
        """What it may compute again to keep less: attention tile by tile keeps no scores, but all that it reads."""
        return ("none", "full") if self.flash and self.latent is None else RECOMPUTE

    @property
    def keys(self) -> int:
        """Heads that have keys and values of their own."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def kv_width(self) -> int:
        """Columns of the keys, and of the values; those of latent attention ``read_width`` tells."""
        return self.hidden * self.keys // self.heads

    @property
    def head_columns(self) -> tuple[float, float]:
        """Of one head: columns in which a query meets a key, and columns of a value."""
        each = self.hidden / self.heads
        return (each, each) if self.latent is None else (self.latent.pair, self.latent.width)

    @property
    def read_width(self) -> int:
        """Columns of all queries, keys and values."""
        if self.latent is None:
            return self.hidden + 2 * self.kv_width
        return self.heads * (2 * self.latent.pair + self.latent.width)

    @property
    def found_width(self) -> int:
        """Columns of what all heads find."""
        return self.hidden if self.latent is None else self.heads * self.latent.width

    @property
    def thinking(self) -> int:
        """Hidden units of a perceptron, or of each expert."""
        return 4 * self.hidden if self.ffn is None else self.ffn

    @property
    def ups(self) -> int:
        """Matrices of a perceptron that read what enters it."""
        return 2 if self.gated else 1

    @property
    def rows(self) -> int:
        """Choices of an expert, by all tokens of a sample."""
        return self.sequence * self.top

    @property
    def biased(self) -> int:
        """1 where products add a bias, else 0."""
        return int(self.bias)

    @property
    def act_bytes(self) -> float:
        """What passes from block to block, per sample."""
        return float(self.sequence * self.hidden * self.width)

    def by_head(self, each: int, queries: int, keys: int = 0) -> tuple[tuple[int, int], ...]:
        """Units of ``each`` parameters per column; heads, or columns where published heads do not divide them."""
        whole = self.found_width % self.heads == 0
        kinds = ((self.heads, self.found_width, queries), (self.keys, self.kv_width, keys))
        return tuple(
            (heads, columns // heads * each * many) if whole else (columns, each * many)
            for heads, columns, many in kinds
            if many
        )

    # ------------------------------------------------------------ blocks

    def model(self) -> Model:
        """The Model."""
        first = (self.layer(dense=True),) * self.dense if self.dense else ()
        return Model(
            name=self.name or f"a transformer of {self.layers} layers, hidden {self.hidden}",
            blocks=(self.embedding(), *first, *(self.layer(),) * (self.layers - self.dense), self.output()),
            batch=self.batch,
            parameter_bytes=held_width(self.dtype),
            update=Operations((Stream(ADAM, kernels=0),), self.dtype),
            recipe=self,
            tokens=self.sequence,
        )

    def embedding(self) -> Block:
        """The first block: vectors for tokens."""
        return replace(block((lookup(self),), float(IDENTIFIER * self.sequence), self.dtype), aside=True)

    def layer(self, dense: bool = False) -> Block:
        """A block in the middle: attention, then a perceptron or, unless it is ``dense``, a mixture of them."""
        size = self.normed(self.hidden)
        before = norm(self, size), *attention(self), add(self, 0), norm(self, size)
        if self.experts and not dense:
            thinking = mixture(self, at=len(before))
        else:
            thinking = (think(self, self.dense_ffn),)
        parts = (*before, *thinking, add(self, len(before) - 1))
        return block(parts, self.act_bytes, self.dtype, self.recompute)

    def output(self) -> Block:
        """The last block: scores for every letter and their loss; ``pooled``: one product of the first token."""
        last = (pool(self),) if self.pooled else (norm(self, self.normed(self.hidden) * self.final_norm), score(self))
        return replace(block(last, self.act_bytes, self.dtype), aside=True)


def block(parts: tuple[Part, ...], input_bytes: float, dtype: str, recompute: str = "none") -> Block:
    """A block that is its parts, one after another; with ``recompute="full"`` it keeps only what enters it."""
    forward, backward = (
        Operations(tuple(chain.from_iterable(work.ops for work in works if isinstance(work, Operations))), dtype)
        for works in ((part.forward for part in parts), (part.backward for part in reversed(parts)))
    )
    learned = [op for op in forward.ops if isinstance(op, MatMul) and op.samples == "m"]
    full = recompute == "full"
    return Block(
        parameters=sum(part.held(0, 1) for part in parts),
        forward=forward,
        backward=backward,
        input_bytes=input_bytes,
        weight=Operations(tuple(product.gradients()[1] for product in learned), dtype),
        parts=parts,
        saved_bytes=input_bytes if full else saved(parts),
        recomputes=full,
    )
