"""The command line as its users call it: train, evaluate, resume, generate, stop, and every mistake."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema
from datasets import records
from errors import UserError
from tests import reference

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def command(*arguments, **options):
    return subprocess.run([sys.executable, os.path.join(ROOT, "main.py"), *arguments], capture_output=True, text=True,
                          timeout=240, **options)


def weights_of(model_dir, step):
    reader = tf.train.load_checkpoint(os.path.join(str(model_dir), "model.ckpt-%d" % step))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def scalars_of(folder):
    """{tag: [(step, value)]} of the events files in a folder."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if "tfevents" in name:
            for event in tf.train.summary_iterator(os.path.join(folder, name)):
                for value in event.summary.value:
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_training_evaluates_after_each_chunk_and_stops_exactly_at_max_steps(run_config, tmp_path, capsys):
    assert main.main(["--model", run_config(max_steps=10)]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"evaluation at step (\d+): loss [\d.]+, perplexity [\d.]+", out) == ["4", "8", "10"]
    assert re.search(r"step +1/10 +loss \d+\.\d{4} +lr \d\.\d\de-\d\d", out)
    assert re.search(r"step +10/10 +loss .* tokens/s +0:00 left", out)
    assert weights_of(tmp_path / "run", 10)["global_step"] == 10
    assert json.loads((tmp_path / "run" / "config.json").read_text())["n_embd"] == 32


def test_training_learns(run_config, tmp_path):
    assert main.main(["--model", run_config(max_steps=60, train_steps=60)]) == 0
    evaluation = scalars_of(tmp_path / "run" / "eval")
    assert evaluation["token_loss"][-1][1] < 4.6  # log(300) = 5.7 before the first step


def test_resumed_run_equals_the_uninterrupted_one_to_the_bit(run_config, tmp_path):
    changes = {"res_dropout": 0.1, "attn_dropout": 0.1, "max_steps": 9, "eval_steps": 0}
    main.main(["--model", run_config(train_steps=9, model_dir=str(tmp_path / "whole"), **changes)])
    parts = run_config(train_steps=3, model_dir=str(tmp_path / "parts"), **changes)
    stop_after(parts, 5)
    assert weights_of(tmp_path / "parts", 5)["global_step"] == 5
    main.main(["--model", parts])
    whole, resumed = weights_of(tmp_path / "whole", 9), weights_of(tmp_path / "parts", 9)
    assert set(whole) == set(resumed) and any(name.endswith("/adam_m") for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


def stop_after(config, step):
    """Runs the config in this process until a signal arrives in the given step."""
    import session_hooks

    class Stop(session_hooks.StopOnSignal):
        def after_run(self, run_context, run_values):
            if tf.train.get_global_step().eval(session=run_context.session) == step:
                self.signal_number = signal.SIGTERM
            super().after_run(run_context, run_values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_hooks, "StopOnSignal", Stop)
        assert main.main(["--model", config]) == 143


def test_a_finished_run_says_so_and_trains_no_further(run_config, tmp_path, capsys):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    before = sorted(os.listdir(tmp_path / "run"))
    capsys.readouterr()
    assert main.main(["--model", config]) == 0
    assert "is done: step 4 of 4" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "run")) == before


def test_tensorboard_gets_training_and_evaluation_scalars(run_config, tmp_path):
    main.main(["--model", run_config(max_steps=20, train_steps=20)])
    training, evaluation = scalars_of(tmp_path / "run"), scalars_of(tmp_path / "run" / "eval")
    for tag in ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "epoch"):
        assert [step for step, _ in training[tag]] == [10, 20], tag
        assert all(np.isfinite(value) and value > 0 for _, value in training[tag])
    assert training["tokens_seen"] == [(10, 640), (20, 1280)]
    assert training["documents_seen"] == [(10, 0), (20, 0)]  # of two documents a third was read
    assert all(0 < value < 0.01 for _, value in training["dropped"]) and len(training["dropped"]) == 2
    assert evaluation["perplexity"][0][1] == pytest.approx(np.exp(evaluation["token_loss"][0][1]), rel=1e-5)


def test_best_checkpoint_is_kept_and_is_a_model_dir_by_itself(run_config, tmp_path, capsys):
    # A rate that spoils the network after the second evaluation.
    changes = {"train_steps": 4, "lr_schedule": "constant", "keep_checkpoint_max": 1, "eval_steps": -1}
    main.main(["--model", run_config(max_steps=8, **changes)])
    main.main(["--model", run_config(max_steps=12, lr=3.0, **changes)])
    out = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"evaluation at step \d+: loss ([\d.]+)", out)]
    assert losses[2] > losses[1] < losses[0]
    assert out.count("the best so far") == 2
    best = tmp_path / "run" / "best"
    assert json.loads((best / "evaluation.json").read_text())["loss"] == pytest.approx(losses[1], abs=1e-4)
    assert sorted(path.name for path in best.glob("model.ckpt*")) \
        == ["model.ckpt-8.data-00000-of-00001", "model.ckpt-8.index"]
    assert not (tmp_path / "run" / "model.ckpt-8.index").exists()
    assert main.main(["--model", run_config(max_steps=8, model_dir=str(best), **changes), "--eval"]) == 0
    assert f"loss {losses[1]:.4f}" in capsys.readouterr().out


def test_eval_reads_the_whole_set_and_equals_itself(run_config, capsys):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    capsys.readouterr()
    results = []
    for _ in range(2):
        assert main.main(["--model", config, "--eval"]) == 0
        results.append(re.sub(r" in \d+:\d+", "", capsys.readouterr().out))
    assert results[0] == results[1]
    assert re.search(r"targets, [\d.]+ bits per token, [\d.]+ bits per byte", results[0])


def test_eval_equals_numpy_over_the_same_windows(run_config, text_corpus, capsys):
    config = schema.load(run_config(max_steps=40, train_steps=40, n_ctx=13))
    main.main(["--model", run_config(max_steps=40, train_steps=40, n_ctx=13)])
    capsys.readouterr()
    main.main(["--model", run_config(max_steps=40, train_steps=40, n_ctx=13), "--eval"])
    loss, perplexity = map(float, re.search(r"loss ([\d.]+), perplexity ([\d.]+)", capsys.readouterr().out).groups())
    text = []
    for path in sorted(text_corpus.glob("text-eval_*.tfrecords")):
        for _, payload in records.read(str(path)):
            text += [*records.decode(payload)[1], 299]
    weights = {name[len("model/"):]: value for name, value in weights_of(config.model_dir, 40).items()
               if name.startswith("model/") and "adam" not in name}
    losses = []
    for start in range(0, len(text) - 1, 13):
        window = text[start:start + 14]
        logits = reference.logits(weights, np.array([window[:-1]]), layers=config.n_layer, heads=config.n_head)
        losses += (-np.log(reference.softmax(logits)[0][range(len(window) - 1), window[1:]])).tolist()
    assert len(losses) == len(text) - 1
    assert loss == pytest.approx(np.mean(losses), abs=1e-4)  # four digits are printed
    assert perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-3)


def test_samples_are_printed_and_appended_and_repeat_with_their_seed(run_config, tmp_path, capsys):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    capsys.readouterr()
    arguments = ["--model", config, "--predict_text", "def é", "--length", "9", "--num_samples", "3", "--seed", "5"]
    assert main.main(arguments) == 0
    out = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"^={40} SAMPLE (\d) ={40}$", out, re.M)] == [0, 1, 2]
    assert out.count("def é") == 3 and out.rstrip().endswith("=" * 80)
    assert main.main(arguments) == 0
    assert capsys.readouterr().out == out
    assert (tmp_path / "samples" / "out.txt").read_text() == out + out
    main.main(arguments[:-1] + ["6"])
    assert capsys.readouterr().out != out


def test_reader_that_has_enough_ends_the_program_quietly(run_config):
    process = subprocess.run(f"{sys.executable} main.py --model {run_config()} --plan | true", shell=True, cwd=ROOT,
                             capture_output=True, text=True)
    assert process.stderr == ""


def test_predict_file_is_the_prompt_and_zero_temperature_is_greedy(run_config, tmp_path, capsys):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    (tmp_path / "prompt.txt").write_text("class Encoder:\n")
    capsys.readouterr()
    for seed in ("1", "2"):
        main.main(["--model", config, "--predict_file", str(tmp_path / "prompt.txt"), "--length", "25", "--seed", seed,
                   "--temperature", "0", "--top_k", "0"])
    first, second = capsys.readouterr().out.split("=" * 80 + "\n")[:2]
    assert first == second and "class Encoder:\n" in first


def test_init_checkpoint_starts_from_its_weights_at_step_0(run_config, tmp_path):
    main.main(["--model", run_config(max_steps=4)])
    start = str(tmp_path / "run" / "model.ckpt-4")
    main.main(["--model", run_config(max_steps=2, model_dir=str(tmp_path / "new"), init_checkpoint=start)])
    old, new = weights_of(tmp_path / "run", 4), weights_of(tmp_path / "new", 0)
    np.testing.assert_array_equal(old["model/h1/mlp/c_fc/w"], new["model/h1/mlp/c_fc/w"])
    assert np.all(new["model/wte/adam_m"] == 0) and np.any(old["model/wte/adam_m"] != 0)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16", "recompute": True}, {"opt_name": "adafactor"},
                                     {"micro_batch_size": 2, "embed_dropout": 0.1}])
def test_every_lever_trains(run_config, tmp_path, changes):
    assert main.main(["--model", run_config(max_steps=30, train_steps=30, eval_steps=0, **changes)]) == 0
    losses = [value for _, value in scalars_of(tmp_path / "run")["loss"]]
    assert losses[-1] < losses[0]


def test_micro_batches_change_a_run_only_by_rounding(run_config, tmp_path):
    for size in (None, 1, 2):
        main.main(["--model", run_config(max_steps=5, eval_steps=0, train_steps=5, micro_batch_size=size, grad_clip=0.1,
                                         model_dir=str(tmp_path / str(size)))])
    whole = weights_of(tmp_path / "None", 5)
    for size in (1, 2):
        for name, value in weights_of(tmp_path / str(size), 5).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-3, atol=2e-5, err_msg=name)


def test_sigterm_saves_the_step_and_exits_143_and_a_restart_goes_on(run_config, tmp_path):
    config = run_config(max_steps=100000, train_steps=100000, eval_steps=0)
    process = subprocess.Popen([sys.executable, os.path.join(ROOT, "main.py"), "--model", config], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stdout:
        if line.startswith("step"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    step = int(re.search(r"stopped by signal 15; step (\d+) is saved", out).group(1))
    assert step > 0 and weights_of(tmp_path / "run", step)["global_step"] == step
    again = command("--model", config, "--set", "max_steps=%d" % (step + 2))
    assert again.returncode == 0 and "continuing" in again.stdout and "at step %d of" % step in again.stdout


def test_what_the_user_sees_is_ours_alone(run_config):
    config = run_config(max_steps=4)
    for arguments in ([], ["--eval"], ["--predict_text", "def", "--length", "3"]):
        result = command("--model", config, *arguments)
        assert result.returncode == 0 and result.stderr == "", result.stderr
        known = r"starting|step|evaluation|the best so far|done|[\d,]+ targets"
        lines = result.stdout.splitlines()
        if "--predict_text" in arguments:
            assert "SAMPLE 0" in lines[0] and lines[1].startswith("def") and lines[-1] == "=" * 80
        else:
            assert lines and all(re.match(known, line) for line in lines), result.stdout


def test_plan_imports_no_tensorflow_and_writes_nothing(run_config, tmp_path):
    code = "import sys, main; main.main(sys.argv[1:]); assert 'tensorflow' not in sys.modules"
    arguments = ["--model", run_config(warmup_steps=1), "--plan"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "no problems found" in result.stdout, result.stdout + result.stderr
    assert not (tmp_path / "run").exists()


# Mistakes: one clear line each, exit status 2, nothing written.

def mistake(*arguments):
    with pytest.raises(UserError) as caught:
        main.main(list(arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mistake_is_one_line_on_stderr_and_status_2(run_config):
    for arguments, words in [(["--model", run_config(), "--set", "n_embed=3"], '"n_embed"; did you mean "n_embd"?'),
                             (["--model", "nowhere.json"], "nowhere.json"),
                             (["--model", run_config(), "--plan", "--eval"], "exclude each other"),
                             (["--modle", "x"], "--help")]:
        result = command(*arguments)
        assert result.returncode == 2 and result.stdout == "", result
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ") and words in result.stderr


@pytest.mark.parametrize("arguments, words", [
    (["--predict_text", "a", "--predict_file", "b"], "exclude each other"),
    (["--top_k", "3"], "--top_k needs a text to continue; give --predict_text TEXT, --predict_file FILE or --inter"),
    (["--temperature", "0"], "--temperature needs a text"), (["--json"], "--json needs a text to continue"),
    (["--interactive", "--eval"], "exclude each other"),
    (["--interactive", "--tpu", "local"], "--interactive runs on this machine's CPU or GPU; leave --tpu out"),
    (["--predict_text", "a", "--stop", ""], '--stop is [""], but must be a text that is not empty'),
    (["--predict_text", "a", "--temperature", "-1"], "--temperature is -1.0, but must be a number from 0 to 1000000"),
    (["--predict_text", "a", "--top_p", "1.5"], "--top_p is 1.5, but must be a number from 0 to 1"),
    (["--predict_text", "a", "--length", "0"], "--length is 0, but must be an integer from 1 to 1000000"),
    (["--predict_text", "a"], "holds no checkpoint to generate with; train first"),
    (["--eval"], "holds no checkpoint to evaluate; train first"),
    (["--predict_file", "/nonexistent.txt"], "/nonexistent.txt: no such file")])
def test_wrong_options_are_named(run_config, arguments, words):
    assert words in mistake("--model", run_config(), *arguments)


def test_empty_or_binary_prompt_file_is_an_error(run_config, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"abc\xff")
    assert "empty.txt is empty" in mistake("--model", run_config(), "--predict_file", str(tmp_path / "empty.txt"))
    assert "not UTF-8 text (byte 3)" in mistake("--model", run_config(), "--predict_file", str(tmp_path / "binary.txt"))


def test_missing_shards_name_the_pattern(run_config, tmp_path):
    assert "no file matches" in mistake("--model", run_config(train_files="nothing_*.tfrecords"))
    assert not (tmp_path / "run").exists()


def test_file_that_is_no_tfrecord_is_named_with_its_offset(run_config, tmp_path):
    (tmp_path / "bad_0.tfrecords").write_text("this is plain text, and long enough for a header")
    message = mistake("--model", run_config(train_files=str(tmp_path / "bad_*.tfrecords")))
    assert "bad_0.tfrecords" in message and "0" in message and "TFRecord" in message
    assert not (tmp_path / "run").exists()


def copy_shard(text_corpus, tmp_path, change):
    """A changed copy of a shard, without manifest."""
    data = (text_corpus / "text_0.tfrecords").read_bytes()
    (tmp_path / "copy_0.tfrecords").write_bytes(change(data))
    return str(tmp_path / "copy_*.tfrecords")


def test_shard_that_is_cut_off_is_named_with_its_offset(run_config, text_corpus, tmp_path):
    message = mistake("--model", run_config(train_files=copy_shard(text_corpus, tmp_path, lambda data: data[:-7])))
    assert "copy_0.tfrecords" in message and re.search(r"(byte|offset) \d+", message)


def test_record_damaged_after_its_manifest_was_written_stops_with_its_offset(run_config, text_corpus, tmp_path):
    for path in text_corpus.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    data = bytearray((tmp_path / "text_0.tfrecords").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "text_0.tfrecords").write_bytes(data)
    message = mistake("--model", run_config(data_path=str(tmp_path)))
    assert "text_0.tfrecords" in message and re.search(r"(byte|offset) \d+", message)


def test_shard_shorter_than_its_manifest_says_is_an_error(run_config, text_corpus, tmp_path):
    for path in text_corpus.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / "text_0.tfrecords").read_bytes()
    (tmp_path / "text_0.tfrecords").write_bytes(data[:-5])
    message = mistake("--model", run_config(data_path=str(tmp_path)))
    assert "text_0.tfrecords" in message and re.search(r"(byte|offset) \d+", message)


def test_vocabulary_of_another_size_or_content_is_an_error(run_config):
    assert 'the vocabulary in' in mistake("--model", run_config(n_vocab=299))
    assert "encoded with another vocabulary" in mistake("--model", run_config(encoder_path=None, n_vocab=50257))


def test_checkpoint_of_another_vocabulary_is_an_error(run_config, tmp_path):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    (tmp_path / "run" / "data.json").write_text('{"vocabulary": "other"}')
    assert "was trained with another vocabulary" in mistake("--model", config)
    assert "was trained with another vocabulary" in mistake("--model", config, "--predict_text", "a")


def test_checkpoint_that_does_not_fit_lists_its_tensors(run_config, tmp_path):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    assert '"n_layer" was 2 and is now 3' in mistake("--model", config, "--set", "n_layer=3")
    (tmp_path / "run" / "config.json").unlink()
    message = mistake("--model", config, "--set", "n_layer=3", "--set", "n_ctx=17")
    assert "12 missing (model/h2/ln_1/g" in message
    assert "1 of another shape (model/wpe is [16, 32], not [17, 32])" in message
    message = mistake("--model", config, "--set", "n_layer=1")
    assert "12 extra (model/h1/attn/c_attn/b" in message


def test_checkpoints_without_the_file_that_names_the_newest_are_no_new_run(run_config, tmp_path, capsys):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    (tmp_path / "run" / "checkpoint").unlink()
    assert 'not the file "checkpoint" that names the newest' in mistake("--model", config)
    (tmp_path / "run" / "checkpoint").write_bytes(b"\xff\x00")  # what it named is still there
    assert main.main(["--model", config]) == 0
    assert "is done: step 4 of 4" in capsys.readouterr().out
    for path in (tmp_path / "run").glob("model.ckpt-*"):
        path.unlink()
    assert "cannot be read" in mistake("--model", config)


def damage(path, how):
    data = path.read_bytes()
    if how == "cut off":
        path.write_bytes(data[:len(data) // 2])
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(os.urandom(len(data)))


@pytest.mark.parametrize("how", ["cut off", "missing", "garbage"])
def test_damaged_newest_checkpoint_is_named(run_config, tmp_path, how):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    for step in (0, 4):
        damage(tmp_path / "run" / f"model.ckpt-{step}.data-00000-of-00001", how)
    for arguments in (["--set", "max_steps=8"], ["--eval"], ["--predict_text", "a"]):
        message = mistake("--model", config, *arguments)
        assert "model.ckpt-4 is damaged or incomplete" in message and "no whole checkpoint is left" in message


@pytest.mark.parametrize("how", ["garbage", pytest.param("cut off", marks=pytest.mark.slow),
                                 pytest.param("gone", marks=pytest.mark.slow)])
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
    import storage
    (tmp_path / "run").mkdir()
    with storage.only_run(str(tmp_path / "run" / ".lock"), "wait"):
        assert "another run holds" in mistake("--model", run_config())


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_damaged_notes_in_model_dir_are_named(run_config, tmp_path, name):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    (tmp_path / "run" / name).write_text("{")
    assert name in mistake("--model", config)


def test_other_shards_than_before_are_a_warning(run_config, text_corpus, tmp_path, capsys):
    main.main(["--model", run_config(max_steps=4)])
    main.main(["--model", run_config(max_steps=5, train_files="text*_*.tfrecords")])
    out = capsys.readouterr().out
    assert "the training shards are not those the run began with" in out
    assert "is trained on and evaluated on" in out


def test_empty_eval_set_is_an_error_before_training(run_config, tmp_path):
    (tmp_path / "empty_0.tfrecords").write_bytes(b"")
    message = mistake("--model", run_config(eval_files=str(tmp_path / "empty_*.tfrecords")))
    assert "empty_0.tfrecords holds no text" in message and not (tmp_path / "run").exists()


def test_signal_during_an_evaluation_gives_no_result(run_config, capsys):
    import session_hooks
    config = run_config(max_steps=4)
    main.main(["--model", config])

    class Stop(session_hooks.StopOnSignal):
        def before_run(self, run_context):
            self.signal_number = signal.SIGINT
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_hooks, "StopOnSignal", Stop)
        assert main.main(["--model", config, "--eval"]) == 130
    assert "loss" not in capsys.readouterr().out


def test_plan_sees_what_does_not_fit(run_config, text_corpus, tmp_path, capsys):
    config = run_config(max_steps=20)
    main.main(["--model", config])
    capsys.readouterr()
    for change, words in [("n_layer=3", '"n_layer" was 2 and is now 3'), ("n_vocab=299", "has 300 ids"),
                          ("encoder_path=null", "another vocabulary")]:
        more = ["--set", "n_vocab=50257"] if change.startswith("encoder") else []
        main.main(["--model", config, "--plan", "--set", change, *more])
        assert words in capsys.readouterr().out, change


def test_run_whose_checkpoints_are_gone_is_not_taken_for_a_new_one(run_config, tmp_path):
    config = run_config(max_steps=4)
    main.main(["--model", config])
    for path in (tmp_path / "run").glob("model.ckpt-*.index"):
        path.unlink()
    assert "no whole checkpoint is left" in mistake("--model", config, "--set", "max_steps=8")


def test_weights_without_a_step_in_model_dir_are_explained(run_config, tmp_path):
    with tf.Graph().as_default(), tf.Session() as s:
        from configs import schema
        from models import gpt2
        config = run_config()
        variables = gpt2.create_variables(schema.load(config))
        s.run(tf.global_variables_initializer())
        os.makedirs(tmp_path / "run")
        tf.train.Saver(list(variables.values())).save(s, str(tmp_path / "run" / "model.ckpt"))
    assert 'set "init_checkpoint"' in mistake("--model", config)


def test_unwritable_model_dir_is_an_error(run_config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert '"model_dir"' in mistake("--model", run_config(model_dir=str(tmp_path / "file" / "run")))


def test_loss_that_is_not_finite_names_step_and_documents_and_keeps_the_checkpoint(run_config, tmp_path, capsys):
    config = run_config(max_steps=3, train_steps=3, warmup_steps=0, lr_schedule="constant", eval_steps=0)
    main.main(["--model", config])
    assert '"lr" is 1e+30' in mistake("--model", config, "--set", "lr=1e30")
    message = mistake("--model", config, "--set", "max_steps=30", "--set", "train_steps=30", "--set",
                      "weight_decay=1e30")
    assert re.search(r"not finite at step 5, .*; the last checkpoint is .*model.ckpt-3", message), message
    capsys.readouterr()
    assert main.main(["--model", config, "--set", "max_steps=30", "--which_data", "5"]) == 0
    names = capsys.readouterr().out.split()
    assert names and f"holds the documents {', '.join(names[:5])}" in message
    assert all(np.all(np.isfinite(value)) for value in weights_of(tmp_path / "run", 3).values())


def test_changed_schedule_is_a_warning(run_config, capsys):
    main.main(["--model", run_config(max_steps=4)])
    main.main(["--model", run_config(max_steps=5)])
    assert 'warning: ' in capsys.readouterr().out


def test_checkpoint_that_finds_no_room_is_one_line(run_config, tmp_path):
    config = run_config(max_steps=4)
    limited = subprocess.run([sys.executable, "-c", "import resource, runpy, sys\n"
                              "resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))\n"
                              "sys.argv = sys.argv[1:]\n"
                              "runpy.run_path(sys.argv[0], run_name='__main__')",
                              os.path.join(ROOT, "main.py"), "--model", config], capture_output=True, text=True)
    error, = limited.stderr.splitlines()
    assert limited.returncode == 2 and "no space left on the disk" in error and str(tmp_path / "run") in error
    assert command("--model", config).returncode == 0
