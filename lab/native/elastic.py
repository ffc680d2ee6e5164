"""Training that survives the death of a rank: torchrun starts all ranks anew, and they go on from a checkpoint.

    report = elastic.train(problem, "somewhere", ranks=2, steps=20, every=5, crash=(1, 12))
    report.restarts, report.began  # 1, [0, 10]

Rank 1 kills itself in step 12, in mid-training, as ``kill -9`` would. The ranks that remain cannot go on, for a process
group that has lost a member is beyond repair; torchrun notices, ends them, and starts as many again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from simulator import checks
from simulator.errors import RankError
from simulator.problem import Problem

from ..gang import environment
from ..place import INSIDE, Place

SHARE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Set to 1, or a restart often fails: the new ranks would meet in a store in which the old ones have left traces."""
PATIENCE = 10.0
"""Seconds that torchrun has to end its ranks before it is killed with them."""
BEGAN, PARAMETERS = "began.jsonl", "parameters.pickle"
"""What the ranks leave in the folder besides checkpoints: the step each attempt began at, and what was learned."""


@dataclass(frozen=True)
class Report:
    """How an elastic training went: parameters at the end, and the step at which each attempt began."""

    parameters: dict[str, Any]
    began: list[int]

    @property
    def restarts(self) -> int:
        """How often all ranks were started anew."""
        return len(self.began) - 1


def train(
    problem: Problem, folder: str | Path, ranks: int = 2, steps: int = 20, seed: int = 0, every: int = 5,
    restarts: int = 3, crash: tuple[int, int] | None = None, timeout: float = 120.0,
) -> Report:  # fmt: skip
    """Train with FSDP2 under torchrun, with a checkpoint in ``folder`` every ``every`` steps.

    - ``restarts``: how often torchrun may start the ranks anew.
    - ``crash``: (rank, step) at which a rank kills itself, the first time only.
    - ``timeout``: seconds that everything may take.

    Raises ValueError for a bad argument and when the folder's newest checkpoint is beyond ``steps``, RankError when the
    restarts were used up or the time is over.
    """
    _check(ranks, steps, every, restarts, crash)
    problem.check()
    place = _cleared(problem, folder, steps)
    asked = (problem, steps, seed, every, crash, str(place))
    (place / "asked.pickle").write_bytes(cloudpickle.dumps(asked))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
        "--max-restarts", str(restarts), "-m", "lab.native.elastic", str(place / "asked.pickle"),
    ]  # fmt: skip
    with _running(command) as process:
        _wait(process, timeout)
    return Report(cloudpickle.loads((place / PARAMETERS).read_bytes()), _began(place))


def main(asked: str) -> None:
    """One rank, as torchrun starts it."""
    from .. import torchrun

    problem, steps, seed, every, crash, folder = cloudpickle.loads(Path(asked).read_bytes())
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    world = int(os.environ["WORLD_SIZE"])
    found = torchrun.run_here(_rank, world, problem, steps, seed, every, crash if not attempt else None, folder)
    if os.environ["RANK"] == "0":
        from simulator.holdings import assemble

        parameters = assemble(problem, seed, [piece for one in found for piece in one.pieces])
        Path(folder, PARAMETERS).write_bytes(cloudpickle.dumps(parameters))


def _rank(
    place: Place, problem: Problem, steps: int, seed: int, every: int, crash: tuple[int, int] | None, folder: str
) -> Any:
    from .checkpoint import STRATEGY, newest, train_rank

    if place.rank == 0:
        with Path(folder, BEGAN).open("a") as file:
            file.write(json.dumps(newest(folder)) + "\n")
    if crash is not None and crash[0] == place.rank:
        problem = _crashing(problem, crash[1])
    return train_rank(place, STRATEGY, problem, steps, seed, folder, every)


def _crashing(problem: Problem, when: int) -> Problem:
    """The same problem, but asking for the batch of step ``when`` is deadly."""
    from dataclasses import replace

    def data(seed: int, step: int) -> Any:
        if step == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return problem.data(seed, step)

    return replace(problem, data=data)


# ---------------------------------------------------------------- torchrun


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A torchrun that ends with whatever it started, and no sooner: an interrupt of the terminal does not reach it."""
    inherited = {**environment(), SHARE: "1"}
    del inherited[INSIDE]  # torchrun starts these ranks, not this package
    process = subprocess.Popen(
        command, env=inherited, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                _kill(process)
        if process.stdout is not None:
            process.stdout.close()


def _kill(process: subprocess.Popen[str]) -> None:
    ranks = psutil.Process(process.pid).children(recursive=True)  # it gives each a session of its own
    process.kill()
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):
            rank.kill()
    process.wait()


def _wait(process: subprocess.Popen[str], timeout: float) -> None:
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RankError(0, 0, "elastic training", f"torchrun was not ready within {timeout:g} s") from None
    if process.returncode:
        raise RankError(0, 0, "elastic training", f"torchrun gave up with code {process.returncode}:\n{said[-4000:]}")


def _cleared(problem: Problem, folder: str | Path, steps: int) -> Path:
    """The folder with its checkpoints, which training goes on from, without the notes of an earlier training."""
    from . import checkpoint

    checkpoint.check(problem, folder, steps)
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    for note in (BEGAN, PARAMETERS):
        (place / note).unlink(missing_ok=True)
    return place


def _began(place: Path) -> list[int]:
    return [json.loads(line) for line in (place / BEGAN).read_text().splitlines()]


def _check(ranks: int, steps: int, every: int, restarts: int, crash: tuple[int, int] | None) -> None:
    checks.whole("ranks", ranks, least=1)
    checks.whole("steps", steps, least=1)
    checks.whole("every", every, least=1, of="in steps")
    checks.whole("restarts", restarts)
    if crash is not None and not (0 <= crash[0] < ranks and 0 <= crash[1] < steps):
        raise ValueError(f"a crash is a rank below {ranks} and a step below {steps}; got crash={crash!r}")


if __name__ == "__main__":
    main(sys.argv[1])
