"""Runs side by side: clean against robust accuracy, and differences from one of the methods."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lib.figures.style import WIDTH, apart, bars, looks, percent


def run_trade_off(points: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]], attack: str) -> Figure:
    """Clean against robust accuracy, a point a run with its intervals; names stand in a column right of the points.

    points: for each method a list over seeds of `clean` and `robust`, each with mean, low and high.
    """
    figure, ax = plt.subplots(figsize=(WIDTH * 0.8, max(3.2, 0.22 * len(points) + 1.5)))
    style, middle = looks(list(points)), {}
    for method, seeds in points.items():
        for each in seeds:
            x, y = each["clean"], each["robust"]
            *_, lines = ax.errorbar(x["mean"], y["mean"], xerr=bars(**_ends(x)), yerr=bars(**_ends(y)), ms=7,
                                    elinewidth=0.8, zorder=3, **{**style[method], "linestyle": "none"})
            for line in lines:
                line.set(alpha=0.5, zorder=2)
        middle[method] = [np.mean([each[key]["mean"] for each in seeds]) for key in ("clean", "robust")]
    ax.margins(0.08)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    places = apart([y for _, y in middle.values()], 0.06 * (high - low))
    for (method, at), height in zip(middle.items(), places, strict=True):
        color = style[method]["color"]
        ax.annotate(method, at, (right + 0.04 * (right - left), height), color=color, va="center", fontsize=8,
                    annotation_clip=False, arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.7, "ls": ":",
                                                       "shrinkA": 0, "shrinkB": 5, "relpos": (0, 0.5)})
    ax.set(xlim=(left, right), ylim=(low, high), xlabel="clean accuracy", ylabel=f"accuracy under {attack}")
    _percent(ax.xaxis, ax.yaxis)
    return figure


def run_differences(panels: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], base: str) -> Figure:
    """Accuracy less that of `base`, in points with intervals: a panel an attack, a row a method, a point a seed.

    panels: attack -> method -> a list over seeds of mean, low and high.
    """
    methods = list(dict.fromkeys(m for panel in panels.values() for m in panel))
    most = max(len(seeds) for panel in panels.values() for seeds in panel.values())
    figure, axes = plt.subplots(1, len(panels), squeeze=False, sharey=True,
                                figsize=(WIDTH, 1.1 + (0.2 + 0.1 * most) * max(len(methods), 2)))
    style = looks(methods)
    for ax, (attack, panel) in zip(axes.flat, panels.items(), strict=True):
        ax.axvline(0, color="0.5", lw=0.8)
        for row, method in enumerate(methods):
            seeds = panel.get(method, ())
            for i, each in enumerate(seeds):
                place = row + 0.7 * ((i + 0.5) / len(seeds) - 0.5)
                ax.errorbar(100 * each["mean"], place, xerr=bars(**{k: 100 * v for k, v in _ends(each).items()}), ms=5,
                            elinewidth=1.2, capsize=2, **{**style[method], "linestyle": "none"})
        ax.set_title(attack)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
        ax.grid(axis="y", visible=False)
    figure.supxlabel(f"accuracy less that of {base}, points", fontsize=9)
    return figure


def _ends(each: Mapping[str, float]) -> dict[str, float]:
    return {key: each[key] for key in ("mean", "low", "high")}


def _percent(*axes) -> None:
    for axis in axes:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(percent))
