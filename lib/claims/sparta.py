"""Claims of the Sparta paper (Guo et al. 2021, arXiv 2105.08269), of which only the abstract could be read.

The abstract names no number and no formula, so these are its sentences, put to our reading of the activation, with
SiLU, more width and random weights as controls. On 19_activations, 20_gates and 21_transplant. An estimate is a
difference of errors: below 0 is fewer errors.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib import activations, evaluate
from lib.claims.rules import INCONCLUSIVE, LOSS, Claim, Evidence, difference, judge
from lib.gating.tables import chosen

RELU, SILU, WIDE, SPARTA = "relu", "silu", "wide silu", "sparta"
BIAS, MAP, POOLED = "bias", "map", "pooled"  # Sparta's gate without both properties, with one, with the other
FREE = (evaluate.CLEAN, "noise", "square")  # without gradients
POINT, HALF = 0.01, 0.005
HALVES = "halves"
SAME = 1e-4  # of an activation's output: two formulas of one function in float32
SWISH = "g = 0: Swish"  # of `lib.gating.identities`


def rows(evidence: Evidence, method: str, activation: str, attacks: tuple[str, ...] = ()) -> pd.DataFrame:
    """Whether each test image is right under every attack, or those named: seed, split, index, label, hit."""
    table = evidence.studies["activations"]
    found = table[(table.method == method) & (table.activation == activation) & (table.split == "test")]
    return _all(found[found.attack.isin(attacks)] if attacks else found)


def along_radii(evidence: Evidence, method: str, activation: str) -> pd.DataFrame:
    """As `rows`, with `hit` the share of the radii at which the image is right."""
    table = evidence.studies["radii"]
    found = table[(table.method == method) & (table.activation == activation)]
    hits = (found.label == found.predicted).groupby([found[k] for k in ("seed", "index", "label")]).mean()
    return hits.rename("hit").reset_index().assign(split="test")


def arms(evidence: Evidence, arm: str, kind: str, halves: bool = False) -> pd.DataFrame:
    """As `rows`, of one arm of the transplants of a kind: every direction, or (halves) only that one or all others."""
    table = evidence.studies["transplant"]
    found = table[(table.arm == arm) & (table.kind == kind) & ((table.direction == HALVES) == halves)]
    return _all(found.assign(split=found.direction))


def ablated(evidence: Evidence, ablation: str, attack: str) -> pd.DataFrame:
    """As `rows`, of the trained Sparta with something done to it (`lib.gating.gates`)."""
    table = evidence.studies["gates"]
    return _all(table[(table.method == "pgd") & (table.activation == SPARTA) & (table.ablation == ablation)
                      & (table.attack == attack)].assign(split="test"))


def _all(table: pd.DataFrame) -> pd.DataFrame:
    hits = (table.label == table.predicted).groupby([table[k] for k in ("seed", "split", "index", "label")]).all()
    return hits.rename("hit").reset_index()


def error(*of: pd.DataFrame) -> dict:
    """Error of the first rows less that of the second, or, of nothing, an estimate that says nothing."""
    if any(rows.empty for rows in of):
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0, "images": 0}
    return difference(of[1], of[0])


def below(first, second, threshold: float = 0.0):
    """The rule that the error of one activation is below that of another: both are evidence -> rows."""
    def rule(evidence: Evidence) -> dict:
        """The first less the second."""
        found = error(first(evidence), second(evidence))
        return {**found, "verdict": judge(found, below=threshold)}
    return rule


def of(activation: str, *attacks: str, method: str = "pgd"):
    """`rows` of a network, as a function of the evidence; SPARTA and the rest by name."""
    return lambda evidence: rows(evidence, method, activation, attacks)


def best(*attacks: str):
    """`rows` of the activation with the least error under the headline attack on validation images, without Sparta."""
    def found(evidence: Evidence) -> pd.DataFrame:
        """Those of the rival."""
        return rows(evidence, "pgd", rival(evidence), attacks)
    return found


def rival(evidence: Evidence) -> str:
    """The best other activation of `lib.activations`, chosen on validation images under the headline attack."""
    table = evidence.studies["activations"]
    others = [name for name in table.activation.unique() if name in activations.available() and name != SPARTA]
    return chosen(table[table.method == "pgd"], others)


def combined(weights: Mapping[str, int]):
    """The rule that a combination of errors, activation -> weight, is below 0, image by image."""
    def rule(evidence: Evidence) -> dict:
        """The sum of weight times error."""
        keys = ["seed", "split", "index", "label"]
        each = [weight * rows(evidence, "pgd", name).set_index(keys).hit.astype(float)
                for name, weight in weights.items()]
        hits = sum(each[1:], each[0]).rename("hit").reset_index()
        found = error(hits, hits.assign(hit=0.0))
        return {**found, "verdict": judge(found, below=0)}
    return rule


def hidden(evidence: Evidence) -> dict:
    """Images of Sparta that no attack along gradients fools and one without gradients does: fewer than 0.5 %."""
    table = evidence.studies["activations"]
    along = tuple(name for name in table.attack.unique() if name not in FREE)
    found = error(rows(evidence, "pgd", SPARTA), rows(evidence, "pgd", SPARTA, (evaluate.CLEAN, *along)))
    return {**found, "verdict": judge(found, below=HALF)}


def detached(evidence: Evidence) -> dict:
    """Error under the attack that takes the gate for a constant less that under the full one: below 0.5 %."""
    found = error(ablated(evidence, "detached", evidence.headline), ablated(evidence, "none", evidence.headline))
    return {**found, "verdict": judge(found, below=HALF)}


def identical(evidence: Evidence) -> dict:
    """The largest difference between Sparta without g and Swish, on what reaches the activations."""
    table = evidence.studies["identities"]
    table = table[(table.method == "pgd") & (table.identity == SWISH)]
    most, n = table.difference.max(), table.seed.nunique()
    found = {"mean": most, "low": most, "high": most, "n": n, "images": 0}
    return {**found, "verdict": judge(found, below=SAME) if len(table) else INCONCLUSIVE}


ABSTRACT = "READ: abstract"
PROPERTY = f"{ABSTRACT}, of either property of ReLU"
A, T = ("activations",), ("transplant",)
PROPERTIES = {  # what one step of the ladder adds: id -> (words, with, without)
    "map": ("A gate that varies over positions", MAP, BIAS),
    "pooled": ("A gate that depends on the image", POOLED, BIAS),
    "sparta-map": ("Dependence on the image, beside variation over positions,", SPARTA, MAP),
    "sparta-pooled": ("Variation over positions, beside dependence on the image,", SPARTA, POOLED)}
CLAIMS = [
    *(Claim(f"P1a-{name}", f"{words} lowers the robust error of PGD training", PROPERTY, "ladder", ("pgd",),
            below(of(more), of(less)), A) for name, (words, more, less) in PROPERTIES.items()),
    *(Claim(f"P1b-{name}", f"{words} lowers the error of standard training under attack, on average over radii up to "
            "that of the run", f"{PROPERTY}; the radii are ours", "ladder", ("standard",),
            below(lambda e, name=more: along_radii(e, "standard", name),
                  lambda e, name=less: along_radii(e, "standard", name)), ("radii",))
      for name, (words, more, less) in PROPERTIES.items()),
    Claim("P1s", "A smooth gate, with a slope and a bias for each channel, lowers the robust error of PGD training: A1 "
          "against ReLU", "ours", "ladder",
          ("pgd",), below(of(BIAS), of(RELU)), A),
    Claim("P1x", "Both properties together do more than the sum of each", "ours", "ladder", ("pgd",),
          combined({SPARTA: 1, POOLED: -1, MAP: -1, BIAS: 1}), A),
    Claim("P2", "Sparta has a lower robust error than the best other activation, which validation images choose",
          ABSTRACT, "activations", ("pgd",), below(of(SPARTA), best()), A),
    Claim("P2-relu", "Sparta has a lower robust error than ReLU", ABSTRACT, "activations", ("pgd",),
          below(of(SPARTA), of(RELU)), A),
    Claim("P2-silu", "Sparta has a lower robust error than SiLU", "ours: SiLU is smooth, and no more", "activations",
          ("pgd",), below(of(SPARTA), of(SILU)), A),
    Claim("P3-relu", "Sparta has a lower clean error than ReLU", ABSTRACT, "activations", ("pgd",),
          below(of(SPARTA, evaluate.CLEAN), of(RELU, evaluate.CLEAN)), A),
    Claim("P3", "The clean error of Sparta is no higher than that of the best other activation, by less than "
          f"{POINT:.0%}", f"{ABSTRACT}, where it is lower; the threshold is ours", "activations", ("pgd",),
          below(of(SPARTA, evaluate.CLEAN), best(evaluate.CLEAN), POINT), A),
    *(Claim(f"P{number}{which}", f"Trained on {where}, and then fixed, Sparta has a lower robust error than {than}",
            source, "transplant", ("pgd",),
            below(lambda e, kind=kind, halves=halves: arms(e, "T3", kind, halves),
                  lambda e, arm=arm, kind=kind, halves=halves: arms(e, arm, kind, halves)), T)
      for number, where, kind, halves, first in (
          (4, "another network", "network", False, ABSTRACT), (5, "another data set", "images", False, ABSTRACT),
          ("5h", "the other half of the classes", "images", True, "ours"))
      for which, than, arm, source in (
          ("", "ReLU", "T0", first), ("+silu", "SiLU", "T1", "ours: smooth, and no more"),
          ("+random", "Sparta with random weights", "T4", "ours: whether what it learned is needed"),
          ("+standard", "Sparta of standard training", "T5", "ours: whether adversarial training is needed"))),
    Claim("P6", "Swish is Sparta without g: their outputs on features of trained networks are the same", "ours; the "
          "abstract says that the relation is analysed", "mechanism", ("pgd",), identical, ("identities",), unit=LOSS),
    Claim("P7w", "Sparta has a lower robust error than SiLU in a wider network of as many parameters", "ours",
          "variants", ("pgd",), below(of(SPARTA), of(WIDE)), A),
    Claim("P7m", "Attacks without gradients fool fewer than 0.5 % of the images on which those along gradients leave "
          "Sparta right", "ours", "strength", ("pgd",), hidden, A),
    Claim("P7d", "The attack that takes Sparta's gate for a constant is no stronger than the full one, by less than "
          "0.5 %", "ours", "mechanism", ("pgd",), detached, ("gates",)),
]
