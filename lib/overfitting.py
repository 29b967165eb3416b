"""Robust overfitting, read off the looks of 12_trajectory: how sharpness went, best and last, networks to compare.

Every function takes `looks` (`lib.trajectory.Explored`) of one or more runs and returns a table.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib import stats
from lib.classwise import rank_correlation
from lib.trajectory import ALONG, BEST, LAST, TAIL

EARLY = "pgd, early stopping"  # pgd at its best checkpoint, as a network of its own


def drops(run: pd.DataFrame) -> np.ndarray:
    """The places, among the rows of one run in the order of their epochs, just before the learning rate falls tenfold.

    Both sides of the drop have to be looked at: a fall over several epochs may be a smooth one.
    """
    rate, epoch = run.lr.to_numpy(), run.epoch.to_numpy()
    return np.flatnonzero(np.isclose(rate[1:], rate[:-1] / 10) & (np.diff(epoch) == 1))


def followed(looks: pd.DataFrame) -> pd.DataFrame:
    """How S went along each training whose learning rate drops.

    A row for each method and seed. Columns: method, seed; start, drop, later, end (epochs: the first look at full
    radius, the last one before the first drop, the last one at most as long after the drop as start is before it, the
    last of all); S_start (nan without a look before drop), S_drop, S_later, S_end; rank (of S with the gap, Spearman,
    over the looks from start to end) and n, how many these are. Looks during the warm-up of the radius, which is ours,
    stay out. A training in which they see no drop is left out.
    """
    rows = []
    wide = looks[(looks.checkpoint == ALONG) & looks.sharpness.notna() & (looks.radius >= 1)]
    for (method, seed), run in wide.sort_values("epoch", kind="stable").groupby(["method", "seed"], sort=False):
        epoch, s = run.epoch.to_numpy(), run.sharpness.to_numpy()
        for drop in drops(run)[:1]:
            later = np.flatnonzero(epoch <= 2 * epoch[drop] - epoch[0])[-1]
            rows.append({"method": method, "seed": seed, "rank": rank_correlation(s, run.gap), "n": len(run)})
            for name, place in (("start", 0), ("drop", drop), ("later", later), ("end", -1)):
                rows[-1] |= {name: epoch[place], f"S_{name}": s[place] if drop or name != "start" else np.nan}
    return pd.DataFrame(rows)


def best_last(looks: pd.DataFrame) -> pd.DataFrame:
    """Best and last robust accuracy of each training, read in two ways, under the headline attack on test images.

    'theirs': best is the look of the highest accuracy on test images (so the authors choose, as they say), last the
    mean of the last `TAIL` epochs (as the numbers of their logs suggest). 'ours': best is the checkpoint that
    validation images chose, last the last epoch. A row for each method, seed and reading. Columns: method, seed,
    reading, epoch (of best), best, best_clean, last, last_clean, fall (best less last), looks (among how many best was
    chosen; 'ours': nan, among all epochs).
    """
    rows = []
    for (method, seed), run in looks.groupby(["method", "seed"], sort=False):
        along = run[run.checkpoint == ALONG]
        tail = along[along.epoch > along.epoch.max() - TAIL][["test", "test_clean"]].mean()
        best, last = (run[run.checkpoint == name].iloc[0] for name in (BEST, LAST))
        for reading, high, end, n in (("theirs", along.loc[along.test.idxmax()], tail, len(along)),
                                      ("ours", best, last, np.nan)):
            rows.append({"method": method, "seed": seed, "reading": reading, "epoch": int(high.epoch),
                         "best": high.test, "best_clean": high.test_clean, "last": end.test,
                         "last_clean": end.test_clean, "fall": high.test - end.test, "looks": n})
    return pd.DataFrame(rows)


def networks(looks: pd.DataFrame) -> pd.DataFrame:
    """The rows of `looks` that are networks to compare: each method at its last epoch, and `EARLY`.

    A column `network` in front names them: the method, or `EARLY`.
    """
    last = looks[looks.checkpoint == LAST]
    early = looks[(looks.checkpoint == BEST) & (looks.method == "pgd")]
    both = pd.concat([last.assign(network=last.method), early.assign(network=EARLY)], ignore_index=True)
    return both[["network", *both.columns.drop("network")]]


def along(looks: pd.DataFrame, sharpness: pd.DataFrame, curves: Mapping[str, np.ndarray], most: int = 9) -> dict:
    """One run as the arguments of `figures.along_training`, without `attack`; of its curves at most about `most`.

    The curves are those at full radius, the last one among them, without those just after a drop.
    """
    run = looks[looks.checkpoint == ALONG].sort_values("epoch")
    falls, warming = run.epoch.to_numpy()[drops(run)], run[run.radius < 1]
    full = set(run.epoch[run.radius >= 1]) - (set(falls + 1) - {run.epoch.iloc[-1]})
    found = {int(e): g for e, g in zip(curves["epochs"], curves["along"], strict=True) if e in full}
    chosen = list(found)[::-1][::-(-len(found) // most) or 1][::-1]
    of_train = sharpness[(sharpness.checkpoint == ALONG) & (sharpness.split == "train")].groupby("epoch").value
    return {"alphas": curves["alphas"], "curves": {epoch: found[epoch] for epoch in chosen},
            "accuracy": {"epoch": run.epoch.to_numpy(), "train": run.train.to_numpy(), "test": run.test.to_numpy(),
                         "loss": run.test_loss.to_numpy()},
            "sharpness": {"epoch": of_train.mean().index.to_numpy(), "low": of_train.min().to_numpy(),
                          "mean": of_train.mean().to_numpy(), "high": of_train.max().to_numpy()},
            "drops": falls.tolist(), "warmup": float((warming.epoch / warming.radius).max()) if len(warming) else 0.0}


def across(looks: pd.DataFrame, curves: Mapping[tuple[str, int], Mapping[str, np.ndarray]]) -> dict:
    """`networks` as the arguments of `figures.across_networks`.

    curves: (method, seed) -> the arrays of curves.npz of that run. Estimates are over seeds (Student's t).
    """
    rows, valleys, points, estimates = networks(looks), {}, {}, {}
    for name, of_network in rows.groupby("network", sort=False):
        keys = zip(of_network.method, of_network.seed, of_network.checkpoint, strict=True)
        valleys[name] = np.concatenate([curves[method, seed][checkpoint] for method, seed, checkpoint in keys])
        points[name] = of_network.sharpness.to_numpy(), of_network.gap.to_numpy()
        estimates[name] = tuple(map(stats.over_seeds, points[name]))
    return {"alphas": next(iter(curves.values()))["alphas"], "curves": valleys, "points": points,
            "estimates": estimates}
