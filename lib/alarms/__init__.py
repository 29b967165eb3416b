"""Alarms: can the robust accuracy of a model be believed? Checks that measure, compare with a limit, and explain.

`inspect` looks at a model, and `describe` states the threat model. The checks gather the
advice of Carlini et al. 2019 ("On evaluating adversarial robustness"), Croce and Hein 2020 (the warnings of
AutoAttack) and Pintor et al. 2022 ("Indicators of attack failure"). None of them is a proof: a model that passes may
still fall to an attack made for it. Left to others: the interval of each accuracy (`lib.stats.wilson`), both
checkpoints (`lib.train`), what a class is worth against chance, attacks made for one defence, another precision, and
a published model as an anchor, which are done by hand;
and images that are in two splits (`01_data`).
"""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks
from lib.alarms import gradient, model, runs, strength
from lib.alarms.alarm import CHECKS, Alarm
from lib.config import Config, Threat

__all__ = ["CHECKS", "Alarm", "as_table", "describe", "inspect"]


def inspect(network: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, seed: int = 0, steps: int = 50,
            classes: int | None = None, twin: nn.Module | None = None,
            others: Mapping[str, tuple[str, Tensor]] | None = None) -> list[Alarm]:
    """Checks 2 to 13 of one model, in the order of `CHECKS`; the model is left as it was.

    x: float32 (N, C, H, W) in [0, 1]; about 100 images are enough. y: (N,). steps: of the main attack, PGD with
    cross-entropy. classes: how many outputs there should be. twin: a model of the same classes trained on its own,
    for the transfer attack. others: further attacks, name -> ('white-box' or 'black-box', examples like x).
    Raises ValueError for images or a radius that are no such thing, ConfigError for an unknown kind or norm.
    """
    if x.dtype != torch.float32 or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError("x has to be float32 in [0, 1]: normalisation is a layer of the model")
    if not threat.eps > 0:
        raise ValueError(f"eps is {threat.eps}: there is nothing to inspect")
    case = runs.Case(network, x, y, threat, seed)
    found = [model.state(case)]
    with attacks.under_attack(network), torch.no_grad():
        found += [*model.fixed(case), *model.outputs(case, classes)]
        results = runs.run(case, steps, twin, others)
        found += [*runs.threat_model(case, results.examples), *gradient.gradients(case)]
    return found + strength.strength(results)


def as_table(alarms: list[Alarm]) -> pd.DataFrame:
    """The alarms as rows: check, verdict (pass, ALARM or not judged), value, limit, note, meaning, what to do."""
    return pd.DataFrame([{"check": a.name, "verdict": a.verdict, "value": a.value, "limit": a.limit, "note": a.note,
                          "meaning": a.meaning, "what to do": a.remedy} for a in alarms])


def describe(config: Config) -> str:
    """Check 1: the threat model of a run in one sentence."""
    norm, eps = config.threat.norm, config.threat.eps
    return (f"White-box attacks with {norm} radius {eps:.4g} ({eps * 255:.4g}/255) around images in [0, 1]; "
            "the attacker knows the weights, and normalisation is a layer of the model.")
