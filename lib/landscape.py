"""The loss landscape around a network: how fast does the adversarial loss rise when its weights, or its images, move?

In weight space: g(alpha) = mean_i max_{x' in B(x_i, eps)} l(f_{w + alpha d}(x'), y_i) along a filter-normalised
direction d, with the adversarial examples made anew at each point (after Wu et al. 2020; directions after Li et al.
2018). In input space: the loss around the images, along the gradient and along random signs (`inputs`).

Points come one after the other, images in batches: all points in one batch, through `torch.func.vmap` over weights, was
not faster where we measured (1.06 of the time with 13 points of 128 digits, 1.27 with 4 points of 32 CIFAR-10 images).

The network is in eval mode, without gradients of its parameters, and its weights come back bit for bit.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lib import attacks, compute, data, train
from lib.attacks.threat import loss_and_gradient
from lib.config import Config, on_the_spot
from lib.data import Dataset
from lib.params import ConfigError
from lib.weights import Direction, filter_normalised, moved

BATCH = 500  # images at a time


def examples(config: Config, model: nn.Module, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
    """PGD's adversarial examples (N, C, H, W), from the same random start at every call.

    steps: by default those of `config.landscape`, whose step size it has.
    """
    generator, numbers = compute.generator(0, x.device), config.landscape
    return torch.cat([attacks.pgd(model, part, labels, threat=config.threat, steps=steps or numbers.steps,
                                  step_size=numbers.step_size, generator=generator)
                      for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True)])


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image: (N,) in float64."""
    with attacks.under_attack(model), torch.no_grad():
        return torch.cat([attacks.cross_entropy(model(part), labels)
                          for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True)]).double()


def adversarial_loss(config: Config, model: nn.Module, x: Tensor, y: Tensor, steps: int | None = None) -> float:
    """Mean cross-entropy under PGD: g at the weights that the model has now. steps: as in `examples`."""
    return losses(model, examples(config, model, x, y, steps), y).mean().item()


def of_images(config: Config, model: nn.Module, x: Tensor, y: Tensor, direction: Direction, alphas: np.ndarray,
              frozen: Tensor | None = None) -> np.ndarray:
    """The loss of each image along one direction: (len(alphas), N).

    frozen: adversarial examples that are kept for all alphas; None makes them anew at each.
    """
    values = []
    for alpha in alphas:
        with moved(model, (alpha, direction)):
            values.append(losses(model, examples(config, model, x, y) if frozen is None else frozen, y))
    return torch.stack(values).cpu().numpy()


def curve(config: Config, model: nn.Module, x: Tensor, y: Tensor, direction: Direction, alphas: np.ndarray,
          frozen: Tensor | None = None) -> np.ndarray:
    """g(alpha) along one direction: (len(alphas),). frozen: as in `of_images`."""
    return of_images(config, model, x, y, direction, alphas, frozen).mean(1)


def surface(config: Config, model: nn.Module, x: Tensor, y: Tensor, directions: tuple[Direction, Direction],
            alphas: np.ndarray) -> np.ndarray:
    """g over a grid in the plane of two directions: (len(alphas), len(alphas)), the first direction along axis 0.

    The two are drawn independently, so that in many dimensions they are nearly at a right angle.
    """
    first, second = directions
    values = np.empty((len(alphas), len(alphas)))
    for i, a in enumerate(alphas):
        for j, b in enumerate(alphas):
            with moved(model, (a, first), (b, second)):
                values[i, j] = adversarial_loss(config, model, x, y)
    return values


def inputs(config: Config, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator,
           grid: np.ndarray) -> np.ndarray:
    """Mean loss at clip(x + eps (a s + b r), 0, 1) for a (axis 0) and b (axis 1) of the grid: (len(grid), len(grid)).

    In Linf, s is the sign of the gradient at x and r random signs (Rademacher), for each image its own. In L2 both have
    norm 1: s along the gradient, r along normal noise. So (1, 0) is FGSM, and (a, 0) and (0, b) lie in the ball of the
    threat model for |a|, |b| <= 1; of the others in Linf those with |a| + |b| <= 1, in L2 about those of the unit disc.
    Which directions is a common convention that we recall, not the paper's.
    """
    up, aside = [], attacks.step(torch.randn(x.shape, generator=generator, device=x.device), config.threat,
                                 config.threat.eps)
    with attacks.under_attack(model):
        for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            _, gradient = loss_and_gradient(model, part, labels, attacks.cross_entropy)
            up.append(attacks.step(gradient, config.threat, config.threat.eps))
    up, steps = torch.cat(up), grid.tolist()
    values = [losses(model, (x + a * up + b * aside).clamp(0, 1), y).mean() for a in steps for b in steps]
    return torch.stack(values).cpu().numpy().reshape(len(grid), len(grid))


def sample(config: Config, dataset: Dataset) -> dict[str, tuple[Tensor, Tensor]]:
    """Images 'train' and 'test' that landscapes are of, (x, y) each: random ones, the same for all runs."""
    numbers = config.landscape
    order = torch.randperm(len(dataset.test), generator=compute.generator(0))  # they may lie class by class
    order = order[:numbers.images].to(dataset.test.y.device)
    return {"train": dataset.train.first(numbers.images).floats(),
            "test": dataset.test.take(order).floats()}


def explore(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
            log: Callable[[str], None] = print) -> dict[str, np.ndarray]:
    """The landscapes of one run's last checkpoint. The directions are drawn from the run's seed.

    Returns alphas (A,); curves (D, A) `train`, `test` and `frozen`, which is of training images whose examples are made
    once at w; each of these also as `..._images` (A, N), the mean over directions for each image; surface (B, B) over
    grid (B,), of training images as in the paper; and inputs (G, G) over input_grid (G,), in units of eps, of test
    images: twice as fine, since a point takes no attack, and from -1 to 1, since FGSM ends there.
    """
    numbers, images = config.landscape, sample(config, dataset)
    if numbers.points < 3 or numbers.points % 2 == 0:
        raise ConfigError(f"landscape.points in params.yaml is {numbers.points}: it has to be odd and at least 3, so "
                          "that alpha = 0 is one of them")
    model = train.model(config, trained, "last", dataset, device)
    generator = compute.generator(config.seed, device)
    directions = [filter_normalised(model, generator) for _ in range(max(2, numbers.directions))]
    alphas = np.linspace(-numbers.span, numbers.span, numbers.points)
    found = _curves(config, model, images, directions[:numbers.directions], alphas, log)
    grid = np.linspace(-numbers.span, numbers.span, numbers.surface_points)
    input_grid = np.linspace(-1, 1, 2 * numbers.surface_points - 1)
    plane = surface(config, model, *images["train"], (directions[0], directions[1]), grid)
    around = inputs(config, model, *images["test"], generator, input_grid)
    return {"alphas": alphas, **found, "grid": grid, "surface": plane, "input_grid": input_grid, "inputs": around}


def _curves(config: Config, model: nn.Module, images: dict, directions: list[Direction], alphas: np.ndarray,
            log: Callable[[str], None]) -> dict[str, np.ndarray]:
    """The curves of `explore` over all directions, and their means for each image."""
    frozen = examples(config, model, *images["train"])
    walks = {"train": ("train", None), "test": ("test", None), "frozen": ("train", frozen)}
    curves, sums = {name: [] for name in walks}, dict.fromkeys(walks, 0)
    for number, direction in enumerate(directions, 1):
        for name, (split, kept) in walks.items():
            values = of_images(config, model, *images[split], direction, alphas, kept)
            curves[name].append(values.mean(1))
            sums[name] = sums[name] + values / len(directions)
        log(f"direction {number}/{len(directions)}  " + ", ".join(
            f"S {sharpness(alphas, each[-1:])[0]:.3f} {name}" for name, each in curves.items()))
    means = {f"{name}_images": values.astype(np.float32) for name, values in sums.items()}
    return {**{name: np.array(each) for name, each in curves.items()}, **means}


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
