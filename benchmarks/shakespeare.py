"""nanoGPT's two runs on tiny Shakespeare, character by character: does this trainer reach the published losses?

The settings are those of https://github.com/karpathy/nanoGPT (README, "I only have a macbook" and "I have a GPU";
data/shakespeare_char/prepare.py): a token for each character, the first 90 % of the text to train on, the rest to
evaluate on.  Here the whole rest is evaluated.  Called again, it goes on where it stopped.  Prints one JSON line at
the end: {"val_loss": [of each seed], "mean": ..., "spread": standard deviation, "best": [[step, loss] of each seed]}.
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
from typing import NamedTuple

from benchmarks import machine, options, records
from configs import commands, schema, storage
from configs.errors import UserError
from datasets import create_tfrecords
from encoder import bpe
from models.run import loss_picture, metrics_file


class Setting(NamedTuple):
    config: str  # of configs/
    published: float  # validation loss that nanoGPT reports
    seeds: int


SETTINGS = {"small": Setting("shakespeare-char", 1.88, 8), "gpu": Setting("shakespeare-char-gpu", 1.4697, 1)}
NAME = "shakespeare-char"
RECORDS = "shakespeare"
ORIGINS = "origins.jsonl"  # in model_dir: a line for each call that trained there
TRAINING_SHARE = 0.9
TRAIN_TEXT, VALIDATION_TEXT = "train.txt", "validation.txt"


def main(argv=None):
    """Prepares the data, trains and evaluates for each seed, prints the JSON line; returns the exit status."""
    args = _arguments(argv)
    if args.plot:
        storage.write_whole(args.plot, plot(records.read(RECORDS), args.setting, args.plot.rpartition(".")[2]))
        print(f"wrote {args.plot}")
        return 0
    setting = SETTINGS[args.setting]
    config = schema.load(options.preset(setting.config), args.overrides)
    data = os.path.join(args.output_dir, config.data_path)
    prepare(read(args.text), data)
    seeds = args.seeds or setting.seeds
    print(f"{machine.described('TensorFlow')}; {seeds} seeds, {config.max_steps} steps each", flush=True)
    runs = []
    for seed in range(1, seeds + 1):
        status, run = _train_and_evaluate(
            setting.config, args.overrides, seed=seed, data_path=data, encoder_path=os.path.join(data, "encoder"),
            model_dir=os.path.join(args.output_dir, f"{config.model_dir}-{seed}"))
        if status:
            return status
        runs.append(run)
        if args.record:
            records.append(RECORDS, run)
    losses = [run["val_loss"] for run in runs]
    print(json.dumps({"val_loss": losses, "mean": round(statistics.fmean(losses), 4),
                      "spread": round(statistics.stdev(losses), 4) if len(losses) > 1 else None,
                      "best": [_best(run["evaluations"]) for run in runs]}))
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


def _train_and_evaluate(name, overrides, **changes):
    """(exit status, the run as records.py keeps it) of `main.py` on the config; what an earlier call did is skipped."""
    command = [sys.executable, options.MAIN, "--model", options.preset(name),
               *options.set_words([*overrides, *options.overrides(changes)])]
    folder, origin = changes["model_dir"], records.origin()
    before = metrics_file.read(folder)
    status = _run(command)
    entries = metrics_file.read(folder)
    if entries != before:
        storage.append_whole(os.path.join(folder, ORIGINS), json.dumps(origin) + "\n")
    if status:
        return status, None
    result = subprocess.run([*command, "--eval"], stdout=subprocess.PIPE, text=True)
    print(result.stdout, end="", flush=True)
    if result.returncode:
        return result.returncode, None
    return 0, {"script": "benchmarks.shakespeare", "config": name, "overrides": overrides, "seed": changes["seed"],
               "evaluations": [[values["step"], values["eval_loss"]] for values in entries if "eval_loss" in values],
               "val_loss": loss_in(result.stdout), "seconds": round(_seconds(entries)), **_origin(folder)}


def _seconds(entries):
    """Seconds of the steps of a run, without evaluations and interruptions, by the lines of its metrics.jsonl."""
    points = [values for values in entries if values.get("tokens_per_second")]
    ends = [0, *(values["tokens"] for values in points)]
    return sum((end - begin) / values["tokens_per_second"] for begin, end, values in zip(ends, ends[1:], points))


def _origin(folder):
    """The records.origin() of the calls that trained a run: all their commits, and the machine and day of the last."""
    path = os.path.join(folder, ORIGINS)
    if not storage.exists(path):  # trained by main.py itself, or killed
        return {"commit": None, "machine": None, "date": None}
    origins = [json.loads(line) for line in storage.read_bytes(path).splitlines()]
    return {**origins[-1], "commit": ", ".join(dict.fromkeys(str(each["commit"]) for each in origins))}


def _best(evaluations):
    """Returns the [step, loss] that has the lowest loss.  Returns None without evaluations."""
    return min(evaluations, key=lambda point: point[1], default=None)


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


def plot(runs, name, ending):
    """Bytes of a picture: the recorded losses of a setting against steps, and the published one as a line.

    Each curve is the mean over the seeds of what was overridden alike.
    """
    setting, groups = SETTINGS[name], {}
    for run in runs:
        if run["config"] == setting.config:
            groups.setdefault(" ".join(run["overrides"]) or "as configured", []).append(dict(run["evaluations"]))
    if not groups:
        raise UserError(f"no run of the setting {name} is in {records.FOLDER}: make one with --record")
    curves = []
    for label, seeds in groups.items():
        steps = sorted(set.intersection(*map(set, seeds)))
        means = [[step, statistics.fmean(losses[step] for losses in seeds)] for step in steps]
        best = "best {1:.4f} at step {0:,}".format(*_best(means))
        curves.append((f"{label} ({len(seeds)} seed{'s' * (len(seeds) > 1)}), {best}, last",
                       [{"step": step, loss_picture.EVALUATION: loss} for step, loss in means]))
    return loss_picture.draw(curves, ending, level=(f"nanoGPT: {setting.published}", setting.published))


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
    add("--text", metavar="FILE", help="the tiny Shakespeare text; needed but for --plot")
    add("--setting", choices=SETTINGS, default="small",
        help="; ".join(f"{name}: configs/{setting.config}.json, published loss {setting.published}"
                       for name, setting in SETTINGS.items()))
    add("--seeds", type=int, help="runs, with the seeds 1, 2 and so on; default: " + ", ".join(
        f"{setting.seeds} of {name}" for name, setting in SETTINGS.items()))
    add("--output_dir", default=".", help="folder for the config's data_path and model_dir (with the seed behind it)")
    add("--precision", help="short for --set precision=...")
    add("--record", action="store_true", help=f"add each run to benchmarks/results/{RECORDS}.jsonl")
    add("--plot", metavar="FILE", help="only draw the recorded runs of the setting into a .png or .svg")
    options.add_set(parser, "the config")
    args = parser.parse_args(argv)
    if args.seeds is not None:
        options.check_least(args, seeds=1)
    if args.precision:
        args.overrides = [*args.overrides, *options.overrides({"precision": args.precision})]
    if args.plot and args.plot.rpartition(".")[2] not in loss_picture.ENDINGS:
        raise UserError(f"--plot {args.plot}: give a name that ends with .png or .svg")
    if not (args.text or args.plot):
        raise UserError("--text is missing: docs/benchmarks.md says where the text is found")
    return args


if __name__ == "__main__":
    commands.run(main)
