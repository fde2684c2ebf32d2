"""Ctrl-C, SIGTERM and SIGHUP in every phase of every command.

A phase is known by a file that the command touches then: the library that makes calls fail (shim.c) sends the signal in
the middle of the first call on it.  So each case is the same every time.
"""
import os
import re
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

from configs.errors import HOME
from tests.faults import shim, sweep
from tests.faults.commands import COMMANDS, CONFIG

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shim.compiler(), reason="needs Linux and a C compiler")]


class Phase(NamedTuple):
    name: str
    command: str
    match: str  # part of the paths of the files that the command touches then
    number: int = 1  # of the call on them in which the signal comes
    saves: bool = False  # whether there is something to save by then


TRAINING = [
    Phase("reading the config", "training", f"/{CONFIG}"),
    Phase("looking at the shards", "training", "/text.manifest.json"),
    Phase("reading the vocabulary", "training", "/encoder.json"),
    Phase("noting what the run is", "training", "/run/.partial-"),
    Phase("after the graph is built", "training", "/run/events.out.tfevents", saves=True),
    Phase("the first checkpoint", "training", "/run/model.ckpt-0", saves=True),
    Phase("the first step and its compilation", "training", "/data/text_0.tfrecords", saves=True),
    Phase("a checkpoint", "training", "/run/model.ckpt-4", saves=True),
    Phase("an evaluation", "training", "/data/text-eval_0.tfrecords", saves=True),
    Phase("keeping the best checkpoint", "training", "/run/best/", saves=True),
    Phase("the figures", "training", "/run/metrics.jsonl", saves=True),
    Phase("the last checkpoint", "training", "/run/model.ckpt-12", saves=True)]
OTHERS = [
    Phase("reading weights", "export_dir", "/run/model.ckpt-1.data"),
    Phase("export", "export_dir", "/.partial-saved-"),
    Phase("reading weights", "export-hf", "/run/model.ckpt-1.data"),
    Phase("export", "export-hf", "/.partial-exported-"),
    Phase("reading weights", "import-hf", "/model.safetensors"),
    Phase("conversion", "import-hf", "/.partial-imported-"),
    Phase("proof", "import-hf", "/weights.ckpt", 8),
    Phase("listing", "create_tfrecords", "/.text.lock"), Phase("reading", "create_tfrecords", "/texts/"),
    Phase("a shard", "create_tfrecords", ".tfrecords"), Phase("the manifest", "create_tfrecords", "manifest"),
    Phase("reading", "dedup", "/texts/"), Phase("signatures", "dedup", ".state/", 20),
    Phase("the list", "dedup", "/drop.txt"), Phase("an archive", "extraction", "/pages/"),
    Phase("a text", "extraction", ".partial/"),
    Phase("the mark", "extraction", ".done.json"), Phase("reading", "vocabulary", "/texts/", 9),
    Phase("writing", "vocabulary", "/vocabulary/", 4)]


def in_turn(cases):
    """[(case, signal)]: every third case with one of the signals, or, with EVERY_SIGNAL in the environment, all."""
    if os.environ.get("EVERY_SIGNAL"):
        return [(case, number) for case in cases for number in SIGNALS]
    return [(case, SIGNALS[place % len(SIGNALS)]) for place, case in enumerate(cases[::3])]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """Function (name of a command) -> its sweep.Sweep."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = sweep.Sweep(COMMANDS[name], tmp_path_factory.mktemp(name))
            made[name].__enter__()
        return made[name]
    yield of
    for each in made.values():
        each.__exit__(None, None, None)


@pytest.mark.parametrize("phase, number", in_turn(TRAINING + OTHERS),
                         ids=lambda value: f"{value.command}: {value.name}" if isinstance(value, Phase) else value.name)
def test_a_signal_ends_the_command_and_the_same_command_makes_what_an_undisturbed_one_makes(phase, number, sweeps):
    made = sweeps(phase.command)
    made.begin()
    outcome = made.run(match=phase.match, number=phase.number, sent=number)
    assert len(outcome.calls) >= phase.number, "the phase was not reached"
    assert "Traceback" not in outcome.err and "error:" not in outcome.err, outcome.err
    saved = re.findall(r"^stopped by (\S+) at step (\d+), saved; the same command goes on$", outcome.out, re.M)
    if phase.saves:
        assert outcome.status == 128 + number, (outcome.status, outcome.out, outcome.err)
        (name, step), = saved
        assert name == ("Ctrl-C" if number == signal.SIGINT else number.name)
        assert f"model.ckpt-{step}.index" in os.listdir(made.folder("run"))
    else:
        assert outcome.status == 128 + number, outcome
        assert outcome.err.endswith("interrupted\n") == (number == signal.SIGINT), outcome
    assert made.wrong_again() is None


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("program, module", [
    ("main.py", "bpe"), ("encoder/train.py", "documents"), ("datasets/create_tfrecords.py", "building"),
    ("datasets/dedup.py", "minhash"), ("datasets/extract_text.py", "extraction"), ("-m models.checkpoints", "convert")])
def test_a_signal_during_imports_ends_a_program_without_a_traceback(program, module, number, tmp_path):
    with shim.Runner(tmp_path / "shim", ["json"]) as runner:
        environment = runner.environment(HOME, match=f"/{module}.", number=1, sent=number)
        command = program.split() if program.startswith("-m") else [os.path.join(HOME, program)]
        arguments = ["--model", "configs/quickstart.json", "--plan"] if program == "main.py" else ["--help"]
        result = subprocess.run([sys.executable, "-B", *command, *arguments], cwd=HOME, text=True, capture_output=True,
                                env=environment, timeout=60,
                                preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in SIGNALS])
    assert result.stderr == ("interrupted\n" if number == signal.SIGINT else "")
    assert result.returncode == (130 if number == signal.SIGINT else -number)
