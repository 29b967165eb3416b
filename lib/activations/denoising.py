"""Feature denoising (Xie et al. 2019), before a ReLU: relu(x + BN(W y)), y the means of x over similar positions.

y at position i is the sum of A_ij x_j over all positions j. affinity softmax: A is the softmax over j of
theta_i . phi_j / sqrt(d), theta and phi 1 x 1 convolutions of x to d = channels / 2. dot: A_ij is theta_i . phi_j over
the number of positions, H W. W is 1 x 1. The formulas are those of the authors' code, and the first values: small theta
and phi, and a factor of 0 in the BatchNorm, so that it begins as ReLU. Ours: it stands before the ReLU of every site
(theirs: four in a network, each behind a group of blocks). Softmax needs (H W)^2 numbers for each image and site. In
train mode its BatchNorm normalises with the batch; a training attack in eval mode meets its running statistics.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations import Learned
from lib.activations._parts import BatchNorm
from lib.params import known

AFFINITIES = ("softmax", "dot")


class Denoising(Learned):
    """ReLU of x plus what similar positions say of it."""

    def __init__(self, channels: int, affinity: str):
        super().__init__()
        known("affinity", affinity, AFFINITIES, "knobs.denoising of params.yaml")
        self.affinity, between = affinity, max(1, channels // 2)
        self.theta = nn.Conv2d(channels, between, 1, bias=False)
        self.phi = nn.Conv2d(channels, between, 1, bias=False)
        self.back = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), BatchNorm(channels))
        for embedding in (self.theta, self.phi):
            nn.init.normal_(embedding.weight, std=0.01)
        nn.init.kaiming_normal_(self.back[0].weight, mode="fan_out")
        nn.init.zeros_(self.back[1].weight)

    def means(self, x: Tensor) -> Tensor:
        """y: features (N, C, H, W) -> (N, C, H, W)."""
        theta, phi = self.theta(x).flatten(2), self.phi(x).flatten(2)  # (N, d, H W)
        if self.affinity == "dot":  # the products of matrices in the order that needs no (H W)^2 numbers
            return (x.flatten(2) @ phi.transpose(1, 2) @ theta / theta.shape[2]).view_as(x)
        share = F.softmax(theta.transpose(1, 2) @ phi / math.sqrt(theta.shape[1]), dim=2)
        return (x.flatten(2) @ share.transpose(1, 2)).view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        return F.relu(x + self.back(self.means(x)))


def activation(channels: int, *, affinity: str) -> nn.Module:
    """Feature denoising and ReLU for so many channels. affinity: softmax or dot."""
    return Denoising(channels, affinity)
