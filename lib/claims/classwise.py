"""Claims of the class-wise paper (Tian et al., KDD 2021; C6 and C7 of the ICLR 2021 submission), at the last checkpoint.

Only the abstracts and the opening of the introductions of both could be read: a source says what was, and every
threshold is ours. "Vulnerable" and "bottom half" go by the accuracy on training images, so that the noise of the test
images does not both choose the classes and judge them.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from lib import balance, classwise, evaluate, removal, stats, temperature
from lib.claims.rules import Claim, Evidence, difference, judge, of_classes

ABSTRACT = "READ: abstract of Tian et al. 2021"
SUBMISSION = "READ: abstract of the ICLR 2021 submission"
STABLE = 0.9                                # rank correlation that we call stable
BALANCING = {"balanced", "cfa", "offset"}  # add-ons that are meant to change which classes are weak


def _spread(a: np.ndarray) -> np.ndarray:
    return a.max(-1) - a.min(-1)


def larger_spread(evidence: Evidence) -> dict:
    """Best less worst class: pgd in the worst case less standard on clean images, above 0."""
    found = of_classes(lambda a, b: _spread(a) - _spread(b), evidence.rows("pgd", evaluate.WORST),
                       evidence.rows("standard", evaluate.CLEAN), within=(-1, 1))
    return {**found, "verdict": judge(found, above=0)}


def _least_correlation(*accuracy: np.ndarray) -> np.ndarray:
    """The lowest rank correlation of any two."""
    return np.min([classwise.rank_correlation(a, b) for a, b in combinations(accuracy, 2)], axis=0)


def same_ranking(*rows: pd.DataFrame) -> dict:
    """The lowest rank correlation of the classes between any two sets of rows, above `STABLE`."""
    found = of_classes(_least_correlation, *rows, within=(-1, 1))
    return {**found, "verdict": judge(found, above=STABLE)}


def over_attacks(evidence: Evidence) -> dict:
    """`same_ranking` of the attacks on pgd; noise is none."""
    names = [a for a in evidence.table.attack.unique() if a not in (evaluate.CLEAN, "noise")]
    return same_ranking(*(evidence.rows("pgd", name) for name in names))


def defences(evidence: Evidence) -> list[str]:
    """The methods trained against an adversary that do not aim at classes."""
    return [m for m in evidence.table.method.unique() if m != "standard" and not BALANCING & set(m.split("+"))]


def over_defences(evidence: Evidence) -> dict:
    """`same_ranking` of these methods under the headline attack."""
    return same_ranking(*(evidence.rows(m, evidence.headline) for m in defences(evidence)))


def _in_training(evidence: Evidence) -> np.ndarray:
    """Accuracy of each class of pgd on training images under the headline attack, all seeds: (classes,)."""
    return evidence.rows("pgd", evidence.headline, "train").groupby("label").hit.mean().to_numpy()


def same_weakest(evidence: Evidence) -> dict:
    """Accuracy of the weakest class of pgd (on training images) less that of the best of the lowest others, below 0.

    The largest such difference over all defences, so that it has to be the weakest under each.
    """
    weakest = _in_training(evidence).argmin()

    def above_the_others(*accuracy):
        """How far the class lies above the lowest other class, where that is most."""
        return np.max([a[..., weakest] - np.delete(a, weakest, -1).min(-1) for a in accuracy], axis=0)

    found = of_classes(above_the_others, *(evidence.rows(m, evidence.headline) for m in defences(evidence)),
                       within=(-1, 1))
    return {**found, "verdict": judge(found, below=0)}


def _gain(evidence: Evidence, statistic, within) -> dict:
    """A statistic (drop, order) of what the strongest attack takes from each class of pgd beyond FGSM."""
    order = _in_training(evidence)
    return of_classes(lambda weak, strong: statistic(weak - strong, order), evidence.rows("pgd", "fgsm"),
                      evidence.rows("pgd", evidence.strongest), within=within)


def gain_of_weak_classes(evidence: Evidence) -> dict:
    """Rank correlation of the drop of a class with its accuracy, below 0."""
    found = _gain(evidence, lambda drop, order: classwise.rank_correlation(drop, order), (-1, 1))
    return {**found, "verdict": judge(found, below=0)}


def share_of_bottom_half(evidence: Evidence) -> dict:
    """The bottom half's part of the whole drop, above one half."""
    def share(drop, order):
        """Of the classes sorted by accuracy, the first half's part (nan where nothing dropped)."""
        bottom = np.argsort(order, kind="stable")[:len(order) // 2]
        total = drop.sum(-1)
        return np.divide(drop[..., bottom].sum(-1), total, out=np.full(np.shape(total), np.nan), where=total > 0)

    found = _gain(evidence, share, (-np.inf, np.inf))
    return {**found, "verdict": judge(found, above=0.5)}


def norm_correlation(evidence: Evidence) -> dict:
    """Rank correlation of ||W_c|| with the accuracy of class c of pgd under the headline attack, above 0.

    The interval is the wider of Student's over seeds and Fisher's for as many classes (Bonett and Wright 2000).
    """
    accuracy = evidence.rows("pgd", evidence.headline).groupby(["seed", "label"]).hit.mean()
    norms = evidence.norms[evidence.norms.method == "pgd"].set_index(["seed", "label"]).norm
    both = pd.DataFrame({"accuracy": accuracy, "norm": norms}).groupby("seed")
    each = [spearmanr(of_seed.accuracy, of_seed.norm).statistic for _, of_seed in both]
    found, classes = stats.over_seeds(each, within=(-1, 1)), both.size().iloc[0]
    half = norm.ppf(0.975) * np.sqrt((1 + found["mean"] ** 2 / 2) / max(classes - 3, 1))
    low, high = np.tanh(np.arctanh(np.clip(found["mean"], -0.999, 0.999)) + np.array([-half, half]))
    found = {**found, "low": np.minimum(found["low"], low), "high": np.maximum(found["high"], high),
             "images": evidence.rows("pgd", evidence.headline)["index"].nunique()}
    return {**found, "verdict": judge(found, above=0)}
