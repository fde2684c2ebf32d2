"""Builds shards: one job is one shard, read, cleaned, encoded and written by one worker.

The state folder holds what workers share (the index and order of the documents), what they have done so far, and
one small file for each shard that is complete.
"""
from __future__ import annotations

import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import struct
import threading
import time
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np

import storage
from configs import reading
from datasets import documents, manifest, records
from encoder import bpe
from errors import UserError

OUTCOMES = ("read", "kept", "short", "broken", "empty", "bad_lines", "invalid_utf8")
COMPLETE = ".complete.json"
PROGRESS = "progress"
REPORT_SECONDS = 0.3


class Job(NamedTuple):
    state: str  # folder
    path: str  # of the shard
    split: str  # "train" or "eval"
    start: int  # of the split's order
    stop: int
    encoder_path: str | None
    vocabulary: str  # fingerprint
    minimum_size: int  # tokens
    clean: bool


def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(state, index, orders):
    """Lays down what the workers read: the Index, and {split: int64 document numbers} in order."""
    for name in os.listdir(state):
        if name.startswith(".partial-"):
            os.unlink(os.path.join(state, name))  # of a run that was killed
    documents.save(index, state)
    for split, order in orders.items():
        documents.save_array(os.path.join(state, split + ".npy"), order)


def completed(state, output_dir):
    """The Entries that earlier runs left."""
    names = sorted(os.listdir(state)) if os.path.isdir(state) else []
    for name in names:
        if name.endswith(COMPLETE):
            yield manifest.entry_from_json(reading.read_object(os.path.join(state, name)), output_dir)


def build(jobs, processes, advance):
    """Yields the Entry of each job as it is done, in any order; `advance(documents)` is called now and then."""
    processes = min(processes, len(jobs))
    if processes > 1:
        yield from _build_in_processes(jobs, processes, advance)
        return
    for job in jobs:
        yield build_shard(job, advance)


def build_shard(job, advance):
    """Writes the job's shard, then the note that it is complete; returns the Entry."""
    encoder, index = _encoder(job.encoder_path, job.vocabulary), documents.load(job.state)
    numbers = np.load(os.path.join(job.state, job.split + ".npy"), mmap_mode="r")[job.start:job.stop]
    outcomes = dict.fromkeys(OUTCOMES, 0)
    shard = records.write(job.path, _encoded(job, numbers, encoder, index, outcomes, advance), job.state)
    entry = manifest.Entry(job.split, shard, outcomes)
    storage.write_whole(os.path.join(job.state, os.path.basename(job.path) + COMPLETE),
                        json.dumps(manifest.entry_to_json(entry)))
    return entry


@functools.lru_cache(maxsize=1)
def _encoder(path, fingerprint):
    """The Encoder, which takes half a second to build, once in each worker."""
    encoder = bpe.load(path)
    if encoder.fingerprint != fingerprint:
        raise UserError(f"the vocabulary in {path} has changed since this run began: repeat the command")
    return encoder


def _encoded(job, numbers, encoder, index, outcomes, advance):
    """Yields (key bytes, token ids, text bytes) of each document that is kept, and counts them all."""
    for number in numbers.tolist():
        document = documents.read(index, number)
        outcomes["read"] += 1
        outcomes["invalid_utf8"] += document.invalid_utf8
        kept, text, ids = _judge(document, encoder, job)
        outcomes[kept] += 1
        if kept == "kept":
            yield os.fsencode(document.identity), ids, len(text.encode())
        advance(1)


def _judge(document, encoder, job):
    """(outcome, text, token ids) of a document."""
    if document.text is None:
        return "bad_lines", "", None
    text = bpe.well_formed(documents.clean(document.text) if job.clean else document.text)
    if not text.strip():
        return "empty", text, None
    try:
        ids = encoder.encode_array(text)
    except UserError as error:
        raise UserError(f"{document.identity}: {error}")
    if len(ids) < job.minimum_size:
        return "short", text, ids
    # As in the original, which met files of nothing but token 0.
    return "kept" if ids.any() else "broken", text, ids


def _build_in_processes(jobs, processes, advance):
    """The same from a pool.  Spawned, not forked: forking a process that has threads can hang."""
    progress = os.path.join(jobs[0].state, PROGRESS)
    with open(progress, "wb") as f:
        f.write(bytes(8 * len(jobs)))
    pool = futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_enter_worker)
    try:
        waiting = {pool.submit(_build_and_report, job, progress, i) for i, job in enumerate(jobs)}
        shown = 0
        while waiting:
            done, waiting = futures.wait(waiting, REPORT_SECONDS, futures.FIRST_COMPLETED)
            so_far = int(np.fromfile(progress, "<i8").sum())
            advance(so_far - shown)
            shown = so_far
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise UserError("a worker died, for lack of memory perhaps: run the same command again to go on, with fewer "
                        f"--processes than {processes}")
    finally:
        for child in multiprocessing.active_children():
            child.terminate()  # idle when all went well
        pool.shutdown(cancel_futures=True)


def _build_and_report(job, progress, number):
    """`build_shard` in a worker: the count of documents goes to the place `number` of the file `progress`."""
    count, due = 0, 0.0
    with open(progress, "r+b", buffering=0) as f:
        def advance(documents_done, final=False):
            nonlocal count, due
            count += documents_done
            if final or time.monotonic() > due:
                due = time.monotonic() + REPORT_SECONDS
                os.pwrite(f.fileno(), struct.pack("<q", count), 8 * number)
        entry = build_shard(job, advance)
        advance(0, final=True)
    return entry


def _enter_worker():
    """Ctrl-C is the parent's to handle; a parent that was killed takes its workers with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
