"""The trade-off: one row an image, one interval, who dominates whom, and what a protocol hides."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from lib import adaptive, stats, tradeoff
from lib.adaptive import ADAPTIVE, PUBLISHED
from lib.claims import rules
from lib.params import DataError

RANDOM = np.random.default_rng(0)
IMAGES = 60


def table(method, seed, **right):
    """Of `lib.evaluate`: for each attack the images that are right, of label 1; and the best checkpoint, all wrong."""
    parts = [pd.DataFrame({"method": method, "seed": seed, "checkpoint": checkpoint, "split": split, "attack": attack,
                           "index": range(len(hits)), "label": 1, "predicted": np.asarray(hits, int) * good})
             for attack, hits in right.items() for checkpoint, split, good in (("last", "test", 1), ("best", "test", 0),
                                                                              ("last", "train", 0))]
    return pd.concat(parts, ignore_index=True)


def more(method, seed, **right):
    """Of 15_adaptive: `p_<attack>` is as published, `a_<attack>` adaptive."""
    names = {"p": PUBLISHED, "a": ADAPTIVE}
    parts = [pd.DataFrame({"method": method, "seed": seed, "protocol": names[key[0]], "tier": "T1", "attack": key[2:],
                           "index": range(len(hits)), "label": 1, "predicted": np.asarray(hits, int), "raw": 0})
             for key, hits in right.items()]
    return pd.concat(parts, ignore_index=True)


def test_nrr_is_the_harmonic_mean():
    values = tradeoff.nrr(np.array([0.8881, 0.5, 0.0, 0.9]), np.array([0.5861, 0.5, 0.0, 0.0]))
    assert values == pytest.approx([0.70617, 0.5, 0, 0], abs=1e-5)
    assert float(tradeoff.nrr(0.8, 0.4)) == pytest.approx(2 / (1 / 0.8 + 1 / 0.4))


class TestEstimate:
    def test_of_an_accuracy_is_the_wider_of_the_two_intervals(self):
        hits = RANDOM.random((3, IMAGES)) < np.array([[0.5], [0.6], [0.55]])
        found, both = tradeoff.estimate(np.asarray, hits), stats.hierarchical(hits)
        over = stats.over_seeds(hits.mean(1), within=(0, 1))
        assert found["low"] == min(both["low"], over["low"]) and found["high"] == max(both["high"], over["high"])
        assert found["mean"] == pytest.approx(hits.mean()) and (found["n"], found["images"]) == (3, IMAGES)

    def test_of_a_difference_is_that_of_the_claims(self):
        a, b = (RANDOM.random((3, IMAGES)) < p for p in (0.5, 0.6))
        rows = [pd.DataFrame([{"seed": s, "split": "test", "index": i, "hit": hits[s, i]} for s in range(3)
                              for i in range(IMAGES)]) for hits in (a, b)]
        found, claim = tradeoff.estimate(np.asarray, a * 1.0 - b, within=(-1, 1)), rules.difference(*rows)
        assert {key: found[key] for key in claim} == pytest.approx(claim)

    def test_of_nrr_resamples_seeds_and_images_together(self):
        hard = RANDOM.random(200) + RANDOM.normal(scale=0.05, size=(5, 200))  # the same images for every seed
        clean, robust = hard < 0.8, hard < 0.4
        draw, values = np.random.default_rng(1), []
        for _ in range(2000):  # by copying images
            seeds, images = draw.integers(0, 5, 5), draw.integers(0, 200, 200)
            values.append(np.mean([tradeoff.nrr(clean[s, images].mean(), robust[s, images].mean()) for s in seeds]))
        found = tradeoff.estimate(tradeoff.nrr, clean, robust)
        each = stats.over_seeds(tradeoff.nrr(clean.mean(1), robust.mean(1)))
        low, high = np.quantile(values, [0.025, 0.975])
        assert low < each["low"] - 0.02 and high > each["high"] + 0.02  # so the bootstrap decides here
        assert [found["low"], found["high"]] == pytest.approx([low, high], abs=0.008)
        assert found["mean"] == pytest.approx(each["mean"])

    def test_one_seed_has_no_interval(self):
        found = tradeoff.estimate(np.asarray, np.ones((1, 5)))
        assert found["mean"] == 1 and np.isnan([found["low"], found["high"]]).all()


class TestHits:
    def test_worst_cases(self):
        first = table("pgd+ducat", 0, clean=[1, 1, 1, 0], pgd=[1, 1, 1, 0], square=[1, 1, 0, 1])
        second = table("pgd", 0, clean=[1, 1, 1, 1], pgd=[1, 0, 1, 1])
        further = more("pgd+ducat", 0, a_clean=[1, 1, 1, 0], p_pgd=[1, 1, 1, 1], p_n1=[1, 1, 0, 1], a_pgd=[1, 0, 1, 1])
        found = tradeoff.hits(pd.concat([first, second]), further).set_index(["method", "index"])
        of = found.loc["pgd+ducat"]
        assert of.clean.tolist() == [1, 1, 1, 0] and of.robust_same.tolist() == [1, 1, 0, 0]
        assert of.robust.tolist() == [1, 0, 0, 0]  # what `further` fools counts
        assert of.published.tolist() == [1, 1, 0, 0]  # a clean error is one under any protocol
        plain = found.loc["pgd"]
        assert plain.robust.tolist() == plain.robust_same.tolist() == [1, 0, 1, 1] and plain.published.isna().all()

    def test_without_the_study(self):
        found = tradeoff.hits(table("pgd", 0, clean=[1, 1], pgd=[1, 0]))
        assert found.robust.tolist() == found.robust_same.tolist() == [True, False] and found.published.isna().all()


    def test_other_images_are_an_error(self):
        with pytest.raises(DataError, match="dvc repro"):
            tradeoff.hits(table("pgd", 0, clean=[1, 1], pgd=[1, 0]), more("pgd", 0, a_clean=[1, 1, 1]))


def runs(**methods):
    """Tables of three seeds: method -> share of clean and of robust images, and shifts of a seed are small."""
    parts = []
    for method, (clean, robust) in methods.items():
        for seed in range(3):
            order = np.arange(400)
            parts.append(table(method, seed, clean=order < 400 * clean + seed, pgd=order < 400 * robust + seed))
    return pd.concat(parts)


class TestTable:
    def test_numbers(self):
        found = tradeoff.table(tradeoff.hits(runs(pgd=(0.9, 0.5)))).iloc[0]
        seeds = np.array([[0.9, 0.5]]) + np.arange(3)[:, None] / 400
        assert found["mean"] == pytest.approx(seeds.mean())
        assert found.nrr == pytest.approx(np.mean([2 / (1 / a + 1 / b) for a, b in seeds]))
        assert (found.seeds, found.images) == (3, 400) and np.isnan(found.published)
        over = stats.over_seeds(seeds[:, 0])
        assert found.clean_low <= over["low"] and found.clean_high >= over["high"]

    def test_dominated(self):
        summary = tradeoff.table(tradeoff.hits(runs(a=(0.9, 0.5), b=(0.8, 0.5), c=(0.95, 0.3), d=(0.9, 0.5))))
        summary = summary.set_index("method")
        assert summary.by.to_dict() == {"a": "", "b": "a, d", "c": "", "d": ""}
        assert summary.dominated.tolist() == [False, True, False, False]

    def test_a_difference_within_its_interval_is_none(self):
        noisy = pd.concat([table(m, s, clean=np.ones(40), pgd=np.arange(40) < 20 + (3 * s - 2) * (m == "a"))
                           for m in "ab" for s in range(3)])
        assert tradeoff.dominators(tradeoff.hits(noisy)) == {"a": [], "b": []}

    def test_a_single_seed_has_no_verdict(self):
        one = runs(a=(0.9, 0.5), b=(0.8, 0.4)).query("seed == 0")
        summary = tradeoff.table(tradeoff.hits(one))
        assert summary.dominated.isna().all() and (summary.by == "").all()

    def test_points_have_a_published_one_only_with_dummies(self):
        further = pd.concat([more(m, s, a_clean=np.ones(400), p_pgd=np.ones(400), a_pgd=np.ones(400))
                             for m in ("pgd", "pgd+ducat") for s in range(3)])
        rows = runs(**{"pgd": (0.9, 0.5), "pgd+ducat": (0.9, 0.4)})
        found = tradeoff.points(tradeoff.table(tradeoff.hits(rows, further)))
        assert set(found["pgd"]) == {"clean", "robust"} and found["pgd+ducat"]["published"]["mean"] == 1
        assert found["pgd+ducat"]["robust"]["mean"] == pytest.approx(0.4 + 1 / 400)


class TestProtocols:
    @staticmethod
    def found():
        return tradeoff.protocols(pd.concat([
            more("pgd+ducat", s, a_clean=[1, 1, 1, 1], p_pgd=[1, 1, 1, 0], a_pgd=[1, 1, 0, 1], p_tier=[1, 1, 1, 1],
                 a_tier=[1, 0, 0, 0], a_rays=[0, 1]) for s in range(2)])).set_index(["protocol", "attack"])

    def test_accuracies(self):
        found = self.found()
        assert found.accuracy[PUBLISHED].to_dict() == {"pgd": 0.75, "tier": 1, "worst case": 0.75}
        assert found.accuracy[ADAPTIVE].to_dict() == {"clean": 1, "pgd": 0.75, "tier": 0.25, "rays": 0.5,
                                                      "worst case": 0}
        assert found.accuracy[tradeoff.EITHER].to_dict() == {"worst case": 0}
        assert found.accuracy[tradeoff.LESS].to_dict() == {"pgd": 0, "tier": 0.75, "worst case": 0.75}
        assert found.images[ADAPTIVE, "rays"] == 2 and found.images[tradeoff.EITHER, "worst case"] == 4
        assert (found.seeds == 2).all() and not found[["low", "high"]].isna().any(axis=None)

    def test_twins_stand_from_weak_to_strong_and_the_worst_case_last(self):
        pairs = tradeoff.twins(self.found().reset_index())
        assert list(pairs) == ["pgd+ducat"] and list(pairs["pgd+ducat"]) == ["pgd", "tier", "worst case"]
        assert pairs["pgd+ducat"]["tier"][ADAPTIVE][0] == 0.25 and pairs["pgd+ducat"]["tier"][PUBLISHED][0] == 1

    def test_a_classifier_without_dummies_hides_nothing(self, cfg, digits, model):
        attacked = partial(adaptive.attacked, cfg, model, {"test": digits.test.first(40)}, torch.device("cpu"))
        rows = pd.concat([attacked().assign(method="pgd", seed=s) for s in range(2)])
        found = tradeoff.protocols(rows).set_index(["protocol", "attack"])
        less = found.loc[tradeoff.LESS].drop(index="worst case")
        assert len(less) == 2 and (less[["accuracy", "low", "high"]] == 0).all(axis=None)

    def test_sweeps(self):
        rows = pd.concat([pd.DataFrame({"method": "pgd", "seed": s, "protocol": p, "sweep": "steps", "value": v,
                                        "index": range(4), "label": 1, "predicted": np.arange(4) < 4 - v / 10})
                          for s in range(2) for p in (PUBLISHED, ADAPTIVE) for v in (20, 5, 10)])
        found = tradeoff.sweeps(rows)["pgd"]["steps"][ADAPTIVE]
        assert found[:, 0].tolist() == [5, 10, 20] and found[:, 1].tolist() == [1, 0.75, 0.5]


class TestForks:
    @staticmethod
    def forks(names):
        parts = []
        for fork, (radius, clean, robust) in names.items():
            for seed in range(2):
                for split in ("test", "validation"):
                    rows = more("pgd", seed, a_clean=np.arange(100) < clean * (split == "test"),
                                a_tier=np.arange(100) < robust + seed, p_tier=np.ones(100))
                    parts.append(rows.assign(fork=fork, radius=radius, split=split))
        return tradeoff.fork_hits(pd.concat(parts))

    def test_the_line_goes_along_the_radius(self):
        found = tradeoff.radii(self.forks({"continued": (np.nan, 90, 50), "ducat": (np.nan, 95, 20),
                                           "radius 1": (1, 91, 52), "radius 0.5": (0.5, 97, 30)}))
        assert found.radius.tolist() == [0.5, 1] and found.fork.tolist() == ["radius 0.5", "radius 1"]
        assert found.clean.tolist() == [0.97, 0.91] and found.robust.tolist() == pytest.approx([0.305, 0.525])

    def test_continued_stands_in_for_radius_one(self):
        found = tradeoff.radii(self.forks({"continued": (np.nan, 90, 50), "radius 0.5": (0.5, 97, 30)}))
        assert found.fork.tolist() == ["radius 0.5", "continued"] and found.radius.tolist() == [0.5, 1]

    def test_ducat_less_each_radius(self):
        forks = self.forks({"ducat": (np.nan, 95, 20), "radius 1": (1, 91, 52), "radius 0.5": (0.5, 97, 30)})
        found = tradeoff.less_radii(forks).set_index("radius")
        assert found.clean.to_dict() == pytest.approx({0.5: -0.02, 1: 0.04})
        assert found.robust.to_dict() == pytest.approx({0.5: -0.1, 1: -0.32})
        assert tradeoff.less_radii(forks[forks.fork != "ducat"]).empty
