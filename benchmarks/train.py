"""Training beside transformers (torch): tokens a second, share of what the matrix products allow, memory, start-up.

Ours is what main.py runs: the estimator, its hooks, the input pipeline on tfrecords.  Theirs is GPT2LMHeadModel in a
plain loop, eager and by torch.compile, with scaled_dot_product_attention, fused AdamW and clipping, its batches ready
in memory.  Both start from the same random weights and see the same tokens first.  Each is a process of its own that
waits for its turn; between the turns it is measured how fast the machine multiplies the model's matrices.

bfloat16 means activations in bfloat16 and weights in float32 on both sides (theirs by torch.autocast).
"bfloat16-weights" is theirs with weights and optimizer in bfloat16, too: it is reported, but it does not count as a
peer, because it does not train as well.  All contenders of one precision are in memory at once: at 124M up to 5 GB
each, and 2 GB for the products (--at_once N: N of them).  Ends with one JSON line.
"""
from __future__ import annotations

if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from typing import NamedTuple

from benchmarks import data, machine, options, ours, products, trainers, turns
from configs import commands, storage
from configs.errors import UserError

CONTENDERS = ("ours", "ours-xla", "torch", "torch-compile")
PRECISIONS = ("float32", "bfloat16", "bfloat16-weights")
UNCOUNTED = "bfloat16-weights"
BATCHES = 16  # different ones, which torch sees again and again
CORPUS_BYTES = 4e6
OF_LIMIT = 0.78
ADAMW_TRAFFIC = 7 * 4  # bytes for each weight: AdamW reads it, its gradient and two means, writes it and the means


class Setting(NamedTuple):
    """What is trained, and which speed is wanted."""
    preset: str
    keys: dict
    steps: int  # in a turn
    wanted: dict  # {precision, or "best" for the best of each side: ratio}
    of_limit: float | None = OF_LIMIT  # the share that is wanted of what matrix products allow
    gpu: bool = False  # measured only on a GPU
    precisions: tuple = PRECISIONS


SETTINGS = {
    "124M-4x256": Setting("117M", {"train_batch_size": 4, "n_ctx": 256, "micro_batch_size": None}, 3,
                          {"float32": 1.25, "bfloat16": 1.3}),
    "124M-2x1024": Setting("117M", {"train_batch_size": 2, "n_ctx": 1024, "micro_batch_size": None}, 2,
                           {"float32": 1.25, "bfloat16": 1.5}),
    "small": Setting("shakespeare-char", {"opt_name": "adam"}, 100, {"best": 1.4}, of_limit=None),
    "124M-16x1024": Setting("117M", {"train_batch_size": 16, "n_ctx": 1024, "micro_batch_size": None}, 20, {},
                            gpu=True, precisions=("bfloat16",)),
}


def main(argv=None):
    """Prints a line for each turn, a table for each setting, and the JSON line; returns 0."""
    args = arguments(argv)
    storage.silence_tensorflow()
    machine.use_cores(args.cores)
    if args.serve:
        _serve(args, *args.serve)
        return 0
    gpu = None if args.device == "cpu" else _gpu()
    if args.device == "gpu" and not gpu:
        raise UserError("--device gpu: nvidia-smi finds no GPU here; leave --device out to measure without one")
    args.device = "gpu" if gpu else "cpu"
    print(f"{machine.described('TensorFlow', 'torch', 'transformers')}; {gpu or 'no GPU'}; {args.rounds} rounds",
          flush=True)
    result = {}
    for name in args.setting:
        if SETTINGS[name].gpu and not gpu:
            result[name] = "not measured: no GPU here"
            print(f"{name}: {result[name]}")
            continue
        with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
            result[name] = measure(args, name, folder)
    print(json.dumps(result))
    return 0


def _gpu():
    """Name and memory of the first GPU; None without one."""
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
                               capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.splitlines()[0].strip() if found.returncode == 0 and found.stdout.strip() else None


def environment(device):
    """Environment of the processes that are measured."""
    if device == "gpu":
        return {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # else TensorFlow takes all of the GPU's memory
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}


def measure(args, name, folder):
    """Prints the figures of one setting and returns them as a dict."""
    setting = SETTINGS[name]
    config = prepare(args, name, folder)
    bandwidth = machine.read_bandwidth()
    parameters = ours.parameters(config)
    print(f"{name}: {parameters / 1e6:.1f} M parameters, {config.train_batch_size} x {config.n_ctx} tokens a step"
          + (f" in micro-batches of {config.micro_batch_size}" if config.micro_batch_size else "")
          + f", {bandwidth / 1e9:.1f} GB/s: AdamW's traffic takes {ADAMW_TRAFFIC * parameters / bandwidth:.3f} s",
          flush=True)
    result = {"parameters": parameters, "gigabytes_per_second": round(bandwidth / 1e9, 1)}
    for precision in [precision for precision in args.precision if precision in setting.precisions]:
        names = [contender for contender in _contenders(args)
                 if precision != UNCOUNTED or contender.startswith("torch")]
        measured = {}
        size = args.at_once or len(names) or 1
        for first in range(0, len(names), size):
            measured.update(_take_turns(args, name, config, folder, precision, names[first:first + size]))
        if measured:
            result[precision] = _figures(args, name, config, precision, measured)
    _compare(name, setting, result)
    return result


def _contenders(args):
    return args.only or [name for name in CONTENDERS if args.device == "gpu" or name != "ours-xla"]


def _steps(args, name):
    return args.steps or SETTINGS[name].steps


class Measured(NamedTuple):
    """What was measured of one contender."""
    first: float  # seconds to the first step
    turns: list  # answers
    rates: list  # the products' operations a second, in the same rounds
    end: dict  # the last answer


def _take_turns(args, name, config, folder, precision, contenders):
    """{contender: Measured} of those that are in memory at once."""
    answers, first, rates = {}, {}, []
    tokens = config.train_batch_size * config.n_ctx * _steps(args, name)
    with contextlib.ExitStack() as stack:
        def start(who):
            command = _command(args, name, folder, who, precision)
            return stack.enter_context(turns.process(f"{who} in {precision}", command, environment(args.device)))
        libraries = [start(f"products-{library}") for library in products.LIBRARIES]
        running = {}
        for who in contenders:
            begun = time.monotonic()
            running[who] = start(who)
            running[who]()  # the first step, which also builds
            first[who] = time.monotonic() - begun
            print(f"{name} {precision}: {who} made its first step after {first[who]:.1f} s", flush=True)
        for number in range(args.rounds + 1):
            rate = products.rate(config, [library() for library in libraries])
            for who, turn in running.items():
                answer = turn()
                if number:  # the first turn warms up
                    answers.setdefault(who, []).append(answer)
                    print(f"{name} {precision}, round {number}: {who:13} {tokens / answer['seconds']:8.1f} tokens/s, "
                          f"{tokens / answer['cpu']:8.1f} a CPU second; products {rate / 1e9:,.0f} G/s", flush=True)
            rates.append(rate)
    return {who: Measured(first[who], answers[who], rates[1:], running[who].last) for who in contenders}


def _figures(args, name, config, precision, measured):
    """Prints the table of one precision and returns it as a dict."""
    tokens = config.train_batch_size * config.n_ctx
    steps = _steps(args, name)
    needed = products.step_operations(config)
    limit = statistics.median(rate for who in measured.values() for rate in who.rates) / needed * tokens
    print(f"\n| {name}, {precision} | tokens/s, median (least, most) | of the {limit:,.0f} that matrix products allow |"
          " a CPU second | peak of the steps | peak before | first step |\n|---|---|---|---|---|---|---|")
    result = {"limit_tokens_per_second": round(limit, 1),
              "gigaoperations_per_second": round(limit * needed / tokens / 1e9)}
    for who, (first, taken, _, end) in measured.items():
        rates = [tokens * steps / turn["seconds"] for turn in taken]
        median = statistics.median(rates)
        by_cpu = statistics.median(tokens * steps / turn["cpu"] for turn in taken)
        result[who] = {"tokens_per_second": round(median, 1), "rounds": [round(rate, 1) for rate in rates],
                       "of_limit": round(median / limit, 3), "tokens_per_cpu_second": round(by_cpu, 1),
                       "peak_mb": round(end["peak"] / 1e6), "start_peak_mb": round(end["start_peak"] / 1e6),
                       "first_step_seconds": round(first, 1), "losses": end["losses"]}
        print(f"| {who} | {median:,.1f} ({min(rates):,.1f}, {max(rates):,.1f}) | {median / limit:.0%} | {by_cpu:,.1f} |"
              f" {end['peak'] / 1e6:,.0f} MB | {end['start_peak'] / 1e6:,.0f} MB | {first:.1f} s |")
    print(flush=True)
    return result


def _compare(name, setting, result):
    """Adds the ratios of ours to the best peer, and by how much first losses differ, to `result`; prints both."""
    counted = {(who, precision): result[precision][who] for precision in PRECISIONS if precision != UNCOUNTED
               for who in CONTENDERS if who in result.get(precision, ())}
    result["ratios"] = {}
    for which in (*PRECISIONS, *(["best"] if "best" in setting.wanted else [])):
        sides = [[figures for (who, precision), figures in counted.items()
                  if who.startswith(side) and which in (precision, "best")] for side in ("ours", "torch")]
        if all(sides):
            result["ratios"][which] = _ratio(f"{name} {which}", setting, setting.wanted.get(which), *(
                max(side, key=lambda figures: figures["tokens_per_second"]) for side in sides))
    losses = [figures["losses"] for (_, precision), figures in counted.items() if precision == "float32"]
    if len(losses) > 1:
        apart = result["first_losses_differ_by"] = max(max(step) - min(step) for step in zip(*losses))
        print(f"{name}: the first {min(map(len, losses))} losses in float32, from {losses[0][0]:.4f} to "
              f"{losses[0][-1]:.4f}, differ by at most {apart:.1e}", flush=True)


def _ratio(label, setting, wanted, own, theirs):
    """Prints and returns how the figures of two contenders compare, round by round; `wanted` is a ratio or None."""
    ratios = [one / other for one, other in zip(own["rounds"], theirs["rounds"])]
    values = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
              "by_cpu_seconds": own["tokens_per_cpu_second"] / theirs["tokens_per_cpu_second"],
              "memory": own["peak_mb"] / theirs["peak_mb"]}
    parts = [f"{label}: ratio {values['ratio']:.2f} (from {min(ratios):.2f} to {max(ratios):.2f}; by CPU seconds "
             f"{values['by_cpu_seconds']:.2f}" + (f"; wanted {wanted})" if wanted else ")"),
             f"memory {values['memory']:.2f} (wanted: at most 1)"]
    if setting.of_limit:
        parts.append(f"{own['of_limit']:.0%} of the products' limit (wanted {setting.of_limit:.0%})")
    print(", ".join(parts))
    return {key: round(value, 3) for key, value in values.items()}


# What is measured on

def prepare(args, name, folder):
    """Writes corpus, weights and torch's batches into `folder`; returns the Config."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this process leaves a GPU to those that are measured
    config = config_of(args, name, folder)
    write_data(config, folder)
    trainers.save_batches(config, folder, BATCHES)
    return config


def write_data(config, folder):
    """Writes what all contenders read into `folder`: corpus and weights."""
    data.make_corpus(folder, CORPUS_BYTES / 1e9, 500, config.n_vocab)
    ours.write_weights(config, os.path.join(folder, trainers.WEIGHTS))


def config_of(args, name, folder, **values):
    """The setting's config, whose learning rate is the same at every step: schedules are not compared."""
    setting = SETTINGS[name]
    values = {**setting.keys, "lr_schedule": "constant", "warmup_steps": 0, "eval_steps": 0, "input": "tfrecords",
              "save_checkpoints_steps": 10**6, "save_checkpoints_minutes": None, "max_steps": 10**6,
              "data_path": folder, "eval_files": None,
              "train_files": f"{data.NAME}_*.tfrecords", "init_checkpoint": os.path.join(folder, trainers.WEIGHTS),
              "encoder_path": None, "model_dir": os.path.join(folder, "run"), **values}
    return options.load(setting.preset, [*options.overrides(values), *args.overrides])


# The processes

def _command(args, name, folder, who, precision):
    return ["-m", "benchmarks.train", "--serve", who, precision, "--setting", name, "--output_dir", folder,
            "--device", args.device, "--steps", str(_steps(args, name)),
            *options.set_words(args.overrides)]


def _serve(args, who, precision):
    mine, folder, (name,) = turns.Turns(), args.output_dir, args.setting
    dtype = precision.partition("-")[0]
    config = config_of(args, name, folder, precision=dtype, model_dir=os.path.join(folder, f"run-{who}-{precision}"))
    if who.startswith("products"):
        products.serve(mine, config, who.partition("-")[2], dtype, args.device)
        return
    os.environ["USE_TF"] = "0"  # by transformers
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(folder, "inductor"))  # so that it compiles anew
    if who == "ours-xla" and args.device == "cpu":
        os.environ.setdefault("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit")
    trainers.serve(mine, who, config, folder=folder, steps=args.steps, device=args.device,
                   weights_dtype=dtype if precision == UNCOUNTED else None)


def arguments(argv):
    parser = options.parser("train", __doc__)
    add = parser.add_argument
    add("--setting", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="what to train; without a GPU those for"
        " one are left out")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="one table for each")
    add("--only", nargs="+", choices=CONTENDERS, help="these contenders; default: all, ours-xla on a GPU alone")
    add("--rounds", type=int, default=5, help="turns of each, after two that are not counted")
    add("--steps", type=int, default=0, help="of a turn; 0: the setting's own")
    add("--at_once", type=int, default=0, help="contenders in memory at once: fewer need less memory, but meet"
        " other minutes of the machine; 0: all of a precision")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: the GPU, if there is one")
    options.add_cores(parser)
    add("--output_dir", help="where weights and checkpoints go for a moment (124M: 2.5 GB); default: TMPDIR")
    options.add_set(parser, "the settings' configs (micro_batch_size=1)")
    add("--serve", nargs=2, metavar=("WHO", "PRECISION"), help=options.HIDDEN)
    args = parser.parse_args(argv)
    options.check_least(args, rounds=1, steps=0, at_once=0, cores=0)
    return args


if __name__ == "__main__":
    commands.run(main)
