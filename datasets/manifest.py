"""What a data set holds: `{name}.manifest.json` beside its shards, and the facts of shards that have none."""
from __future__ import annotations

import collections
import contextlib
import json
import os
import re
from typing import NamedTuple

from configs import progress, reading, storage
from configs.errors import UserError
from datasets import integrity
from datasets.tfrecords import Shard

FORMAT_VERSION = 1
TRAIN, EVAL = "train", "eval"  # splits
SUFFIX, SCAN_SUFFIX = ".manifest.json", ".scan.json"
REMEDY = "fetch or build it anew; shards without one, in another folder, are counted by reading them, and which of "\
    "them are for evaluation is then not known"
MOST_CACHED = 1 << 16  # bytes of a .scan.json
COUNTED = ("records", "tokens", "text_bytes", "size")


class Entry(NamedTuple):
    """One shard of a manifest; `outcomes` counts what became of the documents meant for it."""
    split: str  # TRAIN or EVAL
    shard: Shard
    outcomes: dict


class Manifest(NamedTuple):
    """`plan`: what the shards were made from and how (vocabulary, options, inputs, tool versions)."""
    path: str
    plan: dict
    entries: tuple


def path_of(folder, name):
    return storage.join(folder, name + SUFFIX)


def paths_in(folder):
    """Sorted paths of all manifests in a folder."""
    return storage.glob(storage.below(folder, "*" + SUFFIX))


def write(path, plan, entries):
    """Writes the manifest of all `entries` whole or not at all; nothing in it depends on when or where."""
    splits = sorted({entry.split for entry in entries}, reverse=True)  # train, then eval
    totals = {split: {key: sum(getattr(entry.shard, key) for entry in entries if entry.split == split)
                      for key in COUNTED} for split in splits}
    content = {"format_version": FORMAT_VERSION, **plan, "outcomes": sum_outcomes(entries), "totals": totals,
               "shards": [entry_to_json(entry) for entry in entries]}
    storage.write_whole(path, json.dumps(content, indent=1) + "\n")


def load(path):
    """The Manifest at `path`.  Raises UserError where it is damaged or of a version this code does not know."""
    content = reading.read_object(path)
    version = content.pop("format_version", None)
    if version is None:
        raise UserError(f'{path} is not a manifest, for it has no "format_version": {REMEDY}')
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format version {reading.shown(version)}, this code knows {FORMAT_VERSION}: use the"
                        " code that wrote it")
    try:
        reading.check_kinds(content, {"shards": list, "vocabulary": (str, type(None)),
                                      "vocabulary_size": (int, type(None))})
        entries = tuple(entry_from_json(entry, os.path.dirname(path)) for entry in content.pop("shards"))
        plan = {key: value for key, value in content.items() if key not in ("outcomes", "totals")}
        return Manifest(path, plan, entries)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {REMEDY}")


def entry_to_json(entry):
    shard = entry.shard._asdict()
    return {"file": os.path.basename(shard.pop("path")), "split": entry.split, **shard, "outcomes": entry.outcomes}


def entry_from_json(content, folder):
    """The Entry, its path below `folder`.  Raises ValueError where something is missing, superfluous or impossible."""
    reading.check_kinds(content, {"file": str, "split": str, "outcomes": dict})
    facts = dict(content)
    file, split, outcomes = facts.pop("file"), facts.pop("split"), facts.pop("outcomes")
    if not re.fullmatch(r"[^/\0-\x1f\x7f]+", file) or file in (".", ".."):
        raise ValueError(f'"file" is {reading.shown(file)}, no name of a file beside it')
    if split not in (TRAIN, EVAL):
        raise ValueError(f'"split" of {file} is {reading.shown(split)}')
    try:
        reading.check_kinds(outcomes, dict.fromkeys(outcomes, int))
        return Entry(split, Shard.of(storage.join(folder, file), facts), outcomes)
    except ValueError as error:
        raise ValueError(f"of {file}, {error}")


def sum_outcomes(entries):
    """{outcome: documents} over all entries."""
    total = collections.Counter()
    for entry in entries:
        total.update(entry.outcomes)
    return dict(total)


def beside(folders):
    """{path as os.path.normpath gives it: (Entry, Manifest)} of all that the manifests in these folders list.

    Raises UserError where two say different things of a shard.
    """
    listed = {}
    for folder in sorted(folders):
        for path in paths_in(folder):
            manifest = load(path)
            for entry in manifest.entries:
                known, other = listed.setdefault(os.path.normpath(entry.shard.path), (entry, manifest))
                if (known.split, known.shard._replace(path=entry.shard.path)) != (entry.split, entry.shard):
                    raise UserError(f"{other.path} and {path} both list {os.path.basename(entry.shard.path)}, and say"
                                    " different things of it: move the one that is not its manifest elsewhere")
    return listed


def look_up(paths):
    """({path: (Shard, Manifest), or None where no manifest lists the file}, fingerprint of the vocabulary, if known).

    `paths` are local or gs://.  Raises UserError where their manifests have different vocabularies.
    """
    listed = beside({os.path.dirname(path) for path in paths})
    known_of = {path: listed.get(os.path.normpath(path)) for path in paths}
    facts = {path: known and (known[0].shard, known[1]) for path, known in known_of.items()}
    vocabularies = {known[1].plan.get("vocabulary"): known[1] for known in facts.values() if known}
    if len(vocabularies) > 1:
        one, other = list(vocabularies.values())[:2]
        raise UserError(f"{one.path} and {other.path} have different vocabularies: train on one of them, or encode "
                        "both with one vocabulary")
    return facts, next(iter(vocabularies), None)


def shards_of(facts, cache=True):
    """{path: Shard} from the facts that `look_up` gives: what its manifest says, or what reading the file says.

    With `cache` the latter is left beside the file, to read it once.  Raises UserError where a manifest is not right.
    """
    shards = {path: _checked(path, *known) for path, known in facts.items() if known}
    unlisted = [path for path in facts if path not in shards]
    with progress.bar(len(unlisted), "scan", "file", disable=not unlisted) as bar:
        for path in unlisted:
            shards[path] = _scan_once(path, cache)
            bar.update()
    return shards


def _checked(path, shard, manifest):
    if not storage.exists(path):
        raise UserError(f"{path} is not there, and {manifest.path} lists it: fetch or build it anew")
    size = storage.size(path)
    if size != shard.size:
        found = integrity.scan(path)  # of a file that is cut off: names the record and the offset
        raise UserError(f"{path} has {size} bytes, {found.records} records without damage, {manifest.path} says"
                        f" {shard.size} bytes, {shard.records} records: fetch or build the two together, or set"
                        ' "skip_corrupt_records" to true to read what the file holds')
    return shard._replace(path=path)


def _scan_once(path, keep):
    """The Shard of a file without manifest, kept beside it for as long as the file does not change."""
    if not storage.exists(path):
        raise UserError(f"no file {path}")
    cache = os.path.splitext(path)[0] + SCAN_SUFFIX
    state = storage.state(path)
    with contextlib.suppress(Exception):  # none yet, or not one of ours; TensorFlow's error for gs:// is no OSError
        with storage.open_file(cache) as f:
            content = reading.parse(f.read(MOST_CACHED))
        if content.pop("state") == state:
            return Shard.of(path, content)
    shard = integrity.scan(path)
    if keep:
        facts = {name: value for name, value in shard._asdict().items() if name != "path"}
        with contextlib.suppress(Exception):  # a folder that is read-only costs another scan next time, no more
            storage.write_whole(cache, json.dumps({"state": state, **facts}) + "\n")
    return shard
