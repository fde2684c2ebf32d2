"""From stored weights into the network of a config: "init_checkpoint", and what generates from a checkpoint."""
import contextlib
import dataclasses
import functools

import numpy as np
import tensorflow.compat.v1 as tf

from configs import arguments
from configs.errors import UserError
from encoder import bpe
from models import decoding, initial_values
from models.checkpoints import aligned, any_format, run_checkpoints, tf_checkpoint
from models.weights import SCOPE, groups, misfits

# Bytes of float32 weights that are read before they go into the variables.  Each set of operations that a session runs
# costs it a pass over the graph; a remote one takes messages of up to 2 GB.
AT_ONCE = 2**30


def check_all(config, encoder):
    """Raises UserError where the run cannot start from its "init_checkpoint", as `check` and `check_vocabulary` do."""
    stored = any_format.open_weights(config.init_checkpoint)
    check(stored, config)
    check_vocabulary(stored, config, encoder)


def check(stored, config):
    """Raises UserError where the StoredWeights cannot start the network of the config, by `load`."""
    what, sizes = f'"init_checkpoint" {stored.path}', stored.config_values
    if sizes.get("n_head", config.n_head) != config.n_head:
        raise UserError(f'{what} has {sizes["n_head"]} attention heads, and "n_head" is {config.n_head}; set "n_head"'
                        f' to {sizes["n_head"]}')
    if config.n_ctx > sizes["n_ctx"]:
        raise UserError(f'{what} knows {sizes["n_ctx"]} positions, and "n_ctx" is {config.n_ctx}; lower "n_ctx" to'
                        f' {sizes["n_ctx"]} or less')
    if config.n_vocab != sizes["n_vocab"] and not config.resize_vocab:
        padded = f', set "n_vocab" to {sizes["n_vocab"]} if the last of them are padding' \
            if sizes["n_vocab"] > config.n_vocab else ""
        raise UserError(f'{what} has {sizes["n_vocab"]} tokens, and "n_vocab" is {config.n_vocab}; use the vocabulary'
                        f' it was trained with{padded}, or set "resize_vocab" to true to keep the rows of the ids that'
                        " both have")
    # Nothing else may differ.
    problem = misfits(stored.shapes, dataclasses.replace(config, n_ctx=sizes["n_ctx"], n_vocab=sizes["n_vocab"]))
    if problem:
        raise UserError(f'{what} does not fit the config: {problem}; set "n_embd" and "n_layer" to its sizes,'
                        f' {sizes["n_embd"]} and {sizes["n_layer"]}')


def check_vocabulary(stored, config, encoder):
    """Raises UserError where the StoredWeights were trained with another vocabulary; notes where nothing tells theirs.

    Nothing is compared with "resize_vocab", which is there to use weights with another vocabulary.
    """
    if config.resize_vocab:
        return
    same, where = any_format.same_vocabulary(stored, config.encoder_path, encoder)
    if same is None:
        arguments.note(f'"init_checkpoint" {stored.path}: no vocabulary lies beside the weights; they are used with'
                       f" {bpe.name_of(config.encoder_path)}")
    elif not same:
        raise UserError(f'"init_checkpoint" {stored.path} was trained with another vocabulary (see {where}) than'
                        f" {bpe.name_of(config.encoder_path)}; bring weights, shards and \"encoder_path\" of one"
                        ' vocabulary together, or set "resize_vocab" to true to use these weights all the same')


class Reader:
    """The part of a tf.train.Saver that predictions need: reads the weights alone, in the dtypes of their variables."""

    def __init__(self, config):
        self._config, self._variables = config, _weights_in_graph()

    def build(self):
        """Does nothing: no operations are needed."""

    def restore(self, session, path):
        """Gives the variables the weights at `path`, or of init_checkpoint where it is None."""
        restore(path, self._config, self._variables, session)


def only_reading(config, model_fn):
    """Wraps `model_fn` for predictions: its variables get their weights from a checkpoint, or from init_checkpoint.

    Normally a Scaffold adds operations that save, restore and check each variable, and runs some of them.  Here that
    took longer than the reading.
    """
    def scaffold():
        reader, nothing = Reader(config), tf.constant([], tf.string)
        return tf.train.Scaffold(
            saver=reader, init_op=nothing, ready_op=nothing, ready_for_local_init_op=nothing,
            local_init_op=tf.local_variables_initializer() if tf.local_variables() else nothing,
            init_fn=lambda _, session: reader.restore(session, None))
    return _with_scaffold(scaffold, model_fn)


def starting_with(config, model_fn):
    """Wraps `model_fn`: its variables start with the weights of init_checkpoint, unless a checkpoint is restored."""
    stored = any_format.open_weights(config.init_checkpoint)

    def scaffold():
        variables = _weights_in_graph()
        others = [variable for variable in tf.global_variables() if not variable.trainable]
        # Not by WarmStartSettings: that knows only TensorFlow's checkpoints, and only when it trains.  The weights' own
        # starting values are not computed: they would leave holes in memory.
        return tf.train.Scaffold(init_op=tf.variables_initializer(others),
                                 init_fn=lambda _, session: load(stored, variables, session, config))
    return _with_scaffold(scaffold, model_fn)


def _weights_in_graph():
    """{name: variable} of the default graph."""
    return {variable.op.name[len(SCOPE) + 1:]: variable for variable in tf.trainable_variables()}


def _with_scaffold(scaffold, model_fn):
    def started(features, labels, mode, params):
        return model_fn(features, labels, mode, params)._replace(scaffold_fn=scaffold)
    return started


def resuming(model_dir, model_fn, *, computes_values=False):
    """`model_fn`, whose variables come from the newest checkpoint where model_dir has one, and from nothing else.

    Normally TensorFlow initialises the variables where it cannot read the file "checkpoint", and trains from there.
    Here that is a UserError.  Nor is a starting value computed, which takes up to half of the time of building a graph,
    and each train() and evaluate() builds one; but with `computes_values`, for TPUs.
    """
    def unvalued(create, **arguments):
        if tf.GraphKeys.LOCAL_VARIABLES not in (arguments["collections"] or []):  # those are an evaluation's sums
            arguments["initial_value"] = lambda: tf.placeholder(arguments["dtype"], arguments["shape"])
        return create(**arguments)

    def not_restored(*_):
        raise UserError(f'"model_dir" {model_dir}: its file "checkpoint" could be read when the run began, and not when'
                        " the weights were to be restored; nothing was trained since; run again")

    def scaffold():
        return tf.train.Scaffold(init_op=None if computes_values else tf.no_op(), init_fn=not_restored)

    def resumed(features, labels, mode, params):
        if not run_checkpoints.latest(model_dir):
            return model_fn(features, labels, mode, params)
        with contextlib.nullcontext() if computes_values else tf.variable_creator_scope(unvalued):
            return model_fn(features, labels, mode, params)._replace(scaffold_fn=scaffold)
    return resumed


def restore(path, config, variables, session):
    """Gives {name: variable} the weights of the checkpoint `path`, or of init_checkpoint where it is None."""
    with tf_checkpoint.naming_damage(path or config.init_checkpoint):
        load(any_format.open_weights(path or config.init_checkpoint), variables, session, config)


def load(stored, variables, session, config):
    """Gives {name: variable} the StoredWeights, which passed `check`, some at a time (AT_ONCE), in the dtypes of these.

    A variable with fewer rows takes the first (positions, ids); one with more starts there as a new network does.
    """
    @functools.lru_cache(maxsize=1)  # of wte two variables are made, one after the other
    def value_of(name):
        if name == decoding.CENTRED:
            return value_of("wte") - value_of("wte").mean(0)
        value, rows = stored.read(name), variables[name].shape[0]
        if value.shape[0] < rows:
            value = np.concatenate([value, initial_values.starting_value(config, name)[value.shape[0]:]])
        return value[:rows]
    for names in groups({name: variable.shape.as_list() for name, variable in variables.items()}, AT_ONCE):
        feeds = {}
        for name in names:
            copies = getattr(variables[name], "values", [variables[name]])  # one on each device of a strategy
            own = len(copies) == 1
            feeds.update({copy.initializer: _for_tensor(value_of(name), copy.dtype, own=own) for copy in copies})
        # Not Variable.load for each, which would be another set of operations for each.
        session.run(list(feeds), {initializer.inputs[1]: value for initializer, value in feeds.items()})


def _for_tensor(value, dtype, *, own):
    """The array in `dtype`, in memory that a variable on a CPU takes for its own; a copy if it is not its `own`."""
    dtype = np.dtype(dtype.as_numpy_dtype)
    if own and value.dtype == dtype and aligned.is_kept(value):
        return value
    copy = aligned.empty(value.size * dtype.itemsize).view(dtype).reshape(value.shape)
    copy[...] = value
    return copy
