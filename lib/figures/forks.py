"""Networks that differ in one thing: how far two protocols are apart on them, and where they lie in the trade-off.

Both take a frame of one row a network: `group`, `fork` (its name), and clean, published and robust, each with _low and
_high (nan: no interval).
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lib.figures.style import OKABE_ITO, WIDTH, apart, bars, percent

LOOKS = {"controls": ("black", "o"), "labels": (OKABE_ITO[1], "s"), "start": (OKABE_ITO[2], "^"),
         "adversary": (OKABE_ITO[3], "D"), "radius": (OKABE_ITO[0], "v")}
PUBLISHED, ROBUST = OKABE_ITO[1], OKABE_ITO[0]


def fork_dumbbells(rows: pd.DataFrame, baseline: str, titles: Mapping[str, str]) -> Figure:
    """A line for each network from its worst case (filled) to its accuracy as published (hollow); a tick is clean.

    baseline: the network whose worst case is drawn through all lines, with its interval. titles: group -> what stands
    above its networks, in the order from top to bottom.
    """
    places, headers, at = {}, {}, 0.0
    for name in (name for name in titles if (rows.group == name).any()):
        headers[name], at = at, at + 0.9
        for fork in rows.fork[rows.group == name]:
            places[fork], at = at, at + 1
        at += 0.35
    figure, ax = plt.subplots(figsize=(WIDTH, 0.215 * at + 1.1))
    base = rows[rows.fork == baseline].iloc[0]
    ax.axvline(base.robust, color=ROBUST, lw=1, ls="--", zorder=1, label=f"worst case of {baseline!r}")
    if not np.isnan(base.robust_low):
        ax.axvspan(base.robust_low, base.robust_high, color=ROBUST, alpha=0.1, lw=0, zorder=0)
    for number, (_, row) in enumerate(rows.iterrows()):
        _dumbbell(ax, row, places[row.fork], first=number == 0)
    for name, place in headers.items():
        ax.text(-0.015, place, titles[name], transform=ax.get_yaxis_transform(), ha="right", va="center",
                fontsize=8.5, fontweight="bold")
    ax.set_yticks(list(places.values()), list(places))
    ax.set(xlabel="accuracy", ylim=(at - 0.2, -0.6), xlim=(min(-0.01, ax.get_xlim()[0]), 1.02))
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_formatter(FuncFormatter(percent))
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _dumbbell(ax: Axes, row: pd.Series, place: float, first: bool) -> None:
    """One network at the height `place`; the first one names the marks."""
    ax.plot([row.robust, row.published], [place, place], color="0.75", lw=3, solid_capstyle="butt", zorder=2)
    for measure, label, look in (
            ("clean", "clean", {"marker": "|", "ms": 9, "mew": 1.6, "color": "black"}),
            ("published", "as published", {"marker": "o", "ms": 8, "mfc": "none", "mew": 1.4, "color": PUBLISHED}),
            ("robust", "worst case of both protocols", {"marker": "o", "ms": 5, "color": ROBUST})):
        ax.errorbar(row[measure], place, xerr=_bars(row, measure), ls="none", elinewidth=0.9, capsize=2, zorder=3,
                    label=label if first else None, **look)


def fork_trade_off(rows: pd.DataFrame, radius: Mapping[str, float], titles: Mapping[str, str]) -> Figure:
    """Clean accuracy against the worst case: networks as labelled points with intervals; those by radius on a line.

    radius: fork -> radius, for the networks that the line joins, in its order. titles: group -> its name.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.6))
    curve = rows.set_index("fork").loc[sorted(radius, key=radius.get)]
    ax.plot(curve.clean, curve.robust, "-", color=LOOKS["radius"][0], lw=1.5, zorder=1)
    for name, part in rows.groupby("group", sort=False):
        color, marker = LOOKS[name]
        for number, (_, row) in enumerate(part.iterrows()):
            ax.errorbar(row.clean, row.robust, xerr=_bars(row, "clean"), yerr=_bars(row, "robust"), color=color,
                        marker=marker, ms=6, ls="none", elinewidth=0.6, ecolor=(color if color != "black" else "0.4"),
                        alpha=0.9, label=titles[name] if not number else None, zorder=2)
    ax.set(xlabel="clean accuracy", ylabel="worst case of both protocols")
    ax.margins(x=0.05)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(percent))
    _name(ax, rows)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _name(ax: Axes, rows: pd.DataFrame) -> None:
    """The name of each network right of the axes, apart from the others, with a thin line to its point."""
    low, high = ax.get_ylim()
    gap = 0.048 * (high - low)
    heights = apart(rows.robust, gap)
    below = heights.argsort().argsort()  # how many names are below
    heights = heights.clip(low + gap * below, high - gap * (len(rows) - 1 - below))  # within the axes
    for (_, row), height in zip(rows.iterrows(), heights, strict=True):
        color = LOOKS[row.group][0]
        ax.annotate(row.fork, (row.clean, row.robust), xytext=(1.03, height), textcoords=("axes fraction", "data"),
                    va="center", fontsize=8, color=color, annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "lw": 0.8, "ls": ":", "color": color, "alpha": 0.7, "shrinkA": 0,
                                "shrinkB": 3, "relpos": (0, 0.5)})


def _bars(row: pd.Series, measure: str) -> np.ndarray | None:
    """`bars` of a measure of one network."""
    return bars(row[measure], row[f"{measure}_low"], row[f"{measure}_high"])
