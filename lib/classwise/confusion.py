"""What the images of a class are taken for: matrices (classes, classes), rows the true class, columns the predicted."""

from collections.abc import Callable, Sequence

import numpy as np

from lib.classwise.agreement import rank_correlation
from lib.classwise.resample import Estimate, interval, resampled


def confound(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each class the other class that most of its images are taken for, and the share of its images that are.

    matrix: rows that sum to 1, see `evaluate.confusion`. Returns (classes,) twice; a class that loses no image has -1.
    """
    others = np.where(np.eye(len(matrix), dtype=bool), -1.0, matrix)
    share = others.max(1).clip(min=0)
    return np.where(share > 0, others.argmax(1), -1), share


def over_images(statistic: Callable[[np.ndarray], dict[str, np.ndarray]], labels, counts: np.ndarray, *,
                resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """A statistic of the confusion matrix with its interval over images.

    labels (images,), counts (images, classes): see `said`. statistic: matrices of counts (..., classes, classes) -> a
    dictionary of numbers (...) in [-1, 1], such as `symmetry`.
    """
    size = np.bincount(labels)[:, None]
    matrix = np.stack([counts[labels == c].sum(0) for c in range(len(size))])
    drawn = statistic(size * np.swapaxes(resampled(labels, counts, resamples, seed), -1, -2))
    return {name: interval(value, drawn[name], (-1, 1), wide=True) for name, value in statistic(matrix).items()}


def within_groups(counts: np.ndarray, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Do wrong predictions stay in the group of the class? Counts (..., classes, classes), a group for each class.

    within: share of the wrong predictions that name a class of the same group. uniform: that share if each fell on the
    other classes alike. independent: that share if each class lost as many images and each attracted as many as it
    does, but not knowing of one another (quasi-independence, Goodman 1968, fitted by iterative scaling). Where the
    weak classes are one group, they both lose and attract most, which alone keeps many errors inside: this reference
    takes that out, which a permutation of the groups' names would not. excess: within less independent. All nan
    without a wrong prediction.
    """
    groups, off = np.asarray(groups), _off_diagonal(counts)
    classes = len(groups)
    same = (groups[:, None] == groups) & ~np.eye(classes, dtype=bool)
    total = off.sum((-1, -2))
    rows, columns = _quasi_independent(off.sum(-1), off.sum(-2))
    independent = np.einsum("...i,ij,...j->...", rows, same.astype(float), columns)
    shares = {"within": (off * same).sum((-1, -2)), "independent": independent,
              "uniform": off.sum(-1) @ same.sum(1) / (classes - 1)}
    found = {name: np.divide(value, total, out=np.full(total.shape, np.nan), where=total > 0)
             for name, value in shares.items()}
    return {**found, "excess": found["within"] - found["independent"]}


def _off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix * (1 - np.eye(matrix.shape[-1]))


def _quasi_independent(lost: np.ndarray, drawn: np.ndarray, rounds: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """r and c (..., classes) such that the r_i c_j, i != j, have these sums over rows (lost) and columns (drawn)."""
    def others(values):
        """For each class the sum over the other classes."""
        return np.maximum(values.sum(-1, keepdims=True) - values, 0)

    def scaled(sums, against):
        """Sums over what they are to be divided by; 0 where there is nothing."""
        return np.divide(sums, against, out=np.zeros(sums.shape), where=(against > 0) & (sums > 0))

    columns = np.asarray(drawn, float)
    for _ in range(rounds):
        rows = scaled(lost, others(columns))
        columns = scaled(drawn, others(rows))
        if np.allclose(rows * others(columns), lost, rtol=1e-6, atol=1e-6):
            break
    return rows, columns


def symmetry(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Is class i taken for j as often as j for i? Matrices (..., classes, classes) of counts or of shares of each row.

    asymmetry: |M - M'| / |M + M'| of the off-diagonal part (Frobenius), 0 where symmetric and 1 where all errors go one
    way. unrelated: what it would be if the same entries lay anywhere off the diagonal. correlation: Spearman's of
    M_ij with M_ji over all i != j, each pair both ways round, so that the order of the classes does not matter.
    """
    size = matrix.sum(-1, keepdims=True)
    shares = np.divide(matrix, size, out=np.zeros(matrix.shape), where=size > 0).round(12)  # so that ties stay ties
    classes = matrix.shape[-1]
    i, j = np.nonzero(~np.eye(classes, dtype=bool))
    one, other = shares[..., i, j], shares[..., j, i]
    n, mean, variance = len(i), one.mean(-1), one.var(-1)
    apart, together = 2 * variance * n / (n - 1), 4 * mean**2 + 2 * variance * (n - 2) / (n - 1)
    return {"asymmetry": _root_ratio(((one - other) ** 2).sum(-1), ((one + other) ** 2).sum(-1)),
            "unrelated": _root_ratio(apart, together), "correlation": rank_correlation(one, other)}


def _root_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0))
