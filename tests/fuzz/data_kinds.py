"""Shards and what stands beside them: TFRecord files, manifests, caches of scans, names of data sets."""
from __future__ import annotations

import json
import os
import shutil

import numpy as np

from configs import schema
from datasets import framing, integrity, manifest, shard_sets, tfrecords
from datasets.window_order import EvalWindows, WindowOrder
from encoder import bpe
from tests.fuzz.driver import Kind, Wrong
from tests.fuzz.mutations import changed_bytes, changed_json
from tests.helpers import records

SIZES = {"n_ctx": 8, "n_embd": 64, "n_layer": 1, "train_batch_size": 2, "eval_batch_size": 2, "train_steps": 5}


def prepare(folder):
    data = records.write_data_set(str(folder / "data"), "a", vocabulary=bpe.fingerprint())
    return data, bpe.load()


def plan(folder, encoder, **values):
    """What --plan reads of the data."""
    config = schema.from_dict({**SIZES, "n_vocab": encoder.size, "data_path": str(folder), "model_dir":
                               str(folder / "run"), **values}, "here")
    train = shard_sets.read(config, encoder, shard_sets.TRAIN)
    held_out = shard_sets.read(config, encoder, shard_sets.EVAL)
    order, windows = WindowOrder.of(config, train), EvalWindows.of(config, held_out)
    if not 0 <= order.dropped <= 1 or order.windows < 1 or windows.batches < 1:
        raise Wrong(f"{order.windows} windows, {windows.batches} batches")
    return train, held_out


def manifest_file(draw, prepared, folder):
    data, encoder = prepared
    shutil.copytree(data, folder, dirs_exist_ok=True)
    path = folder / "a.manifest.json"
    path.write_bytes(changed_json(draw, json.loads(path.read_bytes()), ("vocabulary", "shards", "totals")))
    return lambda: plan(folder, encoder)


def scan_cache(draw, prepared, folder):
    shard = folder / "x_0.tfrecords"
    shutil.copy(os.path.join(prepared[0], "a_0.tfrecords"), shard)
    facts = manifest.look_up([str(shard)])[0]
    truth = manifest.shards_of(facts)[str(shard)]
    cache = folder / "x_0.scan.json"
    cache.write_bytes(changed_json(draw, json.loads(cache.read_bytes()), ("path", "sha256")))

    def act():
        found = manifest.shards_of(facts)[str(shard)]
        for name, value in found._asdict().items():
            kinds = (type(getattr(truth, name)), type(None), *([int] if name == "text_bytes" else []))
            if type(value) not in kinds or (type(value) is int and not -1 <= value < 2**63):
                raise Wrong(f"{name} {str(value)[:40]!r}")
    return act


def shard_file(draw, prepared, folder):
    """A damaged file: what is called good is one of the records, and no more are missing than were touched."""
    keys = [b"%d" % number for number in range(draw.randrange(1, 9))]
    ids = [np.arange(draw.randrange(1, 60)) * 7 for _ in keys]
    payloads = [*tfrecords.encode(keys, ids)]
    data = b"".join(map(framing.frame, payloads))
    if draw.random() < 0.2:  # a length that is there, with its CRC, and is not so
        length = draw.choice((2**62, 2**63, 2**64 - 1, 2**40, len(data), 0)).to_bytes(8, "little")
        data = data[:draw.choice((0, len(data)))] + length + framing.masked_crc(length) + data[:40]
    else:
        data = changed_bytes(draw, data)
    (folder / "x_0.tfrecords").write_bytes(data)
    path = str(folder / "x_0.tfrecords")

    def act():
        whole = [piece.payload for piece, found in integrity.judged(path) if found is not None]
        if any(payload not in payloads for payload in whole if payload):
            raise Wrong("a record that was never written")
        survey = integrity.survey(integrity.ShardToRead(path, 100))
        if survey.shard.records > len(whole) or survey.shard.size != len(data):
            raise Wrong(f"{survey.shard}")
        if [payload for payload, _ in integrity.read(path)] != whole:
            raise Wrong("other records")
    return act


def example(draw, prepared, folder):
    """A record whose frame is whole, and its contents not."""
    payload, = tfrecords.encode([b"key"], [np.arange(30)])
    payload = changed_bytes(draw, payload)
    (folder / "x_0.tfrecords").write_bytes(framing.frame(payload))

    def act():
        for _, ids in integrity.read(str(folder / "x_0.tfrecords")):
            if ids.ndim != 1 or ids.dtype != np.int64 or ids.min(initial=0) < 0:
                raise Wrong(f"ids {ids[:9]}")
    return act


def membership(draw, prepared, folder):
    """Data sets side by side: what is for evaluation is never trained on."""
    names = draw.sample(("mine", "mine_v2", "mine_old", "m", "mine.x", "openwebtext-newspaper",
                         "openwebtext-newspaper_old", "openwebtext-newspaper-long"), draw.randrange(1, 4))
    held_out, of = set(), {}
    for name in names:
        train, evaluation = draw.randrange(1, 3), draw.randrange(0, 3)
        records.write_data_set(str(folder), name, train=train, held_out=evaluation)
        of.update({f"{name}_{i}.tfrecords": name for i in range(train)})
        of.update({f"{name}-eval_{i}.tfrecords": name for i in range(evaluation)})
        held_out |= {f"{name}-eval_{i}.tfrecords" for i in range(evaluation)}
    name = draw.choice(names)
    if draw.random() < 0.2:
        (folder / draw.choice([*of])).unlink()
    glob = draw.choice((f"{name}*", f"{name}_*", "*.tfrecords", f"{name}_*.tfrecords", f"{name}_0.tfrecords", "*",
                        None))
    values = {"train_files": glob} if glob else {"input": "openwebtext"} if "open" in name else {}
    config = schema.from_dict({**SIZES, "data_path": str(folder), "model_dir": str(folder / "run"), "n_vocab": 50257,
                               **values}, "here")

    def act():
        chosen = shard_sets.find(config, shard_sets.TRAIN, cache=False).names
        listed = [name for name in chosen if name in held_out]
        if listed:
            raise Wrong(f"trains on {listed} by {values}")
        if values.get("input") and {of[name] for name in chosen} != {"openwebtext-newspaper"}:
            raise Wrong(f"reads {chosen} as openwebtext")
        if len(chosen) != len(set(chosen)):
            raise Wrong("a shard twice")
    return act


KINDS = (Kind("manifest", "data", prepare, manifest_file), Kind("scan cache", "data", prepare, scan_cache),
         Kind("TFRecord file", "data", prepare, shard_file), Kind("tf.train.Example", "data", prepare, example),
         Kind("membership", "data", prepare, membership))
