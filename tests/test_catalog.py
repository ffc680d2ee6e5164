"""The catalogue: every number has a unit and a source, and a file of one's own is held to the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import simulator as sim
from simulator import catalog
from simulator.catalog.units import QUANTITIES, canonical, quantity

OWN = """
[chip]
kind = "gpu"
name = "My chip"
bf16_TFLOP_per_s = 100
matmul_TFLOP_per_s = 60
memory_GiB = 16
memory_bandwidth_GB_per_s = 900
kernel_overhead_us = 4
power_W = 200
price_USD_per_h = 1.5
price_date = "2026-05"
price_source = "a bill"
source = "data sheet"
unconfirmed = "kernel_overhead"
"""


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text)
    return path


def test_every_entry_has_a_source_and_a_kind():
    table = sim.devices()
    assert len(table) == 35 and table.index.is_unique
    assert set(table["kind"]) == {"gpu", "tpu", "npu", "nic", "bus"}
    assert all(table["source"].str.len() > 5) and all(table["date"].str[:3] == "202")
    assert table["price_date"].notna().equals(table["price_USD_per_h"].notna())
    assert (table["confirmed"] == table["unconfirmed"].isna()).all()
    assert 0 < table["confirmed"].sum() < len(table)


def test_numbers_are_dense_and_for_one_direction():
    """A24: "600 GB/s" counts both directions; and peaks are those without sparsity."""
    table = sim.devices()
    assert table.loc["a100-sxm-80gb", "link_bandwidth_B_per_s"] == 300e9
    assert table.loc["a100-sxm-80gb", "link_achieved_B_per_s"] / 300e9 == pytest.approx(0.78, abs=0.01)
    assert table.loc["h100-sxm", "bf16_FLOP_per_s"] == 989e12 and table.loc["l4", "fp8_FLOP_per_s"] == 242e12
    assert table.loc["ib-hdr", "link_bandwidth_B_per_s"] == 200e9 / 8
    achieved = table.dropna(subset=["link_achieved_B_per_s"])
    assert (achieved["link_achieved_B_per_s"] <= achieved["link_bandwidth_B_per_s"]).all()


def test_every_card_has_a_latency():
    """A message without any would make small collectives free; what nobody confirmed says so."""
    for key, entry in catalog.own("links").items():
        if entry.texts["kind"] == "nic":
            pair = sim.cluster("single-switch", ranks=2, card=key)
            assert pair.latency(0, 1) == pytest.approx(entry["link_latency"]) and entry["link_latency"] >= 1e-6, key
    found = [catalog.find(key) for key in ("efa-p4d", "efa-p5", "efa-trn1")]
    assert [one["link_latency"] for one in found] == pytest.approx([15e-6, 10e-6, 10e-6])
    assert all("issue" in one.texts["source"] and one.unconfirmed == ("link_latency",) for one in found)


@pytest.mark.parametrize(
    "key, fraction",
    [
        ("v100-sxm2-32gb", 0.71),
        ("a100-sxm-80gb", 0.87),
        ("h100-sxm", 0.80),
        ("h100-sxm-500w", 0.69),
        ("b200-sxm", 0.78),
        ("mi300x", 0.51),
    ],
)
def test_measured_fractions_of_peak(key: str, fraction: float):
    device = sim.device(key)
    assert device.efficiency == pytest.approx(fraction, abs=0.006)
    assert device.flops == pytest.approx(device.efficiency * device.peak("fp16"))


def test_a_device_that_nobody_measured_reaches_the_usual_fraction():
    device = sim.device("t4")
    assert device.efficiency is None
    assert 0.51 < device.flops / device.peak("float16") < 0.87
    with pytest.raises(ValueError, match="NVIDIA T4 has peaks for fp16, fp32, none for 'bf16'"):
        device.peak("bf16")


def test_every_accelerator_of_the_catalogue_is_a_device():
    table = sim.devices()
    for key in table.index[table["kind"].isin(["gpu", "tpu", "npu"])]:
        device = sim.device(key)
        assert device.memory == table.loc[key, "memory_B"] and device.bandwidth > 1e11
        assert device == sim.device(key) and hash(device) == hash(sim.device(key))
        assert replace(device, price=2.0).price == 2.0


def test_devices_by_hand_are_as_before():
    device = sim.Device("slow", flops=1e9)
    assert device.peak("bf16") == device.peak("fp32") == 1e9 and device.memory is None and device.overhead == 0
    assert sim.Device(flops=1e9, peaks={"bfloat16": 2e9}).peak("bf16") == 2e9
    for bad in (
        dict(flops=0),
        dict(peaks={"bf17": 1.0}),
        dict(peaks={"bf16": -1.0}),
        dict(memory=-1),
        dict(overhead=-1e-6),
        dict(price=float("nan")),
    ):
        with pytest.raises(ValueError, match="got"):
            sim.Device(**bad)


def test_a_file_of_one_s_own(tmp_path: Path):
    path = written(tmp_path, OWN)
    device = sim.device("chip", path)
    assert device == sim.Device(
        "My chip", 60e12, {"bf16": 100e12}, 16 * 2.0**30, 900e9, 0.6, 4e-6, 1.5, "2026-05", 200.0
    )
    table = sim.devices(path)
    assert len(table) == 36 and table.index[0] == "chip" and not table.loc["chip", "confirmed"]
    assert sim.device("h100-sxm", path) == sim.device("h100-sxm")
    csv = "key,kind,fp32_GFLOP_per_s,source\nsmall,cpu,200,measured\n"
    assert sim.device("small", written(tmp_path, csv, "mine.csv")).peak("fp32") == 200e9


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("memory_GiB", "memory", "'memory' has no unit; write memory_B or memory_MB"),
        ("memory_GiB", "memory_Gigs", "the key 'memory_Gigs' is unknown; close to it are memory_"),
        ("power_W", "powr_W", "the key 'powr_W' is unknown; close to it are power_W"),
        ('source = "data sheet"\nun', "un", "source is absent"),
        ('kind = "gpu"', "", "kind is absent"),
        ('price_date = "2026-05"', "", "a price has a price_date and a price_source"),
        ("= 100", '= "fast"', "bf16_TFLOP_per_s is a number; got 'fast'"),
        ("= 100", "= -1", "bf16_TFLOP_per_s is a finite number, at least 0"),
        ("memory_GiB = 16", "memory_GiB = 16\nmemory_GB = 16", "memory is given twice"),
        ('"kernel_overhead"', '"fp8"', "unconfirmed names numbers of the entry; it has no fp8"),
        ("[chip]", "chip = 1\n[other]", "every entry is a table"),
    ],
)
def test_files_that_say_too_little_or_too_much(tmp_path: Path, old: str, new: str, says: str):
    assert old in OWN
    with pytest.raises(ValueError, match=says):
        sim.devices(written(tmp_path, OWN.replace(old, new)))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"mine.toml is no TOML: .*line 1"):
        sim.device("chip", written(tmp_path, "[chip\n", "mine.toml"))


def test_tables_that_are_wrong(tmp_path: Path):
    for text, says in (
        ("key,kind,source\n,gpu,x\n", "every row has a key"),
        ("key,kind,source\na,gpu,x,y\n", "every row has a key"),
        ("key,kind,source\na,gpu,x\na,gpu,x\n", "every key stands once"),
    ):
        with pytest.raises(ValueError, match=says):
            catalog.read(written(tmp_path, text, "mine.csv"))
    with pytest.raises(ValueError, match=r"a catalogue is a .toml or a .csv file"):
        catalog.read(tmp_path / "mine.json")


def test_names_that_are_not_there():
    with pytest.raises(ValueError, match="nothing in the catalogue is called 'a100'; it has a100-sxm-40gb, a100"):
        sim.device("a100")
    with pytest.raises(ValueError, match="a device computes; 'ib-hdr' is a nic"):
        sim.device("ib-hdr")
    with pytest.raises(ValueError, match="nothing is known of the link_bandwidth of 'trainium2'"):
        catalog.link("trainium2")


def test_units():
    for name, units in QUANTITIES.items():
        for unit, factor in units.items():
            assert quantity(f"{name}_{unit}", "here") == (name, factor)
        assert quantity(canonical(name), "here") == (name, 1.0)
    assert quantity("link_bandwidth_Gbit_per_s", "here") == ("link_bandwidth", 1e9 / 8)
