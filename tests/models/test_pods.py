"""Pods of 4 hosts with 8 cores each, their graphs built without one: who reads what, and batches that do not fit."""
import re
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import inputs
import main
from configs import schema
from configs.errors import UserError
from datasets import shard_sets
from datasets.window_order import EvalWindows, WindowOrder
from encoder import bpe
from models.run import workarounds
from tests.helpers import graphs, tpu_graphs

HOSTS, CORES = 4, 32
POD = tpu_graphs.tpu_with(HOSTS)


def evaluation(config, tpu):
    """NodeDefs of the graph and its functions for an evaluation on the pod, which is named to us as `tpu`."""
    input_fn = inputs.eval_input_fn(EvalWindows.of(config, shard_sets.find(config, shard_sets.EVAL)), 299)
    graph = tpu_graphs.graph_of(config, "eval", input_fn, cores=CORES, hosts=HOSTS, tpu=tpu)
    return graphs.all_nodes(graph)


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
    split = {node.name for node in nodes if node.op == "Split" and node.attr["num_split"].i == CORES}
    assert {name.partition(":")[0] for name in (*tokens, *labels)} <= split
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
    with mock.patch.object(workarounds, "resolver", lambda tpu: resolver), pytest.raises(UserError, match=words):
        main.train(config, bpe.load(config.encoder_path), POD)
    assert not list((tmp_path / "run").iterdir())


def read(input_fn, params, steps):
    """NumPy [steps, tokens and labels, rows, n_ctx] of what an input_fn reads when it is called so."""
    with tf.Graph().as_default(), tf.Session() as s:
        batch = tf.data.make_one_shot_iterator(input_fn(params)).get_next()
        return np.array([s.run(batch) for _ in range(steps)])


@pytest.mark.parametrize("step", [5, pytest.param(0, marks=pytest.mark.slow)])
def test_hosts_of_a_pod_read_the_rows_of_one_global_batch(step, run_config):
    config = schema.load(run_config(train_batch_size=64, res_dropout=0.1))
    order = WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN))
    real = inputs.train_input_fn(order, 299, start_step=step, stop_step=step + 3)
    called = []

    def input_fn(params):
        called.append(dict(params))
        return real(params)
    graph = tpu_graphs.graph_of(config, "train", input_fn, cores=CORES, hosts=HOSTS)
    assert [params["context"].current_host for params in called] == list(range(HOSTS))
    hosts = [read(real, params, 3) for params in called]
    assert [host.shape for host in hosts] == [(3, 2, 64 // HOSTS, 16)] * HOSTS
    np.testing.assert_array_equal(np.concatenate(hosts, 2), read(real, {"batch_size": 64}, 3))
    assert len({row.tobytes() for row in np.concatenate(hosts, 2)[0, 0]}) == 64  # no two read the same
    # Each host feeds its own cores, in the order in which the model counts them.
    enqueued = [(node.device, node.attr["device_ordinal"].i) for node in graphs.all_nodes(graph)
                if node.op == "InfeedEnqueueTuple"]
    assert sorted(enqueued) == [(f"/job:worker/task:{host}/device:CPU:0", core) for host in range(HOSTS)
                                for core in range(CORES // HOSTS)]


def test_training_without_evaluations_says_so(run_config, capsys):
    assert main.main(["--model", run_config(max_steps=2, eval_steps=0)]) == 0
    assert re.findall('no evaluations: .*', capsys.readouterr().out) == ['no evaluations: "eval_steps" is 0']
