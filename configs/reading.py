"""Reads what comes from outside: a text, a JSON file, or one KEY=VALUE of the command line, with errors that say where.

All JSON from outside goes through `parse`, but for the lines of text that a data set is made of.
"""
import codecs
import json
import math
import re

from configs import file_errors, storage
from configs.errors import UserError, printable

LONGEST_SHOWN = 60
MOST_SHOWN = 5  # names
LARGEST = 10**8  # bytes of JSON, the most that safetensors allows for a header
DEEPEST = 100  # lists and objects around a value
NO_LIMIT = "model_max_length"  # a key to which transformers gives 10**30
MARK = "\ufeff"  # of byte order, before a text: some editors of Windows put it there
START = re.compile(rf"[\s{MARK}]*")
UTF16_MARKS = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
# Control characters that texts hardly have: others than those of layout, backspace (man pages) and escape (logs).
CONTROLS = bytes({*range(32), 127} - {*b"\b\t\n\v\f\r\x1b"})
MOST_CONTROLS = 0.02  # of a text; in UTF-16, Latin or Cyrillic letters, which are valid UTF-8, have half
# By which ISO 2022 changes to other letters (https://www.rfc-editor.org/rfc/rfc1468, 1554, 1557, 1922).  Colours of a
# terminal begin with another character, and ESC ( B, which terminals use too, only changes back.
ISO_2022 = re.compile(rb"\x1b(?:\$(?:[@-B]|[()*+\-./][@-~])|\([IJ]|\.[AF])")
# First bytes of common Chinese characters in GB 2312, which HZ writes as 0 to W, and of rare ones, as X to w.
COMMON_HANZI, RARE_HANZI = bytes(range(0xb0, 0xd8)), bytes(range(0xd8, 0xf8))


def read_object(path, remedy=None):
    """The dict in a JSON file, local or gs://.  Raises UserError for what `parse` refuses.

    `remedy` is what helps where the file is not the user's own.
    """
    def wrong(what, helps=None):
        return UserError("; ".join(filter(None, [f"{path}: {what}", remedy or helps])))
    text = read_text(path, "a JSON file", LARGEST)
    if not text.strip():
        raise wrong('is empty, but must be one JSON object, {"key": value, ...}')
    try:
        values = parse(text)
    except json.JSONDecodeError as error:
        helps = "look there for a comma or quote too many or too few" if text[error.pos:].strip() else \
            "the file ends there, in the middle: add what is missing, or bring back the whole file"
        raise wrong(f"not JSON at line {error.lineno} column {error.colno}: {error.msg}", helps) from None
    except ValueError as error:
        raise wrong(str(error)) from None
    if not isinstance(values, dict):
        raise wrong(f'holds {shown(values)}, but must be one JSON object, {{"key": value, ...}}')
    return values


def parse(text):
    """What the JSON `text`, a str or bytes of UTF-8, holds.

    Raises JSONDecodeError where it is no JSON; ValueError where it is not UTF-8, too long or too deep, or holds a key
    twice, NaN, an infinity or a number that 64 bits cannot hold.
    """
    if len(text) > LARGEST:
        raise ValueError(f"is longer than {LARGEST:,} bytes")
    try:
        values = json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_object,
                            parse_int=lambda digits: int(digits[:LONGEST_SHOWN + 2]))  # longer ones are refused
        _check("", values, DEEPEST)
    except RecursionError:
        raise ValueError(f"is nested more than {DEEPEST} deep") from None
    return values


def _object(pairs):
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = {}
        for name, value in pairs:
            if name in seen:
                raise ValueError(f'"{shorten_text(name)}" is given twice ({shown(seen[name])}, {shown(value)}); keep'
                                 " one")
            seen[name] = value
    return values


def _check(name, value, most):
    """Raises ValueError where `value` is nested too deep, or holds NaN, an infinity or a number beyond 64 bits.

    `name` is the key that the value belongs to; `most` says how many more levels are allowed.
    """
    if isinstance(value, (dict, list)):
        if not most:
            raise ValueError(f"is nested more than {DEEPEST} deep")
        for key, inner in value.items() if isinstance(value, dict) else ((name, inner) for inner in value):
            _check(key, inner, most - 1)
    elif isinstance(value, float) and not math.isfinite(value) or (
            type(value) is int and not -2**63 <= value < 2**63 and name != NO_LIMIT):
        what = f'"{shorten_text(name)}" is' if name else "holds"
        raise ValueError(f"{what} {shown(value)}, but must be a finite number of 64 bits")


def check_kinds(values, kinds):
    """Raises ValueError where `values` is no dict that holds a value of the type, or one of the types, for each name.

    `kinds`: {name: a type or a tuple of types}; bool is no int, and a name that may lack allows type(None).
    """
    if not isinstance(values, dict):
        raise ValueError(f"{shown(values)} is no object")
    for name, kind in kinds.items():
        if type(values.get(name)) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise ValueError(f'"{name}" is {shown(values[name])}' if name in values else f'"{name}" is missing')


def parse_override(text):
    """'lr=0.1' -> {'lr': 0.1}; 'model_dir=runs/a' -> {'model_dir': 'runs/a'}: what is not JSON is a string."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UserError(f"--set {text}: must be KEY=VALUE, for example --set lr=0.0003")
    try:
        return {name: parse(value)}
    except json.JSONDecodeError:
        return {name: value}
    except ValueError as error:
        raise UserError(f"--set {shorten_text(text)}: {error}")


def shown(value):
    """The value as JSON, cut to a length that fits a line."""
    return printable(shorten_text(json.dumps(value, ensure_ascii=False)))


def shorten_text(text):
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def shorten(names):
    """The first of a list of names, and how many more there are, on one line."""
    rest = len(names) - MOST_SHOWN
    return printable(", ".join(names[:MOST_SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def read_text(path, what, most=None):
    """The text in a file, local or gs://, as `decode` has it, of at most so many bytes.

    Raises UserError, which asks for the path of `what`.
    """
    try:
        data = storage.read_bytes(path, -1 if most is None else most + 1)
    except Exception as error:
        # Google Storage raises TensorFlow's errors, which cannot be named without importing TensorFlow.
        if not isinstance(error, OSError) and not storage.is_remote(path):
            raise
        cause = file_errors.cause(error) + storage.looked_for_in(path)
        raise UserError(f"{path}: cannot be read ({cause}); give the path of {what}") from None
    if most is not None and len(data) > most:
        raise UserError(f"{path}: is longer than {most:,} bytes; give the path of {what}")
    text = decode(data)
    if text is None:
        raise UserError(f"{path}: is not UTF-8 text, or UTF-16 with a byte order mark; give the path of {what}")
    return text


def decode(data):
    """The text of bytes in UTF-8, or in UTF-16 with its mark, `without_marks`; None where they are no such text."""
    wide = has_utf16_mark(data)
    try:
        text = data.decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError:
        return None
    return without_marks(text) if is_text(text.encode() if wide else data) else None


def without_marks(text):
    """`text` without marks of byte order at its start, and behind the white space there, which joined files have."""
    start = START.match(text)[0]
    return start.replace(MARK, "") + text[len(start):] if MARK in start else text


def has_utf16_mark(data):
    return data.startswith(UTF16_MARKS) and not data.startswith(codecs.BOM_UTF32_LE)


def is_text(data):
    """Whether bytes in UTF-8 are text: without NUL, with few other control characters, and not `in_seven_bits`."""
    controls = len(data) - len(data.translate(None, CONTROLS))
    return controls <= MOST_CONTROLS * len(data) and b"\0" not in data and not in_seven_bits(data)


def in_seven_bits(data):
    """Whether bytes, which may be valid UTF-8, are text in ISO 2022 or in HZ (https://www.rfc-editor.org/rfc/rfc1843).

    UTF-7 is not told from ASCII: `+120` is valid in both.
    """
    if b"\x1b" in data and ISO_2022.search(data):
        return True
    if b"~{" not in data or b"~}" not in data:
        return False
    try:
        text = data.decode("hz")  # only where each ~ in it is one of HZ's signs
    except UnicodeDecodeError:
        return False
    first_bytes = re.sub(r"[\0-\x7f]", "", text).encode("gb2312")[::2]
    common, rare = (len(first_bytes) - len(first_bytes.translate(None, kind)) for kind in (COMMON_HANZI, RARE_HANZI))
    return common > rare  # what Lisp's (format t "~{item~}" list) would be in HZ is rare
