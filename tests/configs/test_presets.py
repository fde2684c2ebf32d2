"""The configs that come with the project: each loads, is the network its name says, and states no default."""
import dataclasses
import json
import pathlib

import numpy as np
import pytest

import main
from benchmarks import shakespeare
from configs import schedule, schema
from models.run import cost

FOLDER = pathlib.Path(schema.__file__).parent
PRESETS = sorted(path.stem for path in FOLDER.glob("*.json"))
SIZES = {"117M": 124439808, "345M": 354823168, "774M": 774030080, "1.5B": 1557611200, "PrettyBig": 367419392}


def load(name):
    return schema.load(str(FOLDER / f"{name}.json"))


def stated_in(name):
    return list(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def test_no_preset_is_missing():
    assert {*SIZES, "124M-nanogpt", "shakespeare-char", "shakespeare-char-gpu"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_loads_without_aliases(name):
    lines = []
    config = schema.load(str(FOLDER / f"{name}.json"), notice=lines.append)
    assert lines == []
    assert config.model_dir.startswith("runs/")


@pytest.mark.parametrize("name", PRESETS)
def test_preset_states_only_what_differs_from_the_defaults(name):
    config = load(name)
    resolved = {"n_head": config.n_embd / schema.DEFAULT_HEAD_SIZE, "beta1": schema.DEFAULT_BETA1[config.opt_name]}
    for key in stated_in(name):
        assert getattr(config, key) != resolved.get(key, schema.FIELDS[key].default), key


@pytest.mark.parametrize("name", PRESETS)
def test_preset_keys_stand_in_the_order_of_the_schema(name):
    assert stated_in(name) == [key for key in schema.FIELDS if key in stated_in(name)]


@pytest.mark.parametrize("name", SIZES)
def test_size_preset_has_its_network_and_the_corrected_recipe(name):
    config = load(name)
    assert config.n_vocab is None  # GPT-2's, unless the data has another
    assert cost.parameter_count(dataclasses.replace(config, n_vocab=50257)) == SIZES[name]
    assert config.head_size == 64
    assert config.train_batch_size * config.n_ctx == 512 * 1024 and config.micro_batch_size < 512
    assert (config.beta2, config.warmup_steps, config.lr_min) == (0.95, 2000, 0.1)
    assert config.opt_name == ("adafactor" if name == "1.5B" else "adam")
    assert config.beta1 == (0 if name == "1.5B" else 0.9)


def test_learning_rates_are_those_of_gpt3_for_the_size():
    # Adafactor's rate is relative to the weights, whose root mean square is about 0.02: 0.01 is 2e-4 for them.
    of_weights = {"adam": 1.0, "adafactor": 0.02}
    configs = [load(name) for name in ("117M", "345M", "774M", "1.5B")]
    found = [config.lr * of_weights[config.opt_name] for config in configs]
    assert found == pytest.approx([6e-4, 3e-4, 2.5e-4, 2e-4])
    assert [config.weight_decay * config.lr for config in configs] == pytest.approx([0.1 * rate for rate in found])


def test_nanogpt_preset_is_the_published_run():
    config = load("124M-nanogpt")
    assert config.train_batch_size * config.n_ctx == 491520
    assert config.train_batch_size // config.micro_batch_size == 40
    assert (config.lr, config.lr_min, config.max_steps, config.grad_clip) == (6e-4, 0.1, 600000, 1.0)


def test_shakespeare_preset_is_the_small_cpu_run():
    config = load("shakespeare-char")
    assert (config.n_layer, config.n_head, config.n_embd, config.n_ctx, config.n_vocab) == (4, 4, 128, 64, 66)
    assert (config.opt_name, config.max_steps) == ("muon", 2000)
    assert schedule.learning_rate(config.max_steps, config, np) == pytest.approx(8e-4)


def test_shakespeare_gpu_preset_is_the_published_run():
    config = load("shakespeare-char-gpu")
    assert (config.n_layer, config.n_head, config.n_embd, config.n_ctx, config.n_vocab) == (6, 6, 384, 256, 66)
    assert {config.embed_dropout, config.attn_dropout, config.res_dropout} == {0.2}
    assert (config.train_batch_size, config.max_steps, config.warmup_steps) == (64, 5000, 100)
    assert (config.beta1, config.beta2, config.weight_decay, config.grad_clip) == (0.9, 0.99, 0.1, 1.0)
    assert [schedule.learning_rate(step, config, np) for step in (100, 5000)] == pytest.approx([1e-3, 1e-4])


def test_shakespeare_presets_read_the_same_shards():
    small, large = load("shakespeare-char"), load("shakespeare-char-gpu")
    for key in ("data_path", "input", "train_files", "eval_files", "encoder_path"):
        assert getattr(small, key) == getattr(large, key)
    assert small.model_dir != large.model_dir


@pytest.mark.parametrize("name", ["shakespeare-char", "shakespeare-char-gpu"])
def test_shakespeare_preset_is_accepted_by_plan(name, tmp_path, capsys):
    shakespeare.prepare("To be, or not to be. " * 300, str(tmp_path))
    capsys.readouterr()
    model = ["--model", str(FOLDER / f"{name}.json")]
    for key, value in (("data_path", tmp_path), ("model_dir", tmp_path / "x")):
        model += ["--set", f"{key}={value}"]
    assert main.main([*model, "--plan"]) == 0
    assert "5,670 tokens" in capsys.readouterr().out
