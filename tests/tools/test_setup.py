"""The set-up's choice of a Python and of the requirements, with stand-ins that only tell a version; the Dockerfile."""
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT
from tests.helpers.stand_ins import executable

USABLE = ("3.9", "3.10", "3.11")
# What pip writes; each line of it was seen.
PIP = """Collecting tensorflow==2.15.1 (from -r requirements.txt (line 2))
  Downloading tensorflow-2.15.1-cp311-cp311-manylinux_2_17_x86_64.whl.metadata (3.4 kB)
Requirement already satisfied: pip in ./.venv/lib
Downloading tensorflow-2.15.1-cp311-cp311-manylinux_2_17_x86_64.whl (475.2 MB)
Progress 0 of 475200000
Progress 475200000 of 475200000
Using cached numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl (18.3 MB)
Installing collected packages: numpy, tensorflow
Successfully installed numpy-1.26.4 tensorflow-2.15.1"""


def stand_in(folder, name, version):
    """A `python` that knows its version, makes virtual environments that hold itself, and notes what pip is to do."""
    executable(folder / name, f"""
make() {{ /bin/mkdir -p "$1/bin"; /bin/cp "$0" "$1/bin/python"; : >"$1/pyvenv.cfg"; }}
case "$*" in
  *sys.exit*) exit {0 if version in USABLE else 1} ;;
  *print*) echo {version} ;;
  "-m venv --clear"*) make "$4" ;;
  "-m venv"*) make "$3" ;;
  "-m pip --version") [ ! -e "${{0%/*}}/../half-made" ] ;;
  "-m pip install uv") [ -e pypi ] && /bin/cp pypi "${{0%/*}}/uv" ;;
  *--quiet*) ;;
  *pip*) echo "$*" >>pip.log; [ -e broken ] && echo "ERROR: no network" >&2 && exit 1; echo "{PIP}" ;;
esac
""")


def uv(path, version="3.11"):
    """A `uv` that finds a Python; without a version none."""
    stand_in(path.parent / "of-uv", "python", version or "3.11")
    executable(path, f"""
[ "$*" = "venv --python 3.11 --seed .venv" ] || exit 9
{f'/bin/mkdir -p .venv/bin; /bin/cp {path.parent}/of-uv/python .venv/bin/python' if version else 'exit 1'}
""")


@pytest.fixture
def folder(tmp_path):
    """The repository's folder and the PATH at once, with the few commands of the system that setup.sh needs."""
    for name in ("mktemp", "rm", "rmdir", "sed", "uname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return tmp_path


def setup(folder, *words, **environment):
    return subprocess.run(["/bin/sh", os.path.join(ROOT, "tools", "setup.sh"), *(words or ["requirements.txt"])],
                          cwd=folder, text=True, capture_output=True,
                          env={"PATH": str(folder), "TMPDIR": str(folder), **environment})


def made_with(folder):
    """The stand-in that the environment was made with."""
    return (folder / ".venv" / "bin" / "python").read_text()


def installed(folder):
    """The requirements file that pip was given last."""
    return (folder / "pip.log").read_text().split()[-2]


def test_python_that_is_too_new_is_one_line_where_uv_cannot_be_had(folder):
    stand_in(folder, "python3", "3.13")
    result = setup(folder)
    assert result.returncode == 2
    assert result.stderr == ("error: TensorFlow 2.15.1 needs Python 3.9 to 3.11, and this machine has 3.13; run"
                             " `uv venv --python 3.11 --seed .venv` and make again\n")
    assert not (folder / ".venv").exists() and not list(folder.glob("tmp.*"))


def test_uv_of_the_user_makes_the_environment_where_python_is_too_new(folder):
    stand_in(folder, "python3", "3.12")
    uv(folder / "uv")
    result = setup(folder)
    assert result.returncode == 0, result.stderr
    assert "this machine has 3.12: asking uv for 3.11" in result.stdout
    assert made_with(folder) == (folder / "of-uv" / "python").read_text() and installed(folder) == "requirements.txt"


def test_uv_from_pypi_makes_the_environment_and_is_thrown_away(folder):
    stand_in(folder, "python3", "3.13")
    uv(folder / "pypi")
    result = setup(folder)
    assert result.returncode == 0, result.stderr
    assert made_with(folder) == (folder / "of-uv" / "python").read_text()
    assert not list(folder.glob("tmp.*"))


def test_uv_that_finds_no_python_is_one_line_that_does_not_name_uv_as_the_remedy(folder):
    stand_in(folder, "python3", "3.13")
    uv(folder / "uv", version=None)
    result = setup(folder)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "this machine has 3.13, and uv finds and fetches none; install Python 3.11" in result.stderr


def test_uv_helps_where_there_is_no_python_at_all(folder):
    uv(folder / "uv")
    result = setup(folder)
    assert result.returncode == 0 and "this machine has none" in result.stdout, result.stderr


def test_older_python_beside_a_new_one_is_found(folder):
    stand_in(folder, "python3", "3.13")
    stand_in(folder, "python3.10", "3.10")
    uv(folder / "uv")
    result = setup(folder)
    assert result.returncode == 0, result.stderr
    assert installed(folder) == "requirements.txt"
    assert made_with(folder) == (folder / "python3.10").read_text()


def test_environment_made_with_a_python_that_is_too_new_is_refused(folder):
    stand_in(folder / ".venv" / "bin", "python", "3.12")
    result = setup(folder)
    assert result.returncode == 2 and "build for; move it elsewhere and make again" in result.stderr


def test_environment_that_was_left_half_made_is_made_anew(folder):
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("half-made", "pyvenv.cfg"):
        (folder / ".venv" / name).write_text("")
    stand_in(folder / ".venv" / "bin", "python", "3.9")
    stand_in(folder, "python3", "3.11")
    result = setup(folder)
    assert result.returncode == 0, result.stderr
    assert made_with(folder) == (folder / "python3").read_text()


def test_folder_that_is_no_environment_is_left_as_it_is(folder):
    (folder / ".venv").mkdir()
    (folder / ".venv" / "mine").write_text("kept")
    stand_in(folder, "python3", "3.11")
    result = setup(folder)
    assert result.returncode == 2 and result.stderr == (
        "error: .venv is there and is no virtual environment; move it away, or set VENV to another folder\n")
    assert (folder / ".venv" / "mine").read_text() == "kept"
    (folder / ".venv" / "mine").unlink()
    assert setup(folder).returncode == 0  # an empty one may be filled


def test_the_wait_shows_each_package_and_says_what_it_takes(folder):
    stand_in(folder, "python3", "3.11")
    result = setup(folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-4:] == [
        "installing requirements.txt into .venv, on Linux or macOS: 2 GB of disk and some minutes",
        "  tensorflow (475.2 MB)", "  numpy (18.3 MB)", "  unpacking"]


def test_pip_that_fails_is_told_by_its_own_words_and_fails_the_set_up(folder):
    stand_in(folder, "python3", "3.11")
    (folder / "broken").write_text("")
    result = setup(folder)
    assert result.returncode == 1 and "no network" in result.stderr


def test_system_that_is_neither_linux_nor_macos_is_one_line(folder):
    (folder / "uname").unlink()
    executable(folder / "uname", "echo MINGW64_NT-10.0")
    result = setup(folder)
    assert result.returncode == 2 and "needs Linux or macOS; on Windows, work in WSL" in result.stderr


@pytest.mark.parametrize("says, system, wanted", [
    ("echo 'GPU 0: NVIDIA H200 (UUID: GPU-b2f)'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-1c7)'", "Linux x86_64",
     "requirements-gpu.txt"),
    ("echo 'NVIDIA-SMI has failed'; exit 9", "Linux x86_64", "requirements.txt"),
    ("echo 'GPU 0: Orin (UUID: GPU-b2f)'", "Linux aarch64", "requirements.txt")])
def test_gpu_gets_the_requirements_for_gpus(folder, says, system, wanted):
    stand_in(folder, "python3", "3.11")
    executable(folder / "nvidia-smi", says)
    (folder / "uname").unlink()
    executable(folder / "uname", f'[ "$1" = -s ] && echo Linux || echo {system}')
    result = setup(folder)
    assert result.returncode == 0 and installed(folder) == wanted, result.stderr
    told = "nvidia-smi finds NVIDIA H200: requirements-gpu.txt" in result.stdout
    assert told == (wanted == "requirements-gpu.txt")
    assert setup(folder, "requirements-dev.txt").returncode == 0 and installed(folder) == "requirements-dev.txt"


# The Dockerfile, step by step without Docker

def steps():
    """[(instruction, words)] of the Dockerfile."""
    lines = (Path(ROOT) / "Dockerfile").read_text().splitlines()
    return [(line.split(" ")[0], shlex.split(line)[1:]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("requirements", ["requirements.txt", "requirements-gpu.txt"])
def test_dockerfile_sets_up_by_setup_sh_what_it_has_copied(folder, requirements):
    """Its steps in a folder: what it copies is there, setup.sh accepts its Python, its PATH is that of the set-up."""
    image, variables = folder / "image", {}
    image.mkdir()
    for instruction, words in steps():
        if instruction == "FROM":
            name, version = re.fullmatch(r"(python):(3\.\d+)-slim", *words).groups()
            stand_in(folder, name + "3", version)
        elif instruction == "ARG":
            variables.update(word.split("=") for word in words)
            assert variables == {"REQUIREMENTS": "requirements.txt"}
            variables["REQUIREMENTS"] = requirements
        elif instruction == "ENV":
            variables.update(word.split("=") for word in words)
            assert variables.pop("PATH") == variables["VENV"] + "/bin:$PATH"
            variables["VENV"] = str(folder / "venv")
        elif instruction == "COPY" and words != [".", "."]:
            for word in words[:-1]:
                (image / words[-1]).mkdir(exist_ok=True)
                shutil.copy(os.path.join(ROOT, word), image / words[-1])
        elif instruction == "RUN":
            (image / "python3").symlink_to(folder / "python3")
            result = subprocess.run(["/bin/sh", "-ec", shlex.join(words).replace("'", "")], cwd=image, text=True,
                                    env={"PATH": f"{folder}:/bin", **variables}, capture_output=True)
            assert result.returncode == 0, result.stderr
            assert (image / "pip.log").read_text().split()[-2] == requirements
            for path in re.findall(r"^-r (\S+)", (image / requirements).read_text(), re.M):
                assert (image / path).exists()
            assert (folder / "venv" / "bin" / "python").exists()
    assert [words for instruction, words in steps() if instruction == "COPY"][-1] == [".", "."]
    assert steps()[-1][0] == "CMD" and len(steps()) <= 12


def test_docker_copies_no_environment_data_or_runs():
    ignored = (Path(ROOT) / ".dockerignore").read_text().split()
    assert {".git", ".venv*", "data", "runs"} <= set(ignored)


def test_make_corpus_without_a_list_says_what_is_missing_before_it_sets_up(tmp_path):
    result = subprocess.run(["make", "--no-print-directory", "corpus", f"VENV={tmp_path}/venv"], cwd=ROOT,
                            capture_output=True, text=True)
    assert result.returncode == 2 and "error: say from where and to where: make corpus URLS=" in result.stderr
    assert result.stdout == "" and os.listdir(tmp_path) == []
