"""Figures of activations: equal numbers give equal files, each draws what it is given, and no two names overlap."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.text import Text

from lib import figures
from lib.figures.gating import CLEAR, LOOKS, MUTED

pytestmark = pytest.mark.usefixtures("style")

NAMES = {"relu": "A0", "bias": "A1", "silu": "silu", "sparta": "A4"}
OTHERS = [f"other {i}" for i in range(20)]
MEASURES = ["clean", "mean over radii", "worst case"]
ARMS = {"T0": "ReLU", "T3": "transplanted", "T4": "random"}


def estimate(error, half=0.02):
    return {"error": error, "low": error - half, "high": error + half}


def curves(column="radius", values=(0, 0.5, 1), methods=("standard", "pgd")):
    return pd.DataFrame([{"method": m, "activation": name, column: v, **estimate(0.1 + 0.2 * i + 0.001 * v)}
                         for m in methods for i, name in enumerate(NAMES) for v in values])


def effects(half=0.01):
    return pd.DataFrame([{"method": m, "measure": measure, "effect": effect, "networks": "a - b", "mean": mean,
                          "low": mean - half, "high": mean + half}
                         for m in ("standard", "pgd") for measure in MEASURES
                         for effect, mean in (("smoothness", -0.03), ("interaction", 0.001))])


def errors(names, seed=0):
    values = 0.3 + 0.05 * np.random.default_rng(seed).random(len(names))
    found = pd.DataFrame([{"activation": n, **estimate(e)} for n, e in zip(names, values, strict=True)])
    less = found[["error", "low", "high"]].sub(0.3).where(found.activation != "silu")
    return found.assign(less=less.error, less_low=less.low, less_high=less.high).set_index("activation")


def arms():
    return pd.DataFrame([{"direction": d, "arm": a, "attack": attack, **estimate(e),
                          **dict(zip(("less", "less_low", "less_high"), less, strict=True))}
                         for d in ("one to other", "halves") for attack, shift in (("clean", 0.3), ("worst case", 0))
                         for a, e, less in (("T0", 0.4, (0.1, 0.05, 0.15)), ("T3", 0.35, (np.nan,) * 3),
                                            ("T4", 0.36, (0.01, -0.02, 0.04))) for e in [e - shift]])


def history():
    return pd.DataFrame([{"activation": n, "seed": s, "epoch": e, "robust": 0.1 * e + 0.1 * s,
                          "test_robust": 0.1 * e if e % 2 == 0 else np.nan}
                         for n in ("relu", "sparta") for s in (0, 1) for e in (1, 2, 3, 4)])


def looks(methods=("standard", "pgd")):
    return pd.DataFrame([{"method": m, "activation": n, "site": s, "measure": k, "value": 0.1 * i + 0.3, "low": 0.2,
                          "high": 0.7} for m in methods for i, n in enumerate(NAMES) for s in ("x", "y")
                         for k in ("noise", "g") if (n, k) != ("relu", "g")])


def pictures(colour=False):
    draw = np.random.default_rng(0)
    side = (8, 8, 3) if colour else (8, 8)
    return (draw.random((2, *side)), draw.random((2, 2, *side)), {
        "site 1": draw.random((2, 2, 2, 8, 8)), "site 2": draw.random((2, 2, 2, 4, 4))}, ["relu", "sparta"])


def drawn():
    """Every figure, once."""
    names = [*LOOKS, *OTHERS]
    return [figures.ladder(curves(), effects(), NAMES, MEASURES),
            figures.error_scatter(errors(names, seed=1), errors(names), ["relu", "sparta"], "all", OTHERS[:5]),
            figures.error_list(errors(names), errors(names, seed=2), {"a": ["silu", "relu"], "b": OTHERS}, "silu"),
            figures.less_list(arms(), "direction", "arm", ARMS, "T3", {"T0": "black"}),
            figures.error_curves(history(), {"robust": "validation", "test_robust": "test"}),
            figures.strength({"steps": curves("steps", (1, 10, 100)), "radius": curves()},
                             {"steps": "steps", "radius": "radius"}),
            figures.gate_lines(looks(), {"x": "1.1", "y": "1.2"}, {"noise": "noise", "g": "g"}, NAMES),
            figures.gate_pictures(*pictures())]


def test_equal_numbers_equal_files(tmp_path):
    for name in ("first", "second"):
        for i, figure in enumerate(drawn()):
            figures.save(figure, tmp_path / name / f"{i}.svg", "made up")
            assert figure.get_size_inches()[0] == figures.WIDTH
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def boxes(figure, texts):
    renderer = figure.canvas.get_renderer()
    return {t.get_text(): Text.get_window_extent(t, renderer) for t in texts if t.get_text()}


def points(ax):
    """The middles of what has bars: (x, y) -> (colour, face)."""
    found = {}
    for container in ax.containers:
        line = container[0]
        found |= {tuple(np.round(xy, 6)): (line.get_color(), line.get_markerfacecolor()) for xy in line.get_xydata()}
    return found


class TestLadder:
    def test_differences_are_black_only_where_the_interval_is_on_one_side(self):
        figure = figures.ladder(curves(), effects(), NAMES, MEASURES)
        below = figure.axes[4]
        found = points(below)
        assert len(found) == 6 and {c for (x, _), (c, _) in found.items() if x == -0.03} == {CLEAR[True]}
        assert {c for (x, _), (c, _) in found.items() if x == 0.001} == {CLEAR[False]}
        assert [face for (_, y), (_, face) in sorted(found.items(), key=lambda each: each[0][1])][:1] == ["white"]
        assert [t.get_text() for t in below.get_yticklabels()] == ["smoothness\na \N{MINUS SIGN} b",
                                                                   "interaction\na \N{MINUS SIGN} b"]

    def test_curves(self):
        top = figures.ladder(curves(), effects(), NAMES, MEASURES).axes[1]
        assert top.get_title("left") == "pgd training"
        lines = {c[0].get_color(): c[0].get_ydata()[0] for c in top.containers}
        assert lines == pytest.approx({LOOKS[n][0]: 0.1 + 0.2 * i for i, n in enumerate(NAMES)})

    def test_one_method_and_one_seed(self):
        alone = curves(methods=["pgd"]).assign(low=np.nan, high=np.nan)
        each = effects().query("method == 'pgd'").assign(low=np.nan, high=np.nan)
        figure = figures.ladder(alone, each, NAMES, ["clean", "worst case"])
        assert len(figure.axes) == 3 and {c for c, _ in points(figure.axes[2]).values()} == {CLEAR[False]}

    def test_the_legend_covers_nothing(self):
        figure = figures.ladder(curves(), effects(), NAMES, MEASURES)
        figure.suptitle("made up")
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        box = figure.axes[2].get_legend().get_window_extent(renderer)
        for i in (0, 1, 4, 5):
            around = figure.axes[i].get_tightbbox(renderer)
            assert box.y1 <= around.y0 + 1 if i < 2 else box.y0 >= around.y1 - 1
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


class TestScatter:
    def test_names_stand_apart_within_the_figure(self):
        names = [*LOOKS, *OTHERS]
        figure = figures.error_scatter(errors(names, seed=1), errors(names), ["sparta"], "all attacks")
        figure.suptitle("made up")
        figure.draw_without_rendering()
        found = {t: box for t, box in boxes(figure, figure.axes[0].texts).items() if t in names}
        assert set(found) == set(names) and all(box.x1 <= figure.bbox.x1 for box in found.values())
        assert not any(a.y0 < b.y1 - 0.5 and b.y0 < a.y1 - 0.5 for a, b in itertools.combinations(found.values(), 2))

    def test_points_and_the_front(self):
        clean, robust = (errors(["relu", "silu", "sparta", "x", "y"], seed) for seed in (1, 0))
        ax = figures.error_scatter(clean, robust, ["silu", "sparta"], "all", ["y"]).axes[0]
        at = {n: (clean.error[n], robust.error[n]) for n in clean.index}
        marks = {tuple(line.get_xydata()[0]): line for line in ax.lines if line.get_marker() != "None"}
        assert marks[at["y"]].get_markerfacecolor() == "white" and marks[at["x"]].get_color() == MUTED[0]
        front, = (line for line in ax.lines if line.get_linestyle() == "--")
        assert front.get_xydata().tolist() == sorted([list(at["silu"]), list(at["sparta"])])
        with_bars = {tuple(c[0].get_xydata()[0]) for c in ax.containers}
        assert with_bars == {at[n] for n in ("relu", "silu", "sparta")}

    def test_what_is_far_out_does_not_squeeze_the_rest(self):
        names = ["relu", "silu", "sparta", *OTHERS]
        robust = errors(names)
        robust.loc["other 3", "error"] = 0.95
        ax = figures.error_scatter(errors(names, seed=1), robust, ["sparta"], "all").axes[0]
        assert ax.get_ylim()[1] < 0.5
        note, = (t.get_text() for t in ax.texts if "farther" in t.get_text())
        assert note.splitlines()[1].startswith("other 3: ") and note.endswith("95.0") and note.count("\n") == 1


class TestLists:
    def test_groups_are_sorted_by_robust_error(self):
        robust = errors(["silu", "relu", "x", "y", "z"])
        robust["error"] = [0.3, 0.4, 0.33, 0.31, 0.32]
        groups = {"a": ["relu", "silu"], "b": ["x", "y", "z"], "c": ["none"]}
        ax = figures.error_list(robust, robust, groups, "silu").axes[0]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["silu", "relu", "y", "z", "x"]
        assert [t.get_text() for t in ax.texts] == ["a", "b"]

    def test_differences(self):
        robust = errors(["silu", "relu", "x"])
        robust.loc["relu", ["less", "less_low", "less_high"]] = [0.02, 0.01, 0.03]
        robust.loc["x", ["less", "less_low", "less_high"]] = [-0.01, -0.03, 0.01]
        last = figures.error_list(robust, robust, {"a": ["silu", "relu", "x"]}, "silu").axes[2]
        assert {x: c for (x, _), (c, _) in points(last).items()} == {0.02: CLEAR[True], -0.01: CLEAR[False]}

    def test_what_is_far_out_is_a_number_at_the_edge(self):
        names = ["silu", "relu", *OTHERS[:8]]
        robust = errors(names)
        robust.loc["other 1", ["error", "less", "less_low", "less_high"]] = [0.9, 0.6, 0.5, 0.7]
        _, worst, less = figures.error_list(errors(names), robust, {"a": names}, "silu").axes
        assert worst.get_xlim()[1] < 0.6 and [t.get_text() for t in worst.texts] == ["90.0"]
        assert less.get_xlim()[1] < 0.3 and [t.get_text() for t in less.texts] == ["+60.0"]

    def test_arms(self):
        figure = figures.less_list(arms(), "direction", "arm", ARMS, "T3", {"T0": "black", "T3": "red"})
        left, right = figure.axes[:2]
        assert left.get_title("left") == "one to other" and len(figure.axes) == 4
        assert [t.get_text() for t in left.get_yticklabels()] == list(ARMS.values())
        assert points(left)[0.1, 0] == ("black", "white") and points(left)[0.4, 0] == ("black", "black")
        assert points(right) == {(0.1, 0): (CLEAR[True],) * 2, (0.01, 2): (CLEAR[False],) * 2}
        assert sorted(line.get_xdata()[0] for line in left.lines if line.get_linestyle() == "--") == [0.35, 0.4]


def test_learning_curves_are_errors_over_seeds():
    validation, test = figures.error_curves(history(), {"robust": "validation", "test_robust": "test"}).axes
    assert validation.lines[0].get_ydata() == pytest.approx(1 - 0.1 * np.arange(1, 5) - 0.05)
    assert test.lines[0].get_xdata().tolist() == [2, 4]
    assert [t.get_text() for t in validation.texts] == ["relu 55.0", "sparta 55.0"]


def test_strength_names_the_ends():
    steps, radius, *_ = figures.strength({"steps": curves("steps", (1, 10, 100)), "radius": curves()},
                                         {"steps": "steps", "radius": "radius"}).axes
    assert steps.get_xscale() == "log" and radius.get_xscale() == "linear"
    heights = {t.get_text(): t.xy for t in steps.texts}
    assert set(heights) == set(NAMES) and all(xy[0] == 100 for xy in heights.values())
    assert [t.get_text() for t in steps.get_xticklabels()] == ["1", "10", "100"]


def test_gate_lines_leave_out_what_is_not_there():
    axes = figures.gate_lines(looks(), {"y": "1.2", "x": "1.1"}, {"noise": "noise", "g": "g"}, NAMES).axes
    assert [len(ax.containers) for ax in axes] == [4, 4, 3, 3]
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["1.2", "1.1"]
    assert axes[0].containers[1][0].get_ydata() == pytest.approx([0.4, 0.4]) and axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize("colour", [False, True])
def test_gate_pictures(colour):
    images, attacked, gates, names = pictures(colour)
    figure = figures.gate_pictures(images, attacked, gates, names)
    axes = np.array(figure.axes[:4 * 8]).reshape(4, 8)  # and two bars of colour
    assert len(figure.axes) == 34 and [ax.get_ylabel() for ax in axes[:, 1]] == ["relu", "sparta"] * 2
    shown = [[ax.images[0].get_array().data if ax.images else None for ax in row] for row in axes]
    assert (shown[2][0] == images[1]).all() and shown[1][0] is None
    assert (shown[3][1] == attacked[1, 1]).all()
    for row, (p, a) in zip(shown, itertools.product(range(2), range(2)), strict=True):
        for s, maps in enumerate(gates.values()):
            before, after, change = row[2 + 3 * s:5 + 3 * s]
            assert (before == maps[a, p, 0]).all() and (after == maps[a, p, 1]).all()
            assert (change == maps[a, p, 1] - maps[a, p, 0]).all()
    assert axes[0, 2].images[0].get_clim() == (0, 1) and axes[0, 4].images[0].get_clim() == (-1, 1)


def test_looks_differ():
    assert len({c for c, _ in LOOKS.values()} | {MUTED[0]}) == len(LOOKS) + 1
    assert len({m for _, m in LOOKS.values()}) == len(LOOKS)
    assert all(map(colors.is_color_like, [c for c, _ in LOOKS.values()]))
