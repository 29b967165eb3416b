"""Intervals and tests against known values, other libraries, and simulations in which the truth is known."""

import time

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lib import stats

# Ten classes as unequal as those of an adversarially trained network, 1,000 images each.
TRUTH = np.array([0.62, 0.75, 0.32, 0.22, 0.35, 0.42, 0.55, 0.58, 0.68, 0.65])


def images(counts, n):
    """Hits and labels (images,) of classes with so many hits among n images each."""
    hits = np.concatenate([np.arange(n) < k for k in counts]).astype(int)
    return hits, np.repeat(np.arange(len(counts)), n)


def worst(accuracy):
    return accuracy.min(-1)


def test_wilson_known_values():
    """Wilson 1927; values as in the tables of Newcombe 1998 (81 of 263, 15 of 148, 0 of 20, 1 of 29)."""
    low, high = stats.wilson(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    assert low.round(4).tolist() == [0.2553, 0.0624, 0.0, 0.0061]
    assert high.round(4).tolist() == [0.3662, 0.1605, 0.1611, 0.1718]


def test_interval_over_seeds():
    found = stats.over_seeds([0.70, 0.72, 0.71])
    assert found["mean"] == pytest.approx(0.71) and found["n"] == 3
    assert found["high"] - found["mean"] == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-4)
    assert np.isnan(stats.over_seeds([0.7])["low"])
    assert stats.over_seeds([0.98, 1.0, 0.9], within=(0, 1))["high"] == 1


class TestHierarchical:
    def test_one_seed_is_the_bootstrap_of_a_mean(self):
        hits = np.random.default_rng(0).random(400) < 0.7
        found = stats.hierarchical(hits, resamples=20_000)
        other = scipy_stats.bootstrap((hits,), np.mean, method="percentile", n_resamples=20_000, rng=1,
                                      batch=1000).confidence_interval
        assert (found["low"], found["high"]) == pytest.approx((other.low, other.high), abs=0.004)
        assert found["n"] == 1 and found["mean"] == hits.mean()

    def test_order_of_seeds_and_images_is_free(self):
        hits = np.random.default_rng(0).random((3, 200)) < [[0.5], [0.6], [0.7]]
        shuffled = hits[:, np.random.default_rng(1).permutation(200)]
        assert stats.hierarchical(hits) == stats.hierarchical(shuffled)
        assert stats.hierarchical(hits, seed=1) != stats.hierarchical(hits)

    def test_images_are_resampled_once_for_all_seeds(self):
        """Seeds that agree on every image are one seed; seeds that err on different images are worth more images."""
        one = np.random.default_rng(0).random(300) < 0.5
        same = stats.hierarchical(np.tile(one, (4, 1)))
        apart = stats.hierarchical(np.random.default_rng(0).permuted(np.tile(one, (4, 1)), axis=1))
        width = {k: v["high"] - v["low"] for k, v in (("same", same), ("apart", apart),
                                                      ("one", stats.hierarchical(one)))}
        assert width["same"] == pytest.approx(width["one"], rel=0.1)
        assert width["apart"] < 0.7 * width["same"]

    def test_noise_of_seeds_widens_it(self):
        hits = np.arange(500) < np.array([[200], [250], [300]])
        found = stats.hierarchical(hits)
        low, high = stats.wilson(hits.mean() * 500, 500)
        assert found["high"] - found["low"] > 1.3 * (high - low)


class TestBootstrap:
    def test_of_the_mean_agrees_with_the_binomial(self):
        """Within-class resampling of one class: the standard error is that of the binomial."""
        hits, labels = images([300], 1000)
        found = stats.bootstrap(lambda a: a[..., 0], labels, hits, resamples=20_000)
        half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
        assert (found["low"], found["mean"], found["high"]) == pytest.approx((0.3 - half, 0.3, 0.3 + half), abs=2e-3)
        assert found["n"] == 1000

    def test_two_classifiers_stay_paired(self):
        """The difference of two classifiers that agree on most images: as scipy, which copies pairs of images."""
        source = np.random.default_rng(0)
        a = source.random(500) < 0.6
        b = np.where(source.random(500) < 0.1, ~a, a)
        found = stats.bootstrap(lambda a, b: (a - b)[..., 0], np.zeros(500, int), a, b, resamples=20_000)
        other = scipy_stats.bootstrap((a, b), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True,
                                      vectorized=True, method="basic", rng=1, batch=1000).confidence_interval
        assert (found["low"], found["high"]) == pytest.approx((other.low, other.high), abs=0.004)
        same = stats.bootstrap(lambda a, b: worst(a) - worst(b), np.zeros(500, int), a, a)
        assert same["low"] == same["high"] == 0

    def test_it_covers_the_truth_where_classes_differ(self):
        source, covered = np.random.default_rng(0), []
        for seed in range(150):
            hits, labels = images(source.binomial(1000, TRUTH), 1000)
            found = stats.bootstrap(worst, labels, hits, resamples=500, seed=seed)
            covered.append(found["low"] <= TRUTH.min() <= found["high"])
        assert 0.89 <= np.mean(covered) <= 0.99

    def test_it_does_not_double_the_shift_of_an_extreme(self):
        """Ten equal classes: the observed worst lies below the truth, and the interval reaches up, not down."""
        hits, labels = images(np.random.default_rng(0).binomial(1000, np.full(10, 0.5)), 1000)
        found = stats.bootstrap(worst, labels, hits)
        assert found["mean"] < 0.5 and found["high"] - found["mean"] > found["mean"] - found["low"]

    def test_seed_and_range(self):
        hits, labels = images([10, 9, 10], 10)
        one, again = (stats.bootstrap(worst, labels, hits, within=(0, 1)) for _ in range(2))
        assert one == again and one["high"] == 1
        hits, labels = images([10, 30, 50], 100)
        one, two = (stats.bootstrap(lambda a: a.std(-1), labels, hits, seed=s) for s in (0, 1))
        assert one["low"] != two["low"] and one["mean"] == two["mean"]
        with pytest.raises(ValueError, match="no image of class 1"):
            stats.bootstrap(worst, [0, 2], [1, 1])

    def test_it_is_fast(self):
        hits, labels = images((1000 * TRUTH).astype(int), 1000)
        began = time.perf_counter()
        stats.bootstrap(worst, labels, hits, resamples=2000)
        assert time.perf_counter() - began < 0.5


class TestClasses:
    def test_statistics_by_hand(self):
        hits, labels = images([20, 90, 50, 40], 100)
        shuffle = np.random.default_rng(0).permutation(400)
        found = stats.class_statistics(hits[shuffle], labels[shuffle], 4, bottom=2)
        assert found["classes"]["accuracy"].tolist() == [0.2, 0.9, 0.5, 0.4]
        assert found["classes"]["low"].tolist() == stats.wilson(np.array([20, 90, 50, 40]), 100)[0].tolist()
        means = {name: value["mean"] for name, value in found.items() if name != "classes"}
        assert means == pytest.approx({"worst": 0.2, "best": 0.9, "spread": 0.7, "bottom": 0.3, "variance": 0.065,
                                       "sd": np.sqrt(0.065), "cv": np.sqrt(0.065) / 0.5})
        assert all(0 <= v["low"] <= v["mean"] <= v["high"] <= 1 for k, v in found.items() if k != "classes")

    def test_cv_is_scipys_and_may_exceed_1(self):
        accuracy = np.random.default_rng(0).random((3, 5, 10))
        found = stats.over_classes()["cv"](accuracy)
        assert found == pytest.approx(scipy_stats.variation(accuracy, axis=-1))
        hits, labels = images([90, 1, 1, 1, 1], 100)
        cv = stats.class_statistics(hits, labels, 5)["cv"]
        assert 1 < cv["low"] <= cv["mean"] <= cv["high"]

    def test_cv_of_nothing_is_nan(self):
        found = stats.class_statistics(np.zeros(20), np.repeat([0, 1], 10), 2)
        assert np.isnan(found["cv"]["mean"]) and np.isnan(found["cv"]["low"]) and found["variance"]["mean"] == 0

    def test_names_of_classes_are_free(self):
        hits, labels = images([20, 90, 50, 40], 100)
        found, renamed = (stats.class_statistics(hits, x, 4) for x in (labels, 3 - labels))
        assert found["spread"]["mean"] == renamed["spread"]["mean"]
        assert found["classes"]["accuracy"].tolist() == renamed["classes"]["accuracy"].tolist()[::-1]

    def test_a_class_without_images_is_refused(self):
        with pytest.raises(ValueError, match="no image of class 2"):
            stats.class_statistics([1, 0], [0, 1], 3)

    def test_null_of_ten_equal_classes(self):
        found = stats.null_of_classes(np.full(10, 1000), 0.5)
        assert {k: round(100 * found["worst"][k], 1) for k in ("mean", "low", "high")} == {
            "mean": 47.6, "low": 45.6, "high": 49.2}
        assert found["spread"]["mean"] == pytest.approx(0.049, abs=5e-4) and found["worst"]["n"] == 10_000

    def test_null_against_its_exact_distribution(self):
        """P(min > k) is the product of binomial tails."""
        n = np.array([30, 45, 60])
        found = stats.null_of_classes(n, 0.7, worst=0.6, draws=100_000)["worst"]["p"]
        below = 1 - np.prod(scipy_stats.binom.sf(np.floor(0.6 * n + 1e-9), n, 0.7))
        assert found == pytest.approx(below, abs=0.005)

    def test_p_values_are_uniform_at_most_under_the_null(self):
        source, n = np.random.default_rng(0), np.full(10, 100)
        p = []
        for seed in range(200):
            accuracy = source.binomial(n, 0.6) / n
            found = stats.null_of_classes(n, accuracy.mean(), worst=accuracy.min(), spread=np.ptp(accuracy),
                                          draws=500, seed=seed)
            p.append([found["worst"]["p"], found["spread"]["p"]])
        rejected = (np.array(p) < 0.05).mean(0)
        assert (rejected < 0.1).all() and (np.array(p) < 0.5).mean() > 0.3

    def test_a_weak_class_is_found_and_a_missing_observation_has_no_p(self):
        found = stats.null_of_classes(np.full(10, 45), 0.7, worst=0.2)
        assert found["worst"]["p"] < 1e-3 and "p" not in found["spread"]


class TestPaired:
    def test_known_interval(self):
        """Agresti and Min's formula, written out for 94 images right in a alone, 45 in b alone, of 300."""
        a = np.repeat([1, 0, 1, 0], [94, 45, 100, 61])
        b = np.repeat([0, 1, 1, 0], [94, 45, 100, 61])
        found = stats.paired(a, b)
        half = 1.959964 * np.sqrt((94.5 + 45.5) - 49**2 / 302) / 302
        assert (found["low"], found["high"]) == pytest.approx((49 / 302 - half, 49 / 302 + half), abs=1e-6)
        assert found["mean"] == pytest.approx(49 / 300)
        assert (found["n"], found["a_only"], found["b_only"]) == (300, 94, 45)
        assert found["p"] == pytest.approx(scipy_stats.binomtest(45, 139).pvalue)

    def test_swapping_flips_the_sign(self):
        a, b = np.random.default_rng(0).random((2, 200)) < [[0.7], [0.5]]
        one, other = stats.paired(a, b), stats.paired(b, a)
        assert one["mean"] == -other["mean"] and one["low"] == pytest.approx(-other["high"]) and one["p"] == other["p"]

    def test_no_discordant_image(self):
        found = stats.paired(np.ones(50), np.ones(50))
        assert found["p"] == 1 and found["low"] < 0 == found["mean"] < found["high"] < 0.06

    def test_coverage(self):
        source, covered = np.random.default_rng(0), []
        for _ in range(400):
            a_only, b_only, _ = source.multinomial(200, [0.12, 0.06, 0.82])
            a, b = (np.repeat(v, [a_only, b_only, 200 - a_only - b_only]) for v in ([1, 0, 1], [0, 1, 1]))
            found = stats.paired(a, b)
            covered.append(found["low"] <= 0.06 <= found["high"])
        assert 0.92 <= np.mean(covered) <= 0.98


def test_holm_by_hand():
    """Smallest times 4, next times 3, ...; never below the one before; in the order given."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]).max() <= 1
