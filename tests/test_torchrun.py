"""Ranks that torchrun starts: two agents on loopback, as if on two hosts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import simulator as sim
from lab import torchrun
from lab.place import INSIDE

HOME = str(Path(__file__).parent.parent)
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from lab import torchrun
from lab.groups import waiting_time

def total(place, factor):
    tensor = torch.tensor([place.rank + 1.0])
    torch.distributed.all_reduce(tensor)
    place.board.note(0, "AllReduce")
    return place.rank, place.ranks, place.hosts, factor * tensor.item()

def broken(place):
    raise ValueError("no good")

assert torchrun.inside()
results = torchrun.run_here(total, 2, 10.0)
assert torchrun.run_here(lambda place: place.rank, 2, timeout=50.0) == [0, 1]  # again, in the same process group
assert waiting_time().total_seconds() == 50
errors = []
for function, ranks in ((total, 3), (broken, 2)):
    try:
        torchrun.run_here(function, ranks)
    except ValueError as error:
        errors.append([str(error), *getattr(error, "__notes__", [])])
Path(sys.argv[1], str(torch.distributed.get_rank())).write_text(json.dumps([results, errors]))
"""


EXECUTE = """
import json, sys
from pathlib import Path
import torch
import lab, simulator as sim

problem = sim.problem("digits-mlp", dtype="float64")
runs = [lab.execute(strategy, problem, steps=3, seed=1) for strategy in (sim.DataParallel(), sim.Pipeline())]
digests = [run.digest() for run in runs]
assert [run.cluster for run in runs] == ["2 processes on 2 machines"] * 2
Path(sys.argv[1], str(torch.distributed.get_rank())).write_text(json.dumps([[run.losses for run in runs], digests]))
"""


def test_two_agents_give_every_rank_all_results(tmp_path):
    for rank, (results, errors) in enumerate(told_by_two_agents(SCRIPT, tmp_path)):
        assert results == [[0, 2, 2, 30.0], [1, 2, 2, 30.0]]
        assert "ranks is the number of processes it started, here 2; got ranks=3" in errors[0][0]
        assert errors[1] == ["no good", f"(rank {rank}, step 0, last instruction: none yet)"]


def test_execute_under_two_agents_gives_every_rank_the_same_run(tmp_path):
    problem = sim.problem("digits-mlp", dtype="float64")
    truth = sim.simulate(sim.Single(), problem, sim.cluster("ideal", ranks=1), steps=3, seed=1)
    (losses, digests), (_, others) = told_by_two_agents(EXECUTE, tmp_path)
    assert digests == others
    assert losses == [pytest.approx(truth.losses, rel=1e-9)] * 2


def told_by_two_agents(script: str, folder: Path) -> list[list]:
    """What each rank of a script wrote, run by two agents of torchrun."""
    (folder / "script.py").write_text(textwrap.dedent(script))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agents = [agent(folder, node, port) for node in range(2)]
    try:
        for process in agents:
            out, _ = process.communicate(timeout=90)
            assert process.returncode == 0, out
    finally:
        for process in agents:
            process.kill()
    return [json.loads((folder / str(rank)).read_text()) for rank in range(2)]


def agent(folder: Path, node: int, port: int) -> subprocess.Popen[str]:
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
         "--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", str(port),
         str(folder / "script.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": HOME, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_inside_is_told_by_the_environment(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", INSIDE):
        monkeypatch.delenv(name, raising=False)
    assert not torchrun.inside()
    with pytest.raises(ValueError, match="here 1; got ranks=2"):
        torchrun.run_here(print, 2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert torchrun.inside()
    monkeypatch.setenv(INSIDE, "1")  # a rank of ours, even when torchrun started its parent
    assert not torchrun.inside()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_port_is_named_within_the_timeout(rank):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = "import lab, simulator as sim; lab.execute(sim.DataParallel(), sim.problem('digits-mlp'), timeout=3)"
    joining = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": HOME, **joining},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert f"RankError: rank {rank} could not join the others at 127.0.0.1:{port} within 3 s" in done.stderr
