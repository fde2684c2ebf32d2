"""The list of documents to leave out: their identities in the order of the documents, one a line, UTF-8.

Names of files that are not UTF-8 keep their bytes.
"""
import hashlib
import io
import os

import numpy as np

from configs import storage
from configs.errors import UserError
from datasets import documents


def write(path, index, numbers):
    """Lists the documents `numbers`, int64, of the Index; returns the hex sha256 of the file."""
    data = bytearray()
    for number in numbers.tolist():
        data += os.fsencode(documents.identity(index, number)) + b"\n"
    storage.write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def check_names(index):
    """Raises UserError where a line of the list could not tell the Index's documents apart."""
    if np.any(index.names == ord("\n")) or any("\n" in folder for _, folder in index.folders):
        raise UserError("a name of a file or folder in --input holds a line break: rename it or leave it out with "
                        "--exclude")
    keys = _keys(documents.file_identity(index, file) for file in range(len(index.folder)))
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if len(same):
        one, other = order[same[0]], order[same[0] + 1]
        raise UserError(f"{documents.path(index, one)} and {documents.path(index, other)} have one name, "
                        f"{documents.file_identity(index, one)}: rename one or leave it out with --exclude")


def read(path):
    """(uint64 [lines] keys of the identities, hex sha256 of the file).  Raises UserError where it cannot be read."""
    if not os.path.isfile(path):
        raise UserError(f"--drop {path}: no such file{storage.looked_for_in(path)}; give the list that "
                        "datasets/dedup.py wrote")
    data = storage.read_bytes(path)
    names = filter(None, (line.rstrip(b"\r\n") for line in io.BytesIO(data)))
    return _keys(map(os.fsdecode, names)), hashlib.sha256(data).hexdigest()


def mark(keys, index):
    """(bool [documents], whether the list names each; bool [keys], whether each names a document).

    Documents that are held out for evaluation are never named: their names start at other folders, and a list made
    against the evaluation texts would take these along where they lie in a folder of --input.
    """
    ours = _keys(documents.identity(index, number) for number in range(index.held_out, len(index.file)))
    return np.concatenate([np.zeros(index.held_out, bool), np.isin(ours, keys)]), np.isin(keys, ours)


def _keys(identities):
    return np.fromiter(map(documents.identity_key, identities), np.uint64)
