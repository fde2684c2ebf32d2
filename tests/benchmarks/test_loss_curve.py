"""The picture of a run's loss: what it shows is what the run noted."""
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import loss_curve
from configs.errors import UserError
from tests.helpers.runs import scalars_of

CURVES = {"training": [[10, 5.0], [20, 4.0], [30, 3.5]], "evaluation": [[20, 4.25], [30, 3.75]]}
SVG = "{http://www.w3.org/2000/svg}"


def test_picture_shows_each_evaluation_with_its_value_and_is_the_same_twice():
    picture = loss_curve.plot(CURVES, "svg")
    words = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(picture).iter(SVG + "text")]
    assert {"4.25", "3.75", "training", "step"} <= set(words)
    assert picture == loss_curve.plot(CURVES, "svg")


def test_losses_are_those_that_the_run_noted(trained_folder):
    noted = scalars_of(trained_folder / "eval")["token_loss"]
    assert loss_curve.points(str(trained_folder / "eval"), "token_loss") == [[step, pytest.approx(value, abs=1e-4)]
                                                                            for step, value in noted]


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no training loss"):
        loss_curve.main([str(tmp_path)])
    with pytest.raises(UserError, match="ends with .png or .svg"):
        loss_curve.main([str(tmp_path), "--plot", "a.jpg"])
