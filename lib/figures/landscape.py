"""Loss landscapes: curves along directions in weight space, surfaces over a plane of it, and the loss around images."""

from collections.abc import Mapping

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator

from lib.figures.style import WIDTH, label_ends, looks

COLUMNS = 3  # surfaces side by side


def landscape_curves(alphas: np.ndarray, curves: Mapping[str, np.ndarray], ax: Axes | None = None) -> Figure:
    """g(alpha) for each name, a method or, say, a split: the mean over rows of (D, A), and their range as a band.

    The rows are directions, or directions of several seeds.
    """
    ax = ax or plt.subplots(figsize=(WIDTH * 0.75, 3))[1]
    styles = looks(list(curves))
    for name, look in styles.items():
        values = curves[name]
        ax.plot(alphas, values.mean(0), marker=".", ms=4, color=look["color"], linestyle=look.get("linestyle"))
        ax.fill_between(alphas, values.min(0), values.max(0), color=look["color"], alpha=0.2, lw=0)
    ax.set(xlabel=r"distance $\alpha$ along a direction", ylabel=r"adversarial loss $g(\alpha)$", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    ends = {name: values[:, -1].mean() for name, values in curves.items()}
    label_ends(ax, alphas[-1], ends, {name: look["color"] for name, look in styles.items()})
    return ax.figure


def landscape_surfaces(grid: np.ndarray, surfaces: Mapping[str, np.ndarray]) -> Figure:
    """Adversarial loss (B, B) over two directions, one panel a method, on one logarithmic scale."""
    every = np.stack(list(surfaces.values())).astype(float)
    levels = np.geomspace(every[every > 0].min() * 0.99, every.max() * 1.01, 16)
    figure, panels = _contours(grid, surfaces, levels, mpl.colors.LogNorm(), "adversarial loss")
    for ax in panels[-COLUMNS:]:
        ax.set_xlabel(r"$\alpha_1$")
    for ax in panels[::COLUMNS]:
        ax.set_ylabel(r"$\alpha_2$")
    return figure


def input_surfaces(grid: np.ndarray, surfaces: Mapping[str, np.ndarray], norm: str) -> Figure:
    """Loss (G, G) around images, one panel a method: axis 0 along the gradient, axis 1 at random, in units of eps.

    The dashed line is the border of the threat model's ball: in 'Linf' the diamond |a| + |b| = 1, in 'L2' about the
    unit circle. The grid runs from -1 to 1; the triangle is FGSM, the cross the image itself.
    """
    every = np.stack(list(surfaces.values()))
    levels, middle = np.linspace(min(0.0, every.min()), every.max() * 1.01, 16), len(grid) // 2
    figure, panels = _contours(grid, surfaces, levels, None, "loss")
    turn, reach = (np.linspace(0, 2 * np.pi, 5), 0.5) if norm == "Linf" else (np.linspace(0, 2 * np.pi), np.sqrt(0.5))
    look = {"color": "white", "path_effects": [withStroke(linewidth=2, foreground="0.2")]}
    for ax, surface in zip(panels, surfaces.values(), strict=True):
        ax.plot(np.cos(turn), np.sin(turn), "--", lw=1, **look)
        ax.plot(1, 0, ">", color="white", mec="black", ms=7, clip_on=False, zorder=5)
        ax.text(0.93, 0, f"FGSM {surface[-1, middle]:.2f}", ha="right", va="center", fontsize=8, **look)
        ax.text(0, -0.08, f"clean {surface[middle, middle]:.2f}", ha="center", va="top", fontsize=8, **look)
        ax.text(-reach, reach, "threat model", ha="center", va="bottom", fontsize=8, rotation=45,
                rotation_mode="anchor", **look)
        ax.set_xlabel(r"$a$, along the sign of the gradient" if norm == "Linf" else r"$a$, along the gradient")
    for ax in panels[::COLUMNS]:
        ax.set_ylabel(r"$b$, along random signs" if norm == "Linf" else r"$b$, along noise")
    return figure


def _contours(grid: np.ndarray, surfaces: Mapping[str, np.ndarray], levels: np.ndarray, scale,
              label: str) -> tuple[Figure, np.ndarray]:
    """Filled contours of each surface, with a cross in the middle: the figure and its panels, in lines of up to 3."""
    columns, lines = min(COLUMNS, len(surfaces)), -(-len(surfaces) // COLUMNS)
    figure, panels = plt.subplots(lines, columns, squeeze=False, sharey=True, sharex=True, figsize=(
        WIDTH if columns > 1 else WIDTH * 0.6, lines * (WIDTH / max(2, columns) * 0.9 + 0.2 * (lines > 1))))
    for ax, (name, surface) in zip(panels.flat, surfaces.items(), strict=False):
        filled = ax.contourf(grid, grid, surface.T, levels, norm=scale, cmap="viridis",
                             extend="min" if scale else "neither")  # a loss of 0 has no logarithm
        ax.plot(0, 0, "+", color="white", ms=9)
        ax.set(title=name, aspect="equal")
        ax.grid(False)
    for ax in panels.flat[len(surfaces):]:
        ax.set_visible(False)
    for ax in panels.flat[len(surfaces) - columns:len(surfaces)]:
        ax.tick_params(labelbottom=True)  # the lowest of each column
    bar = figure.colorbar(filled, ax=panels, label=label, format="{x:g}" if scale else "%.2g", aspect=30)
    rounded = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
    bar.set_ticks([tick for tick in rounded if levels[0] <= tick <= levels[-1]] if scale else levels[::3])
    bar.minorticks_off()
    return figure, panels.flat[:len(surfaces)]
