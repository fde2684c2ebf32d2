"""A user's mistake, which every command of the project shows as one clear line."""
import argparse
import contextlib
import os

USER_ERROR = 2  # exit status
PREEMPTED = os.EX_TEMPFAIL  # 75, exit status of a run whose TPU is gone, which goes on when it is started again


class UserError(Exception):
    """A mistake the user can mend: the message says what, where, which value and the remedy, in one line."""


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, by UserError."""

    def error(self, message):
        raise UserError(f"{message}; `python3 {self.prog} --help` lists the options")


def script_parser(docstring, **options):
    """The Parser of a script: what it does is the first paragraph of its docstring, and --help shows the defaults."""
    return Parser(description=docstring.split("\n\n")[0].replace("\n", " "),
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
        raise UserError(f"the package {name} is not installed: `pip install -r {requirements}`")
