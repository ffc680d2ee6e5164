"""Runs as values and as files: what is saved comes back, and what is not a run is refused and never executed."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import Device
from simulator.errors import RunFileError
from simulator.run import Facts, Run, Sample, Spans

texts = st.text(max_size=12)
finite = st.floats(allow_nan=False)
few = st.integers(-(2**53), 2**53)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
devices = st.builds(
    Device,
    texts,
    flops=st.floats(1, 1e16),
    peaks=st.dictionaries(st.sampled_from(["fp32", "bf16"]), st.floats(1, 1e16)),
    price=st.none() | st.floats(0, 99),
    priced=st.none() | texts,
)
facts = st.builds(
    Facts,
    st.floats(0, 1e20),
    st.floats(0, 1e20),
    st.none() | st.integers(1, 4096),
    st.none() | st.sampled_from(["fp32", "bf16"]),
    st.lists(st.tuples(devices, st.integers(1, 9)), max_size=2).map(tuple),
)


@st.composite
def runs(draw: st.DrawFn, numbers: st.SearchStrategy[float] = finite) -> Run:
    """Any run at all, odd texts and numbers included."""
    ranks = draw(st.integers(1, 4))
    rank = st.integers(0, ranks - 1)
    spans = Spans()
    for span in draw(
        st.lists(st.tuples(rank, texts, texts, st.integers(-1, 9), numbers, numbers, numbers), max_size=6)
    ):
        spans.add(*span)
    arrays = st.lists(finite, max_size=4).map(np.array) | st.just(np.float32(1.5)) | st.just(np.eye(3, 2, dtype="f4").T)
    return Run(
        clock=draw(st.sampled_from(["virtual", "wall"])),
        strategy=draw(texts),
        workload=draw(texts),
        cluster=draw(texts),
        ranks=ranks,
        workers=tuple(draw(st.sets(rank))),
        steps=draw(st.integers(0, 9)),
        seed=draw(few),
        batch=draw(st.integers(0, 99)),
        asynchronous=draw(st.booleans()),
        spans=spans,
        samples=draw(st.lists(st.builds(Sample, rank, few, numbers, texts, st.floats(), few), max_size=4)),
        outcomes=tuple(draw(st.lists(st.lists(few, max_size=3), max_size=ranks))),
        parameters=draw(st.dictionaries(texts, arrays, max_size=3)),
        clock_error=draw(finite),
        versions=draw(st.dictionaries(texts, texts, max_size=2)),
        notes=draw(st.dictionaries(texts, texts, max_size=2)),
        facts=draw(facts),
    )


def a_run(**more) -> Run:
    spans = Spans()
    spans.add(0, "compute", "Forward 0 mb0", 0, 0.0, 1.0)
    spans.add(1, "to 0", "Send Act(1, mb 0) to world 0", 0, 1.0, 1.5, 64.0)
    spans.add(1, "compute", "Backward 0 mb0", 0, 1.0, 3.0)
    run = Run(
        clock="virtual",
        strategy="Single()",
        workload="w",
        cluster="c",
        ranks=2,
        workers=(0, 1),
        steps=1,
        seed=0,
        batch=8,
        spans=spans,
        samples=[Sample(1, 0, 3.0, "loss", 0.25)],
    )
    return replace(run, **more)


# ---------------------------------------------------------------- what comes back


@quick
@given(run=runs())
def test_what_is_saved_comes_back(run: Run, tmp_path: Path):
    run.save(tmp_path / "run")
    again = Run.load(tmp_path / "run")
    assert again == run and again.digest() == run.digest() and hash(again) == hash(run)
    assert again.spans == run.spans and again.outcomes == run.outcomes and again.workers == run.workers
    assert repr(again.samples) == repr(run.samples)  # NaN equals itself as text
    assert (again.versions, again.notes, again.clock_error) == (run.versions, run.notes, run.clock_error)
    assert again.facts == run.facts
    assert {k: v.dtype for k, v in again.parameters.items()} == {k: v.dtype for k, v in run.parameters.items()}
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "run").read_bytes()


@quick
@given(run=runs(st.floats(-1e9, 1e9)))
def test_every_run_can_be_looked_at(run: Run, tmp_path: Path):
    assert "\n" not in repr(run).replace(run.strategy, "")
    run.to_chrome_trace(tmp_path / "trace")
    json.loads((tmp_path / "trace").read_text("utf-8"))


def test_the_file_is_exactly_at_the_path_and_plain_npz(tmp_path: Path):
    a_run(parameters={"w": np.eye(2)}).save(str(tmp_path / "my.run"))
    assert [path.name for path in tmp_path.iterdir()] == ["my.run"]
    with open(tmp_path / "my.run", "rb") as file, np.load(file, allow_pickle=False) as arrays:
        assert json.loads(arrays["header"].tobytes())["version"] == 3
        assert arrays["spans"].shape == (3, 7) and np.array_equal(arrays["parameter_0"], np.eye(2))


def test_another_process_writes_the_same_bytes(tmp_path: Path):
    program = "import sys; sys.path[:0] = ['tests', '.']; import test_run; test_run.a_run().save(sys.argv[1])"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "theirs")], check=True, cwd=root)
    a_run().save(tmp_path / "ours")
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()


def test_the_digest_covers_observations_only():
    run = a_run(parameters={"w": np.zeros(2)})
    assert run == replace(run, versions={"torch": "9"}, notes={"busy": "yes"}, facts=Facts(model_flops=1e9))
    others = [
        replace(run, seed=1),
        replace(run, clock="wall"),
        replace(run, samples=[]),
        replace(run, outcomes=([1],)),
        replace(run, parameters={"w": np.zeros(2, dtype="f4")}),
        replace(run, parameters={"w": np.array([0.0, 1e-300])}),
        replace(run, spans=Spans()),
    ]
    assert run not in others and len({other.digest() for other in others}) == len(others)
    assert run != "a run"


def test_a_run_says_what_it_is():
    assert repr(a_run()) == "<Run of Single() on the virtual clock: 2 ranks, 1 step in 3 s, loss 0.25>"


@pytest.mark.parametrize("bad", [{"clock": "sand"}, {"workers": (2,)}, {"workers": (-1,)}])
def test_impossible_runs_are_refused(bad: dict):
    with pytest.raises(ValueError, match=r"got (clock|workers)="):
        a_run(**bad)


# ---------------------------------------------------------------- failing to write


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run"
    a_run().save(path)
    monkeypatch.setattr(np.lib.format, "write_array", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        a_run(seed=1).save(path)
    assert Run.load(path) == a_run() and list(tmp_path.iterdir()) == [path]


def test_parameters_that_are_no_numbers_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="arrays of numbers; got w of dtype object"):
        a_run(parameters={"w": np.array([print])}).save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what is refused


def refused(path: Path, content: bytes, match: str | None = None) -> None:
    path.write_bytes(content)
    with pytest.raises(RunFileError, match=match) as caught:
        Run.load(path)
    assert str(path) in str(caught.value)


def changed(path: Path, arrays: dict[str, object] | None = None, **header: object) -> bytes:
    """The file at ``path`` with other header entries and other arrays (None takes one away)."""
    with np.load(path) as file:
        members = dict(file)
    entries = json.loads(members["header"].tobytes()) | header
    members["header"] = np.frombuffer(json.dumps(entries).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in (members | (arrays or {})).items() if value is not None})
    return buffer.getvalue()


@quick
@given(content=st.binary(max_size=300))
def test_garbage_is_refused(content: bytes, tmp_path: Path):
    refused(tmp_path / "run", content, "not a whole file")


@quick
@given(data=st.data())
def test_a_truncated_file_is_refused(data: st.DataObject, tmp_path: Path):
    a_run().save(tmp_path / "run")
    whole = (tmp_path / "run").read_bytes()
    refused(tmp_path / "cut", whole[: data.draw(st.integers(0, len(whole) - 1))])


@settings(quick, max_examples=200)
@given(data=st.data())
def test_a_changed_byte_is_refused_or_harmless(data: st.DataObject, tmp_path: Path):
    a_run().save(tmp_path / "run")
    content = bytearray((tmp_path / "run").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "changed").write_bytes(content)
    with contextlib.suppress(RunFileError):
        assert Run.load(tmp_path / "changed") == a_run()


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["parameter_0", "header", "spans", "outcomes", "stowaway"])
def test_pickles_are_never_opened(name: str, tmp_path: Path):
    mark = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()
    mark.unlink()
    a_run(parameters={"w": np.eye(2)}).save(tmp_path / "run")
    with np.load(tmp_path / "run") as file:
        members = dict(file) | {name: np.array([Bomb(mark)], dtype=object)}
    with open(tmp_path / "bomb", "wb") as file:
        np.savez(file, **members)
    refused(tmp_path / "bomb", (tmp_path / "bomb").read_bytes())
    refused(tmp_path / "bomb", pickle.dumps(Bomb(mark)))
    assert not mark.exists()


def test_what_is_wrong_is_named(tmp_path: Path):
    path = tmp_path / "run"
    a_run(parameters={"w": np.eye(2)}).save(path)
    other = tmp_path / "other"
    refused(other, changed(path, version=2), "schema version 2, this program reads 3")
    refused(other, changed(path, format="cake"), "does not say 'two clocks run'")
    refused(other, changed(path, ranks="two"), "ranks is of type int; got 'two'")
    refused(other, changed(path, ranks=True), "ranks is of type int")
    refused(other, changed(path, clock="sand"), "got clock='sand'")
    refused(other, changed(path, streams=["compute"]), "whole numbers below 1")
    refused(other, changed(path, ranks=1, workers=[0]), "whole numbers below 1")
    refused(other, changed(path, labels=[1, 2, 3]), "labels is a list of str")
    refused(other, changed(path, extra=1), "has no extra")
    refused(other, changed(path, facts=None), "not a whole file")
    refused(other, changed(path, facts={**Facts().to_json(), "model_flops": "many"}), "model_flops is a finite number")
    refused(other, changed(path, facts={**Facts().to_json(), "extra": 1}), "extra")
    refused(other, changed(path, {"extra": np.eye(2)}), "nothing else stands in a run file; got extra")
    refused(other, changed(path, {"parameter_0": None}), "parameter_0")
    refused(other, changed(path, {"spans": np.eye(2)}), "a span is 7 numbers")
    refused(other, changed(path, {"outcome_counts": np.array([3, 1])}), "as many outcomes as counted")
    refused(other, changed(path, {"header": None}), "no header")


def test_foreign_archives_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "b.zip", (tmp_path / "a.zip").read_bytes(), "no header")
    np.save(tmp_path / "array.npy", np.eye(2))
    refused(tmp_path / "array.npy", (tmp_path / "array.npy").read_bytes())


def test_a_missing_file_is_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Run.load(tmp_path / "nowhere")


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(OSError, match=r"folder that is there; got .*nope"):
        a_run().save(tmp_path / "nope" / "x.run")
    with pytest.raises(OSError, match="which is a folder"):
        a_run().save(tmp_path)
    with pytest.raises(OSError, match="which is a folder"):
        a_run().save(".")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- traces


def test_a_trace_holds_every_span_on_its_own_track(tmp_path: Path):
    samples = [Sample(1, 0, 3.0, "loss", 0.25), Sample(1, 0, 3.5, "loss", float("nan")), Sample(1, 0, 3.0, "own", 1.0)]
    a_run(samples=samples, workers=(1,)).to_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text(), parse_constant=pytest.fail)
    events = trace["traceEvents"]
    names = {
        (e["pid"], e.get("tid")): e["args"]["name"] for e in events if e["name"] in ("process_name", "thread_name")
    }
    assert names == {
        (0, None): "rank 0 (server)",
        (1, None): "rank 1",
        (0, 1): "compute",
        (1, 1): "compute",
        (1, 2): "to 0",
    }
    spans = [(e["pid"], e["tid"], e["name"], e["ts"], e["dur"], e["args"]) for e in events if e["ph"] == "X"]
    assert spans[0] == (0, 1, "Forward 0 mb0", 0.0, 1e6, {"step": 0, "bytes": 0.0})
    assert spans[1][1:] == (2, "Send Act(1, mb 0) to world 0", 1e6, 0.5e6, {"step": 0, "bytes": 64.0})
    assert [(e["ts"], e["args"]) for e in events if e["ph"] == "C"] == [(3e6, {"loss": 0.25})]


def test_neighbours_do_not_overlap_in_a_trace(tmp_path: Path):
    spans, time = Spans(), 0.1
    for _ in range(500):
        spans.add(0, "compute", "Forward 0 mb0", 0, time, time := time + 1 / 3000.7)
    a_run(spans=spans).to_chrome_trace(tmp_path / "trace")
    events = [e for e in json.loads((tmp_path / "trace").read_text())["traceEvents"] if e["ph"] == "X"]
    edges = [(round(e["ts"] * 1000), round(e["ts"] * 1000) + round(e["dur"] * 1000)) for e in events]
    assert all(end == start for (_, end), (start, _) in pairwise(edges))
    assert events[0]["ts"] == 0.0


def test_importing_runs_loads_no_numbers_library():
    program = "import sys, simulator.run; print(sorted({'numpy', 'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"
