"""Pieces that all networks share."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Site(NamedTuple):
    """Where an activation is: its module's name, and its place, so that networks of other depths have the same places.

    group: of blocks at one image size; block: in the group; place: in the block. All from 0.
    """

    name: str
    group: int
    block: int
    place: int


class Normalize(nn.Module):
    """(x - mean) / std per channel; the first layer of every network, so that it is part of what is attacked."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> normalised images of the same shape."""
        return (x - self.mean) / self.std


class Classifier(nn.Sequential):
    """A network behind its normalisation. Its logits are float32, in whatever lower precision it computes."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, classes)."""
        logits = super().forward(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    """A convolution without bias that keeps the image size at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
