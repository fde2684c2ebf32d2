"""How well and how fast datasets/dedup.py finds near-duplicates, and how much memory it needs for millions.

Quality: real documents with real near-duplicates (Python's own sources and installed packages with what they vendor,
licences and copyright files).  Every pair of them is compared by the exact Jaccard similarity of the sets of their
5-word runs, which is computed here by a regular expression and Python's hash().  Memory: synthetic signatures of
clusters of known members.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import unicodedata
import zlib

import numpy as np

from benchmarks import options
from benchmarks.machine import resident
from configs import commands, hardware
from datasets import cutting, dedup, documents
from datasets.duplicates import clusters, drop_list, minhash, signing
from datasets.jobs import workers

FOLDERS = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/share/doc", "/usr/share/common-licenses")
NAMES = re.compile(r".*\.(py|txt|md|rst)|(LICEN[CS]E|COPYING|NOTICE|copyright|README)[^/]*")
LARGEST = 300_000  # bytes of a file
UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in minhash.UNSPACED)
WORDS = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
THRESHOLDS = (0.7, 0.75, 0.8)
LEVELS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9)  # what counts as a true near-duplicate
COPIES, DAMAGE = 0.3, 0.1  # the share of copies among synthetic documents; the most that a copy differs by


def main(argv=None):
    """Prints the tables and the JSON line; returns 0."""
    parser = options.parser("dedup", __doc__)
    add = parser.add_argument
    add("--documents", type=int, default=8000, help="real ones to compare; 0 leaves that out")
    add("--signatures", type=int, default=1_000_000, help="synthetic ones to cluster; 0 leaves that out")
    add("--lines", type=int, default=1_000_000, help="synthetic documents for the whole command; 0 leaves that out")
    args = parser.parse_args(argv)
    machine = {"cpu": hardware.processor(), "cores": workers.cores(), "load": os.getloadavg()[0],
               "python": platform.python_version(), "numpy": np.__version__, "date": time.strftime("%Y-%m-%d")}
    print(json.dumps(machine))
    result = {"machine": machine}
    if args.documents:
        texts = real_texts(args.documents)
        result["quality"] = quality(texts)
        result["speed"] = speed(texts)
        del texts
    if args.signatures:
        result["memory"] = memory(args.signatures)
    if args.lines:
        result["whole"] = whole(args.lines)
    print(json.dumps(result))
    return 0


def real_texts(count):
    """The first `count` texts of the files below FOLDERS, in the order of a hash of their paths."""
    paths = set()
    for root in FOLDERS:
        for folder, _, names in os.walk(root):
            paths.update(os.path.join(folder, name) for name in names if NAMES.fullmatch(name))
    texts = []
    for path in sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path)).digest()):
        if len(texts) == count:
            break
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) <= LARGEST:
            with open(path, "rb") as f:
                text = f.read().decode(errors="replace")
            if len(WORDS.findall(text)) >= minhash.SHINGLE:
                texts.append(text)
    return texts


def quality(texts):
    """Compares the exact similarities of all pairs with the candidates, the estimates and the list of dedup.py."""
    print(f"{len(texts)} texts, {sum(map(len, texts)) / 1e6:.1f} M characters; all pairs exactly ...", flush=True)
    one, other, exact = exact_pairs(texts, lowest=0.2)
    signatures = minhash.minima(*minhash.word_hashes(texts))
    keys, low = minhash.band_keys(signatures), signatures.astype(np.uint8)
    candidate = (keys[:, one] == keys[:, other]).any(axis=0)
    estimate = minhash.similarity(low[one], low[other])
    bins = []
    print("exact similarity   pairs   candidates   S-curve   estimated at least", dedup.THRESHOLD)
    for start in np.arange(0.2, 1, 0.1).round(1).tolist():
        some = (exact >= start) & ((exact < start + 0.0999999) | (start > 0.85))
        if not some.any():
            continue
        curve = (1 - (1 - exact[some] ** minhash.ROWS) ** minhash.BANDS).mean()
        accepted = (candidate & (estimate >= dedup.THRESHOLD))[some].mean()
        bins.append({"from": start, "pairs": int(some.sum()), "candidates": round(float(candidate[some].mean()), 4),
                     "s_curve": round(float(curve), 4), "accepted": round(float(accepted), 4)})
        print(f"{start:.1f} - {start + 0.1:.1f}      {some.sum():9} {candidate[some].mean():11.3f} {curve:10.3f} "
              f"{accepted:10.3f}")
    return {"texts": len(texts), "bins": bins, "lists": lists(texts, one, other, exact)}


def lists(texts, one, other, exact):
    """Precision and recall of the documents that dedup.py lists, at several thresholds, against exact clusters."""
    with tempfile.TemporaryDirectory() as folder:
        return [facts for threshold in THRESHOLDS for facts in _list(texts, one, other, exact, folder, threshold)]


def _list(texts, one, other, exact, folder, threshold):
    with open(os.path.join(folder, "texts.jsonl"), "w") as f:
        f.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    output = os.path.join(folder, f"{threshold}.txt")
    dedup.main(["--input", f.name, "--output", output, "--threshold", str(threshold)])
    with open(output) as listing:
        dropped = {int(line.split(":")[1]) - 1 for line in listing}
    print(f"--threshold {threshold}: {len(dropped)} dropped\n"
          "true from   to drop   precision   recall   dropped without a partner as similar")
    for level in LEVELS:
        true = to_drop(len(texts), one, other, exact >= level)
        with_partner = set(one[exact >= level].tolist()) | set(other[exact >= level].tolist())
        facts = {"threshold": threshold, "true_from": level, "to_drop": len(true), "dropped": len(dropped),
                 "precision": round(len(true & dropped) / max(len(dropped), 1), 4),
                 "recall": round(len(true & dropped) / max(len(true), 1), 4),
                 "dropped_without_such_a_partner": len(dropped - with_partner)}
        print(f"{level:9} {len(true):9} {facts['precision']:11.3f} {facts['recall']:8.3f} "
              f"{facts['dropped_without_such_a_partner']:17}")
        yield facts


def to_drop(count, one, other, similar):
    """All but the first of each cluster of similar pairs."""
    parents = np.arange(count, dtype=np.int32)
    clusters.unite(parents, one[similar], other[similar])
    return set(np.flatnonzero(clusters.flatten(parents) != np.arange(count)).tolist())


def exact_pairs(texts, lowest):
    """(int32, int32, float64 exact Jaccard similarity) of all pairs (one < other) from `lowest` on."""
    sets = [np.array(sorted(_shingles(text)), np.int64) for text in texts]
    values, ids = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(some) for some in sets])
    owners = np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(ids, kind="stable")
    holders, firsts = owners[order], np.searchsorted(ids[order], np.arange(len(values) + 1))
    found, end = [], 0
    for number, size in enumerate(sizes.tolist()):
        mine = ids[end:end + size]
        end += size
        spans = [holders[firsts[i]:firsts[i + 1]] for i in mine[firsts[mine + 1] - firsts[mine] > 1].tolist()]
        common = np.bincount(np.concatenate([np.zeros(0, np.int64), *spans]), minlength=len(sets))
        similarity = common / (sizes + size - common)
        partners = np.flatnonzero(similarity >= lowest)
        partners = partners[partners > number]
        found.append((np.full(len(partners), number), partners, similarity[partners]))
    one, other, similarity = [np.concatenate(parts) for parts in zip(*found)]
    return one.astype(np.int32), other.astype(np.int32), similarity


def _shingles(text):
    words = WORDS.findall(unicodedata.normalize("NFKC", text).lower())
    return {hash(tuple(words[i:i + minhash.SHINGLE])) for i in range(len(words) - minhash.SHINGLE + 1)}


def speed(texts):
    """MB of text a second of one core from text to signature, median of five, CPU time; beside crc32 as a measure."""
    def seconds(function):
        times = []
        for _ in range(6):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        return sorted(times[1:])[2], min(times[1:]), max(times[1:])
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
    batches = [texts[i:i + 150] for i in range(0, len(texts), 150)]
    hashed = [minhash.word_hashes(batch) for batch in batches]
    parts = {"words": lambda: [minhash.word_hashes(batch) for batch in batches],
             "signatures": lambda: [minhash.minima(*words) for words in hashed],
             "crc32": lambda: [zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts]}
    found = {name: [round(size / value, 1) for value in seconds(function)] for name, function in parts.items()}
    both = round(1 / (1 / found["words"][0] + 1 / found["signatures"][0]), 1)
    print(f"{size:.1f} MB; MB/s of CPU time (median, best, worst): {found}; words and signatures together {both}")
    return {"megabytes": round(size, 1), "megabytes_per_second": found, "together": both}


def memory(count):
    """Seconds and peak memory of each stage of clustering `count` synthetic signatures, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        jobs = signing.chunks(folder, count, 0)
        with context.Pool(2) as pool:
            laid_down = pool.apply_async(_lay_down_index, (count, folder))
            pool.map(synthesize, jobs, chunksize=16)
            laid_down.get()
        print(f"{count} synthetic signatures in {time.monotonic() - start:.0f} s", flush=True)
        with context.Pool(1) as pool:
            found = pool.apply(_clusters_measured, (jobs, count, folder))
    print(json.dumps(found))
    return found


def _lay_down_index(count, folder):
    """Saves an Index as large as that of so many files of OpenWebText, all of the mean length."""
    names = b"".join(b"%07d-%032x.txt" % (number, number) for number in range(count))
    each = np.arange(count, dtype=np.int64)
    index = documents.Index(
        folders=[["/texts", ""]], folder=np.zeros(count, np.int32), names=np.frombuffer(names, np.uint8),
        name_end=(each + 1) * 44, first=each, bytes_in=np.full(count, cutting.OWN, np.uint8),
        file=each.astype(np.int32), offset=np.zeros(count, np.int64), length=np.full(count, 5000, np.int64),
        fingerprint="", held_out=0, scratch=None, reading=cutting.USUAL, left_out={})
    documents.save(index, folder)


def synthesize(job):
    """Writes a chunk as signing.sign does: a share of COPIES copies others, each but for a share of up to DAMAGE."""
    numbers = np.arange(job.count, dtype=np.uint64) + np.uint64(job.number * signing.CHUNK)
    random = np.random.RandomState(job.number)
    origins = _origins(numbers)
    entries = np.arange(minhash.PERMUTATIONS, dtype=np.uint64)
    signatures = minhash.mix(origins[:, None] * np.uint64(1 << 20) + entries)
    other = minhash.mix((numbers[:, None] + np.uint64(1 << 40)) * np.uint64(1 << 20) + entries)
    changed = random.rand(*signatures.shape) < random.rand(len(numbers), 1) * DAMAGE
    signatures = (np.where(changed, other, signatures) >> np.uint64(32)).astype(np.uint32)
    keys = np.concatenate([minhash.band_keys(signatures), minhash.mix(numbers)[None]])
    kinds = np.full(job.count, signing.COMPARED, np.uint8)
    with open(job.path, "wb") as f:
        f.write(keys.astype("<u8").tobytes() + signatures.astype(np.uint8).tobytes() + kinds.tobytes())


def _origins(numbers):
    """uint64: for each signature, the number of the one that it copies, in the first tenth before it, or its own."""
    chance = minhash.mix(numbers + np.uint64(7))
    copies = (chance >> np.uint64(11)) < np.uint64(int(COPIES * 2 ** 53))
    return np.where(copies & (numbers > 10), minhash.mix(chance) % np.maximum(numbers // np.uint64(10), 1), numbers)


def _clusters_measured(jobs, count, folder):
    """Measures what dedup.py does before and after the signatures, but for the listing."""
    facts, start = {"documents": count, "imports_mb": resident("VmHWM") >> 20}, time.monotonic()

    def note(stage):
        nonlocal start
        facts[stage] = {"seconds": round(time.monotonic() - start, 1), "peak_rss_mb": resident("VmHWM") >> 20}
        start = time.monotonic()
    index = documents.load(folder)
    drop_list.check_names(index)
    note("names")
    parents, _, pairs = dedup.find_clusters(jobs, np.zeros(count, np.uint8), dedup.THRESHOLD)
    note("clusters")
    dropped = np.flatnonzero(parents != np.arange(count))
    drop_list.write(os.path.join(folder, "drop.txt"), index, dropped)
    note("list")
    true = np.ones(count, bool)  # all but the first of those that are one origin's
    true[np.unique(_origins(np.arange(count, dtype=np.uint64)), return_index=True)[1]] = False
    facts.update(pairs=pairs, dropped=len(dropped), precision=float(true[dropped].mean()),
                 recall=float((parents != np.arange(count))[true].mean()),
                 bytes_on_disk=sum(entry.stat().st_size for entry in os.scandir(folder)))
    return facts


def whole(count):
    """Seconds and peak memory of the command itself, on lines of 40 words of which every fifth is a near copy."""
    with tempfile.TemporaryDirectory() as folder:
        path, output = os.path.join(folder, "lines.jsonl"), os.path.join(folder, "drop.txt")
        random = np.random.RandomState(0)
        with open(path, "w") as f:
            for i in range(0, count, 1000):
                numbers = random.randint(0, 10 ** 6, (min(1000, count - i), 40))
                numbers[4::5, :39] = numbers[3::5, :39][:len(numbers[4::5])]
                f.writelines('{"text": "' + " ".join(f"w{n}" for n in row) + '"}\n' for row in numbers.tolist())
        start, peaks = time.monotonic(), {}
        script = os.path.join(options.ROOT, "datasets", "dedup.py")
        process = subprocess.Popen([sys.executable, script, "--input", path, "--output", output])
        while process.poll() is None:
            for pid in (process.pid, *_children(process.pid)):
                with contextlib.suppress(OSError, StopIteration):  # it has just ended
                    peaks[pid] = resident("VmHWM", pid) >> 20
            time.sleep(0.1)
        seconds = time.monotonic() - start
        with open(output) as f:
            dropped = sum(1 for _ in f)
        main_peak = peaks.pop(process.pid)
        found = {"documents": count, "megabytes": round(os.path.getsize(path) / 1e6, 1), "dropped": dropped,
                 "seconds": round(seconds, 1), "peak_rss_mb": main_peak, "workers_peak_rss_mb": sorted(peaks.values())}
    print(json.dumps(found))
    return found


def _children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return f.read().split()
    except OSError:
        return []


if __name__ == "__main__":
    commands.run(main)
