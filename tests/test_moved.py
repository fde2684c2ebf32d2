"""docs/moved.md sends nobody to a module that is not there."""
import os
import re

import pytest

from tests.helpers.runs import ROOT


def moves():
    """[(old module, new module)] of the table of modules."""
    with open(os.path.join(ROOT, "docs", "moved.md")) as f:
        table = f.read().split("Python modules")[1]
    found = []
    for row in re.findall(r"^\| (`.*) \| (.*`) \|$", table, re.M):  # not those that begin "parts of"
        old, new = (re.findall(r"`([\w.]+)`", cell) for cell in row)
        if row[1].startswith("in "):
            new = [f"{new[0]}.{name.rpartition('.')[2]}" for name in old]
        assert len(old) == len(new), row
        found += zip(old, new)
    return found


def is_module(name):
    return os.path.exists(os.path.join(ROOT, *name.split(".")) + ".py")


@pytest.mark.parametrize("old, new", moves())
def test_new_place_is_there_and_the_old_one_is_not(old, new):
    assert not is_module(old)
    assert is_module(new) or is_module(new.rpartition(".")[0])  # the second: a function of a module


def test_the_table_was_read():
    assert len(moves()) > 40 and ("order", "datasets.window_order") in moves()
