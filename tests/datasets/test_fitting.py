"""Batch, steps and evaluations for data sets of every size."""
import pytest

from configs import schema
from configs.errors import UserError
from datasets import fitting
from tests.helpers.records import write_data_set


@pytest.mark.parametrize("windows, epochs, expected", [
    (100_000, 4, {"train_batch_size": 16, "max_steps": 25_000, "warmup_steps": 100}),
    (10_170, 4, {"train_batch_size": 16, "max_steps": 2500, "warmup_steps": 100}),  # two digits of 2,542
    (3000, 4, {"train_batch_size": 8, "max_steps": 1500, "warmup_steps": 75}),  # a batch of 16 makes 750 steps
    (300, 4, {"train_batch_size": 4, "max_steps": 300, "warmup_steps": 15}),
    (3, 4, {"train_batch_size": 2, "max_steps": 6, "warmup_steps": 0}),  # a batch that the data fills
    (1, 0.2, {"train_batch_size": 1, "max_steps": 1, "warmup_steps": 0})])
def test_steps_read_the_data_so_often_in_batches_that_it_fills(windows, epochs, expected):
    found = fitting.steps(windows, batch=16, epochs=epochs)
    assert found == expected
    assert found["train_batch_size"] * found["max_steps"] <= max(epochs, 1) * windows
    schema.from_dict({"model_dir": "x", **found}, "x")


def test_steps_end_at_the_most_that_are_wanted():
    assert fitting.steps(10**6, batch=8, epochs=3, most=2000)["max_steps"] == 2000


@pytest.fixture
def held_out(tmp_path):
    """90 windows of 40 tokens (and a short one): 30 documents of 120 tokens each."""
    folder = write_data_set(tmp_path, "mine", train=1, held_out=1, documents=30, length=120)
    return fitting.sets(schema.from_dict({"model_dir": "x", "data_path": folder}, "x"))[1]


@pytest.mark.parametrize("between, expected", [
    (10**6, {"train_steps": 200, "eval_steps": -1, "save_checkpoints_steps": 200}),  # ten evaluations of the whole
    (25, {"train_steps": 25, "eval_steps": 6, "save_checkpoints_steps": 25}),  # a tenth of 25 x 8 x 3 windows are 60
    (0, {"train_steps": 1, "eval_steps": 1, "save_checkpoints_steps": 1})])
def test_evaluations_take_little_of_the_time_between_them(held_out, between, expected):
    found = {"train_batch_size": 8, "max_steps": 2000}
    assert fitting.evaluations(found, held_out, n_ctx=40, eval_batch=10, between=between) == expected


def test_a_data_set_without_evaluation_text_is_not_evaluated_on(tmp_path):
    folder = write_data_set(tmp_path, "mine", train=1, held_out=0)
    train, held_out = fitting.sets(schema.from_dict({"model_dir": "x", "data_path": folder}, "x"))
    assert train.records == 3 and held_out is None
    assert fitting.evaluations({"train_batch_size": 8, "max_steps": 20}, held_out, n_ctx=40, eval_batch=8,
                               between=9)["eval_steps"] == 0
    write_data_set(tmp_path / "other", "mine", train=1, held_out=1, documents=0)
    with pytest.raises(UserError):
        fitting.sets(schema.from_dict({"model_dir": "x", "data_path": str(tmp_path / "none")}, "x"))
