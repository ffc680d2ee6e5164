"""What tests of starting ranks share; their fixtures are in ``leaks``."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cloudpickle

from lab.launch import Place

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # ranks cannot import it
HOME = str(Path(__file__).parent.parent.parent)


def pids(place: Place) -> int:
    return os.getpid()


def children(parent: int | None = None) -> set[int]:
    """The worker processes of a parent, found by asking the system and not the launcher."""
    lines = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,args="], text=True).splitlines()
    found = [line.split(None, 2) for line in lines if "lab.rank_main" in line]
    return {int(pid) for pid, of, _ in found if int(of) == (parent or os.getpid())}


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def wait_for(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def script(folder: Path, text: str) -> subprocess.Popen[str]:
    file = folder / "script.py"
    file.write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, str(file)],
        env={**os.environ, "PYTHONPATH": HOME},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
