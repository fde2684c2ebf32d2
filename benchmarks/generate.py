"""Generation beside transformers (torch) and CTranslate2: tokens a second, first token, peak memory, on a CPU.

All sides read the same random weights from a folder in Hugging Face's format (CTranslate2 what its converter makes of
it) and continue the same random prompts, ours through the estimator's predict() as `main.py --predict_file` does.  Each
side and precision is a process of its own that waits for its turn, so all meet the same load of the machine, and memory
and threads are their own.  The bandwidth of memory, which bounds the speed, is measured between the turns.  Ends with
one JSON line.
"""
from __future__ import annotations

if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import contextlib
import json
import math
import os
import statistics
import tempfile
import time

import numpy as np

from benchmarks import machine, options, ours, turns
from configs import commands, errors, storage
from configs.errors import UserError
from datasets.jobs import workers

PRECISIONS = {"float32": 4, "bfloat16": 2, "int8": 1}  # and the bytes of a weight
# Ours in int8 is `--int8` with all that lies between the products in bfloat16.
OF_SIDE = {"ours": ("float32", "bfloat16", "int8"), "transformers": ("float32", "bfloat16"),
           "ctranslate2": ("float32", "int8")}
PACKAGES = {"transformers": ("torch", "transformers"), "ctranslate2": ("ctranslate2",)}
CONVERTED = "ctranslate2"  # folder of the weights as CTranslate2 reads them, in that of the weights
WANTED = 1.2


def main(argv=None):
    """Prints a line for each measurement, the medians and the JSON line; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    os.environ["USE_TF"] = "0"  # read by transformers
    machine.use_cores(args.cores)
    if args.serve:
        side, precision = args.serve
        serve(TURNS[side](args, precision))
        return 0
    with errors.packages_from("requirements-dev.txt"):
        described = machine.described("TensorFlow", *(name for peer in args.peers for name in PACKAGES[peer]))
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        config = _config(args, folder)
        ours.write_weights(config, folder)
        if "ctranslate2" in args.peers:
            _convert(config, folder)
        print(f"{described}; {ours.parameters(config) / 1e6:.1f} M "
              f"parameters, prompts of {args.prompt} tokens, {args.length} new ones, "
              f"{f'from the {args.top_k} likeliest' if args.top_k else 'greedy'}; {args.rounds} rounds", flush=True)
        result = {str(batch): measure(args, config, folder, batch) for batch in args.batch}
    print(json.dumps(result))
    return 0


def measure(args, config, folder, batch):
    """Prints the figures of one batch size and returns them as a dict."""
    answers, bandwidths, tokens = {}, [], batch * args.length
    with contextlib.ExitStack() as stack:
        names = [(side, precision) for side in ("ours", *args.peers) for precision in OF_SIDE[side]
                 if precision in args.precision]
        running = {name: stack.enter_context(_process(args, folder, batch, *name)) for name in names}
        for number in range(args.rounds + 1):
            bandwidth = machine.read_bandwidth()
            for name, turn in running.items():
                answer = turn()
                if number:  # the first turn builds and warms up
                    answers.setdefault(name, []).append(answer)
                    print(f"batch {batch}, round {number}: {' '.join(name):21} {tokens / answer['all']:7.1f} tokens/s, "
                          f"{tokens / answer['cpu']:7.1f} a CPU second, the first after {answer['first']:.3f} s",
                          flush=True)
            bandwidths.append(bandwidth)
    ends = {name: turn.last for name, turn in running.items()}
    return _summary(args, config, batch, answers, ends, statistics.median(bandwidths[1:]))


def _summary(args, config, batch, answers, ends, bandwidth):
    """Prints and returns what the answers say; of each side its best precision counts, of the peers the best one."""
    rates = {name: [batch * args.length / answer["all"] for answer in given] for name, given in answers.items()}
    figures = {}
    for (side, precision), values in rates.items():
        name, median = (side, precision), statistics.median(values)
        # A step reads every weight once, whatever the batch; of the embeddings, wte alone and as the output layer.
        limit = batch * bandwidth / _bytes_a_step(config, precision)
        cpu, first = (statistics.median(answer[key] for answer in answers[name]) for key in ("cpu", "first"))
        figures[name] = {
            "tokens_per_second": round(median, 1), "lowest": round(min(values), 1), "highest": round(max(values), 1),
            "tokens_per_cpu_second": round(batch * args.length / cpu, 1),
            "of_bandwidth_limit": round(median / limit, 3),
            "first_token_seconds": round(first, 4),
            "peak_mb": round(ends[name]["peak"] / 1e6)}
        print(f"batch {batch}: {side + ' ' + precision:21} {median:7.1f} tokens/s (from {min(values):.1f} to "
              f"{max(values):.1f}), {median / limit:.0%} of the {limit:.0f} that memory allows, first token after "
              f"{figures[name]['first_token_seconds']:.3f} s, peak {ends[name]['peak'] / 1e6:,.0f} MB")
    def median_rate(name):
        return statistics.median(rates[name])
    best = {side: max((name for name in rates if name[0] == side), key=median_rate) for side in ("ours", *args.peers)}
    own, peer = best["ours"], max((best[side] for side in args.peers), key=median_rate)
    ratios = [mine / theirs for mine, theirs in zip(rates[own], rates[peer])]
    ratio = statistics.median(ratios)
    by_cpu = figures[own]["tokens_per_cpu_second"] / figures[peer]["tokens_per_cpu_second"]
    print(f"batch {batch}: {' '.join(own)} beside {' '.join(peer)}: {ratio:.2f} times as fast (from {min(ratios):.2f} "
          f"to {max(ratios):.2f}; by CPU seconds {by_cpu:.2f}); wanted: at least {WANTED}; bandwidth "
          f"{bandwidth / 1e9:.1f} GB/s")
    result = {"ratio": round(ratio, 3), "ratio_by_cpu_seconds": round(by_cpu, 3),
              "gigabytes_per_second": round(bandwidth / 1e9, 1),
              **{side: {"precision": name[1], **figures[name]} for side, name in best.items()},
              "others": {" ".join(name): values["tokens_per_second"] for name, values in figures.items()
                         if name not in best.values()}}
    if "float32" in args.precision:
        own, *others = (np.array(ends[side, "float32"]["tokens"]) for side in best)
        result["equal_tokens"] = round(float(np.mean(np.all([own == other for other in others], 0))), 4)
        print(f"batch {batch}: {result['equal_tokens']:.1%} of the tokens in float32 are the same on all sides")
    return result


def _bytes_a_step(config, precision):
    """Bytes of the weights that a step reads: all but wpe."""
    return sum(math.prod(weight.shape) for weight in ours.weight_list(config) if weight.name != "wpe") \
        * PRECISIONS[precision]


# What is measured on

def prompts_of(args, n_vocab, batch):
    """Random prompts, int32 [B, S]."""
    return np.random.default_rng(args.seed).integers(0, n_vocab - 1, [batch, args.prompt], np.int32)


def _config(args, folder, **values):
    """The config of configs/117M.json with the weights in `folder`."""
    values = {**values, "model_dir": os.path.join(folder, "run"), "init_checkpoint": folder}
    return options.load("117M", [*args.overrides, *options.overrides(values)])


def _convert(config, folder):
    """Writes the weights in `folder` as CTranslate2 reads them, with the ids themselves as the vocabulary's words."""
    import tokenizers
    import transformers
    from ctranslate2.converters import TransformersConverter
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(id): id for id in range(config.n_vocab)}, "0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="0", eos_token=str(config.n_vocab - 1),
                                         unk_token="0").save_pretrained(folder)
    TransformersConverter(folder).convert(os.path.join(folder, CONVERTED))


# The processes

def _process(args, folder, batch, side, precision):
    numbers = [word for name in ("prompt", "length", "rounds", "top_k", "seed")
               for word in (f"--{name}", str(getattr(args, name)))]
    return turns.process(f"{side} in {precision}", [
        "-m", "benchmarks.generate", "--serve", side, precision, "--output_dir", folder, "--batch", str(batch),
        *numbers, *options.set_words(args.overrides)])


def serve(measured):
    """Answers each turn with the seconds of the next of `measured`, the end with memory and tokens."""
    mine, tokens = turns.Turns(), None
    while mine.wait():
        seconds, tokens = next(measured)
        mine.answer(seconds)
    mine.answer({"peak": machine.resident("VmHWM"), "tokens": tokens})


def _our_turns(args, precision):
    """Yields ({"first", "all", "cpu"}: seconds, tokens [B, S]) of each turn."""
    ours.start_quietly()
    batch, = args.batch
    int8 = precision == "int8"
    config = _config(args, args.output_dir, precision="bfloat16" if int8 else precision, predict_batch_size=batch)
    drawing = {"temperature": 1.0 if args.top_k else 0.0, "top_k": args.top_k, "seed": args.seed}
    samples = ours.samples(config, prompts_of(args, config.n_vocab, batch), [1, args.length] * (args.rounds + 1),
                           int8=int8, **drawing)

    def run(length):
        found = [next(samples).tolist() for _ in range(batch)]
        if any(len(sample) != length for sample in found):
            raise UserError("a sample ended before its length; give another --seed")
        return found
    return _measured(args, run)


def _turns_of_transformers(args, precision):
    """Like _our_turns."""
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    batch, = args.batch
    model = transformers.GPT2LMHeadModel.from_pretrained(args.output_dir, dtype=getattr(torch, precision)).eval()
    model.generation_config.eos_token_id = None  # no sample ends before its length
    ids = torch.tensor(prompts_of(args, model.config.vocab_size, batch), dtype=torch.long)
    drawing = {"do_sample": True, "top_k": args.top_k} if args.top_k else {"do_sample": False}

    def run(length):
        with torch.inference_mode():
            found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, use_cache=True,
                                   pad_token_id=0, **drawing)
        assert found.shape == (batch, args.prompt + length)
        return found[:, args.prompt:].tolist()
    return _measured(args, run)


def _turns_of_ctranslate2(args, precision):
    """Like _our_turns."""
    import ctranslate2
    batch, = args.batch
    model = ctranslate2.Generator(os.path.join(args.output_dir, CONVERTED), compute_type=precision,
                                  intra_threads=workers.cores())
    prompts = [list(map(str, row)) for row in prompts_of(args, _config(args, args.output_dir).n_vocab, batch)]

    def run(length):
        found = model.generate_batch(prompts, max_length=length, include_prompt_in_result=False, end_token=[],
                                     sampling_topk=args.top_k or 1)
        found = [result.sequences_ids[0] for result in found]
        assert {len(sample) for sample in found} == {length}
        return found
    return _measured(args, run)


TURNS = {"ours": _our_turns, "transformers": _turns_of_transformers, "ctranslate2": _turns_of_ctranslate2}


def _measured(args, run):
    """Yields what a turn takes: run(1) gives the time to the first token, run(length) the rest."""
    while True:
        begun = _clocks()
        run(1)
        first, _ = _clocks() - begun
        begun = _clocks()
        tokens = run(args.length)
        seconds, cpu = _clocks() - begun
        yield {"first": first, "all": seconds, "cpu": cpu}, tokens


def _clocks():
    """Seconds, and CPU seconds of all threads of this process."""
    return np.array([time.monotonic(), time.process_time()])


def _arguments(argv):
    parser = options.parser("generate", __doc__)
    add = parser.add_argument
    add("--batch", type=int, nargs="+", default=[1, 16], help="samples drawn at once; one table for each")
    add("--prompt", type=int, default=64, help="tokens of a prompt")
    add("--length", type=int, default=128, help="tokens to generate for each")
    add("--top_k", type=int, default=0, help="draw from the K likeliest at temperature 1; 0: always the likeliest")
    add("--peers", nargs="+", choices=PACKAGES, default=["transformers"], help="what ours is held against")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS),
        help="each side's best one counts, of those that it has")
    add("--rounds", type=int, default=5, help="measurements of each, after one that is not counted")
    options.add_cores(parser)
    add("--seed", type=int, default=1, help="of weights and prompts")
    add("--output_dir", help="where the weights go for a moment (0.5 GB); default: TMPDIR")
    options.add_set(parser)
    add("--serve", nargs=2, metavar=("SIDE", "PRECISION"), help=options.HIDDEN)
    args = parser.parse_args(argv)
    options.check_least(args, prompt=1, length=2, rounds=1, top_k=0, cores=0)
    if min(args.batch) < 1:
        raise UserError(f"--batch {min(args.batch)} is out of range: give at least 1")
    for side in ("ours", *args.peers):
        if not set(OF_SIDE[side]) & set(args.precision):
            raise UserError(f"--precision {' '.join(args.precision)} leaves nothing to measure of {side}, which has"
                            f" {' and '.join(OF_SIDE[side])}; give one of them, too")
    return args


if __name__ == "__main__":
    commands.run(main)
