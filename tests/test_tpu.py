"""The graph that goes to a TPU, built without one: operations that TPUs know, static shapes, summed gradients.

What is faked is the answer to "which devices does that TPU have"; the rest is the estimator's own.  The training step
is also compiled by XLA, for this machine's processor, and run.
"""
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.framework import kernels
from tensorflow.python.tpu import tpu_function
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata
from tensorflow.python.training import monitored_session

import corpus
import estimator as estimators
import generation
import inputs
import prompts
from configs import schema
from encoder import bpe
from errors import UserError
from models import gpt2
from tests import graphs, weight_files

ADDRESS = "grpc://10.0.0.1:8470"  # never called
# Of the TPU's runtime: no kernel in the compiler, none needed.
RUNTIME = {"InfeedDequeueTuple", "OutfeedEnqueueTuple", "CrossReplicaSum", "TPUReplicateMetadata", "TPUReplicatedInput",
           "TPUReplicatedOutput", "TPUCompilationResult", "Placeholder", "NoOp", "VarHandleOp", "ReadVariableOp"}


class Captured(Exception):
    """A session was about to open: the graph is complete."""


BUILD = estimators.build_estimator


def estimator_for(config, limits, cores=8, hosts=1):
    """The estimator, told that the TPU has so many cores."""
    with mock.patch.object(estimators, "resolve_tpu", lambda name: None):
        built = BUILD(config, ADDRESS, limits)
    worker = "/job:worker/replica:0/task:0/device:"
    devices = [_DeviceAttributes(f"{worker}{kind}:{i}", kind, 0, 0)
               for kind, count in (("CPU", 1), ("TPU_SYSTEM", 1), ("TPU", cores)) for i in range(count)]
    metadata = TPUSystemMetadata(num_cores=cores, num_hosts=hosts, num_of_cores_per_host=cores // hosts,
                                 topology=None, devices=tuple(devices))
    built._ctx._lazy_tpu_system_metadata_dict = dict.fromkeys(("", None, ADDRESS), metadata)
    return built


def program(config, mode, input_fn, options=None, cores=8):
    """(NodeDefs of the program for the TPU, names of the graph's functions)."""
    built = estimator_for(config, options, cores)
    graphs = []

    def stop(*args, **kwargs):
        graphs.append(tf.get_default_graph().as_graph_def(add_shapes=True))
        raise Captured
    with mock.patch.object(monitored_session._MonitoredSession, "__init__", stop), pytest.raises(Captured):
        if mode == "train":
            built.train(input_fn, max_steps=100)
        elif mode == "eval":
            built.evaluate(input_fn, steps=2, checkpoint_path="/nowhere/model.ckpt-0")
        else:
            next(built.predict(input_fn, checkpoint_path="/nowhere/model.ckpt-0"))
    return nodes_of_the_program(graphs[0]), {function.signature.name for function in graphs[0].library.function}


def nodes_of_the_program(graph):
    """Those tagged for the TPU, and the bodies of the functions that they call."""
    library = {function.signature.name: function for function in graph.library.function}
    found = [node for node in graph.node if "_tpu_replicate" in node.attr]
    wanted, seen = list(found), set()
    while wanted:
        node = wanted.pop()
        called = [node.op] + [value.func.name for value in node.attr.values() if value.HasField("func")]
        called += [function.name for value in node.attr.values() for function in value.list.func]
        for name in set(called) & set(library) - seen:
            seen.add(name)
            found += library[name].node_def
            wanted += library[name].node_def
    return found


def compiled_operations():
    """Operations for which the XLA compiler has a kernel; they are registered when it is first used."""
    with tf.Graph().as_default(), tf.Session() as s:
        s.run(tf.xla.experimental.compile(lambda: tf.constant(1) + 1))
    return {kernel.op for kernel in kernels.get_all_registered_kernels().kernel
            if kernel.device_type.startswith("XLA_") and kernel.device_type.endswith("_JIT")}


def problems(nodes, functions):
    known = compiled_operations() | RUNTIME | functions
    shapes = [(node, tf.TensorShape(shape)) for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return [f"no kernel: {node.op} {node.name}" for node in nodes if node.op not in known] \
        + [f"dynamic shape {shape}: {node.op} {node.name}" for node, shape in shapes if not shape.is_fully_defined()]


@pytest.fixture
def config(run_config):
    def make(**changes):
        return schema.load(run_config(train_batch_size=16, eval_batch_size=16, predict_batch_size=8, iterations=5,
                                      **changes))
    return make


CHANGES = [{}, {"precision": "bfloat16", "recompute": True, "micro_batch_size": 8, "res_dropout": 0.1,
                "attn_dropout": 0.1, "embed_dropout": 0.1}, {"opt_name": "adafactor", "lr_schedule": "linear"}]


@pytest.mark.parametrize("changes", CHANGES)
def test_training_program_has_only_what_tpus_compile_and_sums_every_gradient(config, changes):
    config = config(**changes)
    found = corpus.find(config, corpus.TRAIN)
    input_fn = inputs.make_train_input_fn(config, found, 299, start_step=0, stop_step=100)
    nodes, functions = program(config, "train", input_fn)
    assert not problems(nodes, functions)
    assert sum(node.op == "CrossReplicaSum" for node in nodes) == 2 + 12 * config.n_layer + 2 + 1  # weights, loss


@pytest.mark.parametrize("changes", CHANGES[:2])
def test_evaluation_program_has_only_what_tpus_compile(config, changes):
    config = config(**changes)
    input_fn = inputs.make_eval_input_fn(config, corpus.find(config, corpus.EVAL), 299)
    assert not problems(*program(config, "eval", input_fn))


@pytest.mark.parametrize("changes", CHANGES[:2])
def test_generating_program_has_only_what_tpus_compile(config, changes):
    config = config(**changes)
    encoder = bpe.load(config.encoder_path)
    texts = [prompts.make("def", {"length": 20, "top_p": 0.9, "stop": ("\n",)}),  # beyond n_ctx
             prompts.make("class Encoder:", {"top_k": 7, "length": 5, "repetition_penalty": 1.2, "num_samples": 4})]
    rows = [row for prompt in texts for row in generation.rows_of(prompt, encoder, config.n_ctx)]
    limits, stops = generation.limits_of(config, encoder, texts)
    input_fn = generation._input_fn(rows, dict(zip((p.stop for p in texts), stops)), encoder.eot, whole_batches=True)
    assert limits.draws and limits.penalties and limits.stops is not None and limits.largest == 40
    nodes, functions = program(config, "infer", input_fn, limits)
    assert any(node.op in ("While", "StatelessWhile") for node in nodes) and not problems(nodes, functions)


def predicting(config, **tpu):
    """Generates one sample by the real code up to the opening of a session; the batch sizes it has asked for."""
    encoder, sizes = bpe.load(config.encoder_path), []
    prompt = prompts.make("def", {"length": 3})
    limits, _ = generation.limits_of(config, encoder, [prompt])
    rows = generation.rows_of(prompt, encoder, config.n_ctx)
    input_fn = generation._input_fn(rows, {(): 1}, encoder.eot, whole_batches=True)

    def build(config, name, sampling_limits):
        sizes.append(config.predict_batch_size)
        return estimator_for(config, sampling_limits, **tpu)

    def stop(*args, **kwargs):
        raise Captured
    with mock.patch.object(estimators, "build_estimator", build), pytest.raises((Captured, UserError)) as caught, \
            mock.patch.object(monitored_session._MonitoredSession, "__init__", stop):
        next(generation.draw(config, ADDRESS, "/nowhere/model.ckpt-0", input_fn, limits))
    return sizes, caught.value


def test_any_batch_of_samples_is_rounded_up_to_the_cores_of_the_tpu(run_config):
    sizes, end = predicting(schema.load(run_config(predict_batch_size=9)))
    assert sizes == [9, 16] and isinstance(end, Captured)


def test_generating_on_several_hosts_is_refused_in_one_line(run_config):
    sizes, end = predicting(schema.load(run_config(predict_batch_size=16)), cores=16, hosts=2)
    assert sizes == [16] and str(end).startswith(f"--tpu {ADDRESS} has several hosts")


def test_dynamic_shapes_and_unknown_operations_are_found(config):
    with tf.Graph().as_default() as graph:
        tf.placeholder(tf.float32, [None, 3], name="x")
        tf.strings.as_string(tf.constant(1), name="y")
        nodes = graph.as_graph_def(add_shapes=True).node
    found = problems(nodes, set())
    assert any("dynamic shape" in line and "x" in line for line in found)
    assert any("no kernel: AsString y" in line for line in found)


def test_weights_to_start_from_are_loaded_into_the_variables_of_the_program(config, tmp_path):
    source = weight_files.write_openai(tmp_path / "src")
    config = config(n_ctx=13, n_embd=12, n_layer=2, n_head=3, init_checkpoint=source)
    input_fn = inputs.make_train_input_fn(config, corpus.find(config, corpus.TRAIN), 299, start_step=0, stop_step=9)
    real = tf.train.Scaffold.__init__
    with mock.patch.object(tf.train.Scaffold, "__init__", autospec=True, side_effect=real) as made:
        assert not problems(*program(config, "train", input_fn))
    start = next(call[1]["init_fn"] for call in made.call_args_list if call[1].get("init_fn"))
    with mock.patch.object(estimators.sources, "load") as load:
        start(None, "session")
    found, variables, session = load.call_args[0]
    assert found.path == source + "/model.ckpt" and session == "session"
    assert {name: tuple(variable.shape) for name, variable in variables.items()} == found.shapes


@pytest.mark.parametrize("tpu", [None, ADDRESS])
def test_the_estimator_uses_a_tpu_exactly_when_one_is_named(config, tpu):
    with mock.patch.object(estimators, "resolve_tpu", lambda name: None):
        built = estimators.build_estimator(config(), tpu)
    assert isinstance(built, tf.estimator.tpu.TPUEstimator)
    assert built._ctx._use_tpu == bool(tpu)


TOKENS = np.random.RandomState(3).randint(0, 29, [6, 14])


def first_step(use_tpu=True, **changes):
    """(loss, {name: Adam's first moment}) after one step of the program for a TPU, compiled for this processor."""
    config = graphs.small_config(beta1=0.5, **changes)
    features, labels = TOKENS[:, :-1].astype(np.int32), TOKENS[:, 1:].astype(np.int32)

    def step(features, labels):
        spec = gpt2.make_model_fn(config)(features, labels, "train", {"use_tpu": use_tpu})
        with tf.control_dependencies([spec.train_op]):
            return tf.identity(spec.loss)
    with graphs.session() as s, tpu_function.tpu_shard_context(1), \
            mock.patch.object(tf.tpu, "cross_replica_sum", lambda x: x), \
            mock.patch.object(gpt2.xla, "replica_id", lambda: 0):  # one core, which XLA's processor backend cannot name
        inputs = [tf.constant(features), tf.constant(labels)]
        tf.train.create_global_step()
        loss = tf.xla.experimental.compile(step, inputs=inputs)[0] if use_tpu else step(*inputs)
        s.run(tf.global_variables_initializer())
        return s.run(loss), s.run({v.op.name: v for v in tf.global_variables() if v.op.name.endswith("/adam_m")})


def assert_same_step(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    norm = np.sqrt(sum(np.sum(moment ** 2) for moment in one[1].values()))
    for name, moment in one[1].items():
        assert np.linalg.norm(other[1][name] - moment) < 1e-5 * norm, name


def test_compiled_step_is_the_plain_one():
    assert_same_step(first_step(), first_step(use_tpu=False))


@pytest.mark.slow
def test_compiled_step_of_micro_batches_is_that_of_the_whole_batch():
    changes = {"res_dropout": 0.2, "attn_dropout": 0.1, "embed_dropout": 0.1}
    whole = first_step(**changes)
    assert_same_step(whole, first_step(micro_batch_size=2, recompute=True, **changes))
