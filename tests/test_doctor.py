"""The doctor: it looks at everything, and what is broken comes with a remedy."""

import tomllib
from itertools import islice
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lab import doctor
from lab.doctor import Check

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@pytest.fixture(scope="module")
def found():
    return {check.name: check for check in doctor.checks()}


def test_here_everything_needed_works(found):
    assert [str(check) for check in found.values() if check.needed and not check.ok] == []


def test_every_dependency_is_looked_at(found):
    listed = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert {Requirement(text).name for text in listed} <= set(found)


def test_two_real_ranks_added_up(found):
    assert "[3.0, 3.0]" in found["two real ranks"].found


def test_what_only_informs_is_never_needed(found):
    remarks = {name for name, check in found.items() if not check.needed}
    assert remarks == {"machine", "memory", "cuda", "network namespaces"}


def test_every_finding_says_something(found):
    assert all(check.name and check.found and (check.ok or check.remedy) for check in found.values())


@pytest.mark.parametrize(
    ("name", "wanted", "module", "words"),
    [
        ("no-such-package", ">=1", "no_such_package", "not installed"),
        ("simpy", ">=99", "simpy", "wanted >=99"),
        ("simpy", ">=4", "simpy_is_damaged", "cannot be imported"),
    ],
)
def test_a_broken_dependency_comes_with_its_remedy(name, wanted, module, words):
    check = doctor.dependency(name, wanted, module)
    assert not check.ok and check.needed and words in check.found and "pip install" in check.remedy


@pytest.mark.parametrize(
    ("version", "inside"), [("2.13.0+cpu", True), ("2.6", True), ("2.5.1", False), ("3.0", False), ("2.14.0a0", True)]
)
def test_versions_in_a_range(version, inside):
    assert doctor.within(version, ">=2.6,<3") is inside


def test_modules_go_by_other_names_than_packages():
    names = doctor.import_names()
    assert (names["scikit-learn"], names["torch"], names["simpy"]) == ("sklearn", "torch", "simpy")


def test_a_check_that_raises_is_a_finding():
    def adding_up() -> Check:
        raise RuntimeError("no")

    check = doctor.guarded(adding_up)
    assert (check.name, check.ok, check.needed) == ("adding up", False, True) and "RuntimeError: no" in check.found


def test_what_a_check_itself_needs_may_be_missing_too(monkeypatch):
    def without_packaging(found: str, wanted: str) -> bool:
        raise ModuleNotFoundError("No module named 'packaging'")

    monkeypatch.setattr(doctor, "within", without_packaging)
    _, _, python = islice(doctor.examine(), 3)
    assert (python.name, python.ok, python.needed) == ("python", False, True) and "packaging" in python.found


def test_the_report_shows_remedies_and_tells_faults_from_remarks(monkeypatch, capsys):
    fine, slow = Check("a", True, "fine"), Check("b", False, "slow", "wait", needed=False)
    looked = [fine, slow, Check("c", False, "gone", "mend")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(looked))
    assert doctor.doctor() is False
    shown = capsys.readouterr().out
    assert "BROKEN  c" in shown and "-> mend" in shown and "note    b" in shown and "1 of 2 needed things" in shown
    monkeypatch.setattr(doctor, "examine", lambda: iter(looked[:2]))
    assert doctor.doctor() is True
