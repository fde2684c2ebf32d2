"""What every program does at its end: one line for what the user can mend, whatever its streams are."""
import errno
import os
import signal
import subprocess
import sys

import pytest

from configs import file_errors
from tests.configs.test_start import programs
from tests.helpers.runs import ROOT, in_terminal

BEGIN = "from configs import start; start.begin(); from configs import commands, progress, storage; import os, sys\n"
# A command that prints, draws a bar in a generator that nobody closes, and fails.
HALF = BEGIN + """
def steps():
    with progress.bar(3, "reading") as bar:
        for number in range(3):
            bar.update()
            yield number
ALIVE = steps()
def main(argv):
    next(ALIVE)
    raise {error}
commands.run(main)
"""
SAYS = BEGIN + "commands.run(lambda argv: print('x' * {length}))"
OPENS = BEGIN + """
def main(argv):
    with open(sys.argv[1], "wb") as f:
        assert f.fileno() > 2
        print("told", file=sys.stderr)
        os.system("echo printed; echo told >&2; cat")
        print(sys.stdin.read(), flush=True)
commands.run(main)
"""


def shell(words, redirections, code=None):
    """Runs Python with `words` by a shell, for its redirections."""
    arguments = ["-c", code, *words] if code else words
    return subprocess.run(["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": ROOT})


@pytest.mark.parametrize("error, status, line", [
    ("commands.UserError('no such thing')", 2, "error: no such thing"),
    (f"OSError({errno.ENOSPC}, 'No space left on device', 'out.txt')", 2,
     "error: out.txt: No space left on device; make room there and run again"),
    (f"OSError({errno.EIO}, 'Input/output error', b'out\\xff')", 2,
     "error: out\\udcff: Input/output error; look into the system's log (`dmesg`) for its reason"),
    (r"OSError(28, 'No space left on device', 'a\nb')", 2,
     "error: a b: No space left on device; make room there and run again"),
    (f"OSError({errno.EFBIG}, 'File too large')", 2,
     "error: write: File too large; allow larger files (`ulimit -f`, or another file system) and run again"),
    ("KeyboardInterrupt", 128 + signal.SIGINT, "interrupted")])
def test_the_last_line_is_a_line_of_its_own_behind_a_bar(error, status, line):
    done = shell([], "", HALF.format(error=error))
    assert (done.returncode, done.stdout) == (status, "")
    *bar, last = done.stderr.rstrip("\n").split("\n")
    assert last == line and any("reading" in part for part in bar)


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path, stream):
    done = shell([str(tmp_path / "file")], stream if "<" in stream else stream + " </dev/null", OPENS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("length", [1, 100_000])
@pytest.mark.parametrize("to, reason", [
    (">/dev/full", "No space left on device; make room there and run again"),
    ("1</dev/null", f"Bad file descriptor; {file_errors.NO_REMEDY}")])
def test_output_that_cannot_be_written_is_one_line_and_status_2(length, to, reason):
    done = shell([], to, SAYS.format(length=length))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: standard output: {reason}\n")


def test_errors_that_nobody_can_read_leave_the_status():
    assert shell([], "2>/dev/full", HALF.format(error="commands.UserError('no')")).returncode == 2


# A program that ignores SIGHUP.  It prints after its terminal was closed.
CLOSES = BEGIN + """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def main(argv):
    print("begun")
    while os.isatty(1):
        time.sleep(0.01)
    for number in range(1000):
        print("x" * 100)
        print("x" * 100, file=sys.stderr)
    return 3
commands.run(main)
"""


def test_what_a_closed_terminal_is_told_is_lost_and_the_program_goes_on():
    process, terminal = in_terminal([sys.executable, "-c", CLOSES])
    said = b""
    while said != b"begun\r\n":  # it may come in pieces
        said += os.read(terminal, 100)
    os.close(terminal)
    assert process.wait(timeout=60) == 3


def test_a_text_that_is_no_unicode_is_one_line_and_any_other_failed_encoding_is_a_bug():
    done = shell([], "", HALF.format(error="storage.os.fsdecode(b'a\\xff').encode()"))
    assert done.returncode == 2
    assert done.stderr.endswith("error: 'a\\udcff' is not UTF-8 text; give one that is, and rename a file where it is"
                                " a path\n")
    assert "Traceback" in shell([], "", HALF.format(error="'é'.encode('ascii')")).stderr


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-"])
@pytest.mark.parametrize("path", programs())
def test_every_program_tells_its_help_and_its_mistakes_with_a_closed_stream(path, stream):
    words = ["-m", path[:-3].replace("/", ".").replace(".__main__", "")] if path.startswith(("models", "bench")) else [
        path]
    helped, mistaken = shell([*words, "--help"], stream), shell([*words, "--no_such_option"], stream)
    assert (helped.returncode, helped.stderr) == (0, "") and ("usage" in helped.stdout) == (stream != ">&-")
    assert (mistaken.returncode, mistaken.stdout) == (2, "")
    assert mistaken.stderr.startswith("error: ") == (stream != "2>&-") and "Traceback" not in mistaken.stderr
