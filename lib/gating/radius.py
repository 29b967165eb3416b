"""How far an image is from an error, and how fast the network changes around it: image by image (ours).

Both are what an attack finds. So the least radius is an upper bound of the true one, and the local Lipschitz
constant a lower bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute
from lib.config import Config, Threat
from lib.data import Dataset
from lib.params import ConfigError


def least_radius(fooled: Callable[[Tensor, Tensor], Tensor], n: int, eps: float, halvings: int,
                 device: torch.device | str = "cpu") -> Tensor:
    """The least radius in [0, eps] that fools each of n images, by bisection: (n,).

    fooled: (places of images (k,), a radius for each (k,)) -> which of them are fooled (k,). 0 where radius 0 fools,
    that is without attack; inf where eps does not; elsewhere the upper end of the last interval, which fools, so at
    most eps / 2^halvings too large, if whatever fools at a radius fools at a larger one.
    """
    every = torch.arange(n, device=device)
    low, high = torch.zeros(n, device=device), torch.full((n,), torch.inf, device=device)
    at_once = fooled(every, low)
    high[at_once] = 0
    left = every[~at_once]
    left = left[fooled(left, torch.full((len(left),), eps, device=device))] if len(left) else left
    high[left] = eps
    for _ in range(halvings if len(left) else 0):
        middle = (low[left] + high[left]) / 2
        success = fooled(left, middle)
        high[left] = torch.where(success, middle, high[left])
        low[left] = torch.where(success, low[left], middle)
    return high


def by_attack(config: Config, model: nn.Module, x: Tensor, y: Tensor,
              device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """What `least_radius` asks, for images x (N, C, H, W): the headline attack at each image's own radius.

    Its random start is that of the run's seed at every radius. Raises ConfigError unless the headline attack is PGD.
    """
    headline = config.evaluate.headline
    numbers = config.attacks[headline]
    if numbers["attack"] != "pgd":
        raise ConfigError(f"evaluate.headline in params.yaml is {headline}, which is no PGD: only PGD takes a radius "
                          "for each image")

    def fooled(places: Tensor, radius: Tensor) -> Tensor:
        """Which of these images are misclassified at these radii."""
        found = []
        generator = compute.generator(config.seed, device)
        for part, eps in zip(places.split(500), radius.split(500), strict=True):
            threat = replace(config.threat, eps=eps[:, None, None, None])
            attack = attacks.from_params(headline, numbers, threat)
            x_adv = attack(model, x[part], y[part], generator=generator) if eps.any() else x[part]
            with attacks.under_attack(model), torch.no_grad():
                found.append(model(x_adv).argmax(1) != y[part])
        return torch.cat(found)

    return fooled


def lipschitz(model: nn.Module, x: Tensor, *, threat: Threat, steps: int, step_size: float,
              generator: torch.Generator) -> Tensor:
    """Local Lipschitz constant of the logits f around each image, max ||f(x + d) - f(x)||_1 / ||d||: (N,).

    ||d|| is the norm of the threat model, and d in its ball. PGD ascends the numerator from a random start, and the
    largest ratio on its way counts. The measure is that of Yang et al. (2020), as we remember it. It grows with the
    scale of the logits: of two networks compare it in units of the margin.
    """
    order, largest = (torch.inf if threat.norm == "Linf" else 2), x.new_zeros(len(x))
    with attacks.under_attack(model):
        with torch.no_grad():
            clean = model(x)
        x_adv = attacks.project(x + attacks.uniform_in_ball(x, threat, generator), x, threat)
        for _ in range(steps + 1):
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                change = (model(x_adv) - clean).abs().sum(1)
                gradient, = torch.autograd.grad(change.sum(), x_adv)
            distance = (x_adv.detach() - x).flatten(1).norm(order, dim=1).clamp_min(1e-12)
            largest = torch.maximum(largest, change.detach() / distance)
            x_adv = attacks.project(x_adv.detach() + attacks.step(gradient, threat, step_size * threat.eps), x, threat)
    return largest


def table(config: Config, networks: Mapping[str, nn.Module], dataset: Dataset, device: torch.device,
          log: Callable[[str], None] = print) -> pd.DataFrame:
    """Both measures of every network on the first `config.gates.images` test images, with the headline's numbers.

    Columns method, seed, activation, index, label; radius, in units of the images' range: the least in [0, eps] that
    fools, 0 for an image that is wrong without attack, inf where eps does not fool; lipschitz, see `lipschitz`; margin,
    the label's logit less the highest other, without attack.
    """
    x, y = dataset.test.first(config.gates.images).floats()
    numbers, tables = config.attacks[config.evaluate.headline], []
    for name, network in networks.items():
        found = least_radius(by_attack(config, network, x, y, device), len(x), config.threat.eps,
                             config.gates.halvings, device)
        generator = compute.generator(config.seed, device)
        steep = torch.cat([lipschitz(network, part, threat=config.threat, steps=numbers["steps"],
                                     step_size=numbers["step_size"], generator=generator) for part in x.split(500)])
        with attacks.under_attack(network), torch.no_grad():
            margin = torch.cat([-attacks.margin(network(part), of) for part, of in zip(x.split(500), y.split(500),
                                                                                     strict=True)])
        columns = {"label": y, "radius": found, "lipschitz": steep, "margin": margin}
        rows = pd.DataFrame({column: values.cpu().numpy() for column, values in columns.items()})
        tables.append(rows.assign(method=config.method, seed=config.seed, activation=name, index=rows.index))
        log(f"radius {len(tables)}/{len(networks)}  {name}")
    return pd.concat(tables, ignore_index=True)[["method", "seed", "activation", "index", "label", "radius",
                                                 "lipschitz", "margin"]]
