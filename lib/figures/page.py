"""One page for the class-wise paper: six questions, six panels."""

import re
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import blended_transform_factory

from lib.figures.style import OKABE_ITO, WIDTH, below, label_ends, looks

APART = 4  # methods that are named beside the first one
EXTREMES = OKABE_ITO[1], OKABE_ITO[4], OKABE_ITO[0]  # the weakest class, the next, and the strongest


def page(panels: Sequence[tuple[str, str, Callable[[Axes], object]]]) -> Figure:
    """Two columns of panels, each with a question as its title and an answer below it.

    panels: (question, answer, draw), where draw(ax) draws. An empty answer leaves its line out.
    """
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(WIDTH, 3.5 * rows), squeeze=False)
    for number, (ax, (question, answer, draw)) in enumerate(zip(axes.flat, panels, strict=False)):
        draw(ax)
        ax.xaxis.label.set_size(8)
        ax.yaxis.label.set(text=fill(ax.get_ylabel(), 34), size=8)
        ax.tick_params(labelsize=8)
        _head(ax, number % 2, f"{'abcdefgh'[number]}  {question}", answer)
    for ax in list(axes.flat)[len(panels):]:
        ax.set_visible(False)
    # Room at the left: the layout sees the ticks of smaller panels, which may be fewer and narrower.
    figure.get_layout_engine().set(hspace=0.06, wspace=0.06, rect=(0.02, 0, 0.98, 1))
    return figure


def _head(ax: Axes, column: int, question: str, answer: str) -> None:
    """Question and answer above a panel, from the left end of its column on."""
    place = blended_transform_factory(ax.figure.transFigure, ax.transAxes)
    answer = re.sub(r"(\[\S+) (\S+\])", "\\1\N{NO-BREAK SPACE}\\2", answer)  # an interval stays on its line
    up = 6.0  # points above the panel
    for text, size, wide, style in ((answer, 7.2, 62, {"color": "0.3"}), (question, 9, 46, {"weight": "bold"})):
        lines = fill(text, wide).split("\n") if text else []
        ax.annotate("\n".join(lines), (0.01 + 0.5 * column, 1), xycoords=place, xytext=(0, up), va="bottom",
                    textcoords="offset points", fontsize=size, linespacing=1.15, **style).set_in_layout(False)
        up += 1.25 * size * len(lines) + 2
    ax.set_title(" ", fontsize=8, pad=up - 8)  # so that the layout keeps this height, but no width


def class_lines(classes: Sequence[str], accuracy: Mapping[str, np.ndarray], low: np.ndarray, high: np.ndarray,
                ax: Axes) -> None:
    """Accuracy of the classes (classes,), a line a method, in the order of the first one, whose interval is shaded.

    In colour the first one and up to `APART` that leave its interval the farthest; the others are grey.
    """
    order, (first, *others) = np.argsort(next(iter(accuracy.values())), kind="stable"), accuracy
    left = {m: np.maximum(np.maximum(low - accuracy[m], accuracy[m] - high), 0).sum() for m in others}
    named = [first, *sorted((m for m in others if left[m] > 0), key=left.get, reverse=True)[:APART]]
    ax.fill_between(range(len(order)), low[order], high[order], color="0.9", lw=0)
    for method, look in ((m, look) for m, look in looks(list(accuracy)).items() if m in named):
        ax.plot(range(len(order)), accuracy[method][order], ms=4, lw=1.2, label=method, **look)
    rest = [m for m in others if m not in named]
    for number, method in enumerate(rest):
        ax.plot(range(len(order)), accuracy[method][order], lw=0.8, color="0.55", zorder=1.5,
                label="_" if number else f"{len(rest)} other methods" if len(rest) > 1 else method)
    ax.set_xticks(range(len(order)), [classes[c] for c in order] if len(order) <= 20 else [""] * len(order))
    ax.set(xlabel="class, the weakest first", ylabel="accuracy under all attacks", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    below(ax)


def weakest_along(epochs: np.ndarray, accuracy: np.ndarray, classes: Sequence[str], ax: Axes) -> None:
    """Accuracy (epochs, classes) along training, in grey; the weakest and the strongest class at the end in colour."""
    ax.plot(epochs, accuracy, color="0.75", lw=0.8)
    ends = {}
    for c, color in zip(np.argsort(accuracy[-3:].mean(0), kind="stable")[[0, 1, -1]], EXTREMES, strict=True):
        ax.plot(epochs, accuracy[:, c], color=color, lw=1.6)
        ends[str(classes[c])] = (accuracy[-1, c], color)
    ax.set(xlabel="epoch", ylabel="accuracy of the class", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    label_ends(ax, epochs[-1], {name: y for name, (y, _) in ends.items()},
               {name: color for name, (_, color) in ends.items()}, 0.08)


def confusion_map(matrix: np.ndarray, classes: Sequence[str], ax: Axes) -> None:
    """A confusion matrix (C, C) of shares, in percent; the diagonal, what is right, left white."""
    wrong = np.ma.masked_array(100 * matrix, np.eye(len(matrix), dtype=bool))
    text = np.where(matrix >= 0.05, np.round(100 * matrix).astype(int).astype(str), "") if len(classes) <= 12 else False
    names = list(classes) if len(classes) <= 12 else False
    sns.heatmap(wrong.filled(0), mask=wrong.mask, ax=ax, annot=text, fmt="", cmap="Blues", vmin=0, cbar=False,
                square=True, xticklabels=names, yticklabels=names, annot_kws={"size": 7}, linewidths=0.3)
    ax.set(xlabel="taken for", ylabel="true class")
    ax.tick_params(axis="y", rotation=0)
