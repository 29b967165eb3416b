"""What a trained Sparta loses when one thing is taken from its g, and whether its gate hides gradients (ours).

g is what Sparta adds to a gate (`lib.activations.sparta`). An ablated network is a copy in which g is replaced at every
site, all else as trained, and it is attacked anew, white-box. What it loses tells what the trained network uses. It
does not tell what a network trained without that would be: that is the ladder of stage `activations`.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute, evaluate, models, stats
from lib.activations.sparta import Constant, Sparta
from lib.alarms.alarm import Alarm
from lib.alarms.strength import gain, ordered
from lib.config import Config
from lib.data import Dataset
from lib.gating.gates import features
from lib.params import ConfigError

NONE, AVERAGED, FIXED, CONSTANT, DETACHED = "none", "averaged", "fixed", "constant", "detached"
ABLATIONS = (NONE, AVERAGED, FIXED, CONSTANT)
KEYS = ["method", "seed", "activation"]
MEANING = "An attack that takes g for a constant fools more than one that follows it: the gradient of g misleads."
REMEDY = "Report the worst case over both, and look at the gates' saturation."


class Averaged(nn.Module):
    """g without spatial variation: averaged over positions, the same everywhere in an image."""

    def __init__(self, g: nn.Module):
        super().__init__()
        self.g = g

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> (N, C, 1, 1)."""
        return self.g(x).expand_as(x).mean((2, 3), keepdim=True)


class Detached(nn.Module):
    """g with the same values and no gradient: whoever attacks this network takes its gates for constants."""

    def __init__(self, g: nn.Module):
        super().__init__()
        self.g = g

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> what g says."""
        return self.g(x).detach()


def gated(network: nn.Module) -> Iterator[tuple[str, Sparta]]:
    """Name and activation of each site. Raises ConfigError where one is not a Sparta."""
    for site in models.sites(network):
        module = network.get_submodule(site.name)
        if not isinstance(module, Sparta):
            raise ConfigError(f"the activation {site.name} is {type(module).__name__}: only Sparta has a g")
        yield site.name, module


def with_g(network: nn.Module, change: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """A copy of the network whose g at each site is what `change` makes of the site's name and its g."""
    changed = copy.deepcopy(network)
    for name, module in gated(changed):
        module.g = change(name, module.g)
    return changed


def mean_maps(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Site -> mean of g over images x (N, ...), (C, H, W), each in the intact network."""
    found = {}
    for name, module in gated(network):
        with torch.no_grad():
            before = features(network, name, x)[0]
            found[name] = module.g(before).expand_as(before).mean(0)
    return found


def ablated(network: nn.Module, seen: Tensor) -> dict[str, nn.Module]:
    """The network without anything taken from it, and its ablated copies, by name: `ABLATIONS`.

    averaged: g averaged over positions, so without spatial variation. fixed: its mean map over the training images
    `seen`, so without input dependence. constant: the mean of that map, so without either. At a site of one position
    averaged changes nothing, and constant is fixed.
    """
    maps = mean_maps(network, seen)
    return {NONE: network, AVERAGED: with_g(network, lambda name, g: Averaged(g)),
            FIXED: with_g(network, lambda name, g: Constant(maps[name])),
            CONSTANT: with_g(network, lambda name, g: Constant(maps[name].mean((1, 2), keepdim=True)))}


def detached(network: nn.Module) -> nn.Module:
    """A copy that says the same, whose gradient passes by g."""
    return with_g(network, lambda name, g: Detached(g))


def table(config: Config, network: nn.Module, dataset: Dataset, device: torch.device, activation: str = "sparta",
          log: Callable[[str], None] = print) -> pd.DataFrame:
    """What the network and its ablated copies say of the test images, each attacked white-box (`evaluate.attacked`).

    Columns method, seed, activation, ablation, attack, index, label, predicted. The ablation DETACHED is the intact
    network, shown the examples that are found where g has no gradient; it has no clean rows.
    """
    seen, tables = dataset.train.first(config.evaluate.training_images).floats()[0], []
    for name, copied in ablated(network, seen).items():
        rows = evaluate.attacked(config, copied, {"test": dataset.test}, device)
        tables.append(rows.assign(ablation=name))
        log(f"ablation {len(tables)}/{len(ABLATIONS) + 1}  {name}")
    source = detached(network)
    for name, attack in evaluate.few_attacks(config).items():
        if attack:
            rows = evaluate.per_sample(network, dataset.test, attacks.transfer(source, attack),
                                       compute.generator(config.seed, device))
            tables.append(rows.assign(attack=name, ablation=DETACHED))
    log(f"ablation {len(ABLATIONS) + 1}/{len(ABLATIONS) + 1}  {DETACHED}")
    whole = pd.concat(tables, ignore_index=True)
    keys = dict(zip(KEYS, (config.method, config.seed, activation), strict=True))
    return whole.assign(**keys)[[*KEYS, "ablation", "attack", "index", "label", "predicted"]]


def hits(rows: pd.DataFrame, ablation: str, attack: str) -> np.ndarray:
    """Which test images are right under an attack, in their order: (N,) of bool."""
    chosen = rows[(rows.ablation == ablation) & (rows.attack == attack)].sort_values("index")
    return (chosen.label == chosen.predicted).to_numpy()


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors of the ablations of one network and how they differ from the intact one's on the same images.

    rows: of `table`. A row for each attack and ablation: n; error, low, high (Wilson, 95 %); change, change_low and
    change_high: error less that of the intact network (`stats.paired`; nan for itself).
    """
    found = []
    for attack, of_attack in rows.groupby("attack", sort=False):
        intact = hits(rows, NONE, attack)
        for ablation in of_attack.ablation.unique():
            right = hits(rows, ablation, attack)
            low, high = stats.wilson((~right).sum(), len(right))
            row = {"attack": attack, "ablation": ablation, "n": len(right), "error": (~right).mean(), "low": low,
                   "high": high}
            both = stats.paired(intact, right) if ablation != NONE else dict.fromkeys(("mean", "low", "high"), np.nan)
            found.append({**row, "change": both["mean"], "change_low": both["low"], "change_high": both["high"]})
    return pd.DataFrame(found)


def checks(config: Config, rows: pd.DataFrame) -> pd.DataFrame:
    """Whether the detached attack is stronger than the full one, which would mean masked gradients.

    rows: of `table`. Columns method, seed, activation, check, verdict, value, limit, note. 'detached, <attack>': by
    how much fewer images the detached attack leaves right than the full one; 'detached, gain': the share of
    images that it fools and no full attack does. Both as `lib.alarms.strength` judges attacks of other networks.
    """
    found, names = [], [name for name, attack in evaluate.few_attacks(config).items() if attack]
    for name in names:
        pair = {(f"{DETACHED} {name}", f"full {name}"): (hits(rows, DETACHED, name), hits(rows, NONE, name))}
        found.append(replace(ordered("transfer", pair), name=f"{DETACHED}, {name}", meaning=MEANING, remedy=REMEDY))
    full, other = (np.all([hits(rows, ablation, name) for name in names], axis=0) for ablation in (NONE, DETACHED))
    note = f"right under all full attacks {full.mean():.1%}, under all detached {other.mean():.1%}, n {len(full)}"
    found.append(replace(gain("transfer", full, other, note), name=f"{DETACHED}, gain", meaning=MEANING, remedy=REMEDY))
    keys = {name: rows[name].iloc[0] for name in KEYS}
    return pd.DataFrame([{**keys, **judged(alarm)} for alarm in found])


def judged(alarm: Alarm) -> dict:
    """An alarm as a row of checks.csv."""
    return {"check": alarm.name, "verdict": alarm.verdict, "value": alarm.value, "limit": alarm.limit,
            "note": alarm.note}
