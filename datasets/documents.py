"""Text files -> numbered documents: an index of millions of them fits into memory, and each is read by its number.

A text file is one document, or several where it is cut; each line of .jsonl is one, its text in a field.  .jsonl.gz and
.jsonl.zst are unpacked first (datasets/packed.py).
"""
from __future__ import annotations

import array
import collections
import hashlib
import itertools
import json
import os
import re
from typing import NamedTuple

import numpy as np

from configs import reading, storage
from configs.errors import UserError, printable
from datasets import cutting, encodings, listing

# Why a document has no text: a line of JSON without the key or without an object, a file that is not read.
PROBLEMS = BAD_LINE, NO_OBJECT, OTHER_ENCODING, PACKED = "bad_lines", "no_object", "other_encoding", "packed"
TWICE = object()  # the value of a key that a line holds twice: nobody knows which one counts
ARCHIVED_STEM = re.compile(r"\d{7}-[0-9a-f]{32}")  # openwebtext's: line of the URL list, md5 of the URL


class Index(NamedTuple):
    """F files in F_d folders hold N documents, in the order of the listing.  Saved, the arrays can be mapped."""
    folders: list  # [root, folder below it] each
    folder: np.ndarray  # int32 [F], into `folders`
    names: np.ndarray  # uint8: the names of all files, one after another
    name_end: np.ndarray  # int64 [F], into `names`
    first: np.ndarray  # int64 [F], the number of the file's first document
    bytes_in: np.ndarray  # uint8 [F]: what cutting.cut says
    file: np.ndarray  # int32 [N]
    offset: np.ndarray  # int64 [N], bytes
    length: np.ndarray  # int64 [N], bytes
    fingerprint: str  # hex sha256 over path below the root, size and time of change of each file
    held_out: int  # so many of the documents, the first ones, are from the inputs for evaluation
    scratch: str | None  # folder of the copies
    reading: cutting.Reading
    left_out: dict  # {option: what `listing.find` left out}


class Document(NamedTuple):
    """`text` is None where there is a `problem`, one of PROBLEMS."""
    identity: str
    text: str | None
    problem: str | None


def make_index(inputs, exclude=(), eval_inputs=(), scratch=None, option="--input",
               reading=cutting.USUAL):
    """The Index of all documents in `inputs`: files, folders (read recursively) or globs of either.

    `exclude`: globs of what to leave out, each compared with every component of the path below the input's root and
    with that path as a whole.  `eval_inputs`, as `inputs`: what is for evaluation, and nothing else where both name
    it, by whatever links.  `scratch`: a folder, made when there are files to copy; it must last as long as the Index,
    and what an earlier run left there is used again.  `option`: what errors call `inputs`.

    Raises UserError where nothing is found.
    """
    excluded, left_out = listing.matcher(exclude), {option: {}, "--eval_input": {}}
    for_evaluation = [*listing.find(eval_inputs, excluded, "--eval_input", left_out["--eval_input"])]
    held_out_files = {(facts.st_dev, facts.st_ino) for _, _, facts in for_evaluation}
    others = (place for place in listing.find(inputs, excluded, option, left_out[option])
              if (place[2].st_dev, place[2].st_ino) not in held_out_files)
    folders, names, digest = {}, bytearray(), hashlib.sha256()
    folder, file, bytes_in = array.array("i"), array.array("i"), bytearray()
    name_end, first, offset, length = arrays = [array.array("q") for _ in range(4)]
    for root, relative, facts in itertools.chain(for_evaluation, others):
        digest.update(b"%s\0%d\0%d\0" % (os.fsencode(relative), facts.st_size, facts.st_mtime_ns))
        below, name = os.path.split(relative)
        names += os.fsencode(name)
        name_end.append(len(names))
        first.append(len(offset))
        starts, lengths, where = (0,), (facts.st_size,), cutting.OWN
        if reading.split_on or listing.is_lines(name):
            starts, lengths, where = cutting.cut(os.path.join(root, relative), scratch, reading)
        file.extend(array.array("i", (len(folder),)) * len(starts))
        offset.extend(starts)
        length.extend(lengths)
        folder.append(folders.setdefault((root, below), len(folders)))
        bytes_in.append(where)
    held_out = first[len(for_evaluation)] if len(first) > len(for_evaluation) else len(offset)
    for given, count, of_option in ((eval_inputs, held_out, "--eval_input"), (inputs, len(offset) - held_out, option)):
        if given and not count:
            others = listing.described(left_out[of_option])
            raise UserError(f"no document in {' '.join(given)}{' after --exclude' if exclude else ''}"
                            f"{' and --eval_input' if held_out else ''}{f', only {others}' if others else ''}: give "
                            f"files, folders or globs of {', '.join(listing.SUFFIXES)}")
    name_end, first, offset, length = [np.frombuffer(values, np.int64) for values in arrays]
    return _told_apart(Index(
        list(map(list, folders)), np.frombuffer(folder, np.int32), np.frombuffer(names, np.uint8), name_end, first,
        np.frombuffer(bytes_in, np.uint8), np.frombuffer(file, np.int32), offset, length, digest.hexdigest(), held_out,
        scratch, reading, left_out))


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


def show_left_out(index):
    """Prints what the inputs hold and the Index does not."""
    for option, left_out in index.left_out.items():
        if left_out:
            print(printable(f"{option}: not read are {listing.described(left_out)}"), flush=True)


def in_stretches(index, longest):
    """(the Index with each text file of more than `longest` bytes as several documents, int64 [N]: in `index`, the
    number of the document of which each is a part).

    Together they hold the same words.  What is already cut into documents stays as it is.
    """
    several, counts = {}, np.ones(len(index.file), np.int64)
    for number in np.flatnonzero(index.length > longest).tolist():
        place = path(index, int(index.file[number]))
        if not index.reading.split_on and not listing.is_lines(place):
            several[number] = cutting.stretches(place, longest, index.reading)
            counts[number] = len(several[number][0])
    owner = np.repeat(np.arange(len(counts)), counts)
    file, offset, length = index.file[owner], index.offset[owner], index.length[owner]
    for number, (starts, lengths) in several.items():
        offset[owner == number], length[owner == number] = starts, lengths
    return index._replace(file=file, offset=offset, length=length), owner


def add_arguments(parser):
    """Adds the options --input and --exclude, for `make_index`, and those of `reading`."""
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH",
        help=f"files, folders (with all below) or globs; read are {', '.join(listing.SUFFIXES)}, and files without "
        "ending that are given by name")
    add("--exclude", action="append", default=[], metavar="GLOB",
        help="leave out what has such a component or path below its input (repeatable)")
    add("--encoding", type=encodings.check, metavar="NAME",
        help="of files that are neither UTF-8 nor UTF-16 with a byte order mark, such as cp1252; "
        f"{encodings.DETECT}: guess each one's; without the option they are left out")
    add("--split_on", type=cutting.unescaped, metavar="TEXT",
        help="cut text files into documents where TEXT stands, which may hold \\n, \\t and \\\\: '<|endoftext|>' or "
        "'\\n\\n\\n'; --split_on='---' where it begins with a dash")
    add("--text_key", default=cutting.USUAL.text_key, metavar="KEY", help="field of a line of JSON that holds its text")


def plan(index):
    """{name: value} of how the files are read, where that is not as usual: it decides the bytes of the output."""
    return {name: value for name, value in index.reading._asdict().items() if value != getattr(cutting.USUAL, name)}


def save(index, folder):
    """Writes the Index for `load`, by another process."""
    for name, value in index._asdict().items():
        if isinstance(value, np.ndarray):
            save_array(os.path.join(folder, name + ".npy"), value)
    others = {name: value for name, value in index._asdict().items() if not isinstance(value, np.ndarray)}
    storage.write_whole(os.path.join(folder, "index.json"), json.dumps(others))


def load(folder):
    """The Index that `save` wrote; what is not used of it stays on disk."""
    others = json.loads(storage.read_bytes(os.path.join(folder, "index.json")))
    others["reading"] = cutting.Reading(*others["reading"])
    return Index(**others, **{name: load_array(os.path.join(folder, name + ".npy"))
                              for name in Index._fields if name not in others})


def save_array(path, array):
    """Like np.save, but its error on a full disk says so."""
    with storage.written_whole(path) as f:
        np.lib.format.write_array_header_1_0(f, np.lib.format.header_data_from_array_1_0(array))
        f.write(array.data)


def load_array(path):
    """The array that `save_array` wrote; what is not used of it stays on disk."""
    with storage.naming(path):
        # As a plain array, still mapped: reading one number from a np.memmap takes several times as long.
        return np.asarray(np.load(path, mmap_mode="r"))


def identity(index, number):
    """The name of a document: that of its file, and its number there where there may be several: `books.jsonl:17`."""
    file = int(index.file[number])
    name = file_identity(index, file)
    several = index.reading.split_on or listing.is_lines(name)
    return f"{name}:{number - int(index.first[file]) + 1}" if several else name


def file_identity(index, file):
    """The stem of a text from openwebtext's archives, else the path below the input's root: `books/war.txt`."""
    _, below, name = _place(index, file)
    stem, suffix = os.path.splitext(name)
    return stem if ARCHIVED_STEM.fullmatch(stem) and suffix in listing.TEXT_SUFFIXES else os.path.join(below, name)


def path(index, file):
    """Where the file lies."""
    return os.path.join(*_place(index, file))


def identity_key(name):
    """int: 64 bits that stand for an identity where millions are compared."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def is_line(index, number):
    """Whether a document is a line of JSON."""
    return listing.is_lines(path(index, int(index.file[number])))


def read(index, number):
    """The Document of that number.  Raises UserError where its file cannot be read as the index has it."""
    if index.bytes_in[index.file[number]] == cutting.UNREADABLE:
        return Document(identity(index, number), None, OTHER_ENCODING)
    data, is_lines = _read_bytes(index, number)
    whole = not (is_lines or index.reading.split_on)  # what was cut is in UTF-8, or was meant to be
    text, problem = encodings.decode(data, index.reading.encoding if whole else None), None
    if text is None:
        problem = PACKED if encodings.is_packed(data) else OTHER_ENCODING
    elif is_lines:
        text, problem = _text_of_line(text, index.reading.text_key)
    return Document(identity(index, number), text and reading.without_marks(text), problem)


def fields(index, number):
    """Returns the JSON object that the document's line holds, as {name: value or TWICE}, or {} if it holds none."""
    return _object(encodings.decode(_read_bytes(index, number)[0]) or "") or {}


def _read_bytes(index, number):
    """(bytes of a document, whether it is a line of JSON)."""
    file, length = int(index.file[number]), int(index.length[number])
    place = path(index, file)
    try:
        with open(cutting.place_of_bytes(place, index.bytes_in[file], index.scratch, index.reading), "rb", 0) as f:
            if index.offset[number]:
                f.seek(int(index.offset[number]))
            data = f.read(length)
            while len(data) < length and (more := f.read(length - len(data))):
                data += more  # the system gives at most 2 GB at once
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}: mend it or leave it out with --exclude")
    if len(data) < length:
        raise UserError(f"{place} has become shorter: do not change the input while it is read")
    return data, listing.is_lines(place)


def _text_of_line(line, key):
    """(the string in the field `key` of a JSON object, None), or (None, problem); an empty line has an empty text."""
    if not line.strip():
        return "", None
    content = _object(line)
    if content is None:
        return None, NO_OBJECT
    text = content.get(key)
    return (text, None) if isinstance(text, str) else (None, BAD_LINE)


def _object(line):
    """Parses a line as a JSON object.  Returns None if the line is no JSON object."""
    try:
        content = DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _with_twice(pairs):
    """The dict of a JSON object's pairs."""
    values = dict(pairs)
    if len(values) < len(pairs):
        times = collections.Counter(name for name, _ in pairs)
        values.update((name, TWICE) for name in values if times[name] > 1)
    return values


# Numbers are not used; as an int, one of thousands of digits would be an error.
DECODER = json.JSONDecoder(object_pairs_hook=_with_twice, parse_int=float)


def _place(index, file):
    """(root, path of the folder below it, name) of a file."""
    start = int(index.name_end[file - 1]) if file else 0
    name = os.fsdecode(index.names[start:int(index.name_end[file])].tobytes())
    return *index.folders[int(index.folder[file])], name
