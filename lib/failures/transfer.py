"""Transfer: what examples made on one network do to another, and whether that tells of masked gradients."""

import numpy as np
import pandas as pd

from lib import stats
from lib.failures.networks import ADAPTIVE, PLAIN, PUBLISHED, TRUNK, Predictions, label

WHITE_BOX, SAME_SEED, OTHER_SEED = "white box", "same seed", "another seed"


def pairing(found: Predictions, source: int, target: int) -> str | None:
    """How a source and a target belong together; None for those of another method and seed, which no table compares.

    WHITE_BOX: made on the network itself. SAME_SEED: on one of the same seed, a network's own trunk too. OTHER_SEED:
    on the same method, trained with another seed.
    """
    same = found.source_seed[source] == found.target_seed[target]
    if found.source_method[source] != found.target_method[target] or found.source_kind[source] == TRUNK:
        return SAME_SEED if same else None
    return WHITE_BOX if same else OTHER_SEED


def pairs(found: Predictions) -> pd.DataFrame:
    """Accuracy of targets on the examples of sources, a row for each pair of networks that are compared and each split.

    Columns: method and seed of the target; source, source_seed and kind; pairing; split, n, accuracy, low, high
    (Wilson, 95 %); and white_box, the target's accuracy under its own white box, as published where it has dummy
    classes.
    """
    rows, right = [], found.right
    for s, t in np.ndindex(right.shape[:2]):
        if how := pairing(found, s, t):
            known = {"method": found.target_method[t], "seed": found.target_seed[t], "source": found.source_method[s],
                     "source_seed": found.source_seed[s], "kind": found.source_kind[s], "pairing": how}
            rows += [{**known, "split": split, "n": (found.split == split).sum(),
                      "accuracy": right[s, t, found.split == split].mean()} for split in ("test", "train")]
    rows = pd.DataFrame(rows)
    low, high = stats.wilson(rows.accuracy * rows.n, rows.n)
    own = rows[(rows.pairing == WHITE_BOX) & (rows.kind != ADAPTIVE)].set_index(["method", "seed", "split"]).accuracy
    places = pd.MultiIndex.from_frame(rows[["method", "seed", "split"]])
    return rows.assign(low=low, high=high, white_box=own.loc[places].to_numpy())


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The transfer table: `pairs` averaged over seeds, with Student's t interval over the seeds of the target.

    Of targets only the seeds count that every method has, so that all means are over the same seeds.
    Columns: method (of the target), source, kind, pairing, split, seeds, n (images), accuracy, low, high; and stronger,
    with how many seeds the accuracy is below the target's white box (see `pairs`). Of OTHER_SEED a target's value is
    the mean over the other seeds.
    """
    keys = ["method", "source", "kind", "pairing", "split"]
    common = set.intersection(*(set(seeds) for _, seeds in rows.groupby("method").seed))
    by_seed = rows[rows.seed.isin(common)].groupby([*keys, "seed"], sort=False)
    each = by_seed[["n", "accuracy", "white_box"]].mean().reset_index()
    result = []
    for key, group in each.groupby(keys, sort=False):
        mean = stats.over_seeds(group.accuracy, within=(0, 1))
        result.append({**dict(zip(keys, key, strict=True)), "seeds": mean["n"], "n": int(group.n.iloc[0]),
                       "accuracy": mean["mean"], "low": mean["low"], "high": mean["high"],
                       "stronger": int((group.accuracy < group.white_box).sum())})
    return pd.DataFrame(result)


def masking(found: Predictions, split: str = "test", level: float = 0.95) -> pd.DataFrame:
    """Is any transferred attack stronger than the white box? A row for each network and each kind of white box of it.

    An attack with gradients ought to be weakest for examples that were made on another network; where those are
    stronger, the gradients lead nowhere (Athalye et al. 2018). Of all sources that `pairing` allows the strongest is
    shown. Columns: method, seed, kind (of the white box), n, white_box; source, source_seed, source_kind, transferred;
    sources (how many there are), every (accuracy where an image has to be right on the examples of all of them); gain,
    low, high: white_box less transferred, above 0 where the transfer is stronger, with a paired interval at `level` for
    all sources together (Bonferroni); and stronger, whether it lies above 0.
    """
    images, rows = found.split == split, []
    right = found.right[:, :, images]
    for t in range(right.shape[1]):
        how = np.array([pairing(found, s, t) or "" for s in range(len(right))])
        others = np.flatnonzero((how == SAME_SEED) | (how == OTHER_SEED))
        for s in np.flatnonzero(how == WHITE_BOX) if len(others) else ():
            best = others[right[others, t].mean(1).argmin()]
            gain = stats.paired(right[s, t], right[best, t], level=1 - (1 - level) / len(others))
            rows.append({"method": found.target_method[t], "seed": found.target_seed[t], "kind": found.source_kind[s],
                         "n": gain["n"], "white_box": right[s, t].mean(), "source": found.source_method[best],
                         "source_seed": found.source_seed[best], "source_kind": found.source_kind[best],
                         "transferred": right[best, t].mean(), "sources": len(others),
                         "every": right[others, t].all(0).mean(), "gain": gain["mean"], "low": gain["low"],
                         "high": gain["high"], "stronger": gain["low"] > 0})
    return pd.DataFrame(rows)


def grid(table: pd.DataFrame, split: str = "test") -> dict:
    """The transfer table as a matrix: arguments of `lib.figures.transfer_table`, from the rows of `means`.

    Sources by their kind, in the order in which they come, and last the same method trained with another seed, of a
    classifier with dummy classes adaptive.
    """
    rows = table[(table.split == split) & ((table.pairing != OTHER_SEED) | (table.kind != PUBLISHED))]
    other = rows.pairing == OTHER_SEED
    rows = rows.assign(kind=rows.kind.where(~other, OTHER_SEED), source=rows.source.where(~other, "same method"))
    kinds = [k for k in (PLAIN, PUBLISHED, ADAPTIVE, TRUNK, OTHER_SEED) if (rows.kind == k).any()]
    sources = [(k, s) for k in kinds for s in rows.source[rows.kind == k].unique()]
    targets = rows.method.unique()

    def filled(column: str, default) -> np.ndarray:
        """One column as a matrix."""
        values = rows.pivot(index=["kind", "source"], columns="method", values=column)
        return values.reindex(index=sources, columns=targets).fillna(default).to_numpy()

    starts = [0, *np.flatnonzero([a[0] != b[0] for a, b in zip(sources[1:], sources, strict=False)]) + 1]
    below = filled("stronger", 0) == filled("seeds", np.inf)
    framed = filled("pairing", "") == WHITE_BOX
    return {"sources": [label(s, k) for k, s in sources], "targets": targets.tolist(),
            "accuracy": filled("accuracy", np.nan), "framed": framed, "stronger": below & ~framed, "lines": starts[1:]}
