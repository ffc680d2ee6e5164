"""Networks of all kinds, at random."""

from __future__ import annotations

from typing import Any

import networkx as nx
from hypothesis import strategies as st

import simulator as sim
from simulator.clusters import Box, Rails, Speed
from simulator.clusters.grid import Grid
from simulator.clusters.mesh import Mesh
from simulator.clusters.star import Star
from simulator.clusters.tiers import Tiers

speeds = st.builds(Speed, st.floats(1.0, 100.0), st.sampled_from([0.0, 0.5]), st.sampled_from([1.0, 0.9]))


@st.composite
def graphs(draw: st.DrawFn) -> sim.Cluster:
    """Ranks and switches, joined at random so that everybody reaches everybody; some ranks share a machine."""
    ranks, switches = draw(st.integers(2, 6)), draw(st.integers(0, 3))
    nodes: list[object] = [*range(ranks), *(f"switch {index}" for index in range(switches))]
    graph: Any = nx.DiGraph() if draw(st.booleans()) else nx.Graph()
    pairs = [(node, nodes[draw(st.integers(0, index - 1))]) for index, node in enumerate(nodes[1:], 1)]
    pairs += draw(st.lists(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), max_size=6))
    for a, b in pairs:
        for ends in {(a, b), (b, a)} if a != b else ():
            speed = draw(speeds)
            graph.add_edge(*ends, bandwidth=speed.bandwidth, latency=speed.latency, efficiency=speed.efficiency)
    for rank in range(ranks):
        graph.nodes[rank]["machine"] = draw(st.integers(0, 2))
    return sim.Cluster.from_graph(graph, seed=draw(st.integers(0, 3)))


@st.composite
def wired(draw: st.DrawFn) -> sim.Cluster:
    """A star, tiers, a torus, machines on rails, or a mesh, of any speeds."""
    n, one, two, three = draw(st.integers(2, 9)), draw(speeds), draw(speeds), draw(speeds)
    each = st.lists(speeds, min_size=1, max_size=n).map(tuple)
    wiring = draw(
        st.sampled_from(
            [
                Star(n, draw(each), draw(each)),
                Tiers(n, draw(st.integers(1, 4)), draw(st.integers(1, 3)), one, two),
                Grid(draw(st.sampled_from([(2,), (5,), (2, 3), (3, 3), (2, 2, 2)])), one),
                Rails((Box(one, two, three),) * draw(st.integers(2, 3)), 2, draw(st.integers(1, 2)), 2, 1, one),
                Mesh(n, one),
            ]
        )
    )
    library = draw(st.sampled_from([None, "nccl"])) if isinstance(wiring, Rails) else None
    return sim.Cluster("any", wiring.ranks, wiring, library=library)


networks = st.one_of(graphs(), wired())
