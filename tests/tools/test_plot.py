"""tools/plot.py, as its user calls it."""
import json
import subprocess
import sys

import pytest

from configs.errors import UserError
from tests.helpers.runs import ROOT
from tools import plot


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 10, "loss": 5.0, "tokens": 70}) + "\n")
    return str(folder)


@pytest.mark.parametrize("name, begins", [("a.png", b"\x89PNG"), ("new/a.svg", b"<?xml")])
def test_runs_become_one_picture_of_the_ending_s_kind(run, tmp_path, name, begins, capsys):
    output = tmp_path / name
    assert plot.main([run, run, "--output", str(output)]) == 0
    assert output.read_bytes().startswith(begins)
    assert capsys.readouterr().out == f"wrote {output}\n"


def test_it_runs_as_a_file(run, tmp_path):
    subprocess.run([sys.executable, "tools/plot.py", run, "--output", str(tmp_path / "a.png")], cwd=ROOT, check=True)
    assert (tmp_path / "a.png").exists()


def test_mistakes_are_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(UserError, match=f"{folder}/metrics.jsonl tells no loss, or is not there; give the "):
            plot.main([run, str(tmp_path / folder), "--output", str(tmp_path / "a.png")])
    with pytest.raises(UserError, match="ends with .png or .svg"):
        plot.main([run, "--output", "a.jpg"])
