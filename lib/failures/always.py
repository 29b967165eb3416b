"""Images on which every network fails: is that the methods' fault, or are the images hard?

Wang et al. (2024, arXiv 2410.12671) report in their abstract that what adversarial training fails on overlaps by up to
40 % between methods. Of what images this is a share could not be read, so several are given here. *Always failing*: the
attack on each network of a set, made on that network, succeeds on the image. Their methods are one set. The controls
are ours: as many networks of one method that differ in their seed alone; what failures would share if they were
independent; images that are wrong without an attack; and the clean margin of one further network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from lib import stats
from lib.failures.networks import PLAIN, Predictions
from lib.failures.transfer import WHITE_BOX, pairing

METHODS, SEEDS = "methods", "seeds"                 # what differs within a set of networks
EVERY, CLEAN_RIGHT = "all", "clean-correct by all"  # the images that are counted
EACH = "each method"
ALL = "all"                                         # in column `class`
SHARES = ("all_fail", "all_work", "mixed")


@dataclass(frozen=True)
class NetworkSet:
    """Networks (method, seed) that differ in METHODS, with one seed, or in SEEDS, with one method."""

    setting: str
    members: tuple[tuple[str, int], ...]

    @property
    def keys(self) -> dict:
        """The first columns of every table: method and seed, lists with commas, setting and size."""
        method, seed = (", ".join(map(str, dict.fromkeys(each))) for each in zip(*self.members, strict=True))
        return {"method": method, "seed": seed, "setting": self.setting, "size": len(self.members)}

    @property
    def seeds(self) -> set[int]:
        """The seeds of its networks."""
        return {seed for _, seed in self.members}


def sets(found: Predictions, methods: Sequence[str]) -> list[NetworkSet]:
    """All sets of up to as many networks as there are methods: of several methods and one seed, or of one method."""
    seeds = {m: sorted(found.target_seed[found.target_method == m].tolist()) for m in methods}
    common, result = sorted(set.intersection(*map(set, seeds.values()))), []
    for size in range(1, len(methods) + 1):
        across = [(chosen, s) for chosen in combinations(methods, size) for s in common if size > 1]
        result += [NetworkSet(METHODS, tuple((m, s) for m in chosen)) for chosen, s in across]
        result += [NetworkSet(SEEDS, tuple((m, s) for s in chosen)) for m in methods
                   for chosen in combinations(seeds[m], size)]
    return result


def largest(groups: Sequence[NetworkSet]) -> list[NetworkSet]:
    """The largest sets across methods, and the largest ones of each method."""
    def family(group: NetworkSet) -> tuple:
        """The sets that it is one of."""
        return group.setting, group.members[0][0] if group.setting == SEEDS else ""

    top = {}
    for group in groups:
        top[family(group)] = max(top.get(family(group), 2), len(group.members))
    return [group for group in groups if len(group.members) == top[family(group)]]


def failed(found: Predictions, members: Sequence[tuple[str, int]]) -> np.ndarray:
    """Where the attack on a network succeeds on that network, (members, N)."""
    return np.stack([found.predicted[found.source(*m), found.target(*m)] != found.label for m in members])


def failing(found: Predictions, groups: Sequence[NetworkSet]) -> pd.DataFrame:
    """How many images always fail, always work, or neither: rows by set, split, population and class.

    Columns: those of `NetworkSet.keys`; split; population, EVERY image or CLEAN_RIGHT, which every network of all these
    sets has right without attack; class (the largest sets, one by one) or ALL; n; the SHARES, each with _low and _high
    (Wilson, 95 %). Then what the share of always-failing images is to be read against: independent, the product of the
    networks' shares of failures; in_class, the same product within each class; least, the smallest of those shares,
    which it cannot pass; and clean_wrong, the share that no network has right even without attack. one_for_all: one
    network's example fools all of them, mean over the networks that it is made on.
    """
    right = (found.clean == found.label)[sorted({found.target(*m) for g in groups for m in g.members})].all(0)
    biggest, rows = largest(groups), []
    for group in groups:
        values = _by_image(found, group)
        for split in ("test", "train"):
            for population, inside in ((EVERY, found.split == split), (CLEAN_RIGHT, right & (found.split == split))):
                keys = {**group.keys, "split": split, "population": population}
                parts = {ALL: inside}
                if group in biggest:
                    parts |= {str(c): inside & (found.label == c) for c in np.unique(found.label)}
                rows += [{**keys, "class": c, **_shares(values, found.label, part)} for c, part in parts.items()
                         if part.any()]
    rows = pd.DataFrame(rows)
    for name in SHARES:
        rows[f"{name}_low"], rows[f"{name}_high"] = stats.wilson(rows[name] * rows.n, rows.n)
    return rows


def _by_image(found: Predictions, group: NetworkSet) -> dict[str, np.ndarray]:
    """What `failing` averages, (N,) each, and the failures themselves (members, N)."""
    fails, targets = failed(found, group.members), [found.target(*m) for m in group.members]
    fooled = found.predicted[np.ix_([found.source(*m) for m in group.members], targets)] != found.label
    return {"all_fail": fails.all(0), "all_work": ~fails.any(0), "mixed": fails.any(0) & ~fails.all(0),
            "clean_wrong": (found.clean[targets] != found.label).all(0), "one_for_all": fooled.all(1).mean(0),
            "fails": fails}


def _shares(values: dict[str, np.ndarray], label: np.ndarray, part: np.ndarray) -> dict[str, float]:
    """The columns of `failing` that are shares of the images of one part (N,)."""
    rates = values["fails"][:, part].mean(1)
    within = [(values["fails"][:, part & (label == c)].mean(1).prod(), (label[part] == c).mean())
              for c in np.unique(label[part])]
    return {"n": int(part.sum()), **{name: values[name][part].mean() for name in SHARES},
            "independent": rates.prod(), "in_class": sum(product * share for product, share in within),
            "least": rates.min(), **{name: values[name][part].mean() for name in ("clean_wrong", "one_for_all")}}


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """`failing`, averaged over sets of one kind: of the same methods, or of the same method and size.

    Columns as there, without seed; sets, how many, and all_fail_least and all_fail_most, the extremes of single sets.
    The intervals are Wilson's of the mean share among n images: they tell of images, not of training noise.
    """
    keys = ["method", "setting", "size", "split", "population", "class"]
    shares = [*SHARES, "independent", "in_class", "least", "clean_wrong", "one_for_all"]
    groups = rows.groupby(keys, sort=False)
    result = groups[["n", *shares]].mean().assign(sets=groups.size(), all_fail_least=groups.all_fail.min(),
                                                  all_fail_most=groups.all_fail.max()).reset_index()
    for name in SHARES:
        result[f"{name}_low"], result[f"{name}_high"] = stats.wilson(result[name] * result.n, result.n)
    return result


def compare(found: Predictions, groups: Sequence[NetworkSet], split: str = "test") -> pd.DataFrame:
    """Always-failing images of sets across methods, less those of equally large sets of one method.

    Rows by size and control: a method, or EACH, the mean over all methods, so that the networks on both sides are
    equally robust. Columns: size, control, across and within (sets on each side), n; methods and seeds, the mean
    shares; mean, low, high, their difference with its 95 % interval over images and seeds; single, see `difference`.
    """
    images, rows = found.split == split, []
    every = {group: failed(found, group.members)[:, images].all(0) for group in groups}
    methods = list(dict.fromkeys(g.members[0][0] for g in groups if g.setting == SEEDS))
    for size in range(2, len(methods) + 1):
        across, *each = ([g for g in groups if len(g.members) == size and g.setting == setting
                          and (setting == METHODS or g.members[0][0] == method)]
                         for setting, method in ((METHODS, ""), *((SEEDS, m) for m in methods)))
        controls = {m: [within] for m, within in zip(methods, each, strict=True) if within}
        if len(controls) == len(methods):
            controls[EACH] = each
        rows += [{"size": size, "control": name, "across": len(across), "within": sum(map(len, parts)),
                  **difference(every, across, parts)} for name, parts in controls.items() if across]
    return pd.DataFrame(rows)


def difference(every: dict[NetworkSet, np.ndarray], across: list[NetworkSet], within: list[list[NetworkSet]]) -> dict:
    """Mean share over the sets `across` less that over the lists of sets `within`, each list counting the same.

    every: who always fails, (N,) for each set. Images and seeds both vary: the variance is that of the mean over
    images, plus the jackknife's over seeds, each of which is left out of all sets; Student's t with degrees of freedom
    after Satterthwaite (1946). single: in how many of these lists all sets share a seed. They stay whole without it, so
    that their noise of training is not in the interval.
    """
    lists = [across, *within]

    def of_images(without: int | None) -> np.ndarray:
        """The difference at each image, (N,)."""
        first, *rest = (np.mean([every[g] for g in [g for g in part if without not in g.seeds] or part], axis=0)
                        for part in lists)
        return first - np.mean(rest, axis=0)

    each, n = of_images(None), len(next(iter(every.values())))
    seeds = sorted(set().union(*(g.seeds for part in lists for g in part)))
    left = np.array([of_images(seed).mean() for seed in seeds])
    variances = each.var(ddof=1) / n, (len(seeds) - 1) * left.var()
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / (n - 1) + variances[1] ** 2 / max(1, len(seeds) - 1) + 1e-300)
    half = scipy_stats.t.ppf(0.975, max(1, freedom)) * np.sqrt(sum(variances))
    share = np.mean([every[g].mean() for g in across])
    single = sum(bool(set.intersection(*(g.seeds for g in part))) for part in lists)
    return {"n": n, "methods": share, "seeds": share - each.mean(), "mean": each.mean(), "low": each.mean() - half,
            "high": each.mean() + half, "single": single}


def predictability(found: Predictions, groups: Sequence[NetworkSet], split: str = "test") -> pd.DataFrame:
    """Does one further network tell, without any attack, which images always fail? For each of the `largest` sets.

    Each network outside of a set ranks the images by its margin on the image itself. Columns: those of
    `NetworkSet.keys`; predictor, predictor_seed; n, failing (images); auc, low, high, see `auc`.
    """
    images, rows = found.split == split, []
    kinds = found.source_method[found.source_kind == PLAIN]
    for group in largest(groups):
        fails = failed(found, group.members)[:, images].all(0)
        for t, who in enumerate(zip(found.target_method.tolist(), found.target_seed.tolist(), strict=True)):
            if who not in group.members and who[0] in kinds:
                rows.append({**group.keys, "predictor": who[0], "predictor_seed": who[1], "n": images.sum(),
                             "failing": fails.sum(), **auc(found.margin[t, images], fails)})
    return pd.DataFrame(rows)


def auc(scores: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve of scores (N,), and DeLong's interval (DeLong et al. 1988): auc, low, high.

    It is the share of pairs, one positive and one not, in which the positive one scores higher, ties counting half. nan
    with fewer than two of either.
    """
    sizes = positive.sum(), (~positive).sum()
    if min(sizes) < 2:
        return dict.fromkeys(("auc", "low", "high"), np.nan)
    ranks = scipy_stats.rankdata(scores)
    above, below = ((ranks[part] - scipy_stats.rankdata(scores[part])) / other
                    for part, other in ((positive, sizes[1]), (~positive, sizes[0])))
    half = scipy_stats.norm.ppf(0.975) * np.sqrt(above.var(ddof=1) / sizes[0] + below.var(ddof=1) / sizes[1])
    area = above.mean()
    return {"auc": area, "low": max(0.0, area - half), "high": min(1.0, area + half)}


def rescued(found: Predictions, groups: Sequence[NetworkSet], split: str = "test") -> pd.DataFrame:
    """How many of the images that a set of METHODS always fails on are right in another network, attacked itself?

    For each of the `largest` sets, each network outside of it and each white box of that network. Columns: method,
    seed, kind (PLAIN, as published or adaptive); set_method, set_seed; n, the always-failing images; right, the share
    of them, low, high (Wilson, 95 %). Networks of the set's own methods are the control.
    """
    images, rows, right = found.split == split, [], found.right
    for group in largest(groups):
        always = failed(found, group.members).all(0) & images
        for s, t in np.ndindex(right.shape[:2]):
            who = (str(found.target_method[t]), int(found.target_seed[t]))
            if group.setting == METHODS and pairing(found, s, t) == WHITE_BOX and who not in group.members:
                n, hits = always.sum(), right[s, t, always].sum()
                low, high = stats.wilson(hits, n) if n else (np.nan, np.nan)
                rows.append({"method": who[0], "seed": who[1], "kind": found.source_kind[s],
                             "set_method": group.keys["method"], "set_seed": group.keys["seed"], "n": n,
                             "right": hits / n if n else np.nan, "low": low, "high": high})
    return pd.DataFrame(rows)
