"""Bytes of text -> text: UTF-8, UTF-16 with its mark, else what --encoding names or finds out (charset-normalizer)."""
from __future__ import annotations

import argparse
import codecs
import functools
import importlib.metadata

from configs import reading, storage
from datasets import packed

DETECT = "detect"
# How files begin that are packed or pictures, whatever their names say: none is UTF-8, but single-byte encodings read
# them all.  gzip, zstd, xz, bzip2, zip, 7z; PNG, JPEG.
PACKED = (packed.GZIP, packed.ZSTANDARD, b"\xfd7zXZ\0", b"BZh91AY&SY", b"PK\3\4", b"7z\xbc\xaf\x27\x1c",
          b"\x89PNG\r\n", b"\xff\xd8\xff")
TAR, TAR_PLACE = b"ustar", 257  # behind the name of the first file, which NULs fill up
ASCII = bytes(range(128))
SAMPLE_BYTES = 1 << 20  # tell the encoding of a file of many documents
READ_CHARACTERS = 1 << 22


def check(name):
    """For add_argument(type=...): the name of an encoding as Python knows it, or DETECT."""
    if name == DETECT:
        return name
    try:
        name = codecs.lookup(name).name
        "a".encode(name, "ignore").decode(name)
    except (LookupError, UnicodeError):  # also for what Python knows and is no encoding of files, such as base64
        raise argparse.ArgumentTypeError(f"{name!r} is no encoding of text that Python knows: give a name such as "
                                         f"cp1252, shift_jis or utf-16-le, or {DETECT}")
    return name


def tools(encoding):
    """{package: version} that decides what comes out."""
    return {"charset-normalizer": importlib.metadata.version("charset-normalizer")} if encoding == DETECT else {}


def decode(data, encoding=None):
    """The text of `data`, a whole text, or None where it is in another encoding, or no text.

    `encoding`: how to read what is neither UTF-8 nor UTF-16 with a mark; DETECT: as charset-normalizer thinks it is.
    """
    wide = reading.has_utf16_mark(data)
    if wide or encoding is None or encoding == DETECT or _holds_ascii(encoding):
        text = reading.decode(data)
        if wide or encoding is None or text is not None:
            return text
    if is_packed(data):
        return None
    if encoding == DETECT:
        best = _best_match(data)
        if best is None:
            return None
        encoding = best.encoding
    text = _strictly(data, encoding)
    return None if text is None or not reading.is_text(text.encode("utf-8", "replace")) else text


def is_packed(data):
    """Whether bytes are the beginning of a file that is packed, or a picture."""
    return data.startswith(PACKED) or data.startswith(TAR, TAR_PLACE) and b"\0" in data[:TAR_PLACE]


def to_bring_to_utf8(path, encoding):
    """The encoding of a file that must become UTF-8 before it can be cut into documents; None where it need not.

    `encoding` as for `decode`.  Raises UnicodeError where DETECT finds none.
    """
    if reading.has_utf16_mark(beginning(path)):
        return "utf-16"
    if encoding is None:
        return None
    if encoding != DETECT:
        return None if _holds_ascii(encoding) and _is_utf8(path) else encoding
    with open(path, "rb") as f:
        sample = f.read(SAMPLE_BYTES)
    sample = sample[:sample.rfind(b"\n") + 1 or len(sample)]
    if not reading.in_seven_bits(sample) and _is_utf8(path):
        return None
    best = _best_match(sample)
    if best is None:
        raise UnicodeError
    return best.encoding


def beginning(path):
    """The first bytes of a file, enough to tell what it is."""
    with open(path, "rb") as f:
        return f.read(TAR_PLACE + len(TAR))


def bring_to_utf8(path, target, encoding):
    """Copies a file to `target`, in UTF-8.  Raises UnicodeError where it is not in `encoding` throughout."""
    with storage.written_whole(target) as f, open(path, encoding=encoding, newline="") as source:
        for text in iter(functools.partial(source.read, READ_CHARACTERS), ""):
            f.write(text.encode())


@functools.lru_cache(maxsize=None)
def _holds_ascii(encoding):
    """Whether ASCII is the same in it and all else is not, so that what is valid UTF-8 is hardly ever anything else."""
    others = (character.encode(encoding, "ignore") for character in "é中あ한")
    return _strictly(ASCII, encoding) == ASCII.decode() and not any(data and data.isascii() for data in others)


def _strictly(data, encoding):
    try:
        return data.decode(encoding)
    except UnicodeError:
        return None


def _is_utf8(path):
    try:
        with open(path, encoding="utf-8", newline="") as f:
            while f.read(READ_CHARACTERS):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _best_match(data):
    import charset_normalizer  # a tenth of a second, for what is neither UTF-8 nor UTF-16
    return charset_normalizer.from_bytes(data).best()
