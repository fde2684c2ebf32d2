"""The loss as a picture, from metrics.jsonl: model_dir/loss.png, and runs side by side (no TensorFlow here)."""
import io
import logging
import os
import warnings

from configs import storage
from models.run import extras, metrics_file

FILE = "loss.png"
ENDINGS = ("png", "svg")
SIZE = 7, 3.6  # inches
TRAINING, EVALUATION = "loss", "eval_loss"  # keys of metrics.jsonl
MOST_LABELS = 8  # evaluations that are all labelled; of more the lowest and the last


def renew(model_dir):
    """Draws model_dir/loss.png anew, as soon as there is a loss."""
    path = storage.join(model_dir, FILE)
    with extras.written(path):
        entries = metrics_file.read(model_dir)
        if has_loss(entries):
            storage.write_whole(path, draw([("", entries)], "png"))


def has_loss(entries):
    """Whether there is anything to draw."""
    return any(values.get(key) is not None for values in entries for key in (TRAINING, EVALUATION))


def draw(runs, ending, level=None):
    """Bytes of a picture of `runs`, [(name, entries)]: training losses as lines, evaluations as points on a line.

    `level`: (name, loss) of a line to compare with.
    """
    # Letters stay letters, and the same figures give the same bytes.
    fixed = {"svg.fonttype": "none", "svg.hashsalt": "loss", "font.sans-serif": "DejaVu Sans"}
    with library().rc_context(fixed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = io.BytesIO()
        figure_of(runs, level).savefig(picture, format=ending, metadata={"Date": None} if ending == "svg" else None)
        return picture.getvalue()


def library():
    """matplotlib, which says nothing about fonts and looks for no screen."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a cache of fonts that it makes or cannot keep
    os.environ["MPLBACKEND"] = "agg"  # a notebook names one there that its own Python has, and ours has not
    import matplotlib
    return matplotlib


def figure_of(runs, level=None):
    """matplotlib's Figure of the runs, and of the level where there is one."""
    from matplotlib.figure import Figure  # and not pyplot, which looks for a screen
    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")  # readable on a dark page, too
    panel = figure.subplots()
    sizes = [_tokens_a_step(entries) for _, entries in runs]
    by_tokens = None not in sizes and len(set(sizes)) > 1
    for number, ((name, entries), size) in enumerate(zip(runs, sizes)):
        curves = [_curve(entries, key, size if by_tokens else 1) for key in (TRAINING, EVALUATION)]
        if len(runs) == 1:
            _draw_alone(panel, *curves)
        else:
            _draw_beside(panel, *curves, name, f"C{number}")
    _name_axes(panel, by_tokens, sizes[0] if len(set(sizes)) == 1 else None)
    if level:
        panel.axhline(level[1], color="#777", linestyle="--", linewidth=1, label=level[0])
    panel.legend(frameon=False)
    return figure


def _tokens_a_step(entries):
    """By the last line that tells; None where none does."""
    return next((values["tokens"] / values["step"] for values in reversed(entries)
                 if values.get("tokens") and values["step"]), None)


def _curve(entries, key, size):
    """([step times `size`], [value]) of a key, by step; of a step that is noted twice, the later value."""
    found = {values["step"] * size: values[key] for values in entries if values.get(key) is not None}
    return sorted(found), [found[place] for place in sorted(found)]


def _draw_alone(panel, training, evaluation):
    if training[0]:
        panel.plot(*training, color="#9ecae1", linewidth=1, label="training")
    if not evaluation[0]:
        return
    panel.plot(*evaluation, "o-", color="#d62728", markersize=4, label="evaluation, on text held out")
    points = list(zip(*evaluation))
    if len(points) > MOST_LABELS:
        points = {min(points, key=lambda point: point[1]), points[-1]}
    for place, loss in points:
        panel.annotate(f"{loss:.2f}", (place, loss), textcoords="offset points", xytext=(0, 7), ha="center")


def _draw_beside(panel, training, evaluation, name, colour):
    """Draws one of several runs: a colour each, paler for the training; the last evaluation stands behind its name."""
    panel.plot(*training, color=colour, linewidth=1, alpha=0.4)
    last = f": {evaluation[1][-1]:.3f}" if evaluation[0] else ""
    panel.plot(*evaluation, "o-", color=colour, markersize=4, label=name + last)


def _name_axes(panel, by_tokens, size):
    """Steps below and tokens above, where all runs have `size` tokens in a step; else whichever they are drawn by."""
    from matplotlib.ticker import EngFormatter
    panel.set(xlabel="tokens" if by_tokens else "step", ylabel="loss (nats a token)", xlim=(0, None))
    panel.xaxis.set_major_formatter(EngFormatter(sep="") if by_tokens else "{x:,.0f}")
    if size:
        above = panel.secondary_xaxis("top", functions=(lambda step: step * size, lambda tokens: tokens / size))
        above.set_xlabel("tokens")
        above.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.grid(axis="y", color="#ddd")
    panel.spines[["top", "right"]].set_visible(False)
