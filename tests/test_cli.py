"""The command line: it helps, starts quickly, and tells mistakes in words."""

import csv
import json
import socket
import sys

import pytest

import lab.demo
import lab.doctor
from lab import cli
from simulator.errors import RankError


def status(*arguments):
    """Exit status of a command line, whether returned or raised by argparse."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["doctor", "--help"], ["lab", "--help"]])
def test_help_helps(arguments, capsys):
    assert status(*arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) > 4


def test_version(capsys):
    assert status("--version") == 0
    assert capsys.readouterr().out.startswith("twoclocks ")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["demo", "--ranks", "two"]])
def test_wrong_usage_shows_the_usage(arguments, capsys):
    assert status(*arguments) == 2
    assert capsys.readouterr().err.startswith("usage: twoclocks")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "nonsense"], ["nonsense", "digits-mlp"]),
        (["--ranks", "1"], ["--ranks 1", "at least 2"]),
        (["--steps", "0"], ["--steps 0", "at least 2"]),
    ],
)
def test_mistakes_name_the_value_and_the_choices(arguments, words, capsys, tmp_path):
    assert status("demo", "--out", str(tmp_path / "new"), *arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("twoclocks: ") and "Traceback" not in told
    assert all(word in told for word in words), told
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_is_told(capsys, tmp_path):
    (tmp_path / "taken").write_text("")
    assert status("demo", "--out", str(tmp_path / "taken")) == 2
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (RankError(1, 7, "AllReduce Grads(0)", "was killed"), 2, "rank 1 was killed"),
        (OSError("no space left"), 2, "no space left"),
        (ModuleNotFoundError("No module named 'torch'"), 2, "twoclocks doctor"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_end_without_a_traceback(raised, code, words, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(lab.demo, "demo", fail)
    assert status("demo") == code
    told = capsys.readouterr().err
    assert told.startswith("twoclocks: ") and words in told and "Traceback" not in told


def test_faults_of_the_program_itself_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(lab.demo, "demo", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        status("demo")


@pytest.mark.parametrize(("works", "code"), [(True, 0), (False, 1)])
def test_doctor_tells_by_its_status(works, code, monkeypatch):
    monkeypatch.setattr(lab.doctor, "doctor", lambda: works)
    assert status("doctor") == code


# ---------------------------------------------------------------- twoclocks lab


def test_lab_binds_to_loopback_and_opens_the_notebooks():
    command = cli.jupyter_command(cli.notebooks(), None)
    assert command[0] == sys.executable and "--ServerApp.ip=127.0.0.1" in command
    assert list(cli.notebooks().glob("*.ipynb"))


def test_lab_refuses_a_port_that_is_taken_or_none(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert status("lab", "--port", str(taken.getsockname()[1])) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert status("lab", "--port", "70000") == 2
    assert "70000" in capsys.readouterr().err


def test_lab_says_where_it_looked_for_notebooks(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "lab" / "cli.py"))
    assert status("lab") == 2
    assert str(tmp_path / "notebooks") in capsys.readouterr().err


# ---------------------------------------------------------------- twoclocks demo


@pytest.mark.slow
def test_the_demo_writes_what_it_promises(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert status("demo", "--steps", "3") == 0
    folder, shown = tmp_path / "demo", capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120 and "demo/table.csv" in shown
    with open(folder / "table.csv") as file:
        assert len(list(csv.DictReader(file))) == 4
    for name in ("timelines.png", "losses.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    traces = sorted(folder.glob("*.json"))
    assert len(traces) == 8 and all(json.loads(trace.read_text())["traceEvents"] for trace in traces)
