"""What a claim is, what it is judged on, and the rule of verdicts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lib import evaluate, stats

HOLDS, FAILS, INCONCLUSIVE = "holds", "fails", "inconclusive"
SEEDS = 3  # fewer say nothing of training noise
POINTS, CORRELATION, LOSS = "points", "correlation", "loss"  # what an estimate is, or is a difference of


@dataclass(frozen=True)
class Evidence:
    """What the claims of one data set are judged on: per-sample tables, and the names to read them by.

    table: of all runs (`lib.evaluate`); headline: its headline attack; strongest: its tier. superclasses: the group of
    each class, or None. studies: the tables of `lib.claims.gather`, those of `TABLES` of all runs, with columns
    method and seed. norms: columns method, seed, label, norm of its row in the last layer, and accuracy in the
    worst case.
    """

    table: pd.DataFrame
    headline: str
    strongest: str = ""
    superclasses: list[str] | None = None
    studies: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    norms: pd.DataFrame | None = None

    def rows(self, method: str, attack: str, split: str = "test", checkpoint: str = "last") -> pd.DataFrame:
        """The rows of one method under one attack, or the worst case over all, every seed, with a column `hit`."""
        table = self.table
        rows = table[(table.method == method) & (table.split == split) & (table.checkpoint == checkpoint)]
        rows = evaluate.worst_case(rows) if attack == evaluate.WORST else rows[rows.attack == attack]
        return rows.assign(hit=rows.label == rows.predicted)


@dataclass(frozen=True)
class Claim:
    """A sentence that the results can contradict.

    source: 'READ: <where>' if it was read in a paper, 'ours' otherwise. figure: the figure (its name without the
    data set) or table where a reader sees it. methods: those that it compares. rule: evidence -> an estimate (mean,
    low, high, n seeds, images) with a verdict. needs: what else has to be there: 'superclasses', 'norms', or one of
    `studies`, with its rows of all `methods`. attacks: those that the table has to have. unit: POINTS for accuracies
    and shares, which lie in [-1, 1], or CORRELATION or LOSS.
    """

    id: str
    statement: str
    source: str
    figure: str
    methods: tuple[str, ...]
    rule: Callable[[Evidence], dict]
    needs: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    unit: str = POINTS

    def applies(self, evidence: Evidence) -> bool:
        """Whether all that the claim is about was run."""
        def there(need: str) -> bool:
            """One of `needs`."""
            if need in ("superclasses", "norms"):
                return getattr(evidence, need) is not None
            return need in evidence.studies and set(evidence.studies[need].get("method", ())).issuperset(self.methods)

        return (set(evidence.table.method).issuperset(self.methods) and all(map(there, self.needs))
                and set(evidence.table.attack).issuperset(self.attacks))

    def row(self, evidence: Evidence) -> dict:
        """The claim and what the evidence says of it, as one row of a table."""
        found = self.rule(evidence)
        return {"id": self.id, "statement": self.statement, "source": self.source, "figure": self.figure,
                "verdict": found["verdict"], "estimate": float(found["mean"]), "low": float(found["low"]),
                "high": float(found["high"]), "unit": self.unit, "n_seeds": int(found["n"]),
                "n_images": int(found["images"])}


def shown(row: dict) -> str:
    """The estimate of a row of claims, with its interval, as text: in points, or the correlation or loss itself."""
    factor, digits = (100, 0) if row["unit"] == POINTS else (1, 2)
    mean, low, high = (np.nan if row[name] is None else round(factor * row[name], digits) + 0.0
                       for name in ("estimate", "low", "high"))
    ends = "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{ends}" + " points" * (row["unit"] == POINTS)


def judge(estimate: dict, *, above: float | None = None, below: float | None = None, seeds: int = SEEDS) -> str:
    """The verdict on a claim that something lies above, or below, a threshold: 'holds', 'fails' or 'inconclusive'.

    It holds if the whole interval is on the claimed side, and fails if none of it is. An interval across the
    threshold, no interval, or fewer seeds than needed (estimate['n']) is inconclusive, never a success.
    """
    if (above is None) == (below is None):
        raise ValueError("a claim is either above or below a threshold")
    low, high, threshold = estimate["low"], estimate["high"], above
    if below is not None:
        low, high, threshold = -high, -low, -below
    if estimate["n"] < seeds or not low <= high:  # nan: no interval
        return INCONCLUSIVE
    if low > threshold:
        return HOLDS
    return FAILS if high <= threshold else INCONCLUSIVE


def difference(a: pd.DataFrame, b: pd.DataFrame) -> dict:
    """Accuracy of rows a less that of rows b, in [-1, 1]: mean, low, high, n seeds, images.

    The interval is the wider of two at each end: Student's t over seeds, which does not see that the test images are a
    sample, and the bootstrap over seeds and images, which with few seeds sees too little of them. Ours; the second was
    added when a claim held by three images.
    """
    first, second = (rows.pivot(index="seed", columns=["split", "index"], values="hit").astype(float)
                     for rows in (a, b))
    seeds = first.index.intersection(second.index)
    first, second = first.loc[seeds], second.loc[seeds]
    found = stats.over_seeds(first.mean(axis=1) - second.mean(axis=1), within=(-1, 1))
    if first.columns.equals(second.columns):
        both, images = stats.hierarchical(first - second), first.shape[1]
    else:
        both, images = less(*map(stats.hierarchical, (first, second))), first.shape[1] + second.shape[1]
    return {**found, "low": np.minimum(found["low"], both["low"]), "high": np.maximum(found["high"], both["high"]),
            "images": images}


def less(a: dict, b: dict) -> dict:
    """The interval of a - b, low and high, for two estimates (mean, low, high) whose errors add as squares."""
    mean = a["mean"] - b["mean"]
    return {"low": mean - np.hypot(a["mean"] - a["low"], b["high"] - b["mean"]),
            "high": mean + np.hypot(a["high"] - a["mean"], b["mean"] - b["low"])}


def of_classes(statistic: Callable[..., np.ndarray], *rows: pd.DataFrame,
               within: tuple[float, float] = (-np.inf, np.inf)) -> dict:
    """A statistic of class accuracies, of one or more sets of rows on the same images: mean over seeds, low, high, n.

    statistic: as in `stats.bootstrap`. The interval is the wider of two at each end: Student's t over seeds, and the
    mean over seeds of the bootstrap over images, as if all seeds erred alike on the images that they share.
    """
    values, bounds = [], []
    for seed in sorted(set.intersection(*(set(r.seed) for r in rows))):
        each = [r[r.seed == seed].set_index("index").sort_index() for r in rows]
        found = stats.bootstrap(statistic, each[0].label, *(r.hit for r in each), within=within)
        values.append(found["mean"])
        bounds.append((found["low"], found["high"]))
    over, (low, high) = stats.over_seeds(values, within=within), np.mean(bounds, axis=0)
    return {**over, "low": np.minimum(over["low"], low), "high": np.maximum(over["high"], high),
            "images": rows[0]["index"].nunique()}
