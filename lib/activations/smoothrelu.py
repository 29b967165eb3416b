"""SmoothReLU (Xie et al. 2020, "Smooth adversarial training"): ReLU without its corner.

x - log(1 + b x) / b for x > 0, else 0; its slope there is b x / (1 + b x), so a large b makes ReLU. As in the authors'
code, b = r^2, of which r is learned, one for each site, from 20. Ours: b is at least 0.0001, since it divides.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations import Learned
from lib.params import ConfigError

LEAST = 1e-4  # of b


class SmoothReLU(Learned):
    """SmoothReLU, whose b is the square of the parameter `root`, one number for all channels."""

    def __init__(self, b: float):
        super().__init__()
        self.root = nn.Parameter(torch.tensor(math.sqrt(b)))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        above, b = F.relu(x), self.root.square().clamp_min(LEAST)
        return above - torch.log1p(b * above) / b


def activation(channels: int, *, b: float) -> nn.Module:
    """SmoothReLU, the same for every channel. b: at first, a number above 0."""
    if isinstance(b, bool) or not isinstance(b, int | float) or not 0 < b < math.inf:
        raise ConfigError(f"knobs.smoothrelu.b in params.yaml is {b!r}: it has to be a number above 0")
    return SmoothReLU(b)
