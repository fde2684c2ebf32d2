"""docs/determinism.md: every line of its tables names tests, and these are there."""
import ast
import os
import re

import pytest

from configs.errors import HOME

with open(os.path.join(HOME, "docs", "determinism.md")) as page:
    ROWS = [line for line in page.read().splitlines() if line.startswith("| ") and not line.startswith("| what |")]


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_every_line_names_tests_that_are_there(row):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.split("|")[-2])
    assert named
    for path, name in named:
        with open(os.path.join(HOME, path)) as f:
            there = {node.name for node in ast.parse(f.read()).body if isinstance(node, ast.FunctionDef)}
        assert name in there, f"{path} has no {name}"


def test_both_tables_are_read():
    assert len(ROWS) == 27
