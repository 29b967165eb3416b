"""Networks that differ in their activation: the ladder, learning curves, the strength of the attack, and their gates.

Errors are given in [0, 1], with low and high (nan: no interval), and drawn in percent; lower is better.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import blended_transform_factory

from lib.figures.style import OKABE_ITO, WIDTH, bars, label_ends

BLUE, VERMILLION, GREEN, PURPLE, ORANGE = OKABE_ITO[:5]
LOOKS = {"relu": ("black", "o"), "silu": (BLUE, "s"), "sparta": (VERMILLION, "D"), "bias": (GREEN, "^"),
         "map": (PURPLE, "v"), "pooled": (ORANGE, "P")}
MUTED = ("0.5", "o")
CLEAR = {True: "black", False: "0.62"}  # a difference whose interval is on one side of 0, or is not
MARKS = ({"marker": "o", "mfc": "white"}, {"marker": "D"}, {"marker": "o"})  # of measures, the last the strictest
MINUS = "\N{MINUS SIGN}"


def _look(name: str) -> dict[str, str]:
    """Colour and marker of an activation, the same in every figure; those without a name of their own are grey."""
    color, marker = LOOKS.get(name, MUTED)
    return {"color": color, "marker": marker}


def _percent(axis: Axis, points: bool = False) -> None:
    """Ticks of a fraction in percent or, of a difference, in points with their sign."""
    def text(value: float, _: int) -> str:
        """Such as 12, or +0.5."""
        sign = "+" if points and value else ""
        return f"{round(100 * value, 2):{sign}g}".replace("-", MINUS)

    axis.set_major_formatter(FuncFormatter(text))


def _bars(row: Mapping, middle: str = "error", low: str = "low", high: str = "high") -> np.ndarray | None:
    """`bars` of these columns of a row."""
    return bars(row[middle], row[low], row[high])


def _clear(low: float, high: float) -> str:
    """The colour of a difference with this interval."""
    return CLEAR[bool(low > 0 or high < 0)]


def _lines(ax: Axes, rows: pd.DataFrame, x: str, value: str, names: Sequence[str]) -> None:
    """A line with bars for each of these activations that is there."""
    for name in names:
        of = rows[rows.activation == name].sort_values(x, kind="stable")
        ends = np.array([of[value] - of.low, of.high - of[value]]).clip(0)
        for bar in ax.errorbar(of[x], of[value], None if np.isnan(ends).any() else ends, ms=3.5, lw=1.2, elinewidth=0.7,
                               **_look(name))[2]:
            bar.set(alpha=0.5)


def _named(names: Mapping[str, str]) -> list[Line2D]:
    """Handles of a legend of activations."""
    return [Line2D([], [], ms=4, lw=1.2, label=text, **_look(name)) for name, text in names.items()]


def ladder(curves: pd.DataFrame, effects: pd.DataFrame, names: Mapping[str, str], measures: Sequence[str]) -> Figure:
    """Error against the radius of the attack, and below it what the steps of the ladder change: a column a method.

    curves: method, activation, radius (in units of eps), error, low, high. effects: method, measure, effect, networks,
    mean, low, high. names: activation -> what the legend says of it. measures: up to three of `effects`, the strictest
    last.
    """
    methods, rows = list(dict.fromkeys(curves.method)), list(dict.fromkeys(effects.effect))
    figure, panels = plt.subplots(3, len(methods), figsize=(WIDTH, 3.8 + 0.45 * len(rows)), squeeze=False,
                                  sharey="row", height_ratios=(2.4, 0.3, 0.45 * len(rows)))
    for (top, between, below), method in zip(panels.T, methods, strict=True):
        between.set_axis_off()
        _lines(top, curves[curves.method == method], "radius", "error", list(names))
        top.set(title=f"{method} training", xlabel=r"radius of the attack, in units of $\epsilon$", ylim=(-0.02, 1.02))
        _forest(below, effects[effects.method == method], rows, measures)
    _percent(panels[0, 0].yaxis)
    panels[0, 0].set_ylabel("error (%)")
    networks = effects.drop_duplicates("effect").set_index("effect").networks.str.replace("-", MINUS)
    panels[2, 0].set_yticks(range(len(rows)), [f"{name}\n{networks[name]}" for name in rows], fontsize=8)
    panels[2, 0].set_ylim(len(rows) - 0.5, -0.5)
    middle = blended_transform_factory(figure.transFigure, panels[1, 0].transAxes)
    panels[1, 0].legend(handles=_named(names), loc="center", ncols=3, fontsize=8, bbox_to_anchor=(0.5, 0.5),
                        bbox_transform=middle).set_in_layout(False)
    marks = dict(zip(measures, MARKS[-len(measures):], strict=True))
    figure.legend(handles=[*(Line2D([], [], ls="", ms=5, color="black", label=m, **mark) for m, mark in marks.items()),
                           Line2D([], [], color=CLEAR[False], label="the interval includes 0")],
                  loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _forest(ax: Axes, effects: pd.DataFrame, rows: Sequence[str], measures: Sequence[str]) -> None:
    """Differences with their intervals, one below the other, and a line at 0."""
    for measure, mark, shift in zip(measures, MARKS[-len(measures):], (-0.25, 0, 0.25), strict=False):
        for _, row in effects[effects.measure == measure].iterrows():
            ax.errorbar(row["mean"], rows.index(row.effect) + shift, xerr=_bars(row, "mean"), ms=4, elinewidth=1,
                        capsize=1.5, color=_clear(row.low, row.high), **mark)
    ax.axvline(0, color="0.2", lw=0.9, zorder=0)
    ax.set_xlabel("change of the error, in points")
    ax.set_title("fewer errors to the left", fontsize=8, color="0.35")
    ax.grid(axis="y", visible=False)
    _percent(ax.xaxis, points=True)


def error_curves(histories: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Error along training: means over seeds, and the range over seeds as a band, a panel a column of `titles`.

    histories: activation, seed, epoch, and the columns that `titles` names, accuracies in [0, 1] (nan: not looked at).
    """
    figure, panels = plt.subplots(1, len(titles), squeeze=False, sharey=True, figsize=(WIDTH, 3))
    for ax, (column, title) in zip(panels.flat, titles.items(), strict=True):
        ends, colors = {}, {}
        for name, rows in histories.dropna(subset=column).groupby("activation", sort=False):
            of = (1 - rows.pivot(index="epoch", columns="seed", values=column)).agg(["mean", "min", "max"], axis=1)
            ax.plot(of.index, of["mean"], lw=1.4, color=_look(name)["color"])
            ax.fill_between(of.index, of["min"], of["max"], color=_look(name)["color"], alpha=0.18, lw=0)
            text = f"{name} {100 * of['mean'].iloc[-1]:.1f}"
            ends[text], colors[text] = of["mean"].iloc[-1], _look(name)["color"]
        ax.set(title=title, xlabel="epoch")
        if ends:
            label_ends(ax, histories.epoch.max(), ends, colors)
    panels[0, 0].set_ylabel("error under attack (%)")
    _percent(panels[0, 0].yaxis)
    return figure


def strength(sweeps: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Error against the strength of the attack, a row a method and a column a sweep: it must not fall to the right.

    sweeps: column -> frame method, activation, that column, error, low, high. titles: column -> what its values are;
    steps stand on a logarithmic axis.
    """
    methods = list(dict.fromkeys(m for rows in sweeps.values() for m in rows.method))
    figure, panels = plt.subplots(len(methods), len(titles), squeeze=False, figsize=(WIDTH, 0.5 + 2.1 * len(methods)))
    for i, method in enumerate(methods):
        for ax, (column, title) in zip(panels[i], titles.items(), strict=True):
            rows = sweeps[column][sweeps[column].method == method].sort_values(column, kind="stable")
            names = list(dict.fromkeys(rows.activation))
            _lines(ax, rows, column, "error", names)
            if column == "steps":
                ax.set_xscale("log")
                ax.xaxis.set_major_locator(FixedLocator(sorted(set(rows[column]))))
                ax.xaxis.set_minor_locator(NullLocator())
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            _percent(ax.yaxis)
            ax.set(ylabel="" if ax is not panels[i, 0] else "error (%)", xlabel=title if i == len(methods) - 1 else "")
            if names:
                ends = rows.groupby("activation").error.last()[names].to_dict()
                label_ends(ax, rows[column].max(), ends, {name: _look(name)["color"] for name in names}, 0.1)
        panels[i, 0].set_title(f"{method} training")
    return figure


def gate_lines(rows: pd.DataFrame, sites: Mapping[str, str], titles: Mapping[str, str],
               names: Mapping[str, str]) -> Figure:
    """What the gates do along the network: a row a measure, a column a method, a line an activation.

    rows: method, activation, site, measure, value, low, high. sites: site -> its name on the axis, in order. titles:
    measure -> what it is. names: activation -> what the legend says of it.
    """
    methods, order = list(dict.fromkeys(rows.method)), list(sites)
    rows = rows.assign(place=rows.site.map(order.index))
    figure, panels = plt.subplots(len(titles), len(methods), squeeze=False, sharex=True, sharey="row",
                                  figsize=(WIDTH, 0.9 + 1.25 * len(titles)))
    for line, (measure, title) in zip(panels, titles.items(), strict=True):
        for ax, method in zip(line, methods, strict=True):
            of = rows[(rows.method == method) & (rows.measure == measure)]
            _lines(ax, of, "place", "value", [name for name in names if name in set(of.activation)])
        line[0].set_title(title, fontsize=8.5)
        line[0].set_ylim(0, None)
    every = max(1, len(order) // 12)
    panels[-1, 0].set_xticks(range(0, len(order), every), [sites[name] for name in order[::every]])
    for ax, top, method in zip(panels[-1], panels[0], methods, strict=True):
        ax.set_xlabel("site, from the image on")
        top.annotate(f"{method} training", (0.5, 1), xycoords="axes fraction", xytext=(0, 18), ha="center",
                     textcoords="offset points", fontsize=9, fontweight="bold")
    figure.legend(handles=_named(names), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def gate_pictures(images: np.ndarray, attacked: np.ndarray, gates: Mapping[str, np.ndarray],
                  names: Sequence[str]) -> Figure:
    """Gates on an image and on its adversarial example, a row an activation, one block of rows below the other.

    images: (P, H, W[, 3]) in [0, 1]. attacked: (A, P, H, W[, 3]), the example of each network. gates: site -> (A, P, 2,
    h, w) in [0, 1], clean and attacked (nan: no gate). names: (A,) activations.
    """
    lines, columns = len(images) * len(names), 2 + 3 * len(gates)
    side = WIDTH / (columns + 1)
    figure, panels = plt.subplots(lines, columns, squeeze=False, figsize=(WIDTH, side * 1.06 * lines + 1.2))
    for (p, a), row in zip(np.ndindex(len(images), len(names)), panels, strict=True):
        pictures = [images[p] if a == 0 else None, attacked[a, p]]
        shown = [ax.imshow(each, cmap="gray", vmin=0, vmax=1) for ax, each in zip(row, pictures, strict=False)
                 if each is not None]
        for s, maps in enumerate(gates.values()):
            before, after = maps[a, p]
            for ax, each in zip(row[2 + 3 * s:], (before, after), strict=False):
                shown[0] = ax.imshow(each, cmap="viridis", vmin=0, vmax=1)
            change = row[4 + 3 * s].imshow(after - before, cmap="RdBu_r", vmin=-1, vmax=1)
        row[1].set_ylabel(names[a], color=_look(names[a])["color"], fontweight="bold")
    for ax in panels.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
        ax.grid(False)
    texts = ["image", "attacked", *(("gate at\n" + site, "attacked", "change") for site in gates)]
    flat = [text for each in texts for text in ([each] if isinstance(each, str) else each)]
    for ax, text in zip(panels[0], flat, strict=True):
        ax.set_title(text, fontsize=8, loc="center")
    for image, place, text in ((shown[0], panels[:, :-3], "gate: 0 shut, 1 open"), (change, panels[:, -3:], "change")):
        figure.colorbar(image, ax=place, location="bottom", shrink=0.5, aspect=25, label=text, pad=0.02)
    return figure
