"""One classifier attacked by two protocols: accuracy under every attack, where examples end up, steps and radii."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from lib.figures.style import OKABE_ITO, WIDTH, bars

# The first protocol is a ring around the dot of the second, so that both are seen where they agree.
PROTOCOLS = ({"color": OKABE_ITO[1], "marker": "o", "ms": 7.5, "mfc": "white", "mew": 1.4, "linestyle": "--"},
             {"color": OKABE_ITO[0], "marker": "o", "ms": 3.6, "linestyle": "-"})
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[1]
ENDS = ({"facecolor": RIGHT}, {"facecolor": "white", "edgecolor": RIGHT, "hatch": "////"},
        {"facecolor": WRONG}, {"facecolor": "white", "edgecolor": WRONG, "hatch": r"\\\\"})
LEAST = 0.05  # a share of a bar that is written into it


def protocol_accuracy(groups: Mapping[str, Mapping[str, Mapping[str, Mapping]]],
                      worst: Mapping[str, Mapping]) -> Figure:
    """Accuracy under each attack: a row an attack, in groups, with a mark for each protocol that has it.

    groups: heading -> attack -> protocol -> accuracy, low and high in [0, 1]. worst: protocol -> the same of its worst
    case, a line through all rows with its interval as a band. Its first entry is drawn as a ring, the second as a dot.
    """
    lines = sum(len(rows) + 1 for rows in groups.values())
    figure, ax = plt.subplots(figsize=(WIDTH, 0.7 + 0.178 * lines))
    style = dict(zip(worst, PROTOCOLS, strict=True))
    for y, found in _rows(ax, groups):
        for protocol, each in found.items():
            ax.errorbar(each["accuracy"], y, xerr=bars(each["accuracy"], each["low"], each["high"]), capsize=2, lw=1,
                        zorder=3 + list(worst).index(protocol), **{**style[protocol], "linestyle": "none"})
    for protocol, each in worst.items():
        look = style[protocol]
        ax.axvline(each["accuracy"], color=look["color"], ls=look["linestyle"], lw=1.2, zorder=1)
        ax.axvspan(each["low"], each["high"], color=look["color"], alpha=0.12, lw=0, zorder=0)
    ax.set(xlim=(-0.02, 1.02), xlabel="accuracy of the deployed classifier")
    ax.grid(axis="y", visible=False)
    figure.legend(handles=[_handle(protocol, each, style[protocol]) for protocol, each in worst.items()],
                  loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _rows(ax: Axes, groups: Mapping[str, Mapping]) -> Iterator[tuple[float, Mapping | Sequence]]:
    """Height and content of each row, to draw; writes the heading of each group, and in the end the names of the rows.

    groups: heading -> name of a row -> its content.
    """
    names, y = [], 0
    for heading, rows in groups.items():
        ax.text(-0.015, y, heading, weight="bold", fontsize=8, ha="right", va="center",
                transform=ax.get_yaxis_transform())
        for name, content in rows.items():
            y += 1
            names.append((y, name))
            yield y, content
        y += 1.15
    ax.set_yticks([at for at, _ in names], [name for _, name in names], fontsize=8)
    ax.set(ylim=(y - 0.6, -0.6))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(PercentFormatter(1))


def _handle(protocol: str, each: Mapping, look: Mapping) -> Line2D:
    """The mark of a protocol, and its worst case in words."""
    return Line2D([], [], lw=1.2, label=f"{protocol} (line: its worst case, {each['accuracy']:.1%})", **look)


def raw_ends(groups: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]) -> Figure:
    """Which of the 2C logits is the largest: a bar an attack, in groups, of four shares that add up to 1.

    groups: heading -> attack -> shares (4,). names: of the shares: the label, its dummy, another class, another dummy.
    The first two are right once a dummy counts as its class.
    """
    lines = sum(len(rows) + 1 for rows in groups.values())
    figure, ax = plt.subplots(figsize=(WIDTH, 0.8 + 0.23 * lines))
    for y, shares in _rows(ax, groups):
        _stack(ax, y, shares)
    ax.set(xlim=(0, 1), xlabel="share of the images")
    ax.grid(visible=False)
    figure.legend(handles=[Patch(label=name, lw=0.8, **{"edgecolor": "white", **look})
                           for name, look in zip(names, ENDS, strict=True)],
                  loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _stack(ax: Axes, y: float, shares: Sequence[float]) -> None:
    """One bar, with its larger shares in percent."""
    left = 0.0
    for share, look in zip(shares, ENDS, strict=True):
        ax.barh(y, share, 0.78, left, lw=0.8, **{"edgecolor": "white", **look})
        if share >= LEAST:
            full = look["facecolor"] != "white"
            ax.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=7.5,
                    color="white" if full else "black",
                    bbox=None if full else {"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        left += share
