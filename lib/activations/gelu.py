"""GELU (Hendrycks and Gimpel 2016): x Phi(x), with the normal distribution's Phi."""

from torch import nn


def activation(channels: int) -> nn.Module:
    """torch's own, the same for every channel."""
    return nn.GELU()
