"""``transformer``: a transformer of any size as a Model, from the knobs that people know it by."""

from __future__ import annotations

from ..model import Model
from .attention import Latent
from .transformer import Transformer


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
    latent: Latent | None = None,
    experts: int = 0,
    top: int = 1,
    shared: int = 0,
    dense: int = 0,
    dense_ffn: int | None = None,
    gate_bias: bool = False,
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
    - ``latent``: multi-head latent attention, a ``simulator.models.Latent``, whose heads need not divide ``hidden``
      (DeepSeek-AI 2024, arXiv:2405.04434); "selective" then also makes queries, keys and values again.
    - ``experts``: perceptrons of each layer, of which a token uses ``top``; ``routing``: how much more of the tokens
      the busiest rank gets than the mean one. Every token also uses ``shared`` more of them. The first ``dense`` layers
      have no experts, but one perceptron of ``dense_ffn`` hidden units (None: ``ffn``). ``gate_bias``: one more number
      for each expert, which makes even how many tokens it gets (DeepSeek-AI 2024, arXiv:2412.19437, section 2.1.2).
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
    if hidden % heads and latent is None:
        raise ValueError(f"heads divide hidden, which they share out; got hidden={hidden}, heads={heads}")
    return made.model()
