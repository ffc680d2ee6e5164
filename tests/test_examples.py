"""The examples in docstrings are run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import networkx
import pytest

import lab
import simulator

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
    failed, _ = doctest.testmod(module, globs=names, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert not failed
