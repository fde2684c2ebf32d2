"""The plan: sizes against published numbers, memory and slots against hand counts, the schedule against its formula."""
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from configs import schema
from configs.schedule import learning_rate
from datasets import shard_sets
from datasets.tfrecords import Shard
from models.run import plan
from models.weights import count, slot_shapes, weight_list
from tests.helpers.runs import ROOT


def found(shards, documents, tokens):
    """A corpus of so many equal shards."""
    shard = Shard("x_0.tfrecords", documents // shards, tokens // shards, None, 0, None, 1, 5)
    return shard_sets.ShardSet((shard_sets.Part((shard,) * shards, 1.0),), None, None)


ENOUGH = plan.Data(found(8, 1000, 50_000_000), found(1, 10, 900_000))


def config_with(**values):
    return schema.from_dict({"model_dir": "runs/a", "n_vocab": 50257, **values}, "x")


# Sizes small and all different: V 11, T 5, C 6, L 2.
TINY = {"n_vocab": 11, "n_ctx": 5, "n_embd": 6, "n_layer": 2, "n_head": 3}


@pytest.mark.parametrize("n_layer, n_embd, parameters", [
    (12, 768, 124_439_808), (24, 1024, 354_823_168), (36, 1280, 774_030_080), (48, 1600, 1_557_611_200)])
def test_parameters_are_those_of_the_released_models(n_layer, n_embd, parameters):
    assert plan.parameter_count(config_with(n_layer=n_layer, n_embd=n_embd)) == parameters


def test_variables_have_the_names_and_shapes_of_the_released_checkpoints():
    shapes = {"model/" + weight.name: weight.shape for weight in weight_list(config_with(**TINY))}
    assert len(shapes) == 2 + 2 * 12 + 2
    assert shapes["model/wpe"] == (5, 6) and shapes["model/wte"] == (11, 6)
    assert shapes["model/h1/attn/c_attn/w"] == (1, 6, 18) and shapes["model/h1/mlp/c_proj/w"] == (1, 24, 6)
    assert shapes["model/ln_f/g"] == (6,)


def test_checkpoint_of_adam_holds_two_numbers_per_weight():
    config = config_with(**TINY)
    assert plan.checkpoint_bytes(config) == 3 * 4 * plan.parameter_count(config) + 8


def test_checkpoint_of_adafactor_holds_rows_and_columns_and_momentum_only_with_beta1():
    matrices = (5 + 6) + (11 + 6) + 2 * ((6 + 18) + (6 + 6) + (6 + 24) + (24 + 6))
    vectors = 2 * (4 * 6 + 18 + 6 + 24 + 6) + 2 * 6
    config = config_with(**TINY, opt_name="adafactor")
    assert count(slot_shapes(config)) == matrices + vectors
    with_momentum = config_with(**TINY, opt_name="adafactor", beta1=0.9)
    assert count(slot_shapes(with_momentum)) == matrices + vectors + plan.parameter_count(config)


def test_memory_of_a_tiny_network_is_the_hand_count():
    config = config_with(**TINY, train_batch_size=7)
    P = plan.parameter_count(config)
    layer = 7 * 5 * (16 * 6 * 4 + 2 * 6) + 7 * 3 * 5 * 5 * (4 + 4)
    assert plan.memory(config) == (4 * P, 4 * P, 8 * P, 2 * layer, 2 * 4 * 7 * 5 * 11)
    smaller = 7 * 5 * (10 * 6 * 4 + 2 * 6)
    assert plan.memory(config, on_cpu=True) == (4 * P, 4 * P, 8 * P, 2 * smaller, 4 * 7 * 5 * 11)
    dropping = config_with(**TINY, train_batch_size=7, attn_dropout=0.1)
    assert plan.memory(dropping, on_cpu=True).activations == 2 * (smaller + 7 * 3 * 5 * 5 * (4 + 4))


def test_memory_follows_micro_batches_recompute_and_precision():
    full = plan.memory(config_with(train_batch_size=8))
    micro = plan.memory(config_with(train_batch_size=8, micro_batch_size=2))
    assert (micro.activations * 4, micro.logits * 4) == (full.activations, full.logits)
    assert micro.gradients == 2 * full.gradients  # the sum so far, and the newest
    assert plan.memory(config_with(train_batch_size=8, micro_batch_size=8)) == full
    assert plan.memory(config_with(recompute=True)).activations < full.activations / 6
    assert plan.memory(config_with(precision="bfloat16")).activations < full.activations
    assert plan.memory(config_with(precision="bfloat16")).weights == full.weights


def test_report_counts_what_all_steps_read_and_what_no_window_holds(tmp_path):
    # 8 files of 6 tokens and 2 documents are one block: 64 targets but the first, in windows of 10
    config = config_with(train_batch_size=4, n_ctx=10, max_steps=300, model_dir=str(tmp_path))
    text = plan.report(config, plan.Data(found(8, 16, 48), "none"))
    assert "read in all             200.00 epochs, 3,200 documents, 12,000 tokens" in text
    assert "dropped                 6.2500% of each epoch" in text
    assert any("reads the training data 200.0 times" in line for line in problems_of(
        tmp_path, plan.Data(found(8, 16, 48), "none"), train_batch_size=4, n_ctx=10, max_steps=300))


def test_learning_rate_rises_evenly_and_reaches_lr_right_after_the_warmup():
    config = config_with(lr=0.5, warmup_steps=4, max_steps=20)
    assert [learning_rate(float(step), config, np) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("schedule, quarter, half", [
    ("cosine", 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55), ("linear", 0.775, 0.55), ("constant", 1, 1)])
def test_learning_rate_falls_along_its_schedule(schedule, quarter, half):
    config = config_with(lr=2.0, warmup_steps=100, max_steps=500, lr_min=0.1, lr_schedule=schedule)
    end = 1 if schedule == "constant" else 0.1
    assert [learning_rate(float(step), config, np) / 2 for step in (100, 200, 300, 500, 501, 10**6)] == pytest.approx(
        [1, quarter, half, end, end, end])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_exists_at_every_step_when_all_is_warmup_or_nothing_is(schedule):
    all_warmup = config_with(lr=1.0, warmup_steps=5, max_steps=5, lr_schedule=schedule)
    assert learning_rate(4.0, all_warmup, np) == pytest.approx(5 / 6)
    assert learning_rate(5.0, all_warmup, np) == 1  # behind the last step, as the graph always had it
    assert learning_rate(0.0, config_with(lr=1.0, lr_schedule=schedule), np) == 1


def test_report_without_problems_says_everything(tmp_path):
    config = config_with(model_dir=str(tmp_path / "not" / "yet"), train_batch_size=12, micro_batch_size=4,
                         max_steps=2000, warmup_steps=100)
    text = plan.report(config, ENOUGH)
    for words in ("12 layers, 12 heads of 64, width 768, context 1,024, vocabulary 50,257", "124,439,808",
                  "12,288 = 12 x 1,024 in 3 micro-batches of 4", "24,576,000",
                  "8 shards, 1,000 documents, 50,000,000 tokens", "1 shards, 10 documents, 900,000 tokens",
                  "read in all             0.49 epochs, 491 documents, 24,576,000 tokens",
                  "5 x 1.5 GB = 7.5 GB", "0.00025 at step 100", "0 at step 2,000"):
        assert words in text
    assert text.splitlines()[-1] == "no problems found"
    assert not (tmp_path / "not").exists()


def problems_of(tmp_path, data=ENOUGH, **values):
    return plan.problems(config_with(**{"model_dir": str(tmp_path), **values}), data)


@pytest.mark.parametrize("values, words", [
    ({"max_steps": 30_000}, '"max_steps" 30,000 reads the training data 4.9 times; beyond 4 epochs'),
    ({"warmup_steps": 300, "max_steps": 1000}, '"warmup_steps" 300 is 30% of "max_steps" 1,000'),
    ({"max_steps": 9, "eval_steps": 200}, '"eval_steps" 200 x "eval_batch_size" 8 is more than the 879 windows'),
    ({"max_steps": 9, "train_batch_size": 60_000}, 'its 48,828 windows of "n_ctx" do not fill one batch'),
])
def test_setting_that_spoils_the_run_is_a_problem(values, words, tmp_path):
    assert len([line for line in problems_of(tmp_path, **values) if words in line]) == 1


@pytest.mark.parametrize("train, held_out, words", [
    ("no shard matches x_*.tfrecords", ENOUGH.eval, "no training data: no shard matches x_*.tfrecords"),
    (found(1, 3, 1020), ENOUGH.eval, "no training data: the 1020 tokens in x_0.tfrecords do not fill one window of"),
    (ENOUGH.train, "no shard matches y", 'no eval data: no shard matches y; set "eval_steps" to 0 to train without'),
    (ENOUGH.train, found(1, 0, 0), "the eval data is empty; give another"),
])
def test_missing_or_empty_data_is_a_problem_and_the_report_survives_it(train, held_out, words, tmp_path):
    data = plan.Data(train, held_out)
    problem, = problems_of(tmp_path, data, max_steps=10)
    assert words in problem
    text = plan.report(config_with(model_dir=str(tmp_path), max_steps=10), data)
    assert text.splitlines()[-2:] == ["problems:", "  - " + problem]


def test_missing_eval_data_is_no_problem_when_nothing_is_evaluated(tmp_path):
    assert problems_of(tmp_path, plan.Data(ENOUGH.train, "none"), max_steps=10, eval_steps=0) == []


def test_model_dir_that_cannot_be_made_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    found = problems_of(tmp_path, max_steps=10, model_dir=str(tmp_path / "file" / "run"))
    assert found == [f'"model_dir" {tmp_path}/file/run cannot be made: {tmp_path}/file is not a folder']
    assert problems_of(tmp_path, max_steps=10, model_dir="gs://bucket/run") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_model_dir_without_permission_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written: no permission in" in problems_of(tmp_path, max_steps=10)[0]


@pytest.mark.parametrize("number, words", [
    (999, "999 bytes"), (1500, "1.5 kB"), (1_493_277_704, "1.5 GB"), (2e12, "2.0 TB")])
def test_bytes_are_shown_in_the_unit_that_fits(number, words):
    assert plan.human_bytes(number) == words


def test_plan_and_configs_import_no_tensorflow():
    code = "import sys, models.run.plan, configs.resume, configs.schema; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
