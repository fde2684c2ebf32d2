"""Prompt after prompt: the samples of --predict_text, token by token, and a Ctrl-C that ends a text alone."""
import builtins
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import types

import pytest

import main
from configs.errors import UserError
from encoder import stop_texts
from models.run import interactive
from tests.helpers.runs import ROOT


def type_lines(monkeypatch, lines):
    """`lines` are what input() gives, then the end of input."""
    left = iter(lines)

    def read(mark):
        for line in left:
            return line
        raise EOFError
    monkeypatch.setattr(builtins, "input", read)


@pytest.mark.parametrize("changes", [[], ["--set", "precision=bfloat16"]])
def test_samples_are_those_of_predict_text(random_run, monkeypatch, capsys, changes):
    """Beyond n_ctx, too, and from one prompt to the next of another length."""
    arguments = ["--model", random_run, "--length", "20", "--seed", "3", "--num_samples", "2", "--stop", "th",
                 "--repetition_penalty", "1.1", "--top_p", "0.95", *changes]
    prompts = ["import json\n" * 9, "x"]
    type_lines(monkeypatch, prompts)
    assert main.main([*arguments, "--interactive", "--json"]) == 0
    typed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for prompt, samples in zip(prompts, (typed[:2], typed[2:])):
        main.main([*arguments, "--predict_text", prompt, "--json"])
        for expected, sample in zip(map(json.loads, capsys.readouterr().out.splitlines()), samples):
            assert sample.pop("logprobs") == pytest.approx(expected.pop("logprobs"), abs=0.1 if changes else 1e-4)
            assert sample == expected
    assert len(typed) == 4


def test_text_comes_piece_by_piece_in_the_original_s_layout(random_run, monkeypatch, capsys):
    type_lines(monkeypatch, ["def é", ""])
    whole, pieces, add = [], [], stop_texts.Text.add

    def watched(self, token):
        pieces.append(capsys.readouterr().out)  # what was shown before this token
        whole.append(pieces[-1])
        return add(self, token)
    monkeypatch.setattr(stop_texts.Text, "add", watched)
    main.main(["--model", random_run, "--interactive", "--length", "9", "--seed", "2"])
    whole.append(capsys.readouterr().out)
    rule = "=" * 40
    assert pieces[0] == f"{rule} SAMPLE 0 {rule}\ndef é" and sum(map(bool, pieces[1:9])) > 4
    text = "".join(whole)
    assert text.count(f"\n{rule}{rule}\n") == 2 and f"{rule} SAMPLE 1 {rule}\n" in text
    with open(os.path.join(os.path.dirname(random_run), "samples", "out.txt")) as stored:
        assert stored.read().endswith(text)


@pytest.mark.parametrize("typed, text", [
    ("\x1b[A\x1b[Bdef", "def"), ("a\x1b[1;5Cb\x1bOPc\x1b[15~", "abc"), ("x\x7f\x01\x1b", "x"), ("\té\n[A", "\té\n[A")
])
def test_keys_never_reach_the_model_where_python_has_no_readline(monkeypatch, capsys, typed, text):
    monkeypatch.setitem(sys.modules, "readline", None)
    for at_terminal, expected in ((True, text), (False, typed)):  # from a file everything is text
        type_lines(monkeypatch, [typed])
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda at_terminal=at_terminal: at_terminal))
        assert list(interactive._lines(shown=False)) == [expected]
    assert capsys.readouterr().err == "note: Enter continues a line; Ctrl-C ends a text, Ctrl-D the program\n"


def test_a_line_that_is_no_utf_8_is_told_and_at_a_terminal_another_one_may_follow(monkeypatch, capsys):
    lines, words = ["x", "KING\udcff", "y"], r"the line 'KING\udcff' is not UTF-8 text"
    for typed, taken in ((False, ["x"]), (True, ["x", "y"])):
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda typed=typed: typed))
        type_lines(monkeypatch, lines)
        read = interactive._lines(shown=False)
        assert [next(read) for _ in taken] == taken
        with contextlib.nullcontext() if typed else pytest.raises(UserError, match=re.escape(words)):
            assert list(read) == []
    assert words in capsys.readouterr().err


class Terminal:
    """main.py --interactive at a terminal."""

    def __init__(self, *arguments):
        self._ours, theirs = pty.openpty()
        # A dumb one, to which readline sends nothing but the text; the keys are those of all terminals.
        self.process = subprocess.Popen([sys.executable, os.path.join(ROOT, "main.py"), *arguments, "--interactive"],
                                        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"})
        os.close(theirs)
        self._unread = ""

    def type(self, text):
        os.write(self._ours, text.encode())

    def read_until(self, words, seconds=60):
        """What is shown up to and with `words`."""
        end = time.monotonic() + seconds
        while words not in self._unread:
            assert select.select([self._ours], [], [], max(end - time.monotonic(), 0))[0], self._unread
            self._unread += os.read(self._ours, 4096).decode(errors="replace")
        before, _, self._unread = self._unread.partition(words)
        return before + words


def test_ctrl_c_ends_the_text_and_at_the_prompt_nothing_and_the_end_of_input_the_program(random_run):
    terminal = Terminal("--model", random_run, "--length", "100000", "--temperature", "0")
    try:
        assert terminal.read_until("weights\r\n") == "note: loading TensorFlow and the weights\r\n"
        assert re.fullmatch("note: Enter .* Ctrl-D the program\r\n> ", terminal.read_until("> "))
        for number, keys in enumerate(["def\n", "\x1b[A\n"]):  # Up, which brings back what was typed before
            terminal.type(keys)
            terminal.read_until(f"SAMPLE {number} ")
            terminal.process.send_signal(signal.SIGINT)
            shown = terminal.read_until("=" * 80 + "\r\n> ")
            assert len(shown) < 100000 and shown.startswith("=" * 40 + "\r\ndef")
            time.sleep(0.5)
            terminal.process.send_signal(signal.SIGINT)
            terminal.read_until("> ")
        terminal.type("\x04")
        assert terminal.process.wait(timeout=60) == 0
    finally:
        terminal.process.kill()
