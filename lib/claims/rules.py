"""What a claim is, what it is judged on, and the rule of verdicts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import evaluate, stats

HOLDS, FAILS, INCONCLUSIVE = "holds", "fails", "inconclusive"
SEEDS = 3  # fewer say nothing of training noise


@dataclass(frozen=True)
class Evidence:
    """What the claims of one data set are judged on: the per-sample table of all runs, and its headline attack."""

    table: pd.DataFrame
    headline: str

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
    low, high, n seeds, images) with a verdict.
    """

    id: str
    statement: str
    source: str
    figure: str
    methods: tuple[str, ...]
    rule: Callable[[Evidence], dict]

    def row(self, evidence: Evidence) -> dict:
        """The claim and what the evidence says of it, as one row of a table."""
        found = self.rule(evidence)
        return {"id": self.id, "statement": self.statement, "source": self.source, "figure": self.figure,
                "verdict": found["verdict"], "estimate": found["mean"], "low": found["low"], "high": found["high"],
                "n_seeds": found["n"], "n_images": found["images"]}


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
        both, images = _less(*map(stats.hierarchical, (first, second))), first.shape[1] + second.shape[1]
    return {**found, "low": np.minimum(found["low"], both["low"]), "high": np.maximum(found["high"], both["high"]),
            "images": images}


def _less(a: dict, b: dict) -> dict:
    """The interval of a - b for two estimates from different images, whose errors add as squares."""
    mean = a["mean"] - b["mean"]
    return {"low": mean - np.hypot(a["mean"] - a["low"], b["high"] - b["mean"]),
            "high": mean + np.hypot(a["high"] - a["mean"], b["mean"] - b["low"])}
