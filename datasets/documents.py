"""Text files -> numbered documents: an index of millions of them fits into memory, and each is read by its number.

A .txt, .py or .md file is one document; each line of .jsonl is one, its text in the field `text`.  .jsonl.gz and
.jsonl.zst are unpacked first (datasets/packed.py).
"""
from __future__ import annotations

import array
import contextlib
import fnmatch
import glob
import hashlib
import itertools
import json
import os
import pathlib
import re
import stat
from typing import NamedTuple

import numpy as np

from configs import storage
from configs.errors import UserError
from datasets import packed

TEXT_SUFFIXES, LINES_SUFFIXES = (".txt", ".py", ".md"), (".jsonl", *packed.SUFFIXES)
SUFFIXES = (*TEXT_SUFFIXES, *LINES_SUFFIXES)
ARCHIVED_STEM = re.compile(r"\d{7}-[0-9a-f]{32}")  # openwebtext's: line of the URL list, md5 of the URL
READ_BYTES = 1 << 24


class Index(NamedTuple):
    """F files in F_d folders hold N documents, in the order of the listing.  Saved, the arrays can be mapped."""
    folders: list  # [root, folder below it] each
    folder: np.ndarray  # int32 [F], into `folders`
    names: np.ndarray  # uint8: the names of all files, one after another
    name_end: np.ndarray  # int64 [F], into `names`
    first: np.ndarray  # int64 [F], the number of the file's first document
    file: np.ndarray  # int32 [N]
    offset: np.ndarray  # int64 [N], bytes
    length: np.ndarray  # int64 [N], bytes
    fingerprint: str  # hex sha256 over path below the root, size and time of change of each file
    held_out: int  # so many of the documents, the first ones, are from the inputs for evaluation
    scratch: str | None  # folder of the unpacked files


class Document(NamedTuple):
    """`text` is None for a line that is not JSON with a string in `text`."""
    identity: str
    text: str | None
    invalid_utf8: bool


def make_index(inputs, exclude=(), eval_inputs=(), scratch=None, option="--input"):
    """The Index of all documents in `inputs`: files, folders (read recursively) or globs of either.

    `exclude`: globs of what to leave out, each compared with every component of the path below the input's root and
    with that path as a whole.  `eval_inputs`, as `inputs`: what is for evaluation, and nothing else where both name
    it.  `scratch`: a folder, made when there are packed files, for their unpacked contents; it must last as long as
    the Index, and what an earlier run left there is used again.  `option`: what errors call `inputs`.

    Raises UserError where nothing is found.
    """
    excluded = _matcher(exclude)
    for_evaluation = {os.path.join(*place[:2]): place for place in _find(eval_inputs, excluded, "--eval_input")}
    others = (place for place in _find(inputs, excluded, option)
              if not for_evaluation or os.path.join(*place[:2]) not in for_evaluation)
    folders, names, digest = {}, bytearray(), hashlib.sha256()
    folder, file, arrays = array.array("i"), array.array("i"), [array.array("q") for _ in range(4)]
    name_end, first, offset, length = arrays
    for root, relative, facts in itertools.chain(for_evaluation.values(), others):
        digest.update(b"%s\0%d\0%d\0" % (os.fsencode(relative), facts.st_size, facts.st_mtime_ns))
        below, name = os.path.split(relative)
        names += os.fsencode(name)
        name_end.append(len(names))
        first.append(len(offset))
        starts, lengths = (0,), (facts.st_size,)
        if name.endswith(LINES_SUFFIXES):
            path = os.path.join(root, relative)
            starts, lengths = _lines(packed.unpack(path, scratch) if name.endswith(packed.SUFFIXES) else path)
        file.extend(array.array("i", (len(folder),)) * len(starts))
        offset.extend(starts)
        length.extend(lengths)
        folder.append(folders.setdefault((root, below), len(folders)))
    held_out = first[len(for_evaluation)] if len(first) > len(for_evaluation) else len(offset)
    for given, count in ((eval_inputs, held_out), (inputs, len(offset) - held_out)):
        if given and not count:
            raise UserError(f"no document in {' '.join(given)}{' after --exclude' if exclude else ''}"
                            f"{' and --eval_input' if held_out else ''}: give files, folders or globs of "
                            f"{', '.join(SUFFIXES)}")
    name_end, first, offset, length = [np.frombuffer(values, np.int64) for values in arrays]
    return _told_apart(Index(
        list(map(list, folders)), np.frombuffer(folder, np.int32), np.frombuffer(names, np.uint8), name_end, first,
        np.frombuffer(file, np.int32), offset, length, digest.hexdigest(), held_out, scratch))


def _told_apart(index):
    """The Index; where files of several inputs have one name, all names begin with the ends of the inputs' paths.

    The ends have as many components as tell the inputs apart: of `1/war.txt` and `2/war.txt`, these are the names.
    What is for evaluation has no say, so that datasets/dedup.py, which is not told of it, finds the same names.
    """
    files = range(int(index.file[index.held_out]) if index.held_out < len(index.file) else 0, len(index.folder))
    roots = {index.folders[number][0] for number in np.unique(index.folder[files.start:])}
    if len(roots) < 2:
        return index
    names = np.fromiter((identity_key(file_identity(index, file)) for file in files), np.uint64)
    if len(np.unique(names)) == len(names):
        return index
    parts = {root: root.strip(os.sep).split(os.sep) for root in roots}
    count = next(n for n in itertools.count(1) if len({tuple(part[-n:]) for part in parts.values()}) == len(parts))
    ends = {root: os.path.join(*part[-count:]) for root, part in parts.items()}
    folders = [[os.sep + os.path.join("", *parts[root][:-count]), os.path.join(ends[root], below)]
               if root in ends else [root, below] for root, below in index.folders]
    digest = hashlib.sha256(os.fsencode("\0".join([index.fingerprint, *sorted(ends.values())])))
    return index._replace(folders=folders, fingerprint=digest.hexdigest())


def add_arguments(parser):
    """Adds the options --input and --exclude, for `make_index`."""
    parser.add_argument("--input", nargs="+", required=True, metavar="PATH",
                        help=f"files, folders (with all below) or globs; read are {', '.join(SUFFIXES)}")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB",
                        help="leave out what has such a component or path below its input (repeatable)")


def save(index, folder):
    """Writes the Index for `load`, by another process."""
    for name, value in index._asdict().items():
        if isinstance(value, np.ndarray):
            save_array(os.path.join(folder, name + ".npy"), value)
    with open(os.path.join(folder, "index.json"), "w") as f:
        json.dump({name: value for name, value in index._asdict().items() if not isinstance(value, np.ndarray)}, f)


def load(folder):
    """The Index that `save` wrote; what is not used of it stays on disk."""
    with open(os.path.join(folder, "index.json")) as f:
        others = json.load(f)
    # As plain arrays, still mapped: reading one number from a np.memmap takes several times as long.
    return Index(**others, **{name: np.asarray(np.load(os.path.join(folder, name + ".npy"), mmap_mode="r"))
                              for name in Index._fields if name not in others})


def save_array(path, array):
    """Like np.save, but its error on a full disk says so."""
    with storage.written_whole(path) as f:
        np.lib.format.write_array_header_1_0(f, np.lib.format.header_data_from_array_1_0(array))
        f.write(array.data)


def identity(index, number):
    """The name of a document: that of its file, and with the line for .jsonl: `books.jsonl:17`."""
    file = int(index.file[number])
    name = file_identity(index, file)
    return f"{name}:{number - int(index.first[file]) + 1}" if name.endswith(LINES_SUFFIXES) else name


def file_identity(index, file):
    """The stem of a text from openwebtext's archives, else the path below the input's root: `books/war.txt`."""
    _, below, name = _place(index, file)
    stem, suffix = os.path.splitext(name)
    return stem if ARCHIVED_STEM.fullmatch(stem) and suffix in TEXT_SUFFIXES else os.path.join(below, name)


def path(index, file):
    """Where the file lies."""
    return os.path.join(*_place(index, file))


def identity_key(name):
    """int: 64 bits that stand for an identity where millions are compared."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def read(index, number):
    """The Document of that number.  Raises UserError where its file cannot be read as the index has it."""
    place, length = path(index, int(index.file[number])), int(index.length[number])
    try:
        with open(packed.place(place, index.scratch) if place.endswith(packed.SUFFIXES) else place, "rb", 0) as f:
            if index.offset[number]:
                f.seek(int(index.offset[number]))
            data = f.read(length)
            while len(data) < length and (more := f.read(length - len(data))):
                data += more  # the system gives at most 2 GB at once
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}: mend it or leave it out with --exclude")
    if len(data) < length:
        raise UserError(f"{place} has become shorter: do not change the input while it is read")
    try:
        text, invalid = data.decode(), False
    except UnicodeDecodeError:
        text, invalid = data.decode(errors="replace"), True
    text = text.removeprefix("\ufeff")
    if place.endswith(LINES_SUFFIXES):
        text = _text_field(text) if text.strip() else ""
    return Document(identity(index, number), text, invalid)


def _find(inputs, excluded, option):
    """Yields (root, path below it, os.stat) of every file to read, sorted within each input, nothing twice."""
    matches = {}  # absolute path -> (path, root)
    for pattern in inputs:
        for path, root in _expand(pattern, option):
            matches.setdefault(os.path.abspath(path), (path, os.path.abspath(root)))
    for absolute, (path, root) in matches.items():
        if not matches.keys().isdisjoint(map(str, pathlib.PurePath(absolute).parents)):
            continue  # a folder that is read anyway holds it
        if os.path.isdir(path):
            yield from _walk(path, root, excluded)
        elif not excluded(os.path.relpath(path, root)):
            yield root, os.path.relpath(path, root), os.stat(path)


def _expand(pattern, option):
    """[(path, root)]: a folder is its own root; the root of a glob is what stands before its first wildcard."""
    if "://" in pattern:
        raise UserError(f"{option} {pattern}: text is read from local files only, copy it here first")
    if os.path.isdir(pattern):
        return [(pattern, pattern)]
    if os.path.exists(pattern):
        if not pattern.endswith(SUFFIXES):
            raise UserError(f"{option} {pattern}: only {', '.join(SUFFIXES)} are read")
        return [(pattern, os.path.dirname(pattern) or ".")]
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise UserError(f"{option} {pattern}: no such file or folder")
    root = os.path.dirname(re.split(r"[*?\[]", pattern)[0]) or "."
    return [(path, root) for path in matches if os.path.isdir(path) or path.endswith(SUFFIXES)]


def _walk(path, root, excluded):
    """Yields (root, path below it, os.stat) of the files below the folder `path`."""
    for folder, subfolders, names in os.walk(path, onerror=_raise):
        below = os.path.relpath(folder, root)
        below = "" if below == "." else below
        subfolders[:] = sorted(name for name in subfolders if not excluded(os.path.join(below, name)))
        for name in sorted(names):
            relative = os.path.join(below, name)
            if name.endswith(SUFFIXES) and not excluded(relative):
                with contextlib.suppress(OSError):  # a link to nowhere
                    facts = os.stat(os.path.join(root, relative))
                    if stat.S_ISREG(facts.st_mode):
                        yield root, relative, facts


def _matcher(patterns):
    """A function of the path below the root: whether one of `patterns` excludes it."""
    if not patterns:
        return lambda relative: False
    matches = re.compile("|".join(fnmatch.translate(pattern.rstrip("/")) for pattern in patterns)).match

    def excluded(relative):
        # The leading slash lets `*/idlelib/*` match at the root as well.
        return bool(matches(relative) or matches("/" + relative) or any(map(matches, relative.split("/"))))
    return excluded


def _lines(path):
    """(offsets, lengths), arrays in bytes and without line ends; the last line may lack its own."""
    ends, position = [np.zeros(0, np.int64)], 0
    with open(path, "rb") as f:
        for chunk in iter(lambda: f.read(READ_BYTES), b""):
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + position)
            position += len(chunk)
    ends = np.concatenate(ends)
    if position and (not len(ends) or ends[-1] != position - 1):
        ends = np.append(ends, position)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[:len(ends)]
    return array.array("q", starts.tobytes()), array.array("q", (ends - starts).tobytes())


def _text_field(line):
    """The string in `text` of a JSON object, or None."""
    try:
        text = json.loads(line)["text"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return text if isinstance(text, str) else None


def _place(index, file):
    """(root, path of the folder below it, name) of a file."""
    start = int(index.name_end[file - 1]) if file else 0
    name = os.fsdecode(index.names[start:int(index.name_end[file])].tobytes())
    return *index.folders[int(index.folder[file])], name


def _raise(error):
    raise error
