"""The lines of benchmarks/results/*.jsonl, and the commit that they name."""
import subprocess

import pytest

from benchmarks import options, records


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FOLDER", str(tmp_path / "results"))
    return tmp_path / "results"


def test_a_run_is_a_line_with_commit_machine_and_date_and_is_added_once(folder):
    assert records.read("some") == []
    runs = [{"seed": 1, "evaluations": [[2, 4.25], [5, 3.5]]}, {"seed": 2, "evaluations": []}]
    for run in [*runs, runs[0]]:
        records.append("some", run)
    records.append("other", runs[0])
    lines = records.read("some")
    assert [{key: line[key] for key in run} for line, run in zip(lines, runs)] == runs
    assert len((folder / "some.jsonl").read_text().splitlines()) == 2 and len(records.read("other")) == 1
    assert all(line["date"][:2] == "20" and "Python 3." in line["machine"] for line in lines)


def test_an_origin_that_was_noted_before_the_run_stays():
    records.append("some", {"seed": 1, "commit": "abc"})
    records.append("some", {"seed": 1, "commit": "def"})
    assert [line["commit"] for line in records.read("some")] == ["abc"]


def test_commit_is_marked_where_sources_differ_from_it_and_not_by_results(tmp_path, monkeypatch):
    def git(*words):
        named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, text=True, capture_output=True).stdout
    monkeypatch.setattr(options, "ROOT", str(tmp_path))
    assert records.origin()["commit"] is None
    git("init", "--quiet")
    (tmp_path / "a.py").write_text("1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "A file.")
    (tmp_path / "results.jsonl").write_text("{}\n")
    commit = git("rev-parse", "HEAD")[:12]
    assert records.origin()["commit"] == commit
    (tmp_path / "b.py").write_text("2\n")
    assert records.origin()["commit"] == commit + "+changes"
