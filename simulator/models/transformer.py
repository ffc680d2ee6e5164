"""Transformers of any size, as operations: language models, encoders, mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from .. import checks
from ..clusters.device import dtype_name
from ..model import Block, Model, Part, saved
from ..operations import WIDTHS, MatMul, Operations, Stream, held_width
from .parts import IDENTIFIER, add, lookup, mix, mixture, norm, pool, read, score, think, write

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

    def __post_init__(self) -> None:
        checks.owned(self)
        for name in ("layers", "hidden", "heads", "sequence", "vocab", "top"):
            checks.whole(name, getattr(self, name), least=1, of="of a transformer")
        checks.whole("ffn", self.thinking, least=1, of="of a transformer")
        if not isinstance(self.flash, bool) and checks.number("flash", self.flash, above=0) > 1:
            raise ValueError(f"flash is True, False, or a share of a device's peak, up to 1; got flash={self.flash!r}")
        checks.whole("experts", self.experts)
        checks.number("routing", self.routing, least=1, of="of the busiest rank over the mean")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(map(repr, choices))
                raise ValueError(f"{name} is one of {known}; got {name}={getattr(self, name)!r}")
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        if self.experts and self.top > self.experts:
            raise ValueError(f"a token uses at most all experts; got top={self.top} of {self.experts}")
        columns = checks.whole("kv_heads", self.keys, least=1) * self.hidden
        if self.heads > self.hidden or self.heads % self.keys or columns % self.heads:
            raise ValueError(
                f"kv_heads divides heads, which share its keys and values, and these have a whole number of columns,"
                f" hidden·kv_heads/heads; got hidden={self.hidden}, heads={self.heads}, kv_heads={self.keys}"
            )

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

    @property
    def keys(self) -> int:
        """Heads that have keys and values of their own."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def kv_width(self) -> int:
        """Columns of the keys, and of the values."""
        return self.hidden * self.keys // self.heads

    @property
    def thinking(self) -> int:
        """Hidden units of a perceptron, or of each expert."""
        return 4 * self.hidden if self.ffn is None else self.ffn

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
        whole = self.hidden % self.heads == 0
        kinds = ((self.heads, self.hidden, queries), (self.keys, self.kv_width, keys))
        return tuple(
            (heads, columns // heads * each * many) if whole else (columns, each * many)
            for heads, columns, many in kinds
            if many
        )

    # ------------------------------------------------------------ blocks

    def model(self) -> Model:
        """The Model."""
        layer = self.layer()
        return Model(
            name=self.name or f"a transformer of {self.layers} layers, hidden {self.hidden}",
            blocks=(self.embedding(), *(layer for _ in range(self.layers)), self.output()),
            batch=self.batch,
            parameter_bytes=held_width(self.dtype),
            update=Operations((Stream(ADAM, kernels=0),), self.dtype),
            recipe=self,
            tokens=self.sequence,
        )

    def embedding(self) -> Block:
        """The first block: vectors for tokens."""
        return replace(block((lookup(self),), float(IDENTIFIER * self.sequence), self.dtype), aside=True)

    def layer(self) -> Block:
        """A block in the middle: attention, then a perceptron or a mixture of them."""
        size = self.norm_parameters
        thinking = mixture(self) if self.experts else (think(self),)
        first = norm(self, size), read(self), mix(self), write(self), add(self, 0)
        return block((*first, norm(self, size), *thinking, add(self, 5)), self.act_bytes, self.dtype, self.recompute)

    def output(self) -> Block:
        """The last block: scores for every letter and their loss; ``pooled``: one product of the first token."""
        last = (pool(self),) if self.pooled else (norm(self, self.norm_parameters * self.final_norm), score(self))
        return replace(block(last, self.act_bytes, self.dtype), aside=True)

    @property
    def norm_parameters(self) -> int:
        """Of one norm."""
        return (2 if self.norm == "layer" else 1) * self.hidden


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


def transformer(
    layers: int,
    hidden: int,
    heads: int,
    sequence: int,
    vocab: int,
    kv_heads: int | None = None,
    ffn: int | None = None,
    gated: bool = False,
    dtype: str = "bf16",
    batch: int = 1,
    *,
    recompute: str = "none",
    experts: int = 0,
    top: int = 1,
    routing: float = 1.0,
    causal: bool = True,
    flash: bool | float = False,
    dropout: bool = True,
    bias: bool = True,
    norm: str = "layer",
    positions: str = "learned",
    tied: bool = True,
    final_norm: bool = False,
    name: str | None = None,
) -> Model:
    """A transformer: embedding, ``layers`` layers, and scores for ``vocab`` letters.

        parameters = 12·l·h²·(1 + 13/(12·h) + (V + s)/(12·l·h))     (Narayanan et al. 2021, arXiv:2104.04473)
        FLOP       = 72·l·s·h²·(1 + s/(6·h) + V/(12·l·h))            per sample of s tokens

    - ``sequence``: tokens of a sample. ``kv_heads``: heads with keys and values of their own (None: all), a divisor
      of ``heads``.
    - ``ffn``: hidden units of the perceptron (None: 4·hidden); ``gated``: it has a third matrix, as in SwiGLU.
    - ``dtype``: of parameters, gradients and activations; with "fp8" layers multiply copies in fp8, and all else, with
      attention and the scores, is in bf16.
      ``batch``: samples of a global batch.
    - ``recompute``: "selective" computes attention itself again in the backward pass, "full" whole layers.
    - ``experts``: perceptrons of each layer, of which a token uses ``top``; ``routing``: how much more of the tokens
      the busiest rank gets than the mean one.
    - ``flash``: attention tile by tile, which keeps no scores (Dao et al. 2022, arXiv:2205.14135), or the share of the
      peak that it reaches. On an A100 the second version has 0.5 to 0.73, which True means, and the first 0.25 to 0.4
      (Dao 2023, arXiv:2307.08691); on an H100 the second has 0.35 (Shah et al. 2024, arXiv:2407.08608).
    - ``norm``: "layer" or "rms". ``positions``: "learned", "rotary" or "none". ``tied``: scores use the embedding's
      matrix (counted once, in the first block). ``final_norm``: count the 2·h parameters of the last norm, which the
      formula above leaves out. ``heads`` divide ``hidden``.

    Raises ValueError for knobs that make no transformer.

    >>> gpt3 = transformer(layers=96, hidden=12288, heads=96, sequence=2048, vocab=51200)
    >>> round(gpt3.parameters / 1e9, 1), round(gpt3.model_flops * 1536 / 1e18, 2)
    (174.6, 3.39)
    """
    made = Transformer(**locals())
    if hidden % heads:
        raise ValueError(f"heads divide hidden, which they share out; got hidden={hidden}, heads={heads}")
    return made.model()
