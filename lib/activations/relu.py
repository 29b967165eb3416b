"""ReLU: max(x, 0), a gate that is 1 where x > 0 and 0 elsewhere."""

from torch import nn


def activation(channels: int) -> nn.Module:
    """torch's own, the same for every channel."""
    return nn.ReLU()
