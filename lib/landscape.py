"""The loss landscape around a model's weights: how fast does the adversarial loss rise when the weights move?

g(alpha) = mean_i max_{x' in B(x_i, eps)} l(f_{w + alpha d}(x'), y_i) along a filter-normalised direction d, with the
adversarial examples made anew at each point (after Wu et al. 2020; directions after Li et al. 2018).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lib import attacks, compute, data, train
from lib.config import Config, on_the_spot
from lib.data import Dataset
from lib.weights import Direction, filter_normalised, moved


def adversarial_loss(config: Config, model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 500) -> float:
    """Mean cross-entropy under PGD with `config.landscape`'s steps and the same random start at every call."""
    generator = compute.generator(0, x.device)
    total = 0.0
    with attacks.under_attack(model), torch.no_grad():
        for part, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            x_adv = attacks.pgd(model, part, labels, threat=config.threat, steps=config.landscape.steps,
                                step_size=config.landscape.step_size, generator=generator)
            total += attacks.cross_entropy(model(x_adv), labels).sum().item()
    return total / len(y)


def curve(config: Config, model: nn.Module, x: Tensor, y: Tensor, direction: Direction,
          alphas: np.ndarray) -> np.ndarray:
    """g(alpha) along one direction: (len(alphas),)."""
    values = []
    for alpha in alphas:
        with moved(model, (alpha, direction)):
            values.append(adversarial_loss(config, model, x, y))
    return np.array(values)


def surface(config: Config, model: nn.Module, x: Tensor, y: Tensor, directions: tuple[Direction, Direction],
            alphas: np.ndarray) -> np.ndarray:
    """g over a grid in the plane of two directions: (len(alphas), len(alphas)), the first direction along axis 0."""
    first, second = directions
    values = np.empty((len(alphas), len(alphas)))
    for i, a in enumerate(alphas):
        for j, b in enumerate(alphas):
            with moved(model, (a, first), (b, second)):
                values[i, j] = adversarial_loss(config, model, x, y)
    return values


def explore(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
            log: Callable[[str], None] = print) -> dict[str, np.ndarray]:
    """Curves and a surface of one run's last checkpoint, on training images as in the paper.

    Returns alphas (A,), curves (D, A), grid (B,) and surface (B, B). The directions are drawn from the run's seed.
    """
    numbers = config.landscape
    model = train.model(config, trained, "last", dataset, device)
    x, y = dataset.train.first(numbers.images).floats()
    generator = compute.generator(config.seed, device)
    directions = [filter_normalised(model, generator) for _ in range(max(2, numbers.directions))]
    alphas = np.linspace(-numbers.span, numbers.span, numbers.points)
    grid = np.linspace(-numbers.span, numbers.span, numbers.surface_points)
    curves = []
    for number, direction in enumerate(directions[:numbers.directions], 1):
        curves.append(curve(config, model, x, y, direction, alphas))
        log(f"direction {number}/{numbers.directions}  g(0) {curves[-1][len(alphas) // 2]:.3f}, "
            f"highest {curves[-1].max():.3f}")
    plane = surface(config, model, x, y, (directions[0], directions[1]), grid)
    return {"alphas": alphas, "curves": np.array(curves), "grid": grid, "surface": plane}


def sharpness(alphas: np.ndarray, curves: np.ndarray, distance: float = 0.5) -> np.ndarray:
    """S = mean of g(-distance) and g(+distance), less g(0), for each curve of (D, A) (ours)."""
    def at(alpha):
        """Each curve at alpha, between its points by a straight line."""
        return np.array([np.interp(alpha, alphas, g) for g in curves])

    return (at(-distance) + at(distance)) / 2 - at(0.0)


def load(config: Config, device: torch.device) -> dict[str, np.ndarray]:
    """What stage `landscape` wrote for this run. By hand, in `smoke`, it is computed on the spot."""
    path = config.folder("landscape") / "landscape.npz"
    if path.exists():
        with np.load(path) as file:
            return dict(file)
    on_the_spot("landscape", config, path)
    dataset = data.load(config, device)
    return explore(config, dataset, train.load(config, dataset, device), device, log=lambda line: None)
