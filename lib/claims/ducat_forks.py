"""Claims on what in DUCAT does what, and on what it buys: on 16_forks, continuations of one trunk, and the main table.

Of the paper's ablations only the defaults of the code are known.
"""

import numpy as np
import pandas as pd

from lib import adaptive, evaluate
from lib.adaptive import PUBLISHED
from lib.claims.ducat import OPENREVIEW, POINT, reported
from lib.claims.ducat import rows as of_run
from lib.claims.rules import Claim, Evidence, difference, judge
from lib.forks import CONTINUED, HALF, HARD
from lib.forks import DUCAT as RELEASED
from lib.tradeoff import estimate, nrr

METHOD = "pgd+ducat"


def rows(evidence: Evidence, fork: str, protocol: str | None = None, clean: bool = False,
         split: str = "test") -> pd.DataFrame:
    """Whether each image is right under every attack of a protocol, or (None) of both, for one fork of pgd's trunk.

    clean: without an attack. Columns seed, split, index, label, hit.
    """
    table = evidence.studies["forks"]
    table = table[(table.method == "pgd") & (table.fork == fork) & (table.split == split)]
    if clean:
        table = table[table.attack == evaluate.CLEAN]
    return adaptive.worst_case(table, ["seed", "split"], protocol)


def fork_above(fork: str, than: str, protocol: str | None):
    """The rule that a fork is more robust than another under a protocol."""
    def rule(evidence: Evidence) -> dict:
        """The first less the second, above 0."""
        found = difference(*(rows(evidence, name, protocol) for name in (fork, than)))
        return {**found, "verdict": judge(found, above=0)}
    return rule


def longer(protocol: str | None, sign: int):
    """The rule that dummy classes for the longest time tried raise (sign 1) or lower (-1) what is left, over the
    shortest time.
    """
    def rule(evidence: Evidence) -> dict:
        """The earliest start less the latest one."""
        table = evidence.studies["forks"]
        starts = table[(table.method == "pgd") & table.fork.str.startswith(("start", RELEASED))]
        starts = starts.groupby("fork").start.first().sort_values(kind="stable")
        found = difference(*(rows(evidence, name, protocol) for name in (starts.index[0], starts.index[-1])))
        return {**found, "verdict": judge(found, above=0) if sign > 0 else judge(found, below=0)}
    return rule


def no_cleaner_than_halves(evidence: Evidence) -> dict:
    """Clean accuracy with dummy classes less that of as many clean images without them, below `POINT`."""
    found = difference(*(rows(evidence, name, clean=True) for name in (RELEASED, HALF)))
    return {**found, "verdict": judge(found, below=POINT)}


def below_the_curve(evidence: Evidence) -> dict:
    """NRR of DUCAT less that of PGD training at the radius with the highest NRR on validation images, below 0."""
    table = evidence.studies["forks"]
    radii = [n for n in table[table.method == "pgd"].fork.unique() if n.startswith("radius")]

    def hits(fork, split):
        """Clean and robust hits, (2, seeds, images)."""
        both = [rows(evidence, fork, clean=clean, split=split) for clean in (True, False)]
        return np.stack([r.pivot(index="seed", columns="index", values="hit") for r in both]).astype(float)

    rival = max(radii, key=lambda name: nrr(*hits(name, "validation").mean(2)).mean())
    found = estimate(lambda *rates: nrr(*rates[:2]) - nrr(*rates[2:]), *hits(RELEASED, "test"), *hits(rival, "test"),
                     within=(-1, 1))
    return {**found, "verdict": judge(found, below=0)}


def best_balance(protocol: str | None):
    """The rule that pgd+ducat has a higher NRR than the best other method that was run, above 0.

    Of pgd+ducat robust is the worst case over the attacks that are `reported` as published (its study), or over those
    of the main table; of the others always the latter. The rival is the best on these very images, which favours it.
    """
    def rule(evidence: Evidence) -> dict:
        """The NRR of each seed less the rival's."""
        def hits(method, of):
            """Clean and robust hits, (2, seeds, images)."""
            robust = of_run(evidence, method, of, reported(evidence)) if of else evidence.rows(method, evaluate.WORST)
            both = [rows.pivot(index="seed", columns="index", values="hit")
                    for rows in (evidence.rows(method, evaluate.CLEAN), robust)]
            return np.stack(both).astype(float)

        others = {m: hits(m, None) for m in evidence.table.method.unique() if "ducat" not in m.split("+")}
        rival = max(others, key=lambda m: nrr(*others[m].mean(2)).mean())
        found = estimate(lambda *rates: nrr(*rates[:2]) - nrr(*rates[2:]), *hits(METHOD, protocol), *others[rival],
                         within=(-1, 1))
        return {**found, "verdict": judge(found, above=0)}
    return rule


F = ("forks",)
DEFAULTS = "ours; guessed from the defaults of the authors' code"
CLAIMS = [
    Claim("D9a", "As published, two-hot labels of clean images make DUCAT look more robust than hard ones", DEFAULTS,
          "forks", ("pgd",), fork_above(RELEASED, HARD, PUBLISHED), F),
    Claim("D9b", "The longer the dummy classes are in use, the more robust DUCAT looks as published", "ours", "forks",
          ("pgd",), longer(PUBLISHED, 1), F),
    Claim("D9c", "The longer the dummy classes are in use, the less robust DUCAT is", "ours", "forks", ("pgd",),
          longer(None, -1), F),
    Claim("D10p", "As published, pgd+ducat has a higher NRR, the harmonic mean of clean and robust accuracy, than "
          "every method here without dummy classes", f"{OPENREVIEW}: than published methods, on CIFAR-10", "tradeoff",
          (METHOD,), best_balance(PUBLISHED), ("adaptive",)),
    Claim("D10", "Attacked as it is deployed, pgd+ducat has a higher NRR than every method here without dummy classes",
          "ours: what D10p has to mean to count", "tradeoff", (METHOD,), best_balance(None)),
    Claim("D11", "Attacked as it is deployed, DUCAT lies below the ordinary trade-off: its NRR is below that of PGD "
          "training at the radius which validation images choose", "ours", "tradeoff", ("pgd",), below_the_curve, F),
    Claim("D12a", "Dummy classes make clean accuracy no higher than as many clean images without them do, by less than "
          f"{POINT:.0%}", "ours", "forks", ("pgd",), no_cleaner_than_halves, F),
    Claim("D12b", "A training adversary that knows the recovery makes DUCAT more robust", "ours", "forks", ("pgd",),
          fork_above("adversary lse", RELEASED, None), F),
    Claim("D12c", "With that adversary DUCAT is more robust than its trunk trained on as before", "ours", "forks",
          ("pgd",), fork_above("adversary lse", CONTINUED, None), F),
]
