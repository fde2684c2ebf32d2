"""Lists of URLs -> archives of pages in OpenWebText's format; to be stopped, killed and run again at will.

What failed for a passing reason (time, a broken connection, an ill server) is tried again, a few times now and then at
each later run.  Everything else is finished and stands in the state, which is written after the archive it tells of.
"""
from __future__ import annotations

import argparse
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import asyncio
import collections
import contextlib
import json
import re
import resource
import signal
from concurrent import futures

from tqdm import tqdm

from configs import commands, errors, storage
from configs.errors import UserError
from datasets.crawl import fetching, url_lists
from datasets.pages import archive_writer, archives

USER_AGENT = "gpt2-corpus-download/0.1"
LISTS_AT_ONCE = 4  # so that the last slow pages of one do not hold up the next
WINDOW = 1000  # lines of a list under way or waiting for their host
MAX_LOOKUPS = 500
UNWRITTEN_BYTES = 1 << 26
LINES_AT_ONCE = 1000  # that may be skipped before others get a turn
STATE_OUTCOMES = ("saved", "blank", "invalid", "repeated", "earlier")


class Job:
    """What a run shares: arguments, the fetcher, the one thread that writes, what has come of the lines."""

    def __init__(self, args, fetcher, bar):
        self.args, self.fetcher, self.bar = args, fetcher, bar
        self.outcomes, self.passing = collections.Counter(), collections.Counter()
        self.writers = {}
        self.thread = futures.ThreadPoolExecutor(1)
        self.unwritten = 0  # bytes of pages


def main(argv=None):
    """Arguments -> archives, state, table; returns 0, or 128 + the signal that ended it."""
    args = arguments(argv)
    os.makedirs(args.output_dir, exist_ok=True)
    with storage.only_run(os.path.join(args.output_dir, ".download.lock"), "choose another --output_dir"):
        archive_writer.clear(args.output_dir)
        finished, stems = zip(*(_finished(args, archives.month_of(path)) for path in args.urls))
        print("reading the lists", flush=True)
        return asyncio.run(_run(args, url_lists.survey(args.urls, finished, stems, args.output_dir)))


def _finished(args, month):
    """(Lines in the state of a month, {line: stem} in its last archive), after both are brought to agree.

    A kill between archive and state leaves an archive whose lines the state does not have.
    """
    state = _state_path(args, month)
    lines = url_lists.Lines(archive_writer.read_state(state))
    data, meta = (archives.find(args.output_dir, month, kind) for kind in ("data", "meta"))
    if not data:
        return lines, {}
    last = max(data)
    path, suffix = (meta[last], ".json") if last in meta else (data[last], ".txt")
    found = (re.fullmatch(r"(\d{7,9})-[0-9a-f]{32}", stem) for stem, _ in archives.pages(path, suffixes=(suffix,)))
    stems = {int(match[1]): match[0] for match in found if match}
    missing = [line for line in stems if line not in lines]
    if missing:
        print(f"{state}: {len(missing)} lines of {path} added", flush=True)
        archive_writer.append_outcomes(state, [(line, "saved") for line in missing])
        archive_writer.append_state(state, missing)
        for line in missing:
            lines.add(line)
    return lines, stems


async def _run(args, lists):
    """Downloads what is left of the lists; returns the exit status."""
    _raise_file_limit()
    # Names are looked up in threads, of which there would be a handful: dead name servers would hold them all up.
    asyncio.get_running_loop().set_default_executor(futures.ThreadPoolExecutor(min(args.concurrency, MAX_LOOKUPS)))
    with tqdm(total=sum(part.left for part in lists), unit="url",
              mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
        async with fetching.Fetcher(_limits(args)) as fetcher:
            job = Job(args, fetcher, bar)
            try:
                ended_by = await _until_signal(_all_lists(job, iter(lists)))
                job.thread.shutdown()
                for writer in job.writers.values():
                    writer.close()
            finally:
                job.thread.shutdown()
                for writer in job.writers.values():
                    writer.abandon()
    _report(job, lists, ended_by)
    return 128 + ended_by if ended_by else 0


async def _until_signal(work):
    """Awaits `work`, or cancels it at SIGINT or SIGTERM and returns which; a second signal kills at once."""
    loop, task, caught = asyncio.get_running_loop(), asyncio.ensure_future(work), []

    def stop(number):
        caught.append(number)
        task.cancel()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not caught:
            raise
    return caught[0] if caught else 0


async def _all_lists(job, parts):
    async def take():
        for part in parts:
            await _one_list(job, part)
    await _together(take() for _ in range(LISTS_AT_ONCE))


async def _one_list(job, part):
    """Takes the lines of a list to their ends, then completes its archive."""
    args = job.args
    writer = archive_writer.Writer(args.output_dir, _state_path(args, part.month), part.month, args.compression)
    job.writers[part.month] = writer
    left = _left(job, part)

    async def take():
        for line, url in left:
            if url is None:
                await asyncio.sleep(0)
            else:
                await _one_line(job, writer, line, url)
    await _together(take() for _ in range(min(WINDOW, part.left + 1)))
    await _write(job, writer.close)
    del job.writers[part.month]


def _left(job, part):
    """Yields (line, URL) of what is to be downloaded; (line, None) now and then while there is nothing."""
    skipped = 0
    for line, url, problem in url_lists.read(part.path):
        outcome = "earlier" if line in part.finished else problem or ("repeated" if line in part.repeated else None)
        if outcome is None:
            yield line, url
            continue
        job.outcomes[outcome] += 1
        skipped += 1
        if skipped % LINES_AT_ONCE == 0:
            yield line, None


async def _one_line(job, writer, line, url):
    try:
        page = await job.fetcher.page(url)
    except fetching.Failure as failure:
        outcome = failure.outcome
        if failure.passing:
            job.passing[outcome] += 1
        else:
            await _write(job, _add, writer, job.args.urls_per_archive, line, "", None, None, outcome)
    else:
        outcome = "saved"
        meta = {"url": url, "elapsed": round(page.seconds, 3), "scraper": "raw"}
        with _unwritten(job, len(page.text)):
            await _write(job, _add, writer, job.args.urls_per_archive, line, url, page.text, meta)
    job.outcomes[outcome] += 1
    job.bar.set_postfix(saved=job.outcomes["saved"], refresh=False)
    job.bar.update()


def _add(writer, per_archive, *line):
    """In the writing thread: note and close in one go, which no signal can come between."""
    writer.add(*line)
    if len(writer.finished) >= per_archive:
        writer.close()


@contextlib.contextmanager
def _unwritten(job, size):
    """Lets no further request begin while too many bytes wait for the thread that writes."""
    def count(change):
        job.unwritten += change
        (job.fetcher.open.set if job.unwritten < UNWRITTEN_BYTES else job.fetcher.open.clear)()
    count(size)
    try:
        yield
    finally:
        count(-size)


async def _write(job, function, *args):
    await asyncio.get_running_loop().run_in_executor(job.thread, function, *args)


async def _together(coroutines):
    """Awaits all; if one fails, or this is cancelled, the others are cancelled and awaited too."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(job, lists, ended_by):
    """The table of outcomes, and the same as JSON for --report, there also over all runs."""
    counted, total = job.outcomes, sum(part.total for part in lists)
    left = total - sum(counted.values())
    for outcome in sorted(counted, key=lambda name: (name not in STATE_OUTCOMES, -counted[name], name)):
        print(f"{counted[outcome]:10} {outcome}" + (" (to be tried again)" if outcome in job.passing else ""))
    print(f"{total:10} lines")
    again = sum(job.passing.values()) + left
    if again:
        print(f"{again} lines are left: the same command goes on with them")
    if job.args.report:
        ever = counted - collections.Counter(earlier=counted["earlier"])
        for part in lists:
            ever += archive_writer.earlier_outcomes(_state_path(job.args, part.month), part.finished)
        storage.write_whole(job.args.report, json.dumps(
            {"lines": total, "left": again, "stopped": bool(ended_by), "outcomes": dict(sorted(counted.items())),
             "all_runs": dict(sorted(ever.items())), "passing": dict(sorted(job.passing.items()))}, indent=1) + "\n")


def _state_path(args, month):
    return os.path.join(args.state_dir or os.path.join(args.output_dir, "state"), month + ".txt")


def _raise_file_limit():
    """As many open connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _limits(args):
    return fetching.Limits(**{name: getattr(args, name) for name in fetching.Limits._fields})


def arguments(argv=None):
    """Parsed and checked.  Raises UserError."""
    parser = errors.Parser(description=__doc__.split("\n\n")[0],
                           formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("urls", nargs="+", help="lists, one URL a line; RS_2017-04 in the name, else the name, names the archives")
    add("--output_dir", required=True, help="local folder for the archives")
    add("--state_dir", help="local folder for the finished lines; OUTPUT_DIR/state without it, `state` to go on with "
                            "a run of OpenWebText's own downloader")
    add("--urls_per_archive", type=int, default=5000, help="finished lines after which an archive is completed")
    add("--compression", choices=sorted(archives.COMPRESSIONS), default="xz", help="of the archives")
    add("--concurrency", type=int, default=100, help="requests at a time")
    add("--per_host", type=int, default=2, help="requests at a time to one host")
    add("--connect_timeout", type=float, default=10, help="seconds")
    add("--read_timeout", type=float, default=20, help="seconds without a byte")
    add("--timeout", type=float, default=60, help="seconds for one answer as a whole")
    add("--max_bytes", type=int, default=5_000_000, help="of a page, unpacked; larger ones are dropped")
    add("--max_redirects", type=int, default=5, help="for one page")
    add("--retries", type=int, default=3, help="after failures for a passing reason, before the next run")
    add("--retry_wait", type=float, default=5, help="seconds before the first retry, doubled for each further one")
    add("--user_agent", default=USER_AGENT, help="name and address of whoever downloads, as servers see it; the part "
                                                 "before the slash is what robots.txt is asked for")
    add("--allow_private", action="store_true", help="also download from addresses outside the public Internet")
    add("--ignore_robots", action="store_true", help="do not ask for robots.txt")
    add("--report", help="file for the counts as JSON")
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args):
    months = [archives.month_of(path) for path in args.urls]
    for i, month in enumerate(months):
        if month in months[:i]:
            raise UserError(f"{args.urls[months.index(month)]} and {args.urls[i]} would both write {month}-1_data: "
                            "rename one of them")
    for name in ("urls_per_archive", "concurrency", "per_host", "max_bytes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} is out of range: give at least 1")
    for name in ("connect_timeout", "read_timeout", "timeout"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name} {getattr(args, name)} is out of range: give more than 0")
    for name in ("max_redirects", "retries", "retry_wait"):
        if not getattr(args, name) >= 0:
            raise UserError(f"--{name} {getattr(args, name)} is out of range: give at least 0")
    if not re.fullmatch(r"[\x20-\x7e]*[\x21-\x7e][\x20-\x7e]*", args.user_agent):
        raise UserError(f"--user_agent {args.user_agent!r}: use printable ASCII characters")
    for name in ("output_dir", "state_dir"):
        if storage.is_remote(getattr(args, name) or ""):
            raise UserError(f"--{name} {getattr(args, name)}: write to a local folder and copy it with `gsutil -m cp`")


if __name__ == "__main__":
    commands.run(main)
