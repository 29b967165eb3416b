"""Claims of the DUCAT paper (Wang et al. 2024, arXiv 2410.12671), as published and then attacked adaptively.

Read were the abstract, the code, and the discussion with reviewers on OpenReview; not the paper's body. On 15_adaptive,
where every network meets the same attacks: on its 2C logits (as published), and on the classifier that is deployed.
"""

import pandas as pd

from lib import adaptive, evaluate
from lib.adaptive import ADAPTIVE, PUBLISHED
from lib.claims.rules import Claim, Evidence, difference, judge

OPENREVIEW = "READ: OpenReview, submission 6428"
OBJECTIVES = ("pgd", "trades", "mart", "consistency")
POINT = 0.01  # the change that we call none
TEN, SQUARE, TRUNK, TARGETED = "pgd-10", "square", "transfer-trunk-ce", "pgd-10-targeted"


def rows(evidence: Evidence, method: str, protocol: str | None = None, attacks: tuple[str, ...] = ()) -> pd.DataFrame:
    """Whether each test image of a method is right under every attack of a protocol, or (None) of both.

    attacks: of these names alone. Columns seed, split, index, label, hit.
    """
    table = evidence.studies["adaptive"]
    table = table[(table.method == method) & (table.attack.isin(attacks) if attacks else True)]
    if attacks and protocol:
        table = table[table.protocol == protocol]
    return adaptive.worst_case(table, ["seed"], protocol).assign(split="test")


def reported(evidence: Evidence) -> tuple[str, ...]:
    """The attacks that the authors report, PGD-10 and the strongest one (theirs: AutoAttack)."""
    return TEN, evidence.strongest


def gain(base: str, protocol: str | None, *attacks: str, below: bool = False):
    """The rule that DUCAT raises (or with `below` lowers) the accuracy of an objective under a protocol.

    attacks: by name; none: all of the protocol, of which as published there are only the `reported` ones.
    """
    def rule(evidence: Evidence) -> dict:
        """With dummy classes less without."""
        names = attacks or (reported(evidence) if protocol == PUBLISHED else ())
        found = difference(*(rows(evidence, method, protocol, names) for method in (f"{base}+ducat", base)))
        return {**found, "verdict": judge(found, below=0) if below else judge(found, above=0)}
    return rule


def knowing_changes_nothing(base: str):
    """The rule that the `reported` attacks, on the deployed classifier, take away less than `POINT` of what they leave
    as published.
    """
    def rule(evidence: Evidence) -> dict:
        """As published less adaptive, of the same networks."""
        found = difference(*(rows(evidence, f"{base}+ducat", protocol, reported(evidence))
                             for protocol in (PUBLISHED, ADAPTIVE)))
        return {**found, "verdict": judge(found, below=POINT)}
    return rule


def white_box_is_stronger(base: str, other: str):
    """The rule that PGD-10 as published leaves fewer images right than an attack that knows no gradient of the network.

    other: that attack, on the deployed classifier. Of a network that hides no gradient this is so.
    """
    def rule(evidence: Evidence) -> dict:
        """As published less the other one, below 0."""
        found = difference(rows(evidence, f"{base}+ducat", PUBLISHED, (TEN,)),
                           rows(evidence, f"{base}+ducat", ADAPTIVE, (other,)))
        return {**found, "verdict": judge(found, below=0)}
    return rule


def gains_less(base: str):
    """The rule that DUCAT as published gains less on TRADES, under PGD-10, than on another objective: below 0."""
    def rule(evidence: Evidence) -> dict:
        """The gain on TRADES less that on the other: a difference of differences on the same images."""
        def gained(method):
            """With dummy classes less without, image by image."""
            keys = ["seed", "split", "index", "label"]
            a, b = (rows(evidence, m, PUBLISHED, (TEN,)).set_index(keys).hit.astype(float)
                    for m in (f"{method}+ducat", method))
            return (a - b).rename("hit").reset_index()
        found = difference(gained("trades"), gained(base))
        return {**found, "verdict": judge(found, below=0)}
    return rule


CLAIMS = [
    Claim("D2", "DUCAT raises the clean accuracy of pgd", f"{OPENREVIEW}, Table 1 as quoted there: 82.92 to 88.81 % on "
          "CIFAR-10", "protocols", ("pgd", "pgd+ducat"), gain("pgd", ADAPTIVE, evaluate.CLEAN), ("adaptive",)),
    *(Claim(f"D3-{m}", f"As published, under PGD-10 and the strongest attack, DUCAT makes {m} more robust",
            f"{OPENREVIEW}: 46.74 to 58.61 % under AutoAttack on CIFAR-10" if m == "pgd" else
            f"{OPENREVIEW}, without numbers here", "protocols", (m, f"{m}+ducat"), gain(m, PUBLISHED), ("adaptive",))
      for m in OBJECTIVES),
    Claim("D3t", "As published, attacks towards one other class after the other leave fewer images right on pgd+ducat "
          "than on pgd", f"{OPENREVIEW}: 70.77 against 73.02 % under a targeted attack that is not described there",
          "protocols", ("pgd", "pgd+ducat"), gain("pgd", PUBLISHED, TARGETED, below=True), ("adaptive",)),
    *(Claim(f"D4-{m}", f"Attacked as it is deployed, DUCAT makes {m} more robust in the worst case over all attacks",
            "ours: what D3 has to mean to count", "protocols", (m, f"{m}+ducat"), gain(m, None), ("adaptive",))
      for m in OBJECTIVES),
    *(Claim(f"D5-{m}", f"For PGD-10 and the strongest attack on {m}+ducat it makes no difference to know the recovery: "
            f"less than {POINT:.0%} of the images", f"{OPENREVIEW}, the authors on untargeted attacks; the threshold "
            "is ours", "protocols", (f"{m}+ducat",), knowing_changes_nothing(m), ("adaptive",)) for m in OBJECTIVES),
    Claim("D5s", "As published, PGD-10 on pgd+ducat is stronger than Square, a search without gradients, on what is "
          "deployed", "ours: of a network without masked gradients it is", "protocols", ("pgd+ducat",),
          white_box_is_stronger("pgd", SQUARE), ("adaptive",)),
    Claim("D5t", "As published, PGD-10 on pgd+ducat is stronger than examples made on its trunk",
          "ours; READ: OpenReview, where three of four transfers beat PGD-10 on DUCAT", "protocols", ("pgd+ducat",),
          white_box_is_stronger("pgd", TRUNK), ("adaptive",)),
    *(Claim(f"D6-{m}", f"As published, under PGD-10, DUCAT gains less on trades than on {m}",
            f"{OPENREVIEW}, the reviewers and the authors", "protocols",
            ("trades", "trades+ducat", m, f"{m}+ducat"), gains_less(m), ("adaptive",))
      for m in OBJECTIVES if m != "trades"),
]
