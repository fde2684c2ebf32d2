"""Lists the documents to leave out: exact and near duplicates, and those that overlap evaluation texts.

Stages, each from files to files and in bounded memory: signatures of all documents (parallel; a run that is killed
goes on with the next chunk), pairs with equal keys by sorting one band after another, clusters of the pairs whose
estimated similarity reaches the threshold.  Of a cluster the first document stays, in the order of --input and of the
names.  The list is for `create_tfrecords.py --drop`.  Sources in datasets/duplicates/minhash.py.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import json
import shutil
import unicodedata

import numpy as np

from configs import commands, errors, progress, reading, storage
from configs.errors import UserError
from datasets import cutting, documents, encodings, left_out, listing, packed, plans
from datasets.duplicates import clusters, drop_list, minhash, signing
from datasets.jobs import workers

FORMAT_VERSION = 2  # of the report
# Lower, and pages that share a frame but not their contents go; higher, and copies with other frames stay.
THRESHOLD = 0.75
AGAINST_WORDS = 13
# GPT-3 (https://arxiv.org/abs/2005.14165, appendix C) took what more than ten documents hold for common phrases.
COMMON = 10
PAIRS = 1 << 18  # judged at once
LARGEST = 10  # clusters that the report names


def main(argv=None):
    """Arguments -> list and report; returns 0."""
    args = arguments(argv)
    folder, name = os.path.split(args.output)
    hidden = os.path.join(folder, f".{name}.")
    with storage.only_run(hidden + "lock", "choose another --output"), \
            packed.scratch_folder(hidden + "unpacked") as scratch:
        print("listing documents", flush=True)
        how, against = cutting.reading_of(args), None
        index = documents.make_index(args.input, args.exclude, scratch=scratch, reading=how)
        documents.show_left_out(index)
        if args.against:
            against = documents.make_index(args.against, scratch=scratch, option="--against", reading=how)
            documents.show_left_out(against)
        _dedup(args, index, against, hidden + "state")
    return 0


def _dedup(args, index, against, state):
    """Finishes the output, whatever state it is in."""
    plan, report = _plan(args, index, against), report_path(args.output)
    if _finished(args, plan, state):
        shutil.rmtree(state, ignore_errors=True)
        print(f"{args.output} is finished: nothing to do")
        return
    drop_list.check_names(index)
    index, overlap = _prepare(args, plan, index, against, state)
    jobs = signing.chunks(state, len(index.file), args.against_words if against else 0)
    missing = [job for job in jobs if not os.path.exists(job.path)]
    before = len(index.file) - sum(job.count for job in missing)
    with progress.bar(len(index.file), "signatures", "doc", before) as bar:
        for _ in workers.each(signing.sign, missing, args.processes, state, bar.update, args.ray_address):
            pass
    kinds = np.concatenate([job.kinds() for job in jobs])
    parents, exact, pairs = find_clusters(jobs, kinds, args.threshold)
    survives = parents == np.arange(len(parents))
    overlaps = _overlapping(jobs, survives, overlap) if against else np.zeros(len(parents), bool)
    dropped = np.flatnonzero(~survives | overlaps)
    sha256 = drop_list.write(args.output, index, dropped)
    outcomes = _outcomes(kinds, exact, survives, overlaps)
    content = {**plan, "outcomes": outcomes, "dropped_bytes": int(index.length[dropped].sum()), "pairs": pairs,
               "against_texts": overlap, "clusters": _largest(index, parents), "sha256": sha256}
    storage.write_whole(report, json.dumps(content, indent=1) + "\n")
    unread = [*left_out.described(_without_text(kinds), index), *_marked(jobs, index)]
    shutil.rmtree(state)
    print("\n".join([f"documents: {', '.join(f'{name} {count}' for name, count in outcomes.items())}", *unread]))
    print(f"{args.output} {report}")


def _prepare(args, plan, index, against, state):
    """Writes what the workers read; returns the Index, now on disk, and facts about the evaluation texts."""
    plans.begin(state, plan)
    documents.save(index, state)
    if not against:
        return documents.load(state), None
    ngrams, without, found = signing.ngrams_of(against, args.against_words)
    unread = [f"--against: {line}" for line in left_out.described(found, against)]
    if not len(ngrams):
        shutil.rmtree(state)
        short = [f"--against: none of its {without} texts has {args.against_words} words: give longer ones, or lower "
                 "--against_words"] if without else []
        raise UserError("; ".join(unread + short))
    for line in unread:
        print(line)
    if without:
        print(f"--against: {without} of {len(against.file)} texts have fewer than {args.against_words} words and are "
              "not looked for")
    documents.save_array(os.path.join(state, signing.NGRAMS), ngrams)
    return documents.load(state), {"texts": len(against.file), "too_short": without, "ngrams": len(ngrams)}


def find_clusters(jobs, kinds, threshold):
    """(the first document of each one's cluster, int32 [documents]; the number of exact duplicates; counts of pairs).

    `jobs` are those of the chunks, `kinds` the documents', uint8.
    """
    parents, pairs = np.arange(len(kinds), dtype=np.int32), {"candidates": 0, "similar": 0}
    with progress.bar(signing.COLUMNS, "clusters", "band") as bar:
        numbers = np.flatnonzero(kinds <= signing.SHORT).astype(np.int32)
        for one, other in clusters.equal_pairs(_column(jobs, signing.EXACT)[numbers], numbers):
            clusters.unite(parents, one, other)
        parents = clusters.flatten(parents)
        exact = int(np.count_nonzero(parents != np.arange(len(parents))))
        bar.update()
        numbers = np.flatnonzero((kinds == signing.COMPARED) & (parents == np.arange(len(parents)))).astype(np.int32)
        for band in range(minhash.BANDS):
            for one, other in clusters.equal_pairs(_column(jobs, band)[numbers], numbers):
                for i in range(0, len(one), PAIRS):
                    _judge(jobs, parents, one[i:i + PAIRS], other[i:i + PAIRS], threshold, pairs)
            bar.update()
    return clusters.flatten(parents), exact, pairs


def _column(jobs, number):
    return np.concatenate([job.column(number) for job in jobs])


def _judge(jobs, parents, one, other, threshold, pairs):
    """Joins the clusters of similar pairs and counts in `pairs`.  It skips pairs that are in one cluster already."""
    apart = clusters.roots(parents, one) != clusters.roots(parents, other)
    one, other = one[apart], other[apart]
    if not len(one):
        return
    numbers, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    rows = np.empty((len(numbers), minhash.PERMUTATIONS), np.uint8)
    chunks, starts = np.unique(numbers // signing.CHUNK, return_index=True)
    for chunk, start, stop in zip(chunks, starts, [*starts[1:], len(numbers)]):
        rows[start:stop] = jobs[chunk].rows(numbers[start:stop] - chunk * signing.CHUNK)
    similar = minhash.similarity(rows[places[:len(one)]], rows[places[len(one):]]) >= threshold
    clusters.unite(parents, one[similar], other[similar])
    pairs["candidates"] += len(one)
    pairs["similar"] += int(np.count_nonzero(similar))


def _overlapping(jobs, survives, overlap):
    """bool [documents]: which survivors hold an n-gram of an evaluation text that is no common phrase.

    Adds the number of common ones to `overlap`.  Only survivors count, so that copies of a text do not make it common.
    """
    def hits_of_survivors():
        for job in jobs:
            hits = job.hits()
            rows = hits[:, 0] + job.number * signing.CHUNK
            yield rows[survives[rows]], hits[survives[rows], 1]
    counts, overlaps = np.zeros(overlap["ngrams"], np.int32), np.zeros(len(survives), bool)
    for _, ngrams in hits_of_survivors():
        np.add.at(counts, ngrams, 1)
    for rows, ngrams in hits_of_survivors():
        overlaps[rows[counts[ngrams] <= COMMON]] = True
    overlap["common"] = int(np.count_nonzero(counts > COMMON))
    return overlaps


def _without_text(kinds):
    """What is to be said of documents that could not be read, as in left_out.py."""
    numbers = {what: np.flatnonzero(kinds == kind) for what, kind in signing.PROBLEMS.items()}
    return {what: [len(some), some[:left_out.NAMED].tolist()] for what, some in numbers.items() if len(some)}


def _marked(jobs, index):
    """Yields what is to be said of documents in which <|endoftext|> stands."""
    numbers = np.flatnonzero(np.concatenate([job.marked() for job in jobs]))
    if len(numbers):
        yield left_out.marked_whole(len(numbers), numbers[:left_out.NAMED].tolist(), index)


def _outcomes(kinds, exact, survives, overlaps):
    """{outcome: documents}; all but the last add up to those that were read."""
    total, kinds = len(kinds), np.bincount(kinds, minlength=len(signing.KINDS)).tolist()
    counts = {"exact": exact, "near": int(np.count_nonzero(~survives)) - exact,
              "against": int(np.count_nonzero(overlaps)), "empty": kinds[signing.EMPTY],
              **{what: kinds[kind] for what, kind in signing.PROBLEMS.items()}}
    return {"read": total, "kept": total - sum(counts.values()), **counts, "short": kinds[signing.SHORT]}


def _largest(index, parents):
    """Facts about the clusters, for a human to look into the largest."""
    sizes = np.bincount(parents)
    order = np.argsort(-sizes, kind="stable")[:LARGEST]
    return {"number": int(np.count_nonzero(sizes > 1)),
            "largest": [{"kept": documents.identity(index, number), "documents": int(sizes[number])}
                        for number in order.tolist() if sizes[number] > 1]}


def report_path(output):
    return os.path.splitext(output)[0] + ".json"


def _plan(args, index, against):
    """All that decides the bytes of the output."""
    return {"format_version": FORMAT_VERSION, "threshold": args.threshold, "exclude": args.exclude,
            "inputs": index.fingerprint, "documents": len(index.file),
            "against": against.fingerprint if against else None,
            "against_words": args.against_words if against else None,
            "signatures": {"format": minhash.FORMAT, "shingle": minhash.SHINGLE, "bands": minhash.BANDS,
                           "rows": minhash.ROWS, "unicode": unicodedata.unidata_version},
            **index.reading._asdict(), "tools": encodings.tools(args.encoding)}


def _finished(args, plan, state):
    """Whether the output is there.  Raises UserError where what is there comes from another plan or from elsewhere."""
    note, report = os.path.join(state, plans.PLAN), report_path(args.output)
    remedy = f"choose another --output, or move {args.output}, {report} and {state} elsewhere"
    done = os.path.exists(report) and os.path.exists(args.output)
    if done or os.path.exists(note):
        saved_plan = reading.read_object(report if done else note)
        if done and drop_list.read(args.output)[1] != saved_plan.get("sha256"):
            raise UserError(f"{args.output} is not the list of which {report} tells: {remedy}")
        saved_plan = {key: value for key, value in saved_plan.items() if key in plan}  # a report says more
        plans.check(saved_plan, plan, f"{args.output} was made, or begun,", remedy)
    elif os.path.exists(report) or os.path.exists(args.output):
        raise UserError(f"{args.output if os.path.exists(args.output) else report} comes from elsewhere: {remedy}")
    return done


def arguments(argv=None):
    """Parsed and checked.  Raises UserError."""
    parser = errors.script_parser(__doc__)
    documents.add_arguments(parser)
    add = parser.add_argument
    add("--output", required=True, metavar="FILE", help="the list; a report of the same name in .json comes with it")
    share = errors.checked(float, lambda value: 0 < value <= 1, "more than 0 and at most 1")
    add("--threshold", type=share, default=THRESHOLD,
        help="share of all 5-word runs of two documents, estimated, from which on they are near duplicates")
    add("--against", nargs="+", default=[], metavar="PATH",
        help="evaluation texts, in the forms of --input: documents that overlap them are left out")
    add("--against_words", type=errors.at_least(1), default=AGAINST_WORDS,
        help=f"an overlap is a run of so many words, unless more than {COMMON} documents hold it")
    workers.add_arguments(parser, "the bytes of the output do not depend on it")
    args = parser.parse_args(argv)
    if storage.is_remote(args.output):
        raise UserError(f"--output {args.output}: write to a local file and copy it with `gsutil cp`")
    if not args.output or args.output.endswith((".json", os.sep)) or os.path.isdir(args.output):
        raise UserError(f"--output {args.output or ascii('')}: give a file, such as drop.txt; the report beside it ends"
                        " in .json")
    listing.check_outside(args.output, args.input, args.exclude, "--output")
    listing.check_there(args.against, "--against")
    return args


if __name__ == "__main__":
    commands.run(main)
