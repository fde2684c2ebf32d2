"""Evaluation on a pod of 4 hosts with 8 cores each, whose graph is built without one, and batches that do not fit."""
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata
from tensorflow.python.training import monitored_session

import corpus
import estimator as estimators
import inputs
import tpu_names
import training
from configs import schema
from encoder import bpe
from errors import UserError

HOSTS, CORES = 4, 32
POD = tpu_names.Tpu("pod", None, None, tuple(f"10.0.0.{host}:8470" for host in range(HOSTS)), None)


class Captured(Exception):
    """A session was about to open: the graph is complete."""


def evaluation(config, tpu):
    """NodeDefs of the graph and its functions for an evaluation on the pod, which is named to us as `tpu`."""
    worker = "/job:worker/replica:0/task:{}/device:{}:{}"
    devices = [_DeviceAttributes(worker.format(host, kind, i), kind, 0, 0) for host in range(HOSTS)
               for kind, count in (("CPU", 1), ("TPU_SYSTEM", 1), ("TPU", CORES // HOSTS)) for i in range(count)]
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(",".join("grpc://" + each for each in POD.workers))
    with mock.patch.object(estimators, "resolve_tpu", lambda tpu: resolver):
        built = estimators.build_estimator(config, tpu)
    metadata = TPUSystemMetadata(num_cores=CORES, num_hosts=HOSTS, num_of_cores_per_host=CORES // HOSTS,
                                 topology=None, devices=tuple(devices))
    built._ctx._lazy_tpu_system_metadata_dict = {resolver.master(): metadata}
    graphs = []

    def stop(*args, **kwargs):
        graphs.append(tf.get_default_graph().as_graph_def(add_shapes=True))
        raise Captured
    input_fn = inputs.make_eval_input_fn(config, corpus.find(config, corpus.EVAL), 299)
    with mock.patch.object(monitored_session._MonitoredSession, "__init__", stop), pytest.raises(Captured):
        built.evaluate(input_fn, steps=2, checkpoint_path="/nowhere/model.ckpt-0")
    return [*graphs[0].node, *(node for function in graphs[0].library.function for node in function.node_def)]


def test_every_core_of_a_pod_evaluates_its_rows_of_one_batch(run_config):
    nodes = evaluation(schema.load(run_config(eval_batch_size=64)), POD)
    assert sum(node.op == "IteratorGetNext" for node in nodes) == 1  # no host reads on its own
    enqueued = [node for node in nodes if node.op == "InfeedEnqueueTuple"]
    assert len(enqueued) == CORES
    for host in range(HOSTS):
        here = [node.attr["device_ordinal"].i for node in enqueued if f"/task:{host}/" in node.device]
        assert sorted(here) == list(range(CORES // HOSTS))
    tokens, labels = zip(*(node.input for node in enqueued))
    assert {len(set(tokens)), len(set(labels)), len({*tokens, *labels})} == {CORES, 2 * CORES}
    split = {node.name: node.attr["num_split"].i for node in nodes if node.op == "Split"}
    assert all(split[name.partition(":")[0]] == CORES for name in (*tokens, *labels))
    shapes = [shape for node in enqueued for shape in node.attr["shapes"].list.shape]
    assert {tuple(size.size for size in shape.dim) for shape in shapes} == {(2, 16)}
    # What the cores found is put together again: every token counts in the mean.
    returned = [node for node in nodes if node.op == "ConcatV2" and node.attr["N"].i == CORES]
    shapes = [tuple(size.size for size in node.attr["_output_shapes"].list.shape[0].dim) for node in returned]
    assert shapes.count((64, 16)) == 2  # losses and counts


def test_without_its_list_of_workers_tensorflow_refuses_a_pod(run_config):
    """What makes the difference in the test above."""
    with pytest.raises(ValueError, match="TPUEstimator.evaluate is only supported under three conditions"):
        evaluation(schema.load(run_config(eval_batch_size=64)), POD._replace(workers=POD.workers[:1]))


@pytest.mark.parametrize("changes, words", [
    ({}, '"train_batch_size" is 4, which the 8 cores of the TPU cannot share; set it to a multiple such as 8'),
    ({"train_batch_size": 16, "eval_batch_size": 12}, '"eval_batch_size" is 12, .* such as 16')])
def test_a_batch_that_the_cores_cannot_share_is_said_before_anything_is_written(run_config, tmp_path, changes, words):
    config = schema.load(run_config(**changes))
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver("grpc://10.0.0.1:8470")
    resolver.cores = 8
    with mock.patch.object(estimators, "resolve_tpu", lambda tpu: resolver), pytest.raises(UserError, match=words):
        training.train(config, bpe.load(config.encoder_path), POD)
    assert not list((tmp_path / "run").iterdir())
