"""A Python that lacks packages, and signals, in imports and after them: one line at most, from every program."""
import ast
import gc
import os
import signal
import subprocess
import sys

import pytest

from configs import errors, start
from configs.errors import UserError
from tests.helpers.runs import ROOT
from tests.test_structure import tracked

# Breaks off as libraries do: they turn what comes in the middle of an import into an ImportError of their own.
INTERRUPTED = """import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    while True: pass
except BaseException: raise ImportError("a part of the package failed to import")
"""


def run(*words, **variables):
    """Runs this Python from another folder than the project's, unless `-m` needs that."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, *words], cwd=ROOT if "-m" in words else "/", text=True, capture_output=True,
                          env={**environment, **variables}, timeout=60)


def programs():
    """Paths of all files that are run by hand."""
    for path in tracked():
        if path.endswith(".py") and not path.startswith("tests/") and os.path.exists(os.path.join(ROOT, path)):
            with open(os.path.join(ROOT, path)) as f:
                if "\n    commands.run(" in f.read():
                    yield path


@pytest.mark.parametrize("path", programs())
def test_every_program_begins_before_its_imports(path):
    """Before all but the modules of Python that the first lines themselves need."""
    with open(os.path.join(ROOT, path)) as f:
        body = ast.parse(f.read()).body[1:]
    before = [node for node in body[:body.index(next(node for node in body if isinstance(node, ast.If)))]
              if not isinstance(node, ast.ImportFrom)]
    guard = body[len(before) + (isinstance(body[0], ast.ImportFrom))]
    assert {alias.name for node in before for alias in node.names} <= {"argparse", "json", "os", "re", "shlex", "sys",
                                                                      "tempfile"}
    assert ast.unparse(guard).endswith("from configs import start\n    start.begin()")
    assert ast.unparse(guard.test) == "__name__ == '__main__'"


def test_packages_are_left_out_of_an_import_and_there_again_behind_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with start.hidden(["colorsys", "os"]):
        with pytest.raises(ImportError):
            import colorsys
        import os as again
    import colorsys
    assert again is os and colorsys.ONE_THIRD


def test_python_looks_for_garbage_only_behind_the_imports():
    for before in (True, False):
        (gc.enable if before else gc.disable)()
        try:
            with start.importing():
                assert not gc.isenabled()
            assert gc.isenabled() is before
        finally:
            gc.enable()


@pytest.mark.parametrize("words", [
    ["main.py", "--model", f"{ROOT}/configs/quickstart.json"], ["datasets/create_tfrecords.py"], ["encoder/train.py"],
    ["-m", "datasets.dedup"], ["-m", "models.checkpoints"], ["-m", "benchmarks.train"],
    ["datasets/download.py", f"{ROOT}/README.md", "--output_dir", "/nonexistent/out"]])
def test_python_without_the_packages_is_one_line_with_the_remedy(words):
    result = run("-S", *[os.path.join(ROOT, word) if word.endswith(".py") else word for word in words])
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(f"error: this Python ({sys.version.split()[0]}) lacks the package ")
    assert result.stderr.endswith(": run `. .venv/bin/activate`, or `make setup` first\n")
    assert result.stderr.count("\n") == 1


def test_package_that_the_set_up_lacks_is_named_with_its_requirements(monkeypatch):
    with pytest.raises(UserError, match=r"^the package nope is not installed: `pip install -r requirements-x.txt`$"), \
            errors.packages_from("requirements-x.txt"):
        import nope  # noqa: F401
    assert errors.without("nope") == "the package nope is not installed: `pip install -r requirements.txt`"


@pytest.mark.parametrize("missing", ["datasets.nowhere", "_lzma", "inputs"])
def test_module_of_ours_or_of_python_itself_keeps_its_traceback(capsys, missing):
    try:
        raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)
    except ModuleNotFoundError as error:
        start._tell(type(error), error, error.__traceback__)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("package, words", [
    ("numpy", ["datasets/create_tfrecords.py"]), ("tokenizers", ["encoder/train.py"]),
    ("numpy", ["-m", "benchmarks.train"]), ("numpy", ["main.py", "--model"]), ("tensorflow", ["main.py", "--model"]),
    ("tensorflow", ["-m", "models.checkpoints", "inspect", "x"]),
    ("tensorflow", ["tools/backup_checkpoint.py", "x", "y"]),
    ("tensorflow", ["main.py", "--set", "init_checkpoint=x", "--plan", "--model"])])
def test_ctrl_c_during_imports_is_one_word(tmp_path, run_config, package, words):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / f"{package}.py").write_text(INTERRUPTED)
    words = [os.path.join(ROOT, word) if word.endswith(".py") else word for word in words]
    result = run(*words, *([run_config()] if "--model" in words else []), PYTHONPATH=str(tmp_path / "packages"))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


# Gets a signal while a file is half written; `{more}` comes in its clean-up, before the file is removed.
SIGNALLED = """
import os, signal
from configs import commands, start, storage
def get(number):
    os.kill(os.getpid(), number)
    while True: pass
def main(argv):
    with storage.written_whole("file"):
        try:
            {first}
        finally:
            {more}
signal.signal(signal.SIGHUP, signal.{hangup})
commands.run(main)
"""


@pytest.mark.parametrize("first, more, hangup, status, left", [
    ("get(signal.SIGTERM)", "pass", "SIG_DFL", 143, 0),
    ("get(signal.SIGHUP)", "os.kill(os.getpid(), signal.SIGHUP)", "SIG_DFL", 129, 0),
    ("get(signal.SIGTERM)", "get(signal.SIGTERM)", "SIG_DFL", -signal.SIGTERM, 1),
    ("os.kill(os.getpid(), signal.SIGHUP); get(signal.SIGTERM)", "pass", "SIG_IGN", 143, 0),
    ("with start.ended_at_once(): get(signal.SIGTERM)", "pass", "SIG_DFL", -signal.SIGTERM, 1),
], ids=["SIGTERM", "SIGHUP, as terminals send it, twice", "a second SIGTERM", "SIGHUP under nohup", "at once"])
def test_a_signal_removes_incomplete_files_and_a_second_one_ends_at_once(tmp_path, first, more, hangup, status, left):
    code = SIGNALLED.format(first=first, more=more, hangup=hangup)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": ROOT})
    assert (result.returncode, result.stdout, result.stderr) == (status, "", "")
    assert len(os.listdir(tmp_path)) == left
