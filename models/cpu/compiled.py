"""Functions of tensors that XLA compiles into one pass over memory each, on CPUs.

TensorFlow's own CPU kernels take a pass for every operation and do not use the widest vectors: a GELU costs four
times as much.  Matrix products stay outside: oneDNN's are the faster ones.
"""
import contextlib
import functools
import os
from typing import Callable, NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

LEAST = 2**16  # elements: to start a compiled function costs as much as several operations of so many
COMPILED = "_compiled_functions"  # an attribute of each graph: {(function, its keywords): that function, compiled}


def fused(gradient):
    """Makes a function of tensors one pass on CPUs, whose gradient is `gradient(*tensors, *upstream, **keywords)`.

    That gives a tensor or None for each input.  On GPUs, in what XLA compiles as a whole (a TPU's program), for small
    tensors and where shapes are not known (a saved model), the function runs as it is written, with TensorFlow's own
    gradient.
    """
    def decorate(function):
        @functools.wraps(function)
        def call(*tensors, **keywords):
            if not pays(*tensors):
                return function(*tensors, **keywords)

            @tf.custom_gradient
            def run(*tensors):
                def backward(*upstream):
                    return gradient(*tensors, *upstream, **keywords)
                return one_pass(function, *tensors, **keywords), backward
            return run(*tensors)

        def late(*tensors):
            compute = functools.partial(one_pass, function)
            return Late(compute, gradient, tensors) if pays(*tensors) else function(*tensors)
        call.late = late
        return call
    return decorate


class Late(NamedTuple):
    """compute(*tensors), whose gradient is as in `fused`, for layers.product: that computes it once more in the
    backward pass instead of keeping it until then.  The value taken by itself has no gradient.

    `function.late(*tensors)` of a `fused` function is one on CPUs.
    """
    compute: Callable
    gradient: Callable
    tensors: tuple


def pays(*tensors):
    """Whether a function of these tensors is worth a compilation of its own in the default graph."""
    return (all(tensor.shape.is_fully_defined() for tensor in tensors)
            and tensors[0].shape.num_elements() >= LEAST and not tf.config.list_physical_devices("GPU")
            and not control_flow_util.GraphOrParentsInXlaContext(tf.get_default_graph()))


def one_pass(function, *tensors, **keywords):
    """function(*tensors, **keywords) in one pass, without a gradient; `keywords` are no tensors."""
    return _compiled(function, **keywords)(*tensors)


def update(function, variables, *tensors, **keywords):
    """An operation that gives each of the resource `variables`, all float32, its new value, in place: they are
    function(*values, *tensors, **keywords).
    """
    handles = [variable.handle for variable in variables]
    # What an optimizer runs colocated with each variable would be compiled for each, not for each shape.
    with ops.colocate_with(None, ignore_existing=True), tf.device(variables[0].device):
        return _compiled(_assign, values=function, count=len(handles), **keywords)(*handles, *tensors).op


def _assign(*tensors, values, count, **keywords):
    handles, tensors = tensors[:count], tensors[count:]
    # Handles instead of values: XLA then writes into the variables' own memory.
    old = [tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32) for handle in handles]
    for handle, value in zip(handles, values(*old, *tensors, **keywords)):
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    return tf.constant(True)  # what returns nothing is not there to wait for


def _compiled(function, **keywords):
    """`function` with these keywords, compiled, one for each graph."""
    # In the graph itself, because what is compiled refers to it: a table elsewhere would keep each graph for ever.
    graph = tf.get_default_graph()
    if not hasattr(graph, COMPILED):
        setattr(graph, COMPILED, {})
    of_graph = getattr(graph, COMPILED)
    key = function, tuple(sorted(keywords.items()))
    if key not in of_graph:
        _say_nothing()
        of_graph[key] = tf.function(functools.partial(function, **keywords), jit_compile=True, autograph=False)
    return of_graph[key]


@functools.lru_cache(maxsize=None)
def _say_nothing():
    """Lets XLA's first compilation in a process, which reports itself on stderr, be one that nobody hears."""
    with _silent(), tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [])  # a constant would be folded instead of compiled
        session.run(tf.function(tf.negative, jit_compile=True, autograph=False)(x), {x: 1.0})


@contextlib.contextmanager
def _silent():
    try:
        kept = os.dup(2)
    except OSError:  # closed: silent already
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
