"""What the command lines of the benchmarks have in common."""
import argparse
import dataclasses
import json
import os

from configs import errors, reading, schema, storage
from configs.errors import UserError

HIDDEN = argparse.SUPPRESS
N_VOCAB = 50257  # of GPT-2's vocabulary
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SETTING = "setting.json"  # in a folder of results: what they have in common
MAIN = os.path.join(ROOT, "main.py")


def preset(name):
    """Path of a config in configs/."""
    return os.path.join(ROOT, "configs", name + ".json")


def load(name, overrides=()):
    """The Config of a preset, with GPT-2's size of the vocabulary where it says none; `overrides` as after --set."""
    config = schema.load(preset(name), overrides)
    return dataclasses.replace(config, n_vocab=config.n_vocab or N_VOCAB)


def parser(name, docstring):
    """The parser of `python3 -m benchmarks.{name}`; --help shows the docstring and the defaults."""
    head, _, rest = docstring.partition("\n\n")
    return errors.Parser(prog=f"-m benchmarks.{name}", description=head.replace("\n", " "),
                         epilog=rest.replace("\n", " ") or None,
                         formatter_class=argparse.ArgumentDefaultsHelpFormatter)


def add_cores(parser):
    """Adds --cores."""
    parser.add_argument("--cores", type=int, default=0, help="use only the last N of this process's cores; 0: all")


def add_set(parser, what="configs/117M.json"):
    """Adds --set, for main.py's keys."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help=f"override a key of {what}, as for main.py; may be repeated")


def check_least(args, **least):
    """Raises UserError where an option is below its least value."""
    for name, low in least.items():
        if not getattr(args, name) >= low:
            raise UserError(f"--{name} {getattr(args, name)} is out of range: give at least {low:g}")


def overrides(values):
    """{key: value} as KEY=VALUE, the value in JSON."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def set_words(overrides):
    """KEY=VALUE for each --set -> words of a command line."""
    return [word for override in overrides for word in ("--set", override)]


def keep_setting(folder, setting):
    """Notes {name: value} in a folder of results; raises UserError where it was begun with other values."""
    note = os.path.join(folder, SETTING)
    if not storage.exists(note):
        storage.write_whole(note, json.dumps(setting) + "\n")
        return
    for name, value in reading.read_object(note).items():
        if setting.get(name) != value:
            raise UserError(f"{folder} holds results with {name} {value}, not {setting.get(name)}: choose another"
                            " --output_dir, or move this one elsewhere")
