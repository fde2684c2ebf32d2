"""Shows that a run survives kill -9: trains it twice, once without a stop and once killed and resumed, and compares.

    python3 tools/verify_resume.py --model configs/quickstart.json --steps 40 --kills 3

Both runs are `main.py` with a hook that notes the loss and a hash of the batch of every step.  The notes and the last
checkpoints (weights, optimizer, step) must be equal to the bit: then the exit status is 0, otherwise 1.
The runs live in a temporary folder (where TMPDIR says); the config's `model_dir` is not touched.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import argparse
import dataclasses
import hashlib
import random
import runpy
import shutil
import subprocess
import tempfile
import time
from typing import NamedTuple

from configs import commands, errors, schema, storage
from configs.errors import UserError
from datasets import vocabularies

SAVES = 5  # fewest checkpoints of a run
POLL_SECONDS = 0.001
SAVE_SECONDS = 0.03  # writing a small checkpoint takes about as long
SHOWN = 3
DIFFERENT = 1  # exit status


class Note(NamedTuple):
    """What a run noted of a step: the loss in hexadecimal, which rounds nothing, and the batch's hash."""
    step: int
    loss: str
    batch: str


def main(argv=None):
    """Trains, compares and prints the verdict; returns the exit status."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    if args.record:
        return _train_and_record(args.model, args.record)
    folder = tempfile.mkdtemp(prefix="verify_resume-")
    try:
        return _verify(args, folder)
    finally:
        if args.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _verify(args, folder):
    config, _ = vocabularies.complete(schema.load(args.model, args.overrides))
    warmup = min(config.warmup_steps, args.steps)
    config = dataclasses.replace(
        config, max_steps=args.steps, warmup_steps=warmup, early_stopping=None,
        decay_steps=config.decay_steps and min(config.decay_steps, args.steps - warmup),
        save_checkpoints_steps=max(1, min(config.save_checkpoints_steps, args.steps // SAVES)))
    print(f"{args.steps} steps, a checkpoint every {config.save_checkpoints_steps}, seed {args.seed}: the run without a"
          " kill", flush=True)
    whole, parts = (_Run(config, os.path.join(folder, name)) for name in ("whole", "parts"))
    status, _ = whole.attempt(None)
    if status:
        return status  # its own message is on stderr
    chance, killed = random.Random(args.seed), True
    while killed:
        status, killed = parts.attempt(chance if len(parts.starts) < args.kills else None)
        end = f"killed {killed}" if killed else f"ended at step {parts.step()}"
        print(f"started at step {parts.starts[-1]}, {end}", flush=True)
    starts = [start for start in parts.starts[1:] if 0 < start < args.steps]
    if not status and not starts:
        raise UserError(f"--steps {args.steps} were over before a kill came; give more")
    problem = f"after the kill the run ended with status {status}" if status else _difference(whole, parts, args.steps)
    if problem:
        print(f"DIFFERENT: {problem}")
        return DIFFERENT
    _show_documents(config, starts[-1] + 1)
    print(f"EQUAL to the bit: {len(whole.tensors(args.steps))} tensors of the checkpoint of step {args.steps} (weights,"
          f" optimizer, step), and loss and batch of {len({note.step for note in parts.notes()})} steps; resumed at"
          f" {', '.join(map(str, starts))}")
    return 0


class _Run:
    """One training in a model_dir of its own, by one process after the other, and what they noted."""

    def __init__(self, config, folder):
        os.makedirs(folder)
        self._config = dataclasses.replace(config, model_dir=os.path.join(folder, "run"))
        self._path, self._record, self._output = (
            os.path.join(folder, name) for name in ("config.json", "steps.txt", "output.txt"))
        schema.save(self._config, self._path)
        self.starts = []  # the step that each process began at

    def attempt(self, chance):
        """Trains to the end, or until a kill at a moment that `chance`, a random.Random, decides (None: no kill).

        Returns (exit status, when it was killed, in words, or None).
        """
        from models.checkpoints import run_checkpoints
        self.starts.append(run_checkpoints.step_of(run_checkpoints.latest(self._config.model_dir)))
        command = [sys.executable, "-u", os.path.abspath(__file__), "--model", self._path, "--record", self._record]
        with open(self._output, "ab") as f:
            process = subprocess.Popen(command, stdout=f)
        try:
            killed = self._kill(process, chance) if chance else None
            status = process.wait()
        finally:
            process.kill()
        return status, killed if status < 0 else None

    def _kill(self, process, chance):
        """Sends SIGKILL after a random step, or in a checkpoint that is written after it; says when, in words."""
        last, noted = self._config.max_steps - 1, len(self.notes())
        target = chance.randint(min(last, max(self.step(), self._config.save_checkpoints_steps) + 1), last)
        in_save = chance.random() < 0.5

        def wait_for(happened):
            while process.poll() is None and not happened():
                time.sleep(POLL_SECONDS)
        wait_for(lambda: len(self.notes()) > noted)
        begun, first = time.monotonic(), self.step()
        wait_for(lambda: self.step() >= target)
        seconds = max((time.monotonic() - begun) / max(self.step() - first, 1), SAVE_SECONDS)  # about a step
        if in_save:
            before = self._files()
            wait_for(lambda: self._files() - before)
            seconds = SAVE_SECONDS
        time.sleep(chance.uniform(0, seconds))
        temporary = any("_temp" in path for path in self._files())
        process.kill()
        process.wait()
        return f"after step {self.step()}" + (" while it wrote a checkpoint" if temporary else "")

    def _files(self):
        """Paths of all files of checkpoints, half-written ones included."""
        return set(storage.glob(storage.below(self._config.model_dir, "model.ckpt*")))

    def notes(self):
        """All Notes in the order in which they were written: steps that a resumed run made again stand there twice."""
        if not os.path.exists(self._record):
            return []
        with open(self._record) as f:
            lines = [line.split() for line in f if line.endswith("\n")]  # a kill may have cut off the last
        return [Note(int(step), loss, batch) for step, loss, batch in lines]

    def step(self):
        """The last noted step, 0 before the first."""
        return next((note.step for note in reversed(self.notes())), 0)

    def tensors(self, step):
        """{name: NumPy value} of the checkpoint of a step."""
        import tensorflow as tf
        reader = tf.train.load_checkpoint(os.path.join(self._config.model_dir, f"model.ckpt-{step}"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _difference(whole, parts, steps):
    """The first difference between the resumed run and the one without a kill, in words, or None."""
    expected = {note.step: note for note in whole.notes()}
    notes = parts.notes()
    # A kill between the checkpoint of a step and its note: the weights alone tell that it was right.
    made = {note.step for note in notes} | set(parts.starts)
    missing = set(range(1, steps + 1)) - (set(expected) & made)
    if missing:
        return f"step {min(missing)} was not made by both runs"
    for note in notes:
        right = expected[note.step]
        if note.batch != right.batch:
            return f"the batch of step {note.step} holds other tokens"
        if note.loss != right.loss:
            return (f"the loss of step {note.step} is {float.fromhex(note.loss)!r}, without a kill"
                    f" {float.fromhex(right.loss)!r}")
    return _different_tensor(whole.tensors(steps), parts.tensors(steps))


def _different_tensor(one, other):
    """The first difference of two {name: NumPy value}, in words, or None."""
    if set(one) != set(other):
        return f"the checkpoints hold other tensors: {', '.join(sorted(set(one) ^ set(other))[:SHOWN])}"
    for name in sorted(one):
        if one[name].dtype != other[name].dtype or one[name].shape != other[name].shape:
            return f"{name} is {other[name].dtype} {other[name].shape}, not {one[name].dtype} {one[name].shape}"
        if one[name].tobytes() != other[name].tobytes():
            count = int((one[name] != other[name]).sum())
            return f"{name}: {count} of {one[name].size} values differ"
    return None


def _show_documents(config, step):
    """Prints which documents stand in the first batch after a resume."""
    import inputs
    from datasets import shard_sets
    from datasets.window_order import WindowOrder
    names = inputs.documents_of(WindowOrder.of(config, shard_sets.find(config, shard_sets.TRAIN)), step)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    print(f"step {step}, the first after the last resume, read the documents {', '.join(names[:SHOWN])}{rest}")


# In the processes that train

def _train_and_record(model, record):
    """`main.py --model MODEL`, whose every step appends a Note to the file `record`."""
    import tensorflow.compat.v1 as tf

    from models.run import hooks

    class Recorder(hooks.Progress):
        def begin(self):
            super().begin()
            batches = [op for op in tf.get_default_graph().get_operations() if op.type == "IteratorGetNext"]
            self._batch = [tensor for op in batches for tensor in op.outputs]

        def before_run(self, run_context):
            return tf.train.SessionRunArgs([super().before_run(run_context).fetches, self._batch])

        def after_run(self, run_context, run_values):
            values, batch = run_values.results
            super().after_run(run_context, run_values._replace(results=values))
            digest = hashlib.sha256(b"".join(tensor.tobytes() for tensor in batch)).hexdigest()
            with open(record, "a") as f:
                f.write(f"{self.step} {float(values['loss']).hex()} {digest}\n")
    hooks.Progress = Recorder
    sys.argv[1:] = ["--model", model]
    runpy.run_module("main", run_name="__main__", alter_sys=True)


def _arguments(argv):
    parser = errors.script_parser(__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--model", required=True, metavar="CONFIG.json", help="the run's config")
    add("--steps", type=errors.at_least(3), default=20, help="length of both runs")
    add("--kills", type=errors.at_least(1), default=1, help="times that the second run is killed")
    add("--seed", type=int, help="of the random moments of the kills (without it another each time)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the config, as for main.py; may be repeated")
    add("--keep", action="store_true", help="do not remove the temporary folder")
    add("--record", help=argparse.SUPPRESS)  # how this program starts itself to train
    args = parser.parse_args(argv)
    args.seed = random.randrange(2**31) if args.seed is None else args.seed
    return args


if __name__ == "__main__":
    commands.run(main)
