"""Transformers that several files of tests look at."""

from __future__ import annotations

import simulator as sim
from simulator.cutting import Cut, local

GPT3 = dict(layers=96, hidden=12288, heads=96, sequence=2048, vocab=51200)

SMALL = dict(layers=4, hidden=256, heads=8, sequence=64, vocab=512)
A100 = sim.Device("A100", peaks={"bf16": 312e12, "fp32": 19.5e12}, bandwidth=1.555e12, efficiency=0.869, overhead=3e-6)


def layer(shape, cut=None, **knobs):
    return local(sim.transformer(**shape, **knobs), cut or Cut()).blocks[1]
