"""What the size and the direction of a weight perturbation do, and the weights that it leaves."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lib.figures.style import MARKERS, OKABE_ITO, WIDTH

NONE = "none"
LINES = {"adversarial": (OKABE_ITO[0], "o"), "random": (OKABE_ITO[1], "s")}


def perturbation_sweep(sweeps: Mapping[str, Mapping[str, np.ndarray]], panels: Mapping[str, str],
                       chosen: Sequence[float] = ()) -> Figure:
    """Measures against gamma, a panel each: a line for each direction, single points for more steps of the search.

    Settings of one gamma stand side by side.

    sweeps: for 'none', drawn as a level, 'adversarial' and 'random', drawn as lines, and others, drawn as points:
    `gamma` (G,) and each measure (G, 3) of mean, low and high (nan: no interval). panels: measure -> title; all but
    'sharpness' are fractions, shown in percent. chosen: every gamma of the adversarial line that a seed chose, which
    gets a ring; for 0 the ring is on the level.
    """
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(WIDTH, 2.15 * rows + 0.5), sharex=True, squeeze=False)
    every = np.unique(np.concatenate([curve["gamma"] for curve in sweeps.values()]))
    ends = every[every > 0].min() / 1.4, every.max() * 1.4
    for ax, (measure, title) in zip(axes.flat, panels.items(), strict=False):
        for number, (name, curve) in enumerate(sweeps.items()):
            _draw(ax, name, number, curve["gamma"], np.asarray(curve[measure], float), ends)
        line = sweeps["adversarial"]
        for gamma in set(chosen):
            at = (gamma, line[measure][list(line["gamma"]).index(gamma)][0]) if gamma else (
                ends[0], sweeps[NONE][measure][0][0])
            ax.plot(*at, "o", ms=11, mfc="none", mew=1.2, color="0.3", clip_on=False,
                    label="chosen on validation images")
        ax.set(xscale="log", xlim=ends)
        ax.set_title(title, fontsize=9)
        _ticks(ax, every[every > 0], ends)
        if measure != "sharpness":
            _percent(ax)
    for ax in axes.flat[len(panels):]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel(r"$\gamma$, the norm of $v$ over that of the weights")
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _percent(ax: Axes) -> None:
    """Fractions on the y axis in percent, with as many digits as they need."""
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 1):g}%"))


def _ticks(ax: Axes, gammas: np.ndarray, ends: tuple[float, float]) -> None:
    """A tick at each gamma, with its number where there is room for it."""
    shown = [gammas[0]]
    for gamma in gammas[1:]:
        if np.log(gamma / shown[-1]) > 0.11 * np.log(ends[1] / ends[0]):
            shown.append(gamma)
    ax.xaxis.set_major_locator(FixedLocator(gammas))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value in shown else ""))
    ax.tick_params(axis="x", labelsize=8)


def _draw(ax: Axes, name: str, number: int, gamma: np.ndarray, values: np.ndarray, ends: tuple[float, float]) -> None:
    """One setting in one panel: a level with a band, a line, or a point beside the line."""
    mean, low, high = values.T
    if name == NONE:
        ax.axhline(mean[0], color="black", lw=1, ls="--", label="no perturbation")
        ax.fill_between(ends, low[0], high[0], color="black", alpha=0.08, lw=0)
        return
    color, marker = LINES.get(name, (OKABE_ITO[(number - 1) % 8], MARKERS[(number - 1) % 8]))
    bars = np.where(np.isnan(low), 0, [mean - low, high - mean])
    beside = (ends[1] / ends[0]) ** (0.014 * (number - 1))  # so that bars at one gamma do not hide each other
    ax.errorbar(gamma * beside, mean, bars.clip(0), color=color, marker=marker, ms=5, lw=1.2, capsize=2, elinewidth=0.8,
                ls="-" if name in LINES else "", label=name if name in LINES else f"adversarial, {name}")


def weight_histograms(edges: np.ndarray, panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Histograms of weights as outlines, a panel a group: the first of each in black, the others from dark to light.

    edges: (B + 1,). panels: title -> label -> counts (B,), shown as shares. The legend has each one's standard
    deviation, from its bins.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.8), sharex=True, sharey=True, squeeze=False)
    middles, limit = (edges[:-1] + edges[1:]) / 2, 0.0
    for ax, (title, group) in zip(axes.flat, panels.items(), strict=True):
        shades = ["black", *plt.get_cmap("viridis")(np.linspace(0.15, 0.85, max(1, len(group) - 1)))]
        for (label, counts), color in zip(group.items(), shades, strict=False):
            share = np.asarray(counts) / np.sum(counts)
            mean = (share * middles).sum()
            width = np.sqrt((share * (middles - mean) ** 2).sum())
            limit = max(limit, 4 * width)
            ax.stairs(share, edges, color=color, lw=1.2, label=f"{label.removeprefix('gamma ')} (sd {width:.3f})")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("weight")
        ax.legend(fontsize=7, handlelength=1.2, loc="upper right", borderaxespad=0, labelspacing=0.3,
                  title=r"$\gamma$", title_fontsize=8, alignment="left")
    axes[0, 0].set(xlim=(-limit, limit), ylabel="share of the weights")
    axes[0, 0].set_ylim(top=1.35 * axes[0, 0].get_ylim()[1])  # room for the legend
    _percent(axes[0, 0])
    return figure
