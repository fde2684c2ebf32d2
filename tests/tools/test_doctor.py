"""The block for reports: every line says something that can be checked here."""
import os
import platform
import subprocess
import sys

import pytest

from configs import hardware
from datasets.jobs import workers
from tests.helpers.runs import ROOT
from tools import doctor

NAMES = ["Python", "TensorFlow", "system", "processor", "cores", "memory", "disk", "GPU, by its driver",
         "GPU, by TensorFlow", "TPU", "vocabulary"]


def test_every_line_tells_what_this_machine_has(monkeypatch):
    monkeypatch.setattr(hardware, "tensorflow_gpus", lambda: hardware.Seen(["NVIDIA H200"], [], ""))
    monkeypatch.setattr(hardware, "driver_gpus", lambda: (["NVIDIA H200", "NVIDIA H200"], ""))
    monkeypatch.setattr(hardware, "features", lambda: frozenset(["avx2", "amx_bf16", "amx_tile"]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    block = dict(doctor.rows())
    assert list(block) == NAMES
    assert block["Python"].startswith(platform.python_version()) and block["TensorFlow"] == "2.15.1"
    assert block["processor"] == f"{hardware.processor()}: AVX2 yes, AVX-512 no, bfloat16 yes, AMX yes"
    assert block["cores"] == f"{workers.cores()} of {os.cpu_count()}"
    assert block["GPU, by its driver"] == "2 GPUs: NVIDIA H200"
    assert block["GPU, by TensorFlow"] == "GPU: NVIDIA H200; CUDA_VISIBLE_DEVICES is '0'"
    assert block["vocabulary"] == "GPT-2's, 50,257 tokens"


def test_what_tensorflow_lacks_and_says_is_told(monkeypatch):
    monkeypatch.setattr(hardware, "tensorflow_gpus", lambda: hardware.Seen([], ["libcudnn.so.8"], "skipping"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert dict(doctor.rows())["GPU, by TensorFlow"] == "none; lacks libcudnn.so.8; says: skipping"


def test_a_python_without_packages_can_be_looked_at_too(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([str(tmp_path / "bin" / "python"), os.path.join(ROOT, "tools", "doctor.py")], cwd="/",
                            text=True, env=environment, capture_output=True, timeout=60)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line[:20].strip() for line in lines] == NAMES
    assert "not installed: run `. .venv/bin/activate`, or `make setup` first" in lines[1]
    assert "No module named 'tensorflow'" in lines[8] and "make setup" in lines[10]


@pytest.mark.slow
def test_the_whole_block_on_this_machine():
    result = subprocess.run([sys.executable, "-m", "tools.doctor"], cwd=ROOT, text=True, capture_output=True,
                            timeout=120)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == len(NAMES), result.stderr
