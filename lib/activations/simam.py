"""SimAM (Yang et al. 2021), before a ReLU: relu(x sigmoid(e)), e = (x - m)^2 / (4 (v + regulariser)) + 1/2.

m and v: mean and variance of a channel over H and W, v over H W - 1. So a position counts more, the more it differs
from the others of its channel. It has no parameters. As in the authors' code. Ours: it stands before the ReLU of every
site (theirs: once a block); and where H W = 1, v is 0, so the gate is sigmoid(1/2) (theirs divides by 0).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.params import ConfigError


class SimAM(nn.Module):
    """ReLU of x times a gate of how far x is from its channel's mean."""

    def __init__(self, regulariser: float):
        super().__init__()
        self.regulariser = regulariser

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        away = (x - x.mean((2, 3), keepdim=True)).square()
        variance = away.sum((2, 3), keepdim=True) / max(1, x.shape[2] * x.shape[3] - 1)
        return F.relu(x * torch.sigmoid(away / (4 * (variance + self.regulariser)) + 0.5))


def activation(channels: int, *, regulariser: float) -> nn.Module:
    """SimAM and ReLU, the same for every channel. regulariser: a number above 0, since it divides."""
    if isinstance(regulariser, bool) or not isinstance(regulariser, int | float) or not 0 < regulariser < math.inf:
        raise ConfigError(f"knobs.simam.regulariser in params.yaml is {regulariser!r}: it has to be a number above 0")
    return SimAM(regulariser)
