"""What XLA compiles for CPUs against the same functions as they are written, with TensorFlow's own gradients."""
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import gpt2, optimizers
from models.cpu import attention
from models.cpu import block as layers
from models.cpu import compiled as fused
from models.cpu import loss as lm_head
from tests.helpers import graphs
from tests.helpers.runs import ROOT

RANDOM = np.random.RandomState(0)
LABELS = np.array([[0, 70, 3, 3, -1], [5, 69, 11, -1, 70]], np.int32)
VISIBLE = np.tril(np.ones([5, 7], bool), 2)


def attention_weights(scores):
    return attention.masked_softmax(scores, tf.constant(VISIBLE))


def losses(hidden, wte):
    labels = tf.constant(LABELS)
    used = lm_head.tied(wte, labels, hidden.dtype)
    return (lm_head.token_losses(hidden, used["wte"], labels, used.get("output")),
            tf.cast(tf.gather(used["wte"], tf.maximum(labels, 0)), hidden.dtype))


def two_heads(x, b):
    return attention.heads(x, b, n_head=2, time=5)


def inputs(*shapes):
    return [np.asarray(RANDOM.randn(*shape) * 1.5, np.float32) for shape in shapes]


def attended(q, k, v):
    return attention.causal_attention(q, k, v)


ACTIVATIONS = {"add": [0, 1], "causal_attention": [0, 1, 2]}  # inputs of their dtype, where not the first alone
CASES = {
    "norm": (layers.norm, inputs((2, 5, 6), (6,), (6,))),
    "gelu": (layers.gelu, inputs((10, 6), (6,))),
    "add": (layers.add, inputs((2, 5, 6), (10, 6), (6,))),
    "heads": (two_heads, inputs((10, 12), (12,))),
    "causal_attention": (attended, inputs(*[(2, 3, 7, 4)] * 3)),
    "masked_softmax": (attention_weights, inputs((2, 3, 5, 7))),
    "token_losses": (losses, inputs((2, 5, 6), (71, 6))),
}


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch):
    monkeypatch.setattr(fused, "LEAST", 1)


def values_and_gradients(name, dtype):
    """The results of a case, and the gradients of a weighted sum of them, float32 NumPy arrays."""
    function, arrays = CASES[name]
    with graphs.session() as s:
        tensors = [tf.cast(tf.constant(array), dtype if number in ACTIVATIONS.get(name, [0]) else tf.float32)
                   for number, array in enumerate(arrays)]
        found = function(*tensors)
        found = list(found) if isinstance(found, tuple) else [found]
        weights = [np.cos(np.arange(np.prod(result.shape.as_list()))).reshape(result.shape) for result in found]
        total = tf.add_n([tf.reduce_sum(tf.cast(each, tf.float32) * weight) for each, weight in zip(found, weights)])
        compiled = [node for node in s.graph.get_operations() if node.type == "PartitionedCall"]
        gradients = tf.gradients(total, tensors)
        return [s.run(tf.cast(value, tf.float32)) for value in found + gradients], bool(compiled)


@pytest.mark.parametrize("name", CASES)
def test_compiled_functions_and_their_gradients_equal_the_plain_ones(name, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 3)
    monkeypatch.setattr(lm_head, "ROWS", 4)
    found, _ = values_and_gradients(name, tf.float32)
    for module in (fused, attention, lm_head):
        monkeypatch.setattr(module, "pays", lambda *tensors: False)
    expected, compiled = values_and_gradients(name, tf.float32)
    assert not compiled
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_in_bfloat16_they_are_within_its_rounding_of_float32(name):
    expected, _ = values_and_gradients(name, tf.float32)
    found, _ = values_and_gradients(name, tf.bfloat16)
    for one, other in zip(found, expected):
        assert not np.array_equal(one, other)
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())


def test_logits_in_bfloat16_are_rounded_relative_to_their_mean(monkeypatch):
    monkeypatch.setattr(lm_head, "ROWS", 48)
    random, common = np.random.RandomState(2), np.ones(16, np.float32)
    hidden = (random.randn(1, 64, 16) + common).astype(tf.bfloat16.as_numpy_dtype)
    wte = (random.randn(500, 16) / 4 - 5 * common).astype(np.float32)  # logits around -80, as GPT-2's
    labels = random.randint(0, 500, [1, 64])
    logits = hidden[0].astype(np.float64) @ wte.T.astype(np.float64)
    assert -90 < logits.mean() < -70
    top = logits.max(1, keepdims=True)
    expected = (top + np.log(np.exp(logits - top).sum(1, keepdims=True)))[:, 0] - logits[np.arange(64), labels[0]]
    with graphs.session() as s:
        used = lm_head.tied(tf.constant(wte), tf.constant(labels, tf.int32), tf.bfloat16)
        found = lm_head.token_losses(tf.constant(hidden), used["wte"], tf.constant(labels, tf.int32), used["output"])
        error = np.abs(s.run(found) - expected)
    assert error.max() < 0.03 and error.mean() < 0.01  # a bfloat16 of -80 is off by 0.1 in the mean


def network_gradients(s, config):
    """(loss, gradients) of the network on a batch whose labels are in part ignored, as training has them."""
    noise = gpt2.dropout_noise(config, tf.constant(3), 0)
    tokens = RANDOM_TOKENS[:, :config.n_ctx] % config.n_vocab
    labels = np.where(tokens % 5 == 0, lm_head.IGNORED, tokens[:, ::-1])

    def loss_fn(weights, tokens, labels, number):
        return gpt2.training_loss(weights, tokens, labels, config, noise=noise)
    variables = {name: tf.constant(value) for name, value in graphs.random_weights(config).items()}
    loss, gradients = optimizers.gradients(
        loss_fn, variables, (tf.constant(tokens, tf.int32), tf.constant(labels, tf.int32)), config.train_batch_size // (
            config.micro_batch_size or config.train_batch_size))
    return s.run([loss, *gradients])


RANDOM_TOKENS = np.random.RandomState(1).randint(0, 1000, [4, 13])


@pytest.mark.parametrize("changes", [
    {"n_ctx": 5}, {"n_ctx": 6, "n_vocab": 128}, {"n_ctx": 10, "recompute": True}, {"micro_batch_size": 2},
    {"micro_batch_size": 1, "recompute": True, "embed_dropout": 0.1, "attn_dropout": 0.2, "res_dropout": 0.3}])
def test_compiled_network_has_the_gradients_of_the_plain_one(changes, monkeypatch):
    config = graphs.small_config(**{"train_batch_size": 4, **changes})
    monkeypatch.setattr(attention, "BLOCK", 5)
    monkeypatch.setattr(lm_head, "ROWS", 9)
    with graphs.session() as s:
        found = network_gradients(s, config)
    for module in (fused, attention, lm_head):
        monkeypatch.setattr(module, "pays", lambda *tensors: False)
    with graphs.session() as s:
        expected = network_gradients(s, config)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_what_a_backward_pass_can_compute_anew_is_not_kept_for_it():
    config = graphs.small_config(precision="bfloat16")
    rows, time, width = 4 * 13, 13, config.n_embd
    with graphs.session() as s:
        variables = {name: tf.identity(variable) for name, variable in gpt2.create_variables(config).items()}
        tokens = tf.zeros([4, time], tf.int32)
        loss = gpt2.training_loss(variables, tokens, tokens, config)
        forward = set(s.graph.get_operations())
        tf.gradients(loss, list(variables.values()))
        backward = set(s.graph.get_operations()) - forward
    # Of all large tensors: residuals, q, k, v and what attention gives, the MLP before GELU; and the last norm.
    kept = {tensor for op in backward for tensor in op.inputs if op.type != "ZerosLike"  # which nothing uses
            and tensor.op in forward and tensor.dtype == tf.bfloat16 and tensor.shape.num_elements() >= rows * width}
    shapes = sorted(tuple(tensor.shape) for tensor in kept if tensor.op.type != "Reshape")
    heads, vocabulary = (4, config.n_head, time, width // config.n_head), 64
    assert shapes == sorted(config.n_layer * [(4, time, width)] * 2 + [(4, time, width)]
                            + config.n_layer * [heads] * 4 + config.n_layer * [(rows, 4 * width)]
                            + [(vocabulary, width), (rows, vocabulary)])
    # What is computed anew waits for the gradient: grappler would else find it in the forward pass.
    anew = [op for op in backward if op.type == "Cast" and op.inputs[0].op in forward and op.inputs[0].shape.rank == 3]
    assert len(anew) == 4 * config.n_layer and all(op.control_inputs for op in anew)


def test_one_function_of_many_layers_is_compiled_once_a_graph():
    config = graphs.small_config()
    with graphs.session() as s:
        weights = gpt2.create_variables(config)
        loss = gpt2.training_loss(weights, tf.zeros([2, 7], tf.int32), tf.zeros([2, 7], tf.int32), config)
        tf.gradients(loss, list(weights.values()))
        names = {node.get_attr("f").name for node in s.graph.get_operations() if node.type == "PartitionedCall"}
        assert len(names) == len(getattr(s.graph, fused.COMPILED)) >= 8


def test_update_is_compiled_once_a_shape():
    config = graphs.small_config()
    with graphs.session() as s:
        tf.train.create_global_step()
        variables = list(gpt2.create_variables(config).values())
        optimizers.train_op([tf.zeros(variable.shape) for variable in variables], variables, config)
        names = {node.get_attr("f").name for node in s.graph.get_operations() if node.type == "StatefulPartitionedCall"}
    assert len(names) == len({tuple(variable.shape.as_list()) for variable in variables})


def test_compiled_network_in_bfloat16_has_nearly_the_gradients_of_the_plain_one_in_float32(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 5)
    monkeypatch.setattr(lm_head, "ROWS", 9)
    changes = {"train_batch_size": 4, "micro_batch_size": 2, "n_ctx": 11}
    with graphs.session() as s:
        found = network_gradients(s, graphs.small_config(precision="bfloat16", **changes))
    for module in (fused, attention, lm_head):
        monkeypatch.setattr(module, "pays", lambda *tensors: False)
    with graphs.session() as s:
        expected = network_gradients(s, graphs.small_config(**changes))
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=0.04 * np.abs(other).max())


def test_what_is_small_or_compiled_as_a_whole_or_of_unknown_shape_stays_plain(monkeypatch):
    with tf.Graph().as_default():
        assert fused.pays(tf.zeros([2, 3]))
        assert not fused.pays(tf.zeros([2, 3]), tf.placeholder(tf.float32, [None, 3]))
        with monkeypatch.context() as patch:
            patch.setattr(fused, "LEAST", 7)
            assert not fused.pays(tf.zeros([2, 3]))
        seen = []
        tf.function(lambda x: seen.append(fused.pays(x)), jit_compile=True, autograph=False)(tf.zeros([2, 3]))
        tf.tpu.rewrite(lambda: seen.append(fused.pays(tf.zeros([2, 3]))))
        assert seen == [False, False]


def test_the_first_compilation_says_nothing():
    program = ("import storage; storage.silence_tensorflow(); import tensorflow.compat.v1 as tf;"
               "tf.disable_eager_execution(); from models import fused, layers; fused.LEAST = 1;"
               "x = tf.placeholder(tf.float32, [2, 3]);"
               "y = layers.norm(x, tf.ones([3]), tf.zeros([3]));"
               "print(tf.Session().run(y, {x: [[1, 2, 3]] * 2})[0, 1])")
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "0.0\n", "")
