"""Writes a config that fits a data set and this machine: sizes, batch, learning rate, steps, evaluations.

    python3 tools/new_config.py --data data/mine --name mine      # then: python3 main.py --model mine.json
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import dataclasses
import json
import re

from configs import commands, errors, hardware, schema, storage
from configs.errors import UserError
from datasets import fitting, shard_sets, vocabularies
from datasets.window_order import WindowOrder
from models.run import cost, plan

# The starting weights of the narrow ones are those that the schema advises, 0.5 / sqrt(n_embd).  The tiny one is the
# quick start's, for which Muon was measured (benchmarks/RESULTS.md); for the others it was not.
SIZES = {
    "tiny": {"n_ctx": 128, "n_embd": 128, "n_layer": 4, "n_head": 4, "initializer_range": 0.044, "opt_name": "muon",
             "lr": 8e-3, "train_batch_size": 16},
    "small": {"n_ctx": 256, "n_embd": 256, "n_layer": 6, "n_head": 4, "initializer_range": 0.031, "lr": 1e-3,
              "train_batch_size": 16},
    "124M": {"n_ctx": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "lr": 3e-4, "train_batch_size": 32},
}
SMALL_FROM = 2_000_000  # training tokens
RECIPE = {"lr_min": 0.1, "weight_decay": 0.1}
LEAST_WINDOWS, LEAST_CTX = 16, 32  # a text that is too short for the window gets a shorter one
FIRST_EVALUATION = 300  # seconds, by the estimate
MEMORY_SHARE, GPU_BYTES = 0.5, 8e9  # what a step may take of this machine's memory; on a GPU, whatever its size


def main(argv=None):
    """Arguments -> NAME.json and what it amounts to; returns 0."""
    args = _arguments(argv)
    path = f"{args.name}.json"
    if os.path.lexists(path):
        raise UserError(f"{path} is there already; move it elsewhere, or choose another --name")
    if not storage.is_folder(args.data):
        raise UserError(f"--data {args.data}{storage.looked_for_in(args.data)} is no folder; give that of a data set,"
                        " as datasets/create_tfrecords.py makes it")
    keys = {"data_path": args.data, "model_dir": storage.join("runs", args.name), **RECIPE}
    config, encoder = vocabularies.complete(schema.from_dict(keys, f"--data {args.data}"))
    train, held_out = fitting.sets(config)
    shard_sets.check(train, config, encoder)
    size = args.size or ("small" if train.tokens >= SMALL_FROM else "tiny")
    gpus, _ = hardware.gpus()
    keys.update(SIZES[size])
    keys.update(_fitted(dataclasses.replace(config, **keys), train))
    keys.update(_in_memory(dataclasses.replace(config, **keys), on_cpu=not gpus))
    config = dataclasses.replace(config, **keys)
    seconds = cost.seconds_a_step(config, _gpu_rate() if gpus else None, max(1, len(gpus)))
    keys.update(fitting.evaluations(keys, held_out, n_ctx=config.n_ctx, eval_batch=config.eval_batch_size,
                                    between=max(1, int(FIRST_EVALUATION / seconds))))
    config = schema.from_dict(keys, path)
    stated = {key: value for key, value in keys.items() if value != schema.FIELDS[key].default}
    storage.write_whole(path, json.dumps({key: stated[key] for key in schema.FIELDS if key in stated}, indent=2) + "\n")
    config = dataclasses.replace(config, n_vocab=encoder.size)
    for line in _said(config, train, held_out, seconds):
        print(line)
    print(f"wrote {path}; next: python3 main.py --model {path}")
    return 0


def _gpu_rate():
    """A rate for cost.seconds_a_step, of a GPU."""
    print("measuring the GPU", flush=True)
    storage.silence_tensorflow()
    from models.run import speed, workarounds  # here and not above: TensorFlow takes seconds
    workarounds.prepare()
    return speed.gpu_rate


def _fitted(config, train):
    """{key: value} of window, batch and steps for the ShardSet `train`."""
    n_ctx = config.n_ctx
    while n_ctx > LEAST_CTX and train.targets < LEAST_WINDOWS * n_ctx:
        n_ctx //= 2
    config = dataclasses.replace(config, n_ctx=n_ctx)
    windows = WindowOrder.of(config, train).windows
    optimal = plan.OPTIMAL_TOKENS_PER_PARAMETER * cost.parameter_count(config) / (windows * n_ctx)
    epochs = min(plan.MOST_EPOCHS, optimal)
    return {"n_ctx": n_ctx, **fitting.steps(windows, batch=config.train_batch_size, epochs=epochs)}


def _in_memory(config, on_cpu):
    """{key: value} of micro-batches, and of "recompute", with which a step fits the memory."""
    most = MEMORY_SHARE * hardware.memory()[0] if on_cpu else GPU_BYTES
    if sum(cost.memory(config, on_cpu)) <= most:
        return {}
    ways = cost.ways_to_fit(config, most, on_cpu, precision=False)
    return ways[0] if ways else {"micro_batch_size": 1, "recompute": True}


def _said(config, train, held_out, seconds):
    """Lines on what the config is and how long it takes, at `seconds` a step."""
    epochs = WindowOrder.of(config, train).seen(config.max_steps).epochs[0]
    yield (f"network: {config.n_layer} layers, width {config.n_embd}, context {config.n_ctx}, vocabulary"
           f" {config.n_vocab:,}: {cost.parameter_count(config):,} parameters")
    yield (f"training: {config.max_steps:,} steps of {config.train_batch_size} x {config.n_ctx} tokens,"
           f" {epochs:.1f} epochs of {train.tokens:,} tokens")
    first = cost.human_seconds(seconds * config.train_steps)
    yield (f"time, estimated from products on this machine: about {cost.human_seconds(seconds * config.max_steps)}"
           + (f", the first evaluation after about {first}" if held_out else ""))
    if held_out is None:
        yield ("no evaluations: the data set holds none of its text out for them; create_tfrecords.py has"
               " --eval_fraction")


def _arguments(argv):
    parser = errors.script_parser(__doc__)
    add = parser.add_argument
    add("--data", required=True, metavar="FOLDER", help="folder of a data set of datasets/create_tfrecords.py")
    add("--name", required=True, help="NAME.json is written, for a run in runs/NAME")
    add("--size", choices=list(SIZES), help=f"of the network (without it: small, or tiny for less than {SMALL_FROM:,}"
        " tokens)")
    args = parser.parse_args(argv)
    args.name = args.name.removesuffix(".json")
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise UserError(f"--name {args.name!r}: use letters, digits, dot, dash and underscore")
    return args


if __name__ == "__main__":
    commands.run(main)
