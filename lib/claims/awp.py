"""Claims of the AWP paper (Wu et al., NeurIPS 2020) on the methods of the main table, at the last checkpoint.

The paper's body was not read: of it we know the code, its logs and Figure 1. Its numbers are of CIFAR-10, CIFAR-100 and
SVHN, and of the best checkpoint by test images; a rule here asks only for the sign.
"""

from lib import evaluate
from lib.claims.rules import Claim, Evidence, difference, judge

LOGS = "READ: logs of the authors' code"


def more_robust(method: str, than: str, worst: bool = False):
    """The rule that a method is right more often than another, under the headline attack or in the worst case."""
    def rule(evidence: Evidence) -> dict:
        """The first less the second, above 0."""
        attack = evaluate.WORST if worst else evidence.headline
        found = difference(*(evidence.rows(m, attack) for m in (method, than)))
        return {**found, "verdict": judge(found, above=0)}
    return rule


CLAIMS = [
    *(Claim(f"A5-{m}", f"AWP makes {m} more robust under the headline attack",
            f"{LOGS}, on other data sets" if m == "pgd" else "ours; for TRADES and MART recalled of the paper",
            "main table", (m, f"{m}+awp"), more_robust(f"{m}+awp", m)) for m in ("pgd", "trades", "mart")),
    *(Claim(f"A5w-{m}", f"AWP makes {m} more robust in the worst case over all attacks",
            "ours; recalled of the paper", "main table", (m, f"{m}+awp"), more_robust(f"{m}+awp", m, worst=True))
      for m in ("pgd", "trades", "mart")),
    Claim("A5e", "AWP makes pgd more robust in the worst case than weight averaging does", "ours", "main table",
          ("pgd+awp", "pgd+ema"), more_robust("pgd+awp", "pgd+ema", worst=True)),
]
