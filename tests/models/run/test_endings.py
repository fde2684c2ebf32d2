"""The ends of a training: by its steps, by evaluations that get no better, and what is said to do next."""
import json
import math
import os
import re
import shlex
import signal

import pytest

import main
from configs import arguments, schema
from configs.errors import UserError
from models.checkpoints import best_checkpoint
from models.run import endings, hooks
from tests.helpers.runs import ROOT, command, stop_after, weights_of


@pytest.fixture
def evaluated(tmp_path):
    """Function (step, loss, windows=9) -> whether the checkpoint of this step, a made-up one, is kept as the best."""
    def keep(step, loss, windows=9):
        path = tmp_path / f"model.ckpt-{step}"
        for ending in ("index", "data-00000-of-00001"):
            (tmp_path / f"{path.name}.{ending}").write_text(str(step))
        result = {"loss": loss, "step": step, "eval_set": "a", "windows": windows}
        return best_checkpoint.keep(str(tmp_path), str(path), result)
    return keep


def test_evaluations_since_the_best_are_counted_by_their_steps(evaluated, tmp_path):
    folder = str(tmp_path)
    assert best_checkpoint.evaluations(folder, 9) == (None, []) and not best_checkpoint.has_seen(folder, 2)
    assert [evaluated(step, loss) for step, loss in ((2, 3.0), (4, 3.1), (6, 3.0))] == [True, False, False]
    assert best_checkpoint.evaluations(folder, 6) == (2, [4, 6])
    assert not evaluated(6, 3.0) and not evaluated(2, 3.0)  # once more, after a kill
    assert best_checkpoint.evaluations(folder, 6) == (2, [4, 6])
    assert best_checkpoint.evaluations(folder, 5) == (2, [4])  # a run that goes on from an older checkpoint
    assert [best_checkpoint.has_seen(folder, step) for step in (2, 4, 5, 6)] == [True, True, False, True]
    assert evaluated(8, 2.9) and best_checkpoint.evaluations(folder, 8) == (8, [])
    assert not evaluated(10, 3.0) and evaluated(12, 3.0, windows=10)
    assert best_checkpoint.evaluations(folder, 12) == (12, [])


def test_the_best_outlives_that_its_step_is_made_again(evaluated, tmp_path):
    """By a run that goes on from an older checkpoint: TensorFlow replaces the data, and writes into the index."""
    evaluated(2, 3.0)
    best = [tmp_path / "best" / f"model.ckpt-2.{ending}" for ending in ("index", "data-00000-of-00001")]
    for path in best:
        damaged = tmp_path / path.name
        if path.suffix != ".index":
            damaged.unlink()
        damaged.write_text("other weights")
    result = {"loss": 3.1, "step": 2, "eval_set": "a", "windows": 9}
    assert not best_checkpoint.keep(str(tmp_path), str(tmp_path / "model.ckpt-2"), result)
    assert [path.read_text() for path in best] == ["2", "2"]
    for path in best:
        path.write_text("damaged")
    assert not evaluated(2, 3.0) and [path.read_text() for path in best] == ["2", "2"]
    assert best_checkpoint.evaluations(str(tmp_path), 9) == (2, [])


def test_a_run_is_over_at_max_steps_and_after_so_many_evaluations_without_a_better_loss(evaluated, tmp_path):
    def over(step, **changes):
        return endings.over(schema.from_dict({"model_dir": str(tmp_path), "max_steps": 10, **changes}, "here"), step)
    assert over(9) is None and over(10) == over(10, early_stopping=1) == 'raise "max_steps" to go on'
    assert over(2, early_stopping=1) is None  # nothing is evaluated yet
    for step, loss in ((2, 3.0), (4, 3.1), (6, 3.1)):
        evaluated(step, loss)
    assert over(6) is None and over(6, early_stopping=3) is None and over(4, early_stopping=2) is None
    said = f"of step 2, whose checkpoint is in {tmp_path}/best; raise \"early_stopping\" to go on"
    assert over(6, early_stopping=2) == f"stopped early: 2 evaluations without a better loss than that {said}"
    assert over(4, early_stopping=1) == f"stopped early: 1 evaluation without a better loss than that {said}"


SPOILT = {"lr": 3.0, "max_steps": 40}  # a rate that spoils the network


@pytest.mark.slow
def test_early_stopping_counts_across_a_restart_keeps_the_best_and_the_same_command_says_that_the_run_is_done(
        run_config, tmp_path, capsys):
    changes = {"train_steps": 2, "lr_schedule": "constant", "eval_steps": -1, "keep_checkpoint_max": 1}
    main.main(["--model", run_config(max_steps=4, **changes)])
    config = run_config(early_stopping=3, **{**changes, **SPOILT})
    stop_after(config, 7)
    out = capsys.readouterr().out
    assert out.count("the best so far") == 2 and "evaluation at step 6" in out
    assert out.endswith("stopped by SIGTERM at step 7, saved; the same command goes on\n")
    assert main.main(["--model", config]) == 0
    done, generate = capsys.readouterr().out.splitlines()[-2:]
    run, best = tmp_path / "run", tmp_path / "run" / "best"
    assert re.fullmatch(rf"done: {run} is trained to step 10; read .* tokens; stopped early: 3 evaluations without a"
                        rf" better loss than that of step 4, whose checkpoint is in {best}; raise .*", done)
    assert generate == f"generate: python3 main.py --model {config} --checkpoint best --interactive"
    assert weights_of(best, 4)["global_step"] == 4
    before = sorted(os.listdir(run))
    assert main.main(["--model", config]) == 0
    said, again = capsys.readouterr().out.splitlines()[-2:]
    assert f"{run} is done: step 10 of 40; stopped early: 3 evaluations" in said and again == generate
    assert sorted(os.listdir(run)) == before
    assert main.main(["--model", config, "--set", "early_stopping=4"]) == 0
    assert f"done: {run} is trained to step 12; " in capsys.readouterr().out


@pytest.mark.parametrize("given, said", [
    (["--model", "mine.json"], "python3 main.py --model mine.json --interactive"),
    (["--model", "my runs/a.json", "--set", "max_steps=3", "--set", "train_files=[\"a_*\"]", "--tpu", "mine"],
     "python3 main.py --model 'my runs/a.json' --set max_steps=3 --set 'train_files=[\"a_*\"]' --interactive")])
def test_the_next_command_names_config_and_overrides_as_a_shell_takes_them(given, said):
    assert arguments.command(arguments.parse(given), "--interactive") == said
    arguments.parse(shlex.split(said)[2:])


@pytest.mark.slow
def test_the_command_at_the_end_generates(finished):
    said = command("--model", finished).stdout.splitlines()
    python, program, *given = shlex.split(said[-1].partition("generate: ")[2])
    assert (python, program) == ("python3", os.path.join(ROOT, "main.py"))  # as it was called
    result = command(*given, "--length", "3", input="def\n")
    assert result.returncode == 0 and "def" in result.stdout, result


def test_a_loss_that_is_no_number_is_never_better_and_the_next_one_is(evaluated, tmp_path):
    assert evaluated(2, math.inf) and not evaluated(4, math.nan)
    assert best_checkpoint.evaluations(str(tmp_path), 9) == (2, [4])
    assert evaluated(6, 9.0) and not evaluated(8, math.nan) and evaluated(10, 8.9)
    assert best_checkpoint.evaluations(str(tmp_path), 99) == (10, [])


@pytest.mark.parametrize("note, words", [
    ("", "is empty"), ("x", "not JSON at line 1"), ("[]", "holds [], but must be"),
    (b"\xff", "is not UTF-8"), ("{}", '"step" is missing'),
    ({"loss": "3"}, '"loss" is "3"'), ({"loss": [1]}, '"loss" is [1]'), ({"step": 2.0}, '"step" is 2.0'),
    ({"loss": math.nan}, '"loss" is NaN'), ({"step": 10**400}, '"step" is 1000'),
    ({"eval_set": None}, '"eval_set" is null'),
    ({"windows": "9"}, '"windows" is "9"'), ({"worse": 4}, '"worse" is 4'), ({"worse": [[4]]}, '"worse" holds [4]'),
    ({"worse": None}, '"worse" is null')])
def test_a_damaged_note_of_the_best_is_named(evaluated, tmp_path, note, words):
    assert evaluated(2, 3.0)
    path = tmp_path / "best" / "evaluation.json"
    content = json.dumps({**json.loads(path.read_text()), **note}) if isinstance(note, dict) and note else note
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for look in (lambda: evaluated(4, 2.0), lambda: best_checkpoint.evaluations(str(tmp_path), 4)):
        with pytest.raises(UserError) as caught:
            look()
        assert str(path) in str(caught.value) and words in str(caught.value)
        assert note == b"\xff" or str(caught.value).endswith("is kept anew from the next evaluation on")


def test_an_evaluation_that_was_broken_off_is_made_at_the_next_start(run_config, tmp_path, capsys, monkeypatch):
    """At step 4 of 8, and at the end: else the best checkpoint and early stopping would depend on the signal."""
    config, whole = run_config(), main.evaluate

    def run(broken=()):
        def evaluate(estimator, config, encoder, evaluation, path, stop=None):
            if path.endswith(broken):
                stop.signal_number = signal.SIGTERM
                raise hooks.Interrupted
            return whole(estimator, config, encoder, evaluation, path, stop)
        monkeypatch.setattr(main, "evaluate", evaluate)
        capsys.readouterr()
        status = main.main(["--model", config])
        out = capsys.readouterr().out
        return status, re.findall(r"evaluation at step (\d+)", out), out
    assert run(("-4",))[:2] == (143, [])
    assert run(("-8",))[:2] == (143, ["4"])
    status, evaluations, out = run()
    assert (status, evaluations) == (0, ["8"]) and "continuing" in out and not re.search("^step", out, re.M)
    assert run()[2].startswith(f"{tmp_path}/run is done")
    best, worse = best_checkpoint.evaluations(str(tmp_path / "run"), 8)
    assert (best, worse) in ((8, []), (4, [8]))
