"""Peak memory of training steps at full size: `main.py` on random tokens, watched from outside.

Each case is a process of its own: a config, as the command line would give it, for some steps on a shard of random
tokens.  Its largest resident set is what the kernel reports at its end.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np

from configs import commands, errors, schema
from datasets import records
from models.run import plan

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# name: (preset, keys that differ)
CASES = {
    # The 24 layers that recomputation is judged by, one sequence of 1,024 tokens at a time.
    "24 layers": ("345M", {"precision": "float32", "train_batch_size": 1, "micro_batch_size": None}),
    "24 layers, recompute": ("345M", {"precision": "float32", "train_batch_size": 1, "micro_batch_size": None,
                                      "recompute": True}),
    "345M, batch 8": ("345M", {"train_batch_size": 8, "micro_batch_size": 1}),
    "345M, batch 8, recompute": ("345M", {"train_batch_size": 8, "micro_batch_size": 2, "recompute": True}),
    "1.5B": ("1.5B", {"train_batch_size": 2, "micro_batch_size": 1}),
}
STEPS = 1
# Its peak is what Python, TensorFlow and the input pipeline take by themselves.
EMPTY = {"n_embd": 64, "n_layer": 1, "n_head": 1, "n_vocab": 50257, "n_ctx": 16, "train_batch_size": 1,
         "micro_batch_size": None, "precision": "float32", "recompute": False}


def main(argv=None):
    """Arguments -> the cases' peaks as a table and a JSON line; returns 0."""
    args = _arguments(argv)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, TensorFlow "
          f"{version('tensorflow')}; {STEPS} step(s) each", flush=True)
    result = {}
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        _write_shard(folder)
        idle, _ = _run(folder, "117M", EMPTY, 1)
        print(f"{'TensorFlow alone':26} peak {plan.human_bytes(idle)}", flush=True)
        for name in args.only or CASES:
            preset, changes = CASES[name]
            peak, seconds = _run(folder, preset, changes, STEPS)
            state = _state_bytes(_config(preset, changes, folder))
            result[name] = {"peak": peak, "state": state, "beyond": peak - state - idle, "seconds": round(seconds)}
            print(f"{name:26} peak {plan.human_bytes(peak)}, of it weights, gradients and optimizer "
                  f"{plan.human_bytes(state)}, beyond these and TensorFlow {plan.human_bytes(peak - state - idle)}, "
                  f"{seconds:.0f} s", flush=True)
    print(json.dumps({"idle": idle, **result}))
    return 0


def _config(preset, changes, folder):
    overrides = {**changes, "model_dir": os.path.join(folder, "run"), "input": "tfrecords", "eval_steps": 0,
                 "data_path": folder, "train_files": "random_*.tfrecords", "warmup_steps": 0}
    return schema.load(os.path.join(ROOT, "configs", preset + ".json"),
                       [f"{key}={json.dumps(value)}" for key, value in overrides.items()])


def _state_bytes(config):
    memory = plan.memory(config)
    return memory.weights + plan.FLOAT32 * plan.parameter_count(config) + memory.optimizer


def _run(folder, preset, changes, steps):
    """(peak resident bytes, seconds) of `main.py`, start to end, for so many steps."""
    config = _config(preset, {**changes, "max_steps": steps}, folder)
    path = os.path.join(folder, "config.json")
    schema.save(config, path)
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, os.path.join(ROOT, "main.py"), "--model", path],
                               stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    subprocess.run(["rm", "-rf", config.model_dir], check=True)
    if process.returncode:
        raise errors.UserError(f"{preset} {changes} ended with status {process.returncode}; it may need more memory "
                               "than this machine has")
    return usage.ru_maxrss * 1024, time.monotonic() - begun


def _write_shard(folder):
    random = np.random.RandomState(0)
    documents = ((b"%d" % number, random.randint(0, 50256, 5000), 0) for number in range(20))
    records.write(os.path.join(folder, "random_0.tfrecords"), documents)


def _arguments(argv):
    parser = errors.Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--output_dir", help="where the checkpoints go for a moment (1.5B: 6 GB); default: TMPDIR")
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
