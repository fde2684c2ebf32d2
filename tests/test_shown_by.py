"""docs/determinism.md and docs/fidelity.md: every line of their tables names tests, and these are there."""
import ast
import os
import re

import pytest

from configs.errors import HOME


def rows_of(page):
    """The lines of the page's tables, without their heads."""
    with open(os.path.join(HOME, "docs", page)) as f:
        return [line for line in f.read().splitlines() if line.startswith("| ") and not line.startswith("| what |")]


SAME_TWICE, SAME_AS_OTHERS = rows_of("determinism.md"), rows_of("fidelity.md")


def title(row):
    return row.split("|")[1].strip()


def named_in(row):
    """[(path, name of a test)] in the last column."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.split("|")[-2])


def functions_of(path):
    """{name: source with its decorators} of the functions of a file, and the source of what stands outside of them."""
    with open(os.path.join(HOME, path)) as f:
        source = f.read()
    lines, functions, rest = source.splitlines(), {}, []
    for node in ast.parse(source).body:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        text = "\n".join(lines[first - 1:node.end_lineno])
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = text
        else:
            rest.append(text)
    return functions, "\n".join(rest)


@pytest.mark.parametrize("row", SAME_TWICE + SAME_AS_OTHERS, ids=title)
def test_every_line_names_tests_that_are_there(row):
    assert named_in(row)
    for path, name in named_in(row):
        assert name in functions_of(path)[0], f"{path} has no {name}"


@pytest.mark.parametrize("row", SAME_AS_OTHERS, ids=title)
def test_every_tolerance_stands_in_each_test_that_shows_it(row):
    tolerances = row.split("|")[3]
    numbers = re.findall(r"`([\d.e-]+)`", tolerances)
    assert numbers or re.search("bit|same", tolerances)
    for path, name in named_in(row):
        functions, rest = functions_of(path)
        for number in numbers:
            assert re.search(rf"(?<![\w.]){re.escape(number)}(?![\w.])", functions[name] + rest), (name, number)


def test_all_tables_are_read():
    assert (len(SAME_TWICE), len(SAME_AS_OTHERS)) == (27, 43)
