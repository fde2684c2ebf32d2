"""Draws the losses of runs into one picture, from the metrics.jsonl in their folders.

    python3 tools/plot.py runs/mine --output mine.png
    python3 tools/plot.py runs/mine runs/other --output both.svg

A training draws its own, model_dir/loss.png.  Runs whose steps hold different numbers of tokens are drawn by tokens.
"""
import os
import sys

if __name__ == "__main__":  # run as a file: imports start at the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from configs import start
    start.begin()

from configs import commands, errors, storage
from configs.errors import UserError
from models.run import loss_picture, metrics_file


def main(argv=None):
    """Writes the picture; returns 0."""
    args = _arguments(argv)
    runs = [(folder, metrics_file.read(folder)) for folder in args.runs]
    for folder, entries in runs:
        if not loss_picture.has_loss(entries):
            raise UserError(f"{storage.join(folder, metrics_file.FILE)} tells no loss, or is not there; give the"
                            " model_dir of a run that made ten steps or was evaluated")
    storage.write_whole(args.output, loss_picture.draw(runs, _ending(args.output)))
    print(f"wrote {args.output}")
    return 0


def _arguments(argv):
    parser = errors.script_parser(__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the model_dir of a run, local or gs://")
    parser.add_argument("--output", required=True, metavar="FILE", help="write the picture there, a .png or .svg")
    args = parser.parse_args(argv)
    if _ending(args.output) not in loss_picture.ENDINGS:
        raise UserError(f"--output {args.output}: give a name that ends with .png or .svg")
    return args


def _ending(path):
    return path.rpartition(".")[2]


if __name__ == "__main__":
    commands.run(main)
