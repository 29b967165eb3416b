"""What trained gates do: the tables of `20_gates` over seeds, and how often the checks of the attacks sounded."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lib import stats, tradeoff
from lib.evaluate import CLEAN
from lib.gating.tables import each_of, summary

INTACT, DETACHED = "none", "detached"
KEYS = ["method", "activation"]


def gate_means(table: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """Columns of gates.csv over seeds, in its order of sites: method, activation, site, measure, value, low, high,
    seeds.

    The interval is Student's t over seeds; the images, the same for each seed, are not resampled. A measure that an
    activation does not have (nan) is left out.
    """
    def of_site(rows: pd.DataFrame) -> pd.DataFrame:
        """All measures of one activation at one site."""
        there = [name for name in measures if rows[name].notna().all()]
        found = {name: stats.over_seeds(rows[name], within=(0, np.inf)) for name in there}
        return pd.DataFrame([{"measure": name, "value": each["mean"], "low": each["low"], "high": each["high"],
                              "seeds": each["n"]} for name, each in found.items()])

    return each_of(table, [*KEYS, "site"], of_site)


def ablations(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` of ablations.csv with `INTACT` as baseline: method, activation, ablation, attack, error and less.

    `DETACHED` is the intact network under a weaker attack, which takes g for a constant; clean it is that network.
    """
    rows = table.assign(split="test")
    weaker = rows[rows.ablation.isin([INTACT, DETACHED]) & (rows.attack != CLEAN)]
    found, of_weaker = (summary(part, KEYS, "ablation", INTACT) for part in (rows[rows.ablation != DETACHED], weaker))
    return pd.concat([found, of_weaker[of_weaker.ablation == DETACHED]], ignore_index=True)


def nearness(radius: pd.DataFrame, eps: float) -> pd.DataFrame:
    """How near errors are, of radius.csv: method, activation, measure, value, low, high, seeds, images.

    mean radius: the least radius that fools, in units of eps, of which no more than eps counts, mean over images.
    median radius: over images, infinite where more than half of them survive eps. steepness: the local Lipschitz
    constant over the margin, median over images, in 1 / the images' range; infinite for an image that is wrong.
    Intervals: the wider of Student's t over seeds and a bootstrap over seeds and images; an infinite median has none.
    """
    rows = radius.assign(radius=radius.radius / eps,
                         steepness=np.where(radius.margin > 0, radius.lipschitz / radius.margin, np.inf))

    def of_network(rows: pd.DataFrame) -> pd.DataFrame:
        """All measures of one activation."""
        radii, steepness = (tradeoff.wide(rows, name) for name in ("radius", "steepness"))
        found = {"mean radius": tradeoff.estimate(np.asarray, radii.clip(upper=1)), "median radius": median(radii),
                 "steepness": median(steepness)}
        return pd.DataFrame([{"measure": name, "value": each["mean"], "low": each["low"], "high": each["high"],
                              "seeds": each["n"], "images": each["images"]} for name, each in found.items()])

    return each_of(rows, KEYS, of_network)


def median(values: pd.DataFrame, resamples: int = 1000) -> dict[str, float]:
    """The median over images of values (seeds, images), as the mean over seeds: as `tradeoff.estimate`.

    Values and medians may be infinite, bounds too; without a second seed, or of an infinite mean, there are none.
    """
    (seeds, images), draw, each = values.shape, np.random.default_rng(0), np.median(values, axis=1)
    found = {"mean": each.mean(), "low": np.nan, "high": np.nan, "n": seeds, "images": images}
    if seeds < 2 or not np.isfinite(found["mean"]):
        return found
    of, at = draw.integers(seeds, size=(resamples, seeds, 1)), draw.integers(images, size=(resamples, 1, images))
    drawn = np.median(values.to_numpy()[of, at], axis=-1).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")  # takes no mean of infinity and a number
    over = stats.over_seeds(each, within=(0, np.inf))
    return {**found, "low": np.minimum(over["low"], low), "high": np.maximum(over["high"], high)}


def sounded(checks: pd.DataFrame) -> pd.DataFrame:
    """How often the checks of an attack sounded: method, check, activation, sounded, unjudged, runs.

    checks: rows method, seed, activation, check and verdict, as `lib.alarms` words it.
    """
    def count(verdict: str) -> Callable[[pd.Series], int]:
        """How many runs have this verdict."""
        return lambda verdicts: int((verdicts == verdict).sum())

    groups = checks.groupby(["method", "check", "activation"], sort=False).verdict
    return groups.agg(sounded=count("ALARM"), unjudged=count("not judged"), runs="size").reset_index()
