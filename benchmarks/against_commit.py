"""This checkout beside another commit: speed and peak memory of training, generation, evaluation and create_tfrecords.

    python3 -m benchmarks.against_commit --commit COMMIT [--only CASE...] [--rounds 5]

The other commit is unpacked into a temporary folder and run by the same Python; it is driven through its own
`benchmarks.train --serve`, `benchmarks.generate --serve`, main.py and datasets/create_tfrecords.py, so its other files
may have other names and places.  Both sides read the same weights and data, which this checkout writes.  In each round
each side is a new process.  Training and generation take turns; evaluation and create_tfrecords are whole commands,
start-up included.  Ratios are those of the two sides in one round; the table has the mean of their medians with the
one and the other side going first, least and most.

With 124M a side takes up to 6 GB.  Where there is no room for two, or with --apart, the sides do not take turns, but
run one after the other in each round.  Ends with one JSON line.
"""
from __future__ import annotations

if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import functools
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from typing import Callable, NamedTuple

import numpy as np

from benchmarks import machine, options, ours, shakespeare, train, turns
from configs import commands, hardware, storage
from configs.errors import UserError
from datasets import tfrecords

WANTED_SPEED, WANTED_MEMORY = 0.98, 1.03  # of the other commit's: at least, at most
SIDE_BYTES = 6e9
PRECISIONS = ("float32", "bfloat16")
WARM_UP, TURNS = 2, 2  # of training in a round: the first turn is the first step, the second is not counted either
PROMPT, LENGTH, DRAWS = 64, 64, 2  # tokens given and drawn, and how often in a round
EVAL_WINDOWS, TEXT_MEGABYTES, FILES_PER = 64, 40, 1000
# What --quick has instead, in the place of 124M and of the small network.
QUICK = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_ctx": 64}
QUICK_LENGTH, QUICK_MEGABYTES = 8, 0.2


class Side(NamedTuple):
    """A checkout."""
    name: str  # also of its folders
    root: str


class Measured(NamedTuple):
    """What one side took in one round, and what it computed."""
    seconds: float
    cpu: float  # seconds
    peak: int  # bytes
    result: object  # a list of numbers or of texts


class Case(NamedTuple):
    """What both sides do."""
    amount: float  # of `unit` in one round
    unit: str
    run: Callable  # Side -> generator that yields after each turn, at last the Measured
    warm_up: int = 0  # rounds that are not counted


def main(argv=None):
    """Prints a line for each round, the table and the JSON line; returns 0, or 1 where a case failed."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    commit = _commit(args.commit)
    print(f"{machine.described('TensorFlow')}; this checkout beside {commit}, {args.rounds} rounds", flush=True)
    rows, figures, failed = [], {}, {}
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        sides = Side("here", options.ROOT), Side("there", _unpack(commit, os.path.join(folder, "there")))
        for name in args.only:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                try:
                    case = CASES[name](args.quick, place)
                    rounds = _measure(name, case, sides, args)
                except UserError as error:
                    failed[name] = str(error)
                    print(f"{name} failed: {error}", flush=True)
                    continue
            figures[name] = _figures(rounds)
            rows.append(_row(name, case, rounds, figures[name]))
    heads = ["case", "here", args.commit, "speed (least, most)", "by CPU seconds",
             "memory (least, most)", "results differ by"]
    print("\n".join(["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows]))
    missed = [name for name, figure in figures.items()
              if figure["speed"] < WANTED_SPEED or figure["memory"] > WANTED_MEMORY]
    print(f"wanted: speed at least {WANTED_SPEED}, memory at most {WANTED_MEMORY}; "
          f"{'missed by ' + ', '.join(missed) if missed else 'reached by all'}")
    by_figure = {key: {name: figure[key] for name, figure in figures.items()}
                 for key in next(iter(figures.values()), ())}
    print(json.dumps({**by_figure, "failed": failed, "commit": commit, "rounds": args.rounds, "quick": args.quick}))
    return 1 if failed else 0


# The other commit

def _commit(name):
    """The hash of a commit of this repository.  Raises UserError where it has none of that name."""
    found = _git("rev-parse", "--verify", "--quiet", name + "^{commit}")
    if found.returncode:
        raise UserError(f"--commit {name}: this repository has no such commit; `git fetch` may bring it")
    return found.stdout.decode().strip()


def _unpack(commit, folder):
    """Writes the files of a commit into a new folder; returns the folder."""
    archive = os.path.join(os.path.dirname(folder), "commit.tar")
    _git("archive", "--format=tar", f"--output={archive}", commit).check_returncode()
    with tarfile.open(archive) as files:
        files.extractall(folder)
    os.remove(archive)
    return folder


def _git(*words):
    return subprocess.run(["git", "-C", options.ROOT, *words], capture_output=True)


# Rounds

def _measure(name, case, sides, args):
    """[(Measured of here, Measured of there) of each round]; prints a line for each."""
    rounds = []
    in_turns = not args.apart and (args.quick or hardware.memory()[1] > 2 * SIDE_BYTES)
    for number in range(args.rounds + case.warm_up):
        order = sides[::-1] if number % 2 else sides
        running = [case.run(side) for side in order]
        ends = list(zip(*running))[-1] if in_turns else [list(one)[-1] for one in running]
        if number < case.warm_up:
            continue
        here, there = ends[::-1] if number % 2 else ends
        rounds.append((here, there))
        print(f"{name}, round {len(rounds)}: {case.amount / here.seconds:,.4g} {case.unit}/s beside "
              f"{case.amount / there.seconds:,.4g}, {here.peak / 1e6:,.0f} MB beside {there.peak / 1e6:,.0f}"
              + ("" if in_turns else ", one after the other"), flush=True)
    return rounds


def _figures(rounds):
    """{what: ratio of here to there, or a spread of ratios} of a case."""
    ratios = {"speed": [there.seconds / here.seconds for here, there in rounds],
              "speed_by_cpu_seconds": [there.cpu / here.cpu for here, there in rounds],
              "memory": [here.peak / there.peak for here, there in rounds]}
    figures = {what: round(_typical(values), 3) for what, values in ratios.items()}
    for what in ("speed", "memory"):
        figures[what + "_spread"] = [round(min(ratios[what]), 3), round(max(ratios[what]), 3)]
    figures["results_differ_by"] = max(_difference(here.result, there.result) for here, there in rounds)
    return figures


def _typical(ratios):
    """The geometric mean of the median of the rounds in which here goes first and that of the others.

    Who goes first is up to 7 % slower in generation: a median of an odd number of rounds would count it against one.
    """
    medians = [statistics.median(some) for some in (ratios[::2], ratios[1::2]) if some]
    return statistics.geometric_mean(medians)


def _difference(one, other):
    """The largest difference of two lists of floats; of other things, the share of places where they differ."""
    one, other = np.array(one), np.array(other)
    if one.shape != other.shape:
        return 1.0
    return float(np.abs(one - other).max() if one.dtype.kind == "f" else np.mean(one != other))


def _row(name, case, rounds, figures):
    """The case's row of the table."""
    speeds = [f"{statistics.median(case.amount / side.seconds for side in column):,.4g} {case.unit}/s"
              for column in zip(*rounds)]
    spreads = ["{:.3f} ({:.3f}, {:.3f})".format(figures[what], *figures[what + "_spread"])
               for what in ("speed", "memory")]
    cells = [name, *speeds, spreads[0], f"{figures['speed_by_cpu_seconds']:.3f}", spreads[1],
             f"{figures['results_differ_by']:.2g}"]
    return f"| {' | '.join(cells)} |"


# Cases: what both sides do

def _training(setting, precision, quick, folder):
    changes = options.overrides(QUICK) if quick else []
    steps = 2 if quick else max(1, train.SETTINGS[setting].steps // 2)
    arguments = ["--setting", setting, "--device", "cpu", "--steps", str(steps), "--output_dir", folder,
                 *options.set_words(changes)]
    config = train.config_of(train.arguments(arguments), setting, folder)
    train.write_data(config, folder)
    own_steps = TURNS * steps

    def run(side):
        model_dir = os.path.join(folder, f"run-{side.name}")
        words = ["train", "--serve", "ours", precision, *arguments,
                 *options.set_words(options.overrides({"model_dir": model_dir}))]
        yield from _served(side, words, WARM_UP, TURNS, "seconds", "losses")
        shutil.rmtree(model_dir)
    return Case(own_steps * config.train_batch_size * config.n_ctx, "tokens", run)


def _generation(batch, precision, quick, folder):
    changes = options.overrides(QUICK) if quick else []
    length, draws = (QUICK_LENGTH, 1) if quick else (LENGTH, DRAWS)
    ours.write_weights(options.load("117M", changes), folder)
    words = ["generate", "--serve", "ours", precision, "--output_dir", folder, "--batch", str(batch), "--prompt",
             str(PROMPT // 2 if quick else PROMPT), "--length", str(length), "--rounds", str(draws),
             *options.set_words(changes)]
    return Case(draws * batch * length, "tokens", lambda side: _served(side, words, 1, draws, "all", "tokens"))


def _served(side, words, warm_up, count, clock, result):
    """Yields after each of `count` turns of a benchmark's --serve; `clock` and `result` name parts of its answers."""
    seconds = cpu = 0
    with turns.process(f"{words[0]} {side.name}", ["-m", f"benchmarks.{words[0]}", *words[1:]],
                       train.environment("cpu"), side.root) as turn:
        for number in range(warm_up + count):
            answer = turn()
            if number >= warm_up:
                seconds, cpu = seconds + answer[clock], cpu + answer["cpu"]
                yield
    yield Measured(seconds, cpu, turn.last["peak"], turn.last[result])


def _evaluation(precision, quick, folder):
    changes = {**(QUICK if quick else {}), "precision": precision, "init_checkpoint": os.path.join(folder, "weights"),
               "input": "tfrecords", "data_path": folder, "train_files": "text_0.tfrecords",
               "eval_files": "text_0.tfrecords"}
    config = options.load("117M", options.overrides(changes))
    ours.write_weights(config, config.init_checkpoint)
    tokens = EVAL_WINDOWS * config.n_ctx  # <|endoftext|> behind them is the last target
    ids = np.random.default_rng(1).integers(0, config.n_vocab - 1, tokens)
    tfrecords.write(os.path.join(folder, "text_0.tfrecords"), [(b"text", ids, 0)])

    def run(side):
        own = options.overrides({**changes, "model_dir": os.path.join(folder, f"run-{side.name}")})
        used = _command(side, "main.py", "--eval", "--model", os.path.join(side.root, "configs", "117M.json"),
                        *options.set_words(own))
        yield Measured(used.seconds, used.cpu, used.peak, [shakespeare.loss_in(used.output)])
    return Case(tokens, "tokens", run, warm_up=1)


def _create_tfrecords(quick, folder):
    from benchmarks import preparation  # here: its libraries are those for web pages
    megabytes = QUICK_MEGABYTES if quick else TEXT_MEGABYTES
    texts = os.path.join(folder, "texts")
    _, size = preparation.collect_texts(preparation.INSTALLED, megabytes, texts)

    def run(side):
        output = os.path.join(folder, side.name)
        used = _command(side, os.path.join("datasets", "create_tfrecords.py"), "--input", texts, "--name", "text",
                        "--eval_fraction", "0", "--files_per", str(FILES_PER), "--output_dir", output)
        shards = sorted(name for name in os.listdir(output) if name.endswith(".tfrecords"))
        digests = [_digest(os.path.join(output, name)) for name in shards]
        shutil.rmtree(output)
        yield Measured(used.seconds, used.cpu, used.peak, digests)
    return Case(size / 1e6, "MB", run, warm_up=1)


def _digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def _command(side, script, *words):
    return machine.run([sys.executable, os.path.join(side.root, script), *words], cwd=side.root,
                       env=train.environment("cpu"))


CASES = {
    **{f"train-{setting}-{precision}": functools.partial(_training, setting, precision)
       for setting in ("124M-4x256", "124M-2x1024", "small") for precision in PRECISIONS},
    **{f"generate-{batch}-{precision}": functools.partial(_generation, batch, precision)
       for batch in (1, 16) for precision in PRECISIONS},
    "create_tfrecords": _create_tfrecords,
    **{f"evaluate-{precision}": functools.partial(_evaluation, precision) for precision in PRECISIONS},
}


def _arguments(argv):
    parser = options.parser("against_commit", __doc__)
    add = parser.add_argument
    add("--commit", required=True, help="the other side: a commit, branch or tag of this repository")
    add("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="of: " + ", ".join(CASES))
    add("--rounds", type=int, default=5, help="measurements of each case")
    add("--quick", action="store_true", help="the same cases with a tiny network and little text, for a trial")
    add("--apart", action="store_true", help="one side in memory at a time")
    add("--output_dir", help="where the other commit, weights and checkpoints go for a moment (5 GB); default: TMPDIR")
    args = parser.parse_args(argv)
    options.check_least(args, rounds=1)
    return args


if __name__ == "__main__":
    commands.run(main)
