"""Runs that go on from any checkpoint of another, and the schedule that is made for it."""
import json
import os

import numpy as np
import pytest

import main
from configs.errors import UserError
from models.checkpoints import convert, run_checkpoints
from tests.helpers import weight_files
from tests.helpers.runs import weights_of

STEADY = {"lr_schedule": "wsd", "eval_steps": 0, "res_dropout": 0.1}
LONGER = ["--set", "max_steps=14", "--set", "decay_steps=4"]


def assert_equal(found, expected):
    assert set(found) == set(expected) and any(name.endswith("/adam_m") for name in expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def branch(path, destination):
    return convert.main(["branch", str(path), str(destination)])


def mistake(path, destination):
    with pytest.raises(UserError) as caught:
        branch(path, destination)
    assert "\n" not in str(caught.value)
    assert not destination.exists() or not os.listdir(destination)
    return str(caught.value)


@pytest.mark.slow
def test_a_steady_run_that_is_extended_and_cooled_down_equals_one_planned_so_to_the_bit(run_config, tmp_path, capsys):
    planned = run_config(**STEADY, model_dir=str(tmp_path / "planned"), train_steps=8)
    main.main(["--model", planned, *LONGER])
    steady = run_config(**STEADY, max_steps=8, decay_steps=0)
    main.main(["--model", steady])
    assert_equal(weights_of(tmp_path / "run", 8), weights_of(tmp_path / "planned", 8))
    capsys.readouterr()
    main.main(["--model", steady, *LONGER])
    assert capsys.readouterr().out.count("the learning rate follows the new schedule from here on") == 2
    assert_equal(weights_of(tmp_path / "run", 14), weights_of(tmp_path / "planned", 14))


@pytest.mark.slow
def test_a_run_that_has_cooled_down_goes_on_from_before_that_and_equals_one_planned_so_to_the_bit(
        run_config, tmp_path, capsys):
    main.main(["--model", run_config(**STEADY, model_dir=str(tmp_path / "planned"), train_steps=8), *LONGER])
    cooled, new = run_config(**STEADY, max_steps=8, decay_steps=3), tmp_path / "new"
    main.main(["--model", cooled])
    fallen, steady = (weights_of(tmp_path / name, 8)["model/wte"] for name in ("run", "planned"))
    assert not np.array_equal(fallen, steady)
    capsys.readouterr()
    assert branch(tmp_path / "run" / "model.ckpt-4", new) == 0
    assert capsys.readouterr().out == (
        f"{new}: a run at step 4, copied from {tmp_path}/run/model.ckpt-4; go on with python3 main.py --model"
        f" CONFIG.json --set model_dir={new} --set max_steps=... --set decay_steps=...\n")
    main.main(["--model", cooled, "--set", f"model_dir={new}", *LONGER])
    out = capsys.readouterr().out
    assert f"continuing {new} at step 4 of 14 from model.ckpt-4" in out and "data order" not in out
    assert_equal(weights_of(new, 14), weights_of(tmp_path / "planned", 14))


def test_a_branch_holds_the_one_checkpoint_and_the_notes_of_its_run(finished, tmp_path):
    run, new = tmp_path / "run", tmp_path / "new"
    assert branch(run / "model.ckpt-0.index", new) == 0
    assert sorted(os.listdir(new)) == ["checkpoint", "config.json", "data.json", "model.ckpt-0.data-00000-of-00001",
                                       "model.ckpt-0.index"]
    assert run_checkpoints.latest(str(new)) == f"{new}/model.ckpt-0"
    assert_equal(weights_of(new, 0), weights_of(run, 0))
    assert branch(run, tmp_path / "newest") == 0 and run_checkpoints.is_at(str(tmp_path / "newest"), 4)
    assert (new / "data.json").read_bytes() == (run / "data.json").read_bytes()


def test_a_place_that_holds_something_and_what_is_no_run_s_checkpoint_are_refused_in_one_line(finished, tmp_path):
    run, new = tmp_path / "run", tmp_path / "new"
    with pytest.raises(UserError, match="run exists and is no empty folder; give a new one"):
        branch(run / "model.ckpt-4", run)
    assert mistake(run / "model.ckpt-3", new) == (
        f"{run}/model.ckpt-3: no such checkpoint or folder; there are {run}/model.ckpt-0, {run}/model.ckpt-4")
    assert mistake(tmp_path / "none", new) == (
        f"{tmp_path}/none: no such checkpoint or folder; {tmp_path} holds none, either")
    weights = weight_files.write_openai(tmp_path / "openai")
    assert "model.ckpt holds weights but no step of training" in mistake(weights, new)
    values = {name: value for name, value in weights_of(run, 4).items() if "adam" not in name}
    weight_files.write_tf(str(run / "model.ckpt-9"), values)
    assert "does not hold what the optimizer keeps (model/wpe/adam_m)" in mistake(run / "model.ckpt-9", new)
    data = run / "model.ckpt-4.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-5000] + bytes(5000))
    assert f"the checkpoint {run}/model.ckpt-4 is damaged" in mistake(run / "model.ckpt-4", new)
    (run / "config.json").unlink()
    assert "model.ckpt-0 is no run's checkpoint: no config.json lies beside it" in mistake(run / "model.ckpt-0", new)


def test_a_checkpoint_that_its_run_deletes_meanwhile_leaves_nothing(finished, tmp_path, monkeypatch):
    copy = run_checkpoints.copy

    def deleted_before(path, folder):
        run_checkpoints.remove(path)
        return copy(path, folder)
    monkeypatch.setattr(run_checkpoints, "copy", deleted_before)
    assert "has deleted it meanwhile; give a newer one" in mistake(tmp_path / "run" / "model.ckpt-4", tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["config.json", "run"]


def test_a_run_of_another_schedule_branches_too(finished, tmp_path, capsys):
    capsys.readouterr()
    branch(tmp_path / "run" / "model.ckpt-4", tmp_path / "a b")
    assert capsys.readouterr().out.endswith(f" --set 'model_dir={tmp_path}/a b' --set max_steps=...\n")
    assert json.loads((tmp_path / "a b" / "config.json").read_text())["decay_steps"] is None
