"""Learning curves, and attacks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.figures.style import WIDTH, label_ends, looks


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, np.ndarray]]], attack: str) -> Figure:
    """Accuracy on the validation images by epoch: mean over seeds, and the range over seeds as a band.

    histories: for each method a list over seeds of columns epoch, clean and robust.
    """
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, max(2.6, 0.5 + 0.19 * len(histories))), sharey=True)
    for ax, column, title in zip(panels, ("clean", "robust"), ("clean images", f"under {attack}"), strict=True):
        for method, look in looks(list(histories)).items():
            epochs = np.asarray(histories[method][0]["epoch"])
            values = np.array([h[column] for h in histories[method]])
            ax.plot(epochs, values.mean(0), color=look["color"], linestyle=look.get("linestyle"), label=method)
            ax.fill_between(epochs, values.min(0), values.max(0), color=look["color"], alpha=0.2, lw=0)
        ax.set(title=title, xlabel="epoch", ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("validation accuracy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def attack_accuracy(attacks: Sequence[str], accuracy: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy under each attack: for each method (seeds, attacks) in [0, 1], the mean as a line, seeds as dots."""
    figure, ax = plt.subplots(figsize=(WIDTH * 0.85, 3.2))
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
    label_ends(ax, len(attacks) - 1, ends, colors)
    return figure
