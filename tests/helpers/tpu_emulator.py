"""The program main.py with `--tpu local` on one core that this machine's processor plays: no TPU, no XLA.

    python -m tests.helpers.tpu_emulator --model CONFIG --tpu local ...

The estimator's own path for TPUs runs: batches on their way through the infeed, `iterations` steps a visit of the host,
values on their way back through the outfeed to host_call, evaluation and generation, its threads and hooks.  Played
are the two queues, the start of the TPU, and what tpu.replicate makes of the program: here a part of the graph as any
other.  The sum over one core is what is summed.
"""
import contextlib
import os
import sys
from unittest import mock

import tensorflow.compat.v1 as tf
from tensorflow.python.tpu import tpu, tpu_function
from tensorflow.python.tpu.ops import tpu_ops

import main
from configs import commands, tpu_names
from models import replicas
from models.run import workarounds
from tests.helpers import tpu_graphs

INFEED, OUTFEED = "infeed", "outfeed"
WAITING = 100  # batches, or steps' values


def queue(name, dtypes, shapes):
    """The queue of this name; that of the host and that of the program are one, by the name."""
    return tf.FIFOQueue(WAITING, dtypes, shapes, shared_name=name)


def enqueue(name, tensors):
    return queue(name, [tensor.dtype for tensor in tensors], [tensor.shape for tensor in tensors]).enqueue(tensors)


def dequeue(name, dtypes, shapes):
    values = queue(name, dtypes, shapes).dequeue()
    return values if isinstance(values, list) else [values]


def replicate(computation, inputs, num_shards, **_):
    """The results of a program on one core as (what compiling it said, [result])."""
    assert num_shards == 1
    with tpu_function.tpu_shard_context(1):
        result = computation(*[each[0] for each in inputs])
    results = result if isinstance(result, (list, tuple)) else [result]
    done = tf.group(*results)
    if not isinstance(results[0], tf.Tensor):
        return tf.constant(b""), [done]
    with tf.control_dependencies([done]):
        return tf.constant(b""), [tf.identity(results[0])]


@contextlib.contextmanager
def emulated():
    """In here TPUs have one core, which is this machine's processor."""
    session_config = workarounds.session_config
    played = [(tpu_ops, "infeed_enqueue_tuple", lambda inputs, **_: enqueue(INFEED, inputs)),
              (tpu_ops, "infeed_dequeue_tuple", lambda dtypes, shapes, **_: dequeue(INFEED, dtypes, shapes)),
              (tpu_ops, "outfeed_enqueue_tuple", lambda inputs, **_: enqueue(OUTFEED, inputs)),
              (tpu_ops, "outfeed_dequeue_tuple", lambda dtypes, shapes, **_: dequeue(OUTFEED, dtypes, shapes)),
              (tpu_ops, "tpu_ordinal_selector", lambda: -1),
              (tpu, "split_compile_and_shard", replicate), (tpu, "core", lambda _: "/device:CPU:0"),
              (tf.tpu, "core", lambda _: "/device:CPU:0"), (tf.tpu, "cross_replica_sum", lambda tensor: tensor),
              (tf.tpu, "initialize_system", lambda **_: tf.constant(b"")),
              (tf.tpu, "shutdown_system", lambda **_: tf.no_op()), (replicas.xla, "replica_id", lambda: 0),
              (tf.debugging, "check_numerics", lambda tensor, _: tensor),  # nor does XLA look
              # Grappler runs for TPUs and not for processors.  It would change the rounding of this run alone.
              (workarounds, "session_config", lambda **_: session_config()),
              (tpu_names, "_count_cores", lambda *_: 1)]
    with contextlib.ExitStack() as stack, tpu_graphs.a_tpu_of(cores=1, hosts=1):
        for module, name, replacement in played:
            stack.enter_context(mock.patch.object(module, name, replacement))
        # Else a hook asks the workers of the TPU for their health.
        stack.enter_context(mock.patch.dict(os.environ, {"TF_TPU_GRACEFUL_SHUTDOWN_MODE": ""}))
        yield


if __name__ == "__main__":
    sys.argv[0] = main.__file__
    with emulated():
        commands.run(main.main)
