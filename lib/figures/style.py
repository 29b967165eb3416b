"""One style, one colour a method, the same bytes each time; and grids of pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression

# Okabe and Ito's colours, which colour-blind readers can tell apart, with grey for their yellow, faint on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
OBJECTIVES = ("standard", "pgd", "trades", "mart")
# Looks that do not go by the place in a list. Colour-blind readers can tell the dark brown from the other eight.
FIXED = {**{m: {"color": OKABE_ITO[i], "marker": MARKERS[i]} for i, m in enumerate(OBJECTIVES)},
         "consistency": {"color": "#663300", "marker": "<"}}
VARIANTS = {"awp": {"linestyle": "--", "markerfacecolor": "white"}, "ducat": {"linestyle": ":", "marker": "h"},
            "silu": {"linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "p"},
            "sparta": {"linestyle": "-.", "marker": "*"}}
WIDTH = 7.0  # inches: a page's text width


def use_style() -> None:
    """The look of every figure. Call it once, after the imports."""
    sns.set_theme(context="paper", style="ticks", palette=OKABE_ITO)
    mpl.rcParams.update({
        "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10,
        "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False, "image.interpolation": "nearest",
        "svg.hashsalt": "companion",
    })


def save(figure: Figure, path: Path, title: str = "") -> None:
    """Write a figure as SVG, without a date, so that equal figures are equal files.

    title: what a reader who sees the figure alone has to know: data set, threat model, seeds.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def looks(methods: Sequence[str]) -> dict[str, dict]:
    """Colour and marker of each method, as keyword arguments for `plot`.

    An objective looks the same in every figure, and so do its variants: with AWP a dashed line and a white marker, with
    DUCAT a dotted line and a hexagon, with SiLU or Sparta dots and dashes. The rest go by their place in the list.
    """
    def parts(method: str) -> tuple[str, str]:
        """What a method is a variant of, and the add-on; or nothing."""
        base, _, add_on = method.rpartition("+")
        return (base, add_on) if add_on in VARIANTS and (base in methods or base in FIXED) else ("", "")

    others = [m for m in methods if m not in FIXED and not parts(m)[0]]
    places = [*OBJECTIVES, *others] if any(name in FIXED for m in methods for name in (m, parts(m)[0])) else others
    found = {m: {"color": OKABE_ITO[i % 8], "marker": MARKERS[(i + i // 8) % 8]} for i, m in enumerate(places)} | FIXED

    def look(method: str) -> dict:
        """That of what it is a variant of, with the add-on's changes."""
        base, add_on = parts(method)
        return {**look(base), **VARIANTS[add_on]} if base else found[method]

    return {m: look(m) for m in methods}


def percent(value: float, _: int) -> str:
    """A tick of an accuracy in percent, with as many digits as it needs; none outside 0 to 1. For `FuncFormatter`."""
    return f"{abs(round(100 * value, 1)):g}%" if -1e-6 < value < 1 + 1e-6 else ""


def bars(mean: float, low: float, high: float) -> np.ndarray | None:
    """An interval as `errorbar` wants it: its lengths below and above the mean, (2, 1); None without one (nan).

    Never below 0, whatever the last bit.
    """
    return None if np.isnan(low) else np.array([[mean - low], [high - mean]]).clip(0)


def label_ends(ax: Axes, x: float, ends: Mapping[str, float], colors: Mapping[str, str], gap: float = 0.055,
               tied: bool = False, **style) -> None:
    """Write each text right of x at its height, moved apart where two would overlap, and within the axes.

    ends: text -> height in data units. colors: text -> colour. gap: the least distance, as a share of the axis, which
    may be logarithmic. tied: with a thin line from each end to its text. style: of the texts.
    """
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(ax.get_ylim())
    gap = gap * (high - low)
    places = scale.inverted().transform(apart(scale.transform(list(ends.values())), gap, low, high))
    beside = offset_copy(ax.transData, ax.figure, 20 if tied else 7, units="points")
    for (text, end), place in zip(ends.items(), places, strict=True):
        line = {"arrowstyle": "-", "color": colors[text], "lw": 0.5, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)}
        ax.annotate(text, (x, end if tied else place), (x, place), textcoords=beside, va="center", color=colors[text],
                    annotation_clip=False, arrowprops=line if tied else None, **style)


def apart(heights: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """The heights, moved as little as possible (in squares) so that neighbours are at least `gap` apart, in order.

    They stay from low to high, unless there is no room for so many.
    """
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    moved = isotonic_regression(np.array(heights, float)[order] - steps).x
    if len(order) and low + steps[-1] <= high:
        moved = moved.clip(low, high - steps[-1])
    found = np.empty(len(order))
    found[order] = moved + steps
    return found


def hide_rest(panels: np.ndarray, used: int) -> None:
    """Hide the panels after the first `used`; those above them get the tick labels of the x axis that they share."""
    for ax in panels.flat[used:]:
        ax.set_visible(False)
    for ax in panels.flat[max(0, used - panels.shape[1]):used]:
        ax.tick_params(labelbottom=True)


def below(ax: Axes) -> None:
    """A small legend below the axes, for a panel of several."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), ncols=2, fontsize=7, handlelength=1.5, columnspacing=1,
              borderaxespad=0, labelspacing=0.3)


def images(pictures: np.ndarray, titles: Sequence[str] | None = None, columns: int = 10, signed: bool = False,
           rows: Sequence[str] = (), size: float = 0.75) -> Figure:
    """A grid of images (N, H, W) or (N, H, W, 3) in [0, 1], or, if signed, of maps around 0 scaled one by one.

    titles: one above each image. rows: a label left of each row.
    """
    lines = -(-len(pictures) // columns)
    height = size * lines * (1.3 if titles is not None else 1.05)
    figure, axes = plt.subplots(lines, columns, figsize=(size * columns + 0.6 * bool(rows), height), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        sns.despine(ax=ax, left=True, bottom=True)
        if i >= len(pictures):
            ax.set_visible(False)
            continue
        limit = np.abs(pictures[i]).max() or 1
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "gray", "vmin": 0, "vmax": 1}
        ax.imshow(pictures[i], **style)
        if titles is not None:
            ax.set_title(titles[i], loc="center", fontsize=8, pad=2)
        if rows and i % columns == 0:
            ax.set_ylabel(rows[i // columns], rotation=0, ha="right", va="center")
    return figure
