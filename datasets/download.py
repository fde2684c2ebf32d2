"""Downloads lists of URLs into archives of pages in OpenWebText's format; the same command goes on after a kill.

A page that failed for a passing reason (time, a broken connection, a server's error) is tried again, a few times now
and at each later run.  Everything else is finished and stands in the state, which is written after its archive.
"""
from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from configs import commands, errors, storage
from configs.errors import UserError
from datasets.pages import archives

USER_AGENT = "gpt2-corpus-download/0.1"


def main(argv=None):
    """Arguments -> archives, state, table; returns 0, or 128 + the signal that ended it."""
    args = arguments(argv)
    from datasets.crawl import downloading  # here, so that --help needs none of its packages
    with storage.only_run(os.path.join(args.output_dir, ".download.lock"), "choose another --output_dir"):
        return downloading.run(args)


def arguments(argv=None):
    """Parsed and checked.  Raises UserError."""
    parser = errors.script_parser(__doc__)
    add, number = parser.add_argument, errors.at_least(1)
    seconds = errors.checked(float, lambda value: value > 0, "more than 0")
    add("urls", nargs="+", help="lists, one URL a line; RS_2017-04 in the name, else the name, names the archives")
    add("--output_dir", required=True, help="local folder for the archives")
    add("--state_dir", help="local folder for the finished lines; OUTPUT_DIR/state without it, `state` to go on with "
                            "a run of OpenWebText's own downloader")
    add("--urls_per_archive", type=number, default=5000, help="finished lines after which an archive is completed")
    add("--compression", choices=sorted(archives.COMPRESSIONS), default="xz", help="of the archives")
    add("--concurrency", type=number, default=100, help="requests at a time")
    add("--per_host", type=number, default=2, help="requests at a time to one host")
    add("--connect_timeout", type=seconds, default=10, help="seconds")
    add("--read_timeout", type=seconds, default=20, help="seconds without a byte")
    add("--timeout", type=seconds, default=60, help="seconds for one answer as a whole")
    add("--max_bytes", type=number, default=5_000_000, help="of a page, unpacked; larger ones are dropped")
    add("--max_redirects", type=errors.at_least(0), default=5, help="for one page")
    add("--retries", type=errors.at_least(0), default=3, help="after failures for a passing reason, until the next run")
    add("--retry_wait", type=errors.at_least(0, float), default=5,
        help="seconds before the first retry, doubled for each further one")
    add("--user_agent", default=USER_AGENT, help="name and address of the person who downloads, as servers see them; "
                                                 "robots.txt is asked for the part before the slash")
    add("--allow_private", action="store_true", help="also download from addresses outside the public Internet")
    add("--ignore_robots", action="store_true", help="do not ask for robots.txt")
    add("--report", help="file for the counts as JSON")
    args = parser.parse_args(argv)
    args.state_dir = args.state_dir or os.path.join(args.output_dir, "state")
    months = [archives.month_of(path) for path in args.urls]
    for i, month in enumerate(months):
        if month in months[:i]:
            raise UserError(f"{args.urls[months.index(month)]} and {args.urls[i]} would both write {month}-1_data: "
                            "rename one of them")
    if not (args.user_agent.isascii() and args.user_agent.isprintable() and args.user_agent.strip()):
        raise UserError(f"--user_agent {args.user_agent!r}: use printable ASCII characters")
    for name in ("output_dir", "state_dir"):
        if storage.is_remote(getattr(args, name)):
            raise UserError(f"--{name} {getattr(args, name)}: write to a local folder and copy it with `gsutil -m cp`")
    with errors.packages_from("requirements-data.txt"):
        from datasets.crawl import downloading  # noqa: F401 (whether its packages are there)
    return args


if __name__ == "__main__":
    commands.run(main)
