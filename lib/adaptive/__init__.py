"""A classifier that may be one of C classes and their dummies, attacked twice: as published, and adaptively.

As published: the attack faces the 2C logits, and what it finds is scored by the deployed classifier. Adaptive: the
attack faces the deployed classifier. Of a classifier without dummies both are the same.
"""

from lib.adaptive.protocols import (
    ADAPTIVE,
    PUBLISHED,
    View,
    adaptive,
    attacked,
    few,
    published,
    raw,
    worst_case,
)

__all__ = ["ADAPTIVE", "PUBLISHED", "View", "adaptive", "attacked", "few", "published", "raw", "worst_case"]
