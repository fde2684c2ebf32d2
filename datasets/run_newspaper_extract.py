"""Extracts archives of pages to texts OUTPUT_DIR/MONTH/STEM.txt, in parallel; the same command goes on after a kill.

The name is the original's; newspaper is one of the extractors.  What is read: see datasets/extract_text.py.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import glob
import re

from configs import commands, errors
from configs.errors import UserError
from datasets.pages import extraction

PAGES = re.compile(r"[^.].*(_data\.(xz|bz2|gz)|\.warc(\.gz)?)")


def main(argv=None):
    """Arguments -> texts; returns 0."""
    args = arguments(argv)
    paths = sorted({os.path.realpath(path): path for pattern in args.input for path in _expand(pattern)}.values())
    extraction.run(paths, args)
    return 0


def _expand(pattern):
    """Paths of the archives that a file, folder or glob stands for; a meta archive has no pages."""
    if os.path.isfile(pattern):
        return [pattern]
    inside = os.path.join(glob.escape(pattern), "*") if os.path.isdir(pattern) else pattern
    paths = [path for path in sorted(glob.glob(inside, recursive=True)) if os.path.isfile(path)
             and PAGES.fullmatch(os.path.basename(path))]
    if not paths:
        raise UserError(f"--input {pattern}: no archive there, that is *_data.xz, .bz2 or .gz, *.warc or *.warc.gz")
    return paths


def arguments(argv=None):
    """Parsed and checked.  Raises UserError."""
    parser = errors.script_parser(__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="archives, folders of them, or globs")
    return extraction.arguments(parser, argv)


if __name__ == "__main__":
    commands.run(main)
