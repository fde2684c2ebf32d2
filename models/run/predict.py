"""Continues prompts with a checkpoint, to the console and to the config's predict_path."""
import contextlib
import dataclasses
import json
import math
import os
import re
import secrets
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import inputs
from configs import errors, hardware, start, storage
from configs.errors import UserError
from datasets import vocabularies
from datasets.jobs import workers
from encoder import stop_texts
from models import decoding, sampling
from models.checkpoints import run_folder, tf_checkpoint
from models.run import damage

THREADS = "TF_NUM_INTRAOP_THREADS"
RULE = "=" * 40


class Row(NamedTuple):
    """One sample to draw."""
    prompt: tuple  # prompts.Prompt
    tokens: list
    seed: int

    def options(self, stop):
        """{field of sampling.Options: number}, where `stop` is the state that the table of stop texts starts in."""
        values = {**self.prompt._asdict(), "seed": self.seed, "stop": stop}
        return {name: values[name] for name in sampling.Options._fields}


class Sample(NamedTuple):
    """One sample as --json shows it."""
    prompt: str
    text: str
    tokens: list
    logprobs: list
    stop: str  # why it ended: "length", "eot", "stop", or "interrupted" by Ctrl-C


def run(config, encoder, prompts, tpu, build_estimator, *, checkpoint, as_json, int8):
    """Prints and stores continuations of `prompts`, drawn by main.py's build_estimator; returns the exit status."""
    path = weights_path(config, encoder, checkpoint)
    rows = [row for prompt in prompts for row in rows_of(prompt, encoder, config.n_ctx)]
    store(config, "")  # a path that cannot be written is said before minutes are spent
    at_once = min(config.predict_batch_size, len(rows))
    threads = threads_for(config, at_once, max(len(row.tokens) for row in rows),
                          max(prompt.length for prompt in prompts), int8=int8)
    with tf_checkpoint.naming_damage(path or config.init_checkpoint), damage.named_in_generation(config, at_once), \
            threads:
        for number, sample in enumerate(samples_of(config, encoder, rows, tpu, path, build_estimator, int8=int8)):
            show(config, number, sample, as_json=as_json)
    return 0


def samples_of(config, encoder, rows, tpu, path, build_estimator, *, int8=False):
    """Yields the Sample of each Row, drawn with the weights at `path` (None: init_checkpoint)."""
    limits, first_states = limits_of(config, encoder, [row.prompt for row in rows])
    if not tpu:  # the cores of a TPU share every batch
        config = dataclasses.replace(config, predict_batch_size=min(config.predict_batch_size, len(rows)))
    input_fn = _input_fn(rows, first_states, encoder.eot)
    batches = draw(config, tpu, path, input_fn, limits, build_estimator, int8=int8)
    for row in rows:
        with start.ended_at_once():  # a batch may take minutes; what is done with a sample is brought to its end
            drawn = next(batches)
        yield finish(encoder, row.prompt, zip(drawn["tokens"][:drawn["count"]], drawn["logprobs"]))


@contextlib.contextmanager
def threads_for(config, rows, prompt=1, length=1, *, int8=False):
    """Inside, TensorFlow starts as many threads for an operation as generate `rows` samples at once the fastest.

    One core that multiplies bfloat16 reads weights nearly as fast as two, and to hand work over costs more than the
    second one gives: 9.6 ms a token of one sample instead of 11.6 (124M).  `int8` has half as much to read.  A `prompt`
    that is long beside the `length` of what follows, float32 and several samples have work for both; more cores were
    not at hand.
    """
    quick = int8 or config.precision != "float32" and hardware.multiplies_bfloat16()
    if rows > 1 or prompt > 4 * length or not quick or workers.cores() != 2 or THREADS in os.environ:
        yield
        return
    # All sessions share the threads of the first one, whatever their own configs say: none may be opened before.
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(THREADS, None)


def weights_path(config, encoder, checkpoint):
    """The newest checkpoint, or the one that `checkpoint` names, when it fits config and vocabulary.  UserError."""
    path = run_folder.trained(config, encoder, "generate with", checkpoint)
    vocabularies.check(config, encoder)
    return path


def rows_of(prompt, encoder, n_ctx):
    """List of a Row for each sample of the prompt; what would fall out of the window is left out here."""
    with errors.about(prompt.where):
        tokens = encoder.encode(prompt.text) or [encoder.eot]  # an empty prompt: a text begins behind <|endoftext|>
    seed = secrets.randbelow(2**31) if prompt.seed is None else prompt.seed
    # Not seed, seed + 1 ...: the samples of neighbouring seeds would be the same texts.
    return [Row(prompt, tokens[-n_ctx:], int(np.random.SeedSequence([seed, number]).generate_state(1)[0] % 2**31))
            for number in range(prompt.num_samples)]


def limits_of(config, encoder, prompts):
    """(sampling.Limits of a graph for these prompts, {stop texts: the state that its table of them starts in})."""
    stop_sets = [prompt.stop for prompt in prompts]
    stops, first = stop_texts.automaton(encoder, stop_sets) if any(stop_sets) else (None, [stop_texts.NEVER])
    largest = max(prompt.top_k if prompt.top_k or prompt.top_p >= 1 else config.n_vocab for prompt in prompts)
    return sampling.Limits(
        n_ctx=config.n_ctx, eot=encoder.eot, length=max(prompt.length for prompt in prompts), vocabulary=encoder.size,
        largest=largest, draws=any(prompt.temperature >= sampling.COLDEST for prompt in prompts),
        penalties=any(prompt.repetition_penalty != 1 for prompt in prompts), stops=stops), dict(zip(stop_sets, first))


def draw(config, tpu, path, input_fn, limits, build_estimator, *, int8=False):
    """The dict of each row of `input_fn`, from the weights at `path`; a TPU's batch gets rows for all of its cores."""
    sampler = decoding.sampler(config, limits, int8=int8)
    try:
        yield from build_estimator(config, tpu, sampler=sampler).predict(input_fn, checkpoint_path=path)
    except ValueError as error:  # before the first row: only now the estimator has asked the TPU for its size
        cores = re.search(r"predict batch size \d+ must be divisible by number of replicas (\d+)", str(error))
        if "num_hosts" in str(error):
            raise UserError(f"--tpu {tpu} has several hosts, but texts are generated on one; name a TPU of one host")
        if not cores:
            raise
        rows = -(-config.predict_batch_size // int(cores.group(1))) * int(cores.group(1))
        config = dataclasses.replace(config, predict_batch_size=rows)
        yield from build_estimator(config, tpu, sampler=sampler).predict(input_fn, checkpoint_path=path)


def finish(encoder, prompt, drawn, say=lambda piece: None):
    """Makes the Sample of a prompt from `drawn`, (token, logprob) pairs.  Calls `say` with each piece of text."""
    text, pieces, tokens, logprobs = stop_texts.Text(encoder, prompt.stop), [], [], []
    for token, logprob in drawn:
        if not math.isfinite(logprob):
            raise UserError(f"{prompt.where}: the probabilities of the next token are not finite with these weights;"
                            " take an older --checkpoint, or other weights")
        tokens.append(int(token))
        logprobs.append(round(float(logprob), 6))
        pieces.append(text.end() if token == encoder.eot else text.add(tokens[-1]))
        say(pieces[-1])
        if text.stopped:
            break
    pieces.append(text.end())
    say(pieces[-1])
    stop = "length" if len(tokens) == prompt.length else "interrupted"
    stop = "stop" if text.stopped else "eot" if tokens[-1:] == [encoder.eot] else stop
    return Sample(prompt.text, "".join(pieces), tokens, logprobs, stop)


def show(config, number, sample, *, as_json, shown=""):
    """Prints the sample, as JSON or in the original's layout but for what is `shown`, and stores it in the latter."""
    text = layout(number, sample)
    print(json.dumps(sample._asdict()) + "\n" if as_json else text[len(shown):], end="", flush=True)
    store(config, text)


def layout(number, sample):
    return f"{heading(number)}{sample.prompt}{sample.text}\n{RULE * 2}\n"


def heading(number):
    return f"{RULE} SAMPLE {number} {RULE}\n"


def store(config, text):
    """Appends `text` to predict_path."""
    if not config.predict_path:
        return
    storage.make_folder(os.path.dirname(config.predict_path) or ".")
    storage.append_whole(config.predict_path, text)


def _input_fn(rows, first_states, eot):
    """input_fn of the features that gpt2's predictions want; the last batch is filled up with rows of length 0."""
    def input_fn(params):
        batch = params["batch_size"]
        filled = [*rows, *[rows[-1]] * (-len(rows) % batch)]
        # At least 2: a single token would be read as those of the loop are, with packed copies of the weights.
        width = max(2, *(len(row.tokens) for row in rows))
        options = [row.options(first_states[row.prompt.stop]) for row in filled]
        features = {name: np.array([values[name] for values in options], sampling.dtype_of(name))
                    for name in sampling.Options._fields}
        features["length"][len(rows):] = 0
        features["given"] = np.array([len(row.tokens) for row in filled], np.int32)
        features["tokens"] = np.array([row.tokens + [eot] * (width - len(row.tokens)) for row in filled], np.int32)
        return inputs.ready(tf.data.Dataset.from_tensor_slices(features).batch(batch, drop_remainder=True))
    return input_fn
