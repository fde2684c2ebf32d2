"""This checkout beside another commit."""
import pytest

from benchmarks import against_commit
from benchmarks.against_commit import Measured
from configs.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_both_sides_compute_the_same_in_every_kind_of_case(tmp_path, measure, apart):
    cases = ["train-small-float32", "generate-16-float32", "create_tfrecords", "evaluate-float32"]
    cases = cases[:1] if apart else cases
    lines, found = measure(against_commit, "--commit", "HEAD", "--quick", "--rounds", 1, "--output_dir", tmp_path,
                           "--only", *cases, *["--apart"] * apart)
    for figure in ("speed", "memory", "speed_by_cpu_seconds"):
        assert list(found[figure]) == cases and all(0.1 < ratio < 10 for ratio in found[figure].values())
    assert all(difference < 1e-3 for difference in found["results_differ_by"].values())
    assert not found["failed"] and found["rounds"] == 1 and len(found["commit"]) == 40
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert rows == ["| case", *(f"| {case}" for case in cases)]
    assert not list(tmp_path.iterdir())


def test_ratios_are_those_of_a_round_and_medians_count_with_either_side_first():
    here = [Measured(2.0, 3.0, 500, [1.0, 2.5]), Measured(1.0, 1.0, 500, [1.0, 2.5]), Measured(9.0, 1.0, 600, [1.0, 2])]
    there = [Measured(4.0, 3.0, 1000, [1.0, 2.0]), Measured(1.0, 2.0, 1000, [1.0, 2]), Measured(9, 1.0, 400, [1.0, 2])]
    assert against_commit._figures(list(zip(here, there))) == {
        "speed": 1.225, "speed_by_cpu_seconds": 1.414, "memory": 0.707, "speed_spread": [1.0, 2.0],
        "memory_spread": [0.5, 1.5], "results_differ_by": 0.5}


def test_differences_are_of_numbers_or_the_share_of_places():
    assert against_commit._difference([[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.25
    assert against_commit._difference(["ab", "cd"], ["ab", "ce"]) == 0.5
    assert against_commit._difference(["ab"], ["ab", "cd"]) == 1
    assert against_commit._difference([1.5, 2.0], [1.5, 1.75]) == 0.25


def test_a_case_that_fails_is_named_and_the_others_go_on(capsys, tmp_path, monkeypatch):
    def failing(quick, folder):
        raise UserError("no room")

    def counting(quick, folder):
        def run(side):
            yield
            yield Measured(1.0 if side.name == "here" else 2.0, 1.0, 100, ["same"])
        return against_commit.Case(3, "MB", run)
    monkeypatch.setattr(against_commit, "CASES", {"one": failing, "other": counting})
    assert against_commit.main(["--commit", "HEAD", "--rounds", "2", "--output_dir", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "one failed: no room" in printed and '"failed": {"one": "no room"}' in printed
    assert "| other | 3 MB/s | 1.5 MB/s | 2.000 (2.000, 2.000) | 1.000 | 1.000 (1.000, 1.000) | 0 |" in printed


def test_a_commit_that_is_not_there_is_named():
    with pytest.raises(UserError, match="--commit nonsense: this repository has no such commit; `git fetch`"):
        against_commit.main(["--commit", "nonsense"])
