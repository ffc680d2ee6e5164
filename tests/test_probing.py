"""What the probe measures: on a machine that is known, it finds what that machine is."""

from __future__ import annotations

import numpy as np
import pytest

import simulator as sim
from lab.probing import Probe, network_of

LATENCY, BANDWIDTH = 1e-4, 1e9  # s, B/s


def found(ranks: int, **overheads: object) -> sim.Cluster:
    """What the probe finds on a machine with these overheads."""
    real = sim.Overheads(rendezvous=True, message=2e-4, **overheads)  # type: ignore[arg-type]
    cluster = sim.Cluster.flat(ranks, BANDWIDTH, LATENCY, overheads=real)
    noise = sim.noise.gamma(shape=100)  # so that no two ranks send at the very same time
    return network_of(sim.simulate(Probe(), sim.problem("digits-mlp"), cluster, steps=30, seed=3, noise=noise))


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_probe_finds_latency_bandwidth_and_what_a_send_takes(ranks: int):
    cluster = found(ranks, message_byte=1e-10)
    assert cluster.latency(0, 1) == pytest.approx(LATENCY, rel=1e-6)
    assert cluster.bandwidth(cluster.route(0, 1)[0]) == pytest.approx(BANDWIDTH, rel=1e-6)
    seen = cluster.overheads
    assert (seen.message, seen.message_byte) == pytest.approx((2e-4, 1e-10), rel=1e-6)
    delays = [*seen.send_delays, *seen.crossed_delays, *seen.message_delays, *seen.late_delays]
    assert max(delays) < 1e-9  # a machine without chance has none


def test_the_probe_tells_apart_what_is_late_and_what_crosses():
    """Each kind of delay is found where it was put, as often as it is drawn."""
    seen = found(2, send_delays=(0.0, 1e-5), crossed_delays=(3e-3,), late_delays=(0.0, 7e-3)).overheads
    sends = np.array([*seen.send_delays, *seen.crossed_delays])
    assert set(np.round(sends, 7)) == {0.0, 1e-5, 3e-3}
    assert np.sum(sends > 1e-3) == len(seen.crossed_delays) > 25  # one of two
    assert set(np.round(seen.message_delays, 7)) == {0.0}
    late = np.array(seen.late_delays)
    assert max(late[late < 1e-3]) < 1e-9 and 0.3 < np.mean(late > 1e-3) < 0.7
    assert late[late > 1e-3] == pytest.approx(7e-3, abs=1.01 * LATENCY)  # during the Send no latency more
