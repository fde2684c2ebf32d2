"""The files that a config's data keys name: by globs, by the original's names, or by the one manifest in data_path."""
import collections
import fnmatch
import os
import re
from typing import NamedTuple

from configs import arguments, reading, schema, storage
from configs.errors import UserError
from datasets import manifest
from datasets.manifest import EVAL, TRAIN
from datasets.tfrecords import SUFFIX

SHORT, LONG = "openwebtext-newspaper", "openwebtext-newspaper-long"
# The original's inputs: parts of a mixture as (name of the shards, share).
OPENWEBTEXT = {"openwebtext": [(SHORT, 1.0)], "openwebtext_long": [(LONG, 1.0)],
               "openwebtext_longbiased": [(SHORT, 0.3), (LONG, 0.7)]}
# The original told training and evaluation shards apart by their numbers.
HELD_OUT = {1, 2, 11, 12, 16, 34, 36, 58, 60, 61, 62, 67, 83}
NUMBERED = r"_(\d+)" + re.escape(SUFFIX)


class Choice(NamedTuple):
    """Paths that are read as one text, their share of a mixture, and paths that rules below leave out."""
    paths: list
    weight: float
    left_out: list


def choose(config, split):
    """List of a Choice for each part of what the config reads for `split`, TRAIN or EVAL.  Raises UserError."""
    if config.input != schema.FILES_INPUT:
        return [_of_openwebtext(config, name, weight, split) for name, weight in OPENWEBTEXT[config.input]]
    given = getattr(config, _key(split))
    if given is None:
        return [_of_the_manifest(config, split)]
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given[0], str):
        return [_matched(config, pattern, float(weight), split) for pattern, weight in given]
    parts = [_matched(config, pattern, 1.0, split) for pattern in given]
    # What two globs match is read once.
    return [Choice(list(dict.fromkeys(path for part in parts for path in part.paths)), 1.0,
                   list(dict.fromkeys(path for part in parts for path in part.left_out)))]


def _key(split):
    return f"{split}_files"


def _without(split):
    """How to do without the data of `split`, behind other remedies."""
    return "" if split == TRAIN else ', or set "eval_steps" to 0 to train without'


def _of_the_manifest(config, split):
    """The Choice of a config that names no files."""
    key, here = _key(split), config.data_path + storage.looked_for_in(config.data_path) if config.data_path else \
        f"is left out, and the current folder {os.getcwd()}"
    found = manifest.paths_in(config.data_path)
    if not storage.is_folder(config.data_path or "."):
        raise UserError(f'"data_path" {here} is no folder; set it to that of a data set, as'
                        " datasets/create_tfrecords.py makes it")
    if not found:
        raise UserError(f'"data_path" {here} holds no manifest (*{manifest.SUFFIX}); make a data set with'
                        f' datasets/create_tfrecords.py, or set "{key}" to a glob of {SUFFIX} files, or "input" to'
                        ' "openwebtext" for the original\'s')
    if len(found) > 1:
        names = [os.path.basename(path)[:-len(manifest.SUFFIX)] for path in found]
        example = f"{names[0]}{'' if split == TRAIN else '-eval'}_*{SUFFIX}"
        raise UserError(f'"data_path" {here} holds {len(found)} data sets ({reading.shorten(names)}); set "{key}" to'
                        f' the shards of one, for instance "{example}", or give each a folder of its own')
    listed = manifest.beside([config.data_path])
    paths = [entry.shard.path for entry, _ in listed.values() if entry.split == split]
    if not paths:
        what, remedy = ("training", "make them anew") if split == TRAIN else (
            "evaluation", f'set "eval_steps" to 0 to train without, or "{key}" to other shards')
        raise UserError(f"{found[0]} lists no {what} shards; {remedy}")
    there = storage.glob(storage.below(config.data_path, "*" + SUFFIX))
    return _checked(paths, there, listed, split)


def _matched(config, pattern, weight, split):
    """The Choice of one glob."""
    whole, key = storage.below(config.data_path, pattern), _key(split)
    there = [path for path in storage.glob(whole)
             if not path.endswith((manifest.SUFFIX, manifest.SCAN_SUFFIX)) and not storage.is_folder(path)]
    manifests = storage.glob(storage.join(os.path.dirname(whole), "*" + manifest.SUFFIX))
    listed = manifest.beside({os.path.dirname(path) for path in [*there, *manifests]})
    meant = [entry.shard.path for entry, _ in listed.values()
             if fnmatch.fnmatchcase(os.path.basename(entry.shard.path), os.path.basename(whole))]
    if not there + meant:
        raise UserError(f'"{key}": no file matches {whole}{storage.looked_for_in(whole)}; make shards with'
                        f' datasets/create_tfrecords.py or set "data_path"{_without(split)}')
    choice = _checked(there + meant, there, listed, split)
    if not choice.paths:
        raise UserError(f'"{key}" {pattern} takes in evaluation shards alone, which are never trained on'
                        f" ({reading.shorten(_names(choice.left_out))}); name training shards")
    sets = collections.Counter(_data_set(path, listed) for path in choice.paths)
    if len(sets) > 1:
        counts = [f"{name} ({count} shard{'s' * (count > 1)})" for name, count in sets.items()]
        arguments.note(f"{key} {pattern} takes in {len(sets)} data sets: {reading.shorten(counts)}")
    return choice._replace(weight=weight)


def _checked(meant, there, listed, split):
    """The Choice of the paths `meant`, in the order of their numbers; `there` are those that exist.

    What a manifest marks as evaluation is not trained on, also under the name of a link.  Raises UserError where one
    is listed and not there.
    """
    there = {os.path.normpath(path): path for path in there}
    held_out = _held_out([path for place, path in there.items() if place not in listed], listed)
    paths, left_out = [], []
    for place in sorted({os.path.normpath(path) for path in meant}, key=_natural):
        entry, source = listed.get(place, (None, None))
        if split == TRAIN and (entry.split == EVAL if entry else os.path.realpath(place) in held_out):
            left_out += [there[place]] if place in there else []
        elif place in there:
            paths.append(there[place])
        else:
            raise UserError(f"{entry.shard.path} is not there, and {source.path} lists it; fetch or build it anew, or"
                            f' set "{_key(split)}" to those to read')
    if left_out:
        arguments.note(f"{len(left_out)} evaluation shard{'s' * (len(left_out) > 1)} left out of {_key(TRAIN)}:"
                       f" {reading.shorten(_names(left_out))}")
    return Choice(paths, 1.0, left_out)


def _held_out(unlisted, listed):
    """Real paths of the evaluation shards that manifests list, also those where links among `unlisted` lead to."""
    targets = {os.path.dirname(os.path.realpath(path)) for path in unlisted if os.path.islink(path)}
    entries = [entry for entry, _ in [*listed.values(), *manifest.beside(targets).values()]]
    return {os.path.realpath(entry.shard.path) for entry in entries if entry.split == EVAL} if unlisted else set()


def _data_set(path, listed):
    """The name of the data set of a shard, with its folder."""
    known = listed.get(os.path.normpath(path))
    if known:
        return known[1].path[:-len(manifest.SUFFIX)]
    return re.sub(f"(-eval)?{NUMBERED}$", "", path) + " without a manifest"


def _of_openwebtext(config, name, weight, split):
    """The Choice of the original's name: shards {name}_{i} to train on and {name}-eval_{i} to evaluate on.

    Without the latter the original's split by numbers.
    """
    there = storage.glob(storage.below(config.data_path, name + "*" + SUFFIX))
    listed = manifest.beside([config.data_path])
    known = there + [entry.shard.path for entry, _ in listed.values()]

    def numbered(stem, rest=NUMBERED):
        matches = {path: re.fullmatch(re.escape(stem) + rest, os.path.basename(path)) for path in known}
        return {path: int(match[1]) for path, match in matches.items() if match}
    training, held_out = numbered(name), numbered(name + "-eval")
    if not held_out:
        held_out = [path for path, number in training.items() if number in HELD_OUT]
        training = [path for path, number in training.items() if number not in HELD_OUT]
    paths = list(training if split == TRAIN else held_out)
    if not paths:
        stem = name if split == TRAIN else name + "-eval"
        wanted = storage.join(config.data_path, f"{stem}_*{SUFFIX}")
        raise UserError(f'"data_path": no file {wanted}{storage.looked_for_in(wanted)}; make shards with'
                        f" datasets/create_tfrecords.py --name {name}{_without(split)}")
    choice = _checked(paths, there, listed, split)
    # An earlier version also trained on what has more than a number behind the name.
    others = [path for path in numbered(name, "_.*" + NUMBERED) if split == TRAIN and path in there]
    return Choice(choice.paths, weight, choice.left_out + others)


def _names(paths):
    return [os.path.basename(path) for path in paths]


def _natural(path):
    """Sorts x_2 before x_10, and x_02, which is the same number, before x_2."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", path)], path
