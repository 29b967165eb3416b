"""The two protocols, and a table with a row for each image, protocol and attack."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute, evaluate
from lib.config import Config
from lib.data import Files, Images
from lib.methods.ducat import hard, soft
from lib.params import known

PUBLISHED, ADAPTIVE = "as published", "adaptive"
Found = Mapping[tuple[str, str], attacks.Attack | None]  # (protocol, attack's name) -> the attack; None: clean
PAIRS: dict[str, Callable[[Tensor], Tensor]] = {"max": hard, "lse": soft, "raw": lambda logits: logits}
TEN = {"attack": "pgd", "steps": 10, "step_size": 1 / 4}  # of the DUCAT authors: 10 steps of 2/255 in a ball of 8/255


def raw(model: nn.Module) -> nn.Module:
    """The network before its recovery: of 2C outputs where the classifier has dummies, else the classifier itself."""
    return getattr(model, "raw", model)


def decided(model: nn.Module, logits: Tensor) -> Tensor:
    """The deployed classifier's logits (N, C) from those of `raw(model)`."""
    return hard(logits) if hasattr(model, "raw") else logits


class View(nn.Module):
    """The deployed classifier, as an attack sees it that reads the logits behind it.

    Called, it gives the deployed logits (N, C), by which attacks tell success; `logits` then holds those of `raw`, for
    the loss.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.logits = model, None

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> logits (N, C)."""
        self.logits = raw(self.model)(x)
        return decided(self.model, self.logits)

    def pairs(self, kind: str) -> Tensor:
        """What the pairs say, 'max' or 'lse', (N, C), or both of each, 'raw', (N, 2C); without dummies: the logits."""
        known("pair", kind, PAIRS)
        return PAIRS[kind](self.logits) if hasattr(self.model, "raw") else self.logits


def published(attack: attacks.Attack) -> attacks.Attack:
    """The attack, on the 2C logits: it takes the classifier, and stops where it would stop without the recovery."""
    return lambda model, x, y, *, generator: attack(raw(model), x, y, generator=generator)


def adaptive(attack: Callable[..., Tensor], loss: attacks.Loss, pair: str, **numbers) -> attacks.Attack:
    """An attack of `lib.attacks` that ascends a loss of the pairs, and tells success by the deployed classifier.

    attack: such as `attacks.apgd`; pair: see `View.pairs`; numbers: its other arguments, `threat` too.
    """
    def run(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The attack on a view of the model."""
        view = View(model)
        return attack(view, x, y, loss=lambda _, y: loss(view.pairs(pair), y), generator=generator, **numbers)

    return run


def few(config: Config) -> Found:
    """For experiments that measure many networks: clean, and each protocol's PGD-10 and strongest attack.

    The strongest is the tier of the run (`report` in place of `final`); adaptively there is Auto-PGD of as many steps
    on the soft pair as well, since a maximum may hide one of its logits.
    """
    tier = "report" if config.evaluate.tier == "final" else config.evaluate.tier
    each = {name: attacks.from_params(name, numbers, config.threat) for name, numbers in evaluate.TIERS[tier].items()}
    ten, strongest = attacks.from_params("pgd-10", TEN, config.threat), evaluate.cascade(*each.values())
    lse = adaptive(attacks.apgd, attacks.cross_entropy, "lse", threat=config.threat, steps=config.adaptive.steps)
    return {(ADAPTIVE, evaluate.CLEAN): None, (PUBLISHED, "pgd-10"): published(ten), (ADAPTIVE, "pgd-10"): ten,
            (PUBLISHED, tier): published(strongest), (ADAPTIVE, tier): strongest, (ADAPTIVE, "apgd-lse"): lse}


def attacked(config: Config, model: nn.Module, splits: Mapping[str, Images | Files], device: torch.device,
             found: Found | None = None) -> pd.DataFrame:
    """What one classifier says of some splits: columns split, protocol, attack, index, label, predicted, raw.

    predicted: by the deployed classifier; raw: the largest of the 2C logits, 0 .. 2C - 1. found: by default `few`.
    """
    tables = []
    for split, images in splits.items():
        for (protocol, name), attack in (found or few(config)).items():
            rows = per_sample(model, images, attack, compute.generator(config.seed, device))
            tables.append(rows.assign(split=split, protocol=protocol, attack=name))
    return pd.concat(tables, ignore_index=True)[["split", "protocol", "attack", "index", "label", "predicted", "raw"]]


def per_sample(model: nn.Module, images: Images | Files, attack: attacks.Attack | None, generator: torch.Generator,
               batch_size: int = 500) -> pd.DataFrame:
    """One row an image under one attack (None: clean), in eval mode: columns index, label, predicted, raw."""
    rows = []
    with attacks.under_attack(model), torch.no_grad():
        for x, y in images.in_order(batch_size):
            attacks.check(model, x, y)
            logits = raw(model)(attack(model, x, y, generator=generator) if attack else x)
            rows.append(torch.stack([y, decided(model, logits).argmax(1), logits.argmax(1)], 1).cpu())
    label, predicted, first = torch.cat(rows).numpy().T
    return pd.DataFrame({"index": np.arange(len(label)), "label": label, "predicted": predicted, "raw": first})


def worst_case(table: pd.DataFrame, keys: list[str], protocol: str | None = None) -> pd.DataFrame:
    """Whether each image is right under every attack: columns `keys`, index, label, hit.

    protocol: of this one alone; by default of both, since an example is one whatever it was made on.
    """
    rows = table if protocol is None else table[(table.protocol == protocol) | (table.attack == evaluate.CLEAN)]
    hits = (rows.label == rows.predicted).groupby([*(rows[c] for c in (*keys, "index", "label"))], sort=False).all()
    return hits.rename("hit").reset_index()
