"""The figures of a run, model_dir/metrics.jsonl: an object a line, the writer beside the reader (no TensorFlow here).

Of the training every ten steps (hooks.Progress), of each evaluation (after_evaluation.py).
"""
import json
import math
import time

from configs import reading, storage
from models.run import extras

FILE = "metrics.jsonl"
HUGE = 1e6  # from here on a figure is shown with an exponent


def entry(step, **figures):
    """A line: the step, the time in Unix seconds, the figures with seven digits; null: not known, or not finite."""
    return {"step": int(step), "time": round(time.time(), 3),
            **{name: _figure(value) for name, value in figures.items()}}


def _figure(value):
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def in_words(value, digits):
    """The value with so many digits behind the point, or with six in all where it is huge."""
    return f"{value:.{digits}f}" if value < HUGE else f"{value:.6g}"


def append(model_dir, entries):
    """Adds the entries; on gs:// that writes the whole file anew."""
    path = storage.join(model_dir, FILE)
    with extras.written(path):
        storage.append_whole(path, "".join(json.dumps(values) + "\n" for values in entries))


def read(model_dir):
    """List of the entries, [] where there is no file."""
    return [values for _, values in _lines(storage.join(model_dir, FILE))]


def cut(model_dir, step, *, evaluates=False):
    """Drops the lines beyond `step`, from which the run goes on, and those that a kill broke off.

    Where the run begins with the evaluation of `step`, which was broken off (`evaluates`), its lines go as well.
    """
    path = storage.join(model_dir, FILE)
    with extras.written(path):
        kept = "".join(line + "\n" for line, values in _lines(path) if values["step"] < step
                       or values["step"] == step and ("loss" in values or not evaluates))
        if storage.exists(path) and storage.read_bytes(path) != kept.encode():
            storage.write_whole(path, kept)


def _lines(path):
    """[(line, its object)] of the lines that are whole."""
    if not storage.exists(path):
        return []
    found = []
    for line in storage.read_bytes(path).decode(errors="replace").split("\n"):
        try:
            values = reading.parse(line)
        except ValueError:
            continue
        if isinstance(values, dict) and type(values.get("step")) is int:
            found.append((line, values))
    return found
