"""Swish (Ramachandran et al. 2017): x sigmoid(beta x), with a slope beta that is learned.

One slope for each channel, 1 at first: then it is SiLU. It is also Sparta with nothing to look at (context `none`).
"""

import torch
from torch import Tensor, nn

from lib.activations import Learned


class Swish(Learned):
    """x * sigmoid(slope x); slope: (C,), 1 at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        return x * torch.sigmoid(self.slope[:, None, None] * x)


def activation(channels: int) -> nn.Module:
    """Swish for so many channels."""
    return Swish(channels)
