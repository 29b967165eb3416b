"""Figures of the trade-off: equal numbers give equal files, each draws what it is given, and no two names overlap."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.text import Text

from lib import config, figures, published
from lib.adaptive import ADAPTIVE, PUBLISHED

pytestmark = pytest.mark.usefixtures("style")

METHODS = config.axes("default")["methods"]
RANDOM = np.random.default_rng(0)
READ = published.ducat_drawn("cifar10", "Linf", 8 / 255)
RADII = pd.DataFrame({"radius": [0.5, 1], "clean": [0.9, 0.83], "robust": [0.35, 0.48]})


def value(mean, half=0.01):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def points(names=METHODS):
    """A crowd near 50 %, standard training at 0, and DUCAT below it, as published above."""
    draw, found = np.random.default_rng(1), {}
    for m in names:
        robust = 0.0 if m == "standard" else 0.3 if "ducat" in m else 0.48
        found[m] = {"clean": value(0.8 + 0.1 * draw.random()), "robust": value(robust + 0.04 * draw.random())}
        found[m] |= {"published": value(0.6 + 0.1 * draw.random())} if "ducat" in m else {}
    return found


def pairs():
    return {m: {a: {p: (x, x - 0.1, x + 0.1) for p, x in zip((PUBLISHED, ADAPTIVE), found, strict=True)}
                for a, found in {"pgd-10": (0.8, 0.4), "worst case": (0.7, 0.3)}.items()} for m in ("pgd", "pgd+ducat")}


def sweeps():
    curve = np.array([[5.0, 0.5, 0.4, 0.6], [50, 0.4, 0.3, 0.5]])
    return {m: {s: {PUBLISHED: curve + [0, 0.2, 0.2, 0.2], ADAPTIVE: curve} for s in ("radii", "steps")}
            for m in ("pgd", "pgd+ducat")}


def test_equal_numbers_equal_files(tmp_path):
    for name in ("first", "second"):
        for i, figure in enumerate((figures.trade_off_map(points(), "all attacks", RADII, READ, "read", "later"),
                                    figures.protocol_pairs(pairs()),
                                    figures.protocol_sweeps(sweeps(), {"radii": "radius", "steps": "steps"}))):
            figures.save(figure, tmp_path / name / f"{i}.svg", "made up")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def texts(ax, renderer):
    """The names on axes, by text, with the rectangles that they cover."""
    return {t.get_text(): Text.get_window_extent(t, renderer) for t in ax.texts if t.get_text()}


class TestMap:
    @pytest.mark.parametrize("read", [{}, READ], ids=["alone", "published"])
    def test_every_method_has_its_name_and_no_two_overlap_in_the_column(self, read):
        figure = figures.trade_off_map(points(), "all attacks", RADII, read, "read", "later")
        figure.suptitle("made up")
        figure.draw_without_rendering()
        whole, close = figure.axes
        far, near = (texts(ax, figure.canvas.get_renderer()) for ax in (whole, close))
        assert set(METHODS) <= set(far) | set(near)
        assert {m for m in METHODS if "ducat" in m} | {"standard", r"0.5 $\epsilon$"} <= set(far)
        assert {"HAT", "DAJAT"} & set(near) == ({"HAT", "DAJAT"} if read else set())
        column = [box for name, box in near.items() if not name.startswith("NRR")]
        assert not any(a.y0 < b.y1 and b.y0 < a.y1 for a, b in itertools.combinations(column, 2))
        assert all(box.x1 <= figure.bbox.x1 for box in column)

    def test_the_mean_is_drawn_in_the_colour_of_its_method(self):
        given = points()
        whole, close = figures.trade_off_map(given, "all attacks").axes
        for ax, method in ((whole, "standard"), (whole, "pgd+ducat"), (close, "pgd")):
            at = given[method]["clean"]["mean"], given[method]["robust"]["mean"]
            drawn = [c[0] for c in ax.containers if tuple(c[0].get_xydata()[0]) == pytest.approx(at)]
            assert [line.get_color() for line in drawn] == [figures.looks(METHODS)[method]["color"]]
        assert close.get_ylim()[0] > 0.4 and whole.get_ylim()[0] < 0 < 0.69 < whole.get_ylim()[1]

    def test_an_arrow_leads_from_the_published_point_to_the_deployed_one(self):
        given = points(["pgd", "pgd+ducat"])
        whole = figures.trade_off_map(given, "all attacks").axes[0]
        arrow, = (t for t in whole.texts if getattr(t, "arrow_patch", None) and not t.get_text())
        x, low, high = (given["pgd+ducat"][k]["mean"] for k in ("clean", "robust", "published"))
        assert arrow.xy == (x, low) and arrow.xyann == (x, high)
        hollow = [c[0] for c in whole.containers if c[0].get_ydata()[0] == high]
        assert [line.get_markerfacecolor() for line in hollow] == ["white"]

    def test_published_points_and_a_later_attack(self):
        read = {"HAT": {"clean": 0.85, "robust": 0.49}, "DUCAT": {"clean": 0.88, "robust": 0.58, "later": 0.3}}
        figure = figures.trade_off_map(points(), "all attacks", None, read, "read somewhere", "later attack")
        whole = figure.axes[0]
        crosses = {tuple(line.get_xydata()[0]) for line in whole.lines if line.get_marker() == "x"}
        assert crosses == {(0.85, 0.49), (0.88, 0.58)}
        assert (0.88, 0.3) in [t.xy for t in whole.texts if getattr(t, "arrow_patch", None)]
        legend = [t.get_text() for t in figure.legends[0].get_texts()]
        assert legend[-2:] == ["read somewhere", "later attack"] and "pgd, by the radius of training" not in legend

    def test_lines_of_equal_nrr(self):
        whole = figures.trade_off_map(points(), "all attacks", RADII).axes[0]
        named = {t.get_text(): t.xy for t in whole.texts if t.get_text().startswith("NRR")}
        assert len(named) >= 3
        for text, (x, y) in named.items():
            assert 2 * x * y / (x + y) == pytest.approx(float(text[4:-1]) / 100, abs=1e-6)

    def test_one_seed_and_one_method(self):
        one = {"pgd": {"clean": value(0.9, np.nan), "robust": value(0.5, np.nan)}}
        assert len(figures.trade_off_map(one, "all attacks").axes) == 2


def test_the_crowd_leaves_out_what_is_far():
    assert figures.crowd({"a": 0.5, "b": 0.52, "c": 0.49, "d": 0.51, "e": 0.0, "f": 0.8}) == ["a", "b", "c", "d"]
    assert figures.crowd({"a": 0.5, "b": 0.5, "c": 0.51}) == ["a", "b", "c"]


def test_pairs_join_the_protocols():
    left, right = figures.protocol_pairs(pairs()).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["pgd-10", "worst case"]
    joins = [line.get_xdata().tolist() for line in right.lines if len(line.get_xdata()) == 2]
    assert joins == [[0.8, 0.4], [0.7, 0.3]] and left.get_ylim() == (1.5, -0.5)
    faces = {float(c[0].get_xdata()[0]): c[0].get_markerfacecolor() for c in right.containers}
    assert faces[0.8] == faces[0.7] == "white" != faces[0.4] == figures.looks(["pgd", "pgd+ducat"])["pgd"]["color"]


def test_sweeps_draw_both_protocols():
    axes = figures.protocol_sweeps(sweeps(), {"radii": "radius", "steps": "steps"}).axes
    assert len(axes) == 4 and [line.get_linestyle() for line in axes[3].lines] == ["--", "-"]
    assert [line.get_ydata().tolist() for line in axes[3].lines] == [[0.7, pytest.approx(0.6)], [0.5, 0.4]]
    assert [ax.get_xlabel() for ax in axes] == ["", "", "radius", "steps"]


class TestLooks:
    def test_all_methods_differ(self):
        looks = figures.looks(METHODS)
        assert len({(k["color"], k["marker"], k.get("markerfacecolor")) for k in looks.values()}) == len(METHODS)
        lines = {(k["color"], k.get("linestyle", "-")) for k in looks.values()}
        assert len(lines) == len(METHODS)  # where there are no markers

    def test_variants_keep_the_colour_of_their_objective(self):
        looks = figures.looks([*METHODS, "pgd+awp+ducat"])
        for add_on, objective in itertools.product(("awp", "ducat"), ("pgd", "trades", "mart")):
            assert looks[f"{objective}+{add_on}"]["color"] == looks[objective]["color"]
        both = looks["pgd+awp+ducat"]
        assert both["marker"] == looks["pgd+ducat"]["marker"] and both["markerfacecolor"] == "white"

    def test_an_objective_looks_the_same_everywhere(self):
        for names in (["consistency"], ["pgd", "consistency", "pgd+ducat"], METHODS):
            assert figures.looks(names)["consistency"] == figures.looks(METHODS)["consistency"]
        assert figures.looks(["other", "pgd"])["other"]["color"] != figures.looks(["pgd"])["pgd"]["color"]
        assert figures.looks(["a", "pgd+ducat"])["pgd+ducat"] == figures.looks(METHODS)["pgd+ducat"]
        assert figures.looks(["a", "pgd+ducat"])["a"]["color"] not in [k["color"] for k in figures.FIXED.values()]
        assert all(colors.is_color_like(k["color"]) for k in figures.looks(METHODS).values())
