"""Clean against worst-case accuracy, of all methods and under both protocols of attack: what `18_tradeoff` joins.

`hits` makes of the per-sample tables one row an image and run; `estimate` is the one interval behind every number.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import evaluate, stats
from lib.adaptive import ADAPTIVE, PUBLISHED, worst_case
from lib.params import DataError

EITHER = "either"  # protocol: an image counts only if right under every attack of both
LESS = f"{PUBLISHED} less {ADAPTIVE}"
RUN, IMAGE = ["method", "seed"], ["method", "seed", "index", "label"]


def nrr(clean: np.ndarray, robust: np.ndarray) -> np.ndarray:
    """NRR, the harmonic mean of two accuracies in [0, 1]; 0 where both are 0.

    The measure that DUCAT's authors rank methods by, beside the arithmetic mean: recalled, not read in their paper.
    """
    both = np.asarray(clean + robust)
    return np.divide(2 * clean * robust, both, out=np.zeros_like(both, dtype=float), where=both > 0)


# Columns of `table`: name -> a statistic of accuracies, and the columns of `hits` that these are of.
MEASURES: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...]]] = {
    "clean": (np.asarray, ("clean",)),
    "robust_same": (np.asarray, ("robust_same",)),
    "robust": (np.asarray, ("robust",)),
    "mean": (lambda clean, robust: (clean + robust) / 2, ("clean", "robust_same")),
    "nrr": (nrr, ("clean", "robust_same")),
    "published": (np.asarray, ("published",)),
    "nrr_published": (nrr, ("clean", "published")),
}


def hits(table: pd.DataFrame, more: pd.DataFrame | None = None, reported: Sequence[str] = ()) -> pd.DataFrame:
    """Whether each test image is right, at the last checkpoint: a row for each method, seed and image.

    table: of `lib.evaluate`, all methods; more: of `15_adaptive`, some methods, or None. Columns: method, seed, index,
    label, clean; robust_same, right under every attack of `table`, the same ones for every method; robust, right under
    those of `more` as well, of either protocol: an example is one whatever it was made on; published, right on the
    clean image and under the `reported` attacks as published, or all of them (1 or 0; nan where `more` has none).

    Compare methods by robust_same. More attacks can only lower an accuracy, and only some methods are in `more`. Raises
    DataError where that has other images than `table`.
    """
    rows = table[(table.checkpoint == "last") & (table.split == "test")]

    def right(part: pd.DataFrame, protocol: str | None = None) -> pd.Series:
        """Right under every attack of a table."""
        return worst_case(part, RUN, protocol).set_index(IMAGE).hit

    found = pd.DataFrame({"clean": right(rows[rows.attack == evaluate.CLEAN]), "robust_same": right(rows)})
    further = found.robust_same[:0] if more is None else right(more)
    theirs = more if more is None or not reported else more[more.attack.isin([evaluate.CLEAN, *reported])]
    published = found.clean[:0] if more is None else right(theirs, PUBLISHED)
    if not further.index.isin(found.index).all():
        raise DataError("15_adaptive and 03_attack saw other networks or images: `dvc repro tradeoff` makes both anew")
    found["robust"] = found.robust_same & further.reindex(found.index, fill_value=True)
    return found.assign(published=published.astype(float).reindex(found.index)).reset_index()


def wide(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column of a table of hits of one method as numbers: a row a seed, a column an image."""
    return rows.pivot(index="seed", columns="index", values=column).astype(float)


def estimate(statistic: Callable[..., np.ndarray], *right, within: tuple[float, float] = (0, 1),
             resamples: int = 2000) -> dict[str, float]:
    """A statistic of accuracies, as the mean over seeds: mean, low, high (95 %), n (seeds) and images.

    right: one or more arrays (seeds, images) on the same images; statistic: takes the accuracy of each, (..., seeds).
    The interval is the wider of two at each end: Student's t over seeds, which does not see that the test images are a
    sample, and the percentile bootstrap over seeds and images at once (`stats.hierarchical`), which with few seeds sees
    too little of them. For one accuracy, or a difference of two, it is that of `lib.claims`. One seed: nan.
    """
    right, draw = [np.asarray(each, float) for each in right], np.random.default_rng(0)
    found = stats.over_seeds(statistic(*(each.mean(1) for each in right)), within=within)
    patterns, counts = np.unique(np.concatenate(right), axis=1, return_counts=True)
    seeds, images = right[0].shape
    weights = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    drawn = draw.multinomial(images, counts / images, size=resamples) / images
    values = statistic(*(drawn @ rows.T for rows in np.split(patterns, len(right))))
    low, high = np.quantile((weights * values).sum(1), [0.025, 0.975])
    return {**found, "low": np.minimum(found["low"], low), "high": np.maximum(found["high"], high), "images": images}


def _bounds(name: str, found: Mapping[str, float]) -> dict[str, float]:
    return {name: found["mean"], f"{name}_low": found["low"], f"{name}_high": found["high"]}


def table(found: pd.DataFrame) -> pd.DataFrame:
    """`hits` as a row a method: method, seeds, images, each of `MEASURES` with _low and _high, dominated and by.

    clean, robust_same, robust and published: accuracies. mean and nrr: of clean and robust_same; nrr_published: of
    clean and published. by: the methods that dominate this one (`dominators`), dominated: whether there is one; both
    are empty for a single seed, which says nothing.
    """
    rows, by = [], dominators(found)
    for method, runs in found.groupby("method", sort=False):
        row = {"method": method, "seeds": runs.seed.nunique(), "images": runs["index"].nunique()}
        for name, (statistic, columns) in MEASURES.items():
            there = runs[list(columns)].notna().all(axis=None)
            row |= _bounds(name, estimate(statistic, *(wide(runs, c) for c in columns)) if there else
                           dict.fromkeys(("mean", "low", "high"), np.nan))
        verdict = {"dominated": bool(by[method]), "by": ", ".join(by[method])} if row["seeds"] > 1 else {}
        rows.append(row | {"dominated": None, "by": ""} | verdict)
    return pd.DataFrame(rows)


def points(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """`table` as the argument of `figures.trade_off_map`; `published` only for networks with dummy classes."""
    names = {"clean": "clean", "robust": "robust_same", "published": "published"}
    return {row["method"]: {shown: {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
                            for shown, name in names.items() if shown != "published" or (
                                "ducat" in row["method"].split("+") and pd.notna(row[name]))}
            for row in summary.to_dict("records")}


def dominators(found: pd.DataFrame, robust: str = "robust_same") -> dict[str, list[str]]:
    """For each method those at least as good in both clean and robust accuracy, and better in one.

    Better: the interval of the difference on the same seeds and images excludes 0. robust: the column that is meant.
    The intervals are not corrected for how many pairs of methods there are.
    """
    right = {m: [wide(runs, column) for column in ("clean", robust)]
             for m, runs in found.groupby("method", sort=False)}

    def beats(a: str, b: str) -> bool:
        """Whether a dominates b."""
        less = [x - y for x, y in zip(right[a], right[b], strict=True)]
        return all(d.to_numpy().mean() >= 0 for d in less) and any(
            estimate(np.asarray, d, within=(-1, 1))["low"] > 0 for d in less)

    return {b: [a for a in right if a != b and beats(a, b)] for b in right}


def protocols(more: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under each attack of each protocol, and in the worst case: method, protocol, attack, seeds, images,
    accuracy, low, high.

    more: of `15_adaptive`. Protocols: 'as published', 'adaptive', `EITHER` (the worst case over both), and `LESS`, the
    difference for an attack that both have and for their worst cases: what the first one hides. An attack that was
    run on some of the images only is in the worst case of these, and its own row has their number.
    """
    rows = []
    for method, runs in more.assign(hit=more.label == more.predicted).groupby("method", sort=False):
        right = {key: wide(part, "hit") for key, part in runs.groupby(["protocol", "attack"], sort=False)}
        for name, protocol in ((PUBLISHED, PUBLISHED), (ADAPTIVE, ADAPTIVE), (EITHER, None)):
            right[name, evaluate.WORST] = wide(worst_case(runs, ["seed"], protocol), "hit")
        for protocol, attack in list(right):
            if protocol == PUBLISHED and (ADAPTIVE, attack) in right:
                right[LESS, attack] = (right[PUBLISHED, attack] - right[ADAPTIVE, attack]).dropna(axis=1)
        for (protocol, attack), each in right.items():
            over = estimate(np.asarray, each, within=(-1 if protocol == LESS else 0, 1))
            rows.append({"method": method, "protocol": protocol, "attack": attack, "seeds": over["n"],
                         "images": over["images"], **_bounds("accuracy", over)})
    return pd.DataFrame(rows).rename(columns={"accuracy_low": "low", "accuracy_high": "high"})


def twins(found: pd.DataFrame) -> dict[str, dict[str, dict[str, tuple]]]:
    """`protocols` as the argument of `figures.protocol_pairs`: method -> attack -> protocol -> (accuracy, low, high).

    The attacks that both protocols have, from weak to strong by their mean over methods as adaptive ones, and last the
    worst case.
    """
    rows = found[found.protocol.isin([PUBLISHED, ADAPTIVE])]
    paired = rows.groupby(["method", "attack"]).protocol.transform("nunique") == 2
    rows = rows[paired].assign(worst=rows.attack == evaluate.WORST)
    order = rows[rows.protocol == ADAPTIVE].groupby("attack", sort=False).agg({"worst": "first", "accuracy": "mean"})
    order = order.sort_values(["worst", "accuracy"], ascending=[True, False], kind="stable").index
    result: dict = {}
    for method, of_method in rows.groupby("method", sort=False):
        keyed = of_method.set_index(["attack", "protocol"])[["accuracy", "low", "high"]]
        result[method] = {a: {p: tuple(keyed.loc[a, p]) for p in (PUBLISHED, ADAPTIVE)}
                          for a in order if a in set(of_method.attack)}
    return result


def sweeps(table: pd.DataFrame) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """sweeps.csv of `15_adaptive`, all seeds, as the argument of `figures.protocol_sweeps`.

    method -> sweep -> protocol -> (K, 4): value, accuracy, low, high, in the order of the values.
    """
    result: dict = {}
    hit = table.assign(hit=table.label == table.predicted)
    for (method, sweep, protocol), runs in hit.groupby(["method", "sweep", "protocol"], sort=False):
        found = [(value, estimate(np.asarray, wide(rows, "hit"))) for value, rows in runs.groupby("value")]
        result.setdefault(method, {}).setdefault(sweep, {})[protocol] = np.array(
            [[value, over["mean"], over["low"], over["high"]] for value, over in found])
    return result


def fork_hits(forks: pd.DataFrame) -> pd.DataFrame:
    """The forks of `16_forks` on test images: method, seed, index, label, fork, radius, clean, robust.

    robust: right under every attack of either protocol. radius: of the training attack, in units of eps, as its column
    says; where none has radius 1, the fork 'continued' has it, which is PGD training with outputs that are no label.
    """
    rows = forks[forks.split == "test"]
    keys = ["fork", *RUN]
    clean, robust = (worst_case(part, keys).set_index([*keys, "index", "label"]).hit
                     for part in (rows[rows.attack == evaluate.CLEAN], rows))
    found = pd.DataFrame({"clean": clean, "robust": robust}).reset_index()
    radius = rows.groupby("fork").radius.first().dropna()
    return found.assign(radius=found.fork.map(radius if 1 in radius.to_numpy() else {**radius, "continued": 1.0}))


def _by_radius(forks: pd.DataFrame, measured: Callable[[str, pd.DataFrame], dict]) -> pd.DataFrame:
    """A row for each method and radius: clean and robust of `measured`, which takes a column's name and the fork."""
    rows = []
    for (method, radius, fork), runs in forks[forks.radius.notna()].groupby(["method", "radius", "fork"]):
        each = {name: measured(name, runs) for name in ("clean", "robust")}
        rows.append({"method": method, "fork": fork, "radius": radius, "seeds": each["clean"]["n"],
                     "images": each["clean"]["images"], **_bounds("clean", each["clean"]),
                     **_bounds("robust", each["robust"])})
    return pd.DataFrame(rows)


def radii(forks: pd.DataFrame) -> pd.DataFrame:
    """The ordinary trade-off, PGD training along its radius, of `fork_hits`: method, fork, radius, seeds, images, clean
    and robust with _low and _high, from the smallest radius up.
    """
    return _by_radius(forks, lambda name, runs: estimate(np.asarray, wide(runs, name)))


def less_radii(forks: pd.DataFrame, fork: str = "ducat") -> pd.DataFrame:
    """A fork less the one of each training radius, on the same seeds and images: columns as `radii`, in [-1, 1].

    A radius with both differences at or below 0 is at least as good as the fork in both.
    """
    def less(name: str, runs: pd.DataFrame) -> dict:
        """The difference in one column."""
        other = forks[(forks.fork == fork) & (forks.method == runs.method.iloc[0])]
        return estimate(np.asarray, wide(other, name) - wide(runs, name), within=(-1, 1))

    return _by_radius(forks[forks.method.isin(forks[forks.fork == fork].method)], less)
