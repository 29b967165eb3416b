"""What the tables of `lib.adaptive.suite` say of one run: where examples end up, and whether a protocol masks anything.

The checks are those of `lib.alarms`, made for each protocol: its attacks along gradients against all that need none.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from lib import evaluate, stats
from lib.adaptive.protocols import ADAPTIVE, PUBLISHED, worst_case
from lib.adaptive.suite import NOISE, RAYS, SQUARE, TRANSFER
from lib.alarms.alarm import Alarm, judge, unjudged
from lib.alarms.strength import gain, ordered

ENDS = ("own", "own dummy", "other", "other dummy")
WHITE = ("T1", "T2", "T3", "T4")  # the tiers of attacks along gradients; Square on the 2C logits is none
MEANING = "The attacks that know the deployed classifier fool fewer images than those that do not."
REMEDY = "Look for what stops them: a loss without gradient, too few steps, success told by something else."


def ends(table: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Where the largest of the raw logits lies, by protocol, tier and attack: n, and the share of the images of each.

    'own', the label; 'own dummy', label + C: the trap, a right prediction that looks wrong on the 2C logits; 'other'
    and 'other dummy', another class's. table: of one run; classes: C. Without dummies two of them stay empty.
    """
    same, dummy = table.raw % classes == table.label, table.raw >= classes
    where = np.select([same & ~dummy, same & dummy, ~dummy], ENDS[:3], ENDS[3])
    found = table.assign(**{end: where == end for end in ENDS}).groupby(["protocol", "tier", "attack"], sort=False)
    return pd.concat([found.size().rename("n"), found[list(ENDS)].mean()], axis=1).reset_index()


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under each attack of one run: columns tier, attack, protocol, n, hits, accuracy, low, high (Wilson).

    The twins of a name stand together, in the tier of the adaptive one.
    """
    found = evaluate.accuracy(table, ["attack", "protocol"])
    adaptive = table[table.protocol == ADAPTIVE].drop_duplicates("attack").set_index("attack").tier
    found.insert(0, "tier", found.attack.map(adaptive))
    return found.sort_values("tier", kind="stable", ignore_index=True)


def worst_accuracy(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy in the worst case over each protocol's attacks, by protocol: n, accuracy, low, high (Wilson)."""
    found = {}
    for protocol in (PUBLISHED, ADAPTIVE):
        hit = worst_case(table, [], protocol).hit
        low, high = stats.wilson(hit.sum(), len(hit))
        found[protocol] = {"n": len(hit), "accuracy": hit.mean(), "low": float(low), "high": float(high)}
    return found


def hits(table: pd.DataFrame) -> pd.DataFrame:
    """Which images of one run are right: a row an image, columns (protocol, attack), of bool.

    An image that an attack was not given is right under it.
    """
    right = table.assign(hit=(table.label == table.predicted).astype(float))
    return right.pivot(index="index", columns=["protocol", "attack"], values="hit").fillna(1.0) > 0.5


def white(table: pd.DataFrame, protocol: str) -> list[str]:
    """The names of a protocol's attacks along gradients."""
    rows = table[(table.protocol == protocol) & table.tier.isin(WHITE) & (table.attack != SQUARE)]
    return list(rows.attack.unique())


def checks(table: pd.DataFrame, sweeps: pd.DataFrame) -> list[Alarm]:
    """The alarms of one run, for both protocols; their names end with the protocol.

    table, sweeps: see `lib.adaptive.suite`. Black-box, transfer and the most steps are held against all attacks along
    gradients of the protocol. The first two face the deployed classifier in either: whoever asks it for scores or
    labels, or makes examples elsewhere, does not see the 2C logits.
    """
    right, found = hits(table), []
    worst = {p: right[p][white(table, p)].all(axis=1).to_numpy() for p in (PUBLISHED, ADAPTIVE)}
    for protocol, base in worst.items():
        alarms = [*_without_gradients(table, right, base), _order(sweeps, right, protocol),
                  ordered("fgsm", {("fgsm", "pgd-20"): (right[protocol, "fgsm"], right[protocol, "pgd-20"])}),
                  *_along(sweeps, protocol, base)]
        found += [replace(alarm, name=f"{alarm.name}, {protocol}") for alarm in alarms]
    both = ordered("ordering", {("along gradients, as published", "adaptive"): (worst[PUBLISHED], worst[ADAPTIVE])})
    return [*found, replace(both, name="no weaker, adaptive", meaning=MEANING, remedy=REMEDY)]


def _without_gradients(table: pd.DataFrame, right: pd.DataFrame, base: np.ndarray) -> list[Alarm]:
    """Images that such attacks fool, and none of those along gradients, which leave the images `base` (N,) right."""
    others = list(right[ADAPTIVE])
    groups = {"black-box": [name for name in others if name in (SQUARE, RAYS)],
              "transfer": [name for name in others if name.startswith(TRANSFER)]}
    found = []
    for name, attacks in groups.items():
        rates = [f"{attack} {_rate(table, attack):.1%}" for attack in attacks]
        note = f"along gradients {base.mean():.1%}; {', '.join(rates)}"
        found.append(gain(name, base, right[ADAPTIVE][attacks].all(axis=1).to_numpy(), note) if attacks
                     else unjudged(name, "there is none"))
    return found


def _rate(table: pd.DataFrame, attack: str) -> float:
    """Accuracy under an adaptive attack, on the images that it was given."""
    rows = table[(table.protocol == ADAPTIVE) & (table.attack == attack)]
    return (rows.label == rows.predicted).mean()


def _by_value(sweeps: pd.DataFrame, protocol: str, sweep: str) -> dict[float, np.ndarray]:
    """Value -> which images are right (N,), in the order of the values."""
    rows = sweeps[(sweeps.protocol == protocol) & (sweeps.sweep == sweep)]
    return {value: (of.label == of.predicted).to_numpy() for value, of in rows.groupby("value")}


def _order(sweeps: pd.DataFrame, right: pd.DataFrame, protocol: str) -> Alarm:
    """Noise, one step, and more and more steps."""
    by_steps = list(_by_value(sweeps, protocol, "steps").items())
    pairs = {(NOISE, "fgsm"): (right[protocol, NOISE].to_numpy(), right[protocol, "fgsm"].to_numpy())}
    for (few, weaker), (more, stronger) in zip(by_steps, by_steps[1:], strict=False):
        pairs[f"{few:g} steps", f"{more:g} steps"] = weaker, stronger
    return ordered("ordering", pairs)


def _along(sweeps: pd.DataFrame, protocol: str, base: np.ndarray) -> list[Alarm]:
    """Whether the most steps fool images that no attack does, and whether larger radii fool more, down to chance."""
    by_steps, radii = (_by_value(sweeps, protocol, sweep) for sweep in ("steps", "radii"))
    most, widest = max(by_steps), max(radii)
    note = f"along gradients {base.mean():.1%}; {most:g} steps of Auto-PGD {by_steps[most].mean():.1%}"
    wider = {(f"{a:g} eps", f"{b:g} eps"): (radii[a], radii[b]) for a, b in zip(radii, list(radii)[1:], strict=False)}
    chance = sweeps.drop_duplicates("index").label.value_counts(normalize=True).max()
    return [gain("steps", base, by_steps[most], note),
            ordered("sweep", wider) if wider else unjudged("sweep", "there is one radius"),
            judge("large-eps", radii[widest].mean(), chance, f"at {widest:g} eps; the largest class: {chance:.1%}")]
