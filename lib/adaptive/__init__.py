"""A classifier that may be one of C classes and their dummies, attacked twice: as published, and adaptively.

As published: the attack faces the 2C logits, and what it finds is scored by the deployed classifier. Adaptive: the
attack faces the deployed classifier. Of a classifier without dummies both are the same.
"""

from lib.adaptive.checks import ENDS, checks, ends, rates, worst_accuracy
from lib.adaptive.decisions import rays
from lib.adaptive.protocols import (
    ADAPTIVE,
    PUBLISHED,
    View,
    adaptive,
    attacked,
    few,
    per_sample,
    published,
    raw,
    worst_case,
)
from lib.adaptive.suite import suite, sweeps, table, trunk

__all__ = ["ADAPTIVE", "ENDS", "PUBLISHED", "View", "adaptive", "attacked", "checks", "ends", "few", "per_sample",
           "published", "rates", "raw", "rays", "suite", "sweeps", "table", "trunk", "worst_accuracy",
           "worst_case"]
