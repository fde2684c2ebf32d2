"""Whether this machine has room for a run: memory for a step, a disk for the checkpoints."""
from __future__ import annotations

import math
import os
import shutil
from typing import NamedTuple

from configs import hardware, storage
from configs.errors import UserError
from models.checkpoints.state_file import BEST, files_of
from models.run.cost import checkpoint_bytes, human_bytes, lighter, memory


class Machine(NamedTuple):
    """What this machine has for a run."""
    on_cpu: bool
    devices: int = 1  # GPUs
    memory: int | None = None  # bytes of each device; None where nobody tells, as for TPUs
    free: int | None = None  # bytes of it that a new process can take, for CPUs
    disk: int | None = None  # bytes left for model_dir; None on Google Storage


class Problems(NamedTuple):
    """Lines on what keeps a run from starting, and on what only spoils it."""
    stop: list
    spoil: list

    @classmethod
    def joined(cls, found):
        """All of several Problems."""
        return cls(*(sum(lines, []) for lines in zip(*found)))


def here(config, gpus, tpu=None):
    """The Machine that computes a run on so many GPUs (0: on the CPU), or on a TPU where there is a `tpu`."""
    on_cpu = not gpus and not tpu
    total, free = hardware.memory() if on_cpu else (hardware.gpu_memory() if gpus else None, None)
    remote = storage.is_remote(config.model_dir)
    return Machine(on_cpu, max(1, gpus), total, free,
                   None if remote else shutil.disk_usage(storage.existing(config.model_dir)).free)


def checkpoints_kept(config):
    """How many checkpoints lie in model_dir in the end, without the best one."""
    return config.keep_checkpoint_max or math.ceil(config.max_steps / config.save_checkpoints_steps)


def memory_problems(config, machine):
    """Problems of a step's memory on a Machine; the estimate may be some percent too low or too high."""
    if machine.devices > 1 and config.train_batch_size % machine.devices:
        return Problems([f'"train_batch_size" {config.train_batch_size} cannot be shared by {machine.devices} GPUs; use'
                         f" a multiple of {machine.devices}"], [])
    needed = sum(memory(config, machine.on_cpu, machine.devices))

    def line(limit, has):
        remedy = lighter(config, limit, machine.on_cpu, machine.devices)
        return f"a step takes about {human_bytes(needed)} of memory, and {has}: {remedy}"
    if machine.memory is not None and needed > machine.memory:
        where = "this machine" if machine.on_cpu else "each GPU"
        return Problems([line(machine.memory, f"{where} has {human_bytes(machine.memory)}")], [])
    if machine.free is not None and needed > machine.free:
        return Problems([], [line(machine.free, f"{human_bytes(machine.free)} are free now") + "; or end other"
                             " programs"])
    return Problems([], [])


def disk_problems(config, free):
    """Problems of a disk with so many bytes left; None: it is not known."""
    if free is None:
        return Problems([], [])
    size = checkpoint_bytes(config)
    # One that is being written, the best, and the one that "save_checkpoints_minutes" writes.
    most = checkpoints_kept(config) + 1 + bool(config.eval_steps) + bool(config.save_checkpoints_minutes)
    there = sum(os.path.getsize(path) for folder in (config.model_dir, storage.join(config.model_dir, BEST))
                for path in storage.glob(storage.below(folder, "model.ckpt-*")))
    left = f'"model_dir" {config.model_dir}: {human_bytes(free)} are left on its disk, and'
    if free < size:
        return Problems([f"{left} a checkpoint takes {human_bytes(size)}; make room, or set it to another disk"], [])
    if free + there < most * size:
        return Problems([], [f"{left} the checkpoints of the whole run take {human_bytes(most * size)}, with"
                             " the best one, one by minutes and one that is being written; make room, or lower"
                             f' "keep_checkpoint_max" {config.keep_checkpoint_max}'])
    return Problems([], [])


def check_next(model_dir, path):
    """Raises UserError where the next checkpoint, as large as that at `path`, would not fit the disk of model_dir."""
    if path is None or storage.is_remote(model_dir):  # the first one is written before the first step
        return
    needed = sum(os.path.getsize(file) for file in files_of(path))
    free = shutil.disk_usage(model_dir).free
    if free < needed:
        raise UserError(f'"model_dir" {model_dir}: {human_bytes(free)} are left on its disk, and the next checkpoint'
                        f" takes {human_bytes(needed)}; make room and run again")
