"""GPUs by their driver and by TensorFlow: what is said of one that is there and not used."""
import subprocess

import pytest

import main
from configs import hardware
from models.run import devices
from tests.helpers.stand_ins import executable

H200 = "GPU 0: NVIDIA H200 (UUID: GPU-b2f1)\n"
# As TensorFlow 2.15.1 writes them.
LOG = "2026-11-30 10:00:00.123456: {} external/local_tsl/tsl/platform/default/dso_loader.cc:70] {}\n"
NO_CUDNN = LOG.format("I", "Could not load dynamic library 'libcudnn.so.8'; dlerror: libcudnn.so.8: cannot open shared"
                      " object file: No such file or directory; LD_LIBRARY_PATH: /usr/lib")
NO_LINKER = LOG.format("I", "Could not load dynamic library 'libcusolver.so.11'; dlerror: libnvJitLink.so.12: cannot"
                       " open shared object file: No such file or directory")
NO_TENSORRT = NO_CUDNN.replace("libcudnn.so.8", "libnvinfer.so.8.6.1")
NO_DRIVER = NO_CUDNN.replace("libcudnn.so.8", "libcuda.so.1")
SKIPPED = LOG.format("W", "Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above")
USUAL = LOG.format("E", "Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when")
NO_DEVICE = LOG.format("E", "failed call to cuInit: CUDA_ERROR_UNKNOWN: unknown error")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Function (what nvidia-smi prints, GPUs that TensorFlow sees, what it writes on stderr): makes a machine of it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(driver, seen=(), log=""):
        executable(tmp_path / "bin" / "nvidia-smi", f"printf '%s' '{driver}'")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        (tmp_path / "tensorflow.py").write_text(f"""import os, sys, types
if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0" and "dso_loader=1" in os.environ["TF_CPP_VMODULE"]:
    sys.stderr.write({log!r})
class config:
    def list_physical_devices(kind): return [types.SimpleNamespace(name=name) for name in {list(seen)!r}]
    class experimental:
        def get_device_details(gpu): return dict(device_name=gpu.name)
""")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return make


NOT_USED = "the CPU computes: nvidia-smi finds GPU: NVIDIA H200, but TensorFlow does not use it, for it "


@pytest.mark.parametrize("log, words", [
    (USUAL + NO_CUDNN + SKIPPED, "does not find libcudnn.so.8; run `pip install -r requirements-gpu.txt`"),
    (NO_CUDNN + NO_LINKER + NO_CUDNN, "does not find libcudnn.so.8, libnvJitLink.so.12; run `pip install -r requ"),
    (NO_DRIVER, "does not find libcuda.so.1; repair the NVIDIA driver, which brings it"),
    (NO_TENSORRT + NO_CUDNN, "does not find libcudnn.so.8; run"),
    (USUAL + NO_TENSORRT + NO_DEVICE + USUAL, "says: failed call to cuInit: CUDA_ERROR_UNKNOWN: unknown error; `pyt"),
    ("", "says: nothing; `python3 tools/doctor.py` shows more")])
def test_gpu_that_tensorflow_does_not_see_is_a_line_with_what_it_lacks(machine, log, words):
    machine(H200, [], log)
    names, (line,) = hardware.gpus()
    assert names == [] and line.startswith(NOT_USED + words) and "\n" not in line


def test_gpu_that_tensorflow_sees_is_named(machine):
    machine(H200 + H200.replace("0", "1"), ["NVIDIA H200", "NVIDIA H200"], NO_CUDNN)
    assert hardware.gpus() == (["NVIDIA H200", "NVIDIA H200"], [])
    assert hardware.in_words(hardware.gpus()[0]) == "2 GPUs: NVIDIA H200"


def test_tensorflow_is_not_asked_where_there_is_no_gpu_or_it_is_hidden(machine, monkeypatch):
    monkeypatch.setattr(hardware, "tensorflow_gpus", lambda: pytest.fail("it takes seconds"))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        assert hardware.driver_gpus() == ([], "no nvidia-smi") and hardware.gpus() == ([], [])
    machine("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver")
    assert hardware.driver_gpus()[1].startswith("NVIDIA-SMI has failed") and hardware.gpus() == ([], [])
    machine(H200)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert hardware.gpus() == ([], [])


@pytest.mark.parametrize("program, words", [("raise ValueError('bad build')", "says: ValueError: bad build"),
                                            ("import os; os.kill(os.getpid(), 4)", "says: it ends with SIGILL")])
def test_tensorflow_that_does_not_start_is_told_by_its_last_words(machine, tmp_path, program, words):
    machine(H200)
    (tmp_path / "tensorflow.py").write_text(program)
    assert words in hardware.gpus()[1][0]


def test_run_warns_of_a_gpu_that_is_not_seen(machine, monkeypatch):
    machine(H200, [], NO_CUDNN)
    line, = devices.unused_gpus()
    assert "libcudnn.so.8" in line
    monkeypatch.setattr(devices, "devices", lambda: ["/gpu:0"])
    assert devices.unused_gpus() == []


def test_main_warns_on_stderr_before_it_computes(machine, finished, capsys):
    machine(H200, [], NO_CUDNN)
    assert main.main(["--model", finished]) == 0
    assert capsys.readouterr().err == f"warning: {devices.unused_gpus()[0]}\n"


def test_plan_names_the_device_and_what_keeps_a_gpu_from_being_it(machine, run_config, capsys):
    machine(H200, ["NVIDIA H200"])
    assert main.main(["--model", run_config(), "--plan"]) == 0
    assert capsys.readouterr().out.startswith(f"{'device':<24}GPU: NVIDIA H200\n")
    machine(H200, [], NO_CUDNN)
    main.main(["--model", run_config(), "--plan"])
    out = capsys.readouterr().out
    assert out.startswith(f"{'device':<24}{hardware.in_words([], devices.workers.cores())}\n")
    assert "  - the CPU computes: nvidia-smi finds GPU: NVIDIA H200" in out


def test_memory_of_the_smallest_gpu_is_told_by_the_driver(tmp_path, monkeypatch):
    executable(tmp_path / "nvidia-smi", "case $1 in --query-gpu=memory.total) printf '143771\\n81559\\n';; esac")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert hardware.gpu_memory() == 81559 * 2**20
    monkeypatch.setenv("PATH", "/nowhere")
    assert hardware.gpu_memory() is None


@pytest.mark.parametrize("groups, files, limit", [
    ("0::/a/b\n", {"/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/memory.max": "4096\n"}, 4096),
    ("4:memory:/box\n0::/\n", {"/sys/fs/cgroup/memory/box/memory.limit_in_bytes": "8192\n",
                                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8192),
    ("0::/\n", {}, None), ("3:cpu:/a\n", {"/sys/fs/cgroup/cpu/a/memory.limit_in_bytes": "1\n"}, None)])
def test_a_container_has_the_memory_of_its_control_group(monkeypatch, groups, files, limit):
    """Of both versions; a group without a limit has what those around it leave."""
    plain = hardware.memory()
    there = {"/proc/self/cgroup": groups, "/proc/meminfo": f"MemAvailable: {plain[0] // 2048} kB\n", **files}
    monkeypatch.setattr(hardware, "_lines", lambda path: there.get(str(path), "").splitlines(keepends=True))
    total, free = hardware.memory()
    assert free == min(total, plain[0] // 2048 * 1024)
    assert total == (limit or hardware.os.sysconf("SC_PAGE_SIZE") * hardware.os.sysconf("SC_PHYS_PAGES"))


@pytest.mark.slow
def test_tensorflow_itself_names_the_library_that_it_lacks(monkeypatch):
    """On a machine without a GPU it is the driver's own."""
    if subprocess.run(["sh", "-c", "ldconfig -p | grep -q libcuda.so.1"], check=False).returncode == 0:
        pytest.skip("has a driver")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    seen = hardware.tensorflow_gpus()
    assert seen.gpus == [] and hardware.DRIVERS_OWN in seen.missing


def test_in_words():
    assert hardware.in_words([], 1) == "1 CPU core" and hardware.in_words([], 2) == "2 CPU cores"
    assert hardware.in_words(["A", "B", "A"]) == "3 GPUs: A, B"
