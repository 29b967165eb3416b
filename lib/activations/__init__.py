"""Activations: what stands in place of ReLU, everywhere in a network.

An activation is a function of the number of channels that returns a module, and the module takes features
(N, channels, H, W) to features of the same shape. lib/activations/<name>.py defines
`activation(channels, **knobs) -> nn.Module`; its keyword-only arguments are the keys of knobs.<name> in params.yaml.
The name is a part of a spec: 'pgd+silu', 'trades+sparta+awp'. A new activation is one such file.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lib.params import ConfigError, known

Activation = Callable[[int], nn.Module]
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)


class Learned(nn.Module):
    """An activation with parameters of its own, which sets their first values itself."""


def available() -> list[str]:
    """The names of all activations: one a file of this folder."""
    return sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def build(name: str, knobs: dict | None = None) -> Activation:
    """The activation of this name, with its numbers.

    Raises ConfigError for a name that does not exist, and for knobs that it does not take or that are missing.
    """
    known("activation", name, available())
    make = importlib.import_module(f"{__name__}.{name}").activation
    knobs, names = knobs or {}, [p.name for p in inspect.signature(make).parameters.values()
                                 if p.kind is p.KEYWORD_ONLY]
    for key in knobs:
        known("knob", key, names, f"knobs.{name} of params.yaml")
    if missing := [key for key in names if key not in knobs]:
        raise ConfigError(f"knobs.{name} in params.yaml lacks {', '.join(missing)}")
    return partial(make, **knobs)


def apart(activation: Activation) -> Activation:
    """The same activation, whose random first values leave torch's generator as it was.

    So all other weights of a network come out the same, whatever its activation.
    """
    def make(channels: int) -> nn.Module:
        """The module for so many channels."""
        with torch.random.fork_rng(devices=[]):
            return activation(channels)

    return make


def learned(network: nn.Module) -> list[nn.Module]:
    """The activations of a network that have parameters, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, Learned)]


def undecayed(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of activations that weight decay leaves alone: slopes, biases and the like.

    All but the weights of their convolutions and linear layers. A slope that is drawn to 0 would make another
    activation: of SiLU, x / 2.
    """
    return [parameter for activation in learned(network) for module in activation.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if not (name == "weight" and isinstance(module, WEIGHTED))]
