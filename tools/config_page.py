"""Prints docs/config.md, the table of all keys, from configs/schema.py."""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from configs import commands, errors, schema

ABOVE = """# Config

All keys of a config, made by `python3 tools/config_page.py > docs/config.md`; the words stand in `configs/schema.py`.

A config holds what differs from these defaults. An unknown key is an error that names the nearest one. The resolved
config is written to `model_dir/config.json`. To go on with another network or vocabulary is an error, with another data
order or schedule a warning.
"""
BELOW = """Keys of the original's files that have other names now still work, with one line that says the new one:
`model_path` is `model_dir`; `opt_name` `"adamW"` is `"adam"` with `weight_decay`; `scale` is `scale_by_depth`; the
nested `opt_params` of the earliest files (`name`, `lr`, `wd_type`, `wd_exponent` ...) are the flat keys.
"""


def main(argv=None):
    errors.Parser(description=__doc__).parse_args(argv)
    print(page(), end="")
    return 0


def page():
    """The whole file."""
    return "\n".join([ABOVE, schema.markdown(), BELOW])


if __name__ == "__main__":
    commands.run(main)
