"""Steps and seconds in which an optimizer reaches the final loss of the first one that is named, AdamW.

The learning rate of each is chosen by the same sweep, with seed 1.  Then each trains with the best of its rates from
other seeds, 2 and up: the loss of seed 1 chose that rate, and would flatter it.  All but the first also train in
`--share` of the steps, with a schedule that is planned for so many: a run that was planned longer has not yet come
down.  Every run is a process of `main.py` with the real data pipeline and evaluations on the whole held-out text.
Results are kept, so an interrupted study goes on where it was.  Ends with one JSON line.
"""
if __name__ == "__main__":  # before the imports that may fail
    from configs import start
    start.begin()

import argparse
import json
import os
import statistics
import sysconfig
from typing import NamedTuple

from benchmarks import ablation, machine, options, records, shakespeare, significance, studies
from configs import commands, schema, storage
from configs.errors import UserError
from datasets import create_tfrecords
from encoder import train as encoder_train

LRS = (1e-3, 2e-3, 4e-3, 8e-3)
SEEDS, EVALUATIONS, SHARE, PROCESSES = 8, 20, 0.6, 2
SWEEP_SEED = 1
RECORDS = "optimizers"
QUICKSTART_VOCABULARY = 4096  # as in the Makefile


class Study(NamedTuple):
    """What all runs share: the folder of results, the config's path and its changes, and the whole schedule."""
    folder: str
    config: str
    data: list  # changes that say where the data lie
    overrides: list  # those of --set
    steps: int
    warmup_steps: int
    between: int  # steps between two evaluations


def main(argv=None):
    """Makes the runs that are missing, prints tables and the JSON line; returns 0."""
    args = _arguments(argv)
    with storage.only_run(os.path.join(args.output_dir, ".lock"), "choose another --output_dir"):
        study = prepare(args)
        sweep = studies.results(study.folder, [run_of(study, name, lr, study.steps, SWEEP_SEED)
                                               for name in args.optimizers for lr in args.lrs],
                                args.processes, _measured)
        rates = best_rates(sweep)
        compared = studies.results(study.folder, compared_runs(study, args, rates), args.processes, _measured)
    for result in [*sweep, *compared] if args.record else []:
        records.append(RECORDS, {"script": "benchmarks.optimizers", "setting": args.setting, **result})
    rows = summary(compared)
    print("\n".join([sweep_table(sweep, rates), "", table(rows)]))
    print(json.dumps({"machine": machine.described("TensorFlow"), "setting": args.setting, "lr": rates, "rows": rows}))
    return 0


def _arguments(argv):
    parser = options.parser("optimizers", __doc__)
    add = parser.add_argument
    add("--setting", required=True, choices=SETTINGS, help="the quick start, shakespeare-char or the ablation's model")
    add("--text", metavar="PATH", help="the text; without it Python's own sources, but for shakespeare")
    add("--optimizers", nargs="+", default=["adam", "muon"], metavar="NAME", help="others are held to the first")
    add("--lrs", nargs="+", type=float, default=list(LRS), metavar="LR", help="the sweep, the same for each optimizer")
    add("--seeds", type=int, default=SEEDS, help="runs of each optimizer with its best rate, from seed 2 on; 1 to 12")
    add("--steps", type=int, help="of a whole run (default: the setting's)")
    add("--share", type=float, default=SHARE, help="of the steps, in which all but the first train once more; 1: not")
    add("--evaluations", type=int, default=EVALUATIONS, help="of a whole run")
    add("--processes", type=int, default=PROCESSES, help="runs at once, on one core each")
    add("--output_dir", default="runs/optimizers", help="folder for the data, the results and the logs")
    add("--record", action="store_true", help=f"add each run to benchmarks/results/{RECORDS}.jsonl")
    options.add_set(parser, "the setting's config")
    args = parser.parse_args(argv)
    options.check_least(args, seeds=1, evaluations=1, processes=1)
    if not 0 < args.share <= 1 or args.seeds > 12:
        raise UserError(f"--share {args.share:g} --seeds {args.seeds}: give a share above 0 up to 1, and 1 to 12 seeds")
    args.output_dir = os.path.abspath(args.output_dir)
    return args


def prepare(args):
    """Makes the data of the setting, once; returns the Study."""
    if args.setting == "shakespeare" and not args.text:
        raise UserError("--setting shakespeare needs --text; docs/benchmarks.md says where the text is found")
    options.keep_setting(args.output_dir, {
        "setting": args.setting, "steps": args.steps, "text": ablation.index_of(args.text).fingerprint,
        "evaluations": args.evaluations, "overrides": args.overrides})
    path, data = SETTINGS[args.setting](args, os.path.join(args.output_dir, "data"))
    data = options.overrides(data)
    config = schema.load(path, [*data, *args.overrides, "model_dir=unset"])
    steps = args.steps or config.max_steps
    return Study(args.output_dir, path, data, args.overrides, steps,
                 warmup_steps=round(config.warmup_steps * steps / config.max_steps),
                 between=-(-steps // args.evaluations))


def _shakespeare(args, folder):
    shakespeare.prepare(shakespeare.read(args.text), folder)
    return options.preset(shakespeare.SETTINGS["small"].config), {
        "data_path": folder, "encoder_path": os.path.join(folder, "encoder")}


def _ablation(args, folder):
    ablation.prepare(argparse.Namespace(output_dir=folder, text=args.text, lr=ablation.LR,
                                        steps=args.steps or ablation.STEPS))
    return os.path.join(folder, "config.json"), {}


def _quickstart(args, folder):
    """The data of `make quickstart`."""
    source = ["--input", args.text or sysconfig.get_path("stdlib"), "--no_ftfy"]
    if not args.text:
        source += [word for name in ablation.EXCLUDED for word in ("--exclude", name)]
    encoder = os.path.join(folder, "encoder")
    encoder_train.main([*source, "--size", str(QUICKSTART_VOCABULARY), "--output_dir", encoder])
    create_tfrecords.main([*source, "--name", "python", "--eval_fraction", "0.05", "--encoder_path", encoder,
                           "--output_dir", folder])
    return options.preset("quickstart"), {"data_path": folder, "encoder_path": encoder}


SETTINGS = {"quickstart": _quickstart, "shakespeare": _shakespeare, "ablation": _ablation}


def run_of(study, optimizer, lr, steps, seed):
    """Makes the studies.Run in which `main.py` trains with these settings."""
    name = f"{optimizer}-lr{lr:g}-steps{steps}-seed{seed}"
    keys = {"opt_name": optimizer, "lr": lr, "seed": seed, "max_steps": steps,
            "warmup_steps": round(study.warmup_steps * steps / study.steps), "train_steps": study.between,
            "eval_steps": -1, "save_checkpoints_steps": steps, "keep_checkpoint_max": 1, "sample_prompts": None}
    overrides = [*study.overrides, *options.overrides(keys)]
    places = [*study.data, *options.overrides({"model_dir": os.path.join(study.folder, name)})]
    return studies.Run(name, [options.MAIN, "--model", study.config, *options.set_words([*overrides, *places])],
                       {"optimizer": optimizer, "lr": lr, "steps": steps, "seed": seed,
                        "config": os.path.basename(study.config), "overrides": overrides})


def compared_runs(study, args, rates):
    """Makes the Runs that are compared.  Each optimizer trains with its rate in `rates`."""
    first, *others = args.optimizers
    short = [(name, round(args.share * study.steps)) for name in others] if args.share < 1 else []
    plans = [(first, study.steps), *((name, study.steps) for name in others), *short]
    # Seed by seed, one optimizer after the other: all of them meet the same machine in the same minutes.
    seeds = range(SWEEP_SEED + 1, SWEEP_SEED + 1 + args.seeds)
    return [run_of(study, name, rates[name], steps, seed) for seed in seeds for name, steps in plans]


def _measured(seconds, figures):
    return {"seconds_a_step": _seconds_a_step(figures),
            "training": [(line["step"], line["loss"]) for line in figures if "loss" in line]}


def _seconds_a_step(figures):
    """Of the training alone, without start-up and evaluations: the median of what was shown; None where nothing was."""
    points = [line for line in figures if line.get("tokens_per_second")]
    return statistics.median(line["tokens"] / line["step"] / line["tokens_per_second"] for line in points) \
        if points else None


def best_rates(sweep):
    """Returns {optimizer: its rate with the lowest loss}.  Raises UserError if all runs of an optimizer diverged."""
    best = {}
    for result in sweep:
        known = best.get(result["optimizer"])
        if result["loss"] is not None and (known is None or result["loss"] < known["loss"]):
            best[result["optimizer"]] = result
    lost = {result["optimizer"] for result in sweep} - set(best)
    if lost:
        raise UserError(f"every run of {', '.join(sorted(lost))} diverged; give lower --lrs")
    return {name: result["lr"] for name, result in best.items()}


def summary(compared):
    """[dict] for each optimizer and number of steps, in order; the first is what the others are held to."""
    groups = {}
    for result in compared:
        groups.setdefault((result["optimizer"], result["steps"]), []).append(result)
    first, *others = groups.values()
    yardstick = [run["loss"] for run in first]
    if None in yardstick:
        raise UserError(f"{yardstick.count(None)} of {len(first)} runs of {first[0]['optimizer']} diverged with its"
                        " best rate: there is nothing to reach; give other --lrs")
    return [_row(first, yardstick, None), *(_row(runs, yardstick, yardstick) for runs in others)]


def _row(runs, yardstick, compared):
    """What the runs of one optimizer came to; `yardstick`: the losses to reach; `compared`: those to beat, or None."""
    losses, wanted = [run["loss"] for run in runs], statistics.fmean(yardstick)
    finite = None not in losses
    reached = [next((step for step, loss in run["evaluations"] if loss <= wanted), None) for run in runs]
    times = [step and run["seconds_a_step"] and round(step * run["seconds_a_step"], 2)
             for step, run in zip(reached, runs)]
    return {"optimizer": runs[0]["optimizer"], "steps": runs[0]["steps"], "seeds": len(runs), "losses": losses,
            "mean": round(statistics.fmean(losses), 4) if finite else None,
            "deviation": round(statistics.stdev(losses), 4) if finite and len(losses) > 1 else None,
            "reached_at_step": reached, "reached_in_seconds": times,
            "p_lower": significance.one_sided(losses, compared) if compared and finite else None}


def sweep_table(sweep, rates):
    """The final loss at each rate, as a Markdown table."""
    rows = [f"| optimizer | lr | loss of seed {SWEEP_SEED} | |", "|---|---|---|---|"]
    for result in sweep:
        loss = "diverged" if result["loss"] is None else f"{result['loss']:.4f}"
        rows.append(f"| {result['optimizer']} | {result['lr']:g} | {loss} |"
                    f" {'best' if rates[result['optimizer']] == result['lr'] else ''} |")
    for name, best in rates.items():
        tried = [result["lr"] for result in sweep if result["optimizer"] == name]
        if len(tried) > 1 and best in (min(tried), max(tried)):
            rows.append(f"\n{name} is best at the end of the sweep, {best:g}: a wider one might find a better rate.")
    return "\n".join(rows)


def table(rows):
    """The rows of `summary` as a Markdown table."""
    lines = [["optimizer", "steps", "mean loss", "deviation", "lowest to highest", "reach the first one's mean",
              "at step", "in seconds", "p"], ["---"] * 9]
    for row in rows:
        losses, seeds = row["losses"], row["seeds"]
        if row["mean"] is None:
            lines.append([row["optimizer"], row["steps"], f"{losses.count(None)} of {seeds} diverged", *[""] * 6])
            continue
        steps, times = ([value for value in row[name] if value] for name in ("reached_at_step", "reached_in_seconds"))
        lines.append([row["optimizer"], row["steps"], f"{row['mean']:.4f}", _number(row["deviation"]),
                      f"{min(losses):.4f} to {max(losses):.4f}", f"{len(steps)} of {seeds}", _range(steps),
                      _range(times), _number(row["p_lower"])])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _number(value):
    return "" if value is None else f"{value:.2g}"


def _range(values):
    return f"{statistics.median(values):g} ({min(values):g} to {max(values):g})" if values else ""


if __name__ == "__main__":
    commands.run(main)
