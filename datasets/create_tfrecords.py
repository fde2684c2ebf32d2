"""Encodes documents into TFRecord shards with a manifest, in parallel; the same command goes on after a kill.

Documents get one random order that depends on the seed alone and are cut into shards in it, so a shard is a fair
sample of the whole and the bytes do not depend on the number of processes.  Differs from the original, which took
files in the order of the disk: there a shard was whatever lay together.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

import re
import shutil
import unicodedata
from importlib.metadata import version

import numpy as np

from configs import commands, errors, progress, reading, storage
from configs.errors import UserError, printable
from datasets import (
    building,
    cleaning,
    cutting,
    documents,
    encodings,
    held_out,
    left_out,
    listing,
    manifest,
    packed,
    plans,
    publishing,
    tfrecords,
    vocabulary_beside,
)
from datasets.duplicates import drop_list
from datasets.jobs import workers
from encoder import bpe

# 175000 in the original, about 250 MB a file.  Training shuffles up to window_order.BLOCK_TOKENS at once, and a run
# that goes on within a shard reads it from its start: 12500 documents of OpenWebText have 14 million tokens, just less.
FILES_PER = 12500
EVAL_FRACTION = 0.01


def main(argv=None):
    """Arguments -> shards and manifest; returns 0."""
    args = arguments(argv)
    if args.bucket:
        publishing.check(args.bucket, args.output_dir, args.name, args.encoder_path)
    vocabulary = args.encoder_path, bpe.fingerprint(args.encoder_path)
    vocabulary_beside.check(args.output_dir, args.encoder_path)
    print("listing documents", flush=True)
    hidden = os.path.join(args.output_dir, f".{args.name}.")
    with storage.only_run(hidden + "lock", "choose another --name"), \
            packed.scratch_folder(hidden + "unpacked") as scratch, \
            workers.started(0 if args.ray_address else args.processes, building.load_encoder, *vocabulary) as pool:
        encoder = building.load_encoder(*vocabulary)
        index = documents.make_index(args.input, args.exclude, args.eval_input, scratch,
                                     reading=cutting.reading_of(args))
        documents.show_left_out(index)
        _create(args, encoder, index, pool)
    if args.bucket:
        publishing.publish(args.bucket, args.output_dir, args.name, args.encoder_path)
    return 0


def _create(args, encoder, index, pool):
    """Finishes the output, whatever state it is in."""
    drop, drop_sha256 = drop_list.read(args.drop) if args.drop else (None, None)
    choice = held_out.choose(index, args.eval_fraction, args.seed)
    plan = _plan(args, encoder, index, choice, drop_sha256)
    target = manifest.path_of(args.output_dir, args.name)
    state = os.path.join(args.output_dir, f".{args.name}.state")
    done = _finished(args, plan, target, state)
    shards = _shards(args, encoder.fingerprint, state, choice)
    missing = [shard for shard in shards if os.path.basename(shard.path) not in done]
    if os.path.exists(target) and not missing:
        shutil.rmtree(state, ignore_errors=True)
        vocabulary_beside.put(args.output_dir, args.encoder_path)  # where an earlier release did not
        print(f"{target} is finished: nothing to do")
        return
    total, left = (sum(len(shard.numbers) for shard in some) for some in (shards, missing))
    jobs = _without_dropped(missing, args, drop, index)
    if choice.exception:
        print(printable(choice.exception), flush=True)
    plans.begin(state, plan)
    documents.save(index, state)
    with progress.bar(total, unit="doc", done=total - left) as bar:
        for built in workers.each(building.build, jobs, args.processes, state, bar.update, args.ray_address, pool):
            done[os.path.basename(built.entry.shard.path)] = built
    _finish(args, plan, [done[os.path.basename(shard.path)] for shard in shards], target, state, index)


def _shards(args, vocabulary, state, choice):
    """The building.ShardToBuild of each shard, train first."""
    orders, cut = choice.orders, args.eval_fraction if choice.ends else 0.0
    return [building.ShardToBuild(
        state, os.path.join(args.output_dir, f"{args.name}{suffix}_{i}{tfrecords.SUFFIX}"), split,
        orders[split][start:start + args.files_per], 0, args.encoder_path, vocabulary, args.minimum_size,
        args.clean, cut) for split, suffix in ((manifest.TRAIN, ""), (manifest.EVAL, "-eval"))
        for i, start in enumerate(range(0, len(orders[split]), args.files_per))]


def _finish(args, plan, built, target, state, index):
    """Checks and writes the manifest, then clears up and prints the table and what is to be said of documents."""
    entries = [shard.entry for shard in built]
    known = [shard.found for shard in built if shard.found is not None]
    found = [("" if len(known) == len(built) else "in the shards that were built again: ") + line
             for line in left_out.described(left_out.merged(known), index)]
    filled = {entry.split for entry in entries if entry.shard.records}
    if manifest.TRAIN not in filled or (args.eval_input and manifest.EVAL not in filled):
        for entry in entries:
            os.unlink(entry.shard.path)
        shutil.rmtree(state)
        split, purpose = (manifest.EVAL, "evaluation") if manifest.TRAIN in filled else (manifest.TRAIN, "training")
        raise UserError(f"none of {left_out.many(len(index.file), 'document')} is left for {purpose} "
                        f"({_outcomes(entries, index)}): {'; or '.join([*found, _remedy(args, entries, split)])}")
    vocabulary_beside.put(args.output_dir, args.encoder_path)
    manifest.write(target, plan, entries)
    shutil.rmtree(state)
    for split in (manifest.TRAIN, manifest.EVAL):
        shards = [entry.shard for entry in entries if entry.split == split]
        print(f"{split:5} {len(shards):6} shards {sum(s.records for s in shards):10} records "
              f"{sum(s.tokens for s in shards):13} tokens {sum(s.text_bytes for s in shards):14} bytes of text")
    print("\n".join([f"documents: {_outcomes(entries, index)}", *found, target]))
    if args.eval_fraction and manifest.EVAL not in filled:
        print("no document is left for evaluation: train with \"eval_steps\" 0, or make the data set anew in another "
              f"--output_dir, and {_remedy(args, entries, manifest.EVAL)}")


def _remedy(args, entries, split):
    """What to do where no document is left for `split`."""
    ways = ["give more text"]
    if manifest.sum_outcomes(entry for entry in entries if entry.split == split).get("short"):
        ways.append(f"lower --minimum_size {args.minimum_size}")
    if args.eval_fraction and split == manifest.EVAL:
        ways.append(f"raise --eval_fraction {args.eval_fraction}")
    elif args.eval_fraction and any(entry.shard.records for entry in entries):  # for evaluation, that is
        ways.append(f"lower --eval_fraction {args.eval_fraction}")
    return " or ".join(ways)


def _outcomes(entries, index):
    """What became of the documents, in words; one that gives its end for evaluation is read for both."""
    total = manifest.sum_outcomes(entries)
    twice = total.get("read", 0) + total.get("dropped", 0) > len(index.file)
    return ", ".join(f"{name} {count}" for name, count in total.items()) + \
        " (each for training and for evaluation)" * twice


def _plan(args, encoder, index, choice, drop_sha256):
    """All that decides the bytes of the output."""
    tools = {"unicode": unicodedata.unidata_version, "tiktoken": version("tiktoken"), **cleaning.tools(args.clean),
             **encodings.tools(args.encoding)}
    special = {"held_out": index.held_out} if args.eval_input else {}
    if choice.exception:
        special = {"lone_document": "its end is for evaluation"} if len(index.file) == 1 else \
            {"put_aside": choice.exception}
    return {"name": args.name, "vocabulary": encoder.fingerprint, "vocabulary_size": encoder.size,
            "cleaning": cleaning.RULES[args.clean], "minimum_size": args.minimum_size,
            "files_per": args.files_per, "eval_fraction": args.eval_fraction, "seed": args.seed,
            "exclude": args.exclude, "drop": drop_sha256, "inputs": index.fingerprint, "documents": len(index.file),
            "tools": tools, **documents.plan(index), **special}


def _finished(args, plan, target, state):
    """{file name: building.Built} of the shards that earlier runs of the same plan completed.

    Raises UserError where the files of that name come from another plan or from elsewhere.
    """
    note, saved_plan, entries = os.path.join(state, plans.PLAN), None, []
    if os.path.exists(target):
        _, saved_plan, entries = manifest.load(target)
    elif os.path.exists(note):
        saved_plan = reading.read_object(note)
    remedy = f"choose another --name, or move {args.name}_*.tfrecords, {args.name}-eval_*.tfrecords, "\
             f"{target} and {state} elsewhere"
    if saved_plan is None:
        shards = [name for name in sorted(os.listdir(args.output_dir))
                  if re.fullmatch(re.escape(args.name) + r"(-eval)?_\d+" + re.escape(tfrecords.SUFFIX), name)]
        if shards:
            raise UserError(f"{args.output_dir} holds {shards[0]} without a manifest, from elsewhere: {remedy}")
        return {}
    plans.check(saved_plan, plan, f"{args.output_dir} already holds {args.name} made", remedy)
    built = [*(building.Built(entry, None) for entry in entries), *building.completed(state, args.output_dir)]
    shards = [(each.entry.shard, each) for each in built]
    return {os.path.basename(shard.path): each for shard, each in shards
            if os.path.exists(shard.path) and os.path.getsize(shard.path) == shard.size}


def _without_dropped(shards, args, drop, index):
    """The building.ShardToBuild of each shard without the documents that --drop names."""
    if not args.drop:
        return shards
    dropped, known = drop_list.mark(drop, index)
    if len(known) and not known.any():
        raise UserError(f"--drop {args.drop}: none of its {len(known)} lines names a document of --input: names start "
                        "at each --input, so give the same ones as to datasets/dedup.py, and the same --split_on")
    unknown = np.count_nonzero(~known)
    lines = f"{unknown:,} of its {len(known):,} lines name no document of --input" if unknown else \
        "each of its lines names one"
    print(f"{args.drop}: leaves out {left_out.many(np.count_nonzero(dropped), 'document')}; {lines}")
    return [shard._replace(numbers=shard.numbers[~dropped[shard.numbers]], dropped=int(dropped[shard.numbers].sum()))
            for shard in shards]


def arguments(argv=None):
    """Parsed and checked.  Raises UserError."""
    parser = errors.script_parser(__doc__)
    documents.add_arguments(parser)
    add, number = parser.add_argument, errors.at_least(1)
    add("--output_dir", required=True, help="folder for the shards and the manifest, local or gs://")
    add("--work_dir", metavar="FOLDER", help="local folder in which the shards are built where --output_dir is on "
        "gs://, and stay; default: work/NAME")
    add("--name", required=True, help="shards are called NAME_0.tfrecords, NAME-eval_0.tfrecords and so on")
    add("--encoder_path", help="folder with encoder.json and vocab.bpe; GPT-2's vocabulary without it")
    add("--drop", metavar="FILE",
        help="leave out the documents of --input that it names, one a line: the list of datasets/dedup.py")
    add("--minimum_size", type=number, default=25, help="tokens below which a document is dropped")
    add("--files_per", type=number, default=FILES_PER, help="documents per shard, before short ones are dropped")
    evaluation = parser.add_mutually_exclusive_group().add_argument
    fraction = errors.checked(float, lambda value: 0 <= value < 1, "at least 0 and less than 1")
    evaluation("--eval_fraction", type=fraction, default=EVAL_FRACTION,
               help="of the documents, put aside for evaluation")
    evaluation("--eval_input", nargs="+", default=[], metavar="PATH",
               help="the documents for evaluation, as for --input; left out of what --input finds")
    seed = errors.checked(int, lambda value: 0 <= value < 2 ** 32, "at least 0 and less than 2**32")
    add("--seed", type=seed, default=0, help="of the order and of the choice for evaluation")
    workers.add_arguments(parser, "the bytes of the output do not depend on it")
    cleaning.add_argument(parser)
    args = parser.parse_args(argv)
    if args.eval_input:
        args.eval_fraction = 0.0
    args.bucket = args.output_dir if storage.is_remote(args.output_dir) else None
    if args.bucket:
        args.output_dir = args.work_dir or os.path.join("work", args.name)
    if not re.fullmatch(r"[\w.-]*\w", args.name) or args.name.startswith("."):
        raise UserError(f"--name {args.name!r}: use letters, digits, dot, dash and underscore")
    if args.drop:
        listing.check_outside(args.drop, args.input, args.exclude, "--drop")
    listing.check_there(args.eval_input, "--eval_input")
    if args.work_dir and (not args.bucket or storage.is_remote(args.work_dir)):
        raise UserError(f"--work_dir {args.work_dir}: give a local folder, and only where --output_dir is on gs://")
    return args


if __name__ == "__main__":
    commands.run(main)
