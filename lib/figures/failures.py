"""Always-failing images by class and by the number of networks, and the transfer table."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib.figures.classes import MANY
from lib.figures.style import MARKERS, OKABE_ITO, WIDTH

STRONGER = "▼"  # in the transfer table: stronger than the target's white box


def always_by_class(classes: Sequence[str], panels: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
                    mark: str) -> Figure:
    """Shares of each class's images, one panel below the other, such as images that always fail and always work.

    panels: for each panel, by its title, and for each group of networks an estimate: share, low and high, (classes,)
    each in [0, 1], and maybe expected (classes,), drawn as a grey dash that the legend calls `mark`. The classes stand
    in the order of the first group of the first panel, highest first.
    """
    first = next(iter(next(iter(panels.values())).values()))
    order = np.argsort(-np.asarray(first["share"]), kind="stable")
    figure, axes = plt.subplots(len(panels), 1, squeeze=False, sharex=True, figsize=(WIDTH, 0.7 + 2.1 * len(panels)))
    for ax, (title, groups) in zip(axes.flat, panels.items(), strict=True):
        shift = np.linspace(-0.17, 0.17, len(groups)) if len(groups) > 1 else [0.0]
        for i, (dx, (name, found)) in enumerate(zip(shift, groups.items(), strict=True)):
            x, (share, low, high) = np.arange(len(classes)) + dx, (np.asarray(found[k])[order] for k in
                                                                  ("share", "low", "high"))
            ax.errorbar(x, share, (np.maximum(share - low, 0), np.maximum(high - share, 0)), fmt=MARKERS[i], ms=5,
                        color=OKABE_ITO[i], capsize=2, label=name)
            if "expected" in found:
                ax.plot(x, np.asarray(found["expected"])[order], "_", ms=9, mew=2, color="0.45", zorder=3, label=mark)
        ax.set_title(title)
        ax.set_ylim(-0.03, None)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _classes(axes[-1, 0], [classes[i] for i in order])
    figure.supylabel("share of the class's images", fontsize=9)
    handles = dict(zip(*axes[0, 0].get_legend_handles_labels()[::-1], strict=True))
    names = [*next(iter(panels.values())), *([mark] if mark in handles else [])]
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=2)
    return figure


def _classes(ax: Axes, names: Sequence[str]) -> None:
    """Class names below the axis, upright where they are long, none where there are too many to read."""
    if len(names) <= 3 * MANY:
        long = (max(map(len, names)) + 1) * len(names) > 95
        ax.set_xticks(np.arange(len(names)), names, rotation=90 if long else 0, fontsize=7 if len(names) > MANY else 9)
    else:
        ax.set_xticks([])
    ax.set_xlabel("class, the most failures first")


def failing_by_size(panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
                    expected: Mapping[str, Mapping[int, float]], ylabel: str) -> Figure:
    """Share of images on which all of so many networks fail, a panel beside the other.

    panels: for each panel, by its title, and each kind of set, for each number of networks the share of each single
    set, in [0, 1]; points are sets, lines their means. expected: for each panel the grey dotted line, by the number of
    networks.
    """
    figure, axes = plt.subplots(1, len(panels), squeeze=False, sharey=True, figsize=(WIDTH, 3.3))
    for ax, (title, kinds) in zip(axes.flat, panels.items(), strict=True):
        shift = np.linspace(-0.07, 0.07, len(kinds)) if len(kinds) > 1 else [0.0]
        for i, (dx, (name, of_size)) in enumerate(zip(shift, kinds.items(), strict=True)):
            means = [np.mean(each) for each in of_size.values()]
            ax.plot(list(of_size), means, marker=MARKERS[i], ms=6, lw=1.5, color=OKABE_ITO[i], label=name)
            for size, each in of_size.items():
                ax.plot(np.full(len(each), size + dx), each, ".", ms=3.5, color=OKABE_ITO[i], alpha=0.6)
        ax.plot(list(expected[title]), list(expected[title].values()), ":", marker="_", ms=9, mew=2, color="0.45",
                label="if failures were independent")
        ax.set(title=title, xlabel="networks in the set")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    most = max(max(each) for kinds in panels.values() for of_size in kinds.values() for each in of_size.values())
    axes[0, 0].set(ylabel=ylabel, ylim=(0, max(0.01, 1.08 * most)))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def transfer_table(sources: Sequence[str], targets: Sequence[str], accuracy: np.ndarray, framed: np.ndarray,
                   stronger: np.ndarray, lines: Sequence[int] = ()) -> Figure:
    """Accuracy of targets (columns) on the examples of sources (rows), in percent; nan is left blank.

    accuracy: (sources, targets) in [0, 1]. framed, stronger: of the same shape; cells with a frame, the white boxes,
    and cells that are marked STRONGER, in bold. lines: rows above which there is a gap between two groups of sources.
    """
    accuracy, stronger = np.asarray(accuracy, float), np.asarray(stronger, bool)
    digits = 1 if len(targets) <= 12 else 0
    text = [[f"{100 * v:.{digits}f}{STRONGER if s else ''}" if np.isfinite(v) else ""
             for v, s in zip(*row, strict=True)] for row in zip(accuracy, stronger, strict=True)]
    figure, ax = plt.subplots(figsize=(WIDTH, 1.9 + 0.25 * len(sources)))
    sns.heatmap(100 * accuracy, ax=ax, annot=np.array(text), fmt="", cmap="viridis", vmin=0, vmax=100,
                xticklabels=list(targets), yticklabels=list(sources), linewidths=0.5,
                annot_kws={"size": 8 if len(targets) <= 10 else 7}, cbar_kws={"label": "accuracy", "format": "%.0f %%"})
    for number in ax.texts:
        number.set_weight("bold" if number.get_text().endswith(STRONGER) else "normal")
    for row, column in np.argwhere(framed):
        ax.add_patch(plt.Rectangle((column, row), 1, 1, fill=False, ec=OKABE_ITO[1], lw=2, clip_on=False, zorder=3))
    for row in lines:
        ax.axhline(row, color="white", lw=4)
    ax.set(xlabel="target, scored as deployed", ylabel="source of the examples")
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=30 if len(targets) <= 10 else 90)
    plt.setp(ax.get_xticklabels(), ha="right" if len(targets) <= 10 else "center", rotation_mode="anchor")
    ax.grid(False)
    figure.legend(handles=[Patch(fc="none", ec=OKABE_ITO[1], lw=2, label="examples of the network itself"),
                           Line2D([], [], ls="", marker="v", color="black", ms=5,
                                  label="stronger than these, with every seed")],
                  loc="outside lower center", ncols=2, fontsize=8)
    return figure
