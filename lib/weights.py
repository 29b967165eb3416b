"""The weights of a network as a place: directions from it, walks away from it, and the way back.

Only weights of two or more dimensions move: biases, BatchNorm and other vectors keep the values they have at w.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Direction = dict[str, Tensor]  # a tensor for each weight that moves, by its name


def movable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of two or more dimensions, by name."""
    return {name: p for name, p in model.named_parameters() if p.dim() > 1}


def filter_normalised(model: nn.Module, generator: torch.Generator) -> Direction:
    """A Gaussian direction whose every filter has the norm of the model's filter (Li et al. 2018).

    A filter is a slice of a weight along its first axis.
    """
    direction = {}
    for name, weight in movable(model).items():
        d = torch.randn(weight.shape, generator=generator, device=weight.device)
        scale = weight.detach().flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1).clamp_min(1e-10)
        direction[name] = d * scale.view(-1, *[1] * (weight.dim() - 1))
    return direction


def layer_normalised(model: nn.Module, direction: Direction, length: float) -> Direction:
    """The direction with, for each weight, the norm `length` ||w_l|| (Wu et al. 2020); zeros stay zero."""
    weights = movable(model)
    return {name: d * (length * weights[name].detach().norm() / d.norm().clamp_min(1e-20))
            for name, d in direction.items()}


def projected(model: nn.Module, direction: Direction, length: float) -> Direction:
    """The direction with each weight's part that is longer than `length` ||w_l|| cut to that norm."""
    weights = movable(model)
    return {name: d * (length * weights[name].detach().norm() / d.norm().clamp_min(1e-20)).clamp_max(1)
            for name, d in direction.items()}


@contextmanager
def moved(model: nn.Module, *steps: tuple[float, Direction]) -> Iterator[None]:
    """The model at w + sum of alpha * d over the steps (alpha, d); w comes back bit for bit."""
    weights = {name: p.detach() for name, p in movable(model).items()}
    before = {name: weight.clone() for name, weight in weights.items()}
    try:
        for alpha, direction in steps:
            for name, d in direction.items():
                weights[name].add_(d, alpha=alpha)
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(before[name])


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalises with its batch, as in training, but its running statistics come back."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(b, b.clone()) for layer in layers for b in layer.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
