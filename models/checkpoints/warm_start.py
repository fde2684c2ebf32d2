"""From a path to weights, whatever their format, and from there into the network of a config."""
import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf

from configs import storage
from configs.errors import UserError
from models.checkpoints import hugging_face, tf_checkpoint
from models.weights import SCOPE, misfits

AT_ONCE = 2**26  # bytes of weights after which what was read goes into the variables
PICKLES = (".bin", ".pt", ".pth", ".pkl")
FORMATS = (f'a folder with {hugging_face.SINGLE} or {hugging_face.INDEX}, or with a TensorFlow checkpoint (OpenAI\'s,'
           " the original's, ours), or the checkpoint itself without its suffix")


def open_source(path):
    """The weights.Source at `path`.  Raises UserError where there is none that can be used."""
    found = hugging_face.find(path)
    if found:
        return hugging_face.open_source(found)
    found = tf_checkpoint.find(path)
    if found:
        return tf_checkpoint.open_source(found)
    pickle = path if path.endswith(PICKLES) and storage.exists(path) else storage.join(path, "pytorch_model.bin")
    if storage.exists(pickle) or storage.exists(pickle + ".index.json"):
        raise UserError(f"{pickle} is a Python pickle, which can run any code when it is read; fetch model.safetensors"
                        " from the same place, or convert it where you trust it: transformers'"
                        " from_pretrained(FOLDER).save_pretrained(NEW)")
    there = "no weights there" if storage.exists(path) or storage.is_folder(path) else "no such file or folder"
    raise UserError(f"{path}: {there}; give {FORMATS}")


def check(source, config):
    """Raises UserError where the weights cannot start the network of the config, by `load`."""
    n_head = source.hints.get("n_head", config.n_head)
    if n_head != config.n_head:
        raise UserError(f'"init_checkpoint" {source.path} has {n_head} attention heads, and "n_head" is'
                        f' {config.n_head}; set "n_head" to {n_head}')
    if config.n_ctx > source.hints["n_ctx"]:
        raise UserError(f'"init_checkpoint" {source.path} knows {source.hints["n_ctx"]} positions, and "n_ctx" is'
                        f' {config.n_ctx}; lower "n_ctx" to {source.hints["n_ctx"]} or less')
    if config.n_vocab != source.hints["n_vocab"] and not config.resize_vocab:
        raise UserError(f'"init_checkpoint" {source.path} has {source.hints["n_vocab"]} tokens, and "n_vocab" is'
                        f' {config.n_vocab}; use the vocabulary it was trained with, or set "resize_vocab" to true to'
                        " keep the rows of the ids that both have")
    # What is left may differ in nothing.
    there = dataclasses.replace(config, n_ctx=source.hints["n_ctx"], n_vocab=source.hints["n_vocab"])
    problem = misfits(source.shapes, there)
    if problem:
        raise UserError(f'"init_checkpoint" {source.path} does not fit the config: {problem}; set "n_embd" and'
                        f' "n_layer" to its sizes, {source.hints["n_embd"]} and {source.hints["n_layer"]}')


def starting_with(path, model_fn):
    """`model_fn`, whose variables start with the weights at `path` where no checkpoint is restored."""
    source = open_source(path)

    def scaffold():
        variables = {variable.op.name[len(SCOPE) + 1:]: variable for variable in tf.trainable_variables()}
        weights = {id(variable) for variable in variables.values()}
        others = [variable for variable in tf.global_variables() if id(variable) not in weights]
        # Not by WarmStartSettings: that knows only TensorFlow's checkpoints, and only when it trains.  The weights' own
        # starting values are not computed: they would leave holes in memory.
        return tf.train.Scaffold(init_op=tf.variables_initializer(others),
                                 init_fn=lambda _, session: load(source, variables, session))

    def started(features, labels, mode, params):
        return model_fn(features, labels, mode, params)._replace(scaffold_fn=scaffold)
    return started


def restore(path, config, variables, session):
    """Gives {name: variable} the weights of the checkpoint at `path`, or of init_checkpoint where it is None."""
    with tf_checkpoint.naming_damage(path or config.init_checkpoint):
        if path:
            tf.train.Saver(list(variables.values())).restore(session, path)
            return
        load(open_source(config.init_checkpoint), variables, session)


def load(source, variables, session):
    """Gives the variables {name: variable} the weights of a Source that passed `check`, some at a time (AT_ONCE).

    A variable with fewer rows takes the first (positions, ids); one with more starts there as it would by itself.
    """
    feeds, size = {}, 0
    for name, variable in variables.items():
        value, shape = source.read(name), variable.shape.as_list()
        copies = getattr(variable, "values", [variable])  # one on each device of a strategy
        if value.shape[0] < shape[0]:
            session.run(copies[0].initializer)
            value = np.concatenate([value, session.run(copies[0])[value.shape[0]:]])
        feeds.update({copy.initializer: value[:shape[0]] for copy in copies})
        size += value.nbytes
        if size >= AT_ONCE:
            _assign(feeds, session)
            feeds, size = {}, 0
    _assign(feeds, session)


def _assign(feeds, session):
    """Runs initializers with the values that are given for them.

    Not Variable.load for each: every other set of operations that a session is to run costs it a pass over the graph.
    """
    session.run(list(feeds), {initializer.inputs[1]: value for initializer, value in feeds.items()})
