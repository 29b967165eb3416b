"""One page for the class-wise paper: six questions, six panels."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.figures.style import OKABE_ITO, WIDTH, label_ends, looks


def page(panels: Sequence[tuple[str, str, Callable[[Axes], object]]]) -> Figure:
    """Two columns of panels, each with a question as its title and an answer below it.

    panels: (question, answer, draw), where draw(ax) draws. An empty answer leaves its line out.
    """
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(WIDTH * 1.35, 3.6 * rows), squeeze=False)
    for letter, ax, (question, answer, draw) in zip("abcdefgh", axes.flat, panels, strict=False):
        draw(ax)
        lines = fill(answer, 68).split("\n")
        texts = [ax.text(0, 1.02, "\n".join(lines), transform=ax.transAxes, fontsize=7.5, color="0.3", va="bottom"),
                 ax.set_title(f"{letter}  {question}", fontsize=9.5, weight="bold", pad=6 + 11 * len(lines))]
        for text in texts:
            text.set_in_layout(False)  # they may be wider than their panel, and the layout keeps room for them
    for ax in list(axes.flat)[len(panels):]:
        ax.set_visible(False)
    figure.get_layout_engine().set(hspace=0.17, wspace=0.06, rect=(0, 0, 1, 0.98))
    return figure


def class_lines(classes: Sequence[str], accuracy: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray,
                ax: Axes) -> None:
    """Accuracy of the classes (classes,), a line a method, in the order of the first one, whose interval is shaded."""
    order = np.argsort(next(iter(accuracy.values())), kind="stable")
    ax.fill_between(range(len(order)), low[order], high[order], color="0.9", lw=0)
    for method, look in looks(list(accuracy)).items():
        ax.plot(range(len(order)), accuracy[method][order], ms=4, lw=1, label=method, **look)
    ax.set_xticks(range(len(order)), [classes[c] for c in order] if len(order) <= 20 else [""] * len(order))
    ax.set(xlabel="class, the weakest first", ylabel="accuracy under all attacks", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    many = len(accuracy) > 10
    ax.legend(fontsize=5.5 if many else 7, loc="lower right", handlelength=1.5, columnspacing=1,
              ncols=3 if many else 1 + (len(accuracy) > 6))


def weakest_along(epochs: np.ndarray, accuracy: np.ndarray, classes: Sequence[str], ax: Axes) -> None:
    """Accuracy (epochs, classes) along training, in grey; the weakest and the strongest class at the end in colour."""
    ax.plot(epochs, accuracy, color="0.8", lw=1)
    ends = {}
    for c, color in zip(np.argsort(accuracy[-3:].mean(0), kind="stable")[[0, 1, -1]], OKABE_ITO, strict=False):
        ax.plot(epochs, accuracy[:, c], color=color, lw=1.6)
        ends[str(classes[c])] = (accuracy[-1, c], color)
    ax.set(xlabel="epoch", ylabel="accuracy of the class", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    label_ends(ax, epochs[-1], {name: y for name, (y, _) in ends.items()}, {n: color for n, (_, color) in ends.items()})


def confusion_map(matrix: np.ndarray, classes: Sequence[str], ax: Axes) -> None:
    """A confusion matrix (C, C) of shares, in percent; the diagonal, what is right, left white."""
    wrong = np.ma.masked_array(100 * matrix, np.eye(len(matrix), dtype=bool))
    text = np.where(matrix >= 0.05, np.round(100 * matrix).astype(int).astype(str), "") if len(classes) <= 12 else False
    names = list(classes) if len(classes) <= 12 else False
    sns.heatmap(wrong.filled(0), mask=wrong.mask, ax=ax, annot=text, fmt="", cmap="Blues", vmin=0, cbar=False,
                square=True, xticklabels=names, yticklabels=names, annot_kws={"size": 7}, linewidths=0.3)
    ax.set(xlabel="taken for", ylabel="true class")
    ax.tick_params(axis="y", rotation=0)
