"""Writes a checkpoint as a SavedModel, which generates and scores without this project's code.

Token ids in and out; the vocabulary's two files are its assets.
"""
import os
import tempfile

import tensorflow.compat.v1 as tf

from configs import storage
from configs.errors import UserError
from encoder import bpe, formats
from models import decoding, gpt2, initial_values, sampling
from models.checkpoints import warm_start
from models.run import predict, workarounds
from models.shapes import shape_of

PADDING = -1  # behind the ids of a shorter row, in and out


def run(config, encoder, folder, tpu=None, *, checkpoint=None):
    """Writes the SavedModel into the new `folder`, local or gs://; returns the exit status."""
    if tpu:
        raise UserError("--export_dir needs no TPU; leave --tpu out")
    path = predict.weights_path(config, encoder, checkpoint)
    with storage.new_folder(folder) as place:  # on gs:// the file that makes it a SavedModel is written last
        _save(config, encoder, path, place)
    print(f"wrote {path or config.init_checkpoint} as a SavedModel to {folder}: signatures generate and score,"
          " vocabulary in assets/")
    return 0


def _save(config, encoder, path, folder):
    """Writes the SavedModel of the checkpoint at `path`."""
    with tf.Graph().as_default(), tf.Session(config=workarounds.session_config()) as session:
        variables = initial_values.create_variables(config)
        weights = decoding.cast_weights(variables, config)
        signatures = {"generate": _generate(weights, config, encoder), "score": _score(weights, config, encoder)}
        warm_start.restore(path, config, variables, session)
        with tempfile.TemporaryDirectory() as scratch:  # Hugging Face's files get OpenAI's names
            formats.write(scratch, bpe.read_files(config.encoder_path))
            vocabulary = [tf.constant(file, name=os.path.basename(file)) for file in bpe.files(scratch)]
            for file in vocabulary:
                tf.add_to_collection(tf.GraphKeys.ASSET_FILEPATHS, file)
            builder = tf.saved_model.Builder(folder)
            builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures,
                                                 assets_collection=vocabulary)
            builder.save()


def _generate(weights, config, encoder):
    """The signature `generate`; all but ids and length may be one number for all rows, or one for each."""
    ids = tf.placeholder(tf.int32, [None, None], name="generate_ids")
    length = tf.placeholder(tf.int32, [], name="generate_length")
    inputs = {name: tf.placeholder(sampling.dtype_of(name), None, name=f"generate_{name}")
              for name in ("temperature", "top_k", "top_p", "seed")}
    batch = shape_of(ids)[0]
    rows = {name: tf.ensure_shape(tf.broadcast_to(value, [batch]), [None]) for name, value in inputs.items()}
    prompt, given = _unpadded(tf.pad(ids, [[0, 0], [0, 1]], constant_values=PADDING), encoder.eot)
    options = sampling.Options(length=tf.fill([batch], length), repetition_penalty=tf.fill([batch], 1.0),
                               stop=tf.fill([batch], 0), **rows)
    limits = sampling.Limits(n_ctx=config.n_ctx, eot=encoder.eot, length=length, vocabulary=encoder.size,
                             largest=sampling.largest_needed(options, config.n_vocab))
    samples = sampling.sample(decoding.decoding_step(weights, config), decoding.empty_cache(config),
                            prompt, tf.maximum(given, 1), options, limits)  # an empty prompt begins behind eot
    drawn = tf.range(length) < samples.count[:, None]
    return tf.saved_model.predict_signature_def(
        {"ids": ids, "length": length, **inputs},
        {"ids": tf.where_v2(drawn, samples.tokens, PADDING), "logprobs": samples.logprobs})


def _score(weights, config, encoder):
    """The signature `score`: the log-probability of each id but the first, float32 [B, S - 1]; 0 behind a row's end."""
    ids = tf.placeholder(tf.int32, [None, None], name="score_ids")
    fits = tf.debugging.assert_less_equal(tf.shape(ids)[1] - 1, config.n_ctx, message=(
        f"the network sees {config.n_ctx} ids at once: score at most {config.n_ctx + 1}"))
    with tf.control_dependencies([fits]):
        tokens, given = _unpadded(ids, encoder.eot)
    hidden = gpt2.transformer(weights, tokens[:, :-1], config)
    losses = gpt2.token_losses(hidden, weights["wte"], tokens[:, 1:])
    there = tf.range(1, tf.shape(ids)[1]) < given[:, None]
    return tf.saved_model.predict_signature_def({"ids": ids}, {"logprobs": tf.where_v2(there, -losses, 0.0)})


def _unpadded(ids, eot):
    """(ids int32 [B, S] with eot where they are padding, int32 [B]: how many are not)."""
    given = tf.reduce_sum(tf.cast(ids >= 0, tf.int32), 1)
    return tf.where_v2(ids >= 0, ids, eot), given
