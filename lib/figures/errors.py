"""Errors of networks that differ in their activation, side by side: a map, and lists with differences.

All take frames with columns error, low and high, in [0, 1] (low and high nan: no interval), and draw them in percent;
lower is better everywhere.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lib.figures.gating import LOOKS, _bars, _clear, _look, _percent
from lib.figures.style import WIDTH, apart
from lib.figures.tradeoff import crowd

LESS = ["less", "less_low", "less_high"]
STANDING_OUT = ("relu", "silu", "sparta")
NAME = 0.135  # height of a name, in inches


def error_scatter(clean: pd.DataFrame, robust: pd.DataFrame, front: Sequence[str], attack: str,
                  variants: Sequence[str] = ()) -> Figure:
    """Clean error against robust error, a point an activation, named at the right; lower left is better.

    clean, robust: index activation; columns error, low, high; bars are drawn for relu, silu and sparta. front: the
    activations that no other beats, which are ringed and joined. variants: of Sparta, drawn hollow. What lies far from
    the crowd is named in a corner.
    """
    near = set.intersection(*(set(crowd(each.error.to_dict())) for each in (clean, robust)))
    inside = [name for name in clean.index if name in near or name in LOOKS]
    figure, ax = plt.subplots(figsize=(WIDTH, max(3.6, 1.15 * NAME * len(inside) + 0.7)))
    for name in inside:
        x, y, known = clean.loc[name], robust.loc[name], name in LOOKS
        ax.plot(x.error, y.error, ls="none", ms=7 if name in STANDING_OUT else 5 if known else 4,
                zorder=4 if known else 3, **_look(name), **({"mfc": "white"} if name in variants else {}))
        if name in STANDING_OUT:
            ax.errorbar(x.error, y.error, xerr=_bars(x), yerr=_bars(y), color=_look(name)["color"], elinewidth=0.9,
                        alpha=0.35, zorder=1)
    steps = clean.loc[[name for name in front if name in inside], ["error"]].assign(y=robust.error)
    steps = steps.sort_values("error")
    ax.plot(steps.error, steps.y, ls="--", lw=0.8, color="0.3", marker="o", ms=10, mfc="none", mew=0.8, zorder=2)
    ax.set(xlabel="clean error (%)", ylabel=f"error under {attack} (%)")
    for each, axis, limit in ((clean, ax.xaxis, ax.set_xlim), (robust, ax.yaxis, ax.set_ylim)):
        values = each.error[inside]
        room = 0.2 * max(np.ptp(values), 0.005)
        limit(max(values.min() - room, -0.2 * room), values.max() + room)
        _percent(axis)
    _column(ax, {name: (clean.error[name], robust.error[name]) for name in inside})
    far = [f"{n}: {100 * clean.error[n]:.1f}, {100 * robust.error[n]:.1f}" for n in clean.index if n not in inside]
    if far:
        ax.text(0.99, 0.01, "\n".join(["farther out (clean, robust):", *far]), transform=ax.transAxes, va="bottom",
                ha="right", fontsize=7, color="0.35", bbox={"fc": "white", "ec": "none", "pad": 1}, zorder=6)
    if set(variants) & set(inside):
        ax.legend(handles=[Line2D([], [], ls="", ms=4, label="variant of Sparta", **_look(""), mfc="white")],
                  loc="upper left", fontsize=7.5)
    ax.annotate("better", (0.01, 0.01), (0.08, 0.07), xycoords="axes fraction", fontsize=8, color="0.35",
                arrowprops={"arrowstyle": "->", "color": "0.35"})
    return figure


def _column(ax: Axes, places: Mapping[str, tuple[float, float]]) -> None:
    """Names in a column right of the axes, each tied to its point."""
    low, high = ax.get_ylim()
    gap = NAME / (ax.figure.get_size_inches()[1] - 0.7) * (high - low)
    order = sorted(places, key=lambda name: (places[name][1], -places[name][0]))
    heights = apart([places[name][1] for name in order], gap, low, high)
    for name, height in zip(order, heights, strict=True):
        color = _look(name)["color"]
        ax.annotate(name, places[name], (1.05, height), textcoords=("axes fraction", "data"), va="center", color=color,
                    fontsize=8, fontweight="bold" if name in STANDING_OUT else "normal", annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "lw": 0.5, "color": color, "alpha": 0.7, "shrinkA": 0, "shrinkB": 3,
                                "relpos": (0, 0.5)})


def error_list(clean: pd.DataFrame, robust: pd.DataFrame, groups: Mapping[str, Sequence[str]],
               baseline: str) -> Figure:
    """A line a network: clean error, error in the worst case, and that less the baseline's, each with its interval.

    clean, robust: index activation; columns error, low, high; robust also less, less_low, less_high. groups: title ->
    its networks; within a group they stand from the lowest robust error to the highest. A value far outside of the
    others is a number at the edge.
    """
    places, headers, at = {}, {}, 0.0
    for title, names in ((t, [n for n in names if n in robust.index]) for t, names in groups.items()):
        if names:
            headers[title], at = at, at + 0.9
            for name in robust.error[names].sort_values(kind="stable").index:
                places[name], at = at, at + 1
            at += 0.3
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 0.2 * at + 1.0), sharey=True, width_ratios=(1, 1.2, 1.2))
    for ax, rows, less in zip(panels, (clean, robust, robust), (False, False, True), strict=True):
        _points(ax, rows.loc[list(places)], places, less)
        ax.axvline(0 if less else rows.error[baseline], color="0.2", lw=0.8, zorder=0, ls="-" if less else "--")
    for ax, text in zip(panels, ("clean error (%)", f"worst-case error (%)\ndashed: {baseline}",
                                 f"worst case less that of {baseline},\npoints (left: fewer errors)"), strict=True):
        ax.set_xlabel(text)
    for title, place in headers.items():
        panels[0].text(-0.03, place, title, transform=panels[0].get_yaxis_transform(), ha="right", va="center",
                       fontsize=8.5, fontweight="bold")
    panels[0].set_yticks(list(places.values()), list(places), fontsize=8)
    panels[0].set_ylim(max(places.values()) + 0.7, -0.6)
    figure.legend(handles=[Line2D([], [], color=_clear(low, 1), label=text) for low, text in (
        (0.5, "a difference whose interval leaves out 0"), (-1, "one whose interval includes 0"))],
        loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _points(ax: Axes, rows: pd.DataFrame, places: Mapping[str, float], less: bool) -> None:
    """Errors, or differences, of all networks at their heights, within limits that suit most of them."""
    middle, low, high = LESS if less else ("error", "low", "high")
    rows = rows.dropna(subset=middle)
    near = [name for name in rows.index if name in crowd(rows[middle].to_dict()) or name in LOOKS]
    ends = rows.loc[near, [middle, low, high]].to_numpy(float)
    left, right = np.nanmin(ends, initial=0 if less else np.inf), np.nanmax(ends, initial=0 if less else -np.inf)
    room = 0.07 * max(right - left, 0.005)
    left, right = left - room, right + room
    ax.set_xlim(left, right)
    for name, row in rows.iterrows():
        color, value = _clear(row[low], row[high]) if less else _look(name)["color"], row[middle]
        if left < value < right:
            ax.errorbar(value, places[name], xerr=_bars(row, middle, low, high), ms=4.5, elinewidth=1, capsize=1.5,
                        color=color, marker=_look(name)["marker"])
        else:
            edge, text, side = (1, 0.8, "right") if value > right else (0, 0.2, "left")
            ax.annotate(f"{100 * value:{'+' if less else ''}.1f}", (edge, places[name]), (text, places[name]), ha=side,
                        xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=color,
                        arrowprops={"arrowstyle": "->", "color": color})
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    _percent(ax.xaxis, points=less)


def less_list(rows: pd.DataFrame, group: str, key: str, words: Mapping[str, str], baseline: str,
              colors: Mapping[str, str]) -> Figure:
    """Errors of some networks, a line of panels a group: on the left clean (hollow) and in the worst case (filled).

    On the right the worst case less the baseline's, on the same images: right of 0 the baseline has fewer errors.
    rows: the columns `group` and `key`, attack (clean and worst case), error, low, high, less, less_low, less_high.
    words: value of `key` -> what it is, from top to bottom. colors: of those that stand out; they are drawn as lines.
    """
    groups, names = list(dict.fromkeys(rows[group])), [name for name in words if (rows[key] == name).any()]
    figure, panels = plt.subplots(len(groups), 2, squeeze=False, sharey=True, width_ratios=(1.25, 1),
                                  figsize=(WIDTH, len(groups) * (0.55 + 0.2 * len(names)) + 0.7))
    for (left, right), title in zip(panels, groups, strict=True):
        for _, row in rows[rows[group] == title].iterrows():
            place, color, clean = names.index(row[key]), colors.get(row[key], "0.45"), row.attack == "clean"
            left.errorbar(row.error, place, xerr=_bars(row), elinewidth=1, capsize=1.5, marker="o", ms=4.5, color=color,
                          mfc="white" if clean else color)
            if not clean and row[key] in colors:
                left.axvline(row.error, color=color, lw=0.9, ls="--", zorder=0)
            if not clean and not np.isnan(row.less):
                right.errorbar(row.less, place, xerr=_bars(row, *LESS), elinewidth=1, capsize=1.5, marker="o", ms=4.5,
                               color=_clear(row.less_low, row.less_high))
        left.set_title(title, fontsize=9)
        right.set_title(f"less {words[baseline]!r}", fontsize=8, color="0.35")
        right.axvline(0, color="0.2", lw=0.9, zorder=0)
        left.tick_params(axis="y", labelsize=8)
        for ax in (left, right):
            ax.grid(axis="y", visible=False)
            ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            _percent(ax.xaxis, points=ax is right)
    panels[0, 0].set_yticks(range(len(names)), [words[name] for name in names])
    panels[0, 0].set_ylim(len(names) - 0.5, -0.5)
    for text, name in ((t, n) for ax in panels[:, 0] for t, n in zip(ax.get_yticklabels(), names, strict=True)):
        text.set(color=colors.get(name, "0.25"), fontweight="bold" if name == baseline else "normal")
    panels[-1, 0].set_xlabel("error (%)")
    panels[-1, 1].set_xlabel("points (right: more errors)")
    handles = [Line2D([], [], ls="", marker="o", ms=4.5, color="0.45", mfc=face, label=text)
               for text, face in (("clean", "white"), ("worst case", "0.45"))]
    figure.legend(handles=[*handles, Line2D([], [], color=_clear(-1, 1), label="the interval includes 0")],
                  loc="outside lower center", ncols=3, fontsize=8)
    return figure
