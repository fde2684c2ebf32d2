"""Preparing data on one core, beside what one would write first: texts -> records, and pages -> texts.

Texts and pages are those that are installed with Python and the system, or --texts and --pages.  Contenders run in
turn on the same files, in one process each and after a round that is not counted, and must come to the same records.
--only vocabulary: time and peak memory of encoder/train.py, as a command, on --gigabytes of the texts with ever new
rare words.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import statistics
import sys
import sysconfig
import tempfile
import time

import numpy as np
from resiliparse.extract import html2text

from benchmarks import machine, options, straightforward
from configs import commands
from configs.errors import UserError
from datasets import building, cleaning, documents, integrity, tfrecords
from datasets.pages import extractors, page_processes
from encoder import bpe

INSTALLED = [sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], "/usr/share/doc"]
PARTS = ("texts", "pages")
VOCABULARY, VOCABULARY_SIZE = "vocabulary", 32768
BYTES_PER_RARE_WORD = 600  # one word in a hundred
DOCUMENT_CHARACTERS = 5000  # the mean in OpenWebText
PAGE_BYTES, PAGE_SECONDS = 300_000, 30
MINIMUM_SIZE = 25


def main(argv=None):
    """Prints the tables and the JSON line; returns 0."""
    args = arguments(argv)
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TOKENIZERS_PARALLELISM="false")
    print_machine(args)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS if args.only is None else (args.only,):
            result.update({"texts": texts, "pages": pages, VOCABULARY: vocabulary}[part](args, folder))
    result["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(result))
    return 0


# Measuring

def print_machine(args):
    print(f"{machine.described('tiktoken', 'tokenizers', 'ftfy', 'trafilatura')}; {args.rounds} rounds", flush=True)


def side_by_side(title, runs, rounds, amount, unit):
    """Runs {name: function -> (seconds, CPU seconds)} in turn; returns {name: [those of each round]}."""
    times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            found = run()
            if number:
                times[name].append(found)
    for name, found in times.items():
        rates = [amount / cpu for _, cpu in found]
        clock = statistics.median(amount / wall for wall, _ in found)
        print(f"{title}, {name:12} {statistics.median(rates):8.2f} {unit} a CPU second ({min(rates):.2f} to "
              f"{max(rates):.2f}), {clock:8.2f} a second", flush=True)
    return times


def ratio(times, ours, theirs, which=1):
    """(median, least, most) of how many times as fast `ours` was in each round; `which`: 0 by the clock, 1 by CPU."""
    found = [other[which] / own[which] for own, other in zip(times[ours], times[theirs])]
    return [round(value, 3) for value in (statistics.median(found), min(found), max(found))]


def timed(function, *arguments):
    """(seconds, CPU seconds of this process) of a call."""
    wall, cpu = time.monotonic(), time.process_time()
    function(*arguments)
    return time.monotonic() - wall, time.process_time() - cpu


# Texts -> records

def texts(args, folder):
    """Compares ours, in one process, with a BPE in plain Python and with tokenizers, both with TFRecordWriter."""
    paths, size = collect_texts(args.texts, args.megabytes, os.path.join(folder, "texts"))
    result = {"texts": len(paths), "text_megabytes": round(size / 1e6, 1)}
    files, warm = bpe.files(), straightforward.Encoder(*bpe.files())
    # "plain" starts with an empty cache of words, like a new process; "warm" has met each word in the round before.
    encoders = {"plain": lambda: straightforward.Encoder(*files).encode, "warm": lambda: warm.encode,
                "tokenizers": lambda: straightforward.tokenizers_encode(*files)}
    for key, rule, peers in (("without_ftfy", cleaning.NONE, {"plain": 4, "warm": None, "tokenizers": 3}),
                             ("repaired", cleaning.REPAIR, {"plain": 2, "warm": None}),
                             ("with_ftfy", cleaning.ORIGINAL, {"plain": 2, "warm": None})):
        job = _job(os.path.join(folder, "texts"), os.path.join(folder, f"{key}.tfrecords"), rule)
        targets = {name: os.path.join(folder, f"{key}_{name}.tfrecords") for name in peers}
        runs = {"ours": lambda job=job: timed(building.build, job, lambda amount: None)}
        for name, target in targets.items():
            runs[name] = lambda name=name, target=target, rule=rule: timed(
                straightforward.write, paths, target, encoders[name](), rule, MINIMUM_SIZE)
        times = side_by_side(key, runs, args.rounds, size / 1e6, "MB")
        result[key + "_megabytes_per_cpu_second"] = {
            name: round(statistics.median(size / 1e6 / cpu for _, cpu in found), 2) for name, found in times.items()}
        result[key + "_records"] = _same_records([job.path, *targets.values()])
        for name, wanted in peers.items():
            result[f"{key}_times_{name}"] = found = ratio(times, "ours", name)
            print(f"{key}: {found[0]:.1f} times as fast as {name} ({found[1]:.1f} to {found[2]:.1f})"
                  + (f"; wanted: at least {wanted}" if wanted else ""), flush=True)
    return result


def _job(source, target, rule):
    """The job of one process of create_tfrecords.py, after the documents are listed."""
    state = target + ".state"
    os.makedirs(state)
    index = documents.make_index([source])
    documents.save(index, state)
    return building.ShardToBuild(state, target, "train", np.arange(len(index.file)), 0, None, bpe.load().fingerprint,
                                 MINIMUM_SIZE, rule, cut=0)


def _same_records(paths):
    """How many records each file holds.  Raises UserError where they differ."""
    contents = [[tfrecords.features(payload) for payload, _ in integrity.read(path)] for path in paths]
    for path, content in zip(paths, contents):
        if content != contents[0]:
            raise UserError(f"{path} and {paths[0]} hold different records: the comparison is void")
    return len(contents[0])


def collect_texts(sources, megabytes, folder):
    """Writes documents of the texts below `sources` until there are so many megabytes; returns (paths, bytes)."""
    paths, size = [], 0
    os.makedirs(folder, exist_ok=True)
    for path in _shuffled(sources, (".txt", ".md", ".rst", ".html", ".htm")):
        with open(path, "rb") as f:
            data = f.read()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        text = html2text.extract_plain_text(text, main_content=True) if path.endswith(("html", "htm")) else text
        start = 0
        while start < len(text) and size < megabytes * 1e6:
            stop = text.rfind("\n", start, start + DOCUMENT_CHARACTERS) + 1
            stop = stop if stop > start else start + DOCUMENT_CHARACTERS
            paths.append(os.path.join(folder, f"{len(paths):06d}.txt"))
            with open(paths[-1], "w", encoding="utf-8", newline="") as f:
                f.write(text[start:stop])
            size, start = size + os.path.getsize(paths[-1]), stop
        if size >= megabytes * 1e6:
            break
    if not paths:
        raise UserError(f"--texts {' '.join(sources)}: no text there, that is .txt, .md, .rst or .html")
    return paths, size


# Pages -> texts

def pages(args, folder):
    """Compares trafilatura in our process for pages with the library in a plain loop."""
    found = collect_pages(args)
    kept = {}
    runs = {"ours": lambda: _in_page_process(found, kept), "trafilatura": lambda: _in_a_loop(found, kept)}
    times = side_by_side("pages", runs, args.rounds, len(found), "pages")
    beside, clock = ratio(times, "ours", "trafilatura"), ratio(times, "ours", "trafilatura", 0)
    print(f"pages: ours has {beside[0]:.3f} of its speed by CPU seconds ({beside[1]:.3f} to {beside[2]:.3f}; wanted: "
          f"at least 0.9), {clock[0]:.3f} by the clock; texts from {kept['ours']} and {kept['trafilatura']} of "
          f"{len(found)} pages", flush=True)
    return {"pages": len(found), "page_megabytes": round(sum(map(len, found)) / 1e6, 1), "extraction_speed": beside,
            "extraction_speed_by_clock": clock, "texts_of_pages": kept}


def _in_page_process(found, kept):
    tasks = itertools.chain([(-1, found[0])], enumerate(found))  # after the first the process has started
    extractor = argparse.Namespace(extractors=["trafilatura"], minimum_characters=1, language=None)
    results = page_processes.results(tasks, extractors.make, extractor, 1, PAGE_SECONDS)
    next(results)
    child, = multiprocessing.active_children()
    wall, cpu = time.monotonic(), time.process_time() + _cpu_of(child.pid)
    outcomes = [outcome for _, (outcome, _) in itertools.islice(results, len(found))]
    times = time.monotonic() - wall, time.process_time() + _cpu_of(child.pid) - cpu
    results.close()
    kept["ours"] = outcomes.count("kept")
    return times


def _in_a_loop(found, kept):
    import trafilatura

    def loop():
        kept["trafilatura"] = sum(bool(trafilatura.extract(page, include_comments=False)) for page in found)
    logging.disable(logging.CRITICAL)
    try:
        return timed(loop)
    finally:
        logging.disable(logging.NOTSET)


def _cpu_of(pid):
    """CPU seconds of another process so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def collect_pages(args):
    """[bytes] of installed HTML files."""
    found = []
    for path in _shuffled(args.pages, (".html", ".htm")):
        with open(path, "rb") as f:
            page = f.read(PAGE_BYTES + 1)
        if 0 < len(page) <= PAGE_BYTES:
            found.append(page)
        if len(found) == args.page_count:
            break
    if not found:
        raise UserError(f"--pages {' '.join(args.pages)}: no HTML file there")
    return found


# Texts -> vocabulary

def vocabulary(args, folder):
    """Time and peak of encoder/train.py on so many gigabytes of text each."""
    paths, _ = collect_texts(args.texts, args.megabytes, os.path.join(folder, "texts"))
    source, found = os.path.join(folder, "text.jsonl"), {}
    for gigabytes in args.gigabytes:
        _write_with_rare_words(paths, source, gigabytes * 1e9)
        output = os.path.join(folder, f"{gigabytes:g}")
        used = machine.run([sys.executable, os.path.join(options.ROOT, "encoder", "train.py"), "--input", source,
                            "--no_ftfy", "--size", str(args.size), "--output_dir", output])
        with open(os.path.join(output, "vocabulary.json")) as f:
            learned_from = json.load(f).get("learned_from", {"bytes": 1, "of": 1})
        share = learned_from["bytes"] / learned_from["of"]
        print(f"vocabulary of {args.size} tokens from {gigabytes:g} GB: {used.seconds:.0f} s, {used.cpu:.0f} CPU s, "
              f"peak {used.peak / 1e9:.2f} GB (wanted: at most 4), learned from {share:.1%}", flush=True)
        found[f"{gigabytes:g}"] = {"seconds": round(used.seconds, 1), "cpu": round(used.cpu, 1), "peak": used.peak,
                                   "share": round(share, 4)}
        os.unlink(source)
    return {VOCABULARY: found}


def _write_with_rare_words(paths, target, size):
    """Writes the texts as lines of JSON, again and again up to `size` bytes, each time with other rare words.

    Three letters within a word become random ones, so that words go on to be new, as they do in natural text.
    """
    texts = []
    for path in paths:
        with open(path, "rb") as f:
            texts.append(f.read().replace(b"\0", b" "))
    data = np.frombuffer(b"\0".join(texts), np.uint8)
    letters = (data >= ord("a")) & (data <= ord("z"))
    places = np.flatnonzero(letters[:-3] & letters[1:-2] & letters[2:-1] & letters[3:]) + 1
    with open(target, "wb") as f:
        for number in itertools.count():
            random, changed = np.random.RandomState(number), data.copy()
            chosen = places[random.randint(len(places), size=len(data) // BYTES_PER_RARE_WORD)]
            for i in range(3):
                changed[chosen + i] = random.randint(ord("a"), ord("z") + 1, len(chosen))
            for text in changed.tobytes().decode().split("\0"):
                f.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
                if f.tell() >= size:
                    return


def _shuffled(folders, suffixes):
    """Paths of all such files below the folders, in an order that depends only on the paths."""
    paths = sorted({os.path.join(folder, name) for root in folders for folder, _, names in os.walk(root)
                    for name in names if name.endswith(suffixes)})
    order = np.random.RandomState(0).permutation(len(paths))
    return [paths[i] for i in order if os.path.isfile(paths[i])]


def arguments(argv=None):
    """Parsed and checked.  Raises UserError."""
    parser = options.parser("preparation", __doc__)
    add = parser.add_argument
    add("--only", choices=(*PARTS, VOCABULARY), help="measure this alone; without it the first two")
    add("--gigabytes", type=float, nargs="+", default=[10.0], help="of text for the vocabulary, one run each")
    add("--size", type=int, default=VOCABULARY_SIZE, help="of the vocabulary")
    return checked(parser, argv)


def checked(parser, argv):
    """Parses and checks the arguments, with those that all measurements of this kind have.  Raises UserError."""
    add = parser.add_argument
    add("--texts", nargs="+", default=INSTALLED, metavar="FOLDER",
        help="of .txt, .md, .rst and .html files, with all below")
    add("--pages", nargs="+", default=INSTALLED, metavar="FOLDER", help="of HTML files, with all below")
    add("--megabytes", type=float, default=40.0, help="of text, at most; after so many few words are new")
    add("--page_count", type=int, default=200, help="pages, at most")
    add("--rounds", type=int, default=3, help="measurements of each, after one that is not counted")
    args = parser.parse_args(argv)
    options.check_least(args, megabytes=1e-6, page_count=1, rounds=1)
    return args


if __name__ == "__main__":
    commands.run(main)
