"""Sharpness and the robust generalisation gap, along training and across networks: after Figure 1 of Wu et al. 2020."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from lib.figures.style import OKABE_ITO, WIDTH, label_ends, looks

TRAIN, TEST, SHARP = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2]
LOW = 0.1  # the distance of names in a low panel, as a share of its height


def along_training(alphas: np.ndarray, curves: Mapping[int, np.ndarray], accuracy: Mapping[str, np.ndarray],
                   sharpness: Mapping[str, np.ndarray], drops: Sequence[int], warmup: float, attack: str) -> Figure:
    """One training: g(alpha) at some epochs; accuracy on training and test images; sharpness and robust test loss.

    alphas: (A,). curves: epoch -> g by direction (D, A). accuracy: epoch (E,), train and test (E,) in [0, 1], under
    `attack`, and loss (E,), cross-entropy of test images under attack. sharpness: epoch (L,), low, mean and high (L,).
    drops: the epochs after which the learning rate falls; warmup: the epochs in which the radius of the attack grows.
    """
    figure, panels = plt.subplot_mosaic([["g", "rate"], ["g", "sharp"]], figsize=(WIDTH, 4), height_ratios=(1.3, 1))
    _valleys(panels["g"], alphas, {str(epoch): g for epoch, g in curves.items()}, _by_time(curves), "epoch")
    ax, epoch = panels["rate"], np.asarray(accuracy["epoch"])
    ax.fill_between(epoch, accuracy["test"], accuracy["train"], color="0.9", lw=0)
    ends = {"training": (accuracy["train"], TRAIN), "test": (accuracy["test"], TEST)}
    for values, color in ends.values():
        ax.plot(epoch, values, color=color, marker=".", ms=4)
    gap = accuracy["train"][-1] - accuracy["test"][-1]
    named = {f"{name} {y[-1]:.0%}": (y[-1], color) for name, (y, color) in ends.items()}
    named[f"gap {100 * gap:.0f} points"] = ((accuracy["train"][-1] + accuracy["test"][-1]) / 2, "0.4")
    ax.set(title=f"accuracy under {attack}", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(labelbottom=False)
    _name(ax, epoch[-1], named, LOW)
    ax = panels["sharp"]
    ax.plot(epoch, accuracy["loss"], color=TEST, ls="--")
    ax.plot(sharpness["epoch"], sharpness["mean"], color=SHARP, marker=".", ms=4)
    ax.fill_between(sharpness["epoch"], sharpness["low"], sharpness["high"], color=SHARP, alpha=0.2, lw=0)
    seen = epoch >= warmup
    ax.set(title="sharpness, and loss under attack", xlabel="epoch",
           ylim=(0, 1.1 * max(np.max(sharpness["high"]), np.max(np.asarray(accuracy["loss"])[seen], initial=0))))
    _name(ax, epoch[-1], {"sharpness S": (sharpness["mean"][-1], SHARP), "test loss": (accuracy["loss"][-1], TEST)},
          LOW)
    _events((panels["rate"], panels["sharp"]), drops, warmup, epoch[-1])
    return figure


def across_networks(alphas: np.ndarray, curves: Mapping[str, np.ndarray], points: Mapping[str, tuple],
                    estimates: Mapping[str, tuple[Mapping, Mapping]]) -> Figure:
    """Networks against each other: g(alpha), and sharpness against the robust generalisation gap.

    curves: name -> (D, A), over directions and seeds. points: name -> sharpness and gap over seeds, each (seeds,).
    estimates: name -> of each of the two mean, low and high (nan: no interval). The marker at the end of a curve is the
    one of its network on the right.
    """
    style = looks(list(curves))
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    _valleys(left, alphas, curves, {name: look["color"] for name, look in style.items()}, "",
             {name: look.get("linestyle", "-") for name, look in style.items()})
    for name, look in style.items():
        left.plot(alphas[-1], np.mean(curves[name], 0)[-1], ms=6, clip_on=False, **look)
        (sharp, gap), (x, y) = points[name], estimates[name]
        right.plot(sharp, gap, ".", ms=4, color=look["color"], alpha=0.5)
        bars = {f"{axis}err": [[v["mean"] - v["low"]], [v["high"] - v["mean"]]]
                for axis, v in (("x", x), ("y", y)) if not np.isnan(v["low"])}
        right.errorbar(x["mean"], y["mean"], ms=7, capsize=2, **{**look, "linestyle": "none"}, **bars)
    right.set(xlabel="sharpness S", ylabel="robust generalisation gap (points)", title="sharpness and gap")
    right.margins(0.1)
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 1):g}"))
    return figure


def _valleys(ax: Axes, alphas: np.ndarray, curves: Mapping[str, np.ndarray], colors: Mapping, word: str,
             lines: Mapping[str, object] | None = None) -> None:
    """g(alpha), means over the rows of each (D, A), with names at the right end; S is read at the dotted lines."""
    for name, g in curves.items():
        ax.plot(alphas, np.mean(g, 0), color=colors[name], lw=1.5, ls=(lines or {}).get(name, "-"))
    for alpha in (-0.5, 0, 0.5):
        ax.axvline(alpha, color="0.6", lw=0.8, ls=":", zorder=0)
    ax.set(xlabel=r"$\alpha$ along a filter-normalised direction", title=r"loss under attack at $w + \alpha d$")
    ax.set_ylim(0, 1.08 * ax.get_ylim()[1])  # room for names above the highest curve
    ends = {f"{word} {name}".strip() if name == next(iter(curves)) else name: (np.mean(g, 0)[-1], colors[name])
            for name, g in curves.items()}
    _name(ax, alphas[-1], ends)


def _by_time(curves: Mapping[int, np.ndarray]) -> dict[str, tuple]:
    """A colour for each epoch, from dark to light."""
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(curves)))
    return {str(epoch): tuple(shade) for epoch, shade in zip(curves, shades, strict=True)}


def _name(ax: Axes, x: float, ends: Mapping[str, tuple], gap: float = 0.055) -> None:
    """Names right of x: text -> (height, colour)."""
    heights, colors = ({text: each[i] for text, each in ends.items()} for i in (0, 1))
    label_ends(ax, x, heights, colors, gap)


def _events(panels: Sequence[Axes], drops: Sequence[int], warmup: float, end: float) -> None:
    """The drops of the learning rate as lines, and the warm-up of the radius as a shade, named in the first panel."""
    for ax in panels:
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for drop in drops:
            ax.axvline(drop, color="0.3", lw=0.8, ls="--", zorder=0)
        if warmup:
            ax.axvspan(0, warmup, color="0.95", lw=0, zorder=-1)
    for drop in drops:
        panels[0].annotate("lr / 10", (drop, 0.03), xytext=(2, 0), textcoords="offset points", fontsize=7, color="0.3")
    if warmup:
        panels[0].annotate(r"$\epsilon$ grows", (warmup / 2, 0.93), ha="center", fontsize=7, color="0.3")
