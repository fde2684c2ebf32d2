"""A model_dir: what may lie in it, what does not fit, and what is damaged."""
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow_estimator.python.estimator.tpu import error_handling

import main
from configs import schema
from encoder import bpe
from models import gpt2
from models.checkpoints import run_checkpoints, run_folder
from models.run import devices, workarounds
from tests.helpers.runs import ROOT, command, damage, mistake, weights_of


def test_vocabulary_of_another_size_or_content_is_an_error(run_config, tmp_path):
    assert 'the vocabulary in' in mistake("--model", run_config(n_vocab=299))
    bpe.write(str(tmp_path / "other"), [])
    assert "encoded with another vocabulary" in mistake("--model", run_config(encoder_path=str(tmp_path / "other")))


def test_checkpoint_of_another_vocabulary_is_an_error(finished, tmp_path):
    (tmp_path / "run" / "data.json").write_text('{"vocabulary": "other"}')
    assert "was trained with another vocabulary" in mistake("--model", finished)
    assert "was trained with another vocabulary" in mistake("--model", finished, "--predict_text", "a")


def test_checkpoint_that_does_not_fit_lists_its_tensors(finished, tmp_path):
    assert '"n_layer" was 2 and is now 3' in mistake("--model", finished, "--set", "n_layer=3")
    (tmp_path / "run" / "config.json").unlink()
    message = mistake("--model", finished, "--set", "n_layer=3", "--set", "n_ctx=17")
    assert "12 missing (model/h2/ln_1/g" in message
    assert "1 of another shape (model/wpe is [16, 32], not [17, 32])" in message
    message = mistake("--model", finished, "--set", "n_layer=1")
    assert "12 extra (model/h1/attn/c_attn/b" in message


def test_checkpoints_without_the_file_that_names_the_newest_are_no_new_run(finished, tmp_path, capsys):
    for left in (None, b"\xff\x00"):
        (tmp_path / "run" / "checkpoint").unlink(missing_ok=True)
        if left:
            (tmp_path / "run" / "checkpoint").write_bytes(left)
        assert main.main(["--model", finished, "--plan"]) == 0
        assert main.main(["--model", finished]) == 0
        out, err = capsys.readouterr()
        assert "is done: step 4 of 4" in out and ("there is no" in err) == (left is None)
        assert ("model.ckpt-4" in out) == (left is None)  # of --plan
    for path in (tmp_path / "run").glob("model.ckpt-*"):
        path.unlink()
    assert "cannot be read" in mistake("--model", finished)


@pytest.mark.parametrize("how", ["cut off", "missing", "garbage"])
def test_damaged_newest_checkpoint_is_named(finished, tmp_path, how):
    for step in (0, 4):
        damage(tmp_path / "run" / f"model.ckpt-{step}.data-00000-of-00001", how)
    for arguments in (["--set", "max_steps=8"], ["--eval"], ["--predict_text", "a"]):
        message = mistake("--model", finished, *arguments)
        assert "model.ckpt-4 is damaged or incomplete" in message and "remove" not in message
        assert "no checkpoint there can be read whole" in message


def test_damage_to_what_the_optimizer_keeps_bars_a_training_alone(finished, tmp_path, capsys):
    run = tmp_path / "run"
    slot = tf.train.load_checkpoint(str(run / "model.ckpt-4")).get_tensor("model/wte/adam_v").tobytes()
    data = run / "model.ckpt-4.data-00000-of-00001"
    content = data.read_bytes()
    assert content.count(slot) == 1
    data.write_bytes(content.replace(slot, os.urandom(len(slot))))
    config = schema.load(finished)
    capsys.readouterr()
    assert run_folder.trained(config, bpe.load(config.encoder_path), "evaluate") == str(run / "model.ckpt-4")
    assert capsys.readouterr().err == ""
    assert run_checkpoints.newest_whole(str(run)) == str(run / "model.ckpt-0")
    assert "model.ckpt-4 is damaged" in capsys.readouterr().err


def test_newest_checkpoint_that_cannot_be_read_is_neither_called_damaged_nor_passed_over(run_config, tmp_path):
    config = run_config(max_steps=4, train_steps=2, eval_steps=0)
    main.main(["--model", config])
    data = tmp_path / "run" / "model.ckpt-4.data-00000-of-00001"
    data.rename(tmp_path / "data")
    data.mkdir()  # also for root no file to read
    message = mistake("--model", config, "--set", "max_steps=8")
    assert f"/run/model.ckpt-4 cannot be read, and may be whole: {data}: Is a directory; mend that" in message
    data.rmdir()
    (tmp_path / "data").rename(data)
    assert main.main(["--model", config]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["garbage", "cut off", "gone"])
def test_damaged_newest_checkpoint_is_passed_over_for_the_one_before(run_config, tmp_path, how):
    changes = {"max_steps": 9, "train_steps": 3, "eval_steps": 0, "res_dropout": 0.1}
    whole, config = run_config(model_dir=str(tmp_path / "whole"), **changes), str(tmp_path / "again.json")
    main.main(["--model", whole])
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    os.rename(run_config(**changes), config)
    data = tmp_path / "run" / "model.ckpt-9.data-00000-of-00001"
    if how == "gone":
        data.with_name("model.ckpt-9.index").unlink()
    else:
        damage(data, how)
    result = command("--model", config)
    assert result.returncode == 0, result.stderr
    assert "model.ckpt-9 is damaged or incomplete" in result.stderr and "going on from" in result.stderr
    assert "continuing" in result.stdout and "at step 6 of 9" in result.stdout
    for name, value in weights_of(tmp_path / "whole", 9).items():
        np.testing.assert_array_equal(value, weights_of(tmp_path / "run", 9)[name], err_msg=name)


def test_second_run_in_the_same_model_dir_is_refused(run_config, tmp_path):
    from configs import storage
    (tmp_path / "run").mkdir()
    with storage.only_run(str(tmp_path / "run" / ".lock"), "wait"):
        assert "another run holds" in mistake("--model", run_config())


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_damaged_notes_in_model_dir_are_named(finished, tmp_path, name):
    (tmp_path / "run" / name).write_text("{")
    assert name in mistake("--model", finished)


def test_other_shards_than_before_are_a_warning(finished, run_config, text_corpus, tmp_path, capsys):
    shutil.copy(text_corpus / "text_0.tfrecords", tmp_path / "other_0.tfrecords")
    both = [str(tmp_path / "other_0.tfrecords"), "text_0.tfrecords"]
    main.main(["--model", run_config(max_steps=5, train_files=both, eval_files="text*.tfrecords")])
    out = capsys.readouterr().out
    assert "the training shards are not those the run began with: the data order changes\n" in out
    assert "is trained on and evaluated on" in out
    noted = json.loads((tmp_path / "run" / "data.json").read_text())
    assert noted["files"] == ["other_0.tfrecords", "text_0.tfrecords"]
    main.main(["--model", run_config(max_steps=5, train_files=both[:1])])
    assert "the data order changes; no longer read: text_0.tfrecords\n" in capsys.readouterr().out


def test_run_of_an_earlier_version_is_told_which_evaluation_shards_it_no_longer_trains_on(finished, run_config,
                                                                                          tmp_path, capsys):
    note = tmp_path / "run" / "data.json"
    noted = json.loads(note.read_text())
    del noted["files"]
    note.write_text(json.dumps({**noted, "shards": "of all files, those for evaluation too"}))
    assert main.main(["--model", run_config(max_steps=4, train_files="text*.tfrecords")]) == 0
    said = capsys.readouterr()
    assert re.search(r"run began with: the data order changes; left out now: text-eval_0\.tfrecords", said.out)
    assert "left out of train_files: text-eval_0.tfrecords" in said.err


def test_other_words_for_the_same_data_are_no_change(finished, run_config, text_corpus, tmp_path, capsys):
    assert main.main(["--model", run_config(max_steps=4, input=..., train_files=..., eval_files=..., encoder_path=...,
                                            n_vocab=..., data_path=os.path.relpath(text_corpus))]) == 0
    said = capsys.readouterr()
    assert "is done: step 4 of 4" in said.out and "warning" not in said.out and said.err == ""


def test_run_whose_checkpoints_are_gone_is_not_taken_for_a_new_one(finished, tmp_path):
    for path in (tmp_path / "run").glob("model.ckpt-*.index"):
        path.unlink()
    assert "no checkpoint there can be read whole" in mistake("--model", finished, "--set", "max_steps=8")


def test_weights_without_a_step_in_model_dir_are_explained(run_config, tmp_path):
    with tf.Graph().as_default(), tf.Session() as s:
        from configs import schema
        from models import initial_values
        config = run_config()
        variables = initial_values.create_variables(schema.load(config))
        s.run(tf.global_variables_initializer())
        os.makedirs(tmp_path / "run")
        tf.train.Saver(list(variables.values())).save(s, str(tmp_path / "run" / "model.ckpt"))
    assert 'set "init_checkpoint"' in mistake("--model", config)


def test_unwritable_model_dir_is_an_error(run_config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert '"model_dir"' in mistake("--model", run_config(model_dir=str(tmp_path / "file" / "run")))


def test_changed_schedule_is_a_warning(finished, run_config, capsys):
    main.main(["--model", run_config(max_steps=5)])
    assert 'warning: ' in capsys.readouterr().out


def test_checkpoint_that_may_not_be_so_large_is_one_line(run_config, tmp_path):
    config = run_config(max_steps=4)
    limited = subprocess.run([sys.executable, "-c", "import resource, runpy, sys\n"
                              "resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))\n"
                              "sys.argv = sys.argv[1:]\n"
                              "runpy.run_path(sys.argv[0], run_name='__main__')",
                              os.path.join(ROOT, "main.py"), "--model", config], capture_output=True, text=True)
    error, = limited.stderr.splitlines()
    assert limited.returncode == 2 and "File too large; allow larger files" in error and str(tmp_path / "run") in error
    assert command("--model", config).returncode == 0


def test_what_a_training_on_a_tpu_failed_by_is_not_hidden_by_a_thread_that_found_its_session_closed():
    workarounds.prepare()
    with tf.Graph().as_default():
        session, failing = tf.Session(), tf.debugging.check_numerics(tf.math.log(tf.random.uniform([], -2, -1)), "why")
        found = error_handling.ErrorRendezvous(num_sources=3)
        with found.catch_errors("training_loop"):
            try:
                session.run(failing)
            finally:
                session.close()
                with found.catch_errors("outfeed", session):  # it is heard first
                    session.run(failing)
                found.record_done("infeed")
        with pytest.raises(tf.errors.InvalidArgumentError, match="why"):
            found.raise_errors()
        for source in ("training_loop", "outfeed"):
            found = error_handling.ErrorRendezvous(num_sources=3)
            with found.catch_errors(source):
                session.run(failing)
            with pytest.raises(RuntimeError, match="closed Session"):
                found.raise_errors()


def test_no_graph_computes_starting_values_where_a_checkpoint_is_restored(run_config, monkeypatch):
    computed, make = [], gpt2.make_model_fn

    def watched(config, sampler):
        def model_fn(features, labels, mode, params):
            spec = make(config, sampler)(features, labels, mode, params)
            computed.append((mode, [op.name for op in tf.get_default_graph().get_operations() if re.match(
                "model/.*/Initializer/", op.name) and op.type != "Placeholder"]))
            return spec
        return model_fn
    monkeypatch.setattr(gpt2, "make_model_fn", watched)
    assert main.main(["--model", run_config(train_steps=1, max_steps=2)]) == 0
    (mode, names), *later = computed
    assert mode == "train" and len(names) > 100 and later == [("eval", []), ("train", []), ("eval", [])]


def test_a_run_whose_checkpoint_cannot_be_found_again_does_not_begin_anew(run_config, tmp_path, monkeypatch):
    config, state = run_config(max_steps=4, train_steps=2, eval_steps=0), tmp_path / "run" / "checkpoint"
    assert main.main(["--model", config, "--set", "max_steps=2"]) == 0
    make = gpt2.make_model_fn

    def disturbed(config, sampler):
        def model_fn(*arguments):
            spec = make(config, sampler)(*arguments)
            state.rename(tmp_path / "away")  # as a disk that fails to read it: to TensorFlow both mean none
            return spec
        return model_fn
    monkeypatch.setattr(gpt2, "make_model_fn", disturbed)
    assert 'its file "checkpoint" could be read when the run began' in mistake("--model", config)
    monkeypatch.undo()
    (tmp_path / "away").rename(state)
    assert main.main(["--model", config]) == 0
    assert "model.ckpt-4" in state.read_text()


def test_grappler_rewrites_graphs_for_gpus_and_tpus_alone(monkeypatch):
    def rewrites(**named):
        return not workarounds.session_config(**named).graph_options.rewrite_options.disable_meta_optimizer
    assert not rewrites() and rewrites(on_tpu=True)
    monkeypatch.setattr(devices, "devices", lambda: ["/gpu:0"])
    assert rewrites()
