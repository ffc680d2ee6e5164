"""Engines of other frameworks: ``make test-extras`` runs these tests, each file in an environment of its own."""

import os
import uuid
from importlib.util import find_spec

import numpy as np
import psutil
import pytest

import lab
import simulator as sim

NEEDED = {"tensorflow": "tensorflow", "ray": "ray", "mpi": "mpi4py", "deepspeed": "deepspeed"}
collect_ignore = [f"test_{name}.py" for name, module in NEEDED.items() if find_spec(module) is None]

STEPS, SEED = 5, 3


class Checks:
    """What holds for every engine."""

    def run(self, engine, strategy, problem, ranks=2, steps=STEPS):
        """A run that takes no longer than it may and tells nothing but its Run."""
        return lab.execute(strategy, problem, ranks=ranks, steps=steps, seed=SEED, engine=engine, timeout=90)

    def single(self, problem, rule=None):
        """The truth: one process."""
        return sim.simulate(sim.Single(rule=rule), problem, sim.cluster("ideal", ranks=1), steps=STEPS, seed=SEED)

    def virtual(self, strategy, problem, ranks):
        """The same on the virtual clock."""
        return sim.simulate(strategy, problem, sim.cluster("ideal", ranks=ranks), steps=STEPS, seed=SEED)

    def apart(self, run, truth):
        """The largest difference of any parameter."""
        assert run.parameters.keys() == truth.parameters.keys()
        return max(float(np.abs(run.parameters[name] - truth.parameters[name]).max()) for name in truth.parameters)

    def size(self, problem):
        """Bytes of all parameters."""
        return sum(array.nbytes for array in problem.parameters(0).values())


@pytest.fixture
def checks():
    return Checks()


@pytest.fixture(autouse=True)
def _nothing_is_left_over(monkeypatch):
    """Whatever a framework starts ends with its run, also what left its parent; the environment tells what is ours."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TWO_CLOCKS_TEST", mark)
    yield
    ours = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TWO_CLOCKS_TEST") == mark]
    _, alive = psutil.wait_procs([process for process in ours if process.pid != os.getpid()], timeout=15)
    assert [(process.pid, process.cmdline()) for process in alive] == []
