"""Sparta (Guo et al. 2021, arXiv 2105.08269): an activation whose gate looks at a neighbourhood of its input.

Only the abstract of the paper could be read, so this is a re-implementation from the abstract. It says that ReLU is
shared by all positions and independent of the input, that Sparta is neither, and that it extends ReLU and is related
to Swish. Our reading, in which both are special cases:

Sparta(x) = x * sigmoid(z),  z = beta x + g(x),  g(x) = W2 SiLU(W1 DW(x) + b1) + b2

beta: a slope for each channel, 1 at first. DW: a convolution of each channel alone; W1, W2: 1 x 1, through
max(8, channels / reduction) hidden channels. W2 and b2 begin at 0, so it begins as SiLU. There is no BatchNorm in g: a
Sparta that is fixed is fixed, and an attack meets the one that was trained. Everything else about it is ours: kernel,
reduction, the shape of the gate, that it replaces every activation, and the variants below.

context, what g looks at:   spatial (above); full, two k x k convolutions; pooled, means over H and W; map, a weight for
each position, the same for every image; bias, one for each channel; none; agnostic, each channel alone by one small
network for all, which fits any number of channels.
form, what is done with it: gate (above); relu, ReLU(x) * 2 sigmoid(g(x)); threshold, max(x, g(x)); add, SiLU(x) + g(x).
`relu` and `threshold` begin as ReLU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from lib.activations import Learned
from lib.activations._parts import hidden, whole
from lib.params import ConfigError, known

CONTEXTS = ("spatial", "full", "pooled", "map", "bias", "none", "agnostic")
FORMS = ("gate", "relu", "threshold", "add")
STARTS = ("zero", "random")
ALONE = 4   # hidden channels of `agnostic`


class Sparta(Learned):
    """x * sigmoid(slope x + g(x)), or another `form`; features (N, C, H, W) in and out.

    slope: (C,), or None for a gate of g alone. g: a module that gives z what it adds, of a shape that spreads over
    (N, C, H, W). Attacks have to go through g: without it the gradient misses how positions act on each other.
    """

    def __init__(self, slope: Tensor | None, g: nn.Module, form: str = "gate"):
        super().__init__()
        known("form", form, FORMS, "knobs.sparta of params.yaml")
        self.slope = None if slope is None else nn.Parameter(slope)
        self.g, self.form = g, form

    def logits(self, x: Tensor) -> Tensor:
        """z, (N, C, H, W): the gate before its sigmoid."""
        z = self.g(x)
        return (z if self.slope is None else self.slope[:, None, None] * x + z).expand_as(x)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) of the same shape."""
        if self.form == "gate":
            return x * torch.sigmoid(self.logits(x))
        if self.form == "relu":
            return F.relu(x) * 2 * torch.sigmoid(self.g(x))
        return torch.maximum(x, self.g(x).expand_as(x)) if self.form == "threshold" else F.silu(x) + self.g(x)


class Spatial(nn.Sequential):
    """g of the default: each channel's neighbourhood, then across channels (N, C, H, W) -> (N, outputs, H, W)."""

    def __init__(self, channels: int, outputs: int, kernel: int, reduction: int):
        between = hidden(channels, reduction, "sparta.reduction")
        look = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        super().__init__(look, nn.Conv2d(channels, between, 1), nn.SiLU(), nn.Conv2d(between, outputs, 1))


class Full(nn.Sequential):
    """g of two k x k convolutions across channels."""

    def __init__(self, channels: int, outputs: int, kernel: int, reduction: int):
        between, padding = hidden(channels, reduction, "sparta.reduction"), kernel // 2
        super().__init__(nn.Conv2d(channels, between, kernel, padding=padding), nn.SiLU(),
                         nn.Conv2d(between, outputs, kernel, padding=padding))


class Pooled(nn.Sequential):
    """g of the means of the channels, the same at every position: depends on the image, not on the place."""

    def __init__(self, channels: int, outputs: int, kernel: int, reduction: int):
        between = hidden(channels, reduction, "sparta.reduction")
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, between, 1), nn.SiLU(),
                         nn.Conv2d(between, outputs, 1))


class Agnostic(nn.Module):
    """g of each channel as an image of its own, by one small network for all channels."""

    def __init__(self, kernel: int):
        super().__init__()
        padding = kernel // 2
        self.each = nn.Sequential(nn.Conv2d(1, ALONE, kernel, padding=padding), nn.SiLU(),
                                  nn.Conv2d(ALONE, 1, kernel, padding=padding))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> (N, C, H, W)."""
        return self.each(x.flatten(0, 1)[:, None]).view_as(x)


class Bias(nn.Module):
    """g of one number for each channel: depends on neither image nor place."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> (C, 1, 1)."""
        return self.bias[:, None, None]


class PositionMap(LazyModuleMixin, nn.Module):
    """g of one number for each channel and position: depends on the place, not on the image.

    It learns the size of its input from the first one that it is given, and then takes no other.
    """

    def __init__(self):
        super().__init__()
        self.map = UninitializedParameter()

    def initialize_parameters(self, x: Tensor) -> None:
        """Zeros (C, H, W)."""
        if self.has_uninitialized_params():
            with torch.no_grad():
                self.map.materialize(x.shape[1:])
                self.map.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> (C, H, W)."""
        return self.map


def activation(channels: int, *, form: str, context: str, slope: bool, start: str, one_map: bool, kernel: int,
               reduction: int) -> nn.Module:
    """Sparta for so many channels; see the top of this file.

    slope: False for beta = 0. start: of W2, zero or random. one_map: one gate for all channels. kernel: k, odd.
    reduction: channels over hidden channels. Raises ConfigError for knobs that are none of these, and for those that
    make x / 2 at first, a linear network.
    """
    known("context", context, CONTEXTS, "knobs.sparta of params.yaml")
    known("start", start, STARTS, "knobs.sparta of params.yaml")
    if not slope and form == "gate" and start == "zero":
        raise ConfigError("knobs.sparta in params.yaml: without a slope and with start zero the gate is 1/2 "
                          "everywhere: set start: random")
    whole("sparta.kernel", kernel, odd=True)
    networks = {"spatial": Spatial, "full": Full, "pooled": Pooled}
    if context in networks:
        g = networks[context](channels, 1 if one_map else channels, kernel, reduction)
    else:
        g = {"map": PositionMap, "bias": lambda: Bias(channels), "agnostic": lambda: Agnostic(kernel),
             "none": lambda: Constant(torch.zeros(()))}[context]()
    convolutions = [module for module in g.modules() if isinstance(module, nn.Conv2d)]
    if convolutions:
        last = convolutions[-1]
        nn.init.zeros_(last.bias)
        if start == "zero":
            nn.init.zeros_(last.weight)
        else:
            nn.init.kaiming_normal_(last.weight, nonlinearity="linear")
    return Sparta(torch.ones(channels) if slope and form == "gate" else None, g, form)


class Constant(nn.Module):
    """g that is what it is given, whatever the input: 0 makes Swish; a trained g's mean takes its input away."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> what it was given."""
        return self.value
