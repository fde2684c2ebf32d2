"""Keeps a (preemptible) TPU node and the run on it alive until the run is done, and leaves no node behind.

    python3 tools/tpu_survival.py --name mine --tpu_project my-project --zones europe-west4-a,us-central1-f \\
        --accelerator v3-8 --max_hours 200 -- python3 main.py --model gs://bucket/345M.json

The tool adds --tpu, --tpu_project and --tpu_zone to the command.  Its state, the run's output (output.log) and its own
(survival.log) lie in --state_dir; the same command line goes on from there, whatever became of the process before.
A run that ends with status 75 (main.py: its node was preempted) has not failed; it is started again on another node.
Exit status: 0 the run is done; 2 a mistake, no zone gives a TPU, or the run fails again and again; 3 --max_hours is
reached; 130 and 143 stopped by a signal.
"""
from __future__ import annotations

import os
import re
import shlex
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from configs import cloud_tpu, commands, errors, storage, tpu_names
from configs.errors import UserError
from tools.survival import keeper


def main(argv=None):
    args = _arguments(argv)
    args.project, _ = cloud_tpu.place(args.tpu_project, args.zones[0])
    if args.dry_run:
        return _show(args)
    with storage.only_run(os.path.join(args.state_dir, "lock"), "give this one another --state_dir and --name"):
        return keeper.Keeper(args).keep()


def _show(args):
    """Prints the requests and the command of a run that nothing disturbs; sends and writes nothing."""
    service = cloud_tpu.connect(args.answer_seconds, anonymous=True)
    zones = [cloud_tpu.Nodes(service, args.project, zone, args.answer_seconds) for zone in args.zones]
    for nodes in zones:
        request = nodes.creation(args.name, keeper.node_of(args, "16 random digits"))
        if nodes is not zones[0]:
            print(f"if that gives no TPU in {args.create_minutes:g} minutes: ", end="")
        print(f"{request.method} {request.uri}\n  {request.body}")
    print(f"when it is READY, and again after preemption or {args.hang_minutes:g} minutes without a step:\n  "
          + shlex.join(keeper.command_of(args, args.zones[0])))
    request = zones[0].deletion(args.name)
    print(f"at the end, after {args.max_hours:g} hours of TPU, or on a signal: {request.method} {request.uri}")
    return 0


def _arguments(argv):
    parser = errors.script_parser(
        __doc__, allow_abbrev=False, usage="%(prog)s --name NAME --zones ZONES --accelerator TYPE --max_hours HOURS"
        " [options] -- python3 main.py --model CONFIG.json")
    add, count = parser.add_argument, errors.at_least(1)
    positive = errors.checked(float, lambda value: value > 0, "more than 0")
    add("--name", required=True, help="of the node", type=errors.checked(
        str, re.compile(cloud_tpu.NODE_NAME).fullmatch, "small letters, digits and -, beginning with a letter"))
    add("--zones", required=True, help="where to ask for it, in this order, with commas between", type=errors.checked(
        lambda text: list(filter(None, text.split(","))), _are_zones, "zones, such as us-central1-b, each once"))
    add("--accelerator", required=True, metavar="TYPE", help="v2-8, v3-8, v3-32 ...")
    add("--max_hours", required=True, type=positive, help="most hours that nodes may exist, all together")
    add("--tpu_project", metavar="PROJECT", help="of Google (without it $GOOGLE_CLOUD_PROJECT, or that of this VM)")
    add("--on_demand", action="store_true", help="ask for a node that is not preemptible")
    add("--software", default=tpu_names.our_version(), help="version of TensorFlow on the node")
    add("--network", help="of Compute Engine, that the node joins (without it the project's default)")
    add("--hang_minutes", type=positive, default=30.0,
        help="without a step, then the node is replaced; more than the longest evaluation takes")
    add("--create_minutes", type=positive, default=30.0,
        help="for a node to become READY, then the next zone is asked")
    add("--retry_minutes", type=positive, default=5.0,
        help="until a run that failed is started again, or until the first zone is asked again when none had room")
    add("--max_failures", type=count, default=3, help="of the run in a row without a new step, then it is given up")
    add("--grace_seconds", type=positive, default=180.0, help="for the run to save and end, then it is killed")
    add("--model_dir", help="of the run, for backups")
    add("--backup_dir", help="gets a copy of the newest checkpoint every --backup_hours and at the end; may be gs://")
    add("--backup_hours", type=positive, default=24.0, help="between backups")
    add("--keep_backups", type=count, default=7, help="newest backups that are kept")
    add("--state_dir", help="folder for state and output (without it runs/survival-NAME)", type=errors.checked(
        str, lambda path: not storage.is_remote(path), "a local folder"))
    add("--step_pattern", default=r"^step +(\d+)/",
        help="regex of the output's lines that show progress; its group is the step")
    add("--poll_seconds", type=positive, default=30.0, help="between questions for the node")
    add("--answer_seconds", type=positive, default=30.0, help="that the API has for an answer")
    add("--dry_run", action="store_true", help="print the calls and do nothing")
    add("command", nargs="*", help="behind --: the run, as one would start it here")
    args = parser.parse_args(argv)
    _check(args)
    args.state_dir = args.state_dir or os.path.join("runs", f"survival-{args.name}")
    return args


def _are_zones(zones):
    return 0 < len(zones) == len(set(zones)) and all(re.fullmatch(r"[a-z0-9-]+", zone) for zone in zones)


def _check(args):
    if not args.command:
        raise UserError("no command is given; put it behind --, for example -- python3 main.py --model gs://b/x.json")
    if any(re.match(r"--tpu(_|=|$)", word) for word in args.command):
        raise UserError("the command names a TPU by itself; leave --tpu out, it is added")
    if not args.software:
        raise UserError("TensorFlow is not installed here; give --software, the version for the node")
    if bool(args.backup_dir) != bool(args.model_dir):
        raise UserError("--backup_dir and --model_dir need each other; give both or none")
    for name in ("model_dir", "backup_dir"):
        storage.check_for_tensorflow(getattr(args, name) or "", f"--{name}")
    if args.max_hours * 3600 <= args.grace_seconds:
        raise UserError(f"--max_hours {args.max_hours:g} is less than the {args.grace_seconds:g} seconds of"
                        " --grace_seconds; raise the first")
    try:
        groups = re.compile(args.step_pattern).groups
    except re.error as error:
        raise UserError(f"--step_pattern {args.step_pattern} is no regex: {error}")
    if groups != 1:
        raise UserError(f"--step_pattern {args.step_pattern} must have one group, the step")


if __name__ == "__main__":
    commands.run(main)
