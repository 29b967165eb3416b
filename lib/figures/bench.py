"""Seconds of a training step: by arm, over PGD, and as sizes grow; and gradients in two arithmetics."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from lib.figures.style import MARKERS, OKABE_ITO, WIDTH, bars

REFERENCE, OURS, PREDICTED = "0.65", OKABE_ITO[0], "0.35"


def step_bars(methods: Mapping[str, Sequence[Mapping]], reference: str = "reference", ours: str = "ours") -> Figure:
    """Seconds of a training step, a bar for each arm, the methods below one another on one axis.

    methods: for each, by its name, its arms from top to bottom, each with name, seconds, low and high (quartiles),
    floor, the least seconds that are possible, drawn as a black stroke, and text, written behind the bar. Arms whose
    name begins with `reference` are grey; the legend calls the two kinds by these words.
    """
    counts = [len(arms) for arms in methods.values()]
    figure, axes = plt.subplots(len(methods), 1, sharex=True, squeeze=False, height_ratios=[n + 0.8 for n in counts],
                                figsize=(WIDTH, 0.9 + 0.23 * sum(counts) + 0.3 * len(counts)))
    for ax, (method, arms) in zip(axes.flat, methods.items(), strict=True):
        for y, arm in enumerate(arms):
            color = REFERENCE if arm["name"].startswith(reference) else OURS
            ax.barh(y, arm["seconds"], height=0.72, color=color, alpha=0.85, lw=0)
            ax.errorbar(arm["seconds"], y, xerr=bars(arm["seconds"], arm["low"], arm["high"]), color="black", lw=0.8,
                        capsize=1.5)
            ax.plot([arm["floor"]] * 2, [y - 0.36, y + 0.36], color="black", lw=2, solid_capstyle="butt")
            ax.annotate(arm["text"], (arm["high"], y), xytext=(4, 0), textcoords="offset points", va="center",
                        fontsize=7)
        ax.set_yticks(range(len(arms)), [arm["name"] for arm in arms], fontsize=8)
        ax.set(ylim=(len(arms) - 0.5, -0.5), title=method)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    most = max(arm["high"] for arms in methods.values() for arm in arms)
    axes[-1, 0].set(xlabel="seconds a step", xlim=(0, 1.13 * most))
    figure.legend(handles=[Patch(color=REFERENCE, label=reference), Patch(color=OURS, label=ours),
                           Line2D([], [], color="black", lw=2, label="floor")], loc="outside lower center", ncols=3)
    return figure


def step_overheads(panels: Mapping[str, Sequence[Mapping]], arms: Sequence[str]) -> Figure:
    """Seconds of a step over those of PGD, a line for each method, a mark for each arm, in percent.

    panels: rows by the title of their panel, each of which has its own axis. A row: method, arm, passes, what passes
    predict, drawn as a grey stroke through the line, and measured, low and high (quartiles); all as shares, 0.13 for
    13 % more. arms: the order of arms.
    """
    counts = [len({row["method"] for row in rows}) for rows in panels.values()]
    figure, axes = plt.subplots(len(panels), 1, squeeze=False, height_ratios=[n + 0.9 for n in counts],
                                figsize=(WIDTH * 0.85, 0.7 + 0.5 * sum(counts) + 0.55 * len(counts)))
    names = [name for name in arms if any(row["arm"] == name for rows in panels.values() for row in rows)]
    shift = np.linspace(-0.26, 0.26, len(names)) if len(names) > 1 else [0.0]
    for ax, (title, rows) in zip(axes.flat, panels.items(), strict=True):
        methods = list(dict.fromkeys(row["method"] for row in rows))
        for row in rows:
            i, y = names.index(row["arm"]), methods.index(row["method"])
            ax.plot([row["passes"]] * 2, [y - 0.36, y + 0.36], color=PREDICTED, lw=2.5, alpha=0.6, zorder=1)
            ax.errorbar(row["measured"], y + shift[i], xerr=bars(row["measured"], row["low"], row["high"]), ms=4.5,
                        fmt=MARKERS[i % 8], color=OKABE_ITO[i % 8], capsize=1.5, lw=1)
        ax.axvline(0, color="black", lw=0.7, zorder=1)
        ax.set_yticks(range(len(methods)), methods)
        ax.set(ylim=(len(methods) - 0.5, -0.5), title=title)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:+.0f}%" if share else "0"))
        ax.grid(False, axis="y")
    axes[-1, 0].set_xlabel("more seconds a step than pgd")
    handles = [Line2D([], [], color=PREDICTED, lw=2.5, alpha=0.6, label="what the passes predict")]
    handles += [Line2D([], [], ls="", marker=MARKERS[i % 8], color=OKABE_ITO[i % 8], ms=4.5, label=name)
                for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def step_growth(panels: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Seconds of a step as one number grows, a panel for each, both axes logarithmic.

    panels: by the label of the axis, rows with value, seconds, low and high (quartiles), and operations of a step, to
    which the dashed line, through the last point, is proportional.
    """
    figure, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(WIDTH, 2.7))
    for ax, (label, rows) in zip(axes.flat, panels.items(), strict=True):
        value, seconds, low, high, operations = (np.array([row[key] for row in rows], float) for key in
                                                 ("value", "seconds", "low", "high", "operations"))
        ax.plot(value, seconds[-1] * operations / operations[-1], "--", color=PREDICTED, lw=1.2)
        ax.errorbar(value, seconds, (np.maximum(seconds - low, 0), np.maximum(high - seconds, 0)), marker="o", ms=4,
                    lw=1.4, color=OURS, capsize=1.5)
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.xaxis.set_major_locator(FixedLocator(value))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.tick_params(axis="x", labelsize=7.5)
        ax.margins(x=0.12)
    _seconds(axes[0, 0])
    figure.legend(handles=[Line2D([], [], color=OURS, marker="o", ms=4, label="measured"),
                           Line2D([], [], color=PREDICTED, ls="--", label="in proportion to the operations")],
                  loc="outside lower center", ncols=2)
    return figure


def _seconds(ax: Axes) -> None:
    """A logarithmic axis of seconds, with numbers at 1, 2 and 5 of each decade."""
    low, high = ax.get_ylim()
    ticks = [m * 10.0**e for e in range(-7, 5) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{s:g}" if s >= 0.001 else f"{s:.0e}"))
    ax.set_ylabel("seconds a step")


def sign_agreement(steps: Sequence[int], agreement: Mapping[str, Sequence[float]]) -> Figure:
    """Share of pixels whose gradient has the same sign as in float32, along the steps of an attack, from 1.

    agreement: a line for each, by its name, in [0, 1]. Half of the signs agree by chance: the dotted line.
    """
    figure, ax = plt.subplots(figsize=(WIDTH * 0.65, 3.1))
    for i, (name, values) in enumerate(agreement.items()):
        ax.plot(steps, values, marker=MARKERS[i], ms=5, lw=1.4, color=OKABE_ITO[i], label=name,
                markerfacecolor="none" if i else None, ls="--" if i else "-")
    ax.axhline(0.5, color="0.5", ls=":", lw=1)
    ax.annotate("by chance", (steps[-1], 0.5), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=7.5,
                color="0.4")
    ax.set(xlabel="step of the attack", ylabel="pixels of the\nsame sign", ylim=(0.45, 1.02))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
