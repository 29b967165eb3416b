"""What helping the weakest class costs: mean against worst class, and each class's change."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lib.figures.style import WIDTH, below, looks

MOST = 20  # classes side by side


def pareto_curves(curves: Mapping[str, Mapping[str, np.ndarray]], attack: str,
                  extra: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None, ax: Axes | None = None) -> Figure:
    """Mean over classes against the worst class, both under attack: a line a defence, through its strengths.

    curves: for each defence `strength` (K,), of which the first is 0, no defence; `mean` and `worst` (seeds, K) in
    [0, 1]; `chose` (seeds,), the place of the strength that each seed chose. Lines join means over seeds, and dots are
    the seeds. extra: single points of other methods, (mean, worst) over seeds, each (seeds,).
    """
    alone = ax is None
    ax = ax or plt.subplots(figsize=(WIDTH, 4.2))[1]
    style = looks([*curves, *(extra or {})])
    for number, (defence, curve) in enumerate(curves.items()):
        x, y, look = np.asarray(curve["mean"]), np.asarray(curve["worst"]), style[defence]
        ax.plot(x.mean(0), y.mean(0), "-", lw=1, ms=5, label=f"{defence}, by strength", **look)
        _seeds(ax, x[:, 1:], y[:, 1:], look["color"])
        for strength, *point in list(zip(curve["strength"], x.mean(0), y.mean(0), strict=True))[1:]:
            ax.annotate(f"{strength:g}", point, xytext=(-9, 5) if number % 2 else (9, -5), textcoords="offset points",
                        ha="right" if number % 2 else "left", va="center", fontsize=8, color=look["color"],
                        weight="bold", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5})
        seeds = np.arange(len(x))
        ax.plot(x[seeds, curve["chose"]], y[seeds, curve["chose"]], "o", ms=12, mfc="none", mew=1.3,
                color=look["color"])
    ax.plot(x[:, 0].mean(), y[:, 0].mean(), "X", ms=8, color="black", zorder=3, label="no defence")
    _seeds(ax, x[:, 0], y[:, 0], "black")
    if len(x) > 1:
        ax.plot([], [], ".", ms=4, color="0.4", label="one seed")
    for method, (means, worst) in (extra or {}).items():
        ax.plot(np.mean(means), np.mean(worst), ls="", ms=7, label=method, **style[method])
        _seeds(ax, np.asarray(means), np.asarray(worst), style[method]["color"])
    ax.plot([], [], "o", ms=12, mfc="none", mew=1.3, color="0.4", label="chosen on validation images")
    ax.set(xlabel=f"mean accuracy of the classes under {attack}", ylabel=f"worst class under {attack}")
    ax.margins(0.12)
    ax.set_ylim(bottom=max(ax.get_ylim()[0], -0.02))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 1):g}%"))
    if alone:
        ax.figure.legend(loc="outside lower center", ncols=3)
    else:
        below(ax)
    return ax.figure


def _seeds(ax: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """A small dot for each seed, where there are several."""
    if len(x) > 1:
        ax.plot(x.ravel(), y.ravel(), ".", ms=4, color=color, alpha=0.5)


def class_changes(classes: Sequence[str], before: np.ndarray, changes: Mapping[str, Mapping[str, np.ndarray]],
                  weak: int, confound: int, attack: str, ax: Axes | None = None) -> Figure:
    """How the accuracy of each class changes: bars with intervals, in percentage points.

    before: accuracy without a defence (C,), by which the classes are ordered, weakest first. changes: for each defence
    `change`, `low` and `high` (C,) in [-1, 1]. weak, confound: the classes that are pointed out. Of more than MOST
    classes only these two and those that change most are drawn.
    """
    ax = ax or plt.subplots(figsize=(WIDTH, 3.2 if len(before) <= 12 else 4.2))[1]
    largest = np.max([np.abs(each["change"]) for each in changes.values()], axis=0)
    largest[[weak, confound]] = np.inf
    drawn = np.sort(np.argsort(-largest, kind="stable")[:MOST])
    order = drawn[np.argsort(np.asarray(before)[drawn], kind="stable")]
    width = 0.8 / len(changes)
    for number, (defence, look) in enumerate(looks(list(changes)).items()):
        change, low, high = (np.asarray(changes[defence][key])[order] for key in ("change", "low", "high"))
        x = np.arange(len(order)) + (number - (len(changes) - 1) / 2) * width
        ax.bar(x, change, width * 0.9, color=look["color"], label=defence)
        ax.errorbar(x, change, (np.maximum(change - low, 0), np.maximum(high - change, 0)), fmt="none", color="black",
                    lw=0.8, capsize=2)
    places = [int(np.flatnonzero(order == label)[0]) for label in (weak, confound)]
    sides = ("right", "left") if places[0] < places[1] else ("left", "right")
    for place, name, side in zip(places, ("most\nvulnerable", "its\nconfound"), sides, strict=True):
        ax.axvspan(place - 0.48, place + 0.48, color="0.9", zorder=0)
        ax.annotate(name, (place, 1.01), xycoords=("data", "axes fraction"), ha=side if len(order) > 12 else "center",
                    fontsize=8)
    ax.axhline(0, color="black", lw=0.8)
    upright = max(len(classes[i]) for i in order) * len(order) <= 110  # the names fit side by side
    names = [("{}\n{:.0%}" if upright else "{} {:.0%}").format(classes[i], before[i]) for i in order]
    ax.set_xticks(range(len(order)), names, rotation=0 if upright else 90, fontsize=8)
    ax.grid(axis="x", visible=False)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f}" if value else "0"))
    ax.set(xlabel=f"class, and its accuracy under {attack} without a defence", ylabel="change (points)")
    ax.figure.legend(loc="outside lower center", ncols=len(changes))
    return ax.figure
