"""Training speed against batch, window, layers and width: tokens a second and operations a second, as table and plot.

One size at a time differs from a network in the middle.  Each point is ours in benchmarks/train.py, a process of its
own.  --plot writes an SVG.  Ends with one JSON line.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import tempfile
from importlib.metadata import version

from benchmarks import data, products, train, turns
from benchmarks.machine import processor
from configs import commands, errors, storage
from configs.errors import UserError
from datasets.jobs import workers

MIDDLE = {"train_batch_size": 4, "n_ctx": 128, "n_layer": 6, "n_embd": 384}
SWEEPS = {  # key: (its name in the plot, its values)
    "train_batch_size": ("batch", (1, 2, 4, 8, 16, 32)),
    "n_ctx": ("window", (32, 64, 128, 256, 512, 1024)),
    "n_layer": ("layers", (1, 2, 3, 6, 12, 24)),
    "n_embd": ("width", (64, 128, 256, 384, 768)),
}
HEAD_SIZE, N_VOCAB = 64, 8192
SETTING = "124M-4x256"  # of train.py, whose other keys hold
PRECISIONS = {"float32": "#1f77b4", "bfloat16": "#d62728"}  # and their colours
SHOWN = {"tokens_per_second": "tokens/s", "gigaoperations_per_second": "G operations/s"}
WIDTH, HEIGHT, LEFT, TOP = 190, 140, 55, 40  # of a panel of the plot, and the space before it


def main(argv=None):
    """Arguments -> a line for each point, a table for each size, the plot and the JSON line; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    print(f"{workers.cores()} cores of {processor()}, load {os.getloadavg()[0]:.1f}, Python "
          f"{platform.python_version()}, TensorFlow {version('tensorflow')}; around {_named(MIDDLE)}; vocabulary of "
          f"{N_VOCAB:,}; {args.rounds} rounds", flush=True)
    found, known = {}, {}
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        data.make_corpus(folder, train.CORPUS_BYTES / 1e9, 500, N_VOCAB)
        for key in args.only:
            found[key] = {precision: {} for precision in args.precision}
            for value in args.values or SWEEPS[key][1]:
                for precision in args.precision:
                    sizes = {**MIDDLE, key: value}
                    point = (*sizes.values(), precision)
                    if point not in known:  # the sweeps meet in the middle
                        known[point] = _measure(args, folder, sizes, precision)
                    found[key][precision][value] = known[point]
    for key, lines in found.items():
        print(_table(key, lines))
    if args.plot:
        storage.write_whole(args.plot, plot(found))
        print(f"wrote {args.plot}")
    print(json.dumps(found))
    return 0


def _named(sizes):
    return ", ".join(f"{SWEEPS[key][0]} {value}" for key, value in sizes.items())


def _measure(args, folder, sizes, precision):
    """The figures of one point, printed and as a dict."""
    keys = {**sizes, "n_head": max(1, sizes["n_embd"] // HEAD_SIZE), "n_vocab": N_VOCAB, "init_checkpoint": None}
    arguments = ["--setting", SETTING, "--device", args.device, "--steps", "1", "--output_dir", folder,
                 *(word for key, value in keys.items() for word in ("--set", f"{key}={json.dumps(value)}"))]
    options = train.arguments(arguments)
    config = train.config_of(options, SETTING, folder)
    tokens, name = config.train_batch_size * config.n_ctx, f"{_named(sizes)}, {precision}"
    command = ["-m", "benchmarks.train", "--serve", "ours", precision, *arguments]
    with turns.process(name, command, train.environment(args.device)) as turn:
        turn()  # the first step, which also builds
        rates = [tokens / _step_seconds(turn, args.seconds) for _ in range(args.rounds + 1)][1:]
    shutil.rmtree(os.path.join(folder, f"run-ours-{precision}"))
    rate = statistics.median(rates)
    needed = products.operations(products.shapes(config)) + products.attention_operations(config)
    print(f"{name}: {rate:,.0f} tokens/s (from {min(rates):,.0f} to {max(rates):,.0f}), "
          f"{rate * needed / tokens / 1e9:,.0f} G operations/s", flush=True)
    return {"tokens_per_second": round(rate, 1), "lowest": round(min(rates), 1), "highest": round(max(rates), 1),
            "gigaoperations_per_second": round(rate * needed / tokens / 1e9, 1)}


def _step_seconds(turn, least):
    """Mean seconds of a step, over so many that they take `least` seconds."""
    steps, seconds = 0, 0.0
    while not steps or seconds < least:
        seconds += turn()["seconds"]
        steps += 1
    return seconds / steps


def _table(key, lines):
    head = [f"{what}, {precision}" for precision in lines for what in SHOWN.values()]
    rows = [f"\n| {SWEEPS[key][0]} | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1)]
    for value in next(iter(lines.values())):
        cells = [f"{points[value][what]:,.0f}" for points in lines.values() for what in SHOWN]
        rows.append(f"| {value} | {' | '.join(cells)} |")
    return "\n".join(rows)


# The plot

def plot(found):
    """SVG of what main() found: a column for each size, a row for each of SHOWN; both axes are logarithmic."""
    width, height = LEFT + len(found) * (WIDTH + LEFT), TOP + len(SHOWN) * (HEIGHT + TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
             f' font-size="10">', f'<rect width="{width}" height="{height}" fill="white"/>']
    for row, (what, title) in enumerate(SHOWN.items()):
        for column, (key, lines) in enumerate(found.items()):
            place = LEFT + column * (WIDTH + LEFT), TOP + row * (HEIGHT + TOP)
            parts += _panel(place, f"{title} by {SWEEPS[key][0]}",
                            {precision: {value: point[what] for value, point in points.items()}
                             for precision, points in lines.items()})
    for number, (precision, colour) in enumerate(PRECISIONS.items()):
        parts.append(f'<text x="{LEFT + 70 * number}" y="14" fill="{colour}">{precision}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(place, title, lines):
    """Elements of one panel: `lines` {precision: {x: y}}."""
    left, top = place
    xs, ys = sorted({x for line in lines.values() for x in line}), [y for line in lines.values() for y in line.values()]
    low, high = math.floor(math.log10(min(ys))), math.floor(math.log10(max(ys))) + 1

    def across(x):
        return left + WIDTH * (math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) if len(xs) > 1 else 0.5)

    def down(y):
        return top + HEIGHT * (high - math.log10(y)) / (high - low)
    parts = [f'<text x="{left}" y="{top - 6}">{title}</text>',
             f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>']
    parts += [f'<text x="{across(x):.1f}" y="{top + HEIGHT + 12}" text-anchor="middle">{x}</text>' for x in xs]
    for power in range(low, high + 1):
        y = down(10 ** power)
        parts += [f'<text x="{left - 4}" y="{y + 3:.1f}" text-anchor="end">{10 ** power:,}</text>',
                  f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>']
    for precision, line in lines.items():
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{PRECISIONS[precision]}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{PRECISIONS[precision]}"/>'
                  for x, y in line.items()]
    return parts


def _arguments(argv):
    parser = errors.Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS), help="vary these sizes")
    add("--values", nargs="+", type=int, help="give them these values; default: of each its own")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="one line in the plot for each")
    add("--rounds", type=int, default=3, help="measurements of each point, after one that is not counted")
    add("--seconds", type=float, default=2.0, help="of steps in a measurement, at least")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="where to train")
    add("--plot", metavar="FILE", help="write the plot there, as SVG")
    add("--output_dir", help="where corpus and checkpoints go for a moment (1 GB); default: TMPDIR")
    args = parser.parse_args(argv)
    for name, low in (("rounds", 1), ("seconds", 0)):
        if getattr(args, name) < low:
            raise UserError(f"--{name} {getattr(args, name)} is out of range: give at least {low}")
    if min(args.values or [1]) < 1:
        raise UserError(f"--values {min(args.values)} is out of range: give at least 1")
    return args


if __name__ == "__main__":
    commands.run(main)
