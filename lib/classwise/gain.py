"""Where a stronger attack gains: in the classes that are weak already, or anywhere?

The drop of a class is d_c = a_c(weak) - a_c(strong). Two traps. With a_c(weak) on both sides, noise in it alone makes
d_c grow with a_c(weak): a POSITIVE correlation, regression to the mean. So classes are ranked here on one half of the
images and their drops are taken on the other half; ranks from another seed or attack would keep the noise
of the images, which all of them share. Halves make a correlation smaller than it is, but do not turn its sign. And a
floor: a class at 5 % cannot lose more than 5 points. So the drop is told relative to a_c(weak) too, which in turn makes
weak classes look hit harder; neither scale is the right one.
"""

import numpy as np
from scipy.stats import rankdata

from lib.classwise.agreement import rank_correlation
from lib.classwise.resample import Estimate, by_class, halves, interval, mean, resampled

GAIN = ("correlation", "relative correlation", "bottom half", "relative bottom half", "naive correlation", "drop")


def drops(order, weak, strong) -> dict[str, np.ndarray]:
    """What the drop has to do with how weak a class is: class accuracies (..., classes) three times -> numbers (...).

    order: what ranks the classes, accuracies under the weak attack on other images. correlation: Spearman's of d_c with
    it, negative where weak classes lose most. bottom, total: sum of d_c over the weaker half of the classes, and over
    all; a class on the boundary, by an odd number or a tie, counts in part. relative: the same of d_c / a_c(weak); a
    class with nothing left to lose is left out.
    """
    drop = weak - strong
    relative = np.divide(drop, weak, out=np.full(np.shape(drop), np.nan), where=weak > 0)
    below, upto = (rankdata(order, method=end, axis=-1, nan_policy="omit") for end in ("min", "max"))
    half = np.clip((order.shape[-1] / 2 - below + 1) / (upto - below + 1), 0, 1)
    found = {}
    for name, values in (("", drop), ("relative ", relative)):
        found |= {f"{name}correlation": rank_correlation(values, order),
                  f"{name}bottom": np.nansum(half * values, -1), f"{name}total": np.nansum(values, -1)}
    return found


def gain(labels, weak, strong, *, splits: int = 10, resamples: int = 500, seed: int = 0) -> dict[str, Estimate]:
    """The gain of one attack over another on the same networks; weak, strong: (seeds, images) of 0 and 1, who is right.

    Estimates named in GAIN: the correlations of `drops`, mean over seeds; bottom half: the share of all drops that
    the weaker half of the classes takes, seeds pooled (0.5 where weakness does not matter; nan unless the interval of
    `drop` is above 0); naive correlation: what ranking on the same images would say; drop: mean over classes of d_c.
    Each: mean, low, high, and `seeds`, the value of each seed.
    """
    columns = np.concatenate([weak, strong]).astype(float)
    parts = np.concatenate([np.ones((1, len(labels))), halves(labels, splits, seed)])
    # First the images as they are, then the resamples; always the same halves.
    data = np.stack([by_class(labels[part > 0], columns[:, part > 0]) for part in parts])[None]
    each = _of_seeds(np.concatenate([data, resampled(labels, columns.T, resamples, seed, parts)]), len(weak))
    found = {}
    for name in GAIN:
        values = each[name]
        pooled = _ratio(*(v.sum(-1) for v in values)) if "half" in name else mean(values, -1)
        of_seeds = _ratio(*values)[0] if "half" in name else values[0]
        within = (-np.inf, np.inf) if "half" in name else (-1, 1)
        found[name] = {**interval(pooled[0], pooled[1:], within, wide=name != "drop"), "seeds": of_seeds}
    if not found["drop"]["low"] > 0:
        for name in ("bottom half", "relative bottom half"):
            found[name] = {key: value * np.nan for key, value in found[name].items()}
    return found


def _of_seeds(accuracy: np.ndarray, seeds: int) -> dict:
    """(resamples, 1 + halves, 2 * seeds, classes), all images first -> for each of GAIN (resamples, seeds)."""
    weak, strong = accuracy[:, :, :seeds], accuracy[:, :, seeds:]
    other = np.roll(weak[:, 1:], (weak.shape[1] - 1) // 2, axis=1)
    found = {name: mean(value, 1) for name, value in drops(other, weak[:, 1:], strong[:, 1:]).items()}
    return {**{name: found[name] for name in ("correlation", "relative correlation")},
            **{f"{name}bottom half": (found[f"{name}bottom"], found[f"{name}total"]) for name in ("", "relative ")},
            "naive correlation": drops(weak[:, 0], weak[:, 0], strong[:, 0])["correlation"],
            "drop": (weak[:, 0] - strong[:, 0]).mean(-1)}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
