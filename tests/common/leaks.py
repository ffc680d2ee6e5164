"""Fixtures that look for what ranks leave behind; a pytest plugin of the files that start ranks."""

from __future__ import annotations

import tempfile

import pytest

from lab.launch import run_ranks
from lab.pool import POOL

from .launching import children, descriptors, pids


@pytest.fixture(scope="module")
def baseline() -> int:
    """The number of open descriptors once torch has opened those that it keeps."""
    run_ranks(pids, 1)
    POOL.clear()
    return descriptors()


@pytest.fixture
def no_leaks(baseline, tmp_path, monkeypatch):
    """Nothing is left behind but warm ranks, and nothing at all once those are ended."""
    POOL.clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    idle = {worker.process.pid for gang in POOL.idle for worker in gang.workers}
    assert children() == idle
    POOL.clear()
    assert children() == set()
    assert descriptors() <= baseline  # ports are descriptors too
    assert list(tmp_path.iterdir()) == []
