"""Claims of the AWP paper about the perturbation itself: its size, its direction, and the search for it.

On 13_perturbation, at the last weights of pgd. The paper's ablation could not be read; gamma is chosen on validation
images.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib import evaluate, perturbation, stats
from lib.claims.rules import CORRELATION, INCONCLUSIVE, Claim, Evidence, difference, judge

POINT = 0.01   # the most that a further step may gain, where we call one enough
BARELY = 0.02  # the change of the gap that we call none
TIMES = 10     # how much larger a random v may be and still do less


def _table(evidence: Evidence) -> pd.DataFrame:
    """The rows of pgd in 13_perturbation, with columns `hit` and `strong`, whether the attack is the strong one."""
    table = evidence.studies["perturbation"]
    table = table[table.method == "pgd"]
    return table.assign(hit=table.label == table.predicted, strong=table.attack == evaluate.STRONG)


def _test(rows: pd.DataFrame) -> pd.DataFrame:
    """The test images under the strong attack."""
    return rows[(rows.split == "test") & rows.strong]


def _sweep(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the adversarial direction with A = K2 = 1, and those without a perturbation, of gamma 0."""
    return table[(table.direction != perturbation.RANDOM) & (table.alternations == 1) & (table.steps == 1)]


def _at_chance(table: pd.DataFrame) -> set[float]:
    """Every gamma at which a seed of these rows is at chance."""
    return {gamma for (gamma, _), run in table.groupby(["gamma", "seed"]) if perturbation.at_chance(run)}


def one_is_enough(name: str):
    """The rule that the largest K2 (name 'steps') or A ('alternations') gains at most `POINT` over 1."""
    def rule(evidence: Evidence) -> dict:
        """Accuracy on test images under the strong attack: the largest less 1, at the same gamma."""
        table = _table(evidence)
        rows = _test(table[table.direction == perturbation.ADVERSARIAL])
        more = rows[rows[name] == rows[name].max()]
        if rows[name].max() == 1:
            return {**_nothing(table), "verdict": INCONCLUSIVE}
        once = rows[rows.gamma.isin(more.gamma) & (rows.steps == 1) & (rows.alternations == 1)]
        found = difference(more, once)
        return {**found, "verdict": judge(found, below=POINT)}
    return rule


def _of_accuracy(statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], rows: pd.DataFrame, columns: list,
                 within: tuple[float, float], resamples: int = 2000) -> dict:
    """A statistic of accuracies on training and test images, under the headline attack: mean over seeds, low, high, n.

    rows: with a column `key`, which is one of `columns`. statistic: two arrays (..., columns) -> (...). The interval
    is the wider of two at each end: Student's t over seeds, and that of the mean over seeds in resamples of the images,
    which all seeds and columns share.
    """
    draw, observed, resampled, images = np.random.default_rng(0), [], [], 0
    rows = rows[~rows.strong & (rows.attack != evaluate.CLEAN)]
    for split in ("train", "test"):
        wide = rows[rows.split == split].pivot(index="index", columns=["seed", "key"], values="hit")
        seeds = sorted(rows.seed.unique())
        hits = wide[[(s, c) for s in seeds for c in columns]].to_numpy(float).T
        patterns, counts = np.unique(hits, axis=1, return_counts=True)  # images on which all agree are exchangeable
        drawn = draw.multinomial(len(wide), counts / len(wide), size=resamples) / len(wide)
        observed.append(hits.mean(1).reshape(len(seeds), -1))
        resampled.append((drawn @ patterns.T).reshape(resamples, len(seeds), -1))
        images += len(wide)
    found = stats.over_seeds(statistic(*observed), within=within)
    low, high = np.quantile(statistic(*resampled).mean(1), [0.025, 0.975])
    return {**found, "low": np.minimum(found["low"], low), "high": np.maximum(found["high"], high), "images": images}


def _nothing(table: pd.DataFrame) -> dict:
    """The estimate where the two settings that a claim compares were not tried."""
    return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": table.seed.nunique(), "images": 0}


def _random_less(evidence: Evidence, other: str, times: float = 1.0) -> dict:
    """The gap with a random v of `times` gamma less that with another direction, of gamma (or none).

    gamma is the largest at which both were tried and no network of the adversarial direction is at chance: such a
    network has no gap.
    """
    table = _table(evidence)
    random, sweep = table[table.direction == perturbation.RANDOM], _sweep(table)
    pairs = [(gamma, noise) for gamma in set(sweep.gamma) - _at_chance(sweep) - {0.0} for noise in set(random.gamma)
             if np.isclose(noise, times * gamma)]
    if not pairs:
        return _nothing(table)
    gamma, noise = max(pairs)
    rows = pd.concat([random[random.gamma == noise], sweep[sweep.gamma.isin([0, gamma])]])
    return _of_accuracy(lambda train, test: ((train - test) * [1, -1]).sum(-1), rows.assign(key=rows.direction),
                        [perturbation.RANDOM, other], (-2, 2))


def direction_matters(times: float):
    """The rule that the gap with a random v of `times` gamma less that with the adversarial one of gamma is above 0."""
    def rule(evidence: Evidence) -> dict:
        """Of the gaps of the mean accuracies of a seed."""
        found = _random_less(evidence, perturbation.ADVERSARIAL, times)
        return {**found, "verdict": judge(found, above=0)}
    return rule


def random_barely(evidence: Evidence) -> dict:
    """How far the gap with a random v is from that without one, in either direction, below `BARELY`."""
    found = _random_less(evidence, perturbation.NONE)
    ends = np.sort(np.abs([found["low"], found["high"]]))
    found = {**found, "mean": np.abs(found["mean"]), "high": ends[1],
             "low": 0.0 if found["low"] < 0 < found["high"] else ends[0]}
    return {**found, "verdict": judge(found, below=BARELY)}


def falls(quantity: Callable[[np.ndarray, np.ndarray], np.ndarray]):
    """The rule that a quantity of training and test accuracy falls with gamma: its rank correlation, below 0.

    Over the adversarial gammas and 0, without those at chance, of which nothing is left that could fall.
    """
    def rule(evidence: Evidence) -> dict:
        """Spearman's correlation, mean over seeds."""
        sweep = _sweep(_table(evidence))
        sweep = sweep[~sweep.gamma.isin(_at_chance(sweep))]
        gammas = sorted(sweep.gamma.unique())
        found = _of_accuracy(lambda train, test: _ranked(quantity(train, test)), sweep.assign(key=sweep.gamma),
                             gammas, (-1, 1))
        return {**found, "verdict": judge(found, below=0)}
    return rule


def _ranked(values: np.ndarray) -> np.ndarray:
    """Spearman's correlation of values with their place in the last axis: (..., G) -> (...); 0 if all are equal."""
    ranks, place = rankdata(values, axis=-1), np.arange(values.shape[-1])
    ranks, place = ranks - ranks.mean(-1, keepdims=True), place - place.mean()
    scale = np.sqrt((ranks**2).sum(-1) * (place**2).sum())
    return np.divide((ranks * place).sum(-1), scale, out=np.zeros(scale.shape), where=scale > 0)


def flatter(evidence: Evidence) -> dict:
    """Spearman's correlation of S with gamma, S the mean over directions of one seed, below 0; else as `falls`."""
    sweep, curves = _sweep(_table(evidence)), evidence.studies["ablation"]
    curves = _sweep(curves[curves.method == "pgd"])
    curves = curves[~curves.gamma.isin(_at_chance(sweep))]
    wide = curves.pivot_table(index="seed", columns="gamma", values="value")
    found = {**stats.over_seeds(_ranked(wide.to_numpy()), within=(-1, 1)), "images": curves.images.max()}
    return {**found, "verdict": judge(found, below=0)}


def too_large_hurts(evidence: Evidence) -> dict:
    """Test images under the strong attack: accuracy at the largest gamma less that at each seed's chosen one, below 0.

    For a seed that chose the largest the difference is 0; if all did, no gamma was too large, and nothing is known.
    """
    sweep = _sweep(_table(evidence))
    best = {seed: perturbation.chosen(run) for seed, run in sweep.groupby("seed")}
    largest = sweep.gamma.max()
    found = difference(_test(sweep[sweep.gamma == largest]), _test(sweep[sweep.gamma == sweep.seed.map(best)]))
    return {**found, "verdict": INCONCLUSIVE if set(best.values()) == {largest} else judge(found, below=0)}


RECALLED = "ours; recalled of the paper"
P, PF = ("perturbation",), ("perturbation", "ablation")
CLAIMS = [
    Claim("A6a", f"More ascents of v (K2) gain less than {POINT:.0%} of the test images over one",
          f"{RECALLED}, the threshold is ours", "perturbation", ("pgd",), one_is_enough("steps"), P),
    Claim("A6b", f"More alternations of x' and v (A) gain less than {POINT:.0%} of the test images over one",
          f"{RECALLED}, the threshold is ours", "perturbation", ("pgd",), one_is_enough("alternations"), P),
    Claim("A7a", "A random v closes less of the robust generalisation gap than an adversarial v of the same norm",
          RECALLED, "perturbation", ("pgd",), direction_matters(1), P),
    Claim("A7b", "A random v of the norm of the adversarial one barely changes the gap: by less than "
          f"{100 * BARELY:g} points", f"{RECALLED}, the threshold is ours", "perturbation", ("pgd",), random_barely, P),
    Claim("A7c", f"A random v of {TIMES} times its norm still closes less of the gap than an adversarial v",
          f"{RECALLED}, the factor is ours", "perturbation", ("pgd",), direction_matters(TIMES), P),
    Claim("A8a", "A larger gamma lowers robustness on training images, in rank", RECALLED, "perturbation", ("pgd",),
          falls(lambda train, test: train), P, unit=CORRELATION),
    Claim("A8b", "A larger gamma narrows the robust generalisation gap, in rank", RECALLED, "perturbation", ("pgd",),
          falls(lambda train, test: train - test), P, unit=CORRELATION),
    Claim("A8c", "Too large a gamma hurts: the largest tried is less robust on test images than the one that "
          "validation images choose", RECALLED, "perturbation", ("pgd",), too_large_hurts, P),
    Claim("A8d", "A larger gamma leaves a flatter weight loss landscape: S falls, in rank", RECALLED, "perturbation",
          ("pgd",), flatter, PF, unit=CORRELATION),
]
