"""FReLU (Ma et al. 2020, "Funnel activation for visual recognition"): max(x, BN(DW(x))).

DW: a k x k convolution of each channel alone, so that a position is compared with its neighbourhood. The formula is
that of the authors' code. Ours: no bias in DW, since the BatchNorm behind it takes every bias away. That BatchNorm
normalises with the batch in train mode; a training attack in eval mode (`batchnorm` of the method) meets its running
statistics, so a slightly other function than the one that the step trains.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations import Learned
from lib.activations._parts import BatchNorm, whole


class FReLU(Learned):
    """max(x, condition of x's neighbourhood)."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        look = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.condition = nn.Sequential(look, BatchNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        return x + F.relu(self.condition(x) - x)  # the larger; torch.maximum has a slow gradient on CPUs


def activation(channels: int, *, kernel: int) -> nn.Module:
    """FReLU for so many channels. kernel: k, odd."""
    whole("frelu.kernel", kernel, odd=True)
    return FReLU(channels, kernel)
