"""Small configs, and graphs of the real network with given weights, for the tests."""
import contextlib

import tensorflow.compat.v1 as tf

from configs import schema
from models import gpt2
from models.weights import weight_list
from tests import reference

# All sizes differ, so that swapped axes cannot cancel: B 5, T 7 of 13, C 12, H 3, D 4, V 29, L 2.
SMALL = {"n_ctx": 13, "n_vocab": 29, "n_embd": 12, "n_layer": 2, "n_head": 3, "train_batch_size": 6, "lr": 1e-2,
         "max_steps": 50, "model_dir": "unused"}


def small_config(**changes):
    return schema.from_dict({**SMALL, **changes}, "test")


def random_weights(config, seed=0):
    return reference.random_weights({weight.name: weight.shape for weight in weight_list(config)}, seed)


@contextlib.contextmanager
def session():
    """A fresh graph and a session in it, on one thread so that sums are repeatable."""
    with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1,
                                                                  inter_op_parallelism_threads=1)) as made:
        yield made


def run_network(config, weights, tokens, function):
    """The value of function(weights as the network computes with, tokens tensor), with these NumPy weights."""
    with session() as s:
        tensors = gpt2.cast_weights({name: tf.constant(value) for name, value in weights.items()}, config)
        return s.run(function(tensors, tf.constant(tokens, tf.int32)))


def logits(config, weights, tokens):
    """NumPy [B, T, V] float32 of the whole sequence at once."""
    def function(tensors, tokens):
        flat = gpt2.logits_of(gpt2.transformer(tensors, tokens, config), tensors)
        return tf.reshape(flat, tokens.shape.as_list() + [config.n_vocab])
    return run_network(config, weights, tokens, function)
