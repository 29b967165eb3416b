"""Learning curves, and attacks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from lib.figures.style import WIDTH, hide_rest, label_ends, looks

MOST = 8  # methods in one panel
CLEAN, ATTACKED = {"lw": 1, "ls": ":"}, {"lw": 1.4, "ls": "-"}


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, np.ndarray]]], attack: str) -> Figure:
    """Accuracy on the validation images by epoch: mean over seeds, and the range over seeds as a band.

    Clean and under attack side by side; of more than `MOST` methods each has a panel of its own.
    histories: for each method a list over seeds of columns epoch, clean and robust.
    """
    if len(histories) > MOST:
        return _learning_panels(histories, attack)
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharey=True)
    for ax, column, title in zip(panels, ("clean", "robust"), ("clean images", f"under {attack}"), strict=True):
        for method, look in looks(list(histories)).items():
            line = {"color": look["color"], "linestyle": look.get("linestyle")}
            _learning(ax, histories[method], column, label=method, **line)
        ax.set(title=title, xlabel="epoch", ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("validation accuracy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _learning(ax: Axes, seeds: Sequence[Mapping[str, np.ndarray]], column: str, **line) -> None:
    """The mean over seeds as a line, their range as a band."""
    epochs, values = np.asarray(seeds[0]["epoch"]), np.array([h[column] for h in seeds])
    ax.plot(epochs, values.mean(0), **line)
    ax.fill_between(epochs, values.min(0), values.max(0), color=line["color"], alpha=0.2, lw=0)


def _learning_panels(histories: Mapping[str, Sequence[Mapping[str, np.ndarray]]], attack: str) -> Figure:
    """A panel a method, clean (dotted) and under attack (solid); in grey the first one that is not 'standard'."""
    reference = next(method for method in histories if method != "standard")
    columns = 5
    lines = -(-len(histories) // columns)
    figure, panels = plt.subplots(lines, columns, squeeze=False, sharex=True, sharey=True,
                                  figsize=(WIDTH, 0.7 + 1.4 * lines))
    for ax, (method, look) in zip(panels.flat, looks(list(histories)).items(), strict=False):
        if method != reference:
            _learning(ax, histories[reference], "robust", color="0.65", lw=1)
        for column, line in (("clean", CLEAN), ("robust", ATTACKED)):
            _learning(ax, histories[method], column, color=look["color"], **line)
        ax.set_title(method, fontsize=8)
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.tick_params(labelsize=8)
    hide_rest(panels, len(histories))
    for ax in panels.flat[max(0, len(histories) - columns):len(histories)]:
        ax.set_xlabel("epoch", fontsize=8)
    figure.supylabel("validation accuracy", fontsize=9)
    figure.legend(handles=[Line2D([], [], color="0.2", label="clean images", **CLEAN),
                           Line2D([], [], color="0.2", label=f"under {attack}", **ATTACKED),
                           Line2D([], [], color="0.65", lw=1, label=f"{reference} under {attack}")],
                  loc="outside lower center", ncols=3, fontsize=8)
    return figure


def attack_accuracy(attacks: Sequence[str], accuracy: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy under each attack: for each method (seeds, attacks) in [0, 1], the mean as a line, seeds as dots.

    Each line is named at its right end, with its last mean.
    """
    height = max(3.2, 0.16 * len(accuracy) + 1.4)
    figure, ax = plt.subplots(figsize=(WIDTH, height))
    ends, colors = {}, {}
    for method, look in looks(list(accuracy)).items():
        values = accuracy[method]
        ax.plot(range(len(attacks)), values.mean(0), ms=5, lw=1, **look)
        for of_seed in values:
            ax.plot(range(len(attacks)), of_seed, ".", ms=3, color=look["color"], alpha=0.6)
        text = f"{method} {values[:, -1].mean():.0%}"
        ends[text], colors[text] = values[:, -1].mean(), look["color"]
    ax.set_xticks(range(len(attacks)), attacks, rotation=30, ha="right")
    ax.set(ylabel="accuracy", ylim=(-0.03, 1.05))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    label_ends(ax, len(attacks) - 1, ends, colors, 0.15 / (height - 1.2), tied=True, fontsize=8)
    return figure
