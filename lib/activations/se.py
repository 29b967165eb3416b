"""SE, squeeze and excitation (Hu et al. 2018), before a ReLU: relu(x sigmoid(W2 relu(W1 m))).

m: the channels' means over H and W; W1 and W2 without bias, from torch's first values, so that all gates begin near
1/2. As in the code of SimAM's authors. Ours: it stands before the ReLU of every site (the paper: once a block, before
the residual sum), so that networks differ in the function at their sites alone; and at least 8 hidden channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations import Learned
from lib.activations._parts import hidden


class SqueezeExcitation(Learned):
    """ReLU of x times a gate for each channel and image."""

    def __init__(self, channels: int, between: int):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, between, 1, bias=False), nn.ReLU(),
                                  nn.Conv2d(between, channels, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        return F.relu(x * self.gate(x))


def activation(channels: int, *, reduction: int) -> nn.Module:
    """SE and ReLU for so many channels. reduction: channels over hidden channels."""
    return SqueezeExcitation(channels, hidden(channels, reduction, "se.reduction"))
