"""Reads what the user wrote: a text, a JSON file, or one KEY=VALUE of the command line, with errors that say where."""
import codecs
import json

from configs import storage
from configs.errors import UserError

LONGEST_SHOWN = 60
MOST_SHOWN = 5  # names
MARK = "\ufeff"  # of byte order, before a text: some editors of Windows put it there
UTF16_MARKS = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
# Control characters that texts hardly have: others than those of layout, backspace (man pages) and escape (logs).
CONTROLS = bytes({*range(32), 127} - {*b"\b\t\n\v\f\r\x1b"})
MOST_CONTROLS = 0.02  # of a text; in UTF-16, Latin or Cyrillic letters, which are valid UTF-8, have half


def read_object(path):
    """The dict in a JSON file, local or gs://.  Raises UserError, also when a key is given twice."""
    try:
        values = parse(read_text(path, "a JSON file"), path)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON at line {error.lineno} column {error.colno}: {error.msg}; look there for a"
                        " comma or quote too many or too few") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UserError(f"{path}: cannot be a config: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f'{path}: holds {shown(values)}, but a config is one JSON object, {{"key": value, ...}}')
    return values


def parse_override(text):
    """'lr=0.1' -> {'lr': 0.1}; 'model_dir=runs/a' -> {'model_dir': 'runs/a'}: what is not JSON is a string."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UserError(f"--set {text}: must be KEY=VALUE, for example --set lr=0.0003")
    try:
        return {name: parse(value, f"--set {text}")}
    except (ValueError, RecursionError):
        return {name: value}


def shown(value):
    """The value as JSON, cut to a length that fits a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def shorten(names):
    """The first of a list of names, and how many more there are."""
    rest = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def read_text(path, what):
    """The text in a file, local or gs://, as `decode` has it.  Raises UserError, which asks for the path of `what`."""
    try:
        data = storage.read_bytes(path)
    except Exception as error:
        # Google Storage raises TensorFlow's errors, which cannot be named without importing TensorFlow.
        if not isinstance(error, OSError) and not storage.is_remote(path):
            raise
        cause = getattr(error, "strerror", None) or storage.blame(error) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({cause}); give the path of {what}") from None
    text = decode(data)
    if text is None:
        raise UserError(f"{path}: is not text in UTF-8, or in UTF-16 with a byte order mark; give the path of {what}")
    return text


def decode(data):
    """The text of bytes in UTF-8, or in UTF-16 with its mark, without that mark; None where they are no such text."""
    wide = has_utf16_mark(data)
    try:
        text = data.decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError:
        return None
    return text.removeprefix(MARK) if is_text(text.encode() if wide else data) else None


def has_utf16_mark(data):
    return data.startswith(UTF16_MARKS) and not data.startswith(codecs.BOM_UTF32_LE)


def is_text(data):
    """Whether bytes in UTF-8 are more than control characters."""
    return len(data) - len(data.translate(None, CONTROLS)) <= MOST_CONTROLS * len(data)


def parse(text, where):
    """What the JSON `text` holds.  Raises ValueError, and a UserError for a key that an object holds twice."""
    def unique(pairs):
        values = {}
        for name, value in pairs:
            if name in values:
                raise UserError(f'{where}: "{name}" is given twice ({shown(values[name])}, {shown(value)}); keep one')
            values[name] = value
        return values
    return json.loads(text, object_pairs_hook=unique)
