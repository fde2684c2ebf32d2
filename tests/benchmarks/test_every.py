"""All benchmarks, one after the other."""
import json
import subprocess
import sys

from tests.helpers.runs import ROOT


def test_all_benchmarks_go_on_after_one_that_failed_and_end_with_one_json_line():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.every", "--only", "startup", "generate", "dedup", "shakespeare",
         "--arguments", "startup=--rounds 1 --only help plan", "--arguments", "generate=--batch 0",
         "--arguments", "dedup=--documents 0 --signatures 0 --lines 0"],
        cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert result.returncode == 1 and "error: --batch 0 is out of range" in result.stderr
    lines = result.stdout.splitlines()
    found = json.loads(lines[-1])
    assert found["generate"] == "failed with status 2" and list(found["dedup"]) == ["machine"]
    assert found["shakespeare"].startswith("not measured")
    assert 0 < found["startup"]["help"]["seconds"] < 60
    assert f"help.seconds {found['startup']['help']['seconds']}, plan.seconds" in lines[-5]
