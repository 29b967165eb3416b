"""Robust flatness: how far the adversarial loss rises when the weights move within a ball, at random or at worst.

After Stutz, Hein and Schiele (ICCV 2021), written from their formulas. With rho(w) the mean adversarial loss and the
ball V: ||v_l|| <= xi ||w_l|| for every weight l,

    average-case: the mean, over v uniform in V, of rho(w + v) - rho(w),      worst-case: max_{v in V} of the same.

Ours, where they do otherwise: only weights of two or more dimensions move (theirs: biases too); the reference rho(w)
is from one PGD with the random start that it has at w + v (theirs: from the best of ten), so that differences are
paired; and the steps of v, see `worst`. Low is flat.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib import attacks, compute, landscape, stats
from lib.config import Config
from lib.data import Dataset
from lib.weights import Direction, layer_normalised, movable, moved, projected

DRAWS_SEED = 2_000_000  # added to the run's seed: other draws than those of the landscape's directions
COLUMNS = ["method", "seed", "split", "measure", "number", "value", "error", "images"]
CURVES = {"train": ("loss", "sharpness", "frozen", "near", "far"), "test": ("loss", "sharpness")}


def uniform_in_ball(model: nn.Module, xi: float, generator: torch.Generator) -> Direction:
    """v drawn uniformly from the ball: for each weight a random direction, and a norm of u^(1/dim) xi ||w_l||.

    u is uniform in [0, 1]. In high dimension that is nearly the sphere: with 1,000 weights the median norm is 0.9993 xi
    ||w_l||.
    """
    weights = movable(model)
    noise = {name: torch.randn(w.shape, generator=generator, device=w.device) for name, w in weights.items()}
    radius = {name: torch.rand((), generator=generator, device=w.device) ** (1 / w.numel())
              for name, w in weights.items()}
    return {name: radius[name] * d for name, d in layer_normalised(model, noise, xi).items()}


def average(config: Config, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> np.ndarray:
    """rho(w + v) - rho(w) for each of `flatness.draws` v: (draws,). Average-case flatness is their mean.

    Adversarial examples are made anew for each v, by PGD of `flatness.steps`.
    """
    return of_random(config, model, x, y, generator).mean(1)


def worst(config: Config, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> np.ndarray:
    """rho(w + v) - rho(w) for the v that each of `flatness.restarts` searches ends at: (restarts,).

    Worst-case flatness is their largest: each is a lower bound of the maximum. Each search is `climbed`; then the
    examples are made anew at w + v, so that the value means the same as in `average` (ours).
    """
    return of_worst(config, model, x, y, generator).mean(1)


def of_random(config: Config, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> np.ndarray:
    """`average` for each image: (draws, N)."""
    found = (uniform_in_ball(model, config.flatness.average, generator) for _ in range(config.flatness.draws))
    return _rises(config, model, x, y, found)


def of_worst(config: Config, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> np.ndarray:
    """`worst` for each image: (restarts, N)."""
    found = (climbed(config, model, x, y, generator) for _ in range(config.flatness.restarts))
    return _rises(config, model, x, y, found)


def _rises(config: Config, model: nn.Module, x: Tensor, y: Tensor, directions) -> np.ndarray:
    """How far the adversarial loss of each image rises from w to w + v, for each v: (number of v, N)."""
    def rho():
        """The loss of each image under PGD where the weights are now."""
        return landscape.losses(model, landscape.examples(config, model, x, y, config.flatness.steps), y)

    reference, values = rho(), []
    for v in directions:  # an iterator: each v is made with the weights back at w
        with moved(model, (1.0, v)):
            values.append(rho() - reference)
    return torch.stack(values).cpu().numpy()


def climbed(config: Config, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Direction:
    """v after a joint ascent of the loss over (delta, v), both from a random point of their ball.

    Each of `flatness.steps` iterations takes one gradient at (x + delta, w + v) for both, with the same v for all
    images. delta goes along its sign (in L2, its direction) and v along it normalised for each weight, both by
    `landscape.step_size` of their radius (theirs, for v: a rate of 0.001 at xi = 0.003), and both are projected.
    """
    threat, xi, size = config.threat, config.flatness.worst, config.landscape.step_size
    v = uniform_in_ball(model, xi, generator)
    with attacks.under_attack(model):
        x_adv = attacks.noise(model, x, y, threat=threat, generator=generator)
        for _ in range(config.flatness.steps):
            towards, gradient = _gradients(model, v, x_adv, y)
            x_adv = attacks.project(x_adv + attacks.step(towards, threat, size * threat.eps), x, threat)
            step = layer_normalised(model, gradient, size * xi)
            v = projected(model, {name: d + step[name] for name, d in v.items()}, xi)
    return v


def _gradients(model: nn.Module, v: Direction, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Direction]:
    """The gradients of the summed loss at w + v, for the images (N, C, H, W) and for the weights."""
    point = {name: (w.detach() + v[name]).requires_grad_() for name, w in movable(model).items()}
    of_images, of_weights = [], [0] * len(point)
    for part, labels in zip(x_adv.split(landscape.BATCH), y.split(landscape.BATCH), strict=True):
        part = part.detach().requires_grad_()
        with torch.enable_grad():
            loss = attacks.cross_entropy(functional_call(model, point, (part,)), labels).sum()
        image, *weights = torch.autograd.grad(loss, (part, *point.values()))
        of_images.append(image)
        of_weights = [total + w for total, w in zip(of_weights, weights, strict=True)]
    return torch.cat(of_images), dict(zip(point, of_weights, strict=True))


def measure(config: Config, dataset: Dataset, model: nn.Module, found: dict[str, np.ndarray],
            device: torch.device) -> pd.DataFrame:
    """All scalars of one run's landscape as a table, from `found` (`landscape.explore`) and the flatness of `model`.

    Columns: method, seed, split, measure, number, value, error, images. number counts directions, draws or restarts
    from 0; error is the standard error over the `images` images, of the mean over numbers ('worst': of the largest
    value, for its v). Measures:
    loss: g(0), one row. sharpness: S for each direction. frozen: S where the examples are made once at w. near, far:
    how much too low these frozen examples put g, as a mean of both sides, at the smallest |alpha| above 0 and at the
    largest (training images). average, worst: see the functions of this module (test images).
    """
    rows = [_rows(split, name, *_scalar(found, split, name)) for split, names in CURVES.items() for name in names]
    x, y = landscape.sample(config, dataset)["test"]
    generator = compute.generator(DRAWS_SEED + config.seed, device)
    draws, restarts = (of(config, model, x, y, generator) for of in (of_random, of_worst))
    rows += [_rows("test", "average", draws.mean(1), draws.mean(0)),
             _rows("test", "worst", restarts.mean(1), restarts[restarts.mean(1).argmax()])]
    return pd.concat(rows, ignore_index=True).assign(method=config.method, seed=config.seed)[COLUMNS]


def _scalar(found: dict[str, np.ndarray], split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A measure of the curves of `found`: its value for each direction, and for each image."""
    middle, key = len(found["alphas"]) // 2, "frozen" if name == "frozen" else split

    def of(curves):
        """The measure of each curve (rows) of some `curves`: a function from a key of `found` to them."""
        if name == "loss":
            return curves(key)[:, middle]
        if name in ("sharpness", "frozen"):
            return landscape.sharpness(found["alphas"], curves(key))
        less = curves("train") - curves("frozen")
        distance = 1 if name == "near" else middle
        return (less[:, middle - distance] + less[:, middle + distance]) / 2

    each = of(lambda key: found[key])
    return each[:1] if name == "loss" else each, of(lambda key: found[f"{key}_images"].T)


def _rows(split: str, name: str, values: np.ndarray, by_image: np.ndarray) -> pd.DataFrame:
    """The rows of one measure, from its value for each number and for each image."""
    error = by_image.std(ddof=1) / np.sqrt(len(by_image))
    return pd.DataFrame({"split": split, "measure": name, "number": np.arange(len(values)), "value": values,
                         "error": error, "images": len(by_image)})


def interval(values) -> dict[str, float]:
    """Mean of the values over directions or draws and its 95 % interval (Student's): mean, low, high, n."""
    return stats.over_seeds(values)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, seed, split and measure: value, low, high, n, error, images.

    value: the mean over directions or draws with its `interval`; of 'worst' the largest of n restarts, without one.
    """
    rows = []
    for keys, group in table.groupby(["method", "seed", "split", "measure"], sort=False):
        found = interval(group.value)
        if keys[-1] == "worst":
            found |= {"mean": group.value.max(), "low": np.nan, "high": np.nan}
        rows.append([*keys, *found.values(), *group[["error", "images"]].iloc[0]])
    columns = [*COLUMNS[:4], "value", "low", "high", "n", "error", "images"]
    return pd.DataFrame(rows, columns=columns).astype({"images": int})
