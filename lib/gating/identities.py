"""Relations of Sparta to other activations, checked at the features that a trained network's sites are given (ours)."""

import copy

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations.sparta import Bias, Constant, Sparta
from lib.activations.swish import Swish
from lib.config import Config
from lib.gating.ablations import gated
from lib.gating.gates import features

STEEP = 1e4        # the slope that stands for infinity
RELU_GAP = 0.2785  # the largest of t sigmoid(-t): a gate of slope b is within RELU_GAP / b of ReLU
ROUNDING = 1e-6    # of float32, as a share of the largest feature


def table(config: Config, network: nn.Module, x: Tensor) -> pd.DataFrame:
    """Relations to other activations, at the features that the trained network's sites are given for images x.

    Columns method, seed, identity, difference (the largest absolute one, of all sites), bound (what rounding, or a
    steep slope in place of an infinite one, may make of it) and n, the features compared.
    """
    rows = []
    for name, module in gated(network):
        before = features(network, name, x)[0]
        with torch.no_grad():
            for identity, (one, other, bound) in related(module, before).items():
                rows.append({"identity": identity, "difference": (one - other).abs().max().item(), "bound": bound,
                             "n": before.numel()})
    found = pd.DataFrame(rows).groupby("identity", sort=False).agg(
        {"difference": "max", "bound": "max", "n": "sum"}).reset_index()
    return found.assign(method=config.method, seed=config.seed)[["method", "seed", *found.columns]]


def related(module: Sparta, x: Tensor) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Identity -> both its sides at features x, and how far apart they may be. `module` is of the default form."""
    zero, slope, rounding = Constant(x.new_zeros(())), module.slope.detach(), ROUNDING * x.abs().max().item()
    cut, bias, swish = copy.deepcopy(module), Bias(len(slope)).to(x.device), Swish(len(slope)).to(x.device)
    last = [part for part in cut.g.modules() if isinstance(part, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.zero_()
        bias.bias.copy_(last.bias)
        swish.slope.copy_(slope)
    return {"g = 0: Swish": (Sparta(slope, zero)(x), swish(x), rounding),
            "g = 0, slope 1: SiLU": (Sparta(torch.ones_like(slope), zero)(x), F.silu(x), rounding),
            f"g = 0, slope {STEEP:g}: ReLU": (Sparta(torch.full_like(slope, STEEP), zero)(x), F.relu(x),
                                              RELU_GAP / STEEP + rounding),
            "W2 = 0: bias": (cut(x), Sparta(slope, bias)(x), rounding)}
