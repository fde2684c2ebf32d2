"""nanoGPT's small CPU run on tiny Shakespeare, character by character: does this trainer reach the published loss?

The setting is that of https://github.com/karpathy/nanoGPT (README, "I only have a macbook"; data/shakespeare_char/
prepare.py), which reports a validation loss of 1.88: a token for each character, the first 90 % of the text to train
on, the rest to evaluate on.  Here the whole rest is evaluated.  Prints one JSON line at the end:
{"val_loss": [of each seed], "mean": ...}.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import os
import re
import signal
import statistics
import subprocess
import sys

from benchmarks import machine, options
from configs import commands, schema, storage
from configs.errors import UserError
from datasets import create_tfrecords
from encoder import bpe

CONFIG = options.preset("shakespeare-char")
NAME = "shakespeare-char"
TRAINING_SHARE = 0.9
TRAIN_TEXT, VALIDATION_TEXT = "train.txt", "validation.txt"


def main(argv=None):
    """Prepares the data, trains and evaluates for each seed, prints the JSON line; returns the exit status."""
    args = _arguments(argv)
    config = schema.load(CONFIG, args.overrides)
    data = os.path.join(args.output_dir, config.data_path)
    prepare(read(args.text), data)
    print(f"{machine.described('TensorFlow')}; {args.seeds} seeds, {config.max_steps} steps each", flush=True)
    losses = []
    for seed in range(1, args.seeds + 1):
        folder = os.path.join(args.output_dir, f"{config.model_dir}-{seed}")
        status, loss = _train_and_evaluate(args.overrides, seed=seed, data_path=data, model_dir=folder,
                                           encoder_path=os.path.join(data, "encoder"))
        if status:
            return status
        losses.append(loss)
    print(json.dumps({"val_loss": losses, "mean": round(statistics.fmean(losses), 4)}))
    return 0


def prepare(text, folder):
    """Writes the two parts of `text`, the vocabulary of its characters, and the shards, unless they are there."""
    if not text.isascii():
        raise UserError(f"the text holds {next(c for c in text if not c.isascii())!r}, which is more than one byte: "
                        "give the tiny Shakespeare text (docs/benchmarks.md) or another one in ASCII")
    parts = dict(zip((TRAIN_TEXT, VALIDATION_TEXT), split(text)))
    paths = [os.path.join(folder, name) for name in parts]
    for path, part in zip(paths, parts.values()):
        if os.path.exists(path):  # not written anew: the shards know their sources by the time of change
            with open(path, "rb") as f:
                if f.read() != part.encode():
                    raise UserError(f"{path} is of another text: choose another --output_dir, or move {folder}"
                                    " elsewhere")
            continue
        os.makedirs(folder, exist_ok=True)
        storage.write_whole(path, part)
    symbols = bpe.byte_symbols()
    bpe.write(os.path.join(folder, "encoder"), [], [symbols[ord(character)] for character in sorted(set(text))])
    create_tfrecords.main(["--input", paths[0], "--eval_input", paths[1], "--name", NAME, "--output_dir", folder,
                           "--encoder_path", os.path.join(folder, "encoder"), "--no_ftfy", "--minimum_size", "1"])


def split(text):
    """(training text, validation text), cut where nanoGPT cuts."""
    position = int(len(text) * TRAINING_SHARE)
    return text[:position], text[position:]


def _train_and_evaluate(overrides, **changes):
    """(exit status, validation loss) of `main.py` on the config; it skips what an earlier call has done."""
    command = [sys.executable, options.MAIN, "--model", CONFIG,
               *options.set_words([*overrides, *options.overrides(changes)])]
    status = _run(command)
    if status:
        return status, None
    result = subprocess.run([*command, "--eval"], stdout=subprocess.PIPE, text=True)
    print(result.stdout, end="", flush=True)
    return result.returncode, None if result.returncode else loss_in(result.stdout)


def _run(command):
    """Runs `command` to its end, after a signal too, so that it can save its work; returns its exit status."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal sent it to the command as well
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def loss_in(output):
    """The loss that `main.py --eval` printed."""
    return float(re.search(r"^evaluation at step \d+: loss ([\d.]+),", output, re.MULTILINE).group(1))


def read(path):
    if not os.path.isfile(path):
        raise UserError(f"--text {path}: no such file; docs/benchmarks.md says where the text is found")
    with open(path, "rb") as f:
        data = f.read()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"--text {path} is not UTF-8 text (byte {error.start}): fetch it anew")


def _arguments(argv):
    parser = options.parser("shakespeare", __doc__)
    add = parser.add_argument
    add("--text", required=True, metavar="FILE", help="the tiny Shakespeare text")
    add("--seeds", type=int, default=3, help="runs, with the seeds 1, 2 and so on")
    add("--output_dir", default=".", help="folder for the config's data_path and model_dir (with the seed behind it)")
    options.add_set(parser, "the config")
    args = parser.parse_args(argv)
    options.check_least(args, seeds=1)
    return args


if __name__ == "__main__":
    commands.run(main)
