"""Networks: sizes from the papers, normalisation inside, any activation."""

import pytest
import torch
import torchvision
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


@pytest.mark.parametrize("name", models.NETWORKS)
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


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_resnets_are_torchvisions_for_large_images(name):
    reference = getattr(torchvision.models, name)(num_classes=10).eval()
    network = build(name, 64, shape=(3, 96, 96))[1].eval()
    for buffer in network.buffers():
        if buffer.dim():
            nn.init.uniform_(buffer, 0.5, 1.5)
    reference.load_state_dict(dict(zip(reference.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(network(x), reference(x))


def test_resnets_see_small_images_at_full_size():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build(name, 64).parameters()) for name in ("resnet18", "resnet34")]
    assert counts == [11_173_962, 21_282_122]  # with a 3 x 3 stem
    network = build("resnet18", 2)[1]
    sizes = []
    network.act.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[2:])))
    network(torch.rand(2, 3, 32, 32))
    assert sizes == [(32, 32)]


@pytest.mark.parametrize("name", models.NETWORKS)
def test_sites_are_the_activations_in_the_order_of_an_image(name):
    network = models.build(Model(name, 1 if "wide" in name else 4, "relu"), (3, 16, 16), 10, STATISTICS, nn.PReLU)
    order, found = [], {id(m): n for n, m in network.named_modules() if isinstance(m, nn.PReLU)}
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            module.register_forward_hook(lambda module, inputs, output: order.append(found[id(module)]))
    network(torch.rand(2, 3, 16, 16))
    sites = models.sites(network)
    assert [site.name for site in sites] == order
    places = [site[1:] for site in sites]
    assert places == sorted(set(places)) and places[0] == (0, 0, 0)


def test_sites_say_where():
    def places(name):
        return [site[1:] for site in models.sites(build(name, 4))]

    assert places("small_cnn") == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0)]
    assert places("small_cnn_deep") == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0), (2, 0, 0)]
    assert places("resnet18")[:6] == [(0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (2, 0, 0)]
    assert len(places("resnet18")) == 17 and len(places("resnet34")) == 33


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
