"""The set-up's choice of a Python, with stand-ins that only tell a version."""
import os
import stat
import subprocess

from tests.helpers.runs import ROOT


def stand_in(folder, name, version):
    """A `python` that knows its version, and makes a virtual environment that holds itself."""
    usable = "0" if version in ("3.9", "3.10", "3.11") else "1"
    path = folder / name
    path.write_text(f"""#!/bin/sh
case "$*" in
  *sys.exit*) exit {usable} ;;
  *print*) echo {version} ;;
  "-m venv --clear"*) /bin/mkdir -p "$4/bin"; /bin/cp "$0" "$4/bin/python" ;;
  "-m pip --version") [ ! -e "${{0%/*}}/../half-made" ] ;;
  *pip*) echo "pip $*" ;;
esac
""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def setup(folder):
    return subprocess.run(["/bin/sh", os.path.join(ROOT, "tools", "setup.sh"), "requirements.txt"], cwd=folder,
                          text=True, capture_output=True, env={"PATH": str(folder)})


def test_python_that_is_too_new_is_one_line_that_says_how_to_get_another(tmp_path):
    stand_in(tmp_path, "python3", "3.13")
    result = setup(tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "needs Python 3.9 to 3.11, and this machine has 3.13" in result.stderr
    assert "`uv venv --python 3.11 --seed .venv`" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_older_python_beside_a_new_one_is_found(tmp_path):
    stand_in(tmp_path, "python3", "3.13")
    stand_in(tmp_path, "python3.10", "3.10")
    result = setup(tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("-r requirements.txt")
    assert (tmp_path / ".venv" / "bin" / "python").read_text() == (tmp_path / "python3.10").read_text()


def test_environment_made_with_a_python_that_is_too_new_is_refused(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stand_in(tmp_path / ".venv" / "bin", "python", "3.12")
    result = setup(tmp_path)
    assert result.returncode == 2 and "remove it, run `uv venv --python 3.11 --seed .venv`" in result.stderr


def test_environment_that_was_left_half_made_is_made_anew(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "half-made").write_text("")
    stand_in(tmp_path / ".venv" / "bin", "python", "3.9")
    stand_in(tmp_path, "python3", "3.11")
    result = setup(tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / ".venv" / "bin" / "python").read_text() == (tmp_path / "python3").read_text()
