"""Temperature-PGD: its sweep of 1/T beside the attacks that it is to beat, and what becomes of its gradients."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from lib.figures.style import OKABE_ITO, WIDTH, apart

FORMS = {"stable": {"color": OKABE_ITO[0], "ls": "-"}, "naive": {"color": OKABE_ITO[1], "ls": "--"}}
REFERENCES = (OKABE_ITO[6], OKABE_ITO[2], OKABE_ITO[3], OKABE_ITO[4])
ROOM = 25.0  # the 1/T axis goes on by this factor, for the names of the lines


def temperature_sweep(inverse: np.ndarray, accuracy: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray],
                      chosen: np.ndarray, limits: tuple[float, float] | None = None, ax: Axes | None = None) -> Axes:
    """Accuracy under Temperature-PGD at each 1/T, less that under the first reference, in points.

    inverse: (T,). accuracy: 'stable' and 'naive' -> (seeds, T) in [0, 1]. references: name -> (seeds,), at most four
    other attacks, of which the first is the zero line. chosen: (seeds,) of 1/T. Lines: means over seeds; dots: seeds;
    rings: the chosen 1/T. limits: of the y axis, by default `sweep_limits`; where the naive form ends above them, its
    last accuracy is written there.
    """
    ax = ax or plt.subplots(figsize=(WIDTH * 0.6, 3))[1]
    base, order = references[next(iter(references))], np.argsort(inverse)
    low, high = limits or sweep_limits(accuracy, references)
    names = [(name, 100 * (value - base).mean(), color)
             for (name, value), color in zip(references.items(), REFERENCES, strict=False)]
    for _, y, color in names:
        ax.plot([inverse.min(), inverse.max()], [y, y], color=color, lw=0.9, ls=":" if color != REFERENCES[0] else "-")
    for form, look in FORMS.items():
        less = 100 * (accuracy[form] - base[:, None])[:, order]
        ax.plot(inverse[order], less.mean(0), lw=1.5, zorder=3, **look)
        if form == "stable":
            ax.plot(inverse[order], less.T, ".", ms=3, color=look["color"], alpha=0.5, zorder=3)
            for k, seed in zip(chosen, less, strict=True):
                ax.plot(k, seed[list(inverse[order]).index(k)], "o", ms=6, mfc="none", mec="black", mew=0.8, zorder=4)
        elif less.mean(0)[-1] > high:
            names.append((f"$\\uparrow$ {accuracy[form][:, order[-1]].mean():.0%}", high, look["color"]))
    _name(ax, inverse.max(), names, 0.055 * (high - low))
    ax.set(ylim=(low, high))
    _of_inverse(ax, inverse)
    return ax


def sweep_limits(accuracy: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Lower and upper end of `temperature_sweep`, in points: every seed of the stable form, means of the references."""
    base = references[next(iter(references))]
    values = 100 * np.concatenate([(accuracy["stable"] - base[:, None]).ravel(),
                                   [(value - base).mean() for value in references.values()]])
    room = 0.06 * max(np.ptp(values), 1.0)
    return values.min() - room, values.max() + room


def _name(ax: Axes, end: float, names: list[tuple[str, float, str]], gap: float) -> None:
    """Write names (text, height, colour) right of x = `end`, at least `gap` apart, each tied to its height."""
    for (text, y, color), place in zip(names, apart([y for _, y, _ in names], gap), strict=True):
        ax.annotate(text, (end, y), (end * 1.5, place), color=color, fontsize=7, va="center", annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "color": color, "lw": 0.4, "shrinkA": 1, "shrinkB": 0,
                                "relpos": (0, 0.5)})


def _of_inverse(ax: Axes, inverse: np.ndarray) -> None:
    """A logarithmic axis of 1/T with a few round numbers, and room to its right."""
    ax.set_xscale("log")
    ax.set_xlim(inverse.min() / 1.3, inverse.max() * ROOM)
    decades = 10.0 ** np.arange(np.ceil(np.log10(inverse.min())), np.floor(np.log10(inverse.max())) + 1)
    ax.xaxis.set_major_locator(FixedLocator(decades))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))


def temperature_gradients(inverse: np.ndarray, zero: Mapping[str, np.ndarray], agreement: Mapping[str, np.ndarray],
                          axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Above: share of images whose gradient is 0 everywhere. Below: share of pixels with the margin gradient's sign.

    inverse: (T,). zero, agreement: 'stable' and 'naive' -> (T,) in [0, 1].
    """
    axes = axes if axes is not None else plt.subplots(2, 1, figsize=(WIDTH * 0.6, 2.6), sharex=True)[1]
    order = np.argsort(inverse)
    for ax, values in zip(axes, (zero, agreement), strict=True):
        for form, look in FORMS.items():
            ax.plot(inverse[order], values[form][order], lw=1.5, **look)
        ax.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        _of_inverse(ax, inverse)
    return tuple(axes)


def temperature_panels(methods: Mapping[str, Mapping]) -> Figure:
    """A column a method: `temperature_sweep`, and under it `temperature_gradients`. All columns share their axes.

    methods: name -> their arguments inverse, accuracy, references, chosen, zero and agreement.
    """
    columns = len(methods)
    figure, panels = plt.subplots(3, columns, sharex="col", sharey="row", squeeze=False, height_ratios=(3.5, 1, 1),
                                  figsize=(WIDTH if columns > 1 else WIDTH * 0.75, 5))
    ends = [sweep_limits(found["accuracy"], found["references"]) for found in methods.values()]
    limits = min(low for low, _ in ends), max(high for _, high in ends)
    for (name, found), column in zip(methods.items(), panels.T, strict=True):
        inverse, first = np.asarray(found["inverse"]), next(iter(found["references"].items()))
        temperature_sweep(inverse, found["accuracy"], found["references"], found["chosen"], limits, column[0])
        temperature_gradients(inverse, found["zero"], found["agreement"], column[1:])
        column[0].set_title(f"{name}\n{first[0]}: {first[1].mean():.1%}", fontsize=8)
        column[2].set_xlabel("1/T", fontsize=8)
        for ax in column:
            ax.tick_params(labelsize=7.5)
            ax.set_xlim(right=inverse.max() * (ROOM if columns > 1 else ROOM / 5))
    panels[0, 0].set_ylabel(f"accuracy less that under {first[0]}\n(points; lower: a stronger attack)", fontsize=8)
    panels[1, 0].set_title("images with zero gradient", fontsize=8)
    panels[2, 0].set_title("pixels with margin's sign", fontsize=8)
    handles = [Line2D([], [], lw=1.5, **look, label=f"Temperature-PGD, {form}") for form, look in FORMS.items()]
    handles += [Line2D([], [], ls="", marker=".", ms=4, color=FORMS["stable"]["color"], label="one seed"),
                Line2D([], [], ls="", marker="o", ms=6, mfc="none", mec="black", mew=0.8,
                       label="1/T chosen on validation")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if columns == 1 else 4, fontsize=7.5,
                  handlelength=1.8, columnspacing=1.2)
    return figure
