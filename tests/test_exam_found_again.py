"""What a second examiner found: files from spreadsheets, graphs that change, lookups in large tables, and the like."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
import torch
from torch import nn

import simulator as sim
from simulator import catalog
from simulator.clusters import Speed

# ---------------------------------------------------------------- files of one's own

HEAD = "key,kind,bf16_TFLOP_per_s,memory_GB,source\n"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """A table of devices."""
    path = folder / "mine.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_tables_from_spreadsheets_are_read(tmp_path: Path):
    """They begin with a byte order mark, and lines end with two characters."""
    row = 'chip,gpu,"100",16,"a, b"\n'
    chip = sim.device("chip", written(tmp_path, (HEAD + row).replace("\n", "\r\n"), "utf-8-sig"))
    assert chip == sim.device("chip", written(tmp_path, HEAD + row)) and chip.memory == 16e9


@pytest.mark.parametrize(
    "text, encoding, says",
    [
        (HEAD.replace("source", "memory_GB,source") + "chip,gpu,100,16,32,x\n", "utf-8", "'memory_GB' stands twice"),
        (HEAD + "chip,gpu,100,16,Prüfstand\n", "latin-1", r"mine\.csv is no text in UTF-8"),
        (HEAD + "chip,gpu,100,16,  \n", "utf-8", "source is absent"),
    ],
)
def test_tables_that_mislead_are_refused(tmp_path: Path, text: str, encoding: str, says: str):
    with pytest.raises(ValueError, match=says):
        sim.devices(written(tmp_path, text, encoding))


@pytest.mark.parametrize("bandwidth, achieved", [(10, 11), (0, 0)])
def test_data_get_no_more_of_a_link_than_there_is(tmp_path: Path, bandwidth: float, achieved: float):
    columns = "key,kind,link_bandwidth_GB_per_s,link_achieved_GB_per_s,source\n"
    with pytest.raises(ValueError, match="link_achieved is what data get of it"):
        catalog.link("card", written(tmp_path, f"{columns}card,nic,{bandwidth},{achieved},x\n"))


# ---------------------------------------------------------------- links of one's own


@pytest.mark.parametrize("name", ["single-switch", "fat-tree"])
@pytest.mark.parametrize("card", [Speed(-1.0), Speed(0.0), Speed(1e9, -1.0), Speed(1e9, 0.0, 2.0), Speed(float("nan"))])
def test_cards_that_cannot_be_are_refused(name: str, card: Speed):
    with pytest.raises(ValueError, match="a Speed"):
        sim.cluster(name, ranks=4, card=card)


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph])
def test_a_graph_that_is_changed_makes_another_cluster_and_leaves_the_first(kind: type[nx.Graph]):
    """Whether it is one's own, or a cluster's."""
    graph = kind(nx.star_graph(4).to_directed())
    nx.set_edge_attributes(graph, 1e9, "bandwidth")
    nx.set_edge_attributes(graph, 0.0, "latency")
    gradient = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=10**9)
    first = sim.Cluster.from_graph(nx.relabel_nodes(graph, {0: "hub", 4: 0}))
    for mine in (first.graph, nx.relabel_nodes(graph, {0: "hub", 4: 0})):
        nx.set_edge_attributes(mine, 0.5e9, "bandwidth")
        clusters = first, sim.Cluster.from_graph(mine)
        times = [sim.simulate(sim.DataParallel(), gradient, one, steps=1).makespan for one in clusters]
        assert times == pytest.approx([6.0, 12.0])


# ---------------------------------------------------------------- torch modules


def test_a_lookup_reads_its_rows_and_not_the_table():
    """The time of a forward pass is the same, however many rows are there to choose from."""
    chip = sim.Device("a chip", peaks={"fp32": 1e15}, bandwidth=1e12)
    ids = torch.zeros(32, 4, dtype=torch.long)
    for table in (nn.Embedding, nn.EmbeddingBag):
        times = []
        for rows in (10**3, 10**7):
            module = table(rows, 64, device="meta")
            times.append(sim.Model.from_torch(module, ids).blocks[0].forward.of(32, chip))
        assert times[0] == times[1] < 1e-6


class Places(nn.Module):
    """A forward that makes a tensor of its own, and a mask that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.mask = nn.Embedding(32, 16), torch.tril(torch.ones(9, 9))

    def forward(self, x):
        x = x + self.places(torch.arange(x.shape[1]))
        return (x @ x.transpose(1, 2)).masked_fill(self.mask == 0, 0.0) @ x


def test_tensors_that_a_module_makes_or_keeps_are_no_obstacle():
    module = Places()
    model = sim.Model.from_torch(module, torch.zeros(3, 9, 16))
    assert model.parameters == 32 * 16 and model.model_flops / 3 == 4 * 9 * 9 * 16
    assert module.mask.device.type == "cpu" and module(torch.zeros(1, 9, 16)).device.type == "cpu"


# ---------------------------------------------------------------- remedies


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_no_higher_stage_than_the_highest_is_a_remedy(stage: int):
    model, cards = sim.model("llama3-70b", batch=8), sim.cluster("dgx-h100", nodes=1)
    with pytest.raises(sim.OutOfMemoryError) as found:
        sim.simulate(sim.Hybrid(data=8, zero=stage), model, cards, steps=1)
    assert ("Sharded with a higher stage" in str(found.value)) == (stage < 3)


# ---------------------------------------------------------------- names


def test_lazy_layers_are_told_apart_from_those_that_know_their_shapes():
    module, sample = nn.Sequential(nn.LazyLinear(4), nn.ReLU()), torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"lazy layers have none yet; got Sequential: call it once, module\(sample\)"):
        sim.Model.from_torch(module, sample)
    module(sample)
    assert sim.Model.from_torch(module, sample).parameters == 8 * 4 + 4


@pytest.mark.parametrize("key", sim.models())
def test_the_name_that_a_model_shows_is_one_that_it_is_called_by(key: str):
    assert sim.model(sim.model(key).name) == sim.model(key)
