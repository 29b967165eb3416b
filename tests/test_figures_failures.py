"""Figures of always-failing images and transfer: equal numbers give equal files, and each draws what it is given."""

import numpy as np
import pytest

from lib import figures
from lib.figures.failures import STRONGER

pytestmark = pytest.mark.usefixtures("style")

LOW = np.array([0.1, 0.0, 0.5])
FOUND = {"share": LOW + 0.1, "low": LOW, "high": LOW + 0.2}
PANELS = {"always": {"methods": {**FOUND, "expected": LOW / 2}, "seeds": FOUND}, "never": {"methods": FOUND}}
SIZES = {"test": {"methods": {1: [0.4, 0.2], 2: [0.1]}, "seeds": {1: [0.3]}}, "training": {"methods": {1: [0.5]}}}
EXPECTED = {"test": {1: 0.3, 2: 0.09}, "training": {1: 0.5}}
TABLE = np.array([[0.5, 0.25], [np.nan, 0.754]])


def all_of_them():
    """One of each."""
    yield figures.always_by_class(["a", "b", "c"], PANELS, "independent")
    yield figures.failing_by_size(SIZES, EXPECTED, "all fail")
    yield figures.transfer_table(["x", "y"], ["s", "t"], TABLE, np.eye(2, dtype=bool), ~np.eye(2, dtype=bool), [1])


def test_equal_numbers_equal_files(tmp_path):
    for name in ("first", "second"):
        for number, figure in enumerate(all_of_them()):
            figures.save(figure, tmp_path / f"{name}{number}.svg", title="digits")
    for number in range(3):
        assert (tmp_path / f"first{number}.svg").read_bytes() == (tmp_path / f"second{number}.svg").read_bytes()


def test_classes_stand_in_the_order_of_the_first_group():
    figure = figures.always_by_class(["a", "b", "c"], PANELS, "independent")
    top, bottom = figure.axes
    assert [text.get_text() for text in bottom.get_xticklabels()] == ["c", "a", "b"]
    assert top.containers[0][0].get_ydata() == pytest.approx([0.6, 0.2, 0.1])
    assert bottom.containers[0][0].get_ydata() == pytest.approx([0.6, 0.2, 0.1])
    dashes = [line for line in top.lines if line.get_label() == "independent"]
    assert len(dashes) == 1 and dashes[0].get_ydata() == pytest.approx([0.25, 0.05, 0])
    assert [text.get_text() for text in figure.legends[0].texts] == ["methods", "seeds", "independent"]
    ends = top.containers[0][2][0].get_segments()
    assert np.array(ends)[:, :, 1] == pytest.approx(np.array([[0.5, 0.7], [0.1, 0.3], [0, 0.2]]))


def test_many_classes_have_no_names():
    many = [f"class {i}" for i in range(100)]
    found = {key: np.resize(value, 100) for key, value in FOUND.items()}
    assert not figures.always_by_class(many, {"always": {"methods": found}}, "").axes[0].get_xticklabels()


def test_lines_are_means_and_points_are_sets():
    figure = figures.failing_by_size(SIZES, EXPECTED, "all fail")
    left = figure.axes[0]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert drawn["methods"] == [[1, pytest.approx(0.3)], [2, 0.1]] and drawn["seeds"] == [[1, 0.3]]
    assert drawn["if failures were independent"] == [[1, 0.3], [2, 0.09]]
    points = sorted(y for line in left.lines if line.get_marker() == "." for y in line.get_ydata())
    assert points == [0.1, 0.2, 0.3, 0.4] and left.get_ylim() == figure.axes[1].get_ylim() == (0, pytest.approx(0.54))


def test_the_transfer_table_frames_and_marks():
    framed = np.eye(2, dtype=bool)
    ax = figures.transfer_table(["x", "y"], ["s", "t"], TABLE, framed, [[False, True], [False, False]], [1]).axes[0]
    assert [text.get_text() for text in ax.texts] == ["50.0", f"25.0{STRONGER}", "75.4"]
    assert [text.get_weight() for text in ax.texts] == ["normal", "bold", "normal"]
    assert [patch.get_xy() for patch in ax.patches] == [(0, 0), (1, 1)]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["s", "t"]
