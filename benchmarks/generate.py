"""Generation beside transformers (torch): tokens a second, time to the first token, peak memory, on a CPU.

Both sides read the same random weights from a folder in Hugging Face's format and continue the same random prompts,
ours through the estimator's predict() as `main.py --predict_file` does.  Each side and precision is a process of its
own that waits for its turn, so that all meet the same load of the machine, and memory and threads are their own.
The bandwidth that bounds what one can reach is measured between the turns.  Ends with one JSON line.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version

import numpy as np

from benchmarks import turns
from benchmarks.machine import processor, read_bandwidth, resident
from configs import commands, errors, schema, storage
from configs.errors import UserError
from datasets.jobs import workers
from models import weights as weight_format

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "configs", "117M.json")
SIDES = ("ours", "transformers")
PRECISIONS = {"float32": 4, "bfloat16": 2}  # and the bytes of a weight
WANTED = 1.5


def main(argv=None):
    """Arguments -> one line a measurement, the medians and the JSON line; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    os.environ["USE_TF"] = "0"  # by transformers
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.cores:])
    if args.serve:
        side, precision = args.serve
        serve(_turns(side)(args, precision))
        return 0
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        config = _config(args, folder)
        write_weights(config, folder)
        print(_set_up(args, config), flush=True)
        result = {str(batch): measure(args, config, folder, batch) for batch in args.batch}
    print(json.dumps(result))
    return 0


def _set_up(args, config):
    drawing = f"from the {args.top_k} likeliest" if args.top_k else "greedy"
    return (f"{workers.cores()} cores of {processor()}, load {os.getloadavg()[0]:.1f}, Python "
            f"{platform.python_version()}, TensorFlow {version('tensorflow')}, torch {version('torch')}, transformers "
            f"{version('transformers')}; {_parameters(config) / 1e6:.1f} M parameters, prompts of {args.prompt} tokens,"
            f" {args.length} new ones, {drawing}; {args.rounds} rounds")


def measure(args, config, folder, batch):
    """The figures of one batch size, printed and as a dict."""
    found, bandwidths, tokens = {}, [], batch * args.length
    with contextlib.ExitStack() as stack:
        names = [(side, precision) for side in SIDES for precision in args.precision]
        takers = {name: stack.enter_context(_process(args, folder, batch, *name)) for name in names}
        for number in range(args.rounds + 1):
            bandwidth = read_bandwidth()
            for name, turn in takers.items():
                seen = turn()
                if number:  # the first turn builds and warms up
                    found.setdefault(name, []).append(seen)
                    print(f"batch {batch}, round {number}: {' '.join(name):21} {tokens / seen['all']:7.1f} tokens/s, "
                          f"{tokens / seen['cpu']:7.1f} a CPU second, the first after {seen['first']:.3f} s",
                          flush=True)
            bandwidths.append(bandwidth)
    ends = {name: turn.last for name, turn in takers.items()}
    bandwidth = statistics.median(bandwidths[1:])
    return _summary(args, config, batch, found, ends, bandwidth)


def _summary(args, config, batch, found, ends, bandwidth):
    """Prints and returns what the turns say; of each side, its best precision counts."""
    rates = {name: [batch * args.length / turn["all"] for turn in seen] for name, seen in found.items()}
    figures = {}
    for (side, precision), values in rates.items():
        name, median = (side, precision), statistics.median(values)
        # A step reads every weight once, whatever the batch; of the embeddings, wte alone and as the output layer.
        limit = batch * bandwidth / _bytes_a_step(config, precision)
        cpu, first = (statistics.median(turn[key] for turn in found[name]) for key in ("cpu", "first"))
        figures[name] = {
            "tokens_per_second": round(median, 1), "lowest": round(min(values), 1), "highest": round(max(values), 1),
            "tokens_per_cpu_second": round(batch * args.length / cpu, 1),
            "of_bandwidth_limit": round(median / limit, 3),
            "first_token_seconds": round(first, 4),
            "peak_mb": round(ends[name]["peak"] / 1e6)}
        print(f"batch {batch}: {side + ' ' + precision:21} {median:7.1f} tokens/s (from {min(values):.1f} to "
              f"{max(values):.1f}), {median / limit:.0%} of the {limit:.0f} that memory allows, first token after "
              f"{figures[name]['first_token_seconds']:.3f} s, peak {ends[name]['peak'] / 1e6:,.0f} MB")
    best = {side: max((name for name in rates if name[0] == side), key=lambda name: statistics.median(rates[name]))
            for side in SIDES}
    ratios = [ours / theirs for ours, theirs in zip(*(rates[best[side]] for side in SIDES))]
    ratio = statistics.median(ratios)
    by_cpu = figures[best["ours"]]["tokens_per_cpu_second"] / figures[best["transformers"]]["tokens_per_cpu_second"]
    print(f"batch {batch}: ratio of the best {ratio:.2f} (from {min(ratios):.2f} to {max(ratios):.2f}; by CPU seconds "
          f"{by_cpu:.2f}); wanted: at least {WANTED}; bandwidth {bandwidth / 1e9:.1f} GB/s")
    result = {"ratio": round(ratio, 3), "ratio_by_cpu_seconds": round(by_cpu, 3),
              "gigabytes_per_second": round(bandwidth / 1e9, 1),
              **{side: {"precision": best[side][1], **figures[best[side]]} for side in SIDES},
              "others": {" ".join(name): values["tokens_per_second"] for name, values in figures.items()
                         if name not in best.values()}}
    if "float32" in args.precision:
        one, other = (np.array(ends[side, "float32"]["tokens"]) for side in SIDES)
        result["equal_tokens"] = round(float(np.mean(one == other)), 4)
        print(f"batch {batch}: {result['equal_tokens']:.1%} of the tokens in float32 are the same on both sides")
    return result


# What is measured on

def write_weights(config, folder):
    """Random weights with GPT-2's deviations, as Hugging Face has them."""
    from models.checkpoints import hugging_face
    random = np.random.default_rng(config.seed)
    found = {weight.name: weight for weight in weight_format.weight_list(config)}

    def read(name):
        weight = found[name]
        values = random.standard_normal(weight.shape, np.float32)
        values *= weight.deviation
        return values + np.float32(weight.mean)
    hugging_face.write_folder(folder, config, {name: weight.shape for name, weight in found.items()}, read,
                              config.n_vocab - 1)


def prompts_of(args, n_vocab, batch):
    """int32 [B, S]."""
    return np.random.default_rng(args.seed).integers(0, n_vocab - 1, [batch, args.prompt], np.int32)


def _bytes_a_step(config, precision):
    """Of the weights but wpe: what a step reads."""
    return sum(math.prod(weight.shape) for weight in weight_format.weight_list(config) if weight.name != "wpe") \
        * PRECISIONS[precision]


def _parameters(config):
    return sum(math.prod(weight.shape) for weight in weight_format.weight_list(config))


# The processes

def _process(args, folder, batch, side, precision):
    command = ["-m", "benchmarks.generate", "--serve", side, precision, "--output_dir", folder,
               "--batch", str(batch), *[word for name in ("prompt", "length", "rounds", "top_k", "seed")
                                        for word in (f"--{name}", str(getattr(args, name)))],
               *[word for override in args.overrides for word in ("--set", override)]]
    return turns.process(f"{side} in {precision}", command)


def serve(measured):
    """Answers each turn with the seconds of the next of `measured`, the end with memory and tokens."""
    mine, tokens = turns.Turns(), None
    while mine.come():
        seconds, tokens = next(measured)
        mine.answer(seconds)
    mine.answer({"peak": resident("VmHWM"), "tokens": tokens})


def _turns(side):
    return _our_turns if side == "ours" else _their_turns


def _our_turns(args, precision):
    """Yields ({"first", "all", "cpu"}: seconds, tokens) of each turn."""
    from encoder import bpe, prompts, stop_texts
    from models.run import estimator as estimators
    from models.run import predict
    estimators.quiet()
    batch, = args.batch
    config = _config(args, args.output_dir, precision=precision, predict_batch_size=batch)
    encoder = bpe.load(config.encoder_path)
    given = {"temperature": 1.0 if args.top_k else 0.0, "top_k": args.top_k, "seed": args.seed}
    rows = []
    for length in [1, args.length] * (args.rounds + 1):
        prompt = prompts.make("", {**given, "length": length})
        rows += [predict.Row(prompt, tokens.tolist(), number)
                 for number, tokens in enumerate(prompts_of(args, config.n_vocab, batch))]
    limits, _ = predict.limits_of(config, encoder, sorted({row.prompt for row in rows}))
    input_fn = predict._input_fn(rows, {(): stop_texts.NEVER}, encoder.eot)
    drawn = predict.draw(config, None, None, input_fn, limits)

    def run(length):
        begun = _clocks()
        samples = [next(drawn) for _ in range(batch)]
        seconds = _clocks() - begun
        if any(sample["count"] != length for sample in samples):
            raise UserError("a sample ended before its length; give another --seed")
        return seconds, [sample["tokens"].tolist() for sample in samples]
    with predict.threads_for(config, batch, args.prompt, args.length):
        while True:
            (first, _), _ = run(1)
            (seconds, cpu), tokens = run(args.length)
            yield {"first": first, "all": seconds, "cpu": cpu}, tokens


def _their_turns(args, precision):
    """Yields ({"first", "all", "cpu"}: seconds, tokens) of each turn."""
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    batch, = args.batch
    model = transformers.GPT2LMHeadModel.from_pretrained(args.output_dir, dtype=getattr(torch, precision)).eval()
    model.generation_config.eos_token_id = None  # no sample ends before its length
    ids = torch.tensor(prompts_of(args, model.config.vocab_size, batch), dtype=torch.long)
    given = {"do_sample": True, "top_k": args.top_k} if args.top_k else {"do_sample": False}

    def run(length):
        begun = _clocks()
        with torch.inference_mode():
            found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, use_cache=True,
                                   pad_token_id=0, **given)
        seconds = _clocks() - begun
        assert found.shape == (batch, args.prompt + length)
        return seconds, found[:, args.prompt:].tolist()
    while True:
        (first, _), _ = run(1)
        (seconds, cpu), tokens = run(args.length)
        yield {"first": first, "all": seconds, "cpu": cpu}, tokens


def _clocks():
    """Seconds, and CPU seconds of all this process's threads."""
    return np.array([time.monotonic(), time.process_time()])


def _config(args, folder, **values):
    """The config of configs/117M.json with the weights in `folder`."""
    overrides = {**values, "model_dir": os.path.join(folder, "run"), "init_checkpoint": folder}
    return schema.load(CONFIG, [*args.overrides, *(f"{key}={json.dumps(value)}" for key, value in overrides.items())])


def _arguments(argv):
    parser = errors.Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--batch", type=int, nargs="+", default=[1, 16], help="samples drawn at once; one table for each")
    add("--prompt", type=int, default=64, help="tokens of a prompt")
    add("--length", type=int, default=128, help="tokens to generate for each")
    add("--top_k", type=int, default=0, help="draw from the K likeliest at temperature 1; 0: always the likeliest")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="each side's best one counts")
    add("--rounds", type=int, default=5, help="measurements of each, after one that is not counted")
    add("--cores", type=int, default=0, help="of this process's cores, use the last ones only; 0: all")
    add("--seed", type=int, default=1, help="of weights and prompts")
    add("--output_dir", help="where the weights go for a moment (0.5 GB); default: TMPDIR")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of configs/117M.json, as for main.py; may be repeated")
    add("--serve", nargs=2, metavar=("SIDE", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for name, low in (("prompt", 1), ("length", 2), ("rounds", 1), ("top_k", 0), ("cores", 0)):
        if getattr(args, name) < low:
            raise UserError(f"--{name} {getattr(args, name)} is out of range: give at least {low}")
    if min(args.batch) < 1:
        raise UserError(f"--batch {min(args.batch)} is out of range: give at least 1")
    return args


if __name__ == "__main__":
    commands.run(main)
