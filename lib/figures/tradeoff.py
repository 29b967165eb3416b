"""Clean against robust accuracy, what was published and what an adaptive attack leaves of it; and the two protocols."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lib.figures.style import WIDTH, apart, bars, looks, percent

PROTOCOLS = {"as published": "white", "adaptive": None}  # the face of a marker; None: that of the line
SIZES = {"as published": 6.5, "adaptive": 4}  # of markers: where both are one, a dot in a ring
FENCE = 5.0  # median absolute deviations: a point farther from the median is left out of the close-up
LETTER = 0.019  # width of a letter, as a share of the left panel
LINE = 0.14  # height of a name, in inches
READ = {"ls": "", "marker": "x", "ms": 4, "mew": 0.8, "color": "0.45"}
SMALL = {"fontsize": 7, "annotation_clip": False, "va": "center"}


def trade_off_map(points: Mapping[str, Mapping[str, Mapping[str, float]]], attack: str,
                  radii: Mapping[str, np.ndarray] | None = None, read: Mapping[str, Mapping[str, float]] | None = None,
                  source: str = "", later: str = "") -> Figure:
    """Clean against robust accuracy: all of it on the left, and the crowd, closer, on the right. Grey: equal NRR.

    points: for each method `clean` and `robust`, each with mean, low and high (nan: no bar); perhaps `published`, its
    mean under the attacks as published: there stands a hollow marker, and an arrow leads to the filled one. attack:
    what `robust` is measured under. radii: the line of PGD training, `radius` (in units of eps), `clean` and `robust`
    (K,). read: points of others, `clean` and `robust`, perhaps `later`, under an attack that came later; source and
    later: what the legend says of these.
    """
    style, read = looks(list(points)), read or {}
    inside = crowd({m: p["robust"]["mean"] for m, p in points.items()} | {m: p["robust"] for m, p in read.items()})
    height = max(3.2, 1.1 * LINE * len(inside))  # of a panel
    figure, (whole, close) = plt.subplots(1, 2, figsize=(WIDTH, height + 1.2 + 0.4 * bool(read)), width_ratios=(1.2, 1))
    for ax, names in ((whole, list(points)), (close, [m for m in points if m in inside])):
        for method in names:
            _point(ax, points[method], style[method], ax is whole)
        if radii is not None:
            ax.plot(radii["clean"], radii["robust"], "-", color="0.25", lw=1, marker=".", ms=5, zorder=1)
        for each in read.values():
            ax.plot(each["clean"], each["robust"], **READ)
    _limits(whole, close, points, inside, radii, read)
    for ax in (whole, close):
        _equal_nrr(ax)
        ax.set_xlabel("clean accuracy")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(percent))
            axis.set_major_locator(MaxNLocator(5 if axis is ax.xaxis else 8, steps=[1, 2, 5, 10]))
    whole.set_ylabel(f"accuracy under {attack}")
    whole.set_title("all methods")
    close.set_title("the crowd, enlarged")
    colors = {**{m: look["color"] for m, look in style.items()}, **dict.fromkeys(read, READ["color"])}
    _name_far(whole, points, [m for m in points if m not in inside], colors, radii, read)
    _name_close(close, {m: (*_at(points.get(m) or read[m]), colors[m]) for m in inside}, LINE / height)
    _legend(figure, radii is not None, source * bool(read), later * any("later" in p for p in read.values()))
    return figure


def _legend(figure: Figure, radii: bool, source: str, later: str) -> None:
    """What the marks mean; an empty text is left out."""
    handles = [Line2D([], [], ls="", marker="h", ms=7, color="0.3", label="DUCAT, attacked adaptively"),
               Line2D([], [], ls="", marker="h", ms=7, color="0.3", mfc="white", label="attacked as published")]
    if radii:
        handles += [Line2D([], [], color="0.25", lw=1, marker=".", ms=5, label="pgd, by the radius of training")]
    if source:
        handles += [Line2D([], [], **READ, label=source)]
    if later:
        handles += [Line2D([], [], color=READ["color"], ls="--", lw=0.8, marker="v", ms=3, label=later)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if source else 3, fontsize=7.5)


def crowd(values: Mapping[str, float]) -> list[str]:
    """The names whose values are not far out: within `FENCE` median absolute deviations of the median."""
    middle = np.median(list(values.values()))
    reach = FENCE * max(np.median(np.abs(np.array(list(values.values())) - middle)), 0.005)
    return [name for name, value in values.items() if abs(value - middle) <= reach]


def _at(point: Mapping) -> tuple[float, float]:
    """Clean and robust accuracy of a point, whether estimates or numbers."""
    return tuple(p["mean"] if isinstance(p, Mapping) else p for p in (point["clean"], point["robust"]))


def _point(ax: Axes, point: Mapping[str, Mapping], look: Mapping, whole: bool) -> None:
    """One method, with bars; on the left also where it was attacked as published."""
    x, y = point["clean"], point["robust"]
    xerr, yerr = (bars(p["mean"], p["low"], p["high"]) for p in (x, y))
    *_, lines = ax.errorbar(x["mean"], y["mean"], xerr=xerr, yerr=yerr, ms=5 if whole else 7, elinewidth=0.7, capsize=0,
                            zorder=3, **{**look, "linestyle": "none"})
    for bar in lines:
        bar.set(alpha=0.45, zorder=2)
    if whole and "published" in point:
        was = point["published"]
        ax.errorbar(x["mean"], was["mean"], yerr=bars(was["mean"], was["low"], was["high"]), ms=6, elinewidth=0.7,
                    zorder=3, **{**look, "linestyle": "none", "markerfacecolor": "white"})
        ax.annotate("", (x["mean"], y["mean"]), (x["mean"], was["mean"]), arrowprops={
            "arrowstyle": "->", "color": look["color"], "shrinkA": 4, "shrinkB": 4, "lw": 1.2})


def _limits(whole: Axes, close: Axes, points: Mapping, inside: Sequence[str], radii: Mapping | None,
            read: Mapping) -> None:
    """The left panel holds everything and accuracy 0, the right one the crowd."""
    x, y = np.array([_at(points.get(m) or read[m]) for m in inside]).T
    for values, limit in ((x, close.set_xlim), (y, close.set_ylim)):
        room = 0.25 * max(np.ptp(values), 0.01)
        limit(values.min() - room, min(values.max() + room, 1.0) if limit == close.set_ylim else values.max() + room)
    of = {"clean": [p["clean"][e] for p in points.values() for e in ("mean", "low", "high")],
          "robust": [p[k]["mean"] for p in points.values() for k in ("robust", "published") if k in p]}
    for key, values in of.items():
        values += [each[key] for each in read.values()] + ([] if radii is None else list(radii[key]))
    left, right = np.nanmin(of["clean"]), np.nanmax(of["clean"])
    whole.set(xlim=(left - 0.08 * (right - left) - 0.002, right + 0.13 * (right - left) + 0.002),
              ylim=(-0.03 * max(of["robust"]), 1.06 * max(of["robust"])))


def _equal_nrr(ax: Axes) -> None:
    """Lines of equal harmonic mean v of both axes, y = v x / (2 x - v), named at the left end."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x = np.linspace(left, right, 100)
    corner = [2 * a * b / (a + b) for a in (left, right) for b in (max(low, 0.0), high) if a + b > 0]
    for v in MaxNLocator(7).tick_values(min(corner), max(corner)):
        y = v * x / (2 * x - v) if 0 < v < 2 * left else np.full(1, np.nan)
        if 0.03 < (y[0] - low) / (high - low) < 0.98:
            ax.plot(x, y, color="0.85", lw=0.8, zorder=0)
            ax.annotate(f"NRR {100 * v:.3g}%", (left, y[0]), xytext=(2, 0), textcoords="offset points", va="center",
                        fontsize=7, color="0.45", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})
    ax.set(xlim=(left, right), ylim=(low, high))
    ax.grid(False)


def _name_far(ax: Axes, points: Mapping, far: Sequence[str], colors: Mapping[str, str], radii: Mapping | None,
              read: Mapping) -> None:
    """Names on the left panel: of what is far from the crowd or was attacked as published; radii; later attacks."""
    marks = {m: (*_at(p), p.get("published", p["robust"])["mean"]) for m, p in points.items()
             if m in far or "published" in p}  # x, bottom and top
    gap = 0.04 * np.ptp(ax.get_ylim())
    for name, y in zip(marks, apart([top for *_, top in marks.values()], gap) if marks else (), strict=True):
        x, width = marks[name][0], LETTER * len(name) * np.ptp(ax.get_xlim())
        on = {side: sum(0 <= side * (at - x) <= width and low - gap < y < high + gap
                        for other, (at, low, high) in marks.items() if other != name) for side in (-1, 1)}
        side = min(on, key=on.get)  # the one where fewer arrows cross the name
        ax.annotate(name, (x, y), xytext=(6 * side, 0), textcoords="offset points", color=colors[name],
                    ha="left" if side > 0 else "right", **SMALL)
    line = () if radii is None else zip(*(radii[k] for k in ("radius", "clean", "robust")), strict=True)
    for radius, x, y in line:
        if radius < 1:  # at 1 is pgd itself
            ax.annotate(rf"{radius:g} $\epsilon$", (x, y), xytext=(6, 0), textcoords="offset points", color="0.25",
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}, **SMALL)
    for x, y, later in ((*_at(each), each["later"]) for each in read.values() if "later" in each):
        ax.annotate("", (x, later), (x, y), arrowprops={"arrowstyle": "->", "color": "0.45", "ls": "--", "lw": 0.8})


def _name_close(ax: Axes, places: Mapping[str, tuple[float, float, str]], gap: float) -> None:
    """Names of points (x, y, colour) in a column right of the panel, `gap` of its height apart, tied to the points."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    heights = apart([y for _, y, _ in places.values()], gap * (high - low))
    for (name, (x, y, color)), place in zip(places.items(), heights, strict=True):
        ax.annotate(name, (x, y), (right + 0.04 * (right - left), place), color=color, **SMALL, arrowprops={
            "arrowstyle": "-", "color": color, "lw": 0.5, "shrinkA": 0, "shrinkB": 3, "relpos": (0, 0.5)})


def protocol_pairs(pairs: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Figure:
    """Accuracy under each attack, as published (hollow) and adaptive (filled), a panel a method.

    pairs: method -> attack -> protocol -> accuracy, low, high (nan: no bar), of attacks that both protocols have; the
    last one, the worst case, is set apart.
    """
    columns = min(4, len(pairs))
    lines, most = -(-len(pairs) // columns), max(map(len, pairs.values()))
    figure, panels = plt.subplots(lines, columns, squeeze=False, sharex=True, sharey=True,
                                  figsize=(WIDTH, lines * (0.55 + 0.19 * most) + 0.7))
    for (method, look), ax in zip(looks(list(pairs)).items(), panels.flat, strict=False):
        rows = pairs[method]
        ax.axhspan(len(rows) - 1.5, len(rows) - 0.5, color="0.93", lw=0, zorder=0)
        for place, each in enumerate(rows.values()):
            ax.plot([each[p][0] for p in PROTOCOLS], [place] * 2, color=look["color"], lw=1.2, zorder=1)
            for protocol, face in PROTOCOLS.items():
                ax.errorbar(each[protocol][0], place, xerr=bars(*each[protocol]), marker="o", ms=SIZES[protocol],
                            color=look["color"], elinewidth=0.7, mfc=face or look["color"])
        ax.set_title(method, fontsize=8.5)
        ax.xaxis.set_major_formatter(FuncFormatter(percent))
        ax.grid(axis="y", visible=False)
    first = next(iter(pairs.values()))
    panels[0, 0].set(yticks=range(len(first)), yticklabels=list(first), xlim=(-0.03, 1.03),
                     ylim=(len(first) - 0.5, -0.5))
    for ax in panels.flat:
        ax.tick_params(labelsize=7.5)
    for ax in panels.flat[len(pairs):]:
        ax.set_visible(False)
    for ax in panels[-1]:
        ax.set_xlabel("accuracy", fontsize=8)
    _protocol_legend(figure, {"ls": "", "marker": "o"})
    return figure


def _protocol_legend(figure: Figure, style: Mapping) -> None:
    handles = [Line2D([], [], color="0.3", **{**style, **({"ls": "--"} if face and style["ls"] else {})},
                      mfc=face or "0.3", ms=SIZES[protocol], label=f"attacked {protocol if face else 'adaptively'}")
               for protocol, face in PROTOCOLS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)


def protocol_sweeps(curves: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], titles: Mapping[str, str]) -> Figure:
    """Accuracy against the radius and the steps of an attack, under both protocols: a row a method, a column a sweep.

    curves: method -> sweep -> protocol -> (K, 4): value, accuracy, low, high (nan: no band). titles: sweep -> what the
    values are.
    """
    figure, panels = plt.subplots(len(curves), len(titles), squeeze=False, sharex="col", sharey=True,
                                  figsize=(WIDTH, 0.9 + 1.6 * len(curves)))
    for (method, look), line in zip(looks(list(curves)).items(), panels, strict=True):
        for (sweep, title), ax in zip(titles.items(), line, strict=True):
            for protocol, face in PROTOCOLS.items():
                value, mean, low, high = np.asarray(curves[method][sweep][protocol], float).T
                ax.plot(value, mean, "--" if face else "-", lw=1.2, marker=look["marker"], ms=SIZES[protocol],
                        color=look["color"], mfc=face or look["color"])
                ax.fill_between(value, low, high, color=look["color"], alpha=0.15, lw=0)
            ax.set(xscale="log", ylim=(-0.03, 1.03))
            ax.xaxis.set_major_locator(FixedLocator(value))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_major_formatter(FuncFormatter(percent))
            if ax in panels[-1]:
                ax.set_xlabel(title)
        line[0].set_title(method, fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    _protocol_legend(figure, {"ls": "-", "marker": "o"})
    return figure
