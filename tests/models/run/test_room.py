"""Whether a run fits: its memory and its checkpoints against what there is."""
import os

import pytest

from configs import hardware, schema
from models.run import cost, room

GIGABYTE = 10**9
CPU = room.Machine(on_cpu=True)


def config_with(**values):
    return schema.from_dict({"model_dir": "runs/a", "n_vocab": 50257, **values}, "x")


def needed(config, on_cpu=True):
    return sum(cost.memory(config, on_cpu))


def test_step_that_takes_more_than_there_is_stops_the_run_and_the_keys_that_help_are_named():
    config = config_with(train_batch_size=64)
    (line,), spoil = room.memory_problems(config, CPU._replace(memory=8 * GIGABYTE, free=7 * GIGABYTE))
    assert not spoil and line.startswith(
        f"a step takes about {cost.human_bytes(needed(config))} of memory, and this machine has 8.0 GB: set"
        ' "micro_batch_size" to 4 (about ')
    assert '"recompute" to true' in line
    (line,), _ = room.memory_problems(config, room.Machine(False, memory=16 * GIGABYTE))
    assert f"about {cost.human_bytes(needed(config, False))} of memory, and each GPU has 16.0 GB: set" in line


def test_step_that_would_fit_if_others_were_not_there_only_spoils_the_run():
    config = config_with(train_batch_size=64)
    stop, (line,) = room.memory_problems(config, CPU._replace(memory=99 * GIGABYTE, free=8 * GIGABYTE))
    assert not stop and "and 8.0 GB are free now: set" in line and line.endswith("; or end other programs")


def test_step_that_fits_and_memory_that_nobody_tells_are_no_problem():
    config = config_with()
    for machine in (CPU, CPU._replace(memory=99 * GIGABYTE, free=98 * GIGABYTE), room.Machine(False)):
        assert not any(room.memory_problems(config, machine))


def test_gpus_share_a_step_or_cannot():
    config = config_with(train_batch_size=8)
    one = needed(config, on_cpu=False) - 1
    assert room.memory_problems(config, room.Machine(False, 1, one)).stop
    assert not any(room.memory_problems(config, room.Machine(False, 2, one)))
    assert room.memory_problems(config, room.Machine(False, 3, one)).stop == [
        '"train_batch_size" 8 cannot be shared by 3 GPUs; use a multiple of 3']


def test_disk_without_room_for_a_checkpoint_stops_the_run_and_without_room_for_all_spoils_it(tmp_path):
    config = config_with(model_dir=str(tmp_path))
    size = cost.checkpoint_bytes(config)
    assert size == pytest.approx(1.5e9, rel=0.01)
    (line,), spoil = room.disk_problems(config, size - 1)
    assert not spoil and "1.5 GB are left on its disk, and a checkpoint takes 1.5 GB; make room" in line
    stop, (line,) = room.disk_problems(config, 8 * size - 1)  # 5, the best, one by minutes, one that is being written
    assert not stop and "the checkpoints of the whole run take 11.9 GB" in line and '"keep_checkpoint_max" 5' in line
    assert not any(room.disk_problems(config, 8 * size)) and not any(room.disk_problems(config, None))
    without = config_with(model_dir=str(tmp_path), eval_steps=0, save_checkpoints_minutes=None)
    assert not any(room.disk_problems(without, 6 * size)) and room.disk_problems(without, 6 * size - 1).spoil


def test_what_lies_in_the_folder_already_needs_no_room(tmp_path):
    config = config_with(model_dir=str(tmp_path))
    for path in (tmp_path / "model.ckpt-9.data-00000-of-00001", tmp_path / "best" / "model.ckpt-9.index"):
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb") as f:
            f.truncate(10**9)  # takes no room itself
    assert room.disk_problems(config, 10 * 10**9).stop == room.disk_problems(config, 10 * 10**9).spoil == []
    assert room.disk_problems(config, 9 * 10**9).spoil


def test_what_this_machine_has_is_looked_up(tmp_path, monkeypatch):
    config = config_with(model_dir=str(tmp_path / "not" / "yet"))
    here = room.here(config, 0, None)
    assert here.on_cpu and here.devices == 1 and here.memory == hardware.memory()[0]
    stats = os.statvfs(tmp_path)
    assert here.disk == pytest.approx(stats.f_bavail * stats.f_frsize, rel=0.05)
    monkeypatch.setattr(hardware, "gpu_memory", lambda: 24 * GIGABYTE)
    assert room.here(config, 2, None)[:4] == (False, 2, 24 * GIGABYTE, None)
    assert room.here(config_with(model_dir="gs://b/run"), 0, "a-tpu") == (False, 1, None, None, None)
