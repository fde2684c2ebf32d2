"""Training speed against batch, window, layers and width: tokens a second and operations a second, as table and plot.

One size at a time differs from a network in the middle.  Each point is the contender "ours" of benchmarks.train, in a
process of its own.  --plot writes a picture.  Ends with one JSON line.
"""
from __future__ import annotations

if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import io
import json
import os
import shutil
import statistics
import tempfile

from benchmarks import data, machine, options, products, train, turns
from configs import commands, storage
from configs.errors import UserError
from models.run import loss_picture

MIDDLE = {"train_batch_size": 4, "n_ctx": 128, "n_layer": 6, "n_embd": 384}
SWEEPS = {  # key: (name in the plot, values)
    "train_batch_size": ("batch", (1, 2, 4, 8, 16, 32)),
    "n_ctx": ("window", (32, 64, 128, 256, 512, 1024)),
    "n_layer": ("layers", (1, 2, 3, 6, 12, 24)),
    "n_embd": ("width", (64, 128, 256, 384, 768)),
}
HEAD_SIZE, N_VOCAB = 64, 8192
SETTING = "124M-4x256"  # of benchmarks.train; its other keys stay as they are
PRECISIONS = {"float32": "#1f77b4", "bfloat16": "#d62728"}  # and their colours
SHOWN = {"tokens_per_second": "tokens/s", "gigaoperations_per_second": "G operations/s"}
PANEL = 2.6, 2.2  # inches
ENDINGS = ("png", "svg")


def main(argv=None):
    """Prints a line for each point, a table for each size and the JSON line, and writes the plot; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    print(f"{machine.described('TensorFlow')}; around {_named(MIDDLE)}; vocabulary of {N_VOCAB:,}; {args.rounds} "
          "rounds", flush=True)
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
        storage.write_whole(args.plot, plot(found, args.plot.rpartition(".")[2]))
        print(f"wrote {args.plot}")
    print(json.dumps(found))
    return 0


def _named(sizes):
    return ", ".join(f"{SWEEPS[key][0]} {value}" for key, value in sizes.items())


def _measure(args, folder, sizes, precision):
    """Prints the figures of one point and returns them as a dict."""
    keys = {**sizes, "n_head": max(1, sizes["n_embd"] // HEAD_SIZE), "n_vocab": N_VOCAB, "init_checkpoint": None}
    arguments = ["--setting", SETTING, "--device", args.device, "--steps", "1", "--output_dir", folder,
                 *options.set_words(options.overrides(keys))]
    config = train.config_of(train.arguments(arguments), SETTING, folder)
    tokens, name = config.train_batch_size * config.n_ctx, f"{_named(sizes)}, {precision}"
    command = ["-m", "benchmarks.train", "--serve", "ours", precision, *arguments]
    with turns.process(name, command, train.environment(args.device)) as turn:
        turn()  # the first step, which also builds
        rates = [tokens / _step_seconds(turn, args.seconds) for _ in range(args.rounds + 1)][1:]
    shutil.rmtree(os.path.join(folder, f"run-ours-{precision}"))
    rate = statistics.median(rates)
    needed = products.step_operations(config)
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


def plot(found, ending):
    """Bytes of a picture: a column for each size, a row for each of SHOWN, all axes logarithmic."""
    # Letters stay letters, and the same figures give the same bytes.
    fixed = {"svg.fonttype": "none", "svg.hashsalt": "scaling", "font.sans-serif": "DejaVu Sans"}
    with loss_picture.library().rc_context(fixed):
        return _drawn(found, ending)


def _drawn(found, ending):
    from matplotlib import ticker
    from matplotlib.figure import Figure  # and not pyplot, which looks for a screen
    figure = Figure(figsize=(PANEL[0] * len(found), PANEL[1] * len(SHOWN)), layout="constrained")
    panels = figure.subplots(len(SHOWN), len(found), squeeze=False, sharex="col", sharey="row")
    for row, (what, title) in zip(panels, SHOWN.items()):
        row[0].set_ylabel(title)
        for panel, lines in zip(row, found.values()):
            for precision, points in lines.items():
                panel.plot(list(points), [point[what] for point in points.values()], ".-", color=PRECISIONS[precision],
                           label=precision)
            panel.set(xscale="log", yscale="log", xticks=list(points))
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5, 7)))
            for axis, form in ((panel.xaxis, "{x:.0f}"), (panel.yaxis, "{x:,.0f}")):
                axis.set_major_formatter(form)
                axis.set_minor_locator(ticker.NullLocator())
            panel.tick_params(left=False, bottom=False)
            panel.grid(axis="y", color="#ddd")
    for panel, key in zip(panels[-1], found):
        panel.set_xlabel(SWEEPS[key][0])
    panels[0][0].legend()
    picture = io.BytesIO()
    figure.savefig(picture, format=ending, metadata={"Date": None} if ending == "svg" else None)
    return picture.getvalue()


def _arguments(argv):
    parser = options.parser("scaling", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS), help="vary these sizes")
    add("--values", nargs="+", type=int, help="give them these values; default: of each its own")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="one line in the plot for each")
    add("--rounds", type=int, default=3, help="measurements of each point, after one that is not counted")
    add("--seconds", type=float, default=2.0, help="of steps in a measurement, at least")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="where to train")
    add("--plot", metavar="FILE", help="write the plot there, a .png or .svg")
    add("--output_dir", help="where corpus and checkpoints go for a moment (1 GB); default: TMPDIR")
    args = parser.parse_args(argv)
    options.check_least(args, rounds=1, seconds=0)
    if min(args.values or [1]) < 1:
        raise UserError(f"--values {min(args.values)} is out of range: give at least 1")
    if args.plot and args.plot.rpartition(".")[2] not in ENDINGS:
        raise UserError(f"--plot {args.plot}: give a name that ends with .png or .svg")
    return args


if __name__ == "__main__":
    commands.run(main)
