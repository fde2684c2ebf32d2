"""Generating as its users do: files of prompts, options of each, JSON for machines, what is printed and stored."""
import collections
import dataclasses
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
import main
from configs import schema
from configs.errors import UserError
from encoder import bpe, prompts
from models.cpu import int8
from models.run import predict, samples
from tests import test_inputs
from tests.helpers import graphs
from tests.helpers.runs import ROOT, mistake


@pytest.fixture
def call(random_run, capsys):
    """Function (*arguments) -> what main.py prints to stdout."""
    def call(*arguments):
        capsys.readouterr()
        assert main.main(["--model", random_run, *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out
    return call


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_full_disk_names_predict_path_and_leaves_whole_samples_there(random_run, capsys):
    path = pathlib.Path(schema.load(random_run).predict_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    options = ["--model", random_run, "--predict_text", "x" * 900, "--length", "3"]
    path.unlink(missing_ok=True)
    assert main.main(options) == 0
    whole = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 500, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            main.main(options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path) and path.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_a_long_batch_at_once_and_whole_samples_are_stored(random_run, tmp_path, number):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "def", "length": 3}\n{"prompt": "x", "length": 1000000}\n')
    arguments = ["--model", random_run, "--predict_file", str(tmp_path / "prompts.jsonl"), "--set",
                 "predict_batch_size=1", "--set", f"predict_path={tmp_path}/out.txt"]
    with subprocess.Popen([sys.executable, "main.py", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
        for line in process.stdout:
            if line == predict.RULE * 2 + "\n":  # behind it comes the batch of the second text, which takes minutes
                break
        time.sleep(2)
        process.send_signal(number)
        try:
            assert process.wait(20) == -number
        finally:
            process.kill()
    assert (tmp_path / "out.txt").read_text().count(predict.RULE * 2) == 1


LINES = [{"prompt": "def é", "seed": 1, "num_samples": 3, "length": 9},
         {"prompt": "import json\n" * 20, "seed": 2, "temperature": 0, "length": 20},  # longer than the window
         {"prompt": "", "seed": 3, "top_p": 0.9, "length": 4, "top_k": 0},
         {"prompt": "class ", "seed": 4, "repetition_penalty": 1.7, "temperature": 0.5},
         {"prompt": "x", "seed": 5, "stop": "e", "length": 60},
         {"prompt": "x", "seed": 5, "length": 60}]


@pytest.fixture(scope="module")
def batched(random_run, tmp_path_factory):
    """The objects of all LINES in one run, drawn in batches of 3."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda text, **options: printed.append(text))
        assert main.main(["--model", random_run, "--predict_file", str(path), "--json", "--length", "5"]) == 0
    return [json.loads(line) for line in printed]


def test_a_file_of_prompts_is_continued_in_its_order_with_the_options_of_each(batched):
    assert [sample["prompt"] for sample in batched] == [LINES[i]["prompt"] for i in (0, 0, 0, 1, 2, 3, 4, 5)]
    assert [len(sample["tokens"]) for sample in batched[:6] if sample["stop"] == "length"] == [9, 9, 9, 20, 4, 5]
    assert len({sample["text"] for sample in batched[:3]}) == 3
    for sample in batched:
        assert list(sample) == ["prompt", "text", "tokens", "logprobs", "stop"]
        assert len(sample["tokens"]) == len(sample["logprobs"]) and max(sample["logprobs"]) <= 0


def test_a_stop_text_ends_its_own_sample_and_is_cut(batched):
    stopped, free = batched[6:]
    assert stopped["stop"] == "stop" and "e" in free["text"] and len(free["tokens"]) > len(stopped["tokens"])
    assert stopped["text"] == free["text"][:free["text"].index("e")]
    assert stopped["tokens"] == free["tokens"][:len(stopped["tokens"])]


@pytest.mark.parametrize("number, first", [(1, 3), (3, 5)])
def test_a_sample_is_the_same_alone_and_in_a_file(call, batched, number, first):
    options = [f"--{name}={value}" for name, value in {"length": 5, **LINES[number]}.items() if name != "prompt"]
    alone, = objects(call("--predict_text", LINES[number]["prompt"], "--json", *options))
    assert alone.pop("logprobs") == pytest.approx(batched[first]["logprobs"], abs=1e-4)
    assert alone == {name: value for name, value in batched[first].items() if name != "logprobs"}


def test_logprobs_are_those_of_the_network_before_any_option(random_run, batched):
    """Of the first n_ctx - S tokens, by one pass over the whole text without a cache."""
    config = schema.load(random_run)
    encoder = bpe.load(config.encoder_path)
    reader = tf.train.load_checkpoint(config.model_dir)
    weights = {name[len("model/"):]: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
               if name.startswith("model/")}
    sample = batched[5]  # with a temperature and a penalty
    tokens = encoder.encode(sample["prompt"]) + sample["tokens"]
    logits = graphs.logits(config, weights, [tokens[:config.n_ctx]])[0]
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    given = len(tokens) - len(sample["tokens"])
    expected = [logprobs[place - 1, tokens[place]] for place in range(given, len(tokens))]
    np.testing.assert_allclose(sample["logprobs"], expected, atol=1e-4)


def test_int8_draws_with_weights_of_eight_bits(call):
    if not int8.supported():
        pytest.skip("this machine's TensorFlow or processor has no such products")
    options = ["--predict_text", "def é", "--temperature", "0", "--length", "9", "--json"]
    (exact,), (quick,) = objects(call(*options)), objects(call(*options, "--int8"))
    assert quick["tokens"][:2] == exact["tokens"][:2] and len(quick["tokens"]) == 9
    assert quick["logprobs"][0] == exact["logprobs"][0]  # behind the prompt, which is read without
    assert 0 < abs(quick["logprobs"][1] - exact["logprobs"][1]) < 0.1


def test_text_is_printed_and_stored_in_the_original_s_layout_and_json_is_stored_so_too(random_run, call):
    stored = pathlib.Path(schema.load(random_run).predict_path)
    arguments = ["--predict_text", "def é", "--length", "3", "--num_samples", "2", "--seed", "5"]
    before = stored.read_text() if stored.exists() else ""
    text, lines = call(*arguments), objects(call(*arguments, "--json"))
    rule = "=" * 40
    assert text == "".join(f"{rule} SAMPLE {number} {rule}\ndef é{sample['text']}\n{rule}{rule}\n"
                           for number, sample in enumerate(lines))
    assert stored.read_text() == before + 2 * text


def test_the_end_of_text_ends_a_sample_and_is_not_part_of_it(random_run):
    encoder = bpe.load(schema.load(random_run).encoder_path)
    a = encoder.encode("a")[0]
    sample = predict.finish(encoder, prompts.make("p", {}), zip([a, a, encoder.eot], [-1.0, -2.0, -0.5]))
    assert sample == ("p", "aa", [a, a, encoder.eot], [-1.0, -2.0, -0.5], "eot")


def test_weights_that_give_no_finite_probabilities_are_an_error_and_no_text(random_run):
    encoder = bpe.load(schema.load(random_run).encoder_path)
    with pytest.raises(UserError, match="the probabilities of the next token are not finite.*older --checkpoint"):
        predict.finish(encoder, prompts.make("p", {}), zip([1, 0], [-1.0, float("nan")]))


def test_samples_of_neighbouring_seeds_are_different_texts(random_run):
    encoder = bpe.load(schema.load(random_run).encoder_path)
    rows = [row for seed in (1, 2) for row in predict.rows_of(
        prompts.make("a", {"seed": seed, "num_samples": 5}), encoder, 16)]
    assert len({row.seed for row in rows}) == 10


def test_no_input_of_a_session_has_the_thread_that_makes_its_end_wait(random_run, tmp_path):
    test_inputs.write_shards(tmp_path, "a", [13])
    config = test_inputs.config_for(tmp_path)
    rows = predict.rows_of(prompts.make("a", {}), bpe.load(schema.load(random_run).encoder_path), 16)
    input_fns = [inputs.train_input_fn(test_inputs.order_of(config), test_inputs.EOT, start_step=0, stop_step=2),
                 inputs.eval_input_fn(test_inputs.evaluation_of(config), test_inputs.EOT),
                 predict._input_fn(rows, collections.defaultdict(int), 0)]
    with graphs.session():
        assert [input_fn({"batch_size": 1}).options().autotune.enabled for input_fn in input_fns] == [False] * 3


@pytest.mark.parametrize("name, content, where", [
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "é"}\n', "{path}, line 2"), ("p.txt", "a é", "{path}"),
    (None, "é", "the prompt")])
def test_a_character_that_the_vocabulary_lacks_is_named_with_its_prompt(tmp_path, name, content, where):
    bpe.write(str(tmp_path), [], ["a", "b"])
    path = str(tmp_path / (name or "none"))
    (tmp_path / (name or "none")).write_text(content)
    *before, last = prompts.read(path, {}) if name else [prompts.make(content, {})]
    encoder = bpe.load(str(tmp_path))
    assert all(predict.rows_of(prompt, encoder, 16) for prompt in before)
    with pytest.raises(UserError) as caught:
        predict.rows_of(last, encoder, 16)
    assert str(caught.value).startswith(where.format(path=path) + ": the vocabulary has no token for the character ")


def test_a_character_of_sample_prompts_that_the_vocabulary_lacks_is_named_with_them(random_run, tmp_path):
    bpe.write(str(tmp_path), [], ["a", "b"])
    config = dataclasses.replace(schema.load(random_run), sample_prompts=("a", "aé"))
    with pytest.raises(UserError, match='^"sample_prompts", "aé": the vocabulary has no token for the character '):
        samples.writer(config, bpe.load(str(tmp_path)), None, main.build_estimator)


def test_a_mistake_in_a_file_prints_and_stores_nothing(random_run, tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b", "temprature": 1}\n')
    with pytest.raises(UserError, match='line 2: unknown option "temprature"; did you mean "temperature"'):
        main.main(["--model", random_run, "--predict_file", str(path)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments, what", [(["KING\udcff"], "--predict_text"),
                                             (["a", "--stop", "KING\udcff"], "--stop")])
def test_bytes_of_the_command_line_that_are_no_utf_8_are_refused_as_in_a_file(random_run, arguments, what):
    assert f"{what} 'KING\\udcff' is not UTF-8 text" in mistake("--model", random_run, "--predict_text", *arguments)


@pytest.fixture
def threads(random_run, capsys, monkeypatch):
    """Function (*arguments) -> the number of threads that main.py lets TensorFlow start when it generates."""
    monkeypatch.delenv(predict.THREADS, raising=False)
    monkeypatch.setattr(predict.workers, "cores", lambda: 2)
    monkeypatch.setattr(predict.hardware, "multiplies_bfloat16", lambda: True)
    seen, two = [], [{"tokens": [], "count": 0, "logprobs": []}] * 2
    monkeypatch.setattr(predict, "draw", lambda *_, **__: seen.append(os.environ.get(predict.THREADS)) or iter(two))

    def threads(*arguments):
        assert main.main(["--model", random_run, "--predict_text", "def " * 9, *arguments]) == 0
        return seen.pop()
    return threads


BFLOAT16 = ("--set", "precision=bfloat16")


def test_one_sample_in_bfloat16_on_two_cores_is_generated_by_one_thread(threads):
    assert threads(*BFLOAT16) == "1"
    assert predict.THREADS not in os.environ


@pytest.mark.parametrize("arguments", [
    (), (*BFLOAT16, "--length", "2"), (*BFLOAT16, "--num_samples", "2", "--set", "predict_batch_size=2")])
def test_what_has_work_for_both_cores_is_generated_by_both(threads, arguments):
    assert threads(*arguments) is None


@pytest.mark.parametrize("name, other", [("multiplies_bfloat16", False), ("cores", 4)])
def test_other_machines_generate_by_all_cores(threads, name, other, monkeypatch):
    monkeypatch.setattr(predict.workers if name == "cores" else predict.hardware, name, lambda: other)
    assert threads(*BFLOAT16) is None


def test_the_user_s_number_of_threads_holds(threads, monkeypatch):
    monkeypatch.setenv(predict.THREADS, "2")
    assert threads(*BFLOAT16) == os.environ[predict.THREADS] == "2"
