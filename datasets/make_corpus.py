"""Makes verified shards and a report of lists of URLs, by all commands in turn; the same command goes on after a kill.

The commands are those of this folder.  OUTPUT_DIR gets `pages` (archives), `texts`, `drop.txt`, `shards`, each from
its command, and at the end `report.json` and `report.txt`.  Each command skips what it has finished.  The download
alone would try failed pages again: here it is finished once it came to its end, so that the pages stay the same for the
stages after it.
"""
from __future__ import annotations

import argparse
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import hashlib
import importlib
import json
import shlex
import time
from typing import NamedTuple

from configs import commands, errors, reading, storage
from configs.errors import UserError
from datasets import documents, manifest
from datasets.jobs import workers
from datasets.pages import archive_texts, extraction
from encoder import bpe

LISTS, PAGES, TEXTS, DROP, SHARDS = "lists.json", "pages", "texts", "drop.txt", "shards"
DOWNLOADED, VERIFIED, REPORT = "download.json", "verify.json", "report"
SCRIPTS = {"download": "download.py", "extract": "run_newspaper_extract.py", "dedup": "dedup.py",
           "create_tfrecords": "create_tfrecords.py"}  # that take further options


# Options that the stages find each other's files by; those of them that are options here, too.
JOINING = ("input", "output", "output_dir", "report", "drop", "name", "encoder_path")
OWN = ("name", "encoder_path")


class Stage(NamedTuple):
    """A command of this folder and its arguments: those that join it to the other stages, and the user's."""
    title: str
    command: str  # module
    joining: list
    more: list = []

    @property
    def arguments(self):
        return [*self.joining, *self.more]

    @property
    def module(self):
        return importlib.import_module(f"datasets.{self.command}")


def main(argv=None):
    """Arguments -> shards and report; returns 0, or the status of the download where a signal ended it."""
    args = _arguments(argv)
    stages = _stages(args)
    _check(args, stages)
    with storage.only_run(os.path.join(args.output_dir, ".lock"), "choose another --output_dir"):
        _note_lists(args)
        for number, stage in enumerate(stages, 1):
            print(f"[{number}/{len(stages)}] {stage.title}", flush=True)
            begun = time.monotonic()
            status = _run(args, stage)
            if status:
                return status
            print(f"[{number}/{len(stages)}] {stage.title}: {time.monotonic() - begun:.0f} s", flush=True)
        _report(args)
    return 0


def _stages(args):
    def place(name):
        return os.path.join(args.output_dir, name)
    where = ["--processes", str(args.processes)]
    cluster = ["--ray_address", args.ray_address] if args.ray_address else []
    vocabulary = ["--encoder_path", args.encoder_path] if args.encoder_path else []
    return [
        Stage("download: URLs -> pages", "download",
              [*args.urls, "--output_dir", place(PAGES), "--report", place(DOWNLOADED)], args.download),
        Stage("extract: pages -> texts", "run_newspaper_extract",
              ["--input", place(PAGES), "--output_dir", place(TEXTS), *where, *cluster], args.extract),
        Stage("dedup: texts -> list of duplicates", "dedup",
              ["--input", place(TEXTS), "--output", place(DROP), *where, *cluster], args.dedup),
        Stage("create_tfrecords: texts -> shards", "create_tfrecords",
              ["--input", place(TEXTS), "--drop", place(DROP), "--name", args.name, "--output_dir", place(SHARDS),
               *vocabulary, *where, *cluster], args.create_tfrecords),
        Stage("verify: shards", "verify_tfrecords",
              [place(SHARDS), "--report", place(VERIFIED), *vocabulary, *where]),
    ]


def _check(args, stages):
    """Raises UserError for mistakes in the options of any stage: now, and not after days of download."""
    if storage.is_remote(args.output_dir):
        raise UserError(f"--output_dir {args.output_dir}: write to a local folder and copy it with `gsutil -m cp`")
    for stage in stages:
        try:
            alone, given = (vars(stage.module.arguments(words)) for words in (stage.joining, stage.arguments))
        except UserError as error:
            raise UserError(f"{stage.command}: {error}")
        for name in JOINING:
            if alone.get(name) != given.get(name):
                remedy = "give it outside of these options" if name in OWN else "leave it out"
                raise UserError(f"{stage.command}: --{name} joins it to the other commands: {remedy}")
    bpe.load(args.encoder_path)
    for path in args.urls:
        if not storage.exists(path) or storage.is_folder(path):
            raise UserError(f"--urls {path}: no such file{storage.looked_for_in(path)}")


def _note_lists(args):
    """Writes down the lists of URLs.  Raises UserError where the corpus is made of other lists."""
    lists = {os.path.basename(path): hashlib.sha256(storage.read_bytes(path)).hexdigest() for path in args.urls}
    note = os.path.join(args.output_dir, LISTS)
    if not os.path.exists(note):
        storage.write_whole(note, json.dumps(lists, indent=1) + "\n")
        return
    before = reading.read_object(note)
    changed = sorted(name for name in {*lists, *before} if lists.get(name) != before.get(name))
    if changed:
        raise UserError(f"{args.output_dir} is made of other lists of URLs ({', '.join(changed)}): give the same ones, "
                        "or another --output_dir")


def _run(args, stage):
    """Runs a stage to its end; returns the status of one that a signal ended, else 0.  Raises UserError."""
    note = os.path.join(args.output_dir, DOWNLOADED)
    if stage.command == "download" and os.path.exists(note) and not _downloaded(note)["stopped"]:
        print(f"{note} is there: nothing to do")
        return 0
    status = stage.module.main(stage.arguments)
    if stage.command == "download" and not status:
        downloaded = _downloaded(note)
        if not downloaded["all_runs"].get("saved"):
            counts = ", ".join(f"{name} {count}" for name, count in downloaded["all_runs"].items())
            os.unlink(note)
            raise UserError(f"none of {downloaded['lines']} lines gave a page ({counts}): give other --urls and "
                            "another --output_dir, or try again later")
    if stage.command == "verify_tfrecords" and status:
        raise UserError(f"{os.path.join(args.output_dir, SHARDS)} is damaged, as said above: move the damaged "
                        "shards elsewhere, and run the same command again, which makes them anew")
    return status


def _downloaded(note):
    """Reads the report of the download.  Raises UserError where the file holds something else."""
    content = reading.read_object(note)
    try:
        reading.check_kinds(content, {"stopped": bool, "all_runs": dict, "lines": int})
    except ValueError as error:
        raise UserError(f"{note} is no report of a download ({error}); move it elsewhere and run again")
    return content


def _report(args):
    """Writes and prints REPORT, from the reports of the stages."""
    def read(*names):
        return reading.read_object(os.path.join(args.output_dir, *names))

    def total(name):
        return sum(split[name] for split in built["totals"].values())
    downloaded = _downloaded(os.path.join(args.output_dir, DOWNLOADED))
    extracted, compared = read(TEXTS, extraction.SUMMARY), read("drop.json")
    built = read(SHARDS, args.name + manifest.SUFFIX)
    entries = _counted_once([manifest.entry_from_json(entry, SHARDS) for entry in built["shards"]], built["documents"])
    stages = {"download": downloaded["all_runs"], "extract": {**extracted["outcomes"],
              "documents": extracted["documents"]}, "dedup": compared["outcomes"],
              "create_tfrecords": manifest.sum_outcomes(entries), "verify": read(VERIFIED)}
    content = {"urls": downloaded["lines"], "pages": extracted["outcomes"]["pages"],
               "texts": extracted["outcomes"]["kept"], "documents": sum(entry.shard.records for entry in entries),
               "tokens": total("tokens"),
               "bytes": {"of_text": total("text_bytes"), "of_shards": total("size")},
               "lost": _losses(stages), "splits": built["totals"], "stages": stages}
    lost = sum(count for losses in content["lost"].values() for count in losses.values())
    content["unaccounted"] = content["urls"] - lost - content["documents"]
    storage.write_whole(os.path.join(args.output_dir, REPORT + ".json"), json.dumps(content, indent=1) + "\n")
    storage.write_whole(os.path.join(args.output_dir, REPORT + ".txt"), _text(content))
    print(f"{_text(content)}{os.path.join(args.output_dir, REPORT)}.json", flush=True)


def _counted_once(entries, count):
    """Returns the Entries that count each of `count` documents once.

    Where each document gave its end for evaluation, these are the Entries for training.
    """
    found = manifest.sum_outcomes(entries)
    twice = found["read"] + found["dropped"] > count
    return [entry for entry in entries if entry.split == manifest.TRAIN or not twice]


def _losses(stages):
    """{stage: {reason: number of URLs that were lost for it}}, from the counters of all stages."""
    extracted = stages["extract"]
    lost = {"download": {name: count for name, count in stages["download"].items() if name != "saved"},
            "extract": {name: extracted[name] for name in (*archive_texts.JUDGED, *archive_texts.SKIPPED)
                        if name != "kept"},
            # Documents that are empty or no text are left out, and counted, by create_tfrecords.
            "dedup": {name: stages["dedup"][name] for name in ("exact", "near", "against")},
            "create_tfrecords": {name: stages["create_tfrecords"].get(name, 0)
                                 for name in ("short", "broken", "empty", *documents.PROBLEMS)}}
    lost["extract"]["same_page"] = extracted["kept"] - extracted["documents"]
    return {stage: {name: count for name, count in reasons.items() if count} for stage, reasons in lost.items()}


def _text(content):
    """The report as a table for people."""
    rows = [("URLs", content["urls"]), ("pages", content["pages"]), ("texts", content["texts"]),
            ("documents", content["documents"]), ("tokens", content["tokens"]),
            ("bytes of text", content["bytes"]["of_text"]), ("bytes of shards", content["bytes"]["of_shards"])]
    rows += [(f"lost, {stage}: {reason}", count) for stage, reasons in content["lost"].items()
             for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    if content["unaccounted"]:
        rows.append(("unaccounted for", content["unaccounted"]))
    return "".join(f"{name:<44}{count:>16,}\n" for name, count in rows)


def _words(options):
    try:
        return shlex.split(options)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{options!r}: {error}")


def _arguments(argv):
    parser = errors.script_parser(__doc__)
    add = parser.add_argument
    add("--urls", nargs="+", required=True, metavar="LIST", help="lists of URLs, one a line")
    add("--output_dir", required=True, help="local folder, for all that is made")
    add("--name", default="corpus", help="shards are called NAME_0.tfrecords, NAME-eval_0.tfrecords and so on")
    add("--encoder_path", help="folder with encoder.json and vocab.bpe; GPT-2's vocabulary without it")
    for name, script in SCRIPTS.items():
        add(f"--{name}", type=_words, default="", metavar="OPTIONS", help=f"further options of {script}, in one pair "
            f"of quotes and after an equals sign: --{name}='--option value'")
    workers.add_arguments(parser, "what is made does not depend on it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
