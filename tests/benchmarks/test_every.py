"""All benchmarks, one after the other."""
import json
import subprocess
import sys

import pytest

from benchmarks import every, startup
from tests.helpers.runs import ROOT


def test_all_benchmarks_go_on_after_one_that_failed_and_end_with_one_json_line():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.every", "--only", "startup", "generate", "shakespeare",
         "--arguments", "startup=--rounds 1 --only help plan", "--arguments", "generate=--batch 0"],
        cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert result.returncode == 1 and "error: --batch 0 is out of range" in result.stderr
    assert "shakespeare: not measured" in result.stdout
    lines = result.stdout.splitlines()
    found = json.loads(lines[-1])
    assert list(found) == ["date", "machine", "minutes", "found", "failed"]
    assert list(found["minutes"]) == ["startup", "generate"]
    assert found["failed"] == {"generate": "failed with status 2"} and "cores of" in found["machine"]
    seconds, peer, ratio = found["found"]["`main.py`, help, s"]
    assert 0 < seconds < 60 and peer is ratio is None and len(found["found"]) == 2
    head = lines.index("| | ours | the peer | ratio | wanted |")
    assert lines[head + 2].startswith("| `main.py`, help, s | ") and lines[head + 2].endswith(" |  |  | under 1 |")
    assert lines[head - 2].startswith(f"{found['date']}, {found['machine']}; ")


@pytest.mark.parametrize("number, shown", [
    (None, ""), (33900, "33,900"), (1938.4, "1,938"), (99.96, "100"), (0.1666, "0.167"), (0, "0"), (-3.21, "-3.21")])
def test_numbers_have_three_digits(number, shown):
    assert every._number(number) == shown


def test_training_is_held_against_the_fastest_of_torch_where_a_speed_is_wanted():
    def of(speed):
        return {"tokens_per_second": speed}
    precision = {"limit_tokens_per_second": 9999, "gigaoperations_per_second": 9999}
    ratios = {"ratio": 1.5}
    rows = every._train({
        "124M-4x256": {"bfloat16": {**precision, "ours": of(750), "torch": of(434),
                                    "torch-compile": of(500)}, "ratios": {"bfloat16": ratios, "best": ratios}},
        "small": {"bfloat16": {**precision, "ours": of(339), "torch": of(218)},
                  "float32": {**precision, "ours": of(334), "torch": of(220)},
                  "bfloat16-weights": {**precision, "torch": of(400)},
                  "ratios": {"float32": ratios, "bfloat16": ratios, "best": ratios}},
        "124M-16x1024": "not measured: no GPU here"})
    assert [tuple(row) for row in rows] == [
        ("training 124M-4x256, bfloat16, tokens/s", 750, 500, "torch-compile", 1.5, "1.3"),
        ("training small, best, tokens/s", 339, 220, "torch", 1.5, "1.4")]
    assert every._line(rows[0]) == \
        f"| training 124M-4x256, bfloat16, tokens/s | 750 | 500 torch-compile | 1.50 | {rows[0].wanted} |"


def test_generation_is_held_against_the_fastest_peer():
    def of(precision, speed):
        return {"precision": precision, "tokens_per_second": speed}
    row, = every._generate({"16": {
        "ratio": 1.3, "ours": of("bfloat16", 445), "transformers": of("bfloat16", 265), "other": of("int8", 342),
        "others": {"ours float32": 239}, "gigabytes_per_second": 50}})
    assert row[:5] == ("generation at batch 16, tokens/s", 445, 342, "other int8", 1.3)


def test_every_benchmark_gives_rows_of_what_its_json_line_holds():
    assert [row.subject for row in every._startup({**{part: {"seconds": 1} for part in startup.WANTED},
                                                   "cycles": {"growth_mb": 34}})] == [
        "`main.py`, help, s", "`main.py`, plan, s", "`main.py`, first step, s", "growth over evaluations, MB"]
    assert every._data({"pipeline_tokens_per_second": 28.3e6, "bare_tokens_per_second": 82.3e6, "ratio": 0.35,
                        "pipeline_mb": 267})[0][1:5] == (28.3, 82.3, "bare loop", 0.35)
    assert [row.ratio for row in every._two_processes({
        name: {"two": [ratio, 1, 2]} for name, ratio in (("create_tfrecords", 1.83), ("run_newspaper_extract", 1.94))})
    ] == [1.83, 1.94]
    assert every._shakespeare({"val_loss": [1.77], "mean": 1.77})[0][1:4] == (1.77, 1.88, "nanoGPT")
