"""Claims about loss landscapes: how they are to be drawn (Wu et al. 2020), and which flatness goes with robustness.

Read from flatness.csv of `lib.flatness`. Directions are drawn anew for each seed, so they are part of the noise over
seeds. The second is counter-evidence: Stutz, Hein and Schiele (ICCV 2021) find worst-case flatness to say less.
"""

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from lib import classwise, stats
from lib.claims.rules import CORRELATION, LOSS, Claim, Evidence, judge

RECALLED = "ours; recalled of the paper"
STUTZ = "READ: TeX source of Stutz et al. 2021, correlations with the robust loss; the rule is ours"


def _by_run(evidence: Evidence, measure: str, split: str) -> pd.DataFrame:
    """A measure of each network: index (method, seed), columns value (worst: the largest), error and images."""
    table = evidence.studies["flatness"]
    rows = table[(table.measure == measure) & (table.split == split)]
    return rows.groupby(["method", "seed"], sort=False).agg(
        value=("value", "max" if measure == "worst" else "mean"), error=("error", "first"), images=("images", "first"))


def _over_seeds(value: pd.Series, error: pd.Series, images: int) -> dict:
    """Mean over seeds; the interval is the wider of Student's over seeds and that over images.

    The second is of the mean standard error over images, as if all seeds erred alike on the images that they share.
    """
    over, half = stats.over_seeds(value), scipy_stats.norm.ppf(0.975) * error.mean()
    return {**over, "low": np.minimum(over["low"], over["mean"] - half),
            "high": np.maximum(over["high"], over["mean"] + half), "images": images}


def frozen_underestimates(evidence: Evidence) -> dict:
    """g of pgd with frozen examples less g with examples made anew, at the largest |alpha|: below 0."""
    far = _by_run(evidence, "far", "train").loc["pgd"]
    found = _over_seeds(-far.value, far.error, far.images.min())
    return {**found, "verdict": judge(found, below=0)}


def underestimate_grows(evidence: Evidence) -> dict:
    """By how much frozen examples put g of pgd too low: at the largest |alpha| less at the smallest above 0, above 0.

    The errors over images add as squares, as if they were not of the same images: too wide rather than too narrow.
    """
    far, near = (_by_run(evidence, name, "train").loc["pgd"] for name in ("far", "near"))
    found = _over_seeds(far.value - near.value, np.hypot(far.error, near.error), far.images.min())
    return {**found, "verdict": judge(found, above=0)}


def says_more_than_worst(measure: str):
    """The rule that over methods a measure goes with the robust loss on test images more than worst-case flatness.

    Rank correlation of the measure less that of worst-case flatness, above 0: the mean over seeds. The interval is the
    wider of Student's over seeds and that over methods, with the two correlations as if they were independent.
    """
    def rule(evidence: Evidence) -> dict:
        """Over all methods with a landscape that train against an adversary, as those of Stutz et al. do."""
        columns = {name: _by_run(evidence, name, "test").drop("standard", errors="ignore")
                   for name in ("loss", measure, "worst")}
        value = pd.DataFrame({name: of.value for name, of in columns.items()}).dropna()
        each = value.groupby("seed").apply(
            lambda of: classwise.rank_correlation(of[measure], of.loss) - classwise.rank_correlation(of.worst, of.loss))
        mean = value.groupby("method").mean()
        (a, a_low, a_high), (b, b_low, b_high) = (_correlation(mean[name], mean.loss) for name in (measure, "worst"))
        over = stats.over_seeds(each, within=(-2, 2))
        low, high = a - b - np.hypot(a - a_low, b_high - b), a - b + np.hypot(a_high - a, b - b_low)
        found = {**over, "low": np.minimum(over["low"], low), "high": np.maximum(over["high"], high),
                 "images": columns["loss"].images.min()}
        return {**found, "verdict": judge(found, above=0)}
    return rule


def _correlation(a: pd.Series, b: pd.Series) -> tuple[float, float, float]:
    """Spearman's correlation of n > 3 methods, and its 95 % interval, Fisher's with the variance of Bonett and Wright.

    For the interval |r| counts as at most 1 - 1 / n: a perfect order of a few methods is no proof of one (ours).
    """
    r, n = classwise.rank_correlation(a, b), len(a)
    if n < 4:
        return r, np.nan, np.nan
    middle = np.arctanh(np.clip(r, 1 / n - 1, 1 - 1 / n))
    half = scipy_stats.norm.ppf(0.975) * np.sqrt((1 + r**2 / 2) / (n - 3))
    return r, np.minimum(r, np.tanh(middle - half)), np.maximum(r, np.tanh(middle + half))


FOUR = ("pgd", "trades", "mart", "pgd+awp")
CLAIMS = [
    Claim("A3a", "Far from the weights, adversarial examples frozen at w underestimate the adversarial loss of pgd",
          RECALLED, "landscape", ("pgd",), frozen_underestimates, ("flatness",), unit=LOSS),
    Claim("A3b", "They underestimate it the more, the farther the weights are moved", RECALLED, "landscape", ("pgd",),
          underestimate_grows, ("flatness",), unit=LOSS),
    Claim("A10a", "Over methods trained against an adversary, average-case flatness goes with the robust loss more "
          "closely, in rank, than worst-case flatness", STUTZ, "landscape", FOUR, says_more_than_worst("average"),
          ("flatness",), unit=CORRELATION),
    Claim("A10b", "Over methods trained against an adversary, sharpness S goes with the robust loss more closely, in "
          "rank, than worst-case flatness", "ours, after Stutz et al. 2021", "landscape", FOUR,
          says_more_than_worst("sharpness"), ("flatness",), unit=CORRELATION),
]
