"""Downloads lists of URLs into archives of pages, until they are finished or a signal comes."""
import asyncio
import collections
import contextlib
import json
import os
import re
import resource
import signal
from concurrent import futures

from configs import progress, storage
from datasets.crawl import fetching, url_lists
from datasets.pages import archive_writer, archives

LISTS_AT_ONCE = 4  # so that the last slow pages of one do not hold up the next
WINDOW = 1000  # lines of a list under way or waiting for their host
MAX_LOOKUPS = 500
UNWRITTEN_BYTES = 1 << 26
LINES_AT_ONCE = 1000  # that may be skipped before others get a turn
SHOWN_FIRST = ("saved", "blank", "invalid", "repeated", "earlier")
# Outcomes for which a line is tried again: with an option that permits what was refused, or with a higher limit.  The
# number is the limit of runs that did not note it.
PERMITTED_BY = {"private_address": "allow_private", "robots": "ignore_robots"}
LIMITED_BY = {"too_big": ("max_bytes", 5_000_000), "too_many_redirects": ("max_redirects", 5)}
STEM = re.compile(r"\d{7,9}-[0-9a-f]{32}")


def run(args):
    """Downloads what is left of the lists; returns the exit status: 0, or 128 + the signal that ended it."""
    storage.clear(args.output_dir)
    finished, stems = zip(*(_finished(args, archives.month_of(path)) for path in args.urls))
    print("reading the lists", flush=True)
    lists = url_lists.survey(args.urls, finished, stems, args.output_dir)
    with progress.bar(sum(urls.left for urls in lists), unit="url") as bar:
        download = Download(args, bar)
        ended_by = asyncio.run(download.run(lists))
    download.report(lists, ended_by)
    return 128 + ended_by if ended_by else 0


def _finished(args, month):
    """(Lines in the state of a month that need not be tried again, {line: stem} in its last archive).

    First adds to the state what it lacks of that archive, since a kill came between the two.
    """
    state = os.path.join(args.state_dir, f"{month}.txt")
    (lines, again), stems = _lines_in(state, args), {}
    data, meta = (archives.find(args.output_dir, month, kind) for kind in ("data", "meta"))
    if data:
        last = max(data)
        path, suffix = (meta[last], ".json") if last in meta else (data[last], ".txt")
        stems = {int(stem.partition("-")[0]): stem for stem, _, reason, _ in archives.members(path, suffixes=(suffix,))
                 if not reason and STEM.fullmatch(stem)}
        missing = [line for line in stems if line not in lines]
        if missing:
            print(f"{state}: {len(missing)} lines of {path} added", flush=True)
            archive_writer.note_finished(state, [(line, "saved") for line in missing])
            lines, again = _lines_in(state, args)
    if again:
        print(f"{state}: tried again, since the options now permit it: {again:,} of the lines", flush=True)
    return lines, stems


def _lines_in(state, args):
    """(Lines in a state but for those that were refused for what these options permit, how many these are)."""
    lifted = url_lists.Lines()
    for line, outcome, limit in archive_writer.notes(state):
        (lifted.add if _is_lifted(outcome, limit, args) else lifted.discard)(line)
    lines, again = url_lists.Lines(), url_lists.Lines()
    for line in archive_writer.read_state(state):
        (again if line in lifted else lines).add(line)
    return lines, len(again)


def _is_lifted(outcome, limit, args):
    if outcome in PERMITTED_BY:
        return getattr(args, PERMITTED_BY[outcome])
    option, usual = LIMITED_BY.get(outcome, (None, None))
    return option is not None and getattr(args, option) > (usual if limit is None else limit)


class Download:
    """A run over lists: counts what becomes of their lines, and has the one thread that writes their archives."""

    def __init__(self, args, bar):
        self.args, self.bar = args, bar
        self.outcomes, self.passing = collections.Counter(), collections.Counter()
        self._writers, self._thread = [], futures.ThreadPoolExecutor(1)
        self._unwritten = 0  # bytes of pages

    async def run(self, lists):
        """Takes all lists to their ends; returns the signal that came before, or 0."""
        with contextlib.suppress(ValueError, OSError):  # as many open connections as the system allows
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # Names are looked up in threads.  The usual handful would be held up by the first dead name servers.
        lookups = futures.ThreadPoolExecutor(min(self.args.concurrency, MAX_LOOKUPS))
        asyncio.get_running_loop().set_default_executor(lookups)
        async with fetching.Fetcher(self.args) as self._fetcher:
            try:
                with self._thread:
                    ended_by = await _until_signal(_side_by_side(LISTS_AT_ONCE, lists, self._one_list))
                for writer in self._writers:
                    writer.close()
                return ended_by
            finally:
                for writer in self._writers:
                    writer.abandon()

    async def _one_list(self, urls):
        """Takes the lines of a UrlList to their ends, then completes its archive."""
        state = os.path.join(self.args.state_dir, f"{urls.month}.txt")
        writer = archive_writer.Writer(self.args.output_dir, state, urls.month, self.args.compression)
        self._writers.append(writer)
        await _side_by_side(min(WINDOW, urls.left + 1), self._lines_to_download(urls),
                            lambda line: self._one_line(writer, *line))
        await self._write(0, writer.close)

    def _lines_to_download(self, urls):
        """Yields (line, URL), and now and then (line, None) while lines are skipped."""
        for line, url, problem in url_lists.read(urls.path):
            outcome = "earlier" if line in urls.finished else problem or ("repeated" if line in urls.repeated else None)
            if not outcome:
                yield line, url
                continue
            self.outcomes[outcome] += 1
            if line % LINES_AT_ONCE == 0:
                yield line, None

    async def _one_line(self, writer, line, url):
        if url is None:
            return await asyncio.sleep(0)
        page, meta, passing = None, None, False
        try:
            page, seconds = await self._fetcher.page(url)
            outcome, meta = "saved", {"url": url, "elapsed": round(seconds, 3), "scraper": "raw"}
        except fetching.Failure as failure:
            outcome, passing = failure.outcome, failure.passing
        if passing:
            self.passing[outcome] += 1
        else:
            limit = f" {getattr(self.args, LIMITED_BY[outcome][0])}" if outcome in LIMITED_BY else ""
            await self._write(len(page or b""), self._add, writer, line, url, page, meta, outcome + limit)
        self.outcomes[outcome] += 1
        self.bar.set_postfix(saved=self.outcomes["saved"], refresh=False)
        self.bar.update()

    def _add(self, writer, *line):
        """In the writing thread: adds a line and completes a full archive, which no signal can interrupt."""
        writer.add(*line)
        if len(writer.finished) >= self.args.urls_per_archive:
            writer.close()

    async def _write(self, size, function, *args):
        """Runs a function in the writing thread; no further request begins while too many bytes wait for it."""
        self._count_unwritten(size)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        finally:
            self._count_unwritten(-size)

    def _count_unwritten(self, size):
        self._unwritten += size
        (self._fetcher.open.set if self._unwritten < UNWRITTEN_BYTES else self._fetcher.open.clear)()

    def report(self, lists, ended_by):
        """Prints the table of outcomes; for --report the same as JSON, there also over all runs."""
        counted, total = self.outcomes, sum(urls.total for urls in lists)
        for outcome in sorted(counted, key=lambda name: (name not in SHOWN_FIRST, -counted[name], name)):
            print(f"{counted[outcome]:10} {outcome}{' (to be tried again)' if outcome in self.passing else ''}")
        print(f"{total:10} lines")
        left = sum(self.passing.values()) + total - sum(counted.values())
        if left:
            print(f"{left} lines are left: the same command goes on with them")
        if self.args.report:
            ever = counted - collections.Counter(earlier=counted["earlier"])
            for urls in lists:
                state = os.path.join(self.args.state_dir, f"{urls.month}.txt")
                ever += archive_writer.earlier_outcomes(state, urls.finished)
            storage.write_whole(self.args.report, json.dumps(
                {"lines": total, "left": left, "stopped": bool(ended_by), "outcomes": dict(sorted(counted.items())),
                 "all_runs": dict(sorted(ever.items())), "passing": dict(sorted(self.passing.items()))},
                indent=1) + "\n")


async def _until_signal(work):
    """Awaits `work`, or cancels it at SIGINT or SIGTERM and returns which; a second signal kills at once."""
    loop, task, caught = asyncio.get_running_loop(), asyncio.ensure_future(work), []

    def stop(number):
        caught.append(number)
        task.cancel()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not caught:
            raise
    return caught[0] if caught else 0


async def _side_by_side(count, items, work):
    """Awaits `work(item)` for all items, `count` at a time; if one fails, or this is cancelled, so are the others."""
    items = iter(items)

    async def take():
        for item in items:
            await work(item)
    tasks = [asyncio.ensure_future(take()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
