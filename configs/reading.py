"""Reads what the user wrote: a text, a JSON file, or one KEY=VALUE of the command line, with errors that say where."""
import json

from configs import storage
from configs.errors import UserError

LONGEST_SHOWN = 60
MOST_SHOWN = 5  # names


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
    """The UTF-8 text in a file, local or gs://.  Raises UserError, which asks for the path of `what`."""
    try:
        return storage.read_bytes(path).decode("utf-8-sig")  # some editors of Windows put a mark before the text
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); give the path of {what}") from None
    except Exception as error:
        # Google Storage raises TensorFlow's errors, which cannot be named without importing TensorFlow.
        if not isinstance(error, OSError) and not storage.is_remote(path):
            raise
        cause = getattr(error, "strerror", None) or storage.blame(error) or str(error).splitlines()[0]
        cause += storage.looked_for_in(path)
        raise UserError(f"{path}: cannot be read ({cause}); give the path of {what}") from None


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
