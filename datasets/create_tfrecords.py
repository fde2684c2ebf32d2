"""Documents -> byte-level BPE -> TFRecord shards and their manifest, in parallel, to be killed and run again at will.

Documents get one random order that depends on the seed alone and are cut into shards in it, so a shard is a fair
sample of the whole and the bytes do not depend on the number of processes.  Differs from the original, which took
files in the order of the disk: there a shard was whatever lay together.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import hashlib
import re
import shutil
import unicodedata
from importlib.metadata import version

import numpy as np

from configs import commands, errors, progress, reading, storage
from configs.errors import UserError
from datasets import building, cleaning, documents, manifest, packed, plans, publishing
from datasets.duplicates import drop_list
from datasets.jobs import workers
from encoder import bpe

# 175000 in the original, about 250 MB a file.  Training shuffles up to order.BLOCK_TOKENS at once, and a run that goes
# on within a shard reads it from its start: 12500 documents of OpenWebText are 14 million tokens, just below a block.
FILES_PER = 12500
EVAL_FRACTION = 0.01


def main(argv=None):
    """Arguments -> shards and manifest; returns 0."""
    args = arguments(argv)
    if args.bucket:
        publishing.check(args.bucket, args.output_dir, args.name)
    vocabulary = args.encoder_path, bpe.fingerprint(args.encoder_path)
    print("listing documents", flush=True)
    hidden = os.path.join(args.output_dir, f".{args.name}.")
    with storage.only_run(hidden + "lock", "choose another --name"), \
            packed.scratch_folder(hidden + "unpacked") as scratch, \
            workers.started(0 if args.ray_address else args.processes, building.load_encoder, *vocabulary) as pool:
        encoder = building.load_encoder(*vocabulary)
        _create(args, encoder, documents.make_index(args.input, args.exclude, args.eval_input, scratch), pool)
    if args.bucket:
        publishing.publish(args.bucket, args.output_dir, args.name)
    return 0


def _create(args, encoder, index, pool):
    """Finishes the output, whatever state it is in."""
    drop, drop_sha256 = drop_list.read(args.drop) if args.drop else (None, None)
    plan = _plan(args, encoder, index, drop_sha256)
    target = manifest.path_of(args.output_dir, args.name)
    state = os.path.join(args.output_dir, f".{args.name}.state")
    done = _finished(args, plan, target, state)
    shards = _shards(args, encoder.fingerprint, state, _orders(index, args))
    missing = [shard for shard in shards if os.path.basename(shard.path) not in done]
    if os.path.exists(target) and not missing:
        shutil.rmtree(state, ignore_errors=True)
        print(f"{target} is finished: nothing to do")
        return
    before = len(index.file) - sum(len(shard.numbers) for shard in missing)
    jobs = _without_dropped(missing, args, drop, index)
    plans.begin(state, plan)
    documents.save(index, state)
    with progress.bar(len(index.file), unit="doc", done=before) as bar:
        for entry in workers.each(building.build, jobs, args.processes, state, bar.update, args.ray_address, pool):
            done[os.path.basename(entry.shard.path)] = entry
    _finish(args, plan, [done[os.path.basename(shard.path)] for shard in shards], target, state)


def _shards(args, vocabulary, state, orders):
    """The building.ShardToBuild of each shard, train first."""
    return [building.ShardToBuild(
        state, os.path.join(args.output_dir, f"{args.name}{suffix}_{i}.tfrecords"), split,
        orders[split][start:start + args.files_per], 0, args.encoder_path, vocabulary, args.minimum_size,
        args.clean) for split, suffix in (("train", ""), ("eval", "-eval"))
        for i, start in enumerate(range(0, len(orders[split]), args.files_per))]


def _finish(args, plan, entries, target, state):
    """Checks and writes the manifest, then clears up and prints the table."""
    filled = {entry.split for entry in entries if entry.shard.records}
    if "train" not in filled or (args.eval_input and "eval" not in filled):
        for entry in entries:
            os.unlink(entry.shard.path)
        shutil.rmtree(state)
        purpose = "evaluation" if "train" in filled else "training"
        fraction = "" if args.eval_input else f" or --eval_fraction {args.eval_fraction}"
        raise UserError(f"none of {plan['documents']} documents is left for {purpose} ({_outcomes(entries)}): give more"
                        f" text, or lower --minimum_size {args.minimum_size}{fraction}")
    manifest.write(target, plan, entries)
    shutil.rmtree(state)
    for split in ("train", "eval"):
        shards = [entry.shard for entry in entries if entry.split == split]
        print(f"{split:5} {len(shards):6} shards {sum(s.records for s in shards):10} records "
              f"{sum(s.tokens for s in shards):13} tokens {sum(s.text_bytes for s in shards):14} bytes of text")
    print(f"documents: {_outcomes(entries)}\n{target}")
    if args.eval_fraction and "eval" not in filled:
        print(f"no document fell into the evaluation set: raise --eval_fraction {args.eval_fraction}")


def _outcomes(entries):
    return ", ".join(f"{name} {count}" for name, count in manifest.sum_outcomes(entries).items())


def _plan(args, encoder, index, drop_sha256):
    """All that decides the bytes of the output."""
    tools = {"unicode": unicodedata.unidata_version, "tiktoken": version("tiktoken"), **cleaning.tools(args.clean)}
    return {"name": args.name, "vocabulary": encoder.fingerprint, "vocabulary_size": encoder.size,
            "cleaning": cleaning.RULES[args.clean], "minimum_size": args.minimum_size,
            "files_per": args.files_per, "eval_fraction": args.eval_fraction, "seed": args.seed,
            "exclude": args.exclude, "drop": drop_sha256, "inputs": index.fingerprint, "documents": len(index.file),
            "tools": tools, **({"held_out": index.held_out} if args.eval_input else {})}


def _finished(args, plan, target, state):
    """{file name: Entry} of the shards that earlier runs of the same plan completed.

    Raises UserError where the files of that name come from another plan or from elsewhere.
    """
    note, found, entries = os.path.join(state, plans.PLAN), None, []
    if os.path.exists(target):
        _, found, entries = manifest.load(target)
    elif os.path.exists(note):
        found = reading.read_object(note)
    remedy = f"choose another --name, or delete {args.name}_*.tfrecords, {args.name}-eval_*.tfrecords, "\
             f"{target} and {state}"
    if found is None:
        shards = [name for name in sorted(os.listdir(args.output_dir))
                  if re.fullmatch(re.escape(args.name) + r"(-eval)?_\d+\.tfrecords", name)]
        if shards:
            raise UserError(f"{args.output_dir} holds {shards[0]} without a manifest, from elsewhere: {remedy}")
        return {}
    plans.check(found, plan, f"{args.output_dir} already holds {args.name} made", remedy)
    return {os.path.basename(entry.shard.path): entry
            for entry in [*entries, *building.completed(state, args.output_dir)]
            if os.path.exists(entry.shard.path) and os.path.getsize(entry.shard.path) == entry.shard.size}


def _orders(index, args):
    """{"train", "eval": int64 document numbers}, each in the seed's random order.

    Without --eval_input, whether a document is for evaluation depends on the seed and its identity alone: more
    documents do not move it.
    """
    chosen = np.arange(len(index.file)) < index.held_out
    for number in range(len(chosen)) if args.eval_fraction else ():
        name = f"{args.seed}:{documents.identity(index, number)}"
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        chosen[number] = int.from_bytes(digest, "big") < args.eval_fraction * 2 ** 64
    # RandomState's stream is frozen (https://numpy.org/neps/nep-0019-rng-policy.html); a Generator's may change.
    random = np.random.RandomState(args.seed)
    return {"train": random.permutation(np.flatnonzero(~chosen)), "eval": random.permutation(np.flatnonzero(chosen))}


def _without_dropped(shards, args, drop, index):
    """The building.ShardToBuild of each shard without the documents that --drop names."""
    if not args.drop:
        return shards
    dropped, known = drop_list.mark(drop, index)
    if len(known) and not known.any():
        raise UserError(f"--drop {args.drop}: none of its {len(known)} lines names a document of --input: names start "
                        "at each --input, so give the same ones as to datasets/dedup.py")
    print(f"{args.drop}: leaves out {np.count_nonzero(dropped)} documents; "
          f"{np.count_nonzero(~known)} of its {len(known)} lines name none")
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
    if args.work_dir and (not args.bucket or storage.is_remote(args.work_dir)):
        raise UserError(f"--work_dir {args.work_dir}: give a local folder, and only where --output_dir is on gs://")
    return args


if __name__ == "__main__":
    commands.run(main)
