"""Figures of landscapes: equal numbers give equal files, and each draws what it is given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib import figures

pytestmark = pytest.mark.usefixtures("style")

GRID = np.linspace(-1, 1, 5)
AROUND = {m: np.add.outer(np.exp(GRID * (1 + i)), GRID**2) for i, m in enumerate(("standard", "pgd"))}


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_equal_numbers_equal_files(tmp_path, norm):
    for name in ("first", "second"):
        figures.save(figures.input_surfaces(GRID, AROUND, norm), tmp_path / f"{name}.svg", title="digits")
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_curves_draw_the_mean_and_the_range_on_the_axes_they_are_given():
    figure, (left, right) = plt.subplots(1, 2)
    values = np.array([[4.0, 1.0, 4.0], [6.0, 3.0, 8.0]])
    assert figures.landscape_curves(GRID[::2], {"train": values, "test": 2 * values}, right) is figure
    assert not left.lines and right.lines[0].get_ydata().tolist() == [5, 2, 6]
    band = right.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1, 8)
    assert [text.get_text() for text in right.texts] == ["train", "test"]


def test_names_at_the_ends_of_curves_stand_apart_on_a_logarithmic_axis():
    curves = {name: np.full((2, 5), value) for name, value in (("a", 0.1), ("b", 10.0), ("c", 10.1), ("d", 1000.0))}
    ax = figures.landscape_curves(GRID, curves).axes[0]
    heights = np.log10([text.xy[1] for text in ax.texts])
    assert heights[[0, 3]] == pytest.approx([-1, 3]) and heights[2] - heights[1] > 0.1
    assert heights[1:3].mean() == pytest.approx(1, abs=0.01)


def test_the_gradient_runs_along_the_horizontal_axis():
    figure = figures.input_surfaces(GRID, AROUND, "Linf")
    ax = figure.axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert f"FGSM {AROUND['standard'][-1, 2]:.2f}" in texts and f"clean {AROUND['standard'][2, 2]:.2f}" in texts
    assert "gradient" in ax.get_xlabel() and "random" in ax.get_ylabel()
    drawn = max(ax.collections, key=lambda c: len(c.get_paths()))  # the highest contour lies at the right
    filled = [path for path in drawn.get_paths() if len(path.vertices)]
    assert filled[-1].vertices[:, 0].mean() > 0.5 > filled[0].vertices[:, 0].mean()


def test_the_threat_models_border():
    for norm, reach in (("Linf", np.sqrt(0.5)), ("L2", 1.0)):
        line = figures.input_surfaces(GRID, AROUND, norm).axes[0].lines
        border = next(each for each in line if each.get_linestyle() == "--").get_xydata()
        middle = (border[1:] + border[:-1]) / 2  # of a diamond's edges, or between close points of a circle
        assert np.linalg.norm(border, axis=1) == pytest.approx(1) and np.linalg.norm(middle, axis=1) == pytest.approx(
            reach, abs=0.01)
