"""Figures: equal numbers give equal files, and each function draws what it is given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colors

from lib import figures
from lib.figures.style import bars, percent

pytestmark = pytest.mark.usefixtures("style")

RANDOM = np.random.default_rng(0)
TWO = ("standard", "pgd")


def history():
    return {"epoch": np.arange(1, 6), "clean": RANDOM.random(5), "robust": RANDOM.random(5)}


def value(mean, half=0.1):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 3}


def all_figures():
    seeds = {m: RANDOM.random((3, 4)) for m in TWO}
    bounds = {m: (v.mean(0) - 0.1, v.mean(0) + 0.1) for m, v in seeds.items()}
    grid = np.linspace(-1, 1, 5)
    surface = {m: 1 + i + grid[:, None] ** 2 + grid**2 for i, m in enumerate(TWO)}
    return {
        "images": figures.images(RANDOM.random((6, 8, 8)), titles=list("abcdef"), columns=3, rows=("one", "two")),
        "signed": figures.images(RANDOM.normal(size=(2, 8, 8)), columns=2, signed=True),
        "learning": figures.learning_curves({m: [history(), history()] for m in TWO}, "PGD-7"),
        "classes": figures.class_accuracy(list("abcd"), seeds, seeds, bounds, "pgd-20"),
        "confusion": figures.confusions({m: np.eye(4) for m in TWO}, list("abcd")),
        "confusions": figures.confusions({m: np.eye(4) for m in "abcd"}, list("abcd")),
        "methods": figures.class_grids({"clean": {m: v[0] for m, v in seeds.items()},
                                        "attacked": {m: v[1] for m, v in seeds.items()}}, list("abcd"), "accuracy"),
        "along": figures.classes_along(np.arange(5), {m: RANDOM.random((5, 4)) for m in "abcde"}, list("abcd"), 2),
        "norms": figures.class_scatter({m: (v + 1, v) for m, v in seeds.items()}, list("abcd"), "norm", "accuracy",
                                       {m: "r = 1" for m in TWO}),
        "agreement": figures.agreement({"attacks": (TWO, np.eye(2)), "methods": (list("abc"), np.eye(3))}),
        "drops": figures.drops(list("abcd"), {m: {"weak to strong": v} for m, v in seeds.items()}, np.arange(4)),
        "attacks": figures.attack_accuracy(list("abcd"), seeds),
        "curves": figures.landscape_curves(grid, {m: 1 + np.tile(grid**2, (3, 1)) for m in TWO}),
        "surfaces": figures.landscape_surfaces(grid, surface),
    }


def test_equal_numbers_equal_files(tmp_path):
    global RANDOM
    for run in ("first", "second"):
        RANDOM = np.random.default_rng(0)
        for name, figure in all_figures().items():
            figures.save(figure, tmp_path / run / f"{name}.svg", title="digits")
        plt.close("all")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
        assert b"<dc:date>" not in path.read_bytes()


def test_a_tick_is_an_accuracy_or_empty():
    ticks = [percent(value, 0) for value in (-0.05, -1e-17, 0.125, 0.5, 1, 1.05)]
    assert ticks == ["", "0%", "12.5%", "50%", "100%", ""]


def test_an_interval_is_its_lengths():
    assert np.allclose(bars(0.5, 0.2, 0.6), [[0.3], [0.1]]) and bars(0.5, np.nan, np.nan) is None
    assert bars(0.3, 0.1 + 0.2, 0.3).min() == 0  # 0.1 + 0.2 is above 0.3 in the last bit


def test_learning_curves_draw_the_mean():
    seeds = [{"epoch": np.array([1, 2]), "clean": np.array([a, 1.0]), "robust": np.zeros(2)} for a in (0, 1)]
    line = figures.learning_curves({"pgd": seeds}, "PGD").axes[0].lines[0]
    assert line.get_ydata().tolist() == [0.5, 1.0] and line.get_label() == "pgd"


def test_classes_stand_weakest_first():
    attacked = {"pgd": np.array([[0.9, 0.1, 0.5]])}
    figure = figures.class_accuracy(["x", "y", "z"], attacked, attacked, {"pgd": (attacked["pgd"][0],) * 2}, "pgd-20")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["y", "z", "x"]


def test_grids_stand_in_the_order_of_the_last_one():
    figure = figures.class_grids({"clean": {"pgd": np.array([0.1, 0.9, 0.8])}, "attacked": {
        "standard": np.zeros(3), "pgd": np.array([0.6, 0.1, 0.3])}}, ["x", "y", "z"], "accuracy")
    upper, lower, _ = figure.axes
    assert [t.get_text() for t in lower.get_xticklabels()] == ["y", "z", "x"]
    assert upper.collections[0].get_array().ravel().tolist() == pytest.approx([90, 80, 10])


def test_along_names_the_extremes_of_the_last_epochs():
    """At the last epoch the order is another."""
    accuracy = np.array([[0.5, 0.5, 0.5], [0.0, 0.6, 0.9], [0.6, 0.5, 0.5]])
    ax = figures.classes_along(np.array([1, 2, 3]), {"pgd": accuracy}, ["x", "y", "z"], 2).axes[0]
    assert [t.get_text() for t in ax.texts] == ["z", "x"]


def test_drops_draw_points_of_the_seeds_and_their_mean():
    steps = {"pgd": {"weak to strong": np.array([[0.1, 0.2], [0.3, 0.0]])}}
    ax = figures.drops(["x", "y"], steps, np.array([1, 0])).axes[0]
    line = next(each for each in ax.lines if each.get_label() == "weak to strong")
    assert line.get_ydata().tolist() == pytest.approx([10, 20])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["y", "x"]


def test_many_classes_are_drawn_without_names_and_numbers():
    names = [f"class {i}" for i in range(100)]
    figure = figures.class_grids({"clean": {"pgd": RANDOM.random(100)}}, names, "accuracy")
    confusion = figures.confusions({"pgd": np.eye(100)}, names)
    assert not figure.axes[0].texts and not confusion.axes[0].texts and not figure.axes[0].get_xticklabels()


def test_a_method_keeps_its_colour_and_differs_from_others():
    many = [f"m{i}" for i in range(12)]
    looks = figures.looks(many)
    assert len({(v["color"], v["marker"]) for v in looks.values()}) == 12
    assert looks["m1"] == figures.looks(many[:2])["m1"]
    assert all(colors.is_color_like(c) for c in figures.OKABE_ITO)
