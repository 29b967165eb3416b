"""What trained gates do: where they vary, how an attack moves them, and what they look like (ours).

The gate of an activation f is f(x) / x, the factor that its input meets. Of ReLU it is 1 where x > 0 and 0 elsewhere;
of SiLU and Sparta (`lib.activations.sparta`) a sigmoid, sigmoid(slope x + g(x)), with g = 0 and slope 1 in SiLU. There
it is taken from the module itself, so that x = 0 has a gate too. Any other activation is divided out, and features
with |x| up to `TINY` have no gate (nan) and are left out of every mean.

A gate that differs between positions is no property of Sparta: x differs, so any gate does. What Sparta adds is g.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute, evaluate, models, stats
from lib.activations.sparta import Sparta
from lib.config import Config
from lib.data import Dataset
from lib.layers import Site

TINY = 1e-6
SATURATED = 1e-3  # a gate s counts as saturated where s (1 - s) is below
SHOWN = ("relu", "silu", "sparta")  # the activations of the pictures
MEANS = ("spatial", "flipped", "moved", "noise", "saturated")  # means over images, which have an interval


@dataclass(frozen=True)
class Examples:
    """Images x (N, C, H, W) in [0, 1], their labels y (N,), and what an attack makes of x on each network."""

    x: Tensor
    y: Tensor
    attacked: dict[str, Tensor]


def examples(config: Config, networks: Mapping[str, nn.Module], dataset: Dataset, device: torch.device) -> Examples:
    """The first `config.gates.images` test images, and what the headline attack makes of them on each network."""
    attack, found = evaluate.few_attacks(config)[config.evaluate.headline], {}
    images = dataset.test.first(config.gates.images)
    for name, network in networks.items():
        generator = compute.generator(config.seed, device)
        found[name] = torch.cat([attack(network, x, y, generator=generator) for x, y in images.in_order(500)])
    return Examples(*images.floats(), found)


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """While open: the name of each site -> what its activation was last given and gave, (N, C, H, W) each."""
    seen = {}

    def watch(name: str) -> Callable:
        """A hook for the activation of this name."""
        def hook(module, inputs, output):
            """Keeps both."""
            seen[name] = inputs[0].detach(), output.detach()
        return hook

    hooks = [network.get_submodule(site.name).register_forward_hook(watch(site.name)) for site in models.sites(network)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def features(network: nn.Module, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the activation of one site is given and gives for images x, in eval mode: (N, C, H, W) each."""
    parts = []
    with attacks.under_attack(network), torch.no_grad(), watched(network) as seen:
        for images in x.split(500):
            network(images)
            parts.append(seen[name])
    before, after = (torch.cat(each) for each in zip(*parts, strict=True))
    return before, after


def logits(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The two parts of what a gate's sigmoid is taken of, (N, C, H, W) each: slope x, and g(x).

    None for an activation whose gate is no sigmoid.
    """
    if isinstance(module, nn.SiLU):
        return x, torch.zeros_like(x)
    if isinstance(module, Sparta) and module.form == "gate":
        g = module.g(x).expand_as(x)
        return torch.zeros_like(x) if module.slope is None else module.slope[:, None, None] * x, g
    return None


def gate(module: nn.Module, x: Tensor) -> Tensor:
    """The gate of an activation at its input x, like x; see the top of this file."""
    if isinstance(module, nn.ReLU):
        return (x > 0).to(x)
    with torch.no_grad():
        parts = logits(module, x)
        return torch.where(x.abs() > TINY, module(x) / x, torch.nan) if parts is None else sum(parts).sigmoid()


def deviation(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Standard deviation over dimensions (ddof 0), nan left out."""
    mean = values.nanmean(dim, keepdim=True)
    return (values - mean).square().nanmean(dim).sqrt()


def over_positions(values: Tensor) -> Tensor:
    """Standard deviation over positions, mean over channels: (N, C, H, W) -> (N,); 0 where there is one position."""
    return deviation(values, (2, 3)).nanmean(1)


def over_images(values: Tensor) -> float:
    """Standard deviation over images at one position, mean over channels and positions of (N, C, H, W)."""
    return deviation(values, 0).nanmean().item()


def moved(clean: Tensor, attacked: Tensor) -> tuple[Tensor, Tensor]:
    """By how much an attack moves the gates (N, C, H, W) of each image, (N,), and the share it moves by over 1/2."""
    by = (clean - attacked).abs().flatten(1)
    return by.nanmean(1), torch.where(by.isnan(), torch.nan, (by > 0.5).float()).nanmean(1)


def noise(clean: Tensor, attacked: Tensor) -> Tensor:
    """Relative feature noise of each image, ||f(x + d) - f(x)|| / ||f(x)|| (Euclidean): (N,); nan where f(x) = 0."""
    size = clean.flatten(1).norm(dim=1)
    return torch.where(size > 0, (attacked - clean).flatten(1).norm(dim=1) / size, torch.nan)


def measures(module: nn.Module, clean: tuple[Tensor, Tensor], attacked: tuple[Tensor, Tensor]) -> dict[str, float]:
    """What is said of the gates of one site; see `table`. clean, attacked: what its activation is given and gives."""
    gates, parts = gate(module, clean[0]), logits(module, clean[0])
    by, flipped = moved(gates, gate(module, attacked[0]))
    each = {"spatial": over_positions(gates), "flipped": flipped, "moved": by, "noise": noise(clean[1], attacked[1]),
            "saturated": torch.full((len(gates),), torch.nan)}
    if parts is not None:
        each["saturated"] = (gates * (1 - gates) < SATURATED).float().flatten(1).mean(1)
    found = {"across": over_images(gates)}
    for part, name in enumerate(("x", "g")):
        found[f"{name}_spatial"] = np.nan if parts is None else over_positions(parts[part]).mean().item()
        found[f"{name}_across"] = np.nan if parts is None else over_images(parts[part])
    for name, values in each.items():
        known = values[~values.isnan()].cpu().numpy()
        mean = stats.over_seeds(known, within=(0, np.inf)) if len(known) else dict.fromkeys(("mean", "low", "high"))
        found |= {name: mean["mean"], f"{name}_low": mean["low"], f"{name}_high": mean["high"]}
    return found


COLUMNS = ["method", "seed", "activation", "site", "group", "block", "place", "channels", "size", "n", "spatial",
           "across", "flipped", "moved", "noise", "saturated", "g_spatial", "g_across", "x_spatial", "x_across",
           *(f"{name}_{side}" for name in MEANS for side in ("low", "high"))]


def table(config: Config, networks: Mapping[str, nn.Module], shown: Examples,
          log: Callable[[str], None] = print) -> pd.DataFrame:
    """What the gates of every network do, a row a site: `COLUMNS`. n: images.

    site: the name of the activation's module; group, block, place: as in `lib.layers.Site`; channels, size: of its
    features, size in positions a side. On clean images: spatial, standard deviation of the gate over positions, mean
    over channels and images; across, over images at one position, mean over channels and positions; saturated, share
    of gates with s (1 - s) < 1e-3 (nan where a gate is no sigmoid). Between image and example: flipped, share of gates
    that move by more than 1/2; moved, by how much they move, mean; noise, ||f(x + d) - f(x)|| / ||f(x)||.
    _low, _high: 95 % t intervals over images.
    g_spatial, g_across: as spatial and across, of g(x), before the sigmoid; x_spatial, x_across: of slope x.
    """
    rows = []
    for done, (name, network) in enumerate(networks.items(), 1):
        for site in models.sites(network):
            clean, attacked = (features(network, site.name, x) for x in (shown.x, shown.attacked[name]))
            rows.append({"method": config.method, "seed": config.seed, "activation": name, "site": site.name,
                         **site._asdict(), "channels": clean[0].shape[1], "size": clean[0].shape[-1],
                         "n": len(shown.x), **measures(network.get_submodule(site.name), clean, attacked)})
        log(f"gates {done}/{len(networks)}  {name}")
    return pd.DataFrame(rows)[COLUMNS]


def first_sites(network: nn.Module, x: Tensor) -> list[Site]:
    """The first site of each of the two largest image sizes, of those with more than one position."""
    found = {}
    with attacks.under_attack(network), torch.no_grad(), watched(network) as seen:
        network(x[:1])
    for site in models.sites(network):
        found.setdefault(seen[site.name][0].shape[-1], site)
    return [found[size] for size in sorted(found, reverse=True) if size > 1][:2]


def strongest_channel(networks: Mapping[str, nn.Module], name: str, x: Tensor) -> int:
    """The channel of a site with the largest mean output over images x, as a share of the site's largest, summed over
    the networks. They began with the same weights, so that a channel is the same one in all.
    """
    means = [features(network, name, x)[1].mean((0, 2, 3)) for network in networks.values()]
    return int(sum(mean / mean.abs().max().clamp_min(TINY) for mean in means).argmax())


def pictures(config: Config, networks: Mapping[str, nn.Module], shown: Examples,
             dataset: Dataset) -> dict[str, np.ndarray]:
    """What the gates look like: the arrays of pictures.npz, of the first P = `config.gates.pictures` images.

    activations: (A,), those of `SHOWN`. labels: (P,). sites: (S,) names, see `first_sites`. channels: (S,), by
    `strongest_channel` on training images. attacked: (A, P, H, W[, 3]), the examples of each network. inputs:
    (P, 2, H, W[, 3]), the images and the examples of the last network. gates_<s>: (A, P, 2, h, w), in [0, 1], of the
    channel at site s: for the image, and for the network's own example.
    """
    networks = {name: networks[name] for name in SHOWN if name in networks}
    few, seen = slice(config.gates.pictures), dataset.train.first(config.evaluate.training_images).floats()[0]
    attacked = np.stack([_image(shown.attacked[name][few]) for name in networks])
    sites = [site.name for site in first_sites(next(iter(networks.values())), shown.x)]
    channels = [strongest_channel(networks, site, seen) for site in sites]
    found = {"activations": np.array(list(networks)), "labels": shown.y[few].cpu().numpy(), "sites": np.array(sites),
             "channels": np.array(channels), "attacked": attacked,
             "inputs": np.stack([_image(shown.x[few]), attacked[-1]], 1)}
    for s, (site, channel) in enumerate(zip(sites, channels, strict=True)):
        maps = []
        for name, network in networks.items():
            module = network.get_submodule(site)
            pair = [gate(module, features(network, site, x[few])[0])[:, channel]
                    for x in (shown.x, shown.attacked[name])]
            maps.append(torch.stack(pair, 1).cpu().numpy())
        found[f"gates_{s}"] = np.stack(maps)
    return found


def _image(x: Tensor) -> np.ndarray:
    """Images (N, C, H, W) as they are drawn: (N, H, W), or (N, H, W, 3)."""
    return x.permute(0, 2, 3, 1).squeeze(3).cpu().numpy()
