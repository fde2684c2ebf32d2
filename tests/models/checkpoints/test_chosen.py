"""--checkpoint: the best, an older one, or another run's generates, is evaluated and exported; what is refused."""
import io
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import arguments, schema
from configs.errors import UserError
from encoder import bpe
from models.checkpoints import best_checkpoint, chosen, run_folder
from tests.helpers import graphs
from tests.helpers.runs import damage, mistake, weights_of
from tests.helpers.weight_files import write_hf, write_openai

PROMPT = "import json"
EVAL = ["--eval", "--set", "eval_batch_size=50"]


@pytest.fixture
def best_is_first(finished, tmp_path):
    """`finished`, whose newest checkpoint is that of step 4, with that of step 0 as the best."""
    run = str(tmp_path / "run")
    with open(os.path.join(run, "best", best_checkpoint.RESULT_FILE)) as f:
        result = {**json.load(f), "loss": 0.125, "step": 0}
    assert best_checkpoint.keep(run, os.path.join(run, "model.ckpt-0"), result)
    return finished


def evaluated(capsys, *arguments):
    """(step, loss) that --eval prints, and nothing on stderr."""
    capsys.readouterr()
    assert main.main([*arguments, *EVAL]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    step, loss = re.search(r"^evaluation at step (\d+): loss ([\d.]+)", out).groups()
    return int(step), float(loss)


def likeliest(config, step):
    """(the id that a network with the weights of `step` takes for the likeliest behind PROMPT, its logprob)."""
    config = schema.load(config)
    weights = {name[len("model/"):]: value for name, value in weights_of(config.model_dir, step).items()
               if name.startswith("model/")}
    tokens = bpe.load(config.encoder_path).encode(PROMPT)
    logits = graphs.logits(config, weights, [tokens])[0, -1]
    return int(logits.argmax()), logits.max() - np.log(np.exp(logits).sum())


@pytest.mark.parametrize("mode", ["--predict_text", "--predict_file", "--interactive"])
def test_each_way_of_generating_takes_the_checkpoint_that_is_named(best_is_first, tmp_path, capsys, monkeypatch, mode):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    given = {"--predict_text": [PROMPT], "--predict_file": [str(tmp_path / "prompt.txt")], "--interactive": []}[mode]
    assert likeliest(best_is_first, 0)[1] != pytest.approx(likeliest(best_is_first, 4)[1], abs=0.1)
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    capsys.readouterr()
    assert main.main(["--model", best_is_first, mode, *given, "--checkpoint", "best", "--length", "1", "--temperature",
                      "0", "--json"]) == 0
    out, err = capsys.readouterr()
    sample, token, logprob = json.loads(out), *likeliest(best_is_first, 0)
    assert err == "" and sample["tokens"] == [token] and sample["logprobs"] == [pytest.approx(logprob, abs=1e-4)]


def test_the_best_is_evaluated_where_a_newer_one_is_there(best_is_first, capsys):
    first = evaluated(capsys, "--model", best_is_first, "--checkpoint", "best")
    newest = evaluated(capsys, "--model", best_is_first)
    assert first[0] == 0 and first[1] == pytest.approx(np.log(300), abs=0.1)  # as good as guessing
    assert newest[0] == 4 and newest[1] < first[1] - 0.1


def test_an_older_checkpoint_is_evaluated_by_its_path_from_its_own_folder(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path / "run")
    assert evaluated(capsys, "--model", finished, "--checkpoint", "model.ckpt-0")[0] == 0


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_is_named_by_its_path_or_by_a_file_of_it(finished, tmp_path, monkeypatch, ending):
    """Below a home folder, too."""
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = f"{tmp_path}/run/model.ckpt-0"
    for given, expected in (path, path), ("model.ckpt-0", "model.ckpt-0"), ("./model.ckpt-0", "./model.ckpt-0"), (
            "~/run/model.ckpt-0", path):
        args = arguments.parse(["--model", finished, "--eval", f"--checkpoint={given}{ending}"])
        assert chosen.path_of(schema.load(finished), args.checkpoint) == expected


def test_the_saved_model_holds_the_weights_of_the_checkpoint_that_is_named(finished, tmp_path, capsys):
    path, folder = str(tmp_path / "run" / "model.ckpt-0"), str(tmp_path / "exported")
    assert main.main(["--model", finished, "--export_dir", folder, "--checkpoint", path]) == 0
    assert f"wrote {path} as a SavedModel" in capsys.readouterr().out
    saved = tf.train.load_checkpoint(os.path.join(folder, "variables", "variables"))
    first, newest = weights_of(tmp_path / "run", 0), weights_of(tmp_path / "run", 4)
    for name in ("model/wte", "model/h1/mlp/c_fc/w"):
        np.testing.assert_array_equal(saved.get_tensor(name), first[name])
        assert (first[name] != newest[name]).any()


def test_another_run_s_checkpoint_needs_neither_a_run_nor_weights_to_start_from(finished, run_config, tmp_path, capsys):
    newest = evaluated(capsys, "--model", finished)
    config = run_config(model_dir=str(tmp_path / "new"), init_checkpoint=str(tmp_path / "gone"))
    assert evaluated(capsys, "--model", config, "--checkpoint", str(tmp_path / "run")) == newest
    assert "gone: no such file" in mistake("--model", config, *EVAL)


@pytest.mark.parametrize("arguments, words", [
    ([], "leave it out to train"), (["--plan"], "leave it out with --plan"),
    (["--which_data", "1"], "leave it out with --which_data")])
def test_what_reads_no_checkpoint_or_goes_on_from_the_newest_refuses_the_option(finished, arguments, words):
    assert mistake("--model", finished, "--checkpoint", "best", *arguments) == (
        f"--checkpoint is for --eval, --predict_text, --predict_file, --interactive and --export_dir; {words}")


def test_without_a_best_checkpoint_one_line_says_how_it_comes_to_be(finished, tmp_path):
    shutil.rmtree(tmp_path / "run" / "best")
    said = (f"--checkpoint best: {tmp_path}/run/best holds no checkpoint; the evaluations of a training keep the best"
            " one there, ")
    newest = "or leave --checkpoint out to take the newest"
    assert mistake("--model", finished, *EVAL, "--checkpoint", "best") == (
        f'{said}every "train_steps" 4 steps; train up to one, {newest}')
    never = ["--predict_text", PROMPT, "--set", "eval_steps=0"]
    assert mistake("--model", finished, *never, "--checkpoint", "best") == (
        f'{said}and "eval_steps" is 0; set it to another number and train, {newest}')


def test_a_path_that_is_no_checkpoint_tells_which_are_there(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = f"there are {tmp_path}/run/model.ckpt-0, {tmp_path}/run/model.ckpt-4"
    assert refused(finished, tmp_path / "run" / "model.ckpt-3") == (
        f"--checkpoint {tmp_path}/run/model.ckpt-3: no such checkpoint or folder; {there}")
    assert refused(finished, "model.ckpt-4") == (
        f"--checkpoint model.ckpt-4 in {tmp_path}: no such checkpoint or folder; {there}")
    assert refused(finished, "away/model.ckpt-4").endswith("no such checkpoint or folder; away holds none, either")
    (tmp_path / "empty").mkdir()
    assert refused(finished, "empty") == (
        f"--checkpoint empty: empty in {tmp_path} holds no checkpoint; name another checkpoint, or leave --checkpoint"
        " out")
    assert "run/model.ckpt-* holds *, and TensorFlow takes" in refused(finished, "run/model.ckpt-*")


def refused(config, checkpoint):
    return mistake("--model", config, "--predict_text", PROMPT, "--checkpoint", str(checkpoint))


def test_weights_from_elsewhere_are_no_checkpoint_of_a_run(finished, tmp_path):
    remedy = 'set "init_checkpoint" to it, with another "model_dir", or give it to `python3 -m models.checkpoints`'
    theirs, openai = write_hf(tmp_path / "hf"), write_openai(tmp_path / "openai")
    for path, words in [(theirs, f"{theirs} holds weights from elsewhere (model.safetensors) and no checkpoint"),
                        (f"{theirs}/model.safetensors", "is a file, but no checkpoint of a run; if it holds weights"),
                        (openai, f"{openai}/model.ckpt holds weights but no step of training"),
                        (f"{openai}/model.ckpt", f"{openai}/model.ckpt holds weights but no step of training")]:
        message = refused(finished, path)
        assert words in message and remedy in message


def test_vocabulary_and_network_are_those_of_the_run_that_holds_the_checkpoint(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "run", other)
    (other / "data.json").write_text('{"vocabulary": "another"}')
    message = refused(finished, other / "model.ckpt-4")
    assert f"{other} was trained with another vocabulary (another) than that in" in message
    assert message.endswith('set "encoder_path" to that one or name another checkpoint')
    shutil.copy(tmp_path / "run" / "data.json", other)
    values = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**values, "n_head": 4}))  # which no weight tells
    assert refused(finished, other) == (
        f'{other}/config.json: the checkpoints there do not fit: "n_head" was 4 and is now 2; restore the old value or'
        " name another checkpoint")
    (other / "config.json").unlink()
    message = mistake("--model", finished, *EVAL, "--set", "n_ctx=17", "--checkpoint", str(other / "model.ckpt-0"))
    assert f"{other}/model.ckpt-0 does not fit the config: 1 of another shape (model/wpe is [16, 32], not" in message
    assert message.endswith("use the config it was trained with or name another checkpoint")


@pytest.mark.parametrize("file, how", [("data-00000-of-00001", "cut off"), ("data-00000-of-00001", "garbage"),
                                       ("data-00000-of-00001", "missing"), ("index", "cut off"), ("index", "missing")])
def test_no_other_takes_the_place_of_a_damaged_one_that_is_named(finished, tmp_path, capsys, file, how):
    """Only of a folder the newest that is whole is taken, and that is said."""
    path = tmp_path / "run" / "model.ckpt-4"
    damage(tmp_path / "run" / f"{path.name}.{file}", how)
    assert f"the checkpoint {path} is damaged or incomplete (" in refused(finished, path)
    config = schema.load(finished)
    capsys.readouterr()
    newest_whole = run_folder.trained(config, bpe.load(config.encoder_path), "evaluate", str(tmp_path / "run"))
    assert newest_whole == f"{tmp_path}/run/model.ckpt-0"
    assert f"the checkpoint {path} is damaged or incomplete (" in capsys.readouterr().err


def test_a_damaged_best_checkpoint_is_not_replaced(best_is_first, tmp_path):
    damage(tmp_path / "run" / "best" / "model.ckpt-0.data-00000-of-00001", "cut off")
    message = refused(best_is_first, "best")
    assert f"{tmp_path}/run/best/model.ckpt-0 is damaged or incomplete (" in message
    assert message.endswith("no checkpoint there can be read whole: bring one back, or name another checkpoint")


def test_a_tpu_node_is_told_that_it_cannot_read_a_checkpoint_here(run_config):
    def check(checkpoint):
        config = run_config(model_dir="gs://bucket/run")
        args = arguments.parse(["--model", config, "--tpu", "mine", "--predict_text", "a", "--checkpoint", checkpoint])
        arguments.check_tpu_paths(args, schema.load(config))
    check("best")
    check("gs://bucket/other/model.ckpt-4")
    with pytest.raises(UserError, match="cannot read --checkpoint runs/model.ckpt-4 here; .* set --checkpoint to gs://"):
        check("runs/model.ckpt-4")


def test_a_folder_without_the_file_that_names_the_newest_has_one_all_the_same(finished, tmp_path):
    (tmp_path / "run" / "checkpoint").unlink()
    config = schema.load(finished)
    assert chosen.path_of(config, str(tmp_path / "run")) == f"{tmp_path}/run/model.ckpt-4"
    assert chosen.path_of(config, str(tmp_path / "run" / "model.ckpt-0")) == f"{tmp_path}/run/model.ckpt-0"
