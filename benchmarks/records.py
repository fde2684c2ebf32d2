"""What single runs gave: a JSON object a line in benchmarks/results/NAME.jsonl, so that a figure can be made again."""
import json
import os
import subprocess
import time

from benchmarks import machine, options
from configs import storage

FOLDER = os.path.join(options.ROOT, "benchmarks", "results")
CHANGED = "+changes"  # behind a commit where sources or configs differ from it


def origin():
    """Where a result comes from: {"commit", "machine", "date"}.  To be taken before the run, which may be long."""
    return {"commit": _commit(), "machine": machine.described("TensorFlow"), "date": time.strftime("%Y-%m-%d")}


def _commit():
    """The commit that is checked out, marked where it is not what runs; None outside of a repository."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + (CHANGED if _git("status", "--porcelain", "--", "*.py", "*.json") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words):
    return subprocess.run(["git", *words], cwd=options.ROOT, text=True, capture_output=True, check=True).stdout.strip()


def append(name, values):
    """Adds a run to benchmarks/results/`name`.jsonl, with its origin() where `values` tell none.

    A run that is there already, whatever its origin, is not added again.
    """
    origins = origin()
    if any(_result(line, origins) == _result(values, origins) for line in read(name)):
        return
    os.makedirs(FOLDER, exist_ok=True)
    storage.append_whole(_path(name), json.dumps({**origins, **values}) + "\n")


def read(name):
    """List of the runs in benchmarks/results/`name`.jsonl, [] where there is no file."""
    if not os.path.exists(_path(name)):
        return []
    with open(_path(name)) as f:
        return [json.loads(line) for line in f]


def _result(line, origins):
    return {key: value for key, value in line.items() if key not in origins}


def _path(name):
    return os.path.join(FOLDER, f"{name}.jsonl")
