"""PSSiLU (Dai et al. 2022, "Parameterizing activation functions for adversarial robustness"): SiLU with two numbers.

x (sigmoid(|a| x) - |b|) / (1 - |b|), a = 1 and b = 0 at first, when it is SiLU: the formula is that of the authors'
code (class PSSiLU2). Ours differs in three things. One (a, b) for each site: theirs share one in the whole network.
No penalty: their training adds 10 |b| to the loss. |b| counts as 0.9 where it is larger, since 1 - |b| divides, and has
the gradient 1 at 0, where torch's abs has 0, so that b would never move from its first value.
"""

import torch
from torch import Tensor, nn

from lib.activations import Learned

MOST = 0.9  # of |b|


class PSSiLU(Learned):
    """SiLU with a slope a and a shift b, one number each, the same for every channel."""

    def __init__(self):
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        shift = torch.where(self.shift < 0, -self.shift, self.shift).clamp_max(MOST)
        return x * (torch.sigmoid(self.slope.abs() * x) - shift) / (1 - shift)


def activation(channels: int) -> nn.Module:
    """PSSiLU, the same for every channel."""
    return PSSiLU()
