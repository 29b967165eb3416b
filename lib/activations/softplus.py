"""Softplus (Dugas et al. 2001): log(1 + exp x)."""

from torch import nn


def activation(channels: int) -> nn.Module:
    """torch's own, the same for every channel."""
    return nn.Softplus()
