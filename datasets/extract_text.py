"""Extracts one archive of pages to texts OUTPUT_DIR/MONTH/STEM.txt; the same command goes on after a kill.

Read are the archives of the OpenWebText downloader and of datasets/download.py (tar, compressed by xz, bz2 or gzip),
OpenWebText's release, whose pages are text already, and WARC files.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from configs import commands, errors
from datasets.pages import extraction


def main(argv=None):
    """Arguments -> texts; returns 0."""
    parser = errors.script_parser(__doc__)
    parser.add_argument("--archive", "--html_archive", required=True, help="path of the file")
    args = extraction.arguments(parser, argv)
    extraction.run([args.archive], args)
    return 0


if __name__ == "__main__":
    commands.run(main)
