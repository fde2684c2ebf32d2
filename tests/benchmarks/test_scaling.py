"""Training speed against sizes: the figures of a point, and the plot."""
import io
import os
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import scaling
from configs.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"float32": {1: 90.0, 2: 100.0, 8: 1000.0}, "bfloat16": {1: 99.0, 2: 200.0, 8: 1700.0}}
FOUND = {key: {precision: {value: {"tokens_per_second": speed, "gigaoperations_per_second": 7 * speed}
                           for value, speed in line.items()} for precision, line in LINES.items()}
         for key in ("n_layer", "n_embd")}


@pytest.mark.slow
def test_scaling_benchmark_measures_each_size_and_plots_every_point(tmp_path, measure):
    _, found = measure(scaling, "--only", "n_layer", "--values", 1, 3, "--rounds", 1, "--seconds", 0.1, "--precision",
                       "float32", "--output_dir", tmp_path, "--plot", tmp_path / "a.svg")
    points = found["n_layer"]["float32"]
    assert set(points) == {"1", "3"}
    for layers, point in points.items():
        assert 0 < point["lowest"] <= point["tokens_per_second"] <= point["highest"]
        width, window = scaling.MIDDLE["n_embd"], scaling.MIDDLE["n_ctx"]
        operations = 6 * (12 * int(layers) * width ** 2 + scaling.N_VOCAB * width) + 12 * int(layers) * width * window
        assert point["gigaoperations_per_second"] == pytest.approx(point["tokens_per_second"] * operations / 1e9,
                                                                   rel=0.02)
    assert len(points_of((tmp_path / "a.svg").read_bytes())) == len(points) * len(scaling.SHOWN)
    assert os.listdir(tmp_path) == ["a.svg"]


def points_of(svg):
    """[(x, y from below)] of the markers on the lines of all panels, in drawing order."""
    panels = [group for group in ElementTree.fromstring(svg).iter(SVG + "g") if group.get("id", "").startswith("axes")]
    lines = [group for panel in panels for group in panel.findall(SVG + "g")
             if group.get("id", "").startswith("line2d")]
    return [(float(use.get("x")), -float(use.get("y"))) for group in lines for use in group.iter(SVG + "use")]


def test_plot_has_more_to_the_right_and_higher_up_and_names_what_it_shows():
    svg = scaling.plot(FOUND, "svg")
    points = points_of(svg)
    assert len(points) == 2 * 2 * 2 * 3
    (x1, y1), (x2, y2), (x8, y8) = points[:3]
    assert (x8 - x1) / (x2 - x1) == pytest.approx(3, rel=0.01)  # doublings
    assert (y8 - y1) / (y2 - y1) == pytest.approx(22.85, rel=0.05)  # log(1000 / 90) / log(100 / 90)
    words = [text.text for text in ElementTree.fromstring(svg).iter(SVG + "text")]
    assert {"layers", "width", "tokens/s", "G operations/s", "float32", "bfloat16", "1", "2", "8"} <= set(words)
    assert svg == scaling.plot(FOUND, "svg")


def test_plot_is_a_picture_of_the_kind_that_its_name_says(tmp_path, monkeypatch):
    from matplotlib import image
    monkeypatch.setenv("MPLBACKEND", "TkAgg")  # needs a screen
    picture = image.imread(io.BytesIO(scaling.plot(FOUND, "png")))
    blue = abs(picture[:, :, :3] - [0x1f / 255, 0x77 / 255, 0xb4 / 255]).max(-1) < 0.02
    assert blue.sum() > 500  # the lines of float32
    with pytest.raises(UserError, match="--plot a.pdf: give a name that ends with .png or .svg"):
        scaling.main(["--plot", "a.pdf"])
