"""The arms of a transplant: whose activations a network gets, at which of its sites, and whether they stay fixed.

The paper's abstract says that a Sparta that was trained adversarially can be fixed and used to train another network.
Which site goes to which, and the controls T4 to T7, are ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lib import models
from lib.layers import Site
from lib.methods import Method
from lib.params import ConfigError

ARMS = {
    "T0": "ReLU",
    "T1": "SiLU",
    "T2": "Sparta of its own",
    "T3": "transplanted, fixed",
    "T4": "fixed, g at random",
    "T5": "fixed, from standard training",
    "T6": "transplanted, then trained",
    "T7": "fixed, sites permuted",
}
OWN = {"T0": "relu", "T1": "silu", "T2": "sparta"}  # arms without a transplant, and their activations
TRAINED_ON = "T6"
RANDOM, PERMUTED, STANDARD = "T4", "T7", "T5"

WHERE = "transplant.networks in params.yaml"
State = dict[str, Tensor]  # the parameters of one activation, by name


def states(model: nn.Module) -> dict[Site, State]:
    """A copy of the parameters of the activation at each site, on the CPU."""
    return {site: {name: value.detach().cpu().clone()
                   for name, value in model.get_submodule(site.name).state_dict().items()}
            for site in models.sites(model)}


def counterparts(source: Iterable[Site], target: Iterable[Site], names: tuple[str, str]) -> dict[Site, Site]:
    """For each site of the target the one of the source that it gets its activation from.

    It is in the same group and at the same place of its block. Of groups with as many blocks the same block; else the
    first block gets the first and every other the source's last, since the first is where width and size change.
    names: of the two networks. Raises ConfigError for a site without a counterpart.
    """
    source, target = list(source), list(target)
    there = {site[1:]: site for site in source}
    depth, wanted, found = _blocks(source), _blocks(target), {}
    for site in target:
        last = depth.get(site.group, 0) - 1
        block = site.block if depth.get(site.group) == wanted[site.group] else min(site.block, 1) * last
        if (site.group, block, site.place) not in there:
            raise ConfigError(f"{WHERE}: {names[0]} has no site for {site.name} of {names[1]}, group {site.group} and "
                              f"place {site.place} of a block: name networks that are more alike")
        found[site] = there[site.group, block, site.place]
    return found


def _blocks(sites: list[Site]) -> dict[int, int]:
    """How many blocks each group has."""
    return {group: len({site.block for site in sites if site.group == group}) for group in {s.group for s in sites}}


def placed(given: Mapping[Site, State], model: nn.Module, names: tuple[str, str]) -> dict[str, State]:
    """For each site of the network `model`, by its name, the parameters among `given` that it gets; see `counterparts`.

    Where the numbers of channels differ and the slopes are all that differs, each becomes the mean of the source's
    slopes. Raises ConfigError where anything else differs in shape.
    """
    found = {}
    for site, other in counterparts(given, models.sites(model), names).items():
        state, wanted = dict(given[other]), model.get_submodule(site.name).state_dict()
        differ = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
        if differ == ["slope"]:
            state["slope"] = state["slope"].mean().expand(wanted["slope"].shape).clone()
        elif differ:
            shapes = " and ".join(str(_shape(each, differ[0])) for each in (state, wanted))
            raise ConfigError(f"{WHERE}: {other.name} of {names[0]} does not fit {site.name} of {names[1]}, shapes of "
                              f"{differ[0]} are {shapes}: knobs.sparta.context agnostic fits any width")
        found[site.name] = state
    return found


def _shape(state: State, key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if key in state else None


def planted(method: Method, given: Mapping[str, State], fixed: bool) -> Method:
    """The method, whose network begins with these activations, by the names of their sites, and keeps them if fixed.

    They are fixed before the optimiser is made, which so never has them: neither momentum nor weight decay moves them.
    """
    def network(*arguments):
        """The method's network, with the activations in place."""
        model = method.network(*arguments)
        for name, state in given.items():
            activation = model.get_submodule(name)
            activation.load_state_dict(state)
            activation.requires_grad_(not fixed)
        return model

    return replace(method, network=network)


def randomised(given: Mapping[Site, State], seed: int) -> dict[Site, State]:
    """The activations with every parameter of g drawn anew: the control T4.

    From a normal distribution, then brought to exactly the mean and standard deviation that the trained tensor has. The
    slopes stay, so that this control differs from the transplant in what g has learned and in nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    return {site: {name: _alike(value, generator) if name.startswith("g.") else value for name, value in state.items()}
            for site, state in given.items()}


def _alike(value: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise with the mean and the standard deviation of `value`; a single number stays what it is."""
    if value.numel() < 2:
        return value
    noise = torch.randn(value.shape, generator=generator)
    noise = (noise - noise.mean()) / noise.std()
    return noise * value.std() + value.mean()


def permuted(given: Mapping[Site, State], seed: int) -> dict[Site, State]:
    """The activations, each at another site of its group that has parameters of the same shapes: the control T7.

    Where a group has two such sites or more, none keeps its place; a site without a match in its group does.
    """
    alike, found, draw = {}, dict(given), np.random.default_rng(seed)
    for site, state in given.items():
        alike.setdefault((site.group, *(value.shape for value in state.values())), []).append(site)
    for places in alike.values():
        if len(places) > 1:
            order = _derangement(len(places), draw)
            found |= {site: given[places[other]] for site, other in zip(places, order, strict=True)}
    return found


def _derangement(n: int, draw: np.random.Generator) -> np.ndarray:
    """A random order of n > 1 things in which none is at its own place."""
    while True:
        order = draw.permutation(n)
        if (order != np.arange(n)).all():
            return order


def possible(given: Mapping[Site, State]) -> list[str]:
    """The arms that these activations allow: without T4 if g has no tensor, without T7 if no group has two alike."""
    moves = any(permuted(given, 0)[site] is not state for site, state in given.items())
    sizes = [value.numel() for state in given.values() for name, value in state.items() if name.startswith("g.")]
    without = {RANDOM: max(sizes, default=1) > 1, PERMUTED: moves}
    return [arm for arm in ARMS if without.get(arm, True)]
