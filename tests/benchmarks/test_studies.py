"""A study of small programs in the place of trainings: what it keeps, goes on with, calls diverged, and ends."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import studies
from configs.errors import UserError
from tests.helpers import waiting
from tests.helpers.runs import ROOT

# Writes what main.py would: two evaluations, between which it takes a while, and the line of its training.
TRAINING = """import json, os, sys, time
folder, loss, begun = sys.argv[1], float(sys.argv[2]), time.time()
os.mkdir(folder)
time.sleep(0.3)
with open(os.path.join(folder, "metrics.jsonl"), "w") as f:
    for line in ({"step": 3, "eval_loss": loss + 1}, {"step": 5, "loss": 9.0}, {"step": 7, "eval_loss": loss}):
        print(json.dumps(line), file=f)
print(begun, time.time(), os.environ["OMP_NUM_THREADS"])
"""


def training(folder, name, loss, program=TRAINING):
    return studies.Run(name, ["-c", program, os.path.join(folder, name), str(loss)], {"size": loss * 10})


def failing(folder, status, message):
    return training(folder, "failed", 0.0, f"import sys; print({message!r}); sys.exit({status})")


def measured(seconds, figures):
    return {"steps": [line["step"] for line in figures], "long": seconds > 0.2}


def test_runs_are_made_some_at_once_on_a_core_each_and_what_has_a_result_is_not_made_again(tmp_path, capfd):
    runs = [training(tmp_path, name, loss) for name, loss in (("a", 2.5), ("b", 1.5), ("c", 3.5), ("d", 4.5))]
    (tmp_path / "b").mkdir()  # left behind by a study that was killed: the program could not make its folder
    found = studies.results(str(tmp_path), runs[:3], 2, measured)
    assert [(each["size"], each["loss"], each["evaluations"]) for each in found] == [
        (10 * loss, loss, [[3, loss + 1], [7, loss]]) for loss in (2.5, 1.5, 3.5)]
    assert all(each["steps"] == [3, 5, 7] and each["long"] and each["date"] for each in found)
    assert found == [json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc"]
    assert sorted(os.listdir(tmp_path)) == [f"{name}.{end}" for name in "abc" for end in ("json", "log")]
    times = [list(map(float, (tmp_path / f"{name}.log").read_text().split())) for name in "abc"]
    assert all(threads == 1 for _, _, threads in times)
    assert max(sum(begun <= each[0] < ended for begun, ended, _ in times) for each in times) == 2
    assert "3 runs, 3 to make" in capfd.readouterr().out
    before = (tmp_path / "a.log").read_text()
    assert studies.results(str(tmp_path), runs, 1, measured)[:3] == found
    printed = capfd.readouterr().out
    assert "4 runs, 1 to make" in printed and "1/1 d: loss 4.5000 in" in printed
    assert (tmp_path / "a.log").read_text() == before


@pytest.mark.parametrize("message", ["the loss is not finite at step 4", "a weight is not finite after step 4",
                                     "the evaluation loss at step 4 is not finite (nan)"])
def test_a_mistake_of_numbers_that_are_not_finite_is_a_result_without_a_loss(message, tmp_path, capfd):
    (result,) = studies.results(str(tmp_path), [failing(tmp_path, 2, message)], 1, measured)
    assert result["loss"] is None and result["evaluations"] == []
    assert "failed: diverged" in capfd.readouterr().out


@pytest.mark.parametrize("status, message", [(2, "no such file"), (1, "not finite"), (0, "no evaluation")])
def test_a_run_that_fails_otherwise_is_named_and_ends_the_others(status, message, tmp_path):
    begun, before = time.monotonic(), waiting.children(os.getpid())  # of other tests
    runs = [training(tmp_path, "long", 1.0, "import time; time.sleep(60)"), failing(tmp_path, status, message)]
    with pytest.raises(UserError, match=f"the run failed ended with status {status}; see .*failed.log"):
        studies.results(str(tmp_path), runs, 2, measured)
    assert time.monotonic() - begun < 30 and not list(tmp_path.glob("*.json"))
    assert set(waiting.children(os.getpid())) <= set(before)


def test_kill_ends_the_trainings_first_and_starts_no_more(tmp_path):
    saving = ("import os, signal, sys, time\n"
              "def save(*_):\n    time.sleep(0.3); open(sys.argv[1] + '.saved', 'w').close(); sys.exit(143)\n"
              "signal.signal(signal.SIGTERM, save); open(sys.argv[1] + '.begun', 'w').close(); time.sleep(60)")
    study = ("import sys; from benchmarks import studies; from configs import commands\n"
             "def main(folder):\n"
             "    studies.results(folder, [studies.Run(name, ['-c', sys.argv[2], f'{folder}/{name}'], {})\n"
             "                             for name in ('a', 'b', 'c')], 2, None)\n"
             "commands.run(main, sys.argv[1])")
    with subprocess.Popen([sys.executable, "-c", study, str(tmp_path), saving], cwd=ROOT) as process:
        waiting.wait_until(lambda: all((tmp_path / f"{name}.begun").exists() for name in "ab"))
        trainings = waiting.children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert len(trainings) == 2 and not any(map(waiting.alive, trainings))
    assert sorted(os.listdir(tmp_path)) == [f"{name}.{end}" for name in "ab" for end in ("begun", "log", "saved")]
