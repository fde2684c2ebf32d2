"""Peak memory of training steps at full size: `main.py` on random tokens, watched from outside.

Each case is a process of its own: a config for some steps on a shard of random tokens.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import os
import shutil
import sys
import tempfile

import numpy as np

from benchmarks import machine, options, ours
from configs import commands, schema
from datasets import tfrecords

# name: (preset, keys that differ)
CASES = {
    # Recomputation is judged by these 24 layers, with one sequence of 1,024 tokens at a time.
    "24 layers": ("345M", {"precision": "float32", "train_batch_size": 1, "micro_batch_size": None}),
    "24 layers, recompute": ("345M", {"precision": "float32", "train_batch_size": 1, "micro_batch_size": None,
                                      "recompute": True}),
    "345M, batch 8": ("345M", {"train_batch_size": 8, "micro_batch_size": 1}),
    "345M, batch 8, recompute": ("345M", {"train_batch_size": 8, "micro_batch_size": 2, "recompute": True}),
    "1.5B": ("1.5B", {"train_batch_size": 2, "micro_batch_size": 1}),
}
STEPS = 1
# The peak of this network is what Python, TensorFlow and the input pipeline take by themselves.
EMPTY = {"n_embd": 64, "n_layer": 1, "n_head": 1, "n_vocab": 50257, "n_ctx": 16, "train_batch_size": 1,
         "micro_batch_size": None, "precision": "float32", "recompute": False}


def main(argv=None):
    """Prints the peaks of the cases and the JSON line; returns 0."""
    args = _arguments(argv)
    print(f"{machine.described('TensorFlow')}; {STEPS} step(s) each", flush=True)
    result = {}
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        _write_shard(folder)
        idle = _run(folder, "117M", EMPTY, 1).peak
        print(f"{'TensorFlow alone':26} peak {_gigabytes(idle)}", flush=True)
        for name in args.only or CASES:
            preset, changes = CASES[name]
            used = _run(folder, preset, changes, STEPS)
            peak, state = used.peak, ours.step_memory(_config(preset, changes, folder))
            result[name] = {"peak": peak, "state": state, "beyond": peak - state - idle,
                            "seconds": round(used.seconds)}
            print(f"{name:26} peak {_gigabytes(peak)}, of it weights, gradients and optimizer "
                  f"{_gigabytes(state)}, beyond these and TensorFlow {_gigabytes(peak - state - idle)}, "
                  f"{used.seconds:.0f} s", flush=True)
    print(json.dumps({"idle": idle, **result}))
    return 0


def _config(preset, changes, folder):
    values = {**changes, "model_dir": os.path.join(folder, "run"), "input": "tfrecords", "eval_steps": 0,
              "data_path": folder, "train_files": "random_*.tfrecords", "warmup_steps": 0}
    return options.load(preset, options.overrides(values))


def _run(folder, preset, changes, steps):
    """The machine.Usage of `main.py`, start to end, for so many steps."""
    config = _config(preset, {**changes, "max_steps": steps}, folder)
    path = os.path.join(folder, "config.json")
    schema.save(config, path)
    used = machine.run([sys.executable, options.MAIN, "--model", path],
                       "it may need more memory than this machine has")
    shutil.rmtree(config.model_dir)
    return used


def _gigabytes(count):
    return f"{count / 1e9:.2f} GB"


def _write_shard(folder):
    random = np.random.RandomState(0)
    documents = ((b"%d" % number, random.randint(0, 50256, 5000), 0) for number in range(20))
    tfrecords.write(os.path.join(folder, "random_0.tfrecords"), documents)


def _arguments(argv):
    parser = options.parser("memory", __doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--output_dir", help="where the checkpoints go for a moment (1.5B: 6 GB); default: TMPDIR")
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
