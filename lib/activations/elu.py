"""ELU (Clevert et al. 2016): x for x > 0, else exp(x) - 1."""

from torch import nn


def activation(channels: int) -> nn.Module:
    """torch's own, the same for every channel."""
    return nn.ELU()
