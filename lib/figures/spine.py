"""Learning curves, the trade-off, attacks."""

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
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharey=True)
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


def trade_off(points: Mapping[str, tuple[np.ndarray, np.ndarray]], clean: Mapping[str, Mapping],
              robust: Mapping[str, Mapping], attack: str) -> Figure:
    """Clean against robust accuracy: each seed a small point, each method its mean with intervals over seeds.

    points: for each method (clean, robust) over seeds; clean, robust: mean, low, high (nan: no interval). With more
    than three methods a second panel shows those closer that are at least half as robust as the best.
    """
    best = max(robust[m]["mean"] for m in points)
    close = [m for m in points if robust[m]["mean"] >= best / 2]
    panels = [list(points)] + [close] * (len(points) > 3)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3), squeeze=False)
    for ax, methods in zip(axes.flat, panels, strict=True):
        for method, look in looks(list(points)).items():
            if method not in methods:
                continue
            x, y = clean[method], robust[method]
            ax.plot(*points[method], ".", ms=4, color=look["color"], alpha=0.5)
            ax.errorbar(x["mean"], y["mean"], xerr=_bars(x), yerr=_bars(y), ms=7, capsize=2, label=method,
                        **{**look, "linestyle": "none"})
        ax.set(xlabel="clean accuracy", title="closer" if len(panels) == 2 and methods is close else "")
        ax.margins(x=0.15, y=0.15)
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        ax.yaxis.set_major_formatter(PercentFormatter(1))  # as many digits as the ticks need
    axes[0, 0].set(ylabel=f"accuracy under {attack}", ylim=(-0.03, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _bars(value: Mapping) -> np.ndarray | None:
    if np.isnan(value["low"]):
        return None
    return np.array([[value["mean"] - value["low"]], [value["high"] - value["mean"]]])


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
