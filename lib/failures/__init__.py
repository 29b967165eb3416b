"""Always-failing images and transfer: adversarial examples of every network, shown to every other.

`cross` makes the predictions that everything else is read off: `sets` of networks and what they all fail on, with its
controls, and the transfer table.
"""

from lib.failures.always import (
    ALL,
    CLEAN_RIGHT,
    EACH,
    EVERY,
    METHODS,
    SEEDS,
    SHARES,
    NetworkSet,
    auc,
    compare,
    difference,
    failed,
    failing,
    largest,
    pooled,
    predictability,
    rescued,
    sets,
)
from lib.failures.networks import (
    ADAPTIVE,
    PLAIN,
    PUBLISHED,
    TRUNK,
    Network,
    Predictions,
    cross,
    label,
    networks,
    runs,
)
from lib.failures.transfer import OTHER_SEED, SAME_SEED, WHITE_BOX, grid, masking, means, pairing, pairs

__all__ = ["ADAPTIVE", "ALL", "CLEAN_RIGHT", "EACH", "EVERY", "METHODS", "OTHER_SEED", "PLAIN", "PUBLISHED",
           "SAME_SEED", "SEEDS", "SHARES", "TRUNK", "WHITE_BOX", "Network", "NetworkSet", "Predictions", "auc",
           "compare", "cross", "difference", "failed", "failing", "grid", "label", "largest", "masking", "means",
           "networks", "pairing", "pairs", "pooled", "predictability", "rescued", "runs", "sets"]
