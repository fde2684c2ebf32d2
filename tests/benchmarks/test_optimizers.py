"""The study of optimizers: the best rate of a sweep, when a loss is reached, what is kept and recorded."""
import json
import os
import sysconfig

import pytest

from benchmarks import optimizers, options, records
from configs.errors import UserError
from tests.benchmarks.test_shakespeare import TEXT

SMALL = [f"--set={key}={value}" for key, value in {"n_vocab": 40, "n_embd": 8, "n_layer": 1, "n_ctx": 16, "n_head": 2,
                                                   "eval_batch_size": 9}.items()]


def result(optimizer, steps, seed, evaluations, seconds=0.5):
    return {"optimizer": optimizer, "lr": 0.1, "steps": steps, "seed": seed, "evaluations": evaluations,
            "loss": evaluations[-1][1] if evaluations else None, "seconds_a_step": seconds}


def test_best_rate_is_that_of_the_lowest_loss_and_one_at_an_end_of_the_sweep_is_told():
    sweep = [{"optimizer": name, "lr": lr, "loss": loss} for name, lr, loss in (
        ("adam", 1e-3, 2.0), ("adam", 2e-3, 1.5), ("adam", 4e-3, None), ("muon", 1e-3, 1.9), ("muon", 2e-3, 1.8))]
    rates = optimizers.best_rates(sweep)
    assert rates == {"adam": 2e-3, "muon": 2e-3}
    text = optimizers.sweep_table(sweep, rates)
    assert "| adam | 0.002 | 1.5000 | best |\n| adam | 0.004 | diverged |  |" in text
    assert text.endswith("muon is best at the end of the sweep, 0.002: a wider one might find a better rate.")
    with pytest.raises(UserError, match="every run of muon diverged"):
        optimizers.best_rates([*sweep[:3], {"optimizer": "muon", "lr": 1e-3, "loss": None}])


def test_summary_tells_where_each_seed_reaches_the_mean_of_the_first_and_how_likely_chance_is():
    adam = [result("adam", 10, seed, [(5, 3.0), (10, loss)]) for seed, loss in ((1, 2.0), (2, 2.2))]
    muon = [result("muon", 10, 1, [(5, 2.1), (10, 1.8)], 0.6), result("muon", 10, 2, [(5, 2.5), (10, 1.9)], 0.8)]
    short = [result("muon", 6, 1, [(5, 2.4), (6, 2.05)]), result("muon", 6, 2, [(5, 2.4), (6, 2.3)])]
    first, whole, less = optimizers.summary([*adam, *muon, *short])
    assert (first["mean"], first["losses"], first["p_lower"]) == (2.1, [2.0, 2.2], None)
    assert first["deviation"] == pytest.approx(0.1414) and first["reached_at_step"] == [10, None]
    assert (whole["mean"], whole["p_lower"]) == (1.85, 1 / 6)
    assert whole["reached_at_step"] == [5, 10] and whole["reached_in_seconds"] == [3.0, 8.0]
    assert (less["steps"], less["reached_at_step"], less["reached_in_seconds"]) == (6, [6, None], [3.0, None])
    line = optimizers.table([first, whole, less]).splitlines()[3]
    assert line == "| muon | 10 | 1.8500 | 0.071 | 1.8000 to 1.9000 | 2 of 2 | 7.5 (5 to 10) | 5.5 (3 to 8) | 0.17 |"
    diverged = optimizers.summary([*adam, result("muon", 10, 1, [])])[1]
    assert (diverged["mean"], diverged["losses"]) == (None, [None])
    assert "1 of 1 diverged" in optimizers.table([diverged])
    with pytest.raises(UserError, match="1 of 3 runs of adam diverged"):
        optimizers.summary([*adam, result("adam", 10, 3, []), *muon])


def test_no_seed_that_chose_a_rate_is_among_those_that_are_compared():
    args = optimizers._arguments(["--setting", "quickstart", "--seeds", "3", "--share", "0.5", "--optimizers", "adam",
                                  "muon", "adafactor"])
    study = optimizers.Study("folder", "config.json", [], [], steps=10, warmup_steps=4, between=5)
    runs = optimizers.compared_runs(study, args, {"adam": 0.1, "muon": 0.2, "adafactor": 0.3})
    plans = [("adam", 0.1, 10), ("muon", 0.2, 10), ("adafactor", 0.3, 10), ("muon", 0.2, 5), ("adafactor", 0.3, 5)]
    assert [tuple(run.values[name] for name in ("seed", "optimizer", "lr", "steps")) for run in runs] == [
        (seed, *plan) for seed in (2, 3, 4) for plan in plans]
    assert len({run.name for run in runs}) == 15


@pytest.mark.parametrize("arguments, message", [
    (["--setting", "shakespeare"], "--setting shakespeare needs --text"),
    (["--setting", "ablation", "--seeds", "13"], "--seeds 13: give a share above 0 up to 1, and 1 to 12 seeds"),
    (["--setting", "ablation", "--share", "0"], "--share 0 --seeds 8: give a share"),
    (["--setting", "large"], "invalid choice: 'large'")])
def test_wrong_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        optimizers.main([*arguments, "--output_dir", str(tmp_path)])


@pytest.mark.parametrize("given", [True, False])
def test_results_of_another_text_are_refused_before_anything_is_made(given, tmp_path, monkeypatch):
    """Whether --text names the file, or it is one of Python's own sources."""
    text, study = tmp_path / "source" / "a.py", tmp_path / "study"
    text.parent.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(text.parent)}.get)
    made = []
    monkeypatch.setitem(optimizers.SETTINGS, "quickstart",
                        lambda args, folder: made.append(text.read_text()) or (options.preset("quickstart"), {}))
    command = ["--setting", "quickstart", "--output_dir", str(study), *["--text", str(text)] * given]
    text.write_text("x = 1\n")
    for _ in range(2):
        optimizers.prepare(optimizers._arguments(command))
    text.write_text("x = 1\ny = 2\n")
    with pytest.raises(UserError, match="study holds results with text .*: choose another --output_dir"):
        optimizers.prepare(optimizers._arguments(command))
    assert made == ["x = 1\n"] * 2


@pytest.mark.slow
def test_study_sweeps_compares_keeps_and_records(tmp_path, measure, monkeypatch):
    (tmp_path / "input.txt").write_text(TEXT)
    monkeypatch.setattr(records, "FOLDER", str(tmp_path / "results"))
    command = ["--setting", "shakespeare", "--text", tmp_path / "input.txt", "--lrs", 0.004, 0.02, "--seeds", 1,
               "--steps", 10, "--share", 0.5, "--evaluations", 2, "--output_dir", tmp_path / "study",
               "--record", *SMALL]
    lines, found = measure(optimizers, *command)
    assert "4 runs, 4 to make" in "".join(lines) and "3 runs, 3 to make" in "".join(lines)
    assert [(row["optimizer"], row["steps"]) for row in found["rows"]] == [("adam", 10), ("muon", 10), ("muon", 5)]
    assert all(1 < row["mean"] < 5 for row in found["rows"])
    recorded = records.read("optimizers")
    assert [run["seed"] for run in recorded] == [1] * 4 + [2] * 3
    for run in recorded:
        keys = dict(override.partition("=")[::2] for override in run["overrides"])
        assert json.loads(keys["opt_name"]) == run["optimizer"] and json.loads(keys["max_steps"]) == run["steps"]
        assert [step for step, _ in run["evaluations"]] == ([5, 10] if run["steps"] == 10 else [5])
        assert run["loss"] == run["evaluations"][-1][1] and run["commit"]
    assert len({run["loss"] for run in recorded}) == 7 and str(tmp_path) not in json.dumps(recorded)
    again, same = measure(optimizers, *command)
    assert "4 runs, 0 to make" in "".join(again) and same["rows"] == found["rows"]
    assert len(records.read("optimizers")) == 7
    with pytest.raises(UserError, match="holds results with steps 10, not 8"):
        optimizers.main(list(map(str, [*command, "--steps", 8])))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["quickstart", "ablation"])
def test_settings_make_their_data_and_are_the_configs_that_they_name(setting, tmp_path, measure):
    source = os.path.join(sysconfig.get_path("stdlib"), "asyncio")
    _, found = measure(optimizers, "--setting", setting, "--text", source, "--optimizers", "muon", "--lrs", 0.003,
                       "--seeds", 1, "--steps", 4, "--evaluations", 1, "--output_dir", tmp_path / "study")
    (row,) = found["rows"]
    assert (row["optimizer"], row["steps"]) == ("muon", 4) and 5 < row["mean"] < 8.4
