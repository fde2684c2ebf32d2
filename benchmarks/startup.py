"""How long main.py takes to its first word, to a text and to its first step, and its memory over many evaluations.

Every measurement is a process of its own: `--help`, `--plan`, a training of 124M until it says that its first step is
done (then it is killed), `--predict_text` from start to end beside a script with transformers, and a small training
that evaluates again and again, whose memory is read after each evaluation.  The first step needs 4 to 5 GB of memory
that no process has had, so the speed of that is told, too.  The texts come from weights in Hugging Face's format and
from a run's own checkpoint, in turn with the script.  Ends with one JSON line.
"""
from __future__ import annotations

if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import data, machine, options, ours
from configs import commands, storage
from configs.errors import UserError

N_VOCAB = 50257  # of GPT-2's vocabulary
FULL_SIZE = {"train_batch_size": 4, "n_ctx": 256, "micro_batch_size": None}
SMALL = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_ctx": 32, "train_batch_size": 4, "eval_batch_size": 4,
         "micro_batch_size": None, "warmup_steps": 0, "train_steps": 5, "eval_steps": 2, "save_checkpoints_steps": 5}
WANTED = {"help": 1.0, "plan": 1.0, "first_step": 12.0}  # seconds
PARTS = (*WANTED, "text", "cycles")
TEXT, LENGTH = "Once upon a time", 100  # what is continued, and by how many tokens
PRECISIONS = ("bfloat16", "float32")
PEER = "transformers"
WANTED_RATIO, WANTED_MEMORY = 1.0, 1.2  # seconds and peak memory beside the script's
SETTLED = 5  # cycles, after which memory should not grow


def main(argv=None):
    """Prints a line for each part and the JSON line; returns 0."""
    args = _arguments(argv)
    print(f"{machine.described('TensorFlow')}; {args.rounds} rounds", flush=True)
    result = {}
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        data.make_corpus(folder, 0.002, 500, N_VOCAB)
        for part in args.only:
            measure = {"cycles": cycles, "text": texts}.get(part)
            result[part] = measure(args, folder) if measure else timed(args, folder, part)
    print(json.dumps(result))
    return 0


def timed(args, folder, part):
    """Median, least and most seconds of one of WANTED."""
    seconds = []
    for number in range(args.rounds + 1):
        begun = time.monotonic()
        if part == "help":
            _to_end(["--help"])
        elif part == "plan":
            _to_end([*_command(args, folder, FULL_SIZE, "plan"), "--plan"])
        else:
            _to_line(_command(args, folder, FULL_SIZE, f"run-{number}"), r"step +1/")
            shutil.rmtree(os.path.join(folder, f"run-{number}"))  # 1.5 GB
        if number:  # the first one brings the files into memory
            seconds.append(time.monotonic() - begun)
    found = {"seconds": round(statistics.median(seconds), 3), "least": round(min(seconds), 3),
             "most": round(max(seconds), 3)}
    print(f"{part}: {found['seconds']:.2f} s (from {found['least']:.2f} to {found['most']:.2f}); wanted: under "
          f"{WANTED[part]:g} s", flush=True)
    if part == "first_step":
        found["fresh_gigabytes_per_second"] = round(machine.first_touch() / 1e9, 3)
        print(f"memory that no process has had: {found['fresh_gigabytes_per_second']} GB/s", flush=True)
    return found


def texts(args, folder):
    """For each precision the seconds, CPU seconds and peak MB of a text from the shell, ours beside transformers'."""
    weights, sources = _weights(args, folder)
    result = {}
    for precision in PRECISIONS:
        lines = {PEER: ["-m", "benchmarks.sample_transformers", weights, precision, str(LENGTH), TEXT],
                 **{name: [options.MAIN, *arguments, "--set", f"precision={precision}", "--predict_text", TEXT,
                           "--length", str(LENGTH), "--temperature", "0"] for name, arguments in sources.items()}}
        used = {name: [] for name in lines}
        for number in range(args.rounds + 1):
            for name, words in lines.items():
                usage = machine.run([sys.executable, *words], cwd=options.ROOT)
                if number:
                    used[name].append(usage)
        result[precision] = _beside_peer(precision, used)
    return result


def _weights(args, folder):
    """(a folder with random weights in Hugging Face's format, {kind of weights: main.py's arguments for it})."""
    from encoder import bpe, formats
    storage.silence_tensorflow()
    weights, run = os.path.join(folder, "weights"), os.path.join(folder, "run-text")
    config = options.load("117M", args.overrides)
    ours.write_weights(config, weights)
    formats.write_hugging_face(weights, bpe.read_files(), config.n_ctx)
    values = {"init_checkpoint": weights, "eval_steps": 0}
    # A step that changes no weight makes a checkpoint with all that a run's own holds.
    still = {**FULL_SIZE, "max_steps": 1, "warmup_steps": 0, "lr": 1e-30, "n_ctx": config.n_ctx}
    _to_end(_command(args, folder, {**still, **values, "train_batch_size": 1}, "run-text"))
    return weights, {"init_checkpoint": _command(args, folder, values, "run-none"),
                     "run": ["--model", os.path.join(run, "config.json")]}


def _beside_peer(precision, used):
    """Prints and returns what the machine.Usage of each command, {name: [one a round]}, comes to."""
    found = {name: {key: round(statistics.median(getattr(usage, key) for usage in usages) / unit, digits)
                    for key, unit, digits in (("seconds", 1, 2), ("cpu", 1, 2), ("peak", 1e6, 0))}
             for name, usages in used.items()}
    for name, values in found.items():
        if name != PEER:
            ratios = [own.seconds / peer.seconds for own, peer in zip(used[name], used[PEER])]
            values["ratio"] = round(statistics.median(ratios), 3)
            for key in ("cpu", "peak"):
                values[f"{key}_ratio"] = round(values[key] / found[PEER][key], 3)
            values["same_text"] = _continuation(used[name][0].output) == _continuation(used[PEER][0].output)
        print(f"text in {precision}, {name}: " + ", ".join(f"{key} {value}" for key, value in values.items()),
              flush=True)
    print(f"wanted: ratio at most {WANTED_RATIO}, peak_ratio at most {WANTED_MEMORY}", flush=True)
    return found


def _continuation(output):
    """What stands behind TEXT, without main.py's last line."""
    return output.partition(TEXT)[2].rstrip("=").strip()


def cycles(args, folder):
    """Megabytes resident after each evaluation of a small training, and the seconds between them."""
    keys = {**SMALL, "max_steps": SMALL["train_steps"] * args.cycles}
    held, times = [], []
    with _started(_command(args, folder, keys, "cycles")) as process:
        for line in process.stdout:
            if line.startswith("evaluation at step"):
                held.append(machine.resident("VmRSS", process.pid) / 1e6)
                times.append(time.monotonic())
    if process.returncode or len(held) != args.cycles:
        raise UserError(f"main.py ended with status {process.returncode} after {len(held)} evaluations; see above")
    growth = held[-1] - held[min(SETTLED, args.cycles) - 1]
    seconds = [later - earlier for earlier, later in zip(times, times[1:])]
    print(f"cycles: {held[0]:,.0f} MB after the first evaluation, {held[-1]:,.0f} after {args.cycles}, {growth:+,.1f} "
          f"since number {min(SETTLED, args.cycles)} (wanted: flat); {statistics.median(seconds):.2f} s a cycle",
          flush=True)
    return {"mb": [round(megabytes, 1) for megabytes in held], "growth_mb": round(growth, 1),
            "seconds_a_cycle": round(statistics.median(seconds), 2)}


def _command(args, folder, keys, run):
    values = {"input": "tfrecords", "data_path": folder, "train_files": f"{data.NAME}_*.tfrecords",
              "eval_files": f"{data.NAME}_*.tfrecords", "model_dir": os.path.join(folder, run), **keys}
    return ["--model", options.preset("117M"), *options.set_words([*options.overrides(values), *args.overrides])]


def _started(arguments):
    return subprocess.Popen([sys.executable, options.MAIN, *arguments], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONUNBUFFERED": "1"})


def _to_end(arguments):
    status = subprocess.run([sys.executable, options.MAIN, *arguments], stdout=subprocess.DEVNULL).returncode
    if status:
        raise UserError(f"main.py ended with status {status}; see above")


def _to_line(arguments, pattern):
    """Runs main.py until it prints a line that begins so."""
    with _started(arguments) as process:
        found = any(re.match(pattern, line) for line in process.stdout)
        process.kill()
    if not found:
        raise UserError(f"main.py ended before its first step with status {process.returncode}; see above")


def _arguments(argv):
    parser = options.parser("startup", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these alone")
    add("--rounds", type=int, default=5, help="measurements of each, after one that is not counted")
    add("--cycles", type=int, default=20, help="evaluations, each after a few steps; at least 2")
    add("--output_dir", help="where corpus and checkpoints go for a moment (2 GB); default: TMPDIR")
    options.add_set(parser)
    args = parser.parse_args(argv)
    options.check_least(args, rounds=1, cycles=2)
    return args


if __name__ == "__main__":
    commands.run(main)
