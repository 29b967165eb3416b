"""Meta-ACON (Ma et al. 2021, "Activate or not"): from a line to a bent one, as each channel of each image decides.

(p - q) x sigmoid(beta (p - q) x) + q x; p and q are learned for each channel. beta = sigmoid(BN W2 BN W1 m) of the
channels' means m over H and W, through max(r, channels / r) hidden channels: the smaller it is, the nearer to a line.
As in the authors' code, with their first values: p and q from a normal distribution, so every channel begins with
lines of its own. The BatchNorms normalise over the images of the batch in train mode; a training attack in eval mode
meets their running statistics. Ours: of a single image in train mode they meet them too (theirs raise an error), and W1
and W2 have no biases, since the BatchNorms take them away.
"""

import torch
from torch import Tensor, nn

from lib.activations import Learned
from lib.activations._parts import BatchNorm, hidden


class MetaACON(Learned):
    """(p - q) x sigmoid(beta (p - q) x) + q x; p and q: (C,); beta by channel and image."""

    def __init__(self, channels: int, between: int):
        super().__init__()
        self.p, self.q = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))
        self.beta = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, between, 1, bias=False),
                                  BatchNorm(between), nn.Conv2d(between, channels, 1, bias=False),
                                  BatchNorm(channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        across = (self.p - self.q)[:, None, None] * x
        return across * torch.sigmoid(self.beta(x) * across) + self.q[:, None, None] * x


def activation(channels: int, *, reduction: int) -> nn.Module:
    """Meta-ACON for so many channels. reduction: channels over hidden channels, and the least number of these."""
    return MetaACON(channels, hidden(channels, reduction, "acon.reduction", least=reduction))
