"""The removal experiment: what comes home when a class is gone, and examples."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib.figures.style import MARKERS, OKABE_ITO, WIDTH

HOME, AWAY, CONTROL = OKABE_ITO[0], OKABE_ITO[1], "0.45"


def homing_rates(rates: Mapping[str, Mapping[str, Mapping]], gains: Mapping[str, Mapping[str, Mapping]] | None = None,
                 ax: Axes | None = None) -> Figure:
    """Share of the attacked images that are right again: one block a reading, in it one row a network.

    rates: for each reading, by its heading, and in it for each network an estimate with rate, low and high in [0, 1].
    The first network of a reading is the treatment, in colour, the others are its controls. gains: for each reading
    and each control the treatment less that control, in [-1, 1]; written beside the rows if given, which takes a third
    of the width. An estimate of nan is not drawn.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 0.8 + 0.27 * sum(len(networks) + 1 for networks in rates.values())))
    names, y = [], 0.0
    for heading, networks in rates.items():
        ax.text(0, y, heading, weight="bold", va="center", transform=ax.get_yaxis_transform())
        treated = next(iter(networks.values()))["rate"]
        ax.plot([treated, treated], [y + 1, y + len(networks)], ":", color=HOME, lw=1.2)
        for row, (name, found) in enumerate(networks.items()):
            y, color = y + 1, CONTROL if row else HOME
            bars = np.abs([[found["rate"] - found["low"]], [found["high"] - found["rate"]]])
            ax.errorbar(found["rate"], y, xerr=bars, fmt=MARKERS[row], ms=5 if row else 8, capsize=2.5, color=color)
            names.append((y, name))
            if gains is not None:
                text = _gain(gains[heading][name]) if row else _rate(found)
                ax.text(1.03, y, text, color=color, va="center", fontsize=8, transform=ax.get_yaxis_transform())
        y += 1.3
    ax.set_yticks([at for at, _ in names], [name for _, name in names])
    ax.set(xlim=(-0.02, 1.02), ylim=(y - 0.7, -0.6), xlabel="share of these images that is right")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    return ax.figure


def _rate(found: Mapping) -> str:
    """An estimate of a rate in words; none of nan."""
    if np.isnan(found["rate"]):
        return ""
    return "{:.0f} % ({:.0f} to {:.0f})".format(*(100 * found[key] for key in ("rate", "low", "high")))


def _gain(found: Mapping) -> str:
    """An estimate of a difference in words; none of nan."""
    if np.isnan(found["rate"]):
        return ""
    gain, low, high = (round(100 * found[key]) for key in ("rate", "low", "high"))
    return f"removal {gain:+d} points ({low:+d} to {high:+d})"


def homing_examples(pictures: np.ndarray, attacked: np.ndarray, lines: Mapping[str, Sequence[str]],
                    home: Sequence[bool], size: float = 0.85) -> Figure:
    """Images and their attacked versions, (N, H, W) or (N, H, W, 3) in [0, 1], one column an image.

    lines: what is said of each, (N,) by its heading, in three lines: above the image, and two below the attacked one.
    The last line is blue with a tick where the image came home, red with a cross where it did not.
    """
    figure, axes = plt.subplots(2, len(pictures), squeeze=False, figsize=(size * len(pictures) + 1.3, 2 * size + 0.8))
    for row, shown in enumerate((pictures, attacked)):
        for ax, picture in zip(axes[row], shown, strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
    for (heading, said), row, y in zip(lines.items(), (0, 1, 1), (1.12, -0.14, -0.36), strict=True):
        last = y == -0.36
        axes[row, 0].text(-0.2, y, heading, fontsize=8, ha="right", va="center", transform=axes[row, 0].transAxes)
        for ax, word, came in zip(axes[row], said, home, strict=True):
            ax.text(0.5, y, f"{word} {'✓' if came else '✗'}" if last else word, fontsize=8, ha="center", va="center",
                    transform=ax.transAxes, color=(HOME if came else AWAY) if last else "black")
    axes[1, 0].set_ylabel("attacked", rotation=0, ha="right", va="center", fontsize=8)
    return figure
