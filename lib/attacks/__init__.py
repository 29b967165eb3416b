"""Attacks: functions (model, x, y, ...) -> x_adv within the threat model, for images x in [0, 1].

Every number is an argument, and `generator` is the only source of randomness. An attack asks for the gradient
with respect to the input alone, and leaves the model's mode, parameters and BatchNorm statistics as they were.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.attacks.auto import apgd, apgd_targeted
from lib.attacks.gradient import fgsm, noise, pgd, temperature_pgd
from lib.attacks.losses import LOSSES, Loss, cross_entropy, dlr, kl, margin, targeted_dlr, tempered
from lib.attacks.search import square
from lib.attacks.threat import check, norm2, project, step, under_attack, uniform_in_ball
from lib.compute import exact
from lib.config import Threat
from lib.params import ConfigError, known

__all__ = ["ATTACKS", "LOSSES", "Attack", "Loss", "apgd", "apgd_targeted", "check", "cross_entropy", "dlr", "fgsm",
           "from_params", "kl", "margin", "noise", "norm2", "pgd", "project", "square", "step", "targeted_dlr",
           "temperature_pgd", "tempered", "transfer", "under_attack", "uniform_in_ball"]

Attack = Callable[..., Tensor]  # (model, x, y, *, generator) -> x_adv
ATTACKS = {"noise": noise, "fgsm": fgsm, "pgd": pgd, "temperature_pgd": temperature_pgd, "apgd": apgd,
           "apgd_targeted": apgd_targeted, "square": square}


def transfer(source: nn.Module, attack: Attack) -> Attack:
    """The attack that gives any model the examples which `attack` finds for `source`."""
    return lambda model, x, y, *, generator: attack(source, x, y, generator=generator)


def from_params(name: str, numbers: dict, threat: Threat) -> Callable[..., Tensor]:
    """The attack that an entry of `attacks` in params.yaml describes, as (model, x, y, generator=...) -> x_adv.

    Its loss goes by name: one of `LOSSES`, or 'kl', the divergence from the prediction for the image itself.
    """
    numbers = dict(numbers)
    kind, loss = numbers.pop("attack", None), numbers.get("loss")
    known("attack", kind, ATTACKS, f"attacks.{name} of params.yaml")
    arguments = inspect.signature(ATTACKS[kind]).parameters
    for key in numbers:
        names = [a for a in arguments if a not in ("model", "x", "y", "threat", "generator")]
        known("argument", key, names, f"attacks.{name} of params.yaml")
    required = [a for a, p in arguments.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    missing = [a for a in required if a not in ("threat", "generator", *numbers)]
    if missing:
        raise ConfigError(f"attacks.{name} in params.yaml lacks {', '.join(missing)}")

    if loss is not None:
        # Auto-PGD drops images on its way, and the divergence would be from those of others.
        known("loss", loss, (*LOSSES, "kl") if kind in ("pgd", "fgsm") else LOSSES, f"attacks.{name} of params.yaml")
        numbers["loss"] = LOSSES.get(loss)

    def attack(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The attack with its numbers filled in."""
        if loss != "kl":
            return ATTACKS[kind](model, x, y, threat=threat, generator=generator, **numbers)
        with under_attack(model), torch.no_grad(), exact(x.device):
            clean = model(x)
        return ATTACKS[kind](model, x, y, threat=threat, generator=generator, **numbers | {"loss": kl(clean)})

    return attack
