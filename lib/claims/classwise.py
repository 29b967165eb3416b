"""Claims of the class-wise paper (Tian et al., KDD 2021, and its ICLR 2021 submission), at the last checkpoint.

Only the abstracts and the opening of the introductions of both could be read: a source says what was, and every
threshold is ours.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lib import classwise, evaluate, stats
from lib.claims.rules import CORRELATION, Claim, Evidence, judge, of_classes

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


def _same_ranking(rows: list[pd.DataFrame]) -> dict:
    """The lowest rank correlation of the classes between any two sets of rows, networks of one seed, above `STABLE`.

    Lowest of the means, of the lower and of the upper bounds: it holds if each pair's interval lies above, and fails if
    one pair's lies below.
    """
    pairs = list(map(classwise.hits, rows))
    found = classwise.consistency(pairs[0][0], [right for _, right in pairs])["same"]
    i, j = np.triu_indices(len(rows), 1)
    ends = {end: np.min(found[end][i, j]) for end in ("mean", "low", "high")}
    found = {**ends, "n": rows[0].seed.nunique(), "images": rows[0]["index"].nunique()}
    return {**found, "verdict": judge(found, above=STABLE)}


def over_attacks(evidence: Evidence) -> dict:
    """`_same_ranking` of the attacks on pgd; noise is none."""
    names = [a for a in evidence.table.attack.unique() if a not in (evaluate.CLEAN, "noise")]
    return _same_ranking([evidence.rows("pgd", name) for name in names])


def defences(evidence: Evidence) -> list[str]:
    """The methods trained against an adversary that do not aim at classes."""
    return [m for m in evidence.table.method.unique() if m != "standard" and not BALANCING & set(m.split("+"))]


def over_defences(evidence: Evidence) -> dict:
    """`_same_ranking` of these methods under the headline attack."""
    return _same_ranking([evidence.rows(m, evidence.headline) for m in defences(evidence)])


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


def _over_seeds_too(estimate: dict, rows: pd.DataFrame, within: tuple[float, float] = (-np.inf, np.inf)) -> dict:
    """An estimate over images with the value of each `seeds`, its interval made the wider of that and Student's."""
    over = stats.over_seeds(estimate["seeds"], within=within)
    return {"mean": estimate["mean"], "low": np.minimum(over["low"], estimate["low"]), "n": over["n"],
            "high": np.maximum(over["high"], estimate["high"]), "images": rows["index"].nunique()}


def _gain(evidence: Evidence, name: str, within: tuple[float, float] = (-np.inf, np.inf)) -> dict:
    """One estimate of `classwise.gain`, of the strongest attack on pgd over FGSM."""
    rows = [evidence.rows("pgd", attack) for attack in ("fgsm", evidence.strongest)]
    (labels, weak), (_, strong) = map(classwise.hits, rows)
    return _over_seeds_too(classwise.gain(labels, weak, strong)[name], rows[0], within)


def gain_of_weak_classes(evidence: Evidence) -> dict:
    """Rank correlation of what a class loses with its accuracy on other images, below 0."""
    found = _gain(evidence, "correlation", (-1, 1))
    return {**found, "verdict": judge(found, below=0)}


def share_of_bottom_half(evidence: Evidence) -> dict:
    """The weaker half of the classes' part of the whole loss, above one half."""
    found = _gain(evidence, "bottom half")
    return {**found, "verdict": judge(found, above=0.5)}


def _confused(evidence: Evidence, statistic, name: str) -> dict:
    """A statistic of pgd's confusion under the headline attack, with its value for each seed."""
    rows, classes = evidence.rows("pgd", evidence.headline), evidence.table.label.max() + 1
    found = classwise.over_images(statistic, *classwise.said(rows, classes))[name]
    each = [statistic(classes_of_seed)[name] for classes_of_seed in
            (np.bincount(r.label * classes + r.predicted, minlength=classes**2).reshape(classes, classes)
             for _, r in rows.groupby("seed"))]
    return _over_seeds_too({**found, "seeds": each}, rows, (-1, 1))


def within_group(evidence: Evidence) -> dict:
    """Share of wrong predictions within the class's group less that of quasi-independence, above 0."""
    found = _confused(evidence, lambda counts: classwise.within_groups(counts, evidence.superclasses), "excess")
    return {**found, "verdict": judge(found, above=0)}


def symmetric(evidence: Evidence) -> dict:
    """Rank correlation of the share of i taken for j with that of j taken for i, above 0."""
    found = _confused(evidence, classwise.symmetry, "correlation")
    return {**found, "verdict": judge(found, above=0)}


def norm_correlation(evidence: Evidence) -> dict:
    """Rank correlation of ||W_c|| with the accuracy of class c of pgd in the worst case, above 0.

    The wider of Student's interval over seeds and Fisher's for the means over seeds of as many classes.
    """
    rows = evidence.norms[evidence.norms.method == "pgd"]
    each = [spearmanr(of_seed.accuracy, of_seed.norm).statistic for _, of_seed in rows.groupby("seed")]
    mean = rows.groupby("label")[["norm", "accuracy"]].mean()
    found = classwise.correlation(mean.norm, mean.accuracy)
    found = {end: found[f"spearman{suffix}"] for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high"))}
    found = _over_seeds_too({**found, "seeds": each}, evidence.rows("pgd", evidence.headline), (-1, 1))
    return {**found, "verdict": judge(found, above=0)}


CLAIMS = [
    Claim("C1", "Adversarial training leaves a larger spread of the classes, in the worst case over all attacks, than "
          "standard training on clean images", f"{ABSTRACT}: remarkable discrepancies; the comparison is ours",
          "methods", ("standard", "pgd"), larger_spread),
    Claim("C2a", f"Any two attacks rank the classes of pgd alike: each rank correlation above {STABLE}",
          f"{ABSTRACT}: pretty consistent; the threshold is ours", "consistency", ("pgd",), over_attacks,
          attacks=("fgsm",), unit=CORRELATION),
    Claim("C2b", "Any two methods trained against an adversary rank the classes alike: each rank correlation above "
          f"{STABLE}", f"{ABSTRACT}: pretty consistent; the threshold is ours", "consistency", ("pgd", "trades"),
          over_defences, unit=CORRELATION),
    Claim("C3", "One class is the most vulnerable under every method trained against an adversary",
          "ours; recalled of the paper for the cats of CIFAR-10", "methods", ("pgd", "trades"), same_weakest),
    Claim("C4a", "Where the strongest attack gains over FGSM, weak classes lose more: a rank correlation below 0",
          ABSTRACT, "gain", ("pgd",), gain_of_weak_classes, attacks=("fgsm",), unit=CORRELATION),
    Claim("C4b", "More than half of what the strongest attack gains over FGSM comes from the weaker half of classes",
          f"{ABSTRACT}: mainly from the vulnerable classes", "gain", ("pgd",), share_of_bottom_half, attacks=("fgsm",)),
    Claim("C5a", "Attacked images are taken for classes of their own group more often than the attraction of each "
          "class alone explains", SUBMISSION, "confusion", ("pgd",), within_group, needs=("superclasses",)),
    Claim("C5b", "Confusion under attack is symmetric: what i is taken for j goes with what j is taken for i",
          "ours; recalled of the paper", "confusion", ("pgd",), symmetric, unit=CORRELATION),
    Claim("C7", "The norm of a class's row in the last layer rises with its robustness, in rank", SUBMISSION, "norms",
          ("pgd",), norm_correlation, needs=("norms",), unit=CORRELATION),
]
