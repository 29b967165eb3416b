"""Claims: sentences that the results may confirm, contradict or leave open, judged by rules in code.

A chapter's claims are one file of this folder, with a list CLAIMS, and that list joins ALL here. What a claim is
and what its verdict means: `lib.claims.rules`.
"""

from lib.claims import (
    awp,
    awp_landscape,
    awp_perturbation,
    awp_trajectory,
    classwise,
    classwise_studies,
    ducat,
    ducat_failures,
    ducat_forks,
    sparta,
    spine,
)
from lib.claims.gather import STUDIES, gather
from lib.claims.rules import Claim, Evidence, shown

__all__ = ["ALL", "STUDIES", "Claim", "Evidence", "check", "gather", "shown"]

CHAPTERS = (spine, classwise, classwise_studies, awp, awp_landscape, awp_trajectory, awp_perturbation, ducat_failures,
            ducat, ducat_forks, sparta)
ALL: list[Claim] = [claim for chapter in CHAPTERS for claim in chapter.CLAIMS]


def check(evidence: Evidence, claims: list[Claim] = ALL) -> list[dict]:
    """One row a claim, in the order of `claims`; a claim about something that was not run is left out.

    Columns: id, statement, source, figure, verdict, estimate, low, high, unit, n_seeds, n_images.
    """
    return [claim.row(evidence) for claim in claims if claim.applies(evidence)]
