"""One network under every attack of the comparison of activations, and the errors that come of it."""

from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from torch import nn

from lib import attacks, compute, evaluate, stats
from lib.config import Config, Threat
from lib.data import Dataset

FAR = 8  # the radius of `WIDEST`, in units of eps: 64/255 where eps is 8/255
INSTEAD = {"final": "report"}  # tier -> what is run in its place, since there are many networks
TRANSFER, WIDEST = "transfer", "large radius"
KEYS = ["method", "seed", "activation"]
SAID = ["index", "label", "predicted"]


def suite(config: Config) -> dict[str, attacks.Attack | None]:
    """What each network faces on test images: clean, the attacks of params.yaml, `longer`, and at last the tier.

    Of tier `final` it is `report`: there are many networks.
    """
    tier = INSTEAD.get(config.evaluate.tier, config.evaluate.tier)
    found = evaluate.all_attacks(replace(config, evaluate=replace(config.evaluate, tier=tier)))
    strongest, name = found.pop(tier), longer(config)
    size = config.attacks[config.evaluate.headline].get("step_size", config.train.step_size)
    plain = {"attack": "pgd", "steps": max(config.activations.many), "step_size": size}
    more = attacks.from_params(name, config.attacks.get(name, plain), config.threat)
    return {evaluate.CLEAN: None, **found, name: more, tier: strongest}


def longer(config: Config) -> str:
    """The name of PGD like the headline attack, with the most steps of `config.activations.many`, such as pgd-100."""
    return f"pgd-{max(config.activations.many)}"


def attacked(config: Config, model: nn.Module, dataset: Dataset, device: torch.device) -> pd.DataFrame:
    """Test images under the `suite`; validation images, which only choose, clean and under the headline attack."""
    tables = [_under(attack, config, model, dataset, device).assign(split="test", attack=name)
              for name, attack in suite(config).items()]
    few = [evaluate.CLEAN, config.evaluate.headline]
    return pd.concat([*tables, evaluate.attacked(config, model, {"validation": dataset.validation}, device, few)],
                     ignore_index=True)


def _under(attack: attacks.Attack | None, config: Config, model: nn.Module, dataset: Dataset,
           device: torch.device) -> pd.DataFrame:
    """What the network says of the test images under one attack, whose noise is the same for every network."""
    return evaluate.per_sample(model, dataset.test, attack, compute.generator(config.seed, device))[SAID]


def scaled(config: Config, radius: float) -> Threat:
    """The threat model at a radius in units of eps; a radius in Linf beyond 1 is 1, which allows any image."""
    widest = 1.0 if config.threat.norm == "Linf" else float("inf")
    return replace(config.threat, eps=min(radius * config.threat.eps, widest))


def sweeps(config: Config, model: nn.Module, dataset: Dataset, device: torch.device, radii: bool,
           steps: bool) -> dict[str, pd.DataFrame]:
    """Auto-PGD on cross-entropy and test images, in tables `radii`, with the most steps, and `steps`, at radius eps.

    radii, steps: whether this sweep is wanted. Columns: radius (units of eps) or steps, and `SAID`.
    """
    many, done = config.activations.many, {}
    work = {"radius": [(radius, max(many)) for radius in config.activations.radii if radii],
            "steps": [(1.0, each) for each in many if steps]}
    for radius, each in sorted({pair for pairs in work.values() for pair in pairs}):
        attack = partial(attacks.apgd, threat=scaled(config, radius), steps=each)
        rows = _under(attack, config, model, dataset, device)
        done[radius, each] = rows.assign(radius=radius, steps=each)
    return {name: pd.concat([done[pair][[column, *SAID]] for pair in work[column]], ignore_index=True)
            for name, column in (("radii", "radius"), ("steps", "steps")) if work[column]}


def controls(config: Config, model: nn.Module, relu: nn.Module, dataset: Dataset, device: torch.device) -> pd.DataFrame:
    """Two attacks that only check the others: columns attack and `SAID`.

    `TRANSFER`: the headline attack's examples of the network with ReLU, `relu`, itself left out. `WIDEST`: the headline
    attack at the radius `FAR`.
    """
    headline, found = config.attacks[config.evaluate.headline], {}
    if model is not relu:
        found[TRANSFER] = attacks.transfer(relu, attacks.from_params(TRANSFER, headline, config.threat))
    found[WIDEST] = attacks.from_params(WIDEST, headline, scaled(config, FAR))
    return pd.concat([_under(attack, config, model, dataset, device).assign(attack=name)
                      for name, attack in found.items()], ignore_index=True)


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """The error of each network of a per-sample table under each attack: KEYS, split, attack, n, error, low, high.

    n: images; low, high: Wilson's 95 % interval. WORST stands last: an image is wrong that is wrong under any attack of
    its split.
    """
    each = table.assign(wrong=table.label != table.predicted)
    worst = each.groupby([*KEYS, "split", "index"], sort=False).wrong.any().reset_index()
    both = pd.concat([each, worst.assign(attack=evaluate.WORST)])
    found = both.groupby([*KEYS, "split", "attack"], sort=False).wrong.agg(n="size", wrong="sum").reset_index()
    low, high = stats.wilson(found.wrong, found.n)
    return found.assign(error=found.wrong / found.n, low=low, high=high).drop(columns="wrong")
