"""Claims of the class-wise paper that have an experiment of their own: removal, Temperature-PGD, help for weak classes.

As in `lib.claims.classwise`: a source says what was read. Temperatures and strengths were chosen on validation images.
"""

import numpy as np
import pandas as pd

from lib import balance, removal, stats, temperature
from lib.claims.classwise import ABSTRACT, SUBMISSION
from lib.claims.rules import Claim, Evidence, difference, judge, of_classes


def comes_home(network: str, reading: str = "adaptive", above: float = 0.0):
    """The rule that of pgd's images taken for class j a share, or a difference of shares, lies above a value.

    network: as in `removal.homing`. The interval is the wider of two at each end: Student's over seeds, and that over
    images, all seeds pooled.
    """
    def rule(evidence: Evidence) -> dict:
        """The mean over seeds."""
        table = evidence.studies["removal"].query("method == 'pgd'")
        pooled, each = removal.homing(table), removal.homing(table, by=["seed"])
        pooled, each = (t[(t.reading == reading) & (t.network == network)] for t in (pooled, each))
        found, pooled = stats.over_seeds(each.rate, within=(-1, 1)), pooled.iloc[0]
        found = {**found, "low": np.minimum(found["low"], pooled.low), "high": np.maximum(found["high"], pooled.high),
                 "images": int(pooled.images)}
        return {**found, "verdict": judge(found, above=above)}
    return rule


def _tempered(evidence: Evidence, method: str, attack: str) -> pd.DataFrame:
    """The test images of a method under an attack of 09_temperature, or under `temperature.CHOSEN`."""
    table = evidence.studies["temperature"]
    rows = temperature.tested(table[table.method == method])
    return rows[rows.attack == attack].assign(hit=lambda of: of.label == of.predicted)


def stronger_than(other: str, method: str = "pgd"):
    """The rule that Temperature-PGD leaves less right than `other`, of as many steps: the difference above 0."""
    def rule(evidence: Evidence) -> dict:
        """Accuracy under the other attack less that under Temperature-PGD."""
        found = difference(_tempered(evidence, method, other), _tempered(evidence, method, temperature.CHOSEN))
        return {**found, "verdict": judge(found, above=0)}
    return rule


def most_where_flat(evidence: Evidence) -> dict:
    """What Temperature-PGD takes beyond PGD: from pgd+he less from pgd, above 0."""
    he, pgd = (difference(_tempered(evidence, m, "pgd"), _tempered(evidence, m, temperature.CHOSEN))
               for m in ("pgd+he", "pgd"))
    mean = he["mean"] - pgd["mean"]
    low = mean - np.hypot(he["mean"] - he["low"], pgd["high"] - pgd["mean"])
    high = mean + np.hypot(he["high"] - he["mean"], pgd["mean"] - pgd["low"])
    found = {**pgd, "mean": mean, "low": low, "high": high}
    return {**found, "verdict": judge(found, above=0)}


def wider_disparity(method: str):
    """The rule that the standard deviation over classes is larger under Temperature-PGD than under PGD."""
    def rule(evidence: Evidence) -> dict:
        """The first less the second, above 0."""
        found = of_classes(lambda a, b: a.std(-1) - b.std(-1), _tempered(evidence, method, temperature.CHOSEN),
                           _tempered(evidence, method, "pgd"), within=(-1, 1))
        return {**found, "verdict": judge(found, above=0)}
    return rule


def _helped(evidence: Evidence, defence: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The test images under the strong attack of 10_balance: with a defence at each seed's chosen strength, without."""
    table = evidence.studies["balance"]
    table = table[(table.method == "pgd") & (table.split == "test") & (table.attack == "strong")]
    table = table.assign(hit=table.label == table.predicted)
    chosen = []
    for seed, run in evidence.studies["balance"].query("method == 'pgd'").groupby("seed"):
        strength = balance.chosen(run, defence)
        chosen.append(table[(table.seed == seed) & (table.strength == strength)
                            & (table.defence == (defence if strength else "none"))])
    return pd.concat(chosen), table[table.defence == "none"]


def helps(defence: str, statistic, *, above: float | None = None, below: float | None = None):
    """The rule that a statistic of the class accuracies moves, with the defence less without it."""
    def rule(evidence: Evidence) -> dict:
        """The change, of the mean over seeds."""
        found = of_classes(lambda a, b: statistic(a) - statistic(b), *_helped(evidence, defence), within=(-1, 1))
        return {**found, "verdict": judge(found, above=above, below=below)}
    return rule


def _lowest(a: np.ndarray) -> np.ndarray:
    return a.min(-1)


def _variance(a: np.ndarray) -> np.ndarray:
    return a.var(-1)


CHANGES = f"{ABSTRACT}, of changes in the training and inference phase; these two are ours"
R, T, B = ("removal",), ("temperature",), ("balance",)
TEMPERED = ("pgd", "trades", "mart", "pgd+he")
CLAIMS = [
    Claim("C6", "Most images that are attacked into a class withstand attacks when the network is trained without it",
          f"{SUBMISSION}, of all such images; half is ours", "removal", ("pgd",),
          comes_home(removal.GONE, above=0.5), R),
    Claim("C6a", "Of these, more withstand it than when another class is left out", "ours: a control of C6", "removal",
          ("pgd",), comes_home(removal.LESS_CLASS), R),
    Claim("C6b", "Of these, more withstand it than when the full network is trained again", "ours: a control of C6",
          "removal", ("pgd",), comes_home(removal.LESS_SEED), R),
    *(Claim(f"C8-{m}", f"On {m}, Temperature-PGD leaves fewer images right than PGD of as many steps", ABSTRACT,
            "temperature", (m,), stronger_than("pgd", m), T) for m in TEMPERED),
    *(Claim(f"C8m-{m}", f"On {m}, Temperature-PGD leaves fewer images right than PGD on the margin, its limit",
            "ours", "temperature", (m,), stronger_than("margin", m), T) for m in TEMPERED),
    Claim("C8h", "Temperature-PGD gains more over PGD on cosine logits (he) than on pgd", "ours", "temperature",
          ("pgd", "pgd+he"), most_where_flat, T),
    *(Claim(f"C9-{m}", f"On {m}, Temperature-PGD widens the differences of the classes: their standard deviation grows",
            ABSTRACT, "temperature", (m,), wider_disparity(m), T) for m in TEMPERED),
    Claim("C10a", "Re-weighting the loss (balanced) raises the worst class", CHANGES, "balance", ("pgd",),
          helps("balanced", _lowest, above=0), B),
    Claim("C10b", "Re-weighting the loss (balanced) lowers the variance over classes", CHANGES, "balance", ("pgd",),
          helps("balanced", _variance, below=0), B),
    Claim("C10c", "A bonus on the logits of weak classes (offset) raises the worst class", CHANGES, "balance", ("pgd",),
          helps("offset", _lowest, above=0), B),
    Claim("C10d", "A bonus on the logits of weak classes (offset) lowers the variance over classes", CHANGES, "balance",
          ("pgd",), helps("offset", _variance, below=0), B),
]
