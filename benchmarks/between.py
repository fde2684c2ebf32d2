"""What lies between two stretches of steps: an evaluation beyond its own steps, and the writing of a checkpoint.

Each setting trains a few steps with a checkpoint behind each, and then evaluates, in turn on few and on more batches:
the difference is what a batch takes, the rest is what an evaluation takes anyway (its graph, its session, the weights
from the checkpoint).  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import os
import statistics
import tempfile

from benchmarks import data, machine, options, ours
from configs import commands, storage

# name: (preset, its changes, batches that its evaluations read, batches that are timed)
SETTINGS = {"quickstart": ("quickstart", {"n_vocab": 4096}, 63, (5, 20)),
            "124M": ("117M", {"train_batch_size": 1, "n_ctx": 256, "eval_batch_size": 4, "micro_batch_size": None}, 100,
                     (4, 12))}
DATA = {"encoder_path": None, "train_files": f"{data.NAME}_*.tfrecords", "eval_files": f"{data.NAME}_*.tfrecords",
        "input": "tfrecords", "save_checkpoints_steps": 1, "keep_checkpoint_max": 1}
WANTED = 1.5  # seconds of an evaluation beside those of its batches


def main(argv=None):
    """Prints what each setting took and the JSON line; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    ours.start_quietly()
    print(machine.described("TensorFlow"), flush=True)
    result = {}
    for name in args.only:
        with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
            result[name] = measured(args, name, folder)
    print(json.dumps(result))
    return 0


def measured(args, name, folder):
    """Median seconds of one of SETTINGS: `batch`, `beyond` the batches of an evaluation, `save`; and the `ratio`."""
    preset, changes, usual, batches = SETTINGS[name]
    places = {"data_path": folder, "model_dir": os.path.join(folder, "run")}
    config = options.load(preset, [*options.overrides({**changes, **DATA, **places}), *args.overrides])
    data.make_corpus(folder, 0.002, 500, config.n_vocab)
    saves, evaluations = ours.between_steps(config, batches, args.rounds)
    few, many = (statistics.median(evaluations[count]) for count in batches)
    batch = (many - few) / (batches[1] - batches[0])
    beyond = few - batches[0] * batch
    found = {"batch": batch, "beyond": beyond, "ratio": 1 + beyond / (usual * batch), "save": statistics.median(saves)}
    found = {key: round(value, 3) for key, value in found.items()}
    print(f"{name}: an evaluation takes {beyond:.2f} s beyond its batches of {batch:.3f} s: {found['ratio']:.2f} times"
          f" those of {usual} (wanted: at most {WANTED}); a checkpoint is written in {found['save']:.2f} s", flush=True)
    return found


def _arguments(argv):
    parser = options.parser("between", __doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="measure these alone")
    add("--rounds", type=int, default=5, help="measurements of each, after one that is not counted")
    add("--output_dir", help="where corpus and checkpoints go for a moment (4 GB); default: TMPDIR")
    options.add_set(parser, "the setting's config")
    args = parser.parse_args(argv)
    options.check_least(args, rounds=1)
    return args


if __name__ == "__main__":
    commands.run(main)
