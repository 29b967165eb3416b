"""Claims on always-failing images, where DUCAT's argument begins: on the tables of 17_failures.

READ is the abstract: what adversarial training fails on overlaps by up to 40 % between methods. Of what that is a share
is not known to us.
"""

import numpy as np
import pandas as pd

from lib import stats
from lib.adaptive import ADAPTIVE, PUBLISHED
from lib.claims.rules import INCONCLUSIVE, Claim, Evidence, judge, less

EACH = "each method"  # the control of difference.csv: as many networks of one method, mean over the methods
DUCAT, BASE = "pgd+ducat", "pgd"


def wider(values, images: int, others=0.0, others_images: int | None = None) -> dict:
    """Mean over seeds of shares of images less others: mean, low, high, n, images.

    The interval is the wider of two at each end: Student's over seeds, and that of images (Wilson; of two shares,
    whose errors add as squares), as if all seeds erred alike.
    """
    values, others = np.broadcast_arrays(np.asarray(values, float), np.asarray(others, float))
    found, mean, other = stats.over_seeds(values - others, within=(-1, 1)), values.mean(), others.mean()
    low, high = stats.wilson(mean * images, images)
    o_low, o_high = stats.wilson(other * others_images, others_images) if others_images else (other, other)
    ends = less({"mean": mean, "low": low, "high": high}, {"mean": other, "low": o_low, "high": o_high})
    return {**found, "low": np.minimum(found["low"], ends["low"]), "high": np.maximum(found["high"], ends["high"]),
            "images": int(images)}


def not_by_chance(evidence: Evidence) -> dict:
    """Share of test images on which all methods fail, less the product of their failures within each class: above 0."""
    rows = evidence.studies["failing"]
    rows = rows[(rows.setting == "methods") & (rows.split == "test") & (rows.population == "all")]
    rows = rows[(rows["class"] == "all") & (rows["size"] == rows["size"].max())]
    found = wider(rows.all_fail, rows.n.iloc[0], rows.in_class)
    return {**found, "verdict": judge(found, above=0)}


def methods_share_more(evidence: Evidence) -> dict:
    """Always-failing test images of different methods less those of as many networks of one method: above 0.

    Of the largest sets that every method has seeds for; the interval is that of the table, over images and seeds.
    """
    rows = evidence.studies["difference"]
    rows = rows[(rows.split == "test") & (rows.control == EACH)]
    values = ["mean", "low", "high"]
    row = rows.loc[rows["size"].idxmax()] if len(rows) else pd.Series({**dict.fromkeys(values, np.nan), "n": 0})
    found = {**row[values].astype(float), "n": evidence.table.seed.nunique(), "images": int(row["n"])}
    return {**found, "verdict": judge(found, above=0)}


def rescues(kind: str):
    """The rule that pgd+ducat has more of the always-failing images right than another network of pgd: above 0."""
    def rule(evidence: Evidence) -> dict:
        """Shares of the images of a set, mean over sets; pgd is of a seed that is not in the set."""
        table, shares = evidence.studies["rescued"], []
        for method, how in ((DUCAT, kind), (BASE, "plain")):
            rows = table[(table.method == method) & (table.kind == how) & table.seed.isin(evidence.table.seed)]
            shares.append(rows.groupby("seed").right.mean())
        if not all(map(len, shares)):  # no other network of pgd was there
            return {**dict.fromkeys(("mean", "low", "high"), np.nan), "n": 0, "images": 0, "verdict": INCONCLUSIVE}
        images = table.n.mean().round()
        found = wider(shares[0], images, shares[1], images)
        return {**found, "verdict": judge(found, above=0)}
    return rule


ABSTRACT = "READ: abstract, an overlap of up to 40 % on data sets of its own"
CLAIMS = [
    Claim("D1", "All methods fail on the same images more often than if they failed independently within each class",
          ABSTRACT, "overlap", (), not_by_chance, ("failing",)),
    Claim("D1c", "Different methods always fail on more images than as many networks of one method do", "ours: if not, "
          "the overlap tells nothing of methods", "overlap", (), methods_share_more, ("difference",)),
    Claim("D1p", "As published, pgd+ducat has more of the always-failing images right than another seed of pgd",
          "ours; the purpose of dummy classes", "always", (DUCAT, BASE), rescues(PUBLISHED), ("rescued",)),
    Claim("D1r", "Attacked as it is deployed, pgd+ducat has more of the always-failing images right than another seed "
          "of pgd", "ours: what D1p has to mean to count", "always", (DUCAT, BASE), rescues(ADAPTIVE), ("rescued",)),
]
