"""Graphs for decentralised training: whom a rank averages with, and how fast averages spread.

A *mixing matrix* W says that rank i replaces its parameters by ``Σ_j W_ij x_j``. Rows sum to 1, so that what all agree
on stays; columns do too, so that the average stays. With ρ the largest modulus of W's other eigenvalues, a round
brings the ranks of a symmetric or circulant W closer by ρ at least: ``‖x − x̄‖`` becomes at most ``ρ‖x − x̄‖`` (Lian et
al. 2017, arXiv:1705.09056). ``1 − ρ`` is the *spectral gap*.

- "ring": two neighbours. "torus": four, on a grid as square as the number of ranks allows.
- "exponential": the ranks 1, 2, 4, … further on. "one-peer": one of these per round, in turn (Assran et al. 2019,
  arXiv:1811.10792; Ying et al. 2021, arXiv:2110.13363).
- "complete": everybody.

Undirected graphs have the weights of Metropolis and Hastings, ``1/(1 + max(degree_i, degree_j))`` (Xiao, Boyd and Lall
2005): 1/3 on a ring, 1/5 on a torus, 1/n on a complete graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import cos, isclose, isqrt, pi
from typing import TYPE_CHECKING, Any

from .. import checks

if TYPE_CHECKING:
    import numpy as np

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Mixing:
    """One round of averaging: ``rows[i][j]`` is the weight of rank j's parameters for rank i, itself first."""

    rows: tuple[Mapping[int, float], ...]

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each rank, who else wants its parameters."""
        found: list[list[int]] = [[] for _ in self.rows]
        for reader, row in enumerate(self.rows):
            for source in row:
                if source != reader:
                    found[source].append(reader)
        return tuple(map(tuple, found))

    @property
    def matrix(self) -> np.ndarray:
        """W as an array ``[ranks, ranks]``."""
        import numpy as np

        full = np.zeros((len(self.rows), len(self.rows)))
        for i, row in enumerate(self.rows):
            full[i, list(row)] = list(row.values())
        return full


@lru_cache(maxsize=64)
def rounds(graph: str | Matrix, ranks: int) -> tuple[Mixing, ...]:
    """The rounds of a graph by name, or of a matrix; step t makes round ``t % len(rounds)``.

    Raises ValueError for a matrix of another size.

    >>> rounds("ring", 4)[0].rows[0]
    {0: 0.333..., 1: 0.333..., 3: 0.333...}
    >>> [sorted(mixing.rows[0]) for mixing in rounds("one-peer", 8)]
    [[0, 1], [0, 2], [0, 4]]
    """
    checks.whole("ranks", ranks, least=1)
    if isinstance(graph, str):
        return GRAPHS[str(as_graph(graph))](ranks)
    if len(graph) != ranks:
        raise ValueError(f"a mixing matrix has a row for each rank along the axis; got {len(graph)} for {ranks} ranks")
    return (Mixing(tuple(_itself_first(i, row) for i, row in enumerate(graph))),)


def _itself_first(rank: int, row: Sequence[float]) -> dict[int, float]:
    return {rank: row[rank], **{j: weight for j, weight in enumerate(row) if weight and j != rank}}


# ---------------------------------------------------------------- the gallery


def ring(ranks: int) -> tuple[Mixing, ...]:
    """Rank i and ranks i ± 1."""
    return (metropolis([{(i - 1) % ranks, (i + 1) % ranks} for i in range(ranks)]),)


def torus(ranks: int) -> tuple[Mixing, ...]:
    """A grid that closes on itself, as square as possible; of a prime number of ranks, a ring."""
    height = next(side for side in range(isqrt(ranks), 0, -1) if ranks % side == 0)
    width = ranks // height

    def around(rank: int) -> set[int]:
        row, column = divmod(rank, width)
        steps = ((0, 1), (0, -1), (1, 0), (-1, 0))
        return {(row + down) % height * width + (column + right) % width for down, right in steps}

    return (metropolis([around(rank) for rank in range(ranks)]),)


def complete(ranks: int) -> tuple[Mixing, ...]:
    """Everybody: a round is an all-reduce."""
    return (metropolis([set(range(ranks)) for _ in range(ranks)]),)


def exponential(ranks: int) -> tuple[Mixing, ...]:
    """Rank i reads from i + 1, i + 2, i + 4, …, all with the same weight."""
    return (_onward(ranks, powers(ranks)),)


def one_peer(ranks: int) -> tuple[Mixing, ...]:
    """Rank i reads from i + 1 in the first round, from i + 2 in the second, then i + 4, …, and from the start again."""
    return tuple(_onward(ranks, [power]) for power in powers(ranks)) or (_onward(ranks, []),)


GRAPHS: dict[str, Callable[[int], tuple[Mixing, ...]]] = {
    "ring": ring,
    "torus": torus,
    "exponential": exponential,
    "one-peer": one_peer,
    "complete": complete,
}


def powers(ranks: int) -> list[int]:
    """The powers of 2 below the number of ranks, ceil(log2 n) of them.

    >>> powers(12)
    [1, 2, 4, 8]
    """
    return [2**k for k in range((ranks - 1).bit_length())]


def _onward(ranks: int, distances: Sequence[int]) -> Mixing:
    """Each rank reads from those that stand so far on, with equal weights."""
    weight = 1 / (1 + len(distances))
    return Mixing(tuple({(i + away) % ranks: weight for away in (0, *distances)} for i in range(ranks)))


def metropolis(neighbours: Sequence[Iterable[int]]) -> Mixing:
    """The weights ``1/(1 + max(degree_i, degree_j))`` of an undirected graph, and what is left of 1 for oneself.

    >>> metropolis([{1}, {0, 2}, {1}]).rows[0]
    {0: 0.666..., 1: 0.333...}
    """
    others = [sorted({*found} - {i}) for i, found in enumerate(neighbours)]
    rows = []
    for i, found in enumerate(others):
        weights = {j: 1 / (1 + max(len(found), len(others[j]))) for j in found}
        rows.append({i: 1 - sum(weights.values()), **weights})
    return Mixing(tuple(rows))


# ---------------------------------------------------------------- graphs of one's own


def as_graph(graph: Any) -> str | Matrix:
    """A graph by name, a networkx graph or a mixing matrix: as a name or as a matrix of tuples.

    A networkx graph is undirected, with ranks 0 to n−1 as nodes. Raises ValueError unless it is that, or unless a
    matrix is doubly stochastic, and unless every rank reaches every other.

    >>> as_graph([[0.5, 0.5], [0.5, 0.5]])
    ((0.5, 0.5), (0.5, 0.5))
    """
    if isinstance(graph, str):
        if graph not in GRAPHS:
            raise ValueError(f"the graphs of gossip are {', '.join(map(repr, GRAPHS))}; got graph={graph!r}")
        return graph
    import networkx as nx

    if isinstance(graph, nx.Graph):
        if graph.is_directed() or set(graph) != set(range(len(graph))):
            raise ValueError(f"a graph of gossip is undirected, with the nodes 0 to n-1; got {graph}: give its matrix")
        graph = metropolis([graph[node] for node in range(len(graph))]).matrix
    matrix = _doubly_stochastic(graph)
    edges = [(j, i) for i, row in enumerate(matrix) for j, weight in enumerate(row) if weight]
    if not nx.is_strongly_connected(nx.DiGraph(edges)):
        raise ValueError("every rank hears of every other, if through others; got a graph of several parts: join them")
    return matrix


def _doubly_stochastic(rows: Any) -> Matrix:
    """Weights as tuples of floats, or ValueError."""
    try:
        matrix = tuple(tuple(checks.number("weight", float(weight), least=0) for weight in row) for row in rows)
    except TypeError:
        raise ValueError(f"a graph is a name, a networkx graph or a matrix of weights; got graph={rows!r}") from None
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        raise ValueError(f"a mixing matrix has as many columns as rows; got rows of {[*map(len, matrix)]} weights")
    for what, lines in (("row", matrix), ("column", zip(*matrix))):
        for i, line in enumerate(lines):
            if not isclose(sum(line), 1, abs_tol=1e-9):
                raise ValueError(f"the rows and columns of a mixing matrix sum to 1; {what} {i} sums to {sum(line):g}")
    return matrix


# ---------------------------------------------------------------- how fast averages spread


def spectral_gap(matrix: np.ndarray) -> float:
    """1 − ρ of a mixing matrix ``[ranks, ranks]``: ρ is the largest modulus of its eigenvalues but the one of the mean.

    >>> round(spectral_gap(rounds("ring", 16)[0].matrix), 5)
    0.05075
    """
    import numpy as np

    return 1 - float(np.abs(np.linalg.eigvals(matrix - 1 / len(matrix))).max())


def ring_gap(ranks: int) -> float:
    """1 − (1/3 + 2/3·cos(2π/n)): the spectral gap of a ring of n ≥ 4 ranks, O(1/n²); that of 3 is 1.

    >>> [round(ring_gap(n), 5) for n in (8, 16, 64)]
    [0.19526, 0.05075, 0.00321]
    """
    return 1 - (1 / 3 + 2 / 3 * cos(2 * pi / checks.whole("ranks", ranks, least=3)))


def torus_gap(side: int) -> float:
    """2/5·(1 − cos(2π/m)): the spectral gap of an m × m torus, m ≥ 3, O(1/m²).

    >>> round(torus_gap(4), 5), round(torus_gap(8), 5)
    (0.4, 0.11716)
    """
    return 2 / 5 * (1 - cos(2 * pi / checks.whole("side", side, least=3)))


def exponential_gap(ranks: int) -> float:
    """2/(1 + ceil(log2 n)): the spectral gap of the exponential graph of an even number of ranks (Ying et al. 2021).

    >>> [round(exponential_gap(n), 5) for n in (8, 16, 64)]
    [0.5, 0.4, 0.28571]
    """
    return 2 / (1 + len(powers(checks.whole("ranks", ranks, least=2))))


def one_peer_error(ranks: int) -> float:
    """How far a weight is from 1/n after the t = ceil(log2 n) rounds of one-peer: max(2/2^t − 1/n, 1/n − 1/2^t).

    After t rounds, 2^t paths of weight 1/2^t end at each rank, one or two of them from every other. So the average is
    exact if and only if n is a power of 2 (Ying et al. 2021, arXiv:2110.13363).

    >>> one_peer_error(16), round(one_peer_error(12), 4)
    (0.0, 0.0417)
    """
    paths = 2 ** len(powers(checks.whole("ranks", ranks, least=1)))
    return 0.0 if paths == ranks else max(2 / paths - 1 / ranks, 1 / ranks - 1 / paths)
