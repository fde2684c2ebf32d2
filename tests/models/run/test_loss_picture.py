"""The picture of the loss: what it shows is what was noted, and nothing about fonts or disks ends a training."""
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from models.run import loss_picture, metrics_file
from tests.helpers.runs import ROOT


def entries(size, steps, evaluated=(20, 30)):
    """Those of a run of `size` tokens a step, evaluated at some of its `steps`."""
    training = [{"step": step, "loss": 6 - step / 10, "tokens": size * step} for step in steps]
    return training + [{"step": step, "eval_loss": 6.5 - step / 10} for step in evaluated]


def words(runs):
    """The texts in a picture, in their order."""
    picture = ElementTree.fromstring(loss_picture.draw(runs, "svg"))
    return ["".join(text.itertext()).strip() for text in picture.iter("{http://www.w3.org/2000/svg}text")]


def curves(runs):
    """[([x], [y])] of the lines in a picture."""
    lines = loss_picture.figure_of(runs).axes[0].lines
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_picture_shows_losses_against_steps_and_tokens_with_the_value_of_each_evaluation_and_is_the_same_twice():
    run = [("", entries(1000, (10, 20, 30)))]
    shown = words(run)
    assert {"4.50", "3.50", "training", "evaluation, on text held out", "step", "tokens", "20k"} <= set(shown)
    assert curves(run) == [([10, 20, 30], [5, 4, 3]), ([20, 30], [4.5, 3.5])]
    assert loss_picture.draw(run, "svg") == loss_picture.draw(run, "svg")
    assert loss_picture.draw(run, "png").startswith(b"\x89PNG")


def test_of_many_evaluations_the_lowest_and_the_last_are_labelled():
    run = entries(1000, (10, 90), range(10, 90, 5)) + [{"step": 95, "eval_loss": 4.25}]
    assert sorted(text.get_text() for text in loss_picture.figure_of([("", run)]).axes[0].texts) == ["-2.00", "4.25"]


def test_of_a_step_that_is_noted_twice_the_later_loss_is_drawn_and_null_is_not():
    run = entries(1000, (10, 20), ()) + [{"step": 10, "loss": 7.0, "tokens": 10000}, {"step": 30, "loss": None}]
    assert curves([("", run)]) == [([10, 20], [7.0, 4.0])]


def test_evaluations_alone_have_no_name_for_a_line_of_training():
    panel, = loss_picture.figure_of([("", [{"step": 1, "eval_loss": 2.0}])]).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["evaluation, on text held out"]


def test_runs_lie_side_by_side_with_their_last_evaluations():
    shown = words([("one", entries(1000, (10, 20, 30))), ("other", entries(1000, (10, 20), (20,))),
                   ("third", entries(1000, (10,), ()))])
    assert {"one: 3.500", "other: 4.500", "third", "step", "tokens"} <= set(shown)


def test_runs_whose_steps_hold_different_numbers_of_tokens_are_drawn_by_tokens():
    runs = [("one", entries(1000, (10, 20), ())), ("other", entries(2000, (10, 20), (20,)))]
    assert "tokens" in words(runs) and "step" not in words(runs)
    assert [points for points, _ in curves(runs)] == [[10000, 20000], [], [20000, 40000], [40000]]


DRAW = """
import resource, sys
from models.run import loss_picture
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
loss_picture.renew(sys.argv[1])
"""


@pytest.mark.parametrize("environment, size, said", [
    ({"MPLCONFIGDIR": "/dev/null/no"}, (), ""),  # neither settings nor a cache of fonts can be kept
    ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, (), ""),  # what a notebook's commands inherit
    ({"MPLBACKEND": "no_such_screen"}, (), ""),
    ({}, ("1000",), "loss.png was not written (File too large); the training goes on")])
def test_fonts_settings_and_a_full_disk_are_no_reason_to_fail(tmp_path, environment, size, said):
    before = b""
    if said:
        before = b"what was there"
        (tmp_path / loss_picture.FILE).write_bytes(before)
    with open(tmp_path / metrics_file.FILE, "w") as f:
        f.writelines(json.dumps(line) + "\n" for line in entries(1000, (10, 20)))
    result = subprocess.run([sys.executable, "-c", DRAW, str(tmp_path), *size], cwd=ROOT, capture_output=True,
                            text=True, env={**os.environ, **environment}, check=True)
    assert said in result.stdout and bool(said) == bool(result.stdout) and result.stderr == ""
    picture = (tmp_path / loss_picture.FILE).read_bytes()
    assert picture == before if said else picture.startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [loss_picture.FILE, metrics_file.FILE]


def test_a_run_without_a_loss_has_no_picture(tmp_path, capsys):
    loss_picture.renew(str(tmp_path))
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""
