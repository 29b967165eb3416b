"""Can the errors of 19_activations be believed? A gate that depends on the image may hide gradients from an attack.

The checks of `lib.alarms`, made for each network on the tables of `lib.gating.networks.explore`. Two more, how many
gates are saturated and attacks that take them for constants, are made where gates are looked at, in 20_gates.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from lib.alarms.alarm import Alarm, judge, unjudged
from lib.alarms.strength import gain, ordered
from lib.config import Config
from lib.evaluate import CLEAN
from lib.gating.measured import FAR, KEYS, TRANSFER, WIDEST, longer

COLUMNS = [*KEYS, "check", "verdict", "value", "limit", "note"]
BLIND = (CLEAN, "noise", "square")  # kinds of attacks without gradients
Hits = dict[str, np.ndarray]        # attack, radius or steps -> which test images are right (N,)


def table(config: Config, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The checks of every network of a run, in the order of the networks: `COLUMNS`, meaning and what to do.

    tables: of `networks.Explored`.
    """
    found = []
    for name in tables["per_sample"].activation.unique():
        own = {table: rows[rows.activation == name] for table, rows in tables.items()}
        keys = own["per_sample"][KEYS].iloc[0].to_dict()
        found += [{**keys, "check": alarm.name, "verdict": alarm.verdict, "value": alarm.value, "limit": alarm.limit,
                   "note": alarm.note, "meaning": alarm.meaning, "what to do": alarm.remedy}
                  for alarm in checks(config, own)]
    return pd.DataFrame(found)


def checks(config: Config, tables: dict[str, pd.DataFrame]) -> list[Alarm]:
    """The alarms of one network; `tables` hold its rows alone.

    ordering: noise and clean images, one step, many, more, the tier, and Auto-PGD with more and more steps. fgsm: one
    step against many. black-box, transfer: Square, and examples of the network with ReLU, against all attacks along
    gradients; an image that only the former find is one that is masked. steps: the most steps, against all other
    attacks along gradients. sweep: larger and larger radii. large-eps: accuracy where any image is allowed.
    """
    test = tables["per_sample"].query("split == 'test'")
    right, controls = _hits(test, "attack", "{}"), _hits(tables["controls"], "attack", "{}")
    steps, radii = _hits(tables["steps"], "steps", "{:g} steps"), _hits(tables["radii"], "radius", "{:g} eps")
    kinds = {CLEAN: CLEAN, **{name: numbers["attack"] for name, numbers in config.attacks.items()}}
    white = {name: hits for name, hits in right.items() if kinds.get(name) not in BLIND}
    others = {name: hits for name, hits in white.items() if name != longer(config)}
    square = {name: hits for name, hits in right.items() if kinds.get(name) == "square"}
    headline, chance = config.evaluate.headline, test.drop_duplicates("index").label.value_counts(normalize=True).max()
    far = f"{headline} at {FAR} eps; the largest class: {chance:.1%}"
    return [
        _ordered("ordering", {**right, **steps}, [*_chain(config, right, kinds), *pairwise(steps)]),
        _ordered("fgsm", right, [(name, headline) for name in right if kinds.get(name) == "fgsm"]),
        _gain("black-box", white, square),
        _gain("transfer", white, {name: hits for name, hits in controls.items() if name == TRANSFER}),
        _gain("steps", others, {longer(config): right[longer(config)], **steps}),
        _ordered("sweep", {**right, **radii}, list(pairwise([CLEAN, *radii])) if radii else []),
        judge("large-eps", controls[WIDEST].mean(), chance, far)]


def _chain(config: Config, right: Hits, kinds: dict[str, str]) -> list[tuple[str, str]]:
    """The attacks that have to fool no fewer images than another, as pairs (weaker, stronger)."""
    headline, tier = config.evaluate.headline, list(right)[-1]
    by_steps = sorted({headline, longer(config)}, key=lambda name: config.attacks.get(name, {}).get(
        "steps", max(config.activations.many)))
    weak, one = ([name for name in right if kinds.get(name) in those] for those in ((CLEAN, "noise"), ("fgsm",)))
    return [*((a, b) for b in one or [headline] for a in weak), *pairwise([*by_steps, tier])]


def _hits(rows: pd.DataFrame, by: str, name: str) -> Hits:
    """Which images are right, by the values of a column: attacks in the order of the table, numbers from the least.

    name: how a value is written.
    """
    groups = rows.groupby(by, sort=by != "attack")
    return {name.format(value): (of.label == of.predicted).to_numpy() for value, of in groups}


def _ordered(name: str, hits: Hits, pairs: Sequence[tuple[str, str]]) -> Alarm:
    """The alarm of attacks, weaker and stronger."""
    if not pairs:
        return unjudged(name, "not measured for this network")
    return ordered(name, {pair: (hits[pair[0]], hits[pair[1]]) for pair in pairs})


def _gain(name: str, white: Hits, others: Hits) -> Alarm:
    """The alarm of images that one of the others fools and no attack along gradients does."""
    if not others:
        return unjudged(name, "not measured for this network")
    base = np.all([*white.values()], axis=0)
    each = ", ".join(f"{other} {hits.mean():.1%}" for other, hits in others.items())
    return gain(name, base, np.all([*others.values()], axis=0), f"accuracy along gradients {base.mean():.1%}; {each}")
