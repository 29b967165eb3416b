"""Figures are legible at column width: no text is too small, cut off or on another text, with all methods of a run."""

import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from lib import config, figures
from lib.figures.style import WIDTH, label_ends

pytestmark = pytest.mark.usefixtures("style")

METHODS = config.axes("default")["methods"]
SMALLEST = 7.0  # points, in a column of WIDTH inches
GRID = np.linspace(-1, 1, 5)
DIGITS = [str(i) for i in range(10)]


def history(seed):
    draw = np.random.default_rng(seed)
    return {"epoch": np.arange(1, 6), "clean": draw.random(5), "robust": draw.random(5)}


def six():
    """Six panels like those of the class-wise page: long answers, a long label, a legend below."""
    draw = np.random.default_rng(0)
    accuracy = {m: draw.random(10) for m in METHODS[1:]}
    curve = {"strength": [0, 1, 2], "mean": draw.random((2, 3)), "worst": draw.random((2, 3)), "chose": [1, 2]}

    def long(ax):
        """A label that is longer than the panel is high."""
        ax.plot([0, 100], [-2.5, 12.5])
        ax.set(xlabel="1/T", ylabel="accuracy less that under PGD (points)")

    def lines(ax):
        figures.class_lines(DIGITS, accuracy, accuracy["pgd"] - 0.1, accuracy["pgd"] + 0.1, ax)

    draws = [lines, lambda ax: figures.weakest_along(np.arange(6), draw.random((6, 10)), DIGITS, ax),
             lambda ax: figures.confusion_map(np.eye(10) * 0.5 + 0.05, DIGITS, ax), long, long,
             lambda ax: figures.pareto_curves({"balanced": curve, "offset": curve}, "strong attack", ax=ax)]
    return [("Is Temperature-PGD more than the margin loss?", "C8 holds, 0.41 [0.32, 0.50]; " * 5, each)
            for each in draws]


def crowded(name):
    """One of the figures in which much stands together."""
    draw = np.random.default_rng(0)
    names = METHODS[1:]
    if name == "attacks":
        end = 0.55 + 0.1 * draw.random((len(METHODS), 3, 1))
        return figures.attack_accuracy(["clean", "pgd-20", "worst case"], {
            m: np.concatenate([np.ones((3, 2)), e], 1) for m, e in zip(METHODS, end, strict=True)})
    if name == "learning":
        return figures.learning_curves({m: [history(i), history(i + 50)] for i, m in enumerate(METHODS)}, "PGD-7")
    if name == "consistency":
        return figures.agreement({"attacks\nceiling": (list("abcdefg"), np.eye(7)),
                                  "methods\nceiling": (names, draw.random((len(names),) * 2))})
    if name == "surfaces":
        return figures.landscape_surfaces(GRID, {m: 1 + i + GRID[:, None] ** 2 + 20 * GRID**2
                                                 for i, m in enumerate(METHODS[:5])})
    return figures.page(six())


@pytest.fixture(params=["attacks", "learning", "consistency", "surfaces", "page"])
def drawn(request, tmp_path):
    """A figure after it was saved, as it stands in the file."""
    figure = crowded(request.param)
    figures.save(figure, tmp_path / "figure.svg", "digits, Linf radius 0.2, seeds 0, 1, 2")
    figure.set_dpi(72)
    yield figure
    plt.close(figure)


def texts(figure):
    """The texts that are seen in a figure, with the rectangles that they cover, in points."""
    axes = [ax for ax in figure.axes if ax.get_visible()]
    axles = [axis for ax in axes for axis in (ax.xaxis, ax.yaxis)]
    seen = {id(tick.label1) for axis in axles for tick in axis._update_ticks()}  # not those outside of the limits
    unseen = {id(text) for axis in axles for text in axis.get_ticklabels(which="both")} - seen
    unseen |= {id(text) for ax in figure.axes if ax not in axes for text in ax.findobj(Text)}
    return [(text, Text.get_window_extent(text)) for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and id(text) not in unseen]


def test_texts_are_large_enough_and_within_the_figure_and_not_on_another(drawn):
    width, height = 72 * drawn.get_size_inches()
    assert width <= 72 * WIDTH + 1e-6
    found = texts(drawn)
    for text, box in found:
        assert text.get_fontsize() >= SMALLEST, text.get_text()
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text.get_text()
    for (a, one), (b, other) in itertools.combinations(found, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across < 2 or down < 2, f"{a.get_text()!r} on {b.get_text()!r}"


def test_the_committed_figures_are_legible():
    """The size of a text is in its transform: matplotlib scales letters of 100 points."""
    paths = [*Path("results").glob("default/figures/*.svg"), *Path("results").glob("bench/*/*/figures/*.svg")]
    assert len(paths) >= 36
    for path in paths:
        source = path.read_text()
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', source)[1])
        smallest = min(100 * float(scale) for scale in re.findall(r"scale\(([\d.]+) -", source))
        assert smallest * min(1, 72 * WIDTH / width) >= SMALLEST - 0.01, path.name


def test_panels_of_surfaces_are_large_and_named():
    figure = crowded("surfaces")
    figure.draw_without_rendering()
    *panels, bar = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title("left") for ax in panels] == METHODS[:5]
    assert min(ax.get_window_extent().width / figure.dpi for ax in panels) > 1.3
    ticks = [text.get_text() for text in bar.get_yticklabels()]
    assert ticks == ["1", "2", "5", "10", "20"]  # losses from 1 to 26
    assert [bool(ax.get_xlabel()) for ax in panels] == [False, False, True, True, True]  # the lowest of each column


def test_many_methods_have_a_panel_each_beside_the_first_adversarial_one():
    figure = crowded("learning")
    panels = {ax.get_title("left"): ax for ax in figure.axes if ax.get_visible()}
    assert list(panels) == METHODS
    reference, clean, robust = panels["trades"].lines
    seeds = [history(METHODS.index("trades") + k) for k in (0, 50)]
    assert clean.get_ydata() == pytest.approx(np.mean([h["clean"] for h in seeds], 0))
    assert robust.get_ydata() == pytest.approx(np.mean([h["robust"] for h in seeds], 0))
    assert reference.get_ydata() == pytest.approx(panels["pgd"].lines[1].get_ydata()) and len(panels["pgd"].lines) == 2
    assert [text.get_text() for text in figure.legends[0].texts][-1] == "pgd under PGD-7"


def test_the_page_names_the_methods_that_leave_the_interval():
    _, ax = plt.subplots()
    base = np.linspace(0.2, 0.8, 4)
    accuracy = {"pgd": base, "trades": base + 0.05, "mart": base + 0.09, "pgd+ducat": base - 0.3, "pgd+he": base + 0.2}
    figures.class_lines(list("abcd"), accuracy, base - 0.1, base + 0.1, ax)
    assert [t.get_text() for t in ax.get_legend().texts] == ["pgd", "pgd+ducat", "pgd+he", "2 other methods"]
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in ax.lines}
    assert drawn == {tuple(np.round(values, 6)) for values in accuracy.values()}


def test_texts_stay_between_the_ends_if_there_is_room():
    assert figures.apart([1, 1, 1], 0.5, 0, 1).tolist() == [0, 0.5, 1]
    assert figures.apart([0.9, 0.1, 0.95], 0.2, 0, 1) == pytest.approx([0.8, 0.1, 1.0])
    assert figures.apart([1, 1, 1], 0.5, 0, 0.9) == pytest.approx([0.5, 1, 1.5])  # no room
    assert figures.apart([], 0.5, 0, 1).size == 0


@pytest.mark.parametrize("tied", [False, True])
def test_names_at_the_end_stay_within_the_axes(tied):
    _, ax = plt.subplots()
    ax.set_ylim(0, 1)
    label_ends(ax, 3, {"a": 1.0, "b": 0.99, "c": 0.0}, dict.fromkeys("abc", "black"), 0.1, tied)
    heights = {t.get_text(): t.get_position()[1] for t in ax.texts}
    assert heights == pytest.approx({"a": 1.0, "b": 0.9, "c": 0.0})
    assert [t.xy[1] for t in ax.texts] == pytest.approx([1.0, 0.99, 0.0] if tied else [1.0, 0.9, 0.0])
    assert all(bool(t.arrow_patch) is tied for t in ax.texts)


def test_a_curve_has_the_line_of_its_method():
    curves = {m: np.outer(np.ones(2), GRID**2) for m in ("pgd", "pgd+awp")}
    estimates = {m: ({"mean": 1, "low": np.nan, "high": np.nan},) * 2 for m in curves}
    left = figures.across_networks(GRID, curves, {m: (np.ones(2), np.ones(2)) for m in curves}, estimates).axes[0]
    lines = [line.get_linestyle() for line in left.lines if len(line.get_xdata()) == len(GRID)]
    assert lines == ["-", "--"]
