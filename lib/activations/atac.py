"""ATAC (Dai et al. 2020, "Attention as activation"): a gate of all channels at one position.

x sigmoid(BN W2 relu(BN W1 x)), W1 and W2 1 x 1 without bias: the nearest published relative of Sparta, a gate for each
channel and position that depends on the input, but without a look at neighbours. The formula is that of the authors'
code, the reduction that of their train_imagenet.py. Ours: at least 8 hidden channels. The BatchNorms normalise with the
batch in train mode; a training attack in eval mode meets their running statistics.
"""

from torch import Tensor, nn

from lib.activations import Learned
from lib.activations._parts import BatchNorm, hidden


class ATAC(Learned):
    """x times a gate of the channels at its position."""

    def __init__(self, channels: int, between: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(channels, between, 1, bias=False), BatchNorm(between), nn.ReLU(),
                                  nn.Conv2d(between, channels, 1, bias=False), BatchNorm(channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        return x * self.gate(x)


def activation(channels: int, *, reduction: int) -> nn.Module:
    """ATAC for so many channels. reduction: channels over hidden channels."""
    return ATAC(channels, hidden(channels, reduction, "atac.reduction"))
