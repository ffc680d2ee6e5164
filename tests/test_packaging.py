"""One list of dependencies, arrows that point one way, and a package that imports quickly."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = ["jupyterlab", "ipywidgets", "pytorch", "matplotlib", "networkx", "simpy", "pytest", "nbval"]
PIP_NAME = {"pytorch": "torch"}  # conda's name -> pip's


def requirements(*lists):
    return [Requirement(text) for texts in lists for text in texts]


def read(name):
    return (ROOT / name).read_text()


def pins():
    lines = [line for name in ("constraints", "constraints-extras") for line in read(f"{name}.txt").splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def tracked(*suffixes):
    """Files of the repository, new ones included, by ending."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an archive instead of a clone
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


# ---------------------------------------------------------------- one list of dependencies


def test_no_dependency_is_listed_twice():
    names = [r.name for r in requirements(PROJECT["dependencies"], *EXTRAS.values())]
    assert len(names) == len(set(names))


def test_every_dependency_has_a_range():
    assert [r.name for r in requirements(PROJECT["dependencies"], *EXTRAS.values()) if not r.specifier] == []


def test_constraints_pin_every_dependency_inside_its_range():
    wanted = requirements(PROJECT["dependencies"], *EXTRAS.values())
    assert sorted(pins()) == sorted(r.name for r in wanted)
    assert [str(r) for r in wanted if not r.specifier.contains(pins()[r.name])] == []


def test_environment_names_the_asked_packages_and_leaves_versions_to_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, by_pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"] and environment["channels"] == ["conda-forge"]
    assert packages == [f"python{PROJECT['requires-python']}", "pip", *ASKED]
    assert by_pip == {"pip": ["-e ."]}


@pytest.mark.parametrize("asked", ASKED)
def test_asked_packages_are_in_pyproject_too(asked):
    names = {r.name for r in requirements(PROJECT["dependencies"], EXTRAS["test"])}
    assert PIP_NAME.get(asked, asked) in names


def test_the_licence_is_there():
    text = (ROOT / PROJECT["license-files"][0]).read_text()
    assert PROJECT["license"] == "Apache-2.0" and "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


# ---------------------------------------------------------------- setting up

FAKES = {
    "missing": (None, "was not found"),
    "too old": ('case "$1" in -V) echo Python 3.9.1;; *) exit 1;; esac', "needs Python 3.11 or newer"),
    "without venv": ('case "$2" in *venv*) exit 1;; esac', "apt install python3-venv"),
}


@pytest.mark.parametrize("case", FAKES)
def test_make_says_what_is_wrong_with_a_python(case, tmp_path):
    script, expected = FAKES[case]
    python = tmp_path / "python3"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    made = subprocess.run(["make", "demo", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0 and expected in made.stdout, made.stdout + made.stderr
    assert not (tmp_path / ".venv").exists()


# ---------------------------------------------------------------- importing

IMPORT = """
import json, sys, time
start = time.process_time()
import {module}
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""


def imported(module):
    """CPU seconds that an import takes in a fresh process, whatever else runs, and the modules then loaded."""
    code = IMPORT.format(module=module)
    return json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)


def test_the_simulator_imports_quickly_and_alone():
    """Quickly: in less than twice what pandas takes, beside it in the same run (typically 0.8 of it)."""
    took, modules = min(imported("simulator") for _ in range(3))
    yardstick, _ = min(imported("pandas") for _ in range(3))
    assert {"torch", "numpy", "matplotlib", "pandas", "lab"}.isdisjoint(modules)
    assert took < 2 * yardstick


def test_the_command_line_starts_without_heavy_packages():
    _, modules = imported("lab.cli")
    assert {"torch", "numpy", "matplotlib", "pandas"}.isdisjoint(modules)


def imports(path):
    """Absolute names of the modules that a file imports anywhere, relative imports resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join((*above, node.module or "")).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def offenders(folder, *forbidden):
    """(file, module) wherever a file below ``folder`` imports something forbidden."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no files in {folder}"
    names = [(path.name, name) for path in files for name in imports(path)]
    return [(file, name) for file, name in names if any(f"{name}.".startswith(f"{bad}.") for bad in forbidden)]


def test_the_simulator_never_imports_lab():
    assert offenders("simulator", "lab") == []


def test_strategies_know_no_machine():
    assert offenders("simulator/strategies", "simulator.virtual", "simpy", "torch.distributed", "lab") == []


# ---------------------------------------------------------------- texts

TEXTS = (".py", ".md", ".toml", ".txt", ".yml", ".ipynb", ".cfg", "Makefile", "run", ".json", ".csv")
HOME = re.compile("/(home|Users|root)" + "/[a-z]")


def test_no_file_names_a_place_on_somebodys_machine():
    found = {str(path.relative_to(ROOT)): path.read_text(errors="ignore") for path in tracked(*TEXTS)}
    assert found
    assert [name for name, text in found.items() if HOME.search(text) or f"{ROOT}/" in text] == []


def test_links_in_the_texts_lead_somewhere():
    for page in tracked(".md"):
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


README = re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", README, ids=range(len(README)))
def test_the_code_in_the_readme_runs(code, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(code)
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout, ran.stderr
