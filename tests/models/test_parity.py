"""Our training, step for step, against an independent one: transformers' GPT-2 trained by torch.

Ours is the graph that `main.py` trains: model_fn's train mode with its own optimizer, clipping and schedule.  Theirs
shares with it the starting weights and the batches, nothing else: no dropout, float32, torch.optim.AdamW, torch's
clipping and schedulers.

Two tensors agree to a tolerance when the norm of their difference is at most that share of the second one's norm.
Sizes all differ: B 6, T 31, C 36, H 3, D 12, V 300, L 2.
"""
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
from datasets import shard_sets
from datasets.window_order import WindowOrder
from models import gpt2, initial_values, metrics
from tests.helpers import graphs, hugging_face

torch = pytest.importorskip("torch")

STEPS = 50
# epsilon: without its weight the biases of the keys, whose true gradient is zero, would be moved by rounding alone.
# lr: at 1e-2 some texts throw both runs off (gradient norms beyond 30), and rounding alone parts torch from torch.
# weight_decay: strong enough that 50 steps show which tensors it is applied to.
SETTINGS = {"n_ctx": 31, "n_vocab": 300, "n_embd": 36, "lr": 4e-3, "warmup_steps": 7, "lr_min": 0.1,
            "max_steps": STEPS, "weight_decay": 1.0, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4, "grad_clip": 1.0}
CONFIG = graphs.small_config(**SETTINGS)


class Run(NamedTuple):
    """Scalars of every step, and the weights and Adam's first moments behind the last, by our names."""
    losses: np.ndarray
    rates: np.ndarray
    norms: np.ndarray
    weights: dict
    moments: dict


@pytest.fixture(scope="module")
def batches(text_corpus):
    """STEPS times (tokens, labels), int32 [B, T] each, of real text, as training reads them."""
    config = graphs.small_config(**SETTINGS, input="tfrecords", data_path=str(text_corpus),
                                 train_files="text*.tfrecords", eval_steps=0)
    order = WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN))
    input_fn = inputs.train_input_fn(order, config.n_vocab - 1, start_step=0, stop_step=STEPS)
    with graphs.session() as s:
        following = tf.data.make_one_shot_iterator(input_fn({"batch_size": config.train_batch_size})).get_next()
        return [s.run(following) for _ in range(STEPS)]


def starting_weights():
    with graphs.session() as s:
        variables = initial_values.create_variables(CONFIG)
        s.run(tf.global_variables_initializer())
        return s.run(variables)


START = starting_weights()


def our_run(config, start, batches):
    with graphs.session() as s:
        tokens, labels = (tf.placeholder(tf.int32, [config.train_batch_size, config.n_ctx]) for _ in range(2))
        spec = gpt2.make_model_fn(config)(tokens, labels, tf.estimator.ModeKeys.TRAIN, {"use_tpu": False})
        s.run(tf.global_variables_initializer())
        variables = initial_values.create_variables(config)  # those that exist
        for name, value in start.items():
            variables[name].load(value, s)
        shown = metrics.collected()
        steps = [s.run([shown, spec.train_op], {tokens: x, labels: y})[0] for x, y in batches]
        slots = {slot.op.name: slot for slot in tf.global_variables()}
        moments = {name: slots[f"model/{name}/adam_m"] for name in variables}
        columns = [np.array([values[name] for values in steps]) for name in ("loss", "learning_rate", "gradient_norm")]
        return Run(*columns, *s.run([variables, moments]))


def torch_loss(model, tokens, labels):
    logits = model(torch.tensor(tokens)).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(labels).long().flatten())


def torch_run(config, start, batches):
    model = hugging_face.network(config, start).train()
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
              {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.epsilon)
    warmup, length = config.warmup_steps, config.max_steps - config.warmup_steps
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length, eta_min=config.lr_min * config.lr)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], [warmup])
    steps = []
    for tokens, labels in batches:
        optimizer.zero_grad()
        loss = torch_loss(model, tokens, labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        steps.append((loss.item(), schedule.get_last_lr()[0], norm.item()))
        optimizer.step()
        schedule.step()
    tensors = dict(model.named_parameters())
    moments = {name: optimizer.state[p]["exp_avg"] for name, p in tensors.items()}
    return Run(*np.array(steps).T, hugging_face.by_our_names(tensors, start),
               hugging_face.by_our_names(moments, start))


@pytest.fixture(scope="module")
def theirs(batches):
    return torch_run(CONFIG, START, batches)


@pytest.fixture(scope="module")
def ours(batches):
    return our_run(CONFIG, START, batches)


def assert_near(found, expected, tolerance):
    """Both {name: array}, tensor by tensor, as the head of this file says."""
    assert set(found) == set(expected)
    far = {name: np.linalg.norm(found[name] - value) / np.linalg.norm(value) for name, value in expected.items()}
    assert not {name: share for name, share in far.items() if not share <= tolerance}


def test_the_run_tests_what_it_should(theirs):
    """It learns, some steps are clipped and some are not."""
    assert theirs.losses[-1] < theirs.losses[0] - 1.0
    assert 5 <= np.sum(theirs.norms > CONFIG.grad_clip) <= STEPS - 5


def test_losses_of_fifty_steps_equal_torch(ours, theirs):
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-3)


def test_rates_and_gradient_norms_of_fifty_steps_equal_torch(ours, theirs):
    np.testing.assert_allclose(ours.rates, theirs.rates, rtol=1e-5)
    np.testing.assert_allclose(ours.norms, theirs.norms, rtol=1e-3)


def test_weights_after_fifty_steps_equal_torch(ours, theirs):
    assert_near(ours.weights, theirs.weights, 1e-3)


@pytest.mark.parametrize("changes", [{"micro_batch_size": 2}, {"recompute": True}])
def test_accumulation_and_recomputation_train_like_torch(batches, theirs, changes):
    config = graphs.small_config(**SETTINGS, **changes)
    found = our_run(config, START, batches)
    np.testing.assert_allclose(found.losses, theirs.losses, rtol=1e-3)
    assert_near(found.weights, theirs.weights, 1e-3)


def test_bfloat16_stays_within_two_percent_of_the_float32_curve(batches, ours):
    config = graphs.small_config(**SETTINGS, precision="bfloat16")
    found = our_run(config, START, batches)
    assert not np.array_equal(found.losses, ours.losses)
    np.testing.assert_allclose(found.losses, ours.losses, rtol=0.02)


def test_gradients_of_one_step_equal_torch(batches):
    config = graphs.small_config(**{**SETTINGS, "grad_clip": 0.0})  # Adam's first moment is then a share of them
    start = graphs.random_weights(config)  # large, so that attention and GELU are far from linear
    model = hugging_face.network(config, start).train()
    torch_loss(model, *batches[0]).backward()
    expected = hugging_face.by_our_names({name: p.grad for name, p in model.named_parameters()}, start)
    found = our_run(config, start, batches[:1])
    assert_near({name: moment / (1 - config.beta1) for name, moment in found.moments.items()}, expected, 1e-4)
