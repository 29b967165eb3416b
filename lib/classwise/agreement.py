"""Who agrees on the weak classes: rank correlations of class accuracies, with what noise leaves to be seen."""

import numpy as np
from scipy.stats import rankdata

from lib.classwise.resample import Estimate, by_class, halves, interval, mean, resampled


def rank_correlation(a, b) -> np.ndarray:
    """Spearman's correlation over the last axis: (..., classes) twice -> (...), in [-1, 1]; ties share their mean rank.

    A class that is nan in a or b is left out. nan where a or b does not vary. A statistic for `stats.bootstrap`.
    """
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    gone = np.isnan(a) | np.isnan(b)
    a, b = (_scores(np.where(gone, np.nan, v)) for v in (a, b))
    found = np.sum(np.nan_to_num(a) * np.nan_to_num(b), axis=-1)
    return np.where(np.isnan(a).all(-1) | np.isnan(b).all(-1), np.nan, np.clip(found, -1, 1))[()]


def _scores(values: np.ndarray) -> np.ndarray:
    """Ranks over the last axis, of mean 0 and length 1; nan where the value is, and all nan where they are alike."""
    ranks = rankdata(values, axis=-1, nan_policy="omit")
    ranks = ranks - mean(ranks, -1)[..., None]
    length = np.sqrt(np.nansum(ranks**2, -1, keepdims=True))
    return np.divide(ranks, length, out=np.full(ranks.shape, np.nan), where=length > 1e-9)


def consistency(labels, right, *, splits: int = 5, resamples: int = 500, seed: int = 0) -> dict[str, Estimate]:
    """Do K conditions (attacks, or methods) rank the classes alike? labels (images,), right (K, seeds, images).

    Estimates of (K, K), Spearman's correlation of the class accuracies under two conditions, mean over seeds:
    other: of networks of different seeds, over all such pairs. Its diagonal is the noise ceiling, one condition trained
    twice: two conditions that agree show no more than that with these images.
    same: of networks of one seed. Two attacks have a network in common there, and may agree better than the ceiling.
    apart: as `other`, but on different halves of the images, mean over `splits` of them. The same images are hard for
    any network, so that `other` would lie above 0 even if all classes were equally robust; `apart` would not. It has
    half the images, and its own ceiling.
    With one seed, `other` is nan and `apart` is of its one network.
    """
    right = np.asarray(right, float)
    flat = right.reshape(-1, right.shape[-1])
    parts = np.concatenate([np.ones((1, len(labels))), halves(labels, splits, seed)])
    data = np.stack([by_class(labels[part > 0], flat[:, part > 0]) for part in parts])[None]
    scores = _scores(np.concatenate([data, resampled(labels, flat.T, resamples, seed, parts)]))
    whole, first, second = scores[:, 0], scores[:, 1:splits + 1], scores[:, splits + 1:]
    found = dict(zip(("same", "other"), _blocks(whole @ np.swapaxes(whole, -1, -2), *right.shape[:2]), strict=True))
    each = _blocks(first @ np.swapaxes(second, -1, -2), *right.shape[:2])[right.shape[1] > 1].mean(1)
    found["apart"] = (each + np.swapaxes(each, -1, -2)) / 2
    return {name: interval(value[0], value[1:], (-1, 1), wide=True) for name, value in found.items()}


def _blocks(matrix: np.ndarray, conditions: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """(..., K * seeds, K * seeds) -> mean over equal seeds and over different ones, each (..., K, K)."""
    matrix = np.moveaxis(matrix.reshape(*matrix.shape[:-2], conditions, seeds, conditions, seeds), -2, -3)
    own = np.eye(seeds, dtype=bool)
    return mean(matrix[..., own], -1), mean(matrix[..., ~own], -1)
