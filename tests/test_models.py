"""Networks: sizes from the papers, normalisation inside, any activation."""

import pytest
import torch
from torch import nn

from lib import models
from lib.config import Model
from lib.params import ConfigError

STATISTICS = ([0.5, 0.4, 0.3], [0.2, 0.2, 0.25])


def build(name, width, activation="relu", shape=(3, 32, 32), **more):
    return models.build(Model(name, width, activation), shape, 10, STATISTICS, **more)


@pytest.mark.parametrize(("name", "width", "millions"), [
    ("resnet18", 64, 11.18), ("resnet50", 64, 23.53),
    ("preact_resnet18", 64, 11.17), ("wide_resnet28", 10, 36.48), ("wide_resnet34", 10, 46.16)])
def test_parameter_counts(name, width, millions):
    with torch.device("meta"):
        network = build(name, width)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("name", [name for name in models.NETWORKS if not name.startswith("resnet")])
def test_any_activation_goes_everywhere(name):
    calls = []

    def per_channel(channels):
        calls.append(channels)
        return nn.PReLU(channels)

    network = build(name, 1 if "wide" in name else 4, activation="relu", shape=(3, 16, 16))
    replaced = models.build(Model(name, 1 if "wide" in name else 4, "relu"), (3, 16, 16), 10, STATISTICS, per_channel)
    relus = sum(isinstance(m, nn.ReLU) for m in network.modules())
    assert relus == len(calls) > 0 and not any(isinstance(m, nn.ReLU) for m in replaced.modules())
    assert replaced(torch.rand(2, 3, 16, 16)).shape == (2, 10)


def test_torchvisions_resnets_are_as_they_are():
    assert build("resnet18", 64, shape=(3, 64, 64))(torch.rand(2, 3, 64, 64)).shape == (2, 10)
    for width, activation, channels in ((32, "relu", 3), (64, "silu", 3), (64, "relu", 1)):
        with pytest.raises(ConfigError, match="resnet18 takes images of 3 channels, width 64 and activation relu"):
            build("resnet18", width, activation, shape=(channels, 64, 64))


def test_normalisation_is_the_first_layer():
    network = build("small_cnn", 4)
    x = torch.rand(5, 3, 32, 32)
    out = network[0](x)
    assert torch.allclose(out[:, 2], (x[:, 2] - 0.3) / 0.25)
    assert not any(p.requires_grad for p in network[0].parameters())


def test_unknown_names_list_what_exists():
    with pytest.raises(ConfigError, match="unknown network 'resnett'.* there are: small_cnn"):
        build("resnett", 4)
    with pytest.raises(ConfigError, match="unknown activation 'rleu' .*did you mean 'relu'"):
        build("small_cnn", 4, "rleu")
