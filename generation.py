"""Continues a prompt with the newest checkpoint, to the console and to the config's predict_path."""
import secrets

import numpy as np
import tensorflow.compat.v1 as tf

import corpus
import estimator as estimators
import storage
from encoder import bpe
from models import saved
from models.sampling import Options

DEFAULTS = {"length": 256, "num_samples": 1, "temperature": 1.0, "top_k": 40, "top_p": 1.0}
RULE = "=" * 40


def predict(config, encoder, prompt, args):
    """Prints and stores `args.num_samples` continuations of the str `prompt`; returns the exit status."""
    estimators.quiet()
    path = estimators.trained(config, encoder, "generate with")
    corpus.check_vocabulary(config, encoder)
    value = {name: default if getattr(args, name) is None else getattr(args, name)
             for name, default in DEFAULTS.items()}
    count = value.pop("num_samples")
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    options = Options(eot=encoder.eot, vocabulary=encoder.size, **value)
    prompt = bpe.well_formed(prompt)
    tokens = encoder.encode(prompt) or [encoder.eot]  # an empty prompt: a text begins behind <|endoftext|>
    _store(config, "")  # a path that cannot be written is said before minutes are spent
    estimator = estimators.build_estimator(config, args.tpu, sampling_options=options)
    with saved.reading(path or config.init_checkpoint):
        rows = estimator.predict(_input_fn(tokens, seed, count), checkpoint_path=path)
        for number, row in zip(range(count), rows):
            text = prompt + encoder.decode(_until_end(row["tokens"], encoder.eot))
            sample = f"{RULE} SAMPLE {number} {RULE}\n{text}\n{RULE * 2}\n"  # the original's layout
            print(sample, end="", flush=True)
            _store(config, sample)
    return 0


def _input_fn(tokens, seed, count):
    """input_fn of `count` rows {tokens: the prompt, seed: the row's own}, filled up to whole batches."""
    def input_fn(params):
        batch = params["batch_size"]
        rows = -(-count // batch) * batch
        # Not seed, seed + 1 ...: the samples of neighbouring seeds would be the same texts.
        seeds = [np.random.SeedSequence([seed, row]).generate_state(1)[0] % 2**31 for row in range(rows)]
        features = {"tokens": np.tile(np.array(tokens, np.int32), [rows, 1]), "seed": np.array(seeds, np.int32)}
        return tf.data.Dataset.from_tensor_slices(features).batch(batch, drop_remainder=True)
    return input_fn


def _until_end(tokens, eot):
    """The ids before the first `eot`."""
    tokens = tokens.tolist()
    return tokens[:tokens.index(eot)] if eot in tokens else tokens


def _store(config, text):
    """Appends `text` to predict_path."""
    if not config.predict_path:
        return
    folder = config.predict_path.rpartition("/")[0]
    if folder:
        storage.make_folder(folder)
    with storage.open_file(config.predict_path, "a") as f:
        f.write(text)
