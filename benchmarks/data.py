"""The input pipeline alone: its speed beside a bare loop over the same shards, its memory, and the cost of resuming.

Builds a synthetic corpus of at least a gigabyte (kept in --output_dir for the next time), with as many documents in a
shard, tokens in a document and bytes in a token as create_tfrecords.py makes of OpenWebText.  The bare loop is a
tf.data.TFRecordDataset whose records are parsed 256 at a time, and nothing else.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from benchmarks import machine, options, ours
from configs import commands
from configs.errors import UserError
from datasets import create_tfrecords, manifest, tfrecords

NAME = "synthetic"
MEAN_TOKENS, SPREAD = 1128, 1.0  # of a document: the mean in OpenWebText, the deviation of the logarithm
PARSED = 256  # records in one call of the bare loop
PLACES = (0, 10, 50, 99)  # per cent of an epoch
PARTS = ("throughput", "memory", "seeking")
MEGABYTE = 1e6


def main(argv=None):
    """Makes the corpus, prints the tables and the JSON line; returns 0."""
    args = _arguments(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    config = options.load("117M", [
        *args.overrides, "input=tfrecords", f"train_files={NAME}_*.tfrecords", "eval_steps=0",
        f"data_path={json.dumps(os.path.abspath(args.output_dir))}"])
    if args.only == "memory":
        print(json.dumps(memory(config)))
        return 0
    make_corpus(args.output_dir, args.gigabytes, args.files_per, config.n_vocab)
    found = ours.train_set(config)
    shards = found.parts[0].shards
    print(f"{machine.described('TensorFlow')}; {found.tokens:,} tokens in {len(shards)} "
          f"shards of {sum(shard.size for shard in shards) / 1e9:.2f} GB in all; n_ctx {config.n_ctx}, "
          f"train_batch_size {config.train_batch_size}; {args.rounds} rounds", flush=True)
    result = {}
    for part in PARTS if args.only is None else (args.only,):
        if part == "throughput":
            result.update(throughput(config, found, args.rounds, args.shards))
        elif part == "seeking":
            result.update(seeking(config, found, args.rounds))
        else:
            result.update(_memory_of_a_new_process(argv))
    print(json.dumps(result))
    return 0


# The corpus

def make_corpus(folder, gigabytes, files_per, n_vocab):
    """Writes shards of at least so many gigabytes, and their manifest, unless they are there."""
    target = manifest.path_of(folder, NAME)
    plan = {"name": NAME, "vocabulary": None, "gigabytes": gigabytes, "files_per": files_per, "n_vocab": n_vocab}
    if os.path.exists(target):
        if manifest.load(target).plan != plan:
            raise UserError(f"{target} is of another corpus: choose another --output_dir, or move {folder} elsewhere")
        return
    os.makedirs(folder, exist_ok=True)
    random, entries, size = np.random.default_rng(1), [], 0
    with tqdm(total=int(gigabytes * 1e9), desc="corpus", unit="B", unit_scale=True) as bar:
        while size < gigabytes * 1e9:
            path = os.path.join(folder, f"{NAME}_{len(entries)}.tfrecords")
            shard = tfrecords.write(path, documents(random, len(entries) * files_per, files_per, n_vocab))
            entries.append(manifest.Entry("train", shard, {}))
            size += shard.size
            bar.update(shard.size)
    manifest.write(target, plan, entries)


def documents(random, first, count, n_vocab):
    """Yields (key, ids, 0) of `count` documents.  Rare ids are long ones: 2.2 bytes a token as in English text."""
    for number in range(first, first + count):
        length = 1 + int(random.lognormal(np.log(MEAN_TOKENS) - SPREAD ** 2 / 2, SPREAD))
        frequent = np.exp(random.random(length) * np.log(n_vocab - 1)).astype(np.int64)
        ids = np.where(random.random(length) < 0.5, frequent, random.integers(0, n_vocab - 1, length))
        yield b"%016x" % number, ids, 0


# The measurements

def throughput(config, found, rounds, shards):
    """Tokens a second of the pipeline and of the bare loop over the same first shards, in turn."""
    part, = found.parts
    found = found._replace(parts=(part._replace(shards=part.shards[:shards]),))
    steps = ours.steps_an_epoch(config, found)
    if not steps:
        raise UserError(f'"train_batch_size" {config.train_batch_size} is more than --shards {shards} hold; raise it')

    def pipeline():
        return _read_all(ours.train_dataset(config, found, 0, steps), lambda batch: batch[0].size, steps)

    def bare():
        return _read_all(lambda: _bare(found), len, None)
    results = {"pipeline": [], "bare": []}
    for number in range(rounds + 1):
        for name, run in (("pipeline", pipeline), ("bare", bare)):
            tokens, wall, cpu = run()
            if number:  # the first round brings the files into memory
                results[name].append((tokens / wall, tokens / cpu))
                print(f"round {number}: {name:8} {tokens:,} tokens in {wall:6.2f} s, {tokens / wall / 1e6:5.1f} M a "
                      f"second, {tokens / cpu / 1e6:5.1f} M a CPU second", flush=True)
    wall = {name: [rate for rate, _ in rates] for name, rates in results.items()}
    cpu = {name: statistics.median(rate for _, rate in rates) for name, rates in results.items()}
    ratio = statistics.median(ours / theirs for ours, theirs in zip(wall["pipeline"], wall["bare"]))
    for name, rates in wall.items():
        print(f"{name:8} median {statistics.median(rates) / 1e6:.1f} M tokens/s, from {min(rates) / 1e6:.1f} to "
              f"{max(rates) / 1e6:.1f}")
    print(f"ratio {ratio:.2f} (by CPU seconds {cpu['pipeline'] / cpu['bare']:.2f}); wanted: at least 0.25")
    return {"pipeline_tokens_per_second": round(statistics.median(wall["pipeline"])),
            "bare_tokens_per_second": round(statistics.median(wall["bare"])), "ratio": round(ratio, 3),
            "ratio_by_cpu_seconds": round(cpu["pipeline"] / cpu["bare"], 3)}


def memory(config):
    """Megabytes that it takes to read the whole corpus once, in this process, which has done nothing else."""
    found = ours.train_set(config)
    steps = ours.steps_an_epoch(config, found)
    _read_all(lambda: _empty_dataset(), len, None)
    before = machine.resident("VmRSS") / MEGABYTE
    tokens, _, _ = _read_all(ours.train_dataset(config, found, 0, steps), lambda batch: batch[0].size, steps)
    peak = machine.resident("VmHWM") / MEGABYTE
    return {"tokens_read": tokens, "tensorflow_alone_mb": round(before), "peak_mb": round(peak),
            "pipeline_mb": round(peak - before)}


def _memory_of_a_new_process(argv):
    command = [sys.executable, "-m", "benchmarks.data", *(sys.argv[1:] if argv is None else argv), "--only", "memory"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    print(f"memory: {found['tensorflow_alone_mb']} MB with TensorFlow loaded and a session open, at most "
          f"{found['peak_mb']} MB while {found.pop('tokens_read'):,} tokens were read: {found['pipeline_mb']} MB for "
          "the pipeline; wanted: under 500", flush=True)
    return found


def seeking(config, found, rounds):
    """Seconds from building the pipeline to its first batch, at several places of an epoch, in turn."""
    steps = ours.steps_an_epoch(config, found)
    starts = {place: steps * place // 100 for place in PLACES}
    seconds = {place: [] for place in PLACES}
    for number in range(rounds + 1):
        for place, start in starts.items():
            begun = time.monotonic()
            build = ours.train_dataset(config, found, start, start + config.train_steps)
            _read_all(build, lambda batch: batch[0].size, 1)
            if number:
                seconds[place].append(time.monotonic() - begun)
    medians = {place: statistics.median(times) for place, times in seconds.items()}
    blocks = {place: ours.blocks_of_step(config, found, start) for place, start in starts.items()}
    for place, times in seconds.items():
        print(f"start at {place:2} % of an epoch, step {starts[place]:,}: first batch after {medians[place]:.2f} s "
              f"(from {min(times):.2f} to {max(times):.2f})"
              + (f"; the batch takes from {blocks[place]} blocks" if blocks[place] > 1 else ""))
    resumed = [medians[place] for place in PLACES if place]
    spread, above = max(resumed) / min(resumed) - 1, max(resumed) - medians[0]
    print(f"resumes differ by {spread:.0%} (wanted: at most 20 %), the slowest takes {above:+.2f} s beside a fresh "
          "start (wanted: at most 2 s)")
    return {"first_batch_seconds": {str(place): round(median, 3) for place, median in medians.items()},
            "resumes_differ_by": round(spread, 3), "above_fresh_seconds": round(above, 3)}


def _bare(found):
    import tensorflow as tf
    paths = [shard.path for shard in found.parts[0].shards]

    def parse(serialized):
        return tf.io.parse_example(serialized, {"text": tf.io.RaggedFeature(tf.int64)})["text"].flat_values
    return tf.data.TFRecordDataset(paths).batch(PARSED).map(parse)


def _empty_dataset():
    import tensorflow as tf
    return tf.data.Dataset.from_tensors([0])


def _read_all(build, count, most):
    """(sum of count(element), seconds, CPU seconds) of reading `most` elements, or all, of the dataset of build()."""
    import tensorflow as tf
    tokens, wall, cpu = 0, time.monotonic(), _cpu_seconds()
    with tf.Graph().as_default():
        following = tf.compat.v1.data.make_one_shot_iterator(build()).get_next()
        with tf.compat.v1.Session() as session:
            read = 0
            while most is None or read < most:
                try:
                    tokens += count(session.run(following))
                except tf.errors.OutOfRangeError:
                    break
                read += 1
    return tokens, time.monotonic() - wall, _cpu_seconds() - cpu


def _cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _arguments(argv):
    parser = options.parser("data", __doc__)
    add = parser.add_argument
    add("--output_dir", default="data/benchmark", help="folder for the corpus, and for nothing else")
    add("--gigabytes", type=float, default=1.0, help="size of the corpus at least")
    add("--files_per", type=int, default=create_tfrecords.FILES_PER, help="documents per shard")
    add("--shards", type=int, default=4, help="shards that the throughput is measured on")
    add("--rounds", type=int, default=5, help="measurements of each, after one that is not counted")
    add("--only", choices=PARTS, help="measure this alone")
    options.add_set(parser)
    args = parser.parse_args(argv)
    options.check_least(args, gigabytes=1e-6, files_per=1, shards=1, rounds=1)
    return args


if __name__ == "__main__":
    commands.run(main)
