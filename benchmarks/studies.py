"""Runs a study: trainings with a name each, as processes of one core each, some at once.

A run NAME has three things in the folder of its study: NAME.json, its result; NAME.log, what it printed; and its
model_dir, NAME, which is deleted when the result is written.  A study that was interrupted goes on where it was.
"""
import json
import os
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import machine, records
from configs import errors, reading, storage
from configs.errors import UserError
from models.run import metrics_file

PAUSE = 0.1  # seconds between two looks at the processes
DIVERGED = "not finite"  # in the message of main.py, be it of a loss, of a weight or of an evaluation


class Run(NamedTuple):
    name: str
    command: list  # what stands behind `python3`
    values: dict  # what its result tells of it


class Training(NamedTuple):
    """A Run that is under way."""
    run: Run
    process: subprocess.Popen
    origin: dict
    begun: float


def results(folder, runs, processes, measured):
    """The results of these Runs, [dict] in their order; those that are missing are made, so many `processes` at once.

    `measured(seconds, figures)` gives what a result tells besides losses and origin, from the seconds that the process
    took and the lines of metrics.jsonl.  A loss is None where the run diverged.  Whatever ends the study early, a
    signal or a run that fails (UserError), ends the trainings that are under way.
    """
    waiting = [run for run in runs if not os.path.exists(_result_path(folder, run))]
    made, missing, running = 0, len(waiting), []
    print(f"{len(runs)} runs, {missing} to make, logs in {folder}", flush=True)
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(_start(folder, waiting.pop(0)))
            time.sleep(PAUSE)
            for training in [each for each in running if each.process.poll() is not None]:
                running.remove(training)
                made += 1
                print(f"{made}/{missing} {_keep_result(folder, training, measured)}", flush=True)
    finally:
        for training in running:
            training.process.terminate()
        for training in running:  # the study's lock is held until nothing writes into the folder any more
            training.process.wait()
    return [reading.read_object(_result_path(folder, run)) for run in runs]


def _result_path(folder, run):
    return os.path.join(folder, run.name + ".json")


def _start(folder, run):
    origin, path = records.origin(), os.path.join(folder, run.name)
    shutil.rmtree(path, ignore_errors=True)  # what a study that was cut short left behind
    with open(path + ".log", "w") as log:
        process = subprocess.Popen([sys.executable, *run.command], stdout=log, stderr=subprocess.STDOUT,
                                   env=machine.one_core())
    return Training(run, process, origin, time.monotonic())


def _keep_result(folder, training, measured):
    """Writes the result of a training that has ended; returns a line about it."""
    run, status, seconds = training.run, training.process.returncode, round(time.monotonic() - training.begun, 1)
    path = os.path.join(folder, run.name)
    with open(path + ".log") as log:
        diverged = status == errors.USER_ERROR and DIVERGED in log.read()
    figures = metrics_file.read(path)
    evaluations = [(line["step"], line["eval_loss"]) for line in figures if line.get("eval_loss") is not None]
    if not diverged and (status or not evaluations):
        raise UserError(f"the run {run.name} ended with status {status}; see {path}.log")
    loss = None if diverged else evaluations[-1][1]
    storage.write_whole(_result_path(folder, run), json.dumps(
        {**run.values, "loss": loss, "evaluations": evaluations, **measured(seconds, figures),
         **training.origin}) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    return f"{run.name}: {'diverged' if diverged else f'loss {loss:.4f}'} in {seconds:.0f} s"
