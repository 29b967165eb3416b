"""Claims of the spine: standard training against PGD adversarial training, at the last checkpoint."""

import numpy as np

from lib import evaluate, stats
from lib.claims.rules import HOLDS, INCONCLUSIVE, Claim, Evidence, difference, judge


def robustness(evidence: Evidence) -> dict:
    """pgd less standard in the worst case over all attacks: above 0."""
    found = difference(*(evidence.rows(method, evaluate.WORST) for method in ("pgd", "standard")))
    return {**found, "verdict": judge(found, above=0)}


def cost(evidence: Evidence) -> dict:
    """pgd less standard on clean images: below 0."""
    found = difference(*(evidence.rows(method, evaluate.CLEAN) for method in ("pgd", "standard")))
    return {**found, "verdict": judge(found, below=0)}


def unequal_classes(evidence: Evidence, level: float = 0.95) -> dict:
    """The worst class of pgd less the 2.5 % quantile of `stats.null_of_classes`: below 0, and in every seed.

    In every seed: the p value of the worst class, by Holm over the seeds, is below 2.5 %. The null has the seed's
    own accuracy in each class.
    """
    rows = evidence.rows("pgd", evaluate.WORST)
    margins, p = [], []
    for _, of_seed in rows.groupby("seed"):
        classes = of_seed.groupby("label").hit.agg(["mean", "size"])
        worst = classes["mean"].min()
        null = stats.null_of_classes(classes["size"], of_seed.hit.mean(), worst=worst, level=level)["worst"]
        margins.append(worst - null["low"])
        p.append(null["p"])
    found = {**stats.over_seeds(margins, within=(-1, 1)), "images": rows["index"].nunique()}
    verdict = judge(found, below=0)
    if verdict == HOLDS and np.max(stats.holm(p)) >= (1 - level) / 2:
        verdict = INCONCLUSIVE
    return {**found, "verdict": verdict}


def generalisation_gap(evidence: Evidence) -> dict:
    """pgd on training images less pgd on test images, both under the headline attack: above 0."""
    found = difference(*(evidence.rows("pgd", evidence.headline, split) for split in ("train", "test")))
    return {**found, "verdict": judge(found, above=0)}


CLAIMS = [
    Claim("S1", "PGD training raises accuracy in the worst case over all attacks tried",
          "READ: abstract of Madry et al. 2018, which says it of a wide range of attacks", "attacks",
          ("standard", "pgd"), robustness),
    Claim("S2", "PGD training costs clean accuracy", "ours", "tradeoff", ("standard", "pgd"), cost),
    Claim("S3", "In the worst case over all attacks, the worst class of a PGD-trained network is worse than chance "
          "makes of equal classes", "ours", "classes", ("pgd",), unequal_classes),
    Claim("S4", "A PGD-trained network is more robust on training images than on test images", "ours", "main table",
          ("pgd",), generalisation_gap),
]
