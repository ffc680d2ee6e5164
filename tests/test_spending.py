"""Money, energy and carbon: proportional to what they should be proportional to, and as published."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import Device, Model, catalog, metrics

CHIP = Device("a chip", flops=1e12, price=3.0, priced="2026-05", power=400.0, idle=100.0)


def a_run(ranks: int = 2, steps: int = 2, seconds: float = 1.0, device: Device | list[Device] = CHIP) -> sim.Run:
    """Data parallelism over a network that takes time: 3 s per block and step, and 1 MB to send."""
    model = Model.of_times(blocks=2, forward=seconds, backward=2 * seconds, parameters=250_000, batch=ranks)
    cluster = sim.cluster("single-switch", ranks=ranks, bandwidth=1e6, latency=0.0, device=device)
    return sim.simulate(sim.DataParallel(overlap=False), model, cluster, steps=steps)


def alone(seconds: float, device: Device, ranks: int = 1) -> sim.Run:
    """Computing all of the time."""
    model = Model.of_times(blocks=1, forward=seconds / 3, backward=2 * seconds / 3)
    return sim.simulate(sim.DataParallel(), model, sim.cluster("ideal", ranks=ranks, device=device), steps=1)


# ---------------------------------------------------------------- money


@given(ranks=st.integers(1, 4), steps=st.integers(1, 4), price=st.floats(0, 100))
@settings(max_examples=15, deadline=None)
def test_a_cost_is_proportional_to_price_time_and_ranks(ranks, steps, price):
    run = a_run(ranks, steps)
    assert run.cost(price) == pytest.approx(price * ranks * run.makespan / 3600)
    assert run.cost() == pytest.approx(run.cost(price=3.0)) and run.facts.priced == "2026-05"
    assert run.cost() == pytest.approx(steps * a_run(ranks, 1).cost())


def test_every_device_costs_its_own_price():
    run = a_run(3, 1, device=[CHIP, replace(CHIP, price=1.0, priced="2025"), replace(CHIP, price=0.5)])
    assert run.cost() == pytest.approx(4.5 * run.makespan / 3600) and run.facts.priced == "2026-05, 2025"


def test_without_a_price_it_says_so():
    run = a_run(2, 1, device=[CHIP, Device("a gift")])
    with pytest.raises(ValueError, match=r"nobody knows that of a gift: give price= in USD per device and hour"):
        run.cost()
    assert run.cost(price=1.0) > 0 and "cost" not in run.summary()
    with pytest.raises(ValueError, match="price is a finite number, at least 0; got price=-1"):
        run.cost(price=-1)
    with pytest.raises(ValueError, match="does not know its devices"):
        replace(run, facts=sim.run.Facts()).cost()


def test_prices_may_be_told_by_name():
    """A price for each device, by its name or its key; what is missing or unknown is said."""
    mixed = sim.cluster("single-switch", ranks=3, device=["a100-sxm-80gb", "h100-sxm", "h100-sxm"])
    run = sim.simulate(sim.DataParallel(), Model.of_times(blocks=1, batch=3), mixed, steps=1)
    prices = {"a100-sxm-80gb": 1.0, "NVIDIA H100 SXM": 2.5}
    assert run.cost(price=prices) == pytest.approx((1.0 + 2 * 2.5) * run.makespan / 3600)
    assert run.extrapolate(steps=10, price=prices).cost == pytest.approx(10 * run.cost(price=prices))
    with pytest.raises(ValueError, match=r"one for each device .*; got none for NVIDIA H100 SXM"):
        run.cost(price={"a100-sxm-80gb": 1.0})
    with pytest.raises(ValueError, match=r"names of this run's devices, 'NVIDIA A100 SXM 80GB', .*; got 'h100'"):
        run.cost(price={**prices, "h100": 1.0})
    with pytest.raises(ValueError, match=r"price\['h100-sxm'\] is a finite number, at least 0; got .*=-1"):
        run.cost(price={"a100-sxm-80gb": 1.0, "h100-sxm": -1})
    with pytest.raises(ValueError, match="does not know its own: give one price= for all"):
        replace(run, facts=sim.run.Facts()).cost(price=prices)


# ---------------------------------------------------------------- energy


@given(ranks=st.integers(1, 4), steps=st.integers(1, 3), idle=st.floats(0, 400), share=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_energy_is_between_idle_and_full_power(ranks, steps, idle, share):
    run = a_run(ranks, steps, device=replace(CHIP, idle=idle))
    low, high = (power * run.makespan * ranks for power in (idle, 400.0))
    assert low * (1 - 1e-12) <= run.energy <= high * (1 + 1e-12)
    assert run.energy == pytest.approx(low + (400 - idle) * sum(run.busy))
    assert metrics.energy(run, communicating=1) == pytest.approx(high)
    between = metrics.energy(run, communicating=share)
    assert between == pytest.approx(run.energy + share * (high - run.energy))


def test_every_device_draws_its_own_power():
    devices = [CHIP, replace(CHIP, power=200.0, idle=0.0)]
    run = a_run(2, 1, device=devices)
    first, second = run.busy
    assert run.energy == pytest.approx(100 * run.makespan + 300 * first + 200 * second)


def test_idle_power_that_nobody_knows_is_the_usual_share():
    run = a_run(2, 1, device=replace(CHIP, idle=None))
    assert 0.1 <= catalog.usual_idle() <= 0.15
    assert run.energy == a_run(2, 1, device=replace(CHIP, idle=400 * catalog.usual_idle())).energy


def test_without_a_power_it_says_so():
    run = a_run(2, 1, device=replace(CHIP, power=None))
    with pytest.raises(ValueError, match="energy needs the power of every device; nobody knows that of a chip"):
        _ = run.energy
    assert "energy" not in run.summary()
    with pytest.raises(ValueError, match="share of the power above idle, 0 to 1; got 2"):
        metrics.energy(a_run(), communicating=2)


# ---------------------------------------------------------------- carbon


def test_carbon_of_bloom():
    """Luccioni et al. 2022 (arXiv:2211.02001): 1 082 990 GPU-hours of A100 at 400 W and 57 g/kWh are 24.7 t."""
    device = replace(catalog.device("a100-sxm-80gb"), power=400.0)
    run = alone(1_082_990 * 3600 / 384, device, ranks=384)
    assert run.energy / 3.6e6 == pytest.approx(433_196, rel=1e-5)
    assert run.carbon(grid=57) == pytest.approx(24_690, rel=1e-3)


def test_carbon_of_gpt3():
    """Patterson et al. 2021 (arXiv:2104.10350): 10 000 V100 at 330 W for 14.8 days, PUE 1.10, 429 g/kWh: 552 t."""
    run = alone(14.8 * 86400, Device("a V100 as measured", power=330.0), ranks=1)
    assert 10_000 * run.energy / 3.6e9 * 1.10 == pytest.approx(1287, rel=3e-3)
    assert 10_000 * run.carbon(grid=429, pue=1.10) / 1000 == pytest.approx(552.1, rel=3e-3)


def test_grids_by_name():
    run = a_run()
    assert run.carbon("norway") < run.carbon("france") < run.carbon("world") < run.carbon("india")
    assert run.carbon("france", pue=1.5) == pytest.approx(1.5 * run.carbon(56))
    table = catalog.grids()
    assert (table["carbon_g_per_kWh"] > 0).all() and table["source"].str.len().min() > 10
    assert (table["date"].str[:2] == "20").all()
    with pytest.raises(ValueError, match=r"no grid is called 'mars'; the catalogue has world, .* a number in g/kWh"):
        run.carbon("mars")
    with pytest.raises(ValueError, match="pue is a finite number, at least 1"):
        run.carbon(100, pue=0.9)
