"""Robust overfitting, read off the looks of 12_trajectory: how sharpness went, best and last, networks to compare.

Every function takes `looks` (`lib.trajectory.Explored`) of one or more runs and returns a table.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lib.trajectory import ALONG, BEST, LAST, TAIL

EARLY = "pgd, early stopping"  # pgd at its best checkpoint, as a network of its own


def followed(looks: pd.DataFrame) -> pd.DataFrame:
    """How S went along each training whose learning rate drops.

    A row for each method and seed. Columns: method, seed; start, drop, later, end (epochs: the first look at full
    radius, the last one before the first drop, the last one at most as long after the drop as start is before it, the
    last of all); S_start, S_drop, S_later, S_end; rank (of S with the gap, Spearman, over the looks from start to end)
    and n, how many these are. Looks during the warm-up of the radius, which is ours, stay out. A training in which they
    see no drop, or nothing before it, is left out.
    """
    rows = []
    wide = looks[(looks.checkpoint == ALONG) & looks.sharpness.notna() & (looks.radius >= 1)]
    for (method, seed), run in wide.sort_values("epoch").groupby(["method", "seed"], sort=False):
        epoch, rate, s = (run[name].to_numpy() for name in ("epoch", "lr", "sharpness"))
        falls = np.flatnonzero(np.isclose(rate[1:], rate[:-1] / 10) & (np.diff(epoch) == 1))
        if not len(falls) or not falls[0]:
            continue
        drop = falls[0]
        later = np.flatnonzero(epoch <= 2 * epoch[drop] - epoch[0])[-1]
        rows.append({"method": method, "seed": seed, "rank": spearmanr(s, run.gap).statistic, "n": len(run)})
        for name, place in (("start", 0), ("drop", drop), ("later", later), ("end", -1)):
            rows[-1] |= {name: epoch[place], f"S_{name}": s[place]}
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
