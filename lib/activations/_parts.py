"""What several activations share: how narrow their own networks are, their BatchNorm, and a check of their knobs."""

import torch.nn.functional as F
from torch import Tensor, nn

from lib.params import ConfigError

LEAST = 8  # hidden channels of a small network, at least: ours, since channels // reduction may be 0


class BatchNorm(nn.BatchNorm2d):
    """torch's. But where a training batch has a single value for each channel, whose variance says nothing, it goes by
    its running statistics and leaves them as they are; torch's raises an error there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def hidden(channels: int, reduction: int, knob: str, least: int = LEAST) -> int:
    """channels / reduction, rounded down and at least `least`. knob: what holds the reduction, such as 'se.reduction'.

    Raises ConfigError for a reduction that is no whole number above 0.
    """
    whole(knob, reduction)
    return max(least, channels // reduction)


def whole(knob: str, value: int, odd: bool = False) -> None:
    """Raise a ConfigError unless a knob ('se.reduction') is a whole number above 0, and odd if it has to be."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or odd and value % 2 == 0:
        raise ConfigError(f"knobs.{knob} in params.yaml is {value!r}: it has to be a whole number above 0"
                          + " and odd" * odd)
