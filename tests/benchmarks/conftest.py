import json
import os
from unittest import mock

import pytest

from benchmarks import every
from tests.helpers.runs import ROOT


@pytest.fixture
def measure(capfd, monkeypatch):
    """Function (benchmark, *arguments): runs its main() in this process; returns (its lines, the JSON of the last).

    benchmarks.every has to understand that JSON, too.
    """
    monkeypatch.chdir(ROOT)  # the processes that a benchmark starts find it there

    def run(benchmark, *arguments):
        with mock.patch.dict(os.environ):  # only what it sets there is undone
            assert benchmark.main(list(map(str, arguments))) == 0
        lines = capfd.readouterr().out.splitlines()
        found = json.loads(lines[-1])
        for each in every.BENCHMARKS.values():
            if benchmark.__name__ == f"benchmarks.{each.module}":
                assert all(map(every._line, each.rows(found)))
        return lines, found
    return run
