"""Small configs, and graphs of the real network with given weights, for the tests."""
import contextlib
import os

import tensorflow.compat.v1 as tf

from configs import schema
from models import gpt2, initial_values
from models.weights import weight_list
from tests.helpers import reference

# All sizes differ, so that swapped axes cannot cancel: B 5, T 7 of 13, C 12, H 3, D 4, V 29, L 2.
SMALL = {"n_ctx": 13, "n_vocab": 29, "n_embd": 12, "n_layer": 2, "n_head": 3, "train_batch_size": 6, "lr": 1e-2,
         "max_steps": 50, "model_dir": "unused"}


def small_config(**changes):
    return schema.from_dict({**SMALL, **changes}, "test")


def random_weights(config, seed=0):
    return reference.random_weights({weight.name: weight.shape for weight in weight_list(config)}, seed)


def weights_initialised_by(init_op):
    """Names of the weights' initializers, not of the optimizer's, that run before an operation of initializers."""
    names, left = set(), [init_op]
    while left:
        op = left.pop()
        names.add(op.name)
        left += op.control_inputs
    assert "global_step/Assign" in names
    return {name for name in names if name.startswith("model/") and name.endswith("Assign") and "adam" not in name}


@contextlib.contextmanager
def session():
    """A fresh graph and a session in it, on one thread so that sums are repeatable."""
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1,
                                                                  inter_op_parallelism_threads=1)) as made:
        yield made


def all_nodes(definition):
    """The NodeDefs of a GraphDef, with those of its functions."""
    return [*definition.node, *(node for function in definition.library.function for node in function.node_def)]


def run_network(weights, tokens, function):
    """The value of function(weights, tokens), both as tensors of these NumPy values."""
    with session() as s:
        tensors = {name: tf.constant(value) for name, value in weights.items()}
        return s.run(function(tensors, tf.constant(tokens, tf.int32)))


def logits(config, weights, tokens):
    """NumPy [B, T, V] float32 of the whole sequence at once."""
    def function(tensors, tokens):
        return gpt2.logits(gpt2.transformer(tensors, tokens, config), tensors["wte"])
    return run_network(weights, tokens, function)


def save_checkpoint(config, *, scale=0.2, step=1):
    """Random weights and a step as the newest checkpoint of the config's model_dir."""
    weights = reference.random_weights({weight.name: weight.shape for weight in weight_list(config)}, scale=scale)
    with session() as s:
        variables = initial_values.create_variables(config)
        s.run([variables[name].initializer for name in variables], {
            variables[name].initializer.inputs[1]: value for name, value in weights.items()})
        saver = tf.train.Saver([*variables.values(), tf.train.create_global_step()])
        s.run(tf.train.get_global_step().initializer)
        os.makedirs(config.model_dir)
        saver.save(s, os.path.join(config.model_dir, "model.ckpt"), global_step=step, write_meta_graph=False)
