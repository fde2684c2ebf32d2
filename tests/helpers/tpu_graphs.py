"""TPUs that are not there: what an estimator is told of their cores, the program that it would send, its faults."""
import collections
import contextlib
import functools
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.framework import kernels
from tensorflow.python.tpu import tpu_system_metadata
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata
from tensorflow.python.training import monitored_session

import main
from configs import tpu_names
from models import decoding
from models.run import workarounds

# Of the TPU's runtime: no kernel in the compiler, none needed.
RUNTIME = {"InfeedDequeueTuple", "OutfeedEnqueueTuple", "CrossReplicaSum", "TPUReplicateMetadata", "TPUReplicatedInput",
           "TPUReplicatedOutput", "TPUCompilationResult", "Placeholder", "NoOp", "VarHandleOp", "ReadVariableOp"}
BUILD = main.build_estimator


class Captured(Exception):
    """A session was about to open: the graph is complete."""


@contextlib.contextmanager
def a_tpu_of(cores, hosts):
    """In here estimators find so many cores, the same number on each host, wherever they ask."""
    worker = "/job:worker/replica:0/task:{}/device:{}:{}"
    devices = [_DeviceAttributes(worker.format(host, kind, i), kind, 0, 0) for host in range(hosts)
               for kind, count in (("CPU", 1), ("TPU_SYSTEM", 1), ("TPU", cores // hosts)) for i in range(count)]
    found = TPUSystemMetadata(num_cores=cores, num_hosts=hosts, num_of_cores_per_host=cores // hosts, topology=None,
                              devices=tuple(devices))
    with mock.patch.object(tpu_system_metadata, "_query_tpu_system_metadata", lambda *_, **__: found):
        yield


def tpu_with(hosts):
    """The Tpu of so many hosts, at addresses that are never called."""
    return tpu_names.Tpu("fake", None, None, tuple(f"10.0.0.{host}:8470" for host in range(hosts)), None)


def estimator_for(config, tpu, limits=None):
    """The estimator of the config for a Tpu by its addresses, none of which is called."""
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(",".join("grpc://" + each for each in tpu.workers))
    with mock.patch.object(workarounds, "resolver", lambda tpu: resolver):
        return BUILD(config, tpu, sampler=limits and decoding.sampler(config, limits))


@contextlib.contextmanager
def stopping_at_sessions():
    """In here who opens a session raises Captured with the graph, as GraphDef with shapes."""
    def stop(*args, **kwargs):
        raise Captured(tf.get_default_graph().as_graph_def(add_shapes=True))
    with mock.patch.object(monitored_session._MonitoredSession, "__init__", stop):
        yield


def graph_of(config, mode, input_fn, *, cores=8, hosts=1, limits=None, tpu=None):
    """The whole GraphDef of a mode ("train", "eval", "infer"), of the hosts too, for a TPU of this size."""
    built = estimator_for(config, tpu or tpu_with(hosts), limits)
    with a_tpu_of(cores, hosts), stopping_at_sessions(), pytest.raises(Captured) as captured:
        if mode == "train":
            built.train(input_fn, max_steps=100)
        elif mode == "eval":
            built.evaluate(input_fn, steps=2, checkpoint_path="/nowhere/model.ckpt-0")
        else:
            next(built.predict(input_fn, checkpoint_path="/nowhere/model.ckpt-0"))
    return captured.value.args[0]


def program(graph):
    """NodeDefs of a GraphDef that are tagged for the TPU, and of the bodies of the functions that they call."""
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


@functools.lru_cache(maxsize=None)
def compiled_operations():
    """Operations for which the XLA compiler has a kernel; they are registered when it is first used."""
    with tf.Graph().as_default(), tf.Session() as s:
        s.run(tf.xla.experimental.compile(lambda: tf.constant(1) + 1))
    return {kernel.op for kernel in kernels.get_all_registered_kernels().kernel
            if kernel.device_type.startswith("XLA_") and kernel.device_type.endswith("_JIT")}


def problems(graph):
    """What a TPU could not compile of a GraphDef's program: a line for each operation without kernel, dynamic shape,
    and double precision, which TPUs do not have.
    """
    nodes = program(graph)
    known = compiled_operations() | RUNTIME | {function.signature.name for function in graph.library.function}
    shapes = [(node, tf.TensorShape(shape)) for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    doubles = [node for node in nodes if tf.float64.as_datatype_enum in (value.type for value in node.attr.values())]
    return ([] if nodes else ["no program"]) \
        + [f"no kernel: {node.op} {node.name}" for node in nodes if node.op not in known] \
        + [f"dynamic shape {shape}: {node.op} {node.name}" for node, shape in shapes if not shape.is_fully_defined()] \
        + [f"float64: {node.op} {node.name}" for node in doubles]


def summed_shapes(graph):
    """Counter of the shapes of what the cores sum up."""
    nodes = [node for node in program(graph) if node.op == "CrossReplicaSum"]
    return collections.Counter(tuple(size.size for size in node.attr["_output_shapes"].list.shape[0].dim)
                               for node in nodes)


def groups_of_cores(graph):
    """Set of the groups of cores over which sums are taken, each a tuple of tuples of their numbers."""
    return {tuple(map(tuple, tf.make_ndarray(node.attr["value"].tensor).tolist())) for node in program(graph)
            if node.op == "Const" and "group_assignment" in node.name}
