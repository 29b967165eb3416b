"""DY-ReLU-B (Chen et al. 2020, "Dynamic ReLU"): the larger of two lines, which each channel of each image chooses.

max(a_1 x + b_1, a_2 x + b_2); a = (1, 0) + d, b = d' / 2, where the numbers d and d', in (-1, 1), are
2 sigmoid(W2 relu(W1 m + c1) + c2) - 1 of the channels' means m over H and W. The formula is that of a public
re-implementation (Islanna/DynamicReLU), as is the reduction. Ours: W2 and c2 begin at 0, so that it begins as ReLU
(there: at random, so only near it), and there are at least 8 hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations import Learned
from lib.activations._parts import hidden

SLOPES, OFFSETS = 1.0, 0.5  # how far the slopes a and the offsets b may move


class DyReLU(Learned):
    """The larger of two lines, by channel and image."""

    def __init__(self, channels: int, between: int):
        super().__init__()
        last = nn.Conv2d(between, 4 * channels, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.chosen = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, between, 1), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        moves = 2 * torch.sigmoid(self.chosen(x)) - 1  # (N, 4 C, 1, 1)
        a_1, a_2, b_1, b_2 = moves.chunk(4, dim=1)
        first, second = (1 + SLOPES * a_1) * x + OFFSETS * b_1, SLOPES * a_2 * x + OFFSETS * b_2
        return first + F.relu(second - first)  # the larger; torch.maximum has a slow gradient on CPUs


def activation(channels: int, *, reduction: int) -> nn.Module:
    """DY-ReLU-B for so many channels. reduction: channels over hidden channels."""
    return DyReLU(channels, hidden(channels, reduction, "dyrelu.reduction"))
