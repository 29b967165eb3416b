"""How unequal the classes are: in numbers, along training, and against what else is known of a class."""

import numpy as np
from scipy import stats as scipy_stats

from lib import stats
from lib.classwise.agreement import rank_correlation
from lib.classwise.resample import Estimate, by_class, interval, resampled


def discrepancy(labels, right, *, bottom: int = 3, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """How unequal the classes of one method are, by `stats.over_classes`; right: (seeds, images) of 0 and 1.

    Each estimate: mean over seeds, low and high (95 % over images), and `seeds`, the value of each. Noise of few images
    makes classes look more unequal than they are; the basic interval makes up for about as much, see `stats.bootstrap`.
    """
    accuracy = by_class(labels, right)
    drawn = resampled(labels, np.transpose(right), resamples, seed)
    found = {}
    for name, statistic in stats.over_classes(bottom).items():
        each = statistic(accuracy)
        end = (0, np.inf if name == "cv" else 1)
        found[name] = {**interval(each.mean(), statistic(drawn).mean(1), end), "seeds": each}
    return found


def last_epochs(labels, predicted, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes in the last epochs of a trace: labels (images,), predicted (seeds, epochs, images).

    Returns accuracy (seeds, last, classes), and how often each class is the worst one over these epochs and seeds:
    (classes,), which sums to 1; classes that are worst together share it.
    """
    accuracy = by_class(labels, np.asarray(predicted)[:, -last:] == labels)
    worst = accuracy <= accuracy.min(-1, keepdims=True) + 1e-12
    return accuracy, (worst / worst.sum(-1, keepdims=True)).mean((0, 1))


def correlation(x, y, level: float = 0.95) -> dict[str, float]:
    """Pearson's and Spearman's correlation of x and y (n,), n > 3, with Fisher's interval: pearson, pearson_low, ...

    For Spearman's the variance of Bonett and Wright (2000). The classes count as a sample of classes. Ten of them
    show only |r| > 0.63 (5 %, two-sided). nan where x or y does not vary.
    """
    found, (of_x, of_y) = {"n": len(x)}, (np.asarray(v, float) - np.mean(v) for v in (x, y))
    length = np.sqrt((of_x @ of_x) * (of_y @ of_y))
    for name, r in (("pearson", of_x @ of_y / length if length > 0 else np.nan),
                    ("spearman", float(rank_correlation(x, y)))):
        extra = r**2 / 2 if name == "spearman" else 0
        half = scipy_stats.norm.ppf((1 + level) / 2) * np.sqrt((1 + extra) / (len(x) - 3))
        middle = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
        found |= {name: r, f"{name}_low": np.tanh(middle - half), f"{name}_high": np.tanh(middle + half)}
    return found
