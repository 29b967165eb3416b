"""Images drawn anew: class means in resamples of the test images, and the intervals that follow.

Images are drawn within each class, the same ones for every seed, method and attack, so that all stay paired.
"""

import numpy as np
import pandas as pd

Estimate = dict[str, np.ndarray | float]


def hits(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a per-sample table, one method and attack -> labels (images,) and who is right (seeds, images)."""
    grid = rows.assign(hit=rows.label == rows.predicted).pivot(index="seed", columns="index", values="hit")
    labels = rows.drop_duplicates("index").set_index("index").label[grid.columns]
    return labels.to_numpy(), grid.to_numpy(bool)


def said(rows: pd.DataFrame, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as in `hits` -> labels (images,) and how many seeds take each image for each class (images, classes)."""
    images, place = np.unique(rows["index"], return_inverse=True)
    counts, labels = np.zeros((len(images), classes)), np.zeros(len(images), int)
    np.add.at(counts, (place, rows.predicted.to_numpy()), 1)
    labels[place] = rows.label
    return labels, counts


def halves(labels, splits: int, seed: int = 0) -> np.ndarray:
    """Random halves of the images of each class: (2 * splits, images) of 0 and 1, the second
    half of split i in row splits + i. ValueError for a class with one image.
    """
    labels, draw = np.asarray(labels), np.random.default_rng(seed)
    if (np.bincount(labels) == 1).any():
        raise ValueError(f"one image of class {np.bincount(labels).tolist().index(1)}: halves need two")
    first = np.zeros((splits, len(labels)))
    for of_class in (np.flatnonzero(labels == c) for c in np.unique(labels)):
        for row in first:
            row[draw.permutation(of_class)[:(len(of_class) + draw.integers(2)) // 2]] = 1
    return np.concatenate([first, 1 - first])


def resampled(labels, values, resamples: int = 1000, seed: int = 0, parts=None) -> np.ndarray:
    """Class means of `values` (images, M) in resamples of the images within each class: (resamples, M, classes).

    parts: (P, images) of 0 and 1, P choices of images over which the means are taken: (resamples, P, M, classes). An
    image keeps its part in every resample. A class without any image there has the mean nan.
    """
    labels, values, draw = np.asarray(labels), np.asarray(values, float), np.random.default_rng(seed)
    chosen = np.ones((1, len(labels))) if parts is None else np.asarray(parts, float)
    found = np.empty((resamples, len(chosen), values.shape[1], labels.max() + 1))
    for c in range(labels.max() + 1):
        of_class = np.flatnonzero(labels == c)
        n = len(of_class)
        places = draw.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
        weights = np.bincount(places.ravel(), minlength=resamples * n).reshape(resamples, n)
        for p, part in enumerate(chosen[:, of_class]):
            inside = weights @ part
            total = weights @ (part[:, None] * values[of_class])
            found[:, p, :, c] = np.divide(total, inside[:, None], out=np.full(total.shape, np.nan),
                                          where=inside[:, None] > 0)
    return found[:, 0] if parts is None else found


def interval(found, drawn: np.ndarray, within: tuple[float, float], *, level: float = 0.95,
             wide: bool = False) -> Estimate:
    """An estimate with its bootstrap interval: found (...), drawn (resamples, ...) -> mean, low, high.

    The basic interval, as in `stats.bootstrap`. wide: at each end the wider of basic and percentile interval. Rank
    correlations of ten classes need it (ours, measured): classes of 45 images with a true value of 0.9 or 1 are
    covered in 96 %, by the basic alone in 89 and 94 %, by the percentile alone in 80 and 0 %.
    """
    found = np.asarray(found, float)
    low, high = (_quantile(drawn, q) for q in ((1 - level) / 2, (1 + level) / 2))
    bounds = [2 * found - high, 2 * found - low]
    if wide:
        bounds = [np.minimum(bounds[0], low), np.maximum(bounds[1], high)]
    low, high = (np.clip(bound, *within) for bound in bounds)
    return {"mean": found, "low": low, "high": high}


def _quantile(drawn: np.ndarray, q: float) -> np.ndarray:
    """Quantile over resamples, of those in which the statistic exists; nan where that is fewer than half."""
    missing = np.isnan(drawn)
    usable = missing.mean(0) < 0.5
    return np.where(usable, np.nanquantile(np.where(usable, drawn, 0), q, axis=0), np.nan)


def mean(values: np.ndarray, axis) -> np.ndarray:
    """Mean of what is not nan; nan where nothing is left."""
    there = ~np.isnan(values)
    n = there.sum(axis)
    return np.divide(np.where(there, values, 0).sum(axis), n, out=np.full(n.shape, np.nan), where=n > 0)


def by_class(labels, right) -> np.ndarray:
    """Accuracy of each class: labels (images,), right (..., images) of 0 and 1 -> (..., classes)."""
    each = np.eye(np.max(labels) + 1)[np.asarray(labels, int)]
    return np.asarray(right, float) @ each / each.sum(0)
