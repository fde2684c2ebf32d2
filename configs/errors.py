"""A user's mistake, which every command of the project shows as one clear line."""
import argparse
import contextlib
import difflib
import importlib.util
import os
import re
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER_ERROR = 2  # exit status
SET_UP = "run `. .venv/bin/activate`, or `make setup` first"
PREEMPTED = os.EX_TEMPFAIL  # 75, exit status of a run whose TPU is gone, which goes on when it is started again


def printable(text):
    """`text` on one line, with an escape such as \\x1b for each character that a terminal would obey instead of show.

    For what a server, an archive or a file from elsewhere says.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text.replace("\n", " "))


class UserError(Exception):
    """A mistake the user can mend: the message says what, where, which value and the remedy, in one line."""

    def __str__(self):
        return printable(super().__str__())


@contextlib.contextmanager
def about(where):
    """Inside, the message of a UserError begins with `where`: for what cannot know it itself."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, by UserError, and expands the ~ that begins a path (--input=~/texts)."""

    TEXTS = ("predict_text", "stop", "split_on", "text_key")  # which are no paths

    def parse_args(self, args=None, namespace=None):
        found = super().parse_args(args, namespace)
        for name, value in vars(found).items():
            if name not in self.TEXTS:
                setattr(found, name, _expanded(value))
        return found

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, which of an option with a slip would rather name others that are missing, and no remedy."""
        words = list(sys.argv[1:] if args is None else args)
        # What a subcommand takes its own parser knows.
        known = {} if self._subparsers else {option.lstrip("-"): option for option in self._option_string_actions}
        for word in words[:words.index("--")] if "--" in words else words:
            name = re.fullmatch(r"--?([A-Za-z][\w-]*)", word.partition("=")[0])
            if name and not any(option.startswith(name[0]) if self.allow_abbrev else option == name[0]
                                for option in known.values()):
                for near in difflib.get_close_matches(name[1].lower().replace("-", "_"), known, n=1, cutoff=0.75):
                    self.error(f"unknown option {name[0]}; did you mean {known[near]}?")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        raise UserError(f"{message}; `python3 {self.prog} --help` lists the options")


def _expanded(value):
    """The value of an option, or each of its list, with a home folder for the ~ at its beginning."""
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def script_parser(docstring, **options):
    """The Parser of the script that calls this: what it does is the first paragraph of its docstring.

    --help shows the defaults; errors call the script by its path from the top of the project.
    """
    script = os.path.relpath(sys._getframe(1).f_globals["__file__"], HOME)
    return Parser(prog=script, description=docstring.split("\n\n")[0].replace("\n", " "),
                  formatter_class=argparse.ArgumentDefaultsHelpFormatter, **options)


def checked(kind, allowed, words):
    """For add_argument(type=...): a value of `kind` (int, float) for which allowed(value) holds, which `words` say.

    >>> parser.add_argument("--cores", type=checked(int, lambda n: n >= 1, "at least 1"))
    """
    def convert(text):
        value = kind(text)
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text} is out of range: give {words}")
        return value
    convert.__name__ = kind.__name__  # what argparse calls it where `text` is no number
    return convert


def at_least(low, kind=int):
    """`checked` for values from `low` on."""
    return checked(kind, lambda value: value >= low, f"at least {low}")


@contextlib.contextmanager
def packages_from(requirements):
    """Turns the lack of a package into one line that names the file of requirements to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or error.args[0]  # Python 3.9 has no name where it is the package's metadata that lacks
        raise UserError(without(name, requirements))


def without(package, requirements="requirements.txt"):
    """What to say of a package that is not installed; without TensorFlow, too, this is not the Python of the set-up."""
    if importlib.util.find_spec("tensorflow") is None:
        return "this Python ({}) lacks the package {}: {}".format(sys.version.split()[0], package, SET_UP)
    return f"the package {package} is not installed: `pip install -r {requirements}`"
