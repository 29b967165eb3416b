"""SiLU (Hendrycks and Gimpel 2016; Swish with beta = 1): x sigmoid(x)."""

from torch import nn


def activation(channels: int) -> nn.Module:
    """torch's own, the same for every channel."""
    return nn.SiLU()
