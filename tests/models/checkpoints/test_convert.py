"""Weights in and out: real files of each format with random weights, read and written by the formats' own libraries."""
import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tensorflow.compat.v1 as tf

import main
from configs import schema, storage
from configs.errors import UserError
from datasets import shard_sets
from datasets.window_order import WindowOrder
from encoder import bpe, formats
from models import decoding, initial_values
from models.checkpoints import (
    any_format,
    convert,
    hugging_face,
    numpy_gpt2,
    proof,
    run_checkpoints,
    run_folder,
    state_file,
    tf_checkpoint,
    warm_start,
)
from models.cpu import packed
from models.weights import SCOPE, slot_shapes, weight_list
from tests.helpers import graphs, measured, reference, weight_files
from tests.helpers.runs import ROOT
from tests.helpers.weight_files import CONFIG, WEIGHTS, theirs, write_hf, write_openai, write_original, write_tf

TRAINING = {"n_ctx": 13, "n_embd": 12, "n_layer": 2, "n_head": 3, "max_steps": 2, "train_steps": 2, "eval_steps": 0}


WRITERS = {"openai": write_openai, "hf": write_hf, "original": write_original}


def weights_of(path):
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same(found, expected=None):
    expected = {f"{SCOPE}/{name}": value for name, value in (expected or WEIGHTS).items()}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def source_of(folder):
    return any_format.open_weights(str(folder))


def call(*arguments):
    return convert.main([str(argument) for argument in arguments])


def mistake(*arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def digests(folder):
    return json.loads((folder / "conversion.json").read_text())["tensors"]


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_hugging_face_s_tensors_arrive_to_the_bit_whatever_lies_between_them(tmp_path, prefix):
    tensors = theirs(WEIGHTS, prefix)
    tensors.update({f"{prefix}h.{i}.attn.{name}": np.tril(np.ones([1, 1, 13, 13], np.uint8))
                    for i in range(2) for name in ("bias", "masked_bias")})
    tensors["lm_head.weight"] = WEIGHTS["wte"]
    assert call("import-hf", write_hf(tmp_path / "src", tensors), tmp_path / "dst") == 0
    assert_same(weights_of(tmp_path / "dst" / "weights.ckpt"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_the_float32_of_the_same_value(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file
    write_hf(tmp_path / "src")
    halves = {name: torch.tensor(value).to(getattr(torch, dtype)) for name, value in theirs(WEIGHTS).items()}
    save_file(halves, tmp_path / "src" / "model.safetensors", metadata={"format": "pt"})
    call("import-hf", tmp_path / "src", tmp_path / "dst")
    found = weights_of(tmp_path / "dst" / "weights.ckpt")
    assert_same(found, {name: torch.tensor(value).to(getattr(torch, dtype)).float().numpy()
                        for name, value in WEIGHTS.items()})
    assert not np.array_equal(found["model/wte"], WEIGHTS["wte"])


def test_shards_of_transformers_are_read_and_ours_have_their_form(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**weight_files.HF_CONFIG))
    model.save_pretrained(tmp_path / "src", max_shard_size="8KB")
    assert len(list((tmp_path / "src").glob("model-*.safetensors"))) > 2
    call("import-hf", tmp_path / "src", tmp_path / "dst")
    expected = {name: value.numpy() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    found = {name[len(SCOPE) + 1:]: value for name, value in weights_of(tmp_path / "dst" / "weights.ckpt").items()}
    assert set(theirs(found)) == set(expected)
    assert all(np.array_equal(value, expected[name]) for name, value in theirs(found).items())
    monkeypatch.setattr(hugging_face, "SHARD_BYTES", 8000)
    config = json.loads((tmp_path / "dst" / "model.json").read_text())
    config["eval_steps"] = 0
    (tmp_path / "dst" / "model.json").write_text(json.dumps({**config, "encoder_path": vocabulary_of(tmp_path)}))
    call("export-hf", tmp_path / "dst" / "model.json", tmp_path / "back")
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 2
    index = [json.loads((tmp_path / folder / hugging_face.INDEX).read_text()) for folder in ("src", "back")]
    assert set(index[0]["weight_map"]) == set(index[1]["weight_map"])
    assert index[0]["metadata"]["total_size"] == index[1]["metadata"]["total_size"]
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "back").state_dict()
    assert all(np.array_equal(value.numpy(), again[name].numpy()) for name, value in model.state_dict().items())


def vocabulary_of(tmp_path):
    """A vocabulary of 257 ids, in tmp_path."""
    bpe.write(str(tmp_path / "encoder"), [])
    return str(tmp_path / "encoder")


def test_openai_s_checkpoint_arrives_to_the_bit(tmp_path):
    assert call("import-openai", write_openai(tmp_path / "src"), tmp_path / "dst") == 0
    assert_same(weights_of(tmp_path / "dst" / "weights.ckpt"))
    assert json.loads((tmp_path / "dst" / "model.json").read_text())["n_head"] == 3


def test_original_s_checkpoint_loses_its_slots_and_becomes_float32(tmp_path):
    source = write_original(tmp_path / "src")
    assert "give --n_head" in mistake("import-openai", source, tmp_path / "dst")
    call("import-openai", source, tmp_path / "dst", "--n_head", "3")
    assert_same(weights_of(tmp_path / "dst" / "weights.ckpt"),
                {name: value.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32) for name, value in WEIGHTS.items()})


@pytest.mark.parametrize("state", ['model_checkpoint_path: "/home/someone/model.ckpt-1700"', None, "\x00", "others"])
def test_checkpoint_that_was_copied_is_found_where_it_is(tmp_path, state):
    write_original(tmp_path / "other")
    shutil.copytree(write_original(tmp_path / "src"), tmp_path / "copy")
    if state == "others":
        state = f'model_checkpoint_path: "{tmp_path}/other/model.ckpt-1700"'
    if state is None:
        (tmp_path / "copy" / "checkpoint").unlink()
    else:
        (tmp_path / "copy" / "checkpoint").write_text(state + "\n")
    assert source_of(tmp_path / "copy").path == str(tmp_path / "copy" / "model.ckpt-1700")


def test_a_path_to_another_folder_in_the_file_checkpoint_is_written_over(tmp_path):
    """TensorFlow would restore from there."""
    shutil.copytree(write_original(tmp_path / "src"), tmp_path / "copy")
    (tmp_path / "copy" / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/src/model.ckpt-1700"\n')
    state_file.note_newest(str(tmp_path / "copy" / "model.ckpt-1700"))
    assert tf.train.latest_checkpoint(str(tmp_path / "copy")) == str(tmp_path / "copy" / "model.ckpt-1700")


def test_tensors_larger_than_a_group_are_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tf_checkpoint, "GROUP_BYTES", 3000)
    call("import-openai", write_openai(tmp_path / "src"), tmp_path / "dst")
    assert len(list((tmp_path / "dst").glob("weights.ckpt.data-*"))) > 5
    assert sorted(os.listdir(tmp_path)) == ["dst", "src"]
    assert_same(weights_of(tmp_path / "dst" / "weights.ckpt"))


def test_weights_go_through_all_formats_and_come_back_to_the_bit(tmp_path, text_corpus):
    call("import-hf", write_hf(tmp_path / "src", vocabulary=text_corpus / "encoder"), tmp_path / "a")
    call("export-openai", tmp_path / "a" / "model.json", tmp_path / "b")
    assert json.loads((tmp_path / "b" / "hparams.json").read_text()) == weight_files.HPARAMS
    assert tf.train.latest_checkpoint(str(tmp_path / "b")) == str(tmp_path / "b" / "model.ckpt")
    call("import-openai", tmp_path / "b", tmp_path / "c")
    call("export-hf", tmp_path / "c" / "model.json", tmp_path / "d")
    found = safetensors.numpy.load_file(str(tmp_path / "d" / "model.safetensors"))
    expected = theirs(WEIGHTS)
    assert set(found) == set(expected)
    assert all(np.array_equal(found[name], value) for name, value in expected.items())
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c") == digests(tmp_path / "d")
    for name, other in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        assert (text_corpus / "encoder" / name).read_bytes() == (tmp_path / "d" / other).read_bytes()


def test_digest_is_that_of_the_numbers(tmp_path):
    call("import-openai", write_openai(tmp_path / "src"), tmp_path / "dst")
    assert digests(tmp_path / "dst")["h1/mlp/c_fc/w"] == hashlib.sha256(WEIGHTS["h1/mlp/c_fc/w"].tobytes()).hexdigest()
    assert len(digests(tmp_path / "dst")) == len(WEIGHTS)


def test_transformers_loads_what_is_exported_and_generates_the_same_tokens(tmp_path, text_corpus, run_config, capsys):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    config = run_config(n_ctx=40, max_steps=30, train_steps=30, eval_steps=0)
    main.main(["--model", config])
    capsys.readouterr()
    call("export-hf", config, tmp_path / "dst")
    assert re.search(r"by NumPy and transformers: largest difference \d\.\de-0[5-9]", capsys.readouterr().out)
    prompt = "class Encoder:\n    def é"
    main.main(["--model", config, "--predict_text", prompt, "--temperature", "0", "--top_k", "0", "--length", "12"])
    ours = capsys.readouterr().out.split("\n", 1)[1].rsplit("\n", 2)[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "dst")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "dst")
    ids = tokenizer(prompt, return_tensors="pt")
    assert ids["input_ids"][0].tolist() == bpe.load(str(text_corpus / "encoder")).encode(prompt)
    with torch.no_grad():
        drawn = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=299)
    assert tokenizer.decode(drawn[0], skip_special_tokens=True) == ours
    assert len(drawn[0]) > len(ids["input_ids"][0]) + 3


def test_vocabulary_inside_a_tokenizer_json_is_taken_over(tmp_path, text_corpus):
    transformers = pytest.importorskip("transformers")
    folder = text_corpus / "encoder"
    tokenizer = transformers.GPT2TokenizerFast(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    source = write_hf(tmp_path / "src")
    tokenizer.save_pretrained(source)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "src" / name).unlink()
    call("import-hf", source, tmp_path / "dst")
    found, expected = bpe.load(str(tmp_path / "dst" / "encoder")), bpe.load(str(folder))
    text = "def default(self, o): é\n\n  return [1, 2.5]<|endoftext|>"
    assert found.encode(text) == expected.encode(text) and found.size == expected.size == 300


def test_gpt2_s_vocabulary_in_another_formatting_is_known_as_gpt2_s(tmp_path):
    data = bpe.read_files()
    (tmp_path / "vocab.json").write_text(json.dumps(json.loads(data["encoder.json"]), indent=1, sort_keys=True))
    (tmp_path / "merges.txt").write_bytes(data["vocab.bpe"].split(b"\n", 1)[1])
    assert formats.find(str(tmp_path)) == data
    (tmp_path / "merges.txt").write_bytes(data["vocab.bpe"].rsplit(b"\n", 2)[0])
    assert formats.find(str(tmp_path)) != data


def test_a_vocabulary_that_came_along_is_written_gpt2_s_too(tmp_path):
    """A config without one would take what lies beside its data."""
    weights = {**WEIGHTS, "wte": np.zeros([50257, 12], np.float32)}
    source = write_hf(tmp_path / "src", theirs(weights), {"vocab_size": 50257})
    for data, name in zip(bpe.read_files().values(), ("vocab.json", "merges.txt")):
        (tmp_path / "src" / name).write_bytes(data)
    call("import-hf", source, tmp_path / "dst")
    values = json.loads((tmp_path / "dst" / "model.json").read_text())
    assert values["encoder_path"] == f"{tmp_path}/dst/encoder" and values["n_vocab"] == 50257
    assert bpe.fingerprint(values["encoder_path"]) == bpe.fingerprint()


def test_import_for_a_data_set_is_as_long_as_it_deserves(tmp_path, text_corpus):
    source = write_hf(tmp_path / "src", vocabulary=text_corpus / "encoder")
    call("import-hf", source, tmp_path / "dst", "--data", text_corpus)
    values = json.loads((tmp_path / "dst" / "model.json").read_text())
    assert values["data_path"] == str(text_corpus)
    config = schema.load(str(tmp_path / "dst" / "model.json"))
    order = WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN))
    assert 2.8 < order.seen(config.max_steps).epochs[0] <= convert.EPOCHS
    assert config.train_steps == config.save_checkpoints_steps <= config.max_steps // 10
    assert config.eval_steps != 0 and config.warmup_steps <= config.max_steps // 20


def test_data_of_another_vocabulary_is_refused_and_nothing_is_left(tmp_path, text_corpus):
    bpe.write(str(tmp_path / "other"), [])
    source = write_hf(tmp_path / "src", vocabulary=tmp_path / "other")
    message = mistake("import-hf", source, tmp_path / "dst", "--data", text_corpus)
    assert message == (f"--data {text_corpus} was encoded with another vocabulary than the weights'; encode its text"
                       f" anew with --encoder_path {tmp_path}/dst/encoder, after an import without --data, to use it"
                       " here")
    assert f'"data_path" {tmp_path}/none is no folder' in mistake("import-hf", source, tmp_path / "dst", "--data",
                                                                  tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == ["other", "src"]


def test_data_for_weights_that_tell_no_vocabulary_is_taken_with_a_note(tmp_path, text_corpus, capsys):
    call("import-hf", write_hf(tmp_path / "src"), tmp_path / "dst", "--data", text_corpus)
    assert capsys.readouterr().err == (
        f"note: no vocabulary lies beside the weights: they are used with that of {text_corpus}\n")
    assert "encoder_path" not in json.loads((tmp_path / "dst" / "model.json").read_text())
    weights = {**WEIGHTS, "wte": WEIGHTS["wte"][:40]}
    source = write_hf(tmp_path / "small", theirs(weights), {"vocab_size": 40})
    assert re.search(r"was encoded with ids up to \d+, and the weights know 40 tokens; encode its text anew with the"
                     " vocabulary of the weights to use it here$", mistake(
                         "import-hf", source, tmp_path / "other", "--data", text_corpus))


def test_data_of_the_same_vocabulary_in_another_formatting_is_the_same(tmp_path, text_corpus):
    source = write_hf(tmp_path / "src", vocabulary=text_corpus / "encoder")
    tokens = json.loads((tmp_path / "src" / "vocab.json").read_text())
    (tmp_path / "src" / "vocab.json").write_text(json.dumps(tokens, indent=2, sort_keys=True))
    call("import-hf", source, tmp_path / "dst", "--data", text_corpus)
    assert bpe.fingerprint(str(tmp_path / "dst" / "encoder")) == bpe.fingerprint(str(text_corpus / "encoder"))


# What main.py does with it.

@pytest.mark.parametrize("kind", [pytest.param("openai", marks=pytest.mark.slow), "hf"])
def test_imported_model_generates_evaluates_and_trains_as_it_is(tmp_path, text_corpus, kind, capsys):
    call("import-" + kind, WRITERS[kind](tmp_path / "src", vocabulary=text_corpus / "encoder"), tmp_path / "dst",
         "--data", text_corpus)
    model, data = str(tmp_path / "dst" / "model.json"), []
    capsys.readouterr()
    assert main.main(["--model", model, "--plan"]) == 0
    planned = capsys.readouterr()
    assert "no problems found" in planned.out and planned.err == ""
    assert f"\nweights from            {tmp_path}/dst/weights.ckpt\n" in planned.out
    prompt = "def"
    arguments = ["--model", model, "--predict_text", prompt, "--temperature", "0", "--top_k", "0", "--length", "4"]
    assert main.main(arguments) == 0
    captured = capsys.readouterr()
    encoder = bpe.load(str(text_corpus / "encoder"))
    ids = encoder.encode(prompt)
    for _ in range(4):
        ids.append(int(reference.logits(WEIGHTS, np.array([ids]), layers=2, heads=3)[0, -1].argmax()))
    assert encoder.decode(ids) in captured.out and captured.err == ""
    for change in ["max_steps=3", "warmup_steps=0", "train_steps=3", "train_batch_size=2", "eval_steps=1"]:
        data += ["--set", change]
    assert main.main(["--model", model, *data, "--eval"]) == 0
    assert re.search(r"evaluation at step 0: loss", capsys.readouterr().out)
    assert main.main(["--model", model, *data]) == 0
    start, end = (weights_of(tmp_path / "dst" / f"model.ckpt-{step}") for step in (0, 3))
    assert_same({name: value for name, value in start.items() if re.search("/[gbw]$|/w[tp]e$", name)})
    assert np.all(start["model/wte/adam_m"] == 0) and start["global_step"] == 0
    assert end["global_step"] == 3 and not np.array_equal(end["model/wte"], start["model/wte"])


@pytest.mark.parametrize("kind, opt_name", [("hf", "adam"), pytest.param("openai", "adafactor", marks=pytest.mark.slow),
                                            pytest.param("original", "adam", marks=pytest.mark.slow)])
def test_init_checkpoint_takes_the_weights_of_every_source_and_nothing_else(tmp_path, run_config, kind, opt_name):
    source = WRITERS[kind](tmp_path / "src")
    main.main(["--model", run_config(**TRAINING, init_checkpoint=source, opt_name=opt_name)])
    start = weights_of(tmp_path / "run" / "model.ckpt-0")
    expected = {name: value if kind != "original" else value.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)
                for name, value in WEIGHTS.items()}
    assert_same({name: value for name, value in start.items() if re.search("/[gbw]$|/w[tp]e$", name)}, expected)
    assert start["global_step"] == 0
    assert all(np.all(value == 0) for name, value in start.items() if "adam_" in name or "adafactor" in name)
    assert weights_of(tmp_path / "run" / "model.ckpt-2")["global_step"] == 2


def loaded(source, config):
    """(the variables' values before, after) warm_start.load."""
    with graphs.session() as s:
        variables = initial_values.create_variables(config)
        s.run(tf.global_variables_initializer())
        before = s.run(variables)
        warm_start.load(source, variables, s, config)
        return before, s.run(variables)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_generation_gets_each_weight_once_in_the_dtype_in_which_it_is_used(tmp_path, monkeypatch, write):
    """Exactly: rounded to the nearest number of bfloat16, from whatever format.  And no value is computed before."""
    monkeypatch.setattr(packed, "supported", lambda dtype: True)
    config, rounded = dataclasses.replace(CONFIG, precision="bfloat16"), tf.bfloat16.as_numpy_dtype
    source = source_of(write(tmp_path / "src"))
    expected = {name: source.read(name).astype(rounded if "/c_" in name else np.float32) for name in WEIGHTS}
    expected[decoding.CENTRED] = (source.read("wte") - source.read("wte").mean(0)).astype(rounded)
    with graphs.session() as s:
        variables = decoding.create_variables(config)
        assert not any("Random" in node.op for node in graphs.all_nodes(tf.get_default_graph().as_graph_def()))
        decoding.decoder(variables, config)
        assert tf.local_variables() == []  # there would be the second copies
        warm_start.load(source, variables, s, config)
        found = s.run(variables)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_what_is_given_to_a_variable_is_its_own(tmp_path):
    """An update must not write into an array that somebody else holds, and two variables must not share one."""
    place = np.zeros(8 * 4 + 64, np.uint8)
    first = -place.ctypes.data % 64
    aligned = place[first:first + 32].view(np.float32)
    assert np.shares_memory(warm_start._for_tensor(aligned, tf.float32, own=True), aligned)
    assert not np.shares_memory(warm_start._for_tensor(aligned, tf.float32, own=False), aligned)
    for value in (np.frombuffer(aligned.tobytes(), np.float32), aligned[1:], aligned.astype(np.float64)):
        given = warm_start._for_tensor(value, tf.float32, own=True)
        assert not np.shares_memory(given, value) and given.ctypes.data % 64 == 0 and given.flags.writeable
        np.testing.assert_array_equal(given, value)


def test_smaller_n_ctx_takes_the_first_positions_and_a_larger_one_is_an_error(tmp_path):
    source = source_of(write_openai(tmp_path / "src"))
    with pytest.raises(UserError, match='knows 13 positions, and "n_ctx" is 14; lower "n_ctx" to 13'):
        warm_start.check(source, dataclasses.replace(CONFIG, n_ctx=14))
    smaller = dataclasses.replace(CONFIG, n_ctx=8)
    warm_start.check(source, smaller)
    for name, value in loaded(source, smaller)[1].items():
        np.testing.assert_array_equal(value, WEIGHTS[name][:8] if name == "wpe" else WEIGHTS[name])


@pytest.mark.parametrize("at_once, calls", [(10**6, 1), (4000, 8)])
def test_weights_are_given_to_many_variables_at_once(tmp_path, monkeypatch, at_once, calls):
    monkeypatch.setattr(warm_start, "AT_ONCE", at_once)  # bytes; the weights are 30,192
    source, run, runs = source_of(write_openai(tmp_path / "src")), tf.Session.run, []

    def counted(self, *arguments, **keywords):
        runs.append(arguments)
        return run(self, *arguments, **keywords)
    monkeypatch.setattr(tf.Session, "run", counted)
    for name, value in loaded(source, CONFIG)[1].items():
        np.testing.assert_array_equal(value, WEIGHTS[name])
    assert len(runs) - 3 == calls  # `loaded` has three of its own


@pytest.mark.parametrize("n_vocab", [290, 311])
def test_vocabulary_of_another_size_is_an_error_unless_told_to_resize(tmp_path, n_vocab):
    source = source_of(write_hf(tmp_path / "src"))
    config = dataclasses.replace(CONFIG, n_vocab=n_vocab)
    padded = ', set "n_vocab" to 300 if the last of them are padding' if n_vocab < 300 else ""
    with pytest.raises(UserError, match=f'has 300 tokens, and "n_vocab" is {n_vocab}; use the vocabulary it was trained'
                                        f' with{padded}, or set "resize_vocab" to true'):
        warm_start.check(source, config)
    warm_start.check(source, dataclasses.replace(config, resize_vocab=True))
    before, after = loaded(source, config)
    np.testing.assert_array_equal(after["wte"][:300], WEIGHTS["wte"][:n_vocab])
    np.testing.assert_array_equal(after["wte"][300:], before["wte"][300:])  # the starting values of a new network
    assert after["wte"].shape == (n_vocab, 12) and np.all(after["wte"][300:] != 0)


@pytest.mark.slow
def test_resized_vocabulary_trains(tmp_path, run_config):
    source = write_hf(tmp_path / "src")
    main.main(["--model", run_config(**{**TRAINING, "n_ctx": 8, "n_vocab": 311}, init_checkpoint=source,
                                     resize_vocab=True)])
    start = weights_of(tmp_path / "run" / "model.ckpt-0")
    np.testing.assert_array_equal(start["model/wte"][:300], WEIGHTS["wte"])
    np.testing.assert_array_equal(start["model/wpe"], WEIGHTS["wpe"][:8])


@pytest.mark.parametrize("change, words", [
    ({"n_head": 4}, 'has 3 attention heads, and "n_head" is 4; set "n_head" to 3'),
    ({"n_layer": 3}, '12 missing (model/h2/ln_1/g, model/h2/ln_1/b, model/h2/attn/c_attn/w, and 9 more)'),
    ({"n_embd": 24}, 'set "n_embd" and "n_layer" to its sizes, 12 and 2'),
    ({"init_checkpoint": "/nowhere"}, "/nowhere: no such file or folder; give a folder with model.safetensors")])
def test_init_checkpoint_that_does_not_fit_is_one_line(tmp_path, run_config, capsys, change, words):
    config = run_config(**{**TRAINING, "init_checkpoint": write_hf(tmp_path / "src"), **change})
    assert main.main(["--model", config, "--plan"]) == 2
    assert words in capsys.readouterr().out.split("problems that stop the run:")[1]
    assert not os.path.exists(tmp_path / "run")
    for mode in ([], ["--predict_text", "a"]):
        with pytest.raises(UserError) as caught:
            main.main(["--model", config, *mode])
        assert words in str(caught.value)
    assert not [name for name in os.listdir(tmp_path / "run") if name != ".lock"]


@pytest.mark.parametrize("kind, gone", [("openai", None), ("openai", "checkpoint"), ("hf", None), ("original", None)])
def test_files_dropped_into_model_dir_are_explained(tmp_path, run_config, kind, gone):
    WRITERS[kind](tmp_path / "run")
    if gone:
        (tmp_path / "run" / gone).unlink()
    before = sorted(os.listdir(tmp_path / "run"))
    for mode in ([], ["--predict_text", "a"]):
        with pytest.raises(UserError, match='set "init_checkpoint" to it, with another "model_dir", or give it to `py'):
            main.main(["--model", run_config(**TRAINING), *mode])
    assert sorted(os.listdir(tmp_path / "run")) == before


def test_checkpoint_with_a_step_but_no_optimizer_is_explained_and_still_generates(tmp_path, run_config, capsys):
    write_tf(str(tmp_path / "run" / "model.ckpt-7"),
             {**{f"{SCOPE}/{name}": value for name, value in WEIGHTS.items()}, "global_step": np.int64(7)})
    with pytest.raises(UserError, match='optimizer keeps .model/wpe/adam_m., .* set "init_checkpoint" to it'):
        main.main(["--model", run_config(**{**TRAINING, "max_steps": 9})])
    assert main.main(["--model", run_config(**TRAINING), "--predict_text", "a", "--length", "2"]) == 0


@pytest.mark.parametrize("opt_name, slot", [("adam", "h1/ln_2/g/adam_v"), ("adafactor", "wte/adafactor_vc"),
                                            ("muon", "h0/attn/c_attn/w/muon_m")])
def test_checkpoint_that_lacks_a_single_slot_is_refused(tmp_path, opt_name, slot):
    config = graphs.small_config(n_vocab=300, opt_name=opt_name)
    values = {**WEIGHTS, **{name: np.zeros(shape, np.float32) for name, shape in slot_shapes(config).items()}}
    prefix = str(tmp_path / "model.ckpt-7")
    write_tf(prefix, {f"{SCOPE}/{name}": value for name, value in values.items()})
    run_checkpoints.check(prefix, config, train=True)
    values[slot] = values[slot][1:]
    write_tf(prefix, {f"{SCOPE}/{name}": value for name, value in values.items()})
    run_checkpoints.check(prefix, config, train=False)
    with pytest.raises(UserError, match=f"optimizer keeps .{SCOPE}/{slot}."):
        run_checkpoints.check(prefix, config, train=True)


def test_using_init_checkpoint_in_place_of_a_trained_one_is_said(tmp_path, run_config, capsys):
    source = write_openai(tmp_path / "src")
    config = schema.load(run_config(**TRAINING, init_checkpoint=source))
    assert run_folder.trained(config, bpe.load(config.encoder_path), "evaluate") is None
    assert capsys.readouterr().err == (
        f'note: "init_checkpoint" {source}/model.ckpt: no vocabulary lies beside the weights; they are used with the'
        f' vocabulary in {config.encoder_path}\n'
        f'note: {tmp_path}/run holds no checkpoint yet: using the weights of "init_checkpoint" {source}\n')


@pytest.mark.parametrize("mode", [[], ["--plan"], ["--predict_text", "a", "--length", "2"]])
def test_weights_of_another_vocabulary_do_not_start_a_run(tmp_path, run_config, capsys, mode):
    bpe.write(str(tmp_path / "other"), [])
    source = write_hf(tmp_path / "src", vocabulary=tmp_path / "other")
    words = (f'"init_checkpoint" {source}/model.safetensors was trained with another vocabulary (see {source}) than the'
             " vocabulary in ")
    if mode == ["--plan"]:
        main.main(["--model", run_config(**TRAINING, init_checkpoint=source), *mode])
        assert words in capsys.readouterr().out
    else:
        with pytest.raises(UserError) as caught:
            main.main(["--model", run_config(**TRAINING, init_checkpoint=source), *mode])
        assert words in str(caught.value) and '"resize_vocab" to true' in str(caught.value)
    capsys.readouterr()
    assert main.main(["--model", run_config(**TRAINING, init_checkpoint=source, resize_vocab=True), *mode]) == 0
    assert "vocabulary lies" not in capsys.readouterr().err


def test_weights_of_a_run_tell_its_vocabulary(tmp_path, finished, run_config):
    start = str(tmp_path / "run" / "model.ckpt-4")
    config = schema.load(run_config(init_checkpoint=start, model_dir=str(tmp_path / "new")))
    encoder = bpe.load(config.encoder_path)
    assert any_format.same_vocabulary(any_format.open_weights(start), config.encoder_path, encoder)[0]
    (tmp_path / "run" / "data.json").write_text('{"vocabulary": "another"}')
    with pytest.raises(UserError, match="was trained with another vocabulary .see .*run/data.json. than"):
        run_folder.check(config, encoder)


def test_a_vocabulary_in_another_formatting_is_the_same(tmp_path, text_corpus):
    source = write_hf(tmp_path / "src", vocabulary=text_corpus / "encoder")
    tokens = json.loads((tmp_path / "src" / "vocab.json").read_text())
    (tmp_path / "src" / "vocab.json").write_text(json.dumps(tokens, indent=2, sort_keys=True))
    folder = str(text_corpus / "encoder")
    assert any_format.same_vocabulary(source_of(source), folder, bpe.load(folder)) == (True, source)
    assert any_format.same_vocabulary(source_of(write_hf(tmp_path / "bare")), folder, bpe.load(folder)) == (None, None)


# The proof.

def test_network_of_the_proof_equals_the_reference(tmp_path):
    source, tokens = source_of(write_hf(tmp_path / "src")), proof.prompt(CONFIG)
    assert len(tokens) == 13 and len(set(tokens)) > 10
    expected = reference.logits(WEIGHTS, tokens[None], layers=2, heads=3)[0]
    np.testing.assert_allclose(proof.network_logits(source, CONFIG, tokens), expected, atol=1e-4)


def test_proof_fails_where_a_single_bit_differs(tmp_path):
    source = source_of(write_openai(tmp_path / "src"))

    def flipped(name):
        value = source.read(name).copy()
        if name == "h1/ln_2/b":
            value.view(np.uint32)[3] ^= 1
        return value
    with pytest.raises(UserError, match=r"1 tensors that were written are not those of .*\(h1/ln_2/b\)"):
        proof.prove(source, source._replace(read=flipped), CONFIG)


def test_proof_fails_where_the_networks_differ(tmp_path, monkeypatch):
    source = source_of(write_openai(tmp_path / "src"))
    report, lines = proof.prove(source, source, CONFIG)
    assert 0 < report["logits"]["NumPy and this network"] < 1e-4
    assert "largest difference" in lines[1]
    monkeypatch.setattr(numpy_gpt2, "NORM_EPSILON", 0.1)
    with pytest.raises(UserError, match="does not compute what its source does"):
        proof.prove(source, source, CONFIG)


class Trap:
    """A pickle that tells when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("several", [False, True])
def test_the_proof_lets_transformers_see_only_the_weights_that_were_read(tmp_path, several):
    pytest.importorskip("transformers")
    source = tmp_path / "src"
    write_hf(source, config={"quantization_config": {"quant_method": "bitsandbytes"}, "auto_map": {"AutoModel": "x.y"},
                             "pruned_heads": {"0": [0]}, "num_labels": 10**9})
    if several:
        shard = "model-00001-of-00001.safetensors"
        os.rename(source / "model.safetensors", source / shard)
        index = {"metadata": {"total_size": 4}, "weight_map": dict.fromkeys(theirs(WEIGHTS), shard)}
        (source / hugging_face.INDEX).write_text(json.dumps(index))
    for name in ("pytorch_model.bin", "adapter_model.bin", "x.py"):
        (source / name).write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    (source / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
    (source / "generation_config.json").write_text("[" * 10**5)
    call("import-hf", source, tmp_path / "dst")
    report = json.loads((tmp_path / "dst" / "conversion.json").read_text())
    assert isinstance(report["logits"]["NumPy and transformers"], float)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((source / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works


def test_proof_says_why_transformers_was_not_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(proof, "TRANSFORMERS_BYTES", 1000)
    call("import-hf", write_hf(tmp_path / "src"), tmp_path / "dst")
    assert "by NumPy and transformers: not compared: it would hold" in capsys.readouterr().out
    monkeypatch.setattr(proof.importlib.util, "find_spec", lambda name: None if name == "transformers" else 1)
    assert proof._transformers_logits(source_of(tmp_path / "src"), None) == "transformers is not installed"


def test_inspect_lists_weights_and_what_is_none(tmp_path, capsys):
    call("inspect", write_original(tmp_path / "src"), "--sha256")
    out = capsys.readouterr().out
    assert "model.ckpt-1700: TensorFlow checkpoint, 28 tensors" in out and "n_ctx 13, n_vocab 300, n_embd 12" in out
    assert re.search(r"^h0/attn/c_attn/w +bfloat16 +1x12x36 +[0-9a-f]{64}$", out, re.M)
    assert re.search(r"^model/wte/adam_m +not a weight 300x12$", out, re.M) and "global_step" in out


def test_a_terminal_obeys_no_name_of_a_tensor(tmp_path, capsys):
    names = [*(f"{SCOPE}/{name}" for name in WEIGHTS), "model/\x1b[5mfoo", "\x1b[7mfoo"]
    with tf.Graph().as_default(), tf.Session() as session:
        session.run(tf.raw_ops.SaveV2(prefix=str(tmp_path / "model.ckpt"), tensor_names=names, tensors=[
            *WEIGHTS.values(), np.float32([3]), np.float32(4)], shape_and_slices=[""] * len(names)))
    call("inspect", tmp_path)
    lines = [line.split() for line in capsys.readouterr().out.split("\n")]
    assert [r"\x1b[5mfoo", "float32", "1"] in lines and [r"\x1b[7mfoo", "not", "a", "weight"] in lines


# Mistakes: one line each, and nothing is left of the result.

def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def without(name):
    return {key: value for key, value in theirs(WEIGHTS).items() if key != name}


@pytest.mark.parametrize("tensors, config, words", [
    (None, {"model_type": "llama"}, '"model_type" is "llama", and this network knows only "gpt2"'),
    (None, {"activation_function": "relu"}, '"activation_function" is "relu"'),
    (None, {"layer_norm_epsilon": 1e-6}, '"layer_norm_epsilon" is 1e-06'),
    (None, {"n_inner": 47}, '"n_inner" is 47, and this network\'s is 4 x "n_embd" = 48'),
    (None, {"scale_attn_by_inverse_layer_idx": True}, '"scale_attn_by_inverse_layer_idx" is true'),
    (None, {"n_head": 5}, '"n_head" is 5, which cannot share a width of 12'),
    (None, {"n_head": "x"}, '"n_head" is "x", which cannot'), (None, {"n_head": [2]}, '"n_head" is [2], which'),
    (None, {"n_head": -1}, '"n_head" is -1'), (None, {"n_head": True}, '"n_head" is true'),
    (None, {"n_head": 3, "num_attention_heads": 4}, '"n_head" is 3 and "num_attention_heads" is 4; bring'),
    (None, {"n_head": 3.0}, '"n_head" is 3.0'), (None, {"n_head": float("nan")}, '"n_head" is NaN, but must'),
    (None, {"n_head": float("inf")}, '"n_head" is Infinity'), (None, {"n_head": 10**400}, '"n_head" is 1000'),
    (None, {"n_layer": 10**19}, '"n_layer" is 10000000000000000000, but must be a finite number of 64 bits'),
    (None, {"n_layer": 10**18}, '"n_layer" is 1000000000000000000, and the tensors beside say 2'),
    (None, {"num_hidden_layers": 10**9}, '"num_hidden_layers" is 1000000000, and the tensors'),
    (None, {"hidden_size": "12"}, '"hidden_size" is "12", and the tensors beside say 12'),
    (None, {"vocab_size": 301}, '"vocab_size" is 301, and the tensors beside say 300'),
    (None, {"attn_pdrop": "0.1"}, '"attn_pdrop" is "0.1", and a dropout is'), (None, {"resid_pdrop": 1}, "is 1, and a"),
    (None, {"embd_pdrop": [0]}, '"embd_pdrop" is [0]'), (None, {"model_type": ["gpt2"]}, '"model_type" is ["gpt2"]'),
    ({**theirs(WEIGHTS), "lm_head.weight": WEIGHTS["wte"] + 1}, None, "lm_head.weight differs from wte.weight"),
    ({**theirs(WEIGHTS), **theirs({"wpe": WEIGHTS["wpe"]}, "")}, None, "which are one tensor"),
    ({**theirs(WEIGHTS), "score.weight": WEIGHTS["wte"]}, None, "score.weight is no tensor of a GPT2LMHeadModel"),
    (without("transformer.wte.weight"), None, "no matrices wte.weight and wpe.weight"),
    ({**theirs(WEIGHTS), "h.99999999999999999999.ln_1.bias": WEIGHTS["ln_f/b"]}, {"n_layer": 3},
     "12 missing (model/h2/ln_1/g, model/h2/ln_1/b, model/h2/attn/c_attn/w, and 9 more); 1 extra"),
    (without("transformer.h.1.mlp.c_fc.bias"), None, "1 missing (model/h1/mlp/c_fc/b); fetch it anew")])
def test_hugging_face_s_files_that_are_no_gpt2_are_refused(tmp_path, tensors, config, words):
    source = write_hf(tmp_path / "src", tensors, config)
    assert words in mistake("import-hf", source, tmp_path / "dst")
    assert os.listdir(tmp_path) == ["src"]


def test_attention_heads_are_told_by_either_name(tmp_path):
    source = write_hf(tmp_path / "src", config={"n_head": None, "num_attention_heads": 4})
    assert any_format.open_weights(source).config_values["n_head"] == 4


@pytest.mark.parametrize("size, words", [(0, "a header of 0 bytes in a file of 0"), (4, "in a file of 4"),
                                         (200, "in a file of 200"), (-1, "file not fully covered")])
def test_safetensors_that_are_cut_off_are_named(tmp_path, size, words):
    source = write_hf(tmp_path / "src")
    cut(tmp_path / "src" / "model.safetensors", size)
    message = mistake("import-hf", source, tmp_path / "dst")
    assert "model.safetensors is damaged, cut off or no safetensors file" in message and words in message


def test_page_in_place_of_safetensors_is_named(tmp_path):
    source = write_hf(tmp_path / "src")
    (tmp_path / "src" / "model.safetensors").write_text("<!DOCTYPE html><html>" + "x" * 500)
    assert "no safetensors file" in mistake("import-hf", source, tmp_path / "dst")
    (tmp_path / "src" / "model.safetensors").write_bytes((9).to_bytes(8, "little") + b"[1, 2, 3]")
    assert "no safetensors file" in mistake("import-hf", source, tmp_path / "dst")


def test_missing_shard_is_named(tmp_path):
    source = write_hf(tmp_path / "src")
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    os.rename(tmp_path / "src" / "model.safetensors", tmp_path / "src" / first)
    index = tmp_path / "src" / hugging_face.INDEX
    index.write_text(json.dumps({"weight_map": {**dict.fromkeys(theirs(WEIGHTS), first), "lm_head.weight": second}}))
    assert f"names {second}, which is not there" in mistake("import-hf", source, tmp_path / "dst")
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    assert 'has no "weight_map"' in mistake("import-hf", source, tmp_path / "dst")


def test_index_whose_files_do_not_agree_is_named(tmp_path):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    tensors = theirs(WEIGHTS)
    write_hf(tmp_path / "src", tensors)
    os.rename(tmp_path / "src" / "model.safetensors", tmp_path / "src" / names[0])
    index = {"weight_map": {**dict.fromkeys(tensors, names[0]), "transformer.wte.weight": names[1]}}
    (tmp_path / "src" / hugging_face.INDEX).write_text(json.dumps(index))
    twice = {"transformer.wte.weight": WEIGHTS["wte"] + 1}
    safetensors.numpy.save_file(twice, str(tmp_path / "src" / names[1]))
    assert "which both hold transformer.wte.weight" in mistake("import-hf", tmp_path / "src", tmp_path / "dst")
    safetensors.numpy.save_file(without("transformer.wte.weight"), str(tmp_path / "src" / names[0]))
    call("import-hf", tmp_path / "src", tmp_path / "dst")
    assert_same(weights_of(tmp_path / "dst" / "weights.ckpt"), {**WEIGHTS, "wte": WEIGHTS["wte"] + 1})
    safetensors.numpy.save_file({"more": WEIGHTS["wte"]}, str(tmp_path / "src" / names[1]))
    assert f"names transformer.wte.weight, which {names[1]} does not hold" in mistake(
        "import-hf", tmp_path / "src", tmp_path / "again")


def test_pickle_is_refused_with_reason_and_remedy(tmp_path):
    source = write_hf(tmp_path / "src")
    os.rename(tmp_path / "src" / "model.safetensors", tmp_path / "src" / "pytorch_model.bin")
    for path in (source, source + "/pytorch_model.bin"):
        message = mistake("import-hf", path, tmp_path / "dst")
        assert "is a Python pickle, which can run any code" in message and "fetch model.safetensors" in message


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("how", ["cut off", "garbage"])
def test_damaged_checkpoint_is_named_and_leaves_nothing(tmp_path, suffix, how):
    source = write_openai(tmp_path / "src")
    path = tmp_path / "src" / f"model.ckpt.{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2] if how == "cut off" else bytes(255 - byte for byte in data))
    assert "model.ckpt is damaged or incomplete" in mistake("import-openai", source, tmp_path / "dst")
    assert os.listdir(tmp_path) == ["src"]


def test_checkpoint_of_something_else_and_contradicting_hparams_are_named(tmp_path):
    write_tf(str(tmp_path / "other" / "model.ckpt"), {"dense/kernel": np.ones([3, 4], np.float32)})
    assert "holds no GPT-2" in mistake("import-openai", tmp_path / "other", tmp_path / "dst")
    write_openai(tmp_path / "src")
    (tmp_path / "src" / "hparams.json").write_text(json.dumps({**weight_files.HPARAMS, "n_embd": 24}))
    assert 'says "n_embd" 24' in mistake("import-openai", tmp_path / "src", tmp_path / "dst")


def test_wrong_command_a_full_destination_and_nothing_to_import_are_named(tmp_path):
    source = write_hf(tmp_path / "src")
    assert "use import-hf" in mistake("import-openai", source, tmp_path / "dst")
    assert "exists and is no empty folder" in mistake("import-hf", source, source)
    (tmp_path / "empty").mkdir()
    assert "no weights there; give a folder with" in mistake("import-hf", tmp_path / "empty", tmp_path / "dst")
    assert "--n_head is 4, but the files beside" in mistake("import-hf", source, tmp_path / "dst", "--n_head", "4")
    call("import-hf", source, tmp_path / "empty")  # an empty folder is a place to write to
    assert (tmp_path / "empty" / "model.json").exists()


@pytest.mark.parametrize("sign", ["[", "\\", "*", "?"])
def test_path_that_tensorflow_takes_for_a_pattern_is_refused_and_no_checkpoint_called_damaged(tmp_path, sign):
    source, odd = write_hf(tmp_path / "src"), tmp_path / f"a{sign}b"
    assert f"the new folder {odd} holds {sign}, and TensorFlow takes" in mistake("import-hf", source, odd)
    write_openai(odd)
    message = mistake("import-openai", odd, tmp_path / "dst")
    assert f"the checkpoint {odd}/model.ckpt holds {sign}" in message and "damaged" not in message
    assert sorted(os.listdir(tmp_path)) == sorted(["src", odd.name])
    call("import-hf", write_hf(odd / "hf"), tmp_path / "dst")  # these files TensorFlow never sees
    model = json.loads((tmp_path / "dst" / "model.json").read_text())
    assert "a string that is not empty, without `*` `?` `[` `\\`" in mistake(
        "export-openai", write_json(tmp_path / "model.json", {**model, "model_dir": str(odd)}), tmp_path / "out")


def test_two_conversions_to_one_folder_never_meet(tmp_path):
    source = write_hf(tmp_path / "src")
    with storage.new_folder(str(tmp_path / "dst")):
        assert mistake("import-hf", source, tmp_path / "dst") == (
            f"another run holds {tmp_path}/.dst.lock; wait for it, or give another folder")
    assert "exists and is no empty folder" not in mistake("import-hf", tmp_path, tmp_path / "dst")


def write_json(path, values):
    path.write_text(json.dumps(values))
    return path


def test_vocabulary_that_cannot_be_used_stops_the_import(tmp_path, text_corpus):
    source = write_hf(tmp_path / "src", vocabulary=text_corpus / "encoder")
    tokens = json.loads((tmp_path / "src" / "vocab.json").read_text())
    (tmp_path / "src" / "vocab.json").write_text(json.dumps({**tokens, "more": 301}))
    message = mistake("import-hf", source, tmp_path / "dst")
    assert message.startswith(f"{source}/vocab.json: the ids must be 0 to 300") and "dst" not in message
    (tmp_path / "src" / "vocab.json").write_text(json.dumps(tokens).replace(bpe.END_OF_TEXT, "</s>"))
    assert f"{source}/vocab.json has no token <|endoftext|>" in mistake("import-hf", source, tmp_path / "dst")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "src" / name).unlink()
    (tmp_path / "src" / "vocab.txt").write_text("[PAD]\n")
    assert f"{source}/vocab.txt belongs to a tokenizer" in mistake("import-hf", source, tmp_path / "dst")
    shutil.rmtree(tmp_path / "src")
    config, weights = graphs.small_config(n_vocab=299), dict(WEIGHTS, wte=WEIGHTS["wte"][:299])
    assert {weight.name for weight in weight_list(config)} == set(weights)
    source = write_hf(tmp_path / "src", theirs(weights), {"vocab_size": 299}, text_corpus / "encoder")
    assert "has 300 ids, and they are for 299" in mistake("import-hf", source, tmp_path / "dst")
    assert os.listdir(tmp_path) == ["src"]


def test_command_prints_one_line_for_a_mistake_and_nothing_of_others(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "models.checkpoints", *map(str, arguments)], cwd=ROOT,
                              capture_output=True, text=True, timeout=120)
    result = run("import-hf", tmp_path / "none", tmp_path / "dst")
    assert result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    result = run("import-openai", write_openai(tmp_path / "src"), tmp_path / "dst")
    assert result.returncode == 0 and result.stderr.startswith("note: no vocabulary lies beside the weights")
    assert result.stderr.count("\n") == 1 and len(result.stdout.splitlines()) == 4


# 1.5B: its shapes, and the memory it takes.

SIZES = {"n_ctx": 1024, "n_vocab": 50257, "n_embd": 1600, "n_head": 25}
MEMORY = 2 * 10**9  # bytes, as promised
MANY = 48 if os.environ.get("EVERY_SIZE") else 16  # layers: all of them take minutes, and 16 are 2.3 GB of weights


def repeated_noise(shapes):
    """read(name) of weights as large as wanted, made of one megabyte of noise."""
    noise = np.random.RandomState(0).randn(2**18).astype(np.float32) * 0.02

    def read(name):
        size = int(np.prod(shapes[name]))
        shift = 7919 * list(shapes).index(name) % len(noise)  # no two tensors are alike
        return np.resize(np.roll(noise, shift), size).reshape(shapes[name]) + np.float32(name.endswith("/g"))
    return read


def run_measured(*arguments):
    """The printed text and the largest resident memory in bytes of the command in a process of its own."""
    result, peak = measured.run(sys.executable, "-m", "models.checkpoints", *arguments, cwd=ROOT, timeout=1500)
    assert result.returncode == 0, result.stderr
    return result.stdout, peak


@pytest.mark.slow
@pytest.mark.parametrize("n_layer", [2, MANY])
def test_weights_of_1558m_s_shapes_are_converted_both_ways_in_less_than_2_gb(tmp_path, n_layer):
    if n_layer == MANY and shutil.disk_usage(tmp_path).free < 25 * 10**9:
        pytest.skip("needs 25 GB of disk")
    config = graphs.small_config(**SIZES, n_layer=n_layer)
    shapes = {weight.name: weight.shape for weight in weight_list(config)}
    read = repeated_noise(shapes)
    limit = MEMORY if n_layer == MANY else 3 * 10**9  # small enough to be run by transformers too
    try:
        hugging_face.write_folder(str(tmp_path / "src"), config, shapes, read, 50256)
        out, memory = run_measured("import-hf", tmp_path / "src", tmp_path / "ours")
        print("import-hf", memory)
        assert memory < limit, memory
        parameters = 82_052_800 + n_layer * 30_740_800  # 1,557,611,200 in all
        assert f"{12 * n_layer + 4} tensors, {parameters:,} parameters: equal to the bit" in out
        shutil.rmtree(tmp_path / "src")
        for kind, command in (("hf", "export-hf"), ("openai", "export-openai")):
            out, memory = run_measured(command, tmp_path / "ours" / "model.json", tmp_path / kind)
            print(command, memory)
            assert memory < limit, (command, memory)
            assert digests(tmp_path / kind) == digests(tmp_path / "ours")
            found = source_of(tmp_path / kind)
            for name in ("wte", f"h{n_layer - 1}/mlp/c_proj/w", "ln_f/b"):
                np.testing.assert_array_equal(found.read(name), read(name))
            if kind == "openai":
                _, memory = run_measured("import-openai", tmp_path / kind, tmp_path / "again")
                print("import-openai", memory)
                assert memory < limit, memory
                assert digests(tmp_path / "again") == digests(tmp_path / "ours")
            shutil.rmtree(tmp_path / kind)
    finally:
        for name in os.listdir(tmp_path):
            shutil.rmtree(tmp_path / name)
