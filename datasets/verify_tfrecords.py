"""Re-reads shards and names everything in them that is wrong: file, record, byte offset; status 2 if there is anything.

Every record's CRCs and format, ids within the vocabulary, and for shards with a manifest the counts, bytes and sha256
that it says, its vocabulary, and whether all its shards are there.
"""
from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import glob
import json
import time

from configs import commands, errors, progress, storage
from configs.errors import UserError
from datasets import integrity, manifest
from datasets.jobs import workers
from datasets.tfrecords import SUFFIX
from encoder import bpe

COMPARED = ("size", "sha256", "records", "tokens", "shortest", "largest_id")  # of a Shard, with its manifest's


def main(argv=None):
    """Arguments -> a line for each problem and a table; returns 0, or 2 where there is a problem."""
    args = arguments(argv)
    encoder = bpe.load(args.encoder_path) if args.encoder_path else None
    files, manifests, lines = _select(args.paths)
    lines += [f"{found.path}: encoded with the vocabulary {found.plan.get('vocabulary')!s:.12}, --encoder_path has"
              f" {encoder.fingerprint:.12}" for found in manifests
              if encoder and found.plan.get("vocabulary") != encoder.fingerprint]
    for line in lines:
        print(errors.printable(line))
    begun = time.monotonic()
    surveys, count = _survey(files, encoder, args.processes)
    seconds, count = time.monotonic() - begun, count + len(lines)
    kinds = [problem.kind for survey in surveys for problem in survey.problems]
    totals = {"files": len(surveys), "bytes": sum(survey.shard.size for survey in surveys),
              "good_records": sum(survey.shard.records for survey in surveys),
              "tokens_in_them": sum(survey.shard.tokens for survey in surveys),
              **{f"damaged: {kind}": kinds.count(kind) for kind in integrity.KINDS}}
    for name, value in totals.items():
        print(f"{name.replace('_', ' '):<26}{value:>20,}")
    print(f"{'MB/s':<26}{totals['bytes'] / 1e6 / max(seconds, 1e-9):>20,.0f}")
    if args.report:
        storage.write_whole(args.report, json.dumps({"problems": count, **totals}, indent=1) + "\n")
    print(f"{count} problem{'s' * (count != 1)} in {len(surveys)} files")
    return errors.USER_ERROR if count else 0


def _select(arguments):
    """({path of a shard: (Shard, Manifest), or None where no manifest lists it}, Manifests, lines on what is missing).

    Raises UserError where one of the files, folders, globs and manifests matches nothing.
    """
    files, manifests, problems, asked = [], {}, [], []
    for argument in arguments:
        matches = [argument] if storage.exists(argument) else storage.glob(argument)
        if not matches:
            raise UserError(f"no file, folder or match of {argument}{storage.looked_for_in(argument)}: "
                            "give shards, their folder, a glob or a manifest")
        for path in matches:
            if storage.is_folder(path):
                asked += manifest.paths_in(path)
                files += storage.glob(storage.below(path, "*" + SUFFIX))
            elif path.endswith(manifest.SUFFIX):
                asked.append(path)
            elif not path.endswith(manifest.SCAN_SUFFIX):  # a cache of what has no manifest; a glob takes it along
                files.append(path)
    folders = sorted({os.path.dirname(path) for path in files + asked})
    beside = [path for folder in folders for path in manifest.paths_in(folder)]
    for path in dict.fromkeys(_normal(path) for path in asked + beside):
        try:
            manifests[path] = manifest.load(path)
        except UserError as error:
            problems.append(str(error))
    listed = {_normal(entry.shard.path): (entry.shard, found) for found in manifests.values()
              for entry in found.entries}
    for path in map(_normal, asked):
        for entry in manifests[path].entries if path in manifests else ():
            if storage.exists(entry.shard.path):
                files.append(entry.shard.path)
            else:
                problems.append(f"{entry.shard.path}: missing, but {path} lists it")
        files += _unlisted(path, listed)
    paths = list(dict.fromkeys(map(_normal, files)))
    if not paths and not problems:
        raise UserError(f"no {SUFFIX} file in {', '.join(arguments)}")
    with_manifest = {os.path.dirname(path) for path in manifests}
    problems += [f"{path}: stands in no manifest of its folder" for path in paths
                 if path not in listed and os.path.dirname(path) in with_manifest]
    return {path: listed.get(path) for path in paths}, manifests.values(), problems


def _unlisted(path, listed):
    """The files that are called like shards of the manifest at `path` but stand in none."""
    stem = os.path.basename(path)[:-len(manifest.SUFFIX)]
    return [name for middle in ("", "-eval") for name in storage.glob(
        storage.below(os.path.dirname(path), f"{glob.escape(stem)}{middle}_[0-9]*{SUFFIX}"))
        if _normal(name) not in listed]


def _normal(path):
    return path if storage.is_remote(path) else os.path.normpath(path)


def _survey(files, encoder, processes):
    """Reads all files and prints their problems as they are found; returns ([integrity.Survey], problems)."""
    jobs = [integrity.ShardToRead(path, _limit(known, encoder)) for path, known in files.items()]
    total, surveys, count = sum(map(storage.size, files)), [], 0
    with progress.bar(total, "reading", "B", unit_scale=True) as bar:
        for survey in integrity.survey_all(jobs, total, processes, bar.update):
            surveys.append(survey)
            path = survey.shard.path
            lines = [f"{path}: {problem}" for problem in survey.problems] + _differences(survey, files[path])
            for line in lines:
                bar.write(line, file=sys.stdout)
            count += len(lines)
    return surveys, count


def _limit(known, encoder):
    """Size of the smaller vocabulary of manifest and --encoder_path; None where neither is known."""
    sizes = encoder and encoder.size, known and known[1].plan.get("vocabulary_size")
    return min(filter(None, sizes), default=None)


def _differences(survey, known):
    """The line on a file that is not what its manifest says, if it is not."""
    if not known:
        return []
    pairs = [(name, getattr(survey.shard, name), getattr(known[0], name)) for name in COMPARED]
    words = [f"{name} {ours!s:.12}, not {theirs!s:.12}" for name, ours, theirs in pairs
             if ours != theirs and theirs is not None]
    good = " (of the good records)" if survey.problems else ""
    return [f"{survey.shard.path}: not what {known[1].path} says: {'; '.join(words)}{good}"] if words else []


def arguments(argv=None):
    """Parsed.  Raises UserError."""
    parser = errors.script_parser(__doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="shards, folders, globs or manifests, local or gs://")
    add("--encoder_path", help="folder with encoder.json and vocab.bpe that the ids must come from; without it the"
        " manifest's word is taken")
    add("--processes", type=errors.at_least(1), default=workers.cores(), help="at most; one for each 32 MB is used")
    add("--report", metavar="FILE", help="file for the counts as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    commands.run(main)
