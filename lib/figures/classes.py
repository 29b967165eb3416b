"""Classes: their accuracy, along training too, what they are taken for, and who agrees on the weak ones."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.figures.style import OKABE_ITO, WIDTH, hide_rest, label_ends, looks

STRONG, WEAK = OKABE_ITO[:2]  # the classes that are named
MANY = 20  # classes: with more, cells are too small for numbers


def class_accuracy(classes: Sequence[str], attacked: Mapping[str, np.ndarray], clean: Mapping[str, np.ndarray],
                   intervals: Mapping[str, tuple[np.ndarray, np.ndarray]], attack: str) -> Figure:
    """Accuracy of each class: clean (hollow), attacked (filled, with interval), and each seed attacked (dots).

    attacked, clean: for each method (seeds, classes). intervals: (low, high) of the attacked mean. The classes
    stand in the order of the last method's attacked mean, weakest first.
    """
    order = np.argsort(attacked[list(attacked)[-1]].mean(0), kind="stable")
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2 + 0.2 * len(attacked)))
    shift = np.linspace(-0.2, 0.2, len(attacked)) if len(attacked) > 1 else [0.0]
    for dx, (method, look) in zip(shift, looks(list(attacked)).items(), strict=True):
        x, mean = np.arange(len(classes)) + dx, attacked[method].mean(0)[order]
        low, high = (bound[order] for bound in intervals[method])
        ax.errorbar(x, mean, (np.maximum(mean - low, 0), np.maximum(high - mean, 0)), fmt=look["marker"], ms=6,
                    color=look["color"], capsize=2, label=f"{method} under {attack}")
        for seed in attacked[method]:
            ax.plot(x + 0.07, seed[order], ".", ms=3, color=look["color"], alpha=0.6)
        ax.plot(x, clean[method].mean(0)[order], look["marker"], mfc="none", color=look["color"],
                label=f"{method} on clean images")
    if max(map(len, attacked.values())) > 1:
        ax.plot([], [], ".", ms=4, color="0.4", label="one seed")
    _name_classes(ax, [classes[i] for i in order])
    ax.set(xlabel="class, the weakest first", ylabel="accuracy of the class", ylim=(-0.03, 1.05))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    handles, names = ax.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: (names[i] == "one seed", names[i].split()[0] != list(attacked)[0]))
    figure.legend([handles[i] for i in order], [names[i] for i in order], loc="outside lower center", ncols=3)
    return figure


def _name_classes(ax: Axes, names: Sequence[str], offset: float = 0.0, columns: int = 1) -> None:
    """Class names below the x axis of one of so many panels side by side: upright where they are too long for it, and
    none where there are too many to read.
    """
    long = (max(map(len, names)) + 1) * len(names) * columns > 95
    if len(names) > 3 * MANY:
        ax.set_xticks([])
        return
    size = {"fontsize": 7} if len(names) > MANY else {}
    ax.set_xticks(np.arange(len(names)) + offset, names, rotation=90 if long else 0, **size)


def class_grids(panels: Mapping[str, Mapping[str, np.ndarray]], classes: Sequence[str], label: str) -> Figure:
    """Heat maps of numbers in [0, 1], in percent, one below the other: a row a method, a column a class.

    panels: for each title and method (classes,). The classes of all panels stand in the order of the last panel's mean
    over methods, lowest first. label: what the numbers are.
    """
    order = np.argsort(np.mean(list(list(panels.values())[-1].values()), 0), kind="stable")
    rows = [len(panel) for panel in panels.values()]
    height = 0.9 + sum(0.27 * n + 0.45 for n in rows)
    figure, axes = plt.subplots(len(panels), 1, squeeze=False, figsize=(WIDTH, height), height_ratios=rows, sharex=True)
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=True):
        values = 100 * np.array([panel[method][order] for method in panel])
        sns.heatmap(values, ax=ax, annot=len(classes) <= MANY, fmt=".0f", cmap="viridis", vmin=0, vmax=100, cbar=False,
                    yticklabels=list(panel), annot_kws={"size": 8}, linewidths=0.3 if len(classes) <= MANY else 0)
        ax.set_title(title)
        ax.tick_params(axis="y", rotation=0)
        ax.grid(False)
    _name_classes(axes[-1, 0], [classes[i] for i in order], offset=0.5)
    axes[-1, 0].set_xlabel("class, the lowest first")
    figure.colorbar(axes[-1, 0].collections[0], ax=axes, label=label, shrink=0.8, format="%.0f %%")
    return figure


def classes_along(epochs: np.ndarray, accuracy: Mapping[str, np.ndarray], classes: Sequence[str], last: int) -> Figure:
    """Accuracy of each class along training, a panel a method: (epochs, classes), in grey; the two extremes in colour.

    The weakest and the strongest class are those of the mean over the `last` epochs, which are shaded.
    """
    columns = min(4, len(accuracy))
    lines = -(-len(accuracy) // columns)
    figure, panels = plt.subplots(lines, columns, squeeze=False, sharex=True, sharey=True,
                                  figsize=(WIDTH, 0.8 + 1.7 * lines))
    for ax, (method, values) in zip(panels.flat, accuracy.items(), strict=False):
        late = values[-last:].mean(0)
        ax.axvspan(epochs[-last:][0], epochs[-1], color="0.93", lw=0)
        ax.plot(epochs, values, color="0.6", lw=0.6)
        ends = {classes[late.argmax()]: (late.argmax(), STRONG), classes[late.argmin()]: (late.argmin(), WEAK)}
        for which, color in ends.values():
            ax.plot(epochs, values[:, which], color=color, lw=1.8)
        ax.set(title=method, ylim=(-0.03, 1.05))
        label_ends(ax, epochs[-1], {name: values[-1, which] for name, (which, _) in ends.items()},
                   {name: color for name, (_, color) in ends.items()}, 0.12)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    hide_rest(panels, len(accuracy))
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("accuracy of the class", fontsize=9)
    return figure


def class_scatter(points: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str], xlabel: str,
                  ylabel: str, notes: Mapping[str, str]) -> Figure:
    """One panel a method: x against y (seeds, classes) each; small points the seeds, names the means of the classes.

    y: accuracies in [0, 1]. notes: a line for each method, such as a correlation, below its name.
    """
    columns = min(3, len(points))
    lines = -(-len(points) // columns)
    figure, panels = plt.subplots(lines, columns, squeeze=False, sharey=True, figsize=(WIDTH, 0.5 + 2.1 * lines))
    for ax, (method, (x, y)) in zip(panels.flat, points.items(), strict=False):
        ax.plot(x.ravel(), y.ravel(), ".", ms=3, color=OKABE_ITO[0], alpha=0.5)
        for name, *place in zip(classes, x.mean(0), y.mean(0), strict=True):
            if max(map(len, classes)) <= 2:
                ax.annotate(name, place, ha="center", va="center", fontsize=8, weight="bold")
            elif len(classes) <= MANY:
                ax.plot(*place, "o", ms=4, color=OKABE_ITO[1])
                ax.annotate(name, place, xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
        ax.set(ylim=(-0.05, 1.05))
        ax.set_title(f"{method}\n{notes[method]}", fontsize=8)
        ax.margins(x=0.12)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    hide_rest(panels, len(points))
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return figure


def confusions(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Where each class goes: rows of (C, C) in percent, one panel a method, two in a line or, with more, three.

    Shares under 0.5 % are left blank, and all numbers where a cell is too small for them.
    """
    columns = 2 if len(matrices) <= 2 else 3
    lines = -(-len(matrices) // columns)
    figure, panels = plt.subplots(lines, columns, squeeze=False, figsize=(WIDTH, lines * (WIDTH / columns + 0.5)))
    names = list(classes) if len(classes) * columns <= 2 * MANY else False
    for ax, (method, matrix) in zip(panels.flat, matrices.items(), strict=False):
        text = np.where(matrix >= 0.005, np.round(100 * matrix).astype(int).astype(str), "")
        sns.heatmap(100 * matrix, ax=ax, annot=text if names else False, fmt="", cmap="Blues", vmin=0, vmax=100,
                    cbar=False, square=True, xticklabels=names, yticklabels=names,
                    annot_kws={"size": 7}, linewidths=0.3 if names else 0)
        ax.set(title=method, xlabel="predicted under attack", ylabel="true class")
        ax.tick_params(axis="y", rotation=0)
    hide_rest(panels, len(matrices))
    return figure


def agreement(panels: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> Figure:
    """Rank correlations between conditions, a heat map for each title: (names, (K, K)); the diagonal is framed.

    Panels stand side by side, or one below the other where the names of one are too many for half the width.
    """
    sizes = [len(names) for names, _ in panels.values()]
    below = max(sizes) > 8
    cell = min(0.3, 5.2 / max(sizes))  # of one below the other, in inches
    figure, axes = plt.subplots(*((len(panels), 1) if below else (1, len(panels))), squeeze=False, figsize=(
        WIDTH, 1.4 * len(panels) + cell * sum(sizes) if below else 0.9 + WIDTH / max(2, len(panels))),
        height_ratios=[size + 1.4 / cell for size in sizes] if below else None)
    for ax, (title, (names, matrix)) in zip(axes.flat, panels.items(), strict=True):
        text = np.array([[f"{value:.2f}".lstrip("0") for value in row] for row in matrix])
        sns.heatmap(matrix, ax=ax, annot=text if len(names) <= MANY else False, fmt="", cmap="viridis", vmin=0, vmax=1,
                    cbar=False, square=True, xticklabels=names, yticklabels=names, linewidths=0.3,
                    annot_kws={"size": 7.5 if below else 8})
        for i in range(len(names)):
            ax.add_patch(plt.Rectangle((i, i), 1, 1, fill=False, ec=OKABE_ITO[1], lw=2, clip_on=False))
        ax.set_title(title)
        ax.tick_params(axis="y", rotation=0)
        ax.tick_params(axis="x", rotation=90)
        ax.grid(False)
    return figure


def drops(classes: Sequence[str], steps: Mapping[str, Mapping[str, np.ndarray]], order: np.ndarray) -> Figure:
    """What a stronger attack takes off each class, in points, a panel a method: means as lines, seeds as small points.

    steps: for each method and step, such as 'fgsm to pgd-20', (seeds, classes). order: the classes, as they stand.
    """
    columns = min(3, len(steps))
    lines = -(-len(steps) // columns)
    figure, panels = plt.subplots(lines, columns, squeeze=False, sharex=True, sharey=True,
                                  figsize=(WIDTH, 1.1 + 1.9 * lines))
    for ax, (method, of_method) in zip(panels.flat, steps.items(), strict=False):
        ax.axhline(0, color="0.5", lw=0.8)
        for step, look in looks(list(of_method)).items():
            values = 100 * of_method[step][:, order]
            ax.plot(values.mean(0), marker=look["marker"], ms=4, lw=1.2, color=look["color"], label=step)
            for seed in values:
                ax.plot(seed, ".", ms=2.5, color=look["color"], alpha=0.5)
        ax.set_title(method)
        _name_classes(ax, [classes[i] for i in order], columns=columns)
    hide_rest(panels, len(steps))
    for ax in panels.flat[max(0, len(steps) - columns):len(steps)]:
        ax.set_xlabel("class, the weakest first")
    figure.supylabel("taken off the class, points", fontsize=9)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
