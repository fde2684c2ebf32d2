"""The graph that goes to a TPU, built without one: operations that TPUs know, static shapes, summed gradients.

What is faked is the answer to "which devices does that TPU have"; the rest is the estimator's own.  The training step
is also compiled by XLA, for this machine's processor, and run.
"""
import collections
import json
import os
import pathlib
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.tpu import tpu_function

import inputs
import main
from configs import schema
from configs.errors import UserError
from datasets import shard_sets
from datasets.window_order import EvalWindows, WindowOrder
from encoder import bpe, prompts
from models import gpt2, replicas
from models.checkpoints import warm_start
from models.run import predict, workarounds
from models.weights import weight_list
from tests.helpers import graphs, tpu_graphs, weight_files
from tests.helpers.runs import ROOT

PRESETS = sorted(path.stem for path in pathlib.Path(schema.__file__).parent.glob("*.json"))
POD = {"cores": 32, "hosts": 4}
ADDRESS = "grpc://10.0.0.1:8470"  # never called


@pytest.fixture
def preset(text_corpus, tmp_path):
    """Function (name, cores=8, **changes) -> Config of the preset, with batches that the cores can share and the
    tests' text in place of its own.
    """
    def load(name, cores=8, **changes):
        path = os.path.join(ROOT, "configs", f"{name}.json")
        rows, n_vocab = schema.load(path).train_batch_size, schema.load(path).n_vocab
        changes = {"data_path": str(text_corpus), "encoder_path": str(text_corpus / "encoder"),
                   "n_vocab": n_vocab or 50257,
                   "model_dir": str(tmp_path / "run"), "train_batch_size": -(-rows // cores) * cores,
                   "eval_batch_size": cores, "predict_batch_size": cores, **changes}
        return schema.load(path, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    return load


def train_graph(config, **tpu):
    order = WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN))
    return tpu_graphs.graph_of(config, "train", inputs.train_input_fn(order, 299, start_step=0, stop_step=1), **tpu)


def eval_graph(config, **tpu):
    evaluation = EvalWindows.of(config, shard_sets.find(config, shard_sets.EVAL))
    return tpu_graphs.graph_of(config, "eval", inputs.eval_input_fn(evaluation, 299), **tpu)


def generation_graph(config):
    encoder = bpe.load(config.encoder_path)
    texts = [prompts.make("def", {"length": config.n_ctx + 9, "top_p": 0.9, "stop": ("\n",)}),  # beyond n_ctx
             prompts.make("class Encoder:", {"top_k": 7, "length": 5, "repetition_penalty": 1.2, "num_samples": 4})]
    rows = [row for prompt in texts for row in predict.rows_of(prompt, encoder, config.n_ctx)]
    limits, first_states = predict.limits_of(config, encoder, texts)
    input_fn = predict._input_fn(rows, first_states, encoder.eot)
    assert limits.draws and limits.penalties and limits.stops is not None and limits.largest == 40
    graph = tpu_graphs.graph_of(config, "infer", input_fn, limits=limits)
    assert any(node.op in ("While", "StatelessWhile") for node in tpu_graphs.program(graph))
    return graph


def assert_sums_every_gradient(graph, config, cores):
    """One sum over all cores for each weight, and one for the loss."""
    wanted = collections.Counter(tuple(weight.shape) for weight in weight_list(config))
    assert tpu_graphs.summed_shapes(graph) == wanted + collections.Counter([()])
    assert tpu_graphs.groups_of_cores(graph) == {(tuple(range(cores)),)}


@pytest.mark.parametrize("name", [name if name in ("117M", "1.5B") else pytest.param(name, marks=pytest.mark.slow)
                                  for name in PRESETS])
def test_program_of_a_preset_has_only_what_tpus_compile_and_sums_every_gradient(name, preset):
    """On one host the preset as it is; on a pod with the other precision, micro-batches and recompute.  All but the
    depth is the preset's: a layer is a layer."""
    config = preset(name, n_layer=1)
    graph = train_graph(config)
    assert tpu_graphs.problems(graph) == []
    assert_sums_every_gradient(graph, config, 8)
    assert tpu_graphs.problems(generation_graph(config)) == []
    other = {"float32": "bfloat16", "bfloat16": "float32"}[config.precision]
    config = preset(name, 32, n_layer=1, precision=other, recompute=True, train_batch_size=128, micro_batch_size=64)
    graph = train_graph(config, **POD)
    assert tpu_graphs.problems(graph) == []
    assert_sums_every_gradient(graph, config, 32)
    assert tpu_graphs.problems(eval_graph(config, **POD)) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_program_with_muon_has_only_what_tpus_compile_and_sums_every_gradient(precision, preset):
    config = preset("quickstart", n_layer=1, opt_name="muon", precision=precision)
    graph = train_graph(config)
    assert tpu_graphs.problems(graph) == []
    assert_sums_every_gradient(graph, config, 8)


# The largest have the layers of the others, and take minutes.
@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS if os.environ.get("EVERY_SIZE") else [
    name for name in PRESETS if name not in ("1.5B", "774M", "PrettyBig")])
def test_whole_program_of_a_preset_has_only_what_tpus_compile_and_sums_every_gradient(name, preset):
    config = preset(name, 32)
    graph = train_graph(config, **POD)
    assert tpu_graphs.problems(graph) == []
    assert_sums_every_gradient(graph, config, 32)
    assert tpu_graphs.problems(eval_graph(config)) == []
    assert tpu_graphs.problems(generation_graph(config)) == []


def spoiled(how):
    """A GELU that a TPU could not compile."""
    def gelu(x):
        with tf.control_dependencies([how(x)]):
            return tf.nn.relu(x)
    return gelu


@pytest.mark.parametrize("how, words", [
    (lambda x: tf.boolean_mask(x, x > 0), "dynamic shape (None,): "),
    (lambda x: tf.math.special.bessel_j0(tf.cast(x, tf.float32)), "no kernel: BesselJ0 "),
    (lambda x: tf.cast(x, tf.float64) + 1, "float64: AddV2 ")])
def test_what_tpus_cannot_compile_is_found_however_deep_it_stands(how, words, preset):
    config = preset("quickstart", n_layer=1, recompute=True, micro_batch_size=8)
    with mock.patch.object(gpt2, "gelu", spoiled(how)):
        assert any(words in line for line in tpu_graphs.problems(train_graph(config)))


def test_gradient_that_is_not_summed_is_found(preset):
    real, config = replicas.mean, preset("quickstart", n_layer=1)

    def all_but_one(tensors, use_tpu):
        return [*real(tensors[:-1], use_tpu), tensors[-1]]
    with mock.patch.object(replicas, "mean", all_but_one):
        graph = train_graph(config)
    with pytest.raises(AssertionError):
        assert_sums_every_gradient(graph, config, 8)


def predicting(config, cores, hosts):
    """Generates one sample by the real code up to the opening of a session; the batch sizes it has asked for."""
    encoder, sizes = bpe.load(config.encoder_path), []
    prompt = prompts.make("def", {"length": 3})
    limits, _ = predict.limits_of(config, encoder, [prompt])
    rows = predict.rows_of(prompt, encoder, config.n_ctx)
    input_fn = predict._input_fn(rows, {(): 1}, encoder.eot)

    def build(config, tpu, sampler):
        sizes.append(config.predict_batch_size)
        return tpu_graphs.estimator_for(config, tpu, limits)
    with tpu_graphs.stopping_at_sessions(), tpu_graphs.a_tpu_of(cores, hosts), \
            pytest.raises((tpu_graphs.Captured, UserError)) as caught:
        next(predict.draw(config, tpu_graphs.tpu_with(hosts), "/nowhere/model.ckpt-0", input_fn, limits, build))
    return sizes, caught.value


def test_any_batch_of_samples_is_rounded_up_to_the_cores_of_the_tpu(run_config):
    sizes, end = predicting(schema.load(run_config(predict_batch_size=9)), 8, 1)
    assert sizes == [9, 16] and isinstance(end, tpu_graphs.Captured)


def test_generating_on_several_hosts_is_refused_in_one_line(run_config):
    sizes, end = predicting(schema.load(run_config(predict_batch_size=16)), 16, 2)
    assert sizes == [16] and str(end).startswith("--tpu fake has several hosts")


def test_weights_to_start_from_are_loaded_into_the_variables_of_the_program(run_config, tmp_path):
    source = weight_files.write_openai(tmp_path / "src")
    config = schema.load(run_config(train_batch_size=16, n_ctx=13, n_embd=12, n_layer=2, n_head=3,
                                    init_checkpoint=source))
    real = tf.train.Scaffold.__init__
    with mock.patch.object(tf.train.Scaffold, "__init__", autospec=True, side_effect=real) as made:
        assert not tpu_graphs.problems(train_graph(config))
    start, init_op = next((call[1]["init_fn"], call[1]["init_op"]) for call in made.call_args_list
                          if call[1].get("init_fn"))
    assert not graphs.weights_initialised_by(init_op)
    with mock.patch.object(warm_start, "load") as load:
        start(None, "session")
    found, variables, session, _ = load.call_args[0]
    assert found.path == source + "/model.ckpt" and session == "session"
    assert {name: tuple(variable.shape) for name, variable in variables.items()} == found.shapes


@pytest.mark.parametrize("tpu", [None, ADDRESS])
def test_the_estimator_uses_a_tpu_exactly_when_one_is_named(run_config, tpu):
    with mock.patch.object(workarounds, "resolver", lambda name: None):
        built = main.build_estimator(schema.load(run_config()), tpu)
    assert isinstance(built, tf.estimator.tpu.TPUEstimator)
    assert built._ctx._use_tpu == bool(tpu)


BATCHES = np.random.RandomState(3).randint(0, 29, [5, 6, 14]).astype(np.int32)


def first_steps(count, use_tpu=True, **changes):
    """(losses, {name: the optimizer's first moment}) of steps of the program for a TPU, compiled for this processor."""
    config = graphs.small_config(beta1=0.5, **changes)

    def step(features, labels):
        spec = gpt2.make_model_fn(config)(features, labels, "train", {"use_tpu": use_tpu})
        with tf.control_dependencies([spec.train_op]):
            return tf.identity(spec.loss)
    with graphs.session() as s, tpu_function.tpu_shard_context(1), \
            mock.patch.object(tf.tpu, "cross_replica_sum", lambda x: x), \
            mock.patch.object(replicas.xla, "replica_id", lambda: 0):  # one core; XLA for CPUs cannot name it
        batch = tf.placeholder(tf.int32, BATCHES.shape[1:])
        inputs = [batch[:, :-1], batch[:, 1:]]
        tf.train.create_global_step()
        loss = tf.xla.experimental.compile(step, inputs=inputs)[0] if use_tpu else step(*inputs)
        s.run(tf.global_variables_initializer())
        losses = [s.run(loss, {batch: tokens}) for tokens in BATCHES[:count]]
        moments = [v for v in tf.global_variables() if v.op.name.endswith(("/adam_m", "/muon_m"))]
        return losses, s.run({v.op.name: v for v in moments})


def assert_same_steps(one, other, of_losses=1e-5, of_moments=1e-5):
    np.testing.assert_allclose(one[0], other[0], rtol=of_losses)
    norm = np.sqrt(sum(np.sum(moment ** 2) for moment in one[1].values()))
    for name, moment in one[1].items():
        assert np.linalg.norm(other[1][name] - moment) < of_moments * norm, name


# In bfloat16, of 8 bits, XLA rounds less often: it keeps float32 between operations that it makes one.
@pytest.mark.parametrize("precision, of_losses, of_moments", [("float32", 1e-6, 1e-5), ("bfloat16", 5e-4, 5e-2)])
@pytest.mark.parametrize("opt_name", ["adam", pytest.param("muon", marks=pytest.mark.slow)])
def test_compiled_steps_are_the_plain_ones(precision, of_losses, of_moments, opt_name):
    changes = {"precision": precision, "micro_batch_size": 2, "recompute": True, "opt_name": opt_name}
    compiled = first_steps(5, **changes)
    assert len(set(compiled[0])) == 5
    assert_same_steps(compiled, first_steps(5, use_tpu=False, **changes), of_losses, of_moments)


@pytest.mark.slow
def test_compiled_step_of_micro_batches_is_that_of_the_whole_batch():
    changes = {"res_dropout": 0.2, "attn_dropout": 0.1, "embed_dropout": 0.1}
    whole = first_steps(1, **changes)
    assert_same_steps(whole, first_steps(1, micro_batch_size=2, recompute=True, **changes))
