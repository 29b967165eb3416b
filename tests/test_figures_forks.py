"""The figures of the forks: what is drawn where, on numbers made up for the purpose."""

import numpy as np
import pandas as pd
import pytest

from lib import figures

pytestmark = pytest.mark.usefixtures("style")

TITLES = {"controls": "controls", "start": "start of dummies", "labels": "labels", "radius": "by radius"}
MEANS = {"continued": ("controls", 0.9, 0.6, 0.6), "ducat": ("controls", 0.95, 0.8, 0.3),
         "hard labels": ("labels", 0.96, 0.85, 0.2), "radius 1": ("radius", 0.9, 0.6, 0.58),
         "radius 0.25": ("radius", 0.97, 0.3, 0.1), "radius 0.5": ("radius", 0.94, 0.5, 0.4)}
RADIUS = {"radius 1": 1.0, "radius 0.25": 0.25, "radius 0.5": 0.5}


def frame(half=0.05):
    """A row a network: means, and intervals of this half length."""
    rows = pd.DataFrame([(fork, *row) for fork, row in MEANS.items()],
                        columns=["fork", "group", "clean", "published", "robust"])
    for name in ("clean", "published", "robust"):
        rows[f"{name}_low"], rows[f"{name}_high"] = rows[name] - half, rows[name] + half
    return rows


def bars(ax):
    """label -> its marks' x and y and the ends of its intervals, each in the order drawn."""
    return [(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0], c.lines[0]) for c in ax.containers]


def test_a_dumbbell_joins_what_seems_and_what_is():
    ax = figures.fork_dumbbells(frame(), "continued", TITLES).axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["continued", "ducat", "hard labels", "radius 1", "radius 0.25", "radius 0.5"]
    places = dict(zip(names, ax.get_yticks(), strict=True))
    assert (np.diff(ax.get_yticks()) > 0).all() and ax.yaxis_inverted()
    assert places["hard labels"] - places["ducat"] > places["ducat"] - places["continued"] + 0.5  # room for a title
    for fork, (_, clean, published, robust) in MEANS.items():
        at = [(x, line) for x, y, line in bars(ax) if y == places[fork]]
        assert [x for x, _ in at] == [clean, published, robust]
        assert [line.get_marker() for _, line in at] == ["|", "o", "o"]
        hollow, filled = at[1][1], at[2][1]
        assert hollow.get_markerfacecolor() == "none" and filled.get_markerfacecolor() != "none"
        joins = [line for line in ax.lines if list(line.get_ydata()) == [places[fork]] * 2 and len(line.get_xdata())
                 == 2 and line.get_linewidth() == 3]
        assert [list(line.get_xdata()) for line in joins] == [[robust, published]]
    assert {t.get_text() for t in ax.texts} == {"controls", "labels", "by radius"}  # no title without networks


def test_the_baseline_goes_through_all_lines():
    ax = figures.fork_dumbbells(frame(), "ducat", TITLES).axes[0]
    assert [list(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--"] == [[0.3, 0.3]]
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert [band.x0, band.x1] == pytest.approx([0.25, 0.35])
    labels = [t.get_text() for t in ax.figure.legends[0].get_texts()]
    assert labels == ["worst case of 'ducat'", "clean", "as published", "worst case of both protocols"]


def test_intervals_have_their_ends_and_may_be_missing():
    ax = figures.fork_dumbbells(frame(0.04), "continued", TITLES).axes[0]
    ends = [c.lines[2][0].get_segments()[0][:, 0] for c in ax.containers[:3]]
    assert np.array(ends) == pytest.approx(np.array([[0.86, 0.94], [0.56, 0.64], [0.56, 0.64]]))
    ax = figures.fork_dumbbells(frame(np.nan), "continued", TITLES).axes[0]
    assert not any(c.has_xerr for c in ax.containers) and not ax.patches
    assert not any(c.has_xerr for c in figures.fork_trade_off(frame(np.nan), RADIUS, TITLES).axes[0].containers)


def test_the_trade_off_joins_radii_in_their_order():
    ax = figures.fork_trade_off(frame(), RADIUS, TITLES).axes[0]
    line = next(line for line in ax.lines if len(line.get_xdata()) == 3)
    assert line.get_xdata().tolist() == [0.97, 0.94, 0.9] and line.get_ydata().tolist() == [0.1, 0.4, 0.58]
    assert sorted((x, y) for x, y, _ in bars(ax)) == sorted((row[1], row[3]) for row in MEANS.values())
    assert all(c.has_xerr and c.has_yerr for c in ax.containers)
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["controls", "labels", "by radius"]


def test_names_are_apart_and_in_the_order_of_their_points():
    ax = figures.fork_trade_off(frame(), RADIUS, TITLES).axes[0]
    ax.figure.canvas.draw()
    heights = {t.get_text(): t.xyann[1] for t in ax.texts}
    order = sorted(MEANS, key=lambda fork: MEANS[fork][3])
    assert sorted(heights, key=heights.get) == order
    boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: box.y0)
    assert all(above.y0 > below.y1 - 1 for below, above in zip(boxes, boxes[1:], strict=False))
    assert {tuple(t.xy) for t in ax.texts} == {(row[1], row[3]) for row in MEANS.values()}


def test_names_of_a_crowd_stay_beside_the_axes():
    rows = frame(0.01).assign(robust=[0.9, 0.9, 0.9, 0.9, 0.0, 0.9])
    rows["robust_low"], rows["robust_high"] = rows.robust, rows.robust
    ax = figures.fork_trade_off(rows, RADIUS, TITLES).axes[0]
    heights, (low, high) = np.sort([t.xyann[1] for t in ax.texts]), ax.get_ylim()
    assert heights[-1] == pytest.approx(high) and np.diff(heights).min() == pytest.approx(0.048 * (high - low))
    assert heights[0] == 0.0  # far from the others, it stays at its point


def test_equal_numbers_equal_files(tmp_path):
    for name in ("first", "second"):
        figures.save(figures.fork_dumbbells(frame(), "continued", TITLES), tmp_path / f"{name}.svg", "digits")
        figures.save(figures.fork_trade_off(frame(), RADIUS, TITLES), tmp_path / f"{name}2.svg", "digits")
    for end in ("", "2"):
        assert (tmp_path / f"first{end}.svg").read_bytes() == (tmp_path / f"second{end}.svg").read_bytes()
