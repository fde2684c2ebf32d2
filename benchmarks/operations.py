"""What a step of our training spends its time on, by kind of operation.

TensorFlow notes when each operation begins and ends.  Here they begin one after the other, each on all cores, so that
their seconds add up to the step; in a training, small ones may run beside others.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import json
import re
import statistics
import tempfile

from benchmarks import machine, options, ours, train
from configs import commands, storage

# (kind, pattern of "operation name function"), the first that fits; what fits none is a kind by its operation
KINDS = (
    ("the optimizer", r" (AdamW|Adafactor|Muon)/"),
    ("gradients' norm", r" global_norm"),
    ("products of attention's heads", r"BatchMatMul"),
    ("products", r"MatMul"),
    ("compiled: {1}", r"__inference_(\w+)_\d+$"),
    ("casts", r"^Cast "),
    ("copies, in place or not", r"^(Inplace|_MklTranspose|Transpose|Pack|Concat|Slice|StridedSlice|Split|_MklConcat)"),
    ("sums, products and choices by element", r"^(Add|AddN|AddV2|Mul|Sub|Select|SelectV2|Sum|Mean|_MklAdd\w*) "),
)
LEAST = 0.005  # share of a step; rarer kinds are one


def main(argv=None):
    """Prints a table and the JSON line; returns 0."""
    args = _arguments(argv)
    storage.silence_tensorflow()
    machine.use_cores(args.cores)
    with tempfile.TemporaryDirectory(dir=args.output_dir) as folder:
        config = train.config_of(args, args.setting, folder, precision=args.precision)
        train.write_data(config, folder)
        ours.start_quietly()
        seconds, traces = ours.operations(config, args.steps)
    step = statistics.median(seconds)
    found = by_kind(traces)
    print(f"{machine.described('TensorFlow')}; {args.setting}, {args.precision}, {args.steps} steps\n")
    print(table(found))
    print(f"\na step, untraced: {1e3 * step:.0f} ms ({1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f})")
    print(json.dumps({"setting": args.setting, "precision": args.precision, "step_ms": round(1e3 * step, 1),
                      "kinds": {kind: round(1e3 * spent, 2) for kind, (_, spent) in found.items()}}))
    return 0


def by_kind(traces):
    """{kind: (operations, seconds) of a step}, the longest first, of `traces` as ours.operations gives them."""
    found = {}
    for *operation, seconds in [each for trace in traces for each in trace]:
        kind = kind_of(*operation)
        number, spent = found.get(kind, (0, 0.0))
        found[kind] = number + 1, spent + seconds
    least = LEAST * sum(spent for _, spent in found.values())
    rare = [kind for kind, (_, spent) in found.items() if spent < least]
    shown = {kind: found[kind] for kind in sorted(found, key=lambda kind: -found[kind][1]) if kind not in rare}
    if rare:
        shown["all else"] = tuple(map(sum, zip(*(found[kind] for kind in rare))))
    return {kind: (number / len(traces), spent / len(traces)) for kind, (number, spent) in shown.items()}


def kind_of(operation, name, function):
    """The kind of KINDS that an operation of TensorFlow is, or its own name."""
    for kind, pattern in KINDS:
        match = re.search(pattern, f"{operation} {name} {function}")
        if match:
            return kind.format(match.group(), *match.groups())
    return operation


def table(found):
    """What `by_kind` returns as a Markdown table."""
    whole = sum(spent for _, spent in found.values())
    return "\n".join(["| kind of operation | operations | ms of a step | share |", "|---|---|---|---|", *(
        f"| {kind} | {number:,.0f} | {1e3 * spent:,.1f} | {spent / whole:.1%} |"
        for kind, (number, spent) in found.items())])


def _arguments(argv):
    parser = options.parser("operations", __doc__)
    add = parser.add_argument
    on_cpu = [name for name, setting in train.SETTINGS.items() if not setting.gpu]
    add("--setting", choices=on_cpu, default=on_cpu[0], help="what is trained, as for benchmarks.train")
    add("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of the activations")
    add("--steps", type=int, default=3, help="to trace, behind as many without")
    options.add_cores(parser)
    add("--output_dir", help="where weights and a checkpoint go for a moment (124M: 2.5 GB); default: TMPDIR")
    options.add_set(parser, "the setting's config")
    args = parser.parse_args(argv)
    options.check_least(args, steps=1, cores=0)
    return args


if __name__ == "__main__":
    commands.run(main)
