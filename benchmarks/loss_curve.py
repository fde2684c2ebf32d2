"""The loss of a run as a picture: what it noted for TensorBoard while it trained, and its evaluations.

    python3 -m benchmarks.loss_curve runs/quickstart --plot docs/loss.svg

Ends with one JSON line: {"training": [[step, loss], ...], "evaluation": [[step, loss], ...]}.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import glob
import io
import json
import os

from benchmarks import options
from configs import commands, storage
from configs.errors import UserError

CURVES = {  # name: (folder of events below model_dir, TensorBoard's name of the loss)
    "training": ("", "loss"), "evaluation": ("eval", "token_loss")}
ENDINGS = ("png", "svg")
SIZE = 7, 3.2  # inches


def main(argv=None):
    """Prints the JSON line and writes the picture; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    curves = {name: points(os.path.join(args.model_dir, folder), tag) for name, (folder, tag) in CURVES.items()}
    if not curves["training"]:
        raise UserError(f"{args.model_dir} holds no training loss; give the folder of a run that made ten steps")
    if args.plot:
        storage.write_whole(args.plot, plot(curves, args.plot.rpartition(".")[2]))
        print(f"wrote {args.plot}")
    print(json.dumps(curves))
    return 0


def points(folder, tag):
    """[[step, value]] of `tag` in the event files of a folder, by step; of a step noted twice, the later value."""
    import tensorflow.compat.v1 as tf
    tf.logging.set_verbosity(tf.logging.ERROR)  # the reader of events is deprecated, and says so at length
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*tfevents*"))):
        for event in tf.train.summary_iterator(path):
            for value in event.summary.value:
                if value.tag == tag:
                    found[event.step] = value.simple_value
    return [[step, round(value, 4)] for step, value in sorted(found.items())]


def plot(curves, ending):
    """Bytes of a picture: training loss as a line, evaluations as points with their values."""
    import matplotlib
    # Letters stay letters, and the same figures give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "loss", "font.sans-serif": "DejaVu Sans"}):
        return _drawn(curves, ending)


def _drawn(curves, ending):
    from matplotlib.figure import Figure  # and not pyplot, which looks for a screen
    figure = Figure(figsize=SIZE, layout="constrained")
    panel = figure.subplots()
    panel.plot(*zip(*curves["training"]), color="#9ecae1", linewidth=1, label="training")
    if curves["evaluation"]:
        panel.plot(*zip(*curves["evaluation"]), "o-", color="#d62728", label="evaluation, on files held out")
    for step, loss in curves["evaluation"]:
        panel.annotate(f"{loss:.2f}", (step, loss), textcoords="offset points", xytext=(0, 7), ha="center")
    panel.set(xlabel="step", ylabel="loss (nats a token)", xlim=(0, None))
    panel.grid(axis="y", color="#ddd")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    picture = io.BytesIO()
    figure.patch.set_facecolor("white")  # readable on a dark page, too
    figure.savefig(picture, format=ending, metadata={"Date": None} if ending == "svg" else None)
    return picture.getvalue()


def _arguments(argv):
    parser = options.parser("loss_curve", __doc__)
    parser.add_argument("model_dir", help="the folder of the run")
    parser.add_argument("--plot", metavar="FILE", help="write the picture there, a .png or .svg")
    args = parser.parse_args(argv)
    if args.plot and args.plot.rpartition(".")[2] not in ENDINGS:
        raise UserError(f"--plot {args.plot}: give a name that ends with .png or .svg")
    return args


if __name__ == "__main__":
    commands.run(main)
