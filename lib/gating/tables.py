"""Errors of networks that differ in their activation, and differences of errors: what `22_gating` joins.

An error is 1 - accuracy, in [0, 1]. `errors` makes of the rows of one method a frame (seeds, images) for each network;
`effect` is the one interval behind every difference, and what the claims are judged by. Images and seeds stay paired:
a difference is taken image by image before there is an interval. A negative difference is fewer errors. The intervals
are at the level of 95 %, and not corrected for how many there are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import tradeoff
from lib.evaluate import CLEAN, WORST
from lib.params import DataError

EFFECTS = {  # what is read off the ladder: name -> the weights of errors
    "smoothness": {"bias": 1, "relu": -1}, "spatial variation": {"map": 1, "bias": -1},
    "input dependence": {"pooled": 1, "bias": -1}, "interaction": {"sparta": 1, "pooled": -1, "map": -1, "bias": 1},
    "both together": {"sparta": 1, "bias": -1}, "sparta against silu": {"sparta": 1, "silu": -1}}
MEAN = "mean over radii"
Frames = Mapping[str, pd.DataFrame]


def errors(per_sample: pd.DataFrame, attack: str = WORST, split: str = "test",
           key: str = "activation") -> dict[str, pd.DataFrame]:
    """Whether each image is misclassified, of one method: activation -> frame (seeds, images) of 0 and 1.

    per_sample: of `19_activations`, or another with columns seed, split, attack, index, label and predicted. attack:
    the worst case by default, in which an image is right only if it is so under every attack of the table. key: the
    column that tells the networks apart. Raises DataError where they did not face the same attacks and images.
    """
    rows = per_sample[per_sample.split == split]
    return frames(rows if attack == WORST else rows[rows.attack == attack], key)


def frames(rows: pd.DataFrame, key: str = "activation") -> dict[str, pd.DataFrame]:
    """Whether each image is misclassified in any of its rows: network -> frame (seeds, images) of 0 and 1."""
    alike = rows.groupby([key, "seed"]).size().nunique() <= 1
    if not alike or "method" in rows and rows.method.nunique() > 1:
        raise DataError("networks are compared that did not face the same attacks and images: take the rows of one "
                        "method, and make those of all seeds anew with `dvc repro gating`")
    wrong = (rows.label != rows.predicted).astype(float).groupby([rows[key], rows.seed, rows["index"]]).max()
    return {name: wrong.loc[name].unstack() for name in rows[key].unique()}


def along(rows: pd.DataFrame, column: str = "radius") -> dict[str, pd.DataFrame]:
    """The mean over the values of a column of whether an image is misclassified: as `errors`, in [0, 1].

    Over radii: a summary that does not depend on which radius is looked at, where at most of them either no network
    or every one fails.
    """
    parts = [frames(part) for _, part in rows.groupby(column)]
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


def effect(found: Frames, weights: Mapping[str, float]) -> dict[str, float]:
    """A weighted sum of errors on the same seeds and images, as the mean over seeds: mean, low, high, n and images.

    found: of `errors`; weights: network -> weight, such as {"sparta": 1, "bias": -1}. n: seeds; without a second one
    there is no interval (nan). The interval is `tradeoff.estimate`'s, so that of `claims.rules.difference`. Raises
    DataError for a network that is not there.
    """
    _there(weights, found)
    seeds = sorted(set.intersection(*(set(found[name].index) for name in weights)))
    total = sum(weight * found[name].loc[seeds] for name, weight in weights.items())
    if not seeds or total.isna().any(axis=None):
        raise DataError(f"{', '.join(weights)} have no seed or not all images in common: `dvc repro gating` makes them")
    ends = [sum(weight for weight in weights.values() if sign * weight > 0) for sign in (-1, 1)]
    return tradeoff.estimate(np.asarray, total, within=tuple(ends))


def _there(names: Iterable[str], found: Frames) -> None:
    """Raise a DataError unless all of these networks are there."""
    if missing := [name for name in names if name not in found]:
        raise DataError(f"no network '{missing[0]}' in the table; there are: {', '.join(found)}")


def chosen(per_sample: pd.DataFrame, names: Sequence[str]) -> str:
    """Of some activations the one with the least mean error of validation images under the headline attack.

    Of equal ones the first of `names`. Test images have no part in it. The headline attack is the only one, beside
    none, that validation images face.
    """
    attacks = [a for a in per_sample[per_sample.split == "validation"].attack.unique() if a != CLEAN]
    if len(attacks) != 1:
        raise DataError(f"validation images face {', '.join(attacks) or 'no attack'}: only the headline attack chooses")
    found = errors(per_sample, attacks[0], "validation")
    _there(names, found)
    return min(names, key=lambda name: found[name].to_numpy().mean())  # not a mean of means: equal counts stay equal


def each_of(table: pd.DataFrame, keys: Sequence[str], make: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """`make` of each group of rows, with the keys of the group as first columns."""
    parts = [make(rows).assign(**dict(zip(keys, values, strict=True))) for values, rows in
             table.groupby([*keys], sort=False)]
    joined = pd.concat(parts, ignore_index=True)
    return joined[[*keys, *(column for column in joined if column not in keys)]]


def _row(found: Mapping[str, float], name: str = "error") -> dict[str, float]:
    """An estimate as columns."""
    return {name: found["mean"], "low": found["low"], "high": found["high"], "seeds": found["n"],
            "images": found["images"]}


def summary(per_sample: pd.DataFrame, keys: Sequence[str] = ("method",), key: str = "activation",
            baseline: str = "") -> pd.DataFrame:
    """The error on test images under each attack and in the worst case: method, activation, attack, error, low, high,
    seeds, images.

    keys, key: other columns that tell groups of networks, and networks of a group, apart. baseline: a network whose
    error is taken off on the same images: columns less, less_low and less_high more, in groups that have it.
    """
    def row(found: Frames, name: str) -> dict:
        """One network under one attack."""
        less = effect(found, {name: 1, baseline: -1}) if baseline in found and name != baseline else {}
        ends = {"less": "mean", "less_low": "low", "less_high": "high"} if baseline else {}
        return {**_row(effect(found, {name: 1})), **{to: less.get(end, np.nan) for to, end in ends.items()}}

    def of_group(rows: pd.DataFrame) -> pd.DataFrame:
        """All networks that are compared."""
        return pd.DataFrame([{key: name, "attack": attack, **row(found, name)}
                             for attack in (*rows[rows.split == "test"].attack.unique(), WORST)
                             for found in [errors(rows, attack, key=key)] for name in found])

    return each_of(per_sample, list(keys), of_group)


def _read_out(measure: str, found: Frames) -> list[dict]:
    """`EFFECTS` whose networks are all there, as rows."""
    signs = {1: "+", -1: "-"}
    texts = {name: " ".join(f"{signs[weight]} {network}" for network, weight in weights.items()).removeprefix("+ ")
             for name, weights in EFFECTS.items()}
    return [{"measure": measure, "effect": name, "networks": texts[name], **_row(effect(found, weights), "mean")}
            for name, weights in EFFECTS.items() if set(weights) <= set(found)]


def effects(per_sample: pd.DataFrame, radii: pd.DataFrame | None = None) -> pd.DataFrame:
    """`EFFECTS`: method, measure, effect, networks (such as 'map - bias'), mean, low, high, seeds, images.

    Measures: clean and in the worst case, of `per_sample`; of radii.csv `MEAN` and each radius, as 'radius 0.5'.
    """
    def of_method(rows: pd.DataFrame) -> pd.DataFrame:
        """All measures of one method."""
        found = {name: errors(rows, name) for name in (CLEAN, WORST)}
        if radii is not None and (there := radii[radii.method == rows.method.iloc[0]]).size:
            found |= {MEAN: along(there)}
            found |= {f"radius {radius:g}": frames(part) for radius, part in there.groupby("radius")}
        return pd.DataFrame([row for measure, each in found.items() for row in _read_out(measure, each)])

    return each_of(per_sample, ["method"], of_method)


def swept(rows: pd.DataFrame, column: str, clean: pd.DataFrame | None = None) -> pd.DataFrame:
    """The error along a column of radii.csv or steps.csv: method, activation, the column, error, low, high, seeds,
    images. clean: `per_sample`, whose clean images stand for radius 0 where there is none.
    """
    if clean is not None and not (rows[column] == 0).any():
        there = clean[(clean.split == "test") & (clean.attack == CLEAN)].assign(**{column: 0.0})
        pairs = pd.MultiIndex.from_frame(rows[["method", "activation"]])
        rows = pd.concat([there[pd.MultiIndex.from_frame(there[["method", "activation"]]).isin(pairs)], rows])
    return each_of(rows.sort_values(column, kind="stable"), ["method", column], lambda part: pd.DataFrame(
        [{"activation": name, **_row(effect(found, {name: 1}))} for found in [frames(part)] for name in found]))


def pareto(table: pd.DataFrame) -> list[str]:
    """Of `summary` of one method the activations that no other beats, by means: none has both errors at most as high,
    and one of the two lower.
    """
    points = table[table.attack.isin([CLEAN, WORST])].pivot(index="activation", columns="attack", values="error")
    return [name for name, point in points.iterrows()
            if not ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()]


def cost(table: pd.DataFrame, baseline: str = "relu") -> pd.DataFrame:
    """Parameters and operations of each network, the same for every run, and their ratio to a baseline's."""
    found = table.drop_duplicates("activation")[["activation", "parameters", "flops"]].reset_index(drop=True)
    base = found[found.activation == baseline]
    return found.assign(**{f"{name}_ratio": found[name] / base[name].iloc[0] if len(base) else np.nan
                           for name in ("parameters", "flops")})
