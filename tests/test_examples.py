"""Examples in docstrings and documents are run, and give what they say; the catalogue's knobs are those of the code."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import networkx
import pytest

import lab
import simulator
from simulator import aggregation, compression, rules, schedules

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = "docs/strategies.md"
DOCS = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
REAL = ("docs/native.md",)
"""Pages that start real ranks."""
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

MODULES = [
    module.name
    for package in (simulator, lab)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name != "lab.rank_main"
]


@pytest.mark.parametrize("name", [*MODULES, "simulator", "lab"])
def test_the_examples_of(name):
    module = importlib.import_module(name)
    names = {**vars(simulator), **vars(module), "nx": networkx}
    failed, _ = doctest.testmod(module, globs=names, optionflags=FLAGS)
    assert not failed


# ---------------------------------------------------------------- documents


def snippets(page: str) -> Iterator[tuple[int, str]]:
    """The Python snippets of a page: the line where each begins, and its text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, found.start(1)), found[1]


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in REAL else ()) for page in DOCS])
def test_the_snippets_of(page):
    """They share their names, as in a notebook. Outputs that stand in the text are compared."""
    names: dict[str, object] = {"__name__": "__main__"}
    for line, snippet in snippets(page):
        if ">>>" in snippet:
            example = doctest.DocTestParser().get_doctest(snippet, names, f"{page} {line}", page, line)
            failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(example, clear_globs=False)
            assert not failed
            names = example.globs
        else:
            exec(compile("\n" * line + snippet, page, "exec"), names)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *DOCS])
def test_links_lead_somewhere(page):
    """Files that are there, and headings of theirs, as GitHub makes anchors of them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page} links to {file}"
        assert not heading or heading in anchors(target), f"{page} links to {file}#{heading}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------- the catalogue

HOMES = (simulator, compression, aggregation, rules, schedules)


def calls() -> dict[str, ast.Call]:
    """What the catalogue writes as calls of something that this package has, by name; each with all its knobs once."""
    found = {}
    for text in re.findall(r"`([A-Z]\w+\([^`]*\))`", (ROOT / CATALOGUE).read_text(encoding="utf-8")):
        try:
            call = ast.parse(text, mode="eval").body
        except SyntaxError:  # such as Sharded(2 or …)
            continue
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        found.setdefault(call.func.id, call)
    return found


def home(name: str) -> ModuleType:
    return next(module for module in HOMES if hasattr(module, name))


@pytest.mark.parametrize("name", [name for name in calls() if any(hasattr(module, name) for module in HOMES)])
def test_knobs_in_the_catalogue_are_those_of_the_code(name):
    """Where a name first stands, all its knobs do, with their defaults; "rule" is said of all strategies at once."""
    written, thing = calls()[name], getattr(home(name), name)
    knobs = inspect.signature(thing).parameters
    strategy = home(name) is simulator
    wanted = {knob: one.default for knob, one in knobs.items() if not (strategy and knob == "rule")}
    names = {key: value for module in HOMES for key, value in vars(module).items()}
    required = [argument.id for argument in written.args if isinstance(argument, ast.Name)]
    said = {keyword.arg: eval(ast.unparse(keyword.value), names) for keyword in written.keywords}
    assert dict.fromkeys(required, inspect.Parameter.empty) | said == wanted


def test_the_catalogue_has_every_strategy_compressor_and_rule():
    """A new one stands in docs/strategies.md, with its knobs."""
    public = {*simulator.strategies.__all__, *compression.__all__, *rules.__all__}
    public -= {"Compressor", "Payload", "Rule", "aggregation", "graphs", "ratios", "alarm", "clip_factor"}
    assert public - set(calls()) == set()
