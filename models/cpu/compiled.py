"""Functions of tensors that XLA compiles into one pass over memory each.

TensorFlow's own CPU kernels take a pass for every operation and do not use the widest vectors: a GELU costs four times
as much.  Matrix products stay outside: oneDNN's are faster than XLA's.
"""
import functools
from typing import Callable, NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

LEAST = 2**16  # elements: to start a compiled function costs as much as several operations on so many
KEPT = 2**19  # elements: what has more is not kept for the backward pass, which computes it again
FORMULAS_ONLY = False  # True: nothing of models/cpu/ is used, but for decoding
OF_GRAPH = "_compiled_functions"  # an attribute of each graph: {(function, its keywords): that function, compiled}


def worth_compiling(x):
    """Whether functions of the tensor x are worth a compilation of their own in the default graph.

    Not on GPUs, not in what XLA compiles as a whole (a TPU's program), not where x is small or of unknown shape (in a
    saved model).
    """
    return x.shape.is_fully_defined() and x.shape.num_elements() >= LEAST and on_cpu()


def on_cpu():
    """Whether the default graph runs on CPUs, operation by operation, and may use what is made for them."""
    # There is no public way to ask whether a graph is for XLA (TensorFlow 2.15.1).
    return not (FORMULAS_ONLY or tf.config.list_physical_devices("GPU")
                or control_flow_util.GraphOrParentsInXlaContext(tf.get_default_graph()))


def compiled(gradient):
    """Makes a function of tensors one compiled pass, whose gradient is `gradient(*tensors, *upstream, **keywords)`.

    That returns a tensor or None for each of the tensors.  `f.recomputed(*tensors)` gives f as a Recomputed.
    """
    def decorate(function):
        @functools.wraps(function)
        def call(*tensors, **keywords):
            @tf.custom_gradient
            def run(*tensors):
                def backward(*upstream):
                    return gradient(*tensors, *upstream, **keywords)
                return run_compiled(function, *tensors, **keywords), backward
            return run(*tensors)

        def recomputed(*tensors):
            return Recomputed(functools.partial(run_compiled, function), gradient, tensors)
        call.recomputed = recomputed
        return call
    return decorate


class Recomputed(NamedTuple):
    """The value compute(*tensors), which mlp.product computes again in the backward pass unless it is small (`again`).

    gradient(*tensors, upstream) as in `compiled`.
    """
    compute: Callable
    gradient: Callable
    tensors: tuple


def again(value, compute):
    """Returns compute() for a backward pass, so that TensorFlow need not keep `value`, the forward pass' result.

    Returns `value` itself where it is small: then computing it again takes longer than reading it.
    """
    return value if value.shape.num_elements() <= KEPT else compute()


def run_compiled(function, *tensors, **keywords):
    """function(*tensors, **keywords) in one compiled pass, without a gradient; `keywords` are no tensors."""
    return _compiled_once(function, **keywords)(*tensors)


def update_compiled(function, variables, *tensors, **keywords):
    """The operation that sets each of the resource `variables`, all float32, to its new value, in its own memory.

    The new values are function(*values, *tensors, **keywords).
    """
    handles = [variable.handle for variable in variables]
    # An optimizer runs this colocated with each variable, and would compile it for each instead of for each shape.
    with ops.colocate_with(None, ignore_existing=True), tf.device(variables[0].device):
        return _compiled_once(_assign, values=function, count=len(handles), **keywords)(*handles, *tensors).op


def _assign(*tensors, values, count, **keywords):
    handles, tensors = tensors[:count], tensors[count:]
    # Handles instead of values: XLA then writes into the variables' own memory.
    old = [tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32) for handle in handles]
    for handle, value in zip(handles, values(*old, *tensors, **keywords)):
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    return tf.constant(True)  # a function without a result cannot be waited for


def _compiled_once(function, **keywords):
    """`function` with these keywords, compiled once for each graph."""
    # Kept by the graph itself, because compiled functions refer to it: a table elsewhere would keep every graph alive.
    graph = tf.get_default_graph()
    if not hasattr(graph, OF_GRAPH):
        setattr(graph, OF_GRAPH, {})
    known = getattr(graph, OF_GRAPH)
    key = function, tuple(sorted(keywords.items()))
    if key not in known:
        bound = functools.partial(function, **keywords)
        bound.__name__ = keywords.get("values", function).__name__  # what traces show: of an update, what computes it
        known[key] = tf.function(bound, jit_compile=True, autograph=False)
    return known[key]
