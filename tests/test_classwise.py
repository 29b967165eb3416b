"""Class-wise numbers against brute force, other libraries, and draws in which the truth is known."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lib import classwise, stats
from lib.sources.superclasses import ANIMALS_AND_VEHICLES

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
GROUPS = [next(g for g, members in ANIMALS_AND_VEHICLES.items() if c in members) for c in CIFAR10]
UNEQUAL = np.array([0.93, 0.55, 0.7, 0.5, 0.75, 0.65, 0.85, 0.72, 0.25, 0.45])


@pytest.fixture(autouse=True)
def no_warning():
    """A warning would be printed in an executed notebook."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def networks(accuracy, each=45, seeds=3, seed=0, shared=0.7):
    """Labels, and who is right (seeds, images) for accuracies (classes,): the same images are hard for most networks.

    Returns a function of other accuracies for the same networks, such as those under a stronger attack.
    """
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(accuracy)), each)
    common = draw.random(len(labels))
    hardness = np.where(draw.random((seeds, len(labels))) < shared, common, draw.random((seeds, len(labels))))
    return labels, lambda a: hardness < np.asarray(a)[labels]


def counts(matrix, each, seed=0):
    """Labels, and what one network says of `each` images a class, by shares (C, C): (images, C)."""
    draw = np.random.default_rng(seed)
    said = np.concatenate([draw.multinomial(1, row / row.sum(), size=each) for row in matrix])
    return np.repeat(np.arange(len(matrix)), each), said


class TestTable:
    @pytest.fixture
    def rows(self):
        """Two seeds, four images, in no order."""
        every = pd.DataFrame({"seed": np.repeat([1, 0], 4), "index": [0, 1, 2, 3] * 2, "label": [0, 1, 1, 2] * 2,
                              "predicted": [0, 2, 1, 2, 1, 2, 1, 0]})
        return every.sample(frac=1, random_state=0)

    def test_hits(self, rows):
        labels, right = classwise.hits(rows)
        assert labels.tolist() == [0, 1, 1, 2]
        assert right.tolist() == [[False, False, True, False], [True, False, True, True]]

    def test_said(self, rows):
        labels, said = classwise.said(rows, 3)
        assert labels.tolist() == [0, 1, 1, 2]
        assert said.tolist() == [[1, 1, 0], [0, 0, 2], [0, 2, 0], [1, 0, 1]]

    def test_by_class(self, rows):
        found = classwise.by_class(*classwise.hits(rows))
        assert found.tolist() == [[0, 0.5, 0], [1, 0.5, 1]]


class TestResampled:
    def test_it_is_the_binomial(self):
        labels, at = networks([0.3, 0.8], each=400)
        right = at([0.3, 0.8])
        drawn = classwise.resampled(labels, right.T, resamples=4000)
        truth = classwise.by_class(labels, right)
        assert drawn.mean(0) == pytest.approx(truth, abs=0.003)
        assert drawn.std(0) == pytest.approx(np.sqrt(truth * (1 - truth) / 400), rel=0.06)

    def test_columns_see_the_same_images(self):
        labels = np.array([0, 0, 0, 1, 1])
        one = np.array([1, 0, 0, 1, 0])
        drawn = classwise.resampled(labels, np.stack([one, one, 1 - one], 1), 50)
        assert (drawn[:, 0] == drawn[:, 1]).all() and drawn[:, 0] == pytest.approx(1 - drawn[:, 2])

    def test_parts_share_no_image(self):
        labels = np.repeat([0, 1], 10)
        parts = classwise.halves(labels, 4)
        assert parts.shape == (8, 20) and (parts[:4] + parts[4:] == 1).all() and (parts[:, :10].sum(1) == 5).all()
        drawn = classwise.resampled(labels, parts[[0]].T, 2000, parts=parts[[0, 4]])
        assert np.nanmin(drawn[:, 0]) == pytest.approx(1) and np.nanmax(drawn[:, 1]) == 0
        assert 0 < np.isnan(drawn).mean() < 0.003  # half a class of ten is missed with a probability of 1 in 1,024

    def test_a_single_image_has_no_halves(self):
        with pytest.raises(ValueError, match="one image of class 1: halves need two"):
            classwise.halves([0, 0, 1], 2)

    def test_interval_by_hand(self):
        drawn = np.arange(101)[:, None] / 100
        basic, wide = (classwise.interval([0.6], drawn, (0, 1), level=0.9, wide=w) for w in (False, True))
        assert (basic["low"][0], basic["high"][0]) == pytest.approx((0.25, 1))
        assert (wide["low"][0], wide["high"][0]) == pytest.approx((0.05, 1))
        assert np.isnan(classwise.interval(0.5, np.full(9, np.nan), (0, 1))["low"])


class TestClasses:
    def test_discrepancy_of_one_seed_is_that_of_class_statistics(self):
        labels, at = networks(UNEQUAL, seeds=1)
        right = at(UNEQUAL)
        found = classwise.discrepancy(labels, right, resamples=4000)
        other = stats.class_statistics(right[0], labels, 10, resamples=4000)
        for name in ("worst", "best", "spread", "sd", "variance", "cv", "bottom"):
            assert found[name]["mean"] == pytest.approx(other[name]["mean"])
            assert (found[name]["low"], found[name]["high"]) == pytest.approx(
                (other[name]["low"], other[name]["high"]), abs=0.02), name

    def test_discrepancy_is_a_mean_over_seeds(self):
        labels, at = networks(UNEQUAL)
        found, each = classwise.discrepancy(labels, at(UNEQUAL)), classwise.by_class(labels, at(UNEQUAL))
        assert found["cv"]["seeds"] == pytest.approx(each.std(1) / each.mean(1))
        assert found["worst"]["mean"] == pytest.approx(each.min(1).mean())

    def test_three_seeds_on_the_same_images_are_not_three_times_the_images(self):
        labels, at = networks(UNEQUAL, seeds=1)
        one, three = (classwise.discrepancy(labels, np.repeat(at(UNEQUAL), k, axis=0))["sd"] for k in (1, 3))
        assert three["high"] - three["low"] == pytest.approx(one["high"] - one["low"])

    def test_nothing_survives(self):
        found = classwise.discrepancy(np.repeat([0, 1], 20), np.zeros((2, 40)))
        assert found["spread"]["mean"] == found["spread"]["high"] == 0 and np.isnan(found["cv"]["mean"])

    def test_last_epochs(self):
        labels = np.array([0, 0, 1, 1, 2, 2])
        epochs = [[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 2, 0], [0, 0, 1, 0, 2, 0]]
        accuracy, often = classwise.last_epochs(labels, np.array([epochs]), 2)
        assert accuracy.tolist() == [[[1, 1, 0.5], [1, 0.5, 0.5]]]
        assert often.tolist() == [0, 0.25, 0.75]

    def test_correlation_is_scipys(self):
        x, y = np.random.default_rng(0).normal(size=(2, 12))
        found, other = classwise.correlation(x, x + y), scipy_stats.pearsonr(x, x + y)
        assert (found["pearson"], found["pearson_low"], found["pearson_high"], found["n"]) == pytest.approx(
            (other.statistic, *other.confidence_interval(), 12))
        assert found["spearman"] == pytest.approx(scipy_stats.spearmanr(x, x + y).statistic)
        assert found["spearman_low"] < found["spearman"] < found["spearman_high"]
        assert np.isnan(classwise.correlation(x, np.ones(12))["pearson"])


class TestConfusion:
    def test_confound(self):
        matrix = np.array([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0], [0.6, 0.4, 0.0]])
        other, share = classwise.confound(matrix)
        assert other.tolist() == [2, -1, 0] and share.tolist() == [0.3, 0, 0.6]

    def test_within_by_hand(self):
        found = classwise.within_groups(np.array([[5, 3, 1], [2, 7, 0], [2, 2, 1]]), ["a", "a", "b"])
        assert found["within"] == pytest.approx(5 / 10)
        assert found["uniform"] == pytest.approx((4 / 2 + 2 / 2) / 10)

    def test_weak_classes_in_one_group_are_no_similarity(self):
        """Errors that know nothing of one another: much stays in a group that is weak, and none of it is excess."""
        animal = np.array([g == "animals" for g in GROUPS])
        lost, drawn = np.where(animal, 0.6, 0.1), np.where(animal, 4, 1)
        matrix = 1000 * lost[:, None] * drawn * ~np.eye(10, dtype=bool)
        found = classwise.within_groups(matrix, GROUPS)
        assert found["within"] > found["uniform"] + 0.2 and found["excess"] == pytest.approx(0, abs=1e-5)

    def test_the_independent_reference_keeps_the_margins(self):
        """Against iterative scaling of the whole matrix, written out."""
        table = np.random.default_rng(0).integers(1, 50, (10, 10)) * (1 - np.eye(10))
        fit = 1 - np.eye(10)
        for _ in range(500):
            fit *= (table.sum(1) / fit.sum(1))[:, None]
            fit *= table.sum(0) / fit.sum(0)
        same = np.array(GROUPS)[:, None] == GROUPS
        assert classwise.within_groups(table, GROUPS)["independent"] == pytest.approx(
            fit[same].sum() / table.sum(), abs=1e-5)

    def test_similar_classes_are_found_with_an_interval(self):
        """A set like CIFAR-10, three of four errors inside the group: the interval holds the truth."""
        same = (np.array(GROUPS)[:, None] == GROUPS) & ~np.eye(10, dtype=bool)
        matrix = 0.6 * np.eye(10) + 0.4 * (0.75 * same / same.sum(1)[:, None]
                                           + 0.25 * (1 - same - np.eye(10)) / (9 - same.sum(1))[:, None])
        labels, said = counts(matrix, 200)
        found = classwise.over_images(lambda c: classwise.within_groups(c, GROUPS), labels, said)
        assert found["within"]["low"] < 0.75 < found["within"]["high"] and found["excess"]["low"] > 0.15
        truth = classwise.within_groups(1000 * matrix, GROUPS)
        assert found["excess"]["low"] < truth["excess"] < found["excess"]["high"]

    def test_a_network_without_an_error(self):
        assert np.isnan(classwise.within_groups(5 * np.eye(3), ["a", "a", "b"])["within"])
        assert np.isnan(classwise.symmetry(np.eye(3))["asymmetry"])

    def test_symmetry_of_extremes(self):
        both = np.random.default_rng(0).random((6, 6))
        both = (both + both.T) * (1 - np.eye(6))
        found = classwise.symmetry(both + np.diag(20 - both.sum(1)))
        assert found["correlation"] == pytest.approx(1) and found["asymmetry"] == pytest.approx(0)
        assert classwise.symmetry(np.triu(np.ones((4, 4))))["asymmetry"] == pytest.approx(1)

    def test_symmetry_knows_no_order_of_classes(self):
        matrix, order = np.random.default_rng(0).random((6, 6)), np.random.default_rng(1).permutation(6)
        one, other = classwise.symmetry(matrix), classwise.symmetry(matrix[np.ix_(order, order)])
        assert list(one.values()) == pytest.approx(list(other.values()))

    def test_unrelated_is_what_shuffling_gives(self):
        draw = np.random.default_rng(0)
        matrix = draw.random((7, 7)) ** 3
        matrix[np.diag_indices(7)] = 10 - matrix.sum(1) + np.diag(matrix)
        off, apart, together = ~np.eye(7, dtype=bool), [], []
        for _ in range(2000):
            shuffled = np.zeros((7, 7))
            shuffled[off] = draw.permutation(matrix[off])
            apart.append(((shuffled - shuffled.T) ** 2).sum())
            together.append(((shuffled + shuffled.T) ** 2).sum())
        assert classwise.symmetry(matrix)["unrelated"] == pytest.approx(
            np.sqrt(np.mean(apart) / np.mean(together)), rel=0.01)


class TestRankCorrelation:
    def test_it_is_scipys_with_ties(self):
        a, b = np.random.default_rng(0).integers(0, 6, (2, 5, 4, 10))
        found = classwise.rank_correlation(a, b)
        for place in np.ndindex(5, 4):
            assert found[place] == pytest.approx(scipy_stats.spearmanr(a[place], b[place]).statistic)

    def test_a_missing_class_is_left_out_and_a_constant_has_none(self):
        a, b = np.array([3.0, np.nan, 1, 2, 9]), np.array([1.0, 5, 2, 2, 7])
        assert classwise.rank_correlation(a, b) == pytest.approx(scipy_stats.spearmanr(a[[0, 2, 3, 4]],
                                                                                       b[[0, 2, 3, 4]]).statistic)
        assert np.isnan(classwise.rank_correlation(a, np.ones(5)))

    def test_it_is_a_statistic_of_the_bootstrap(self):
        labels, at = networks(UNEQUAL, seeds=2)
        found = stats.bootstrap(classwise.rank_correlation, labels, *at(UNEQUAL))
        assert found["mean"] > 0.8 and found["low"] < found["mean"] <= found["high"]


class TestConsistency:
    def test_it_is_a_mean_of_correlations(self):
        labels, at = networks(UNEQUAL)
        right = np.array([at(UNEQUAL), at(UNEQUAL**2), at(1 - UNEQUAL)])
        found, a = classwise.consistency(labels, right, resamples=50), classwise.by_class(labels, right)
        same = np.mean([scipy_stats.spearmanr(a[0, s], a[1, s]).statistic for s in range(3)])
        pairs = [(s, t) for s in range(3) for t in range(3) if s != t]
        other = np.mean([scipy_stats.spearmanr(a[0, s], a[2, t]).statistic for s, t in pairs])
        ceiling = np.mean([scipy_stats.spearmanr(a[1, s], a[1, t]).statistic for s, t in ((0, 1), (0, 2), (1, 2))])
        assert found["same"]["mean"][0, 1] == pytest.approx(same)
        assert found["other"]["mean"][[0, 2], [2, 0]] == pytest.approx([other, other])
        assert found["other"]["mean"][1, 1] == pytest.approx(ceiling)
        assert (found["other"]["low"] <= found["other"]["mean"]).all()

    def test_images_that_all_share_make_equal_classes_agree_unless_apart(self):
        equal, found = np.full(10, 0.6), []
        for seed in range(40):
            labels, at = networks(equal, seed=seed)
            each = classwise.consistency(labels, at(equal)[None], resamples=2)
            found.append([each[k]["mean"][0, 0] for k in ("other", "apart")])
        other, apart = np.mean(found, 0)
        assert other > 0.3 and abs(apart) < 0.1

    def test_one_seed_has_no_ceiling(self):
        labels, at = networks(UNEQUAL, seeds=1)
        found = classwise.consistency(labels, np.array([at(UNEQUAL), at(UNEQUAL**2)]), resamples=20)
        assert np.isnan(found["other"]["mean"]).all() and found["same"]["mean"][0, 0] == pytest.approx(1)
        assert 0 < found["apart"]["mean"][0, 1] < 1

    def test_intervals_hold_the_truth(self):
        """The order of the classes is the same under both conditions: a correlation of 1 without noise."""
        held = []
        for seed in range(40):
            labels, at = networks(UNEQUAL, seeds=1, seed=seed)
            other = networks(UNEQUAL, seeds=1, seed=seed + 1000)[1]
            found = classwise.consistency(labels, np.array([at(UNEQUAL), other(UNEQUAL)]), resamples=200)["same"]
            held.append(found["low"][0, 1] <= 1 <= found["high"][0, 1] + 1e-9)
        assert np.mean(held) >= 0.85


class TestGain:
    def test_drops_by_hand(self):
        weak, strong = np.array([0.2, 0.4, 0.6, 0.8]), np.array([0.0, 0.3, 0.6, 0.8])
        found = classwise.drops(weak, weak, strong)
        assert found["correlation"] == pytest.approx(scipy_stats.spearmanr(weak, weak - strong).statistic)
        assert (found["bottom"], found["total"]) == pytest.approx((0.3, 0.3))
        assert (found["relative bottom"], found["relative total"]) == pytest.approx((1.25, 1.25))

    def test_a_class_on_the_boundary_counts_in_part(self):
        drop = np.array([0.1, 0.2, 0.4])
        found = classwise.drops(np.array([0.5, 0.6, 0.7]), np.full(3, 0.9), 0.9 - drop)
        assert found["bottom"] == pytest.approx(0.1 + 0.2 / 2)
        tied = classwise.drops(np.array([0.5, 0.5, 0.5]), np.full(3, 0.9), 0.9 - drop)
        assert tied["bottom"] == pytest.approx(0.7 / 2) and np.isnan(tied["correlation"])

    def test_a_class_with_nothing_to_lose_is_left_out_of_the_relative_drop(self):
        weak, strong = np.array([0.0, 0.4, 0.6, 0.8]), np.array([0.0, 0.2, 0.5, 0.8])
        found = classwise.drops(weak, weak, strong)
        assert found["relative correlation"] == pytest.approx(-1) and found["relative total"] == pytest.approx(2 / 3)

    def test_noise_alone_makes_the_naive_correlation_positive(self):
        """Equal classes that lose alike: on the same images strong classes seem to lose more, on other images not."""
        equal, found = np.full(10, 0.6), []
        for seed in range(40):
            labels, at = networks(equal, seed=seed)
            each = classwise.gain(labels, at(equal), at(equal - 0.1), splits=5, resamples=2)
            found.append([each[name]["mean"] for name in ("naive correlation", "correlation")])
        naive, ours = np.mean(found, 0)
        assert naive > 0.2 and abs(ours) < 0.1

    @pytest.mark.parametrize(("lost", "side"), [(0.3 * (1 - UNEQUAL), 1), (0.2 * UNEQUAL, -1)])
    def test_it_tells_where_the_gain_comes_from(self, lost, side):
        labels, at = networks(UNEQUAL, each=300)
        found = classwise.gain(labels, at(UNEQUAL), at(UNEQUAL - lost), resamples=100)
        share = lost[np.argsort(UNEQUAL)[:5]].sum() / lost.sum()
        assert found["bottom half"]["low"] <= share <= found["bottom half"]["high"]
        assert side * found["correlation"]["mean"] < -0.5 and side * (found["bottom half"]["mean"] - 0.5) > 0.05
        assert found["drop"]["mean"] == pytest.approx(lost.mean(), abs=0.01)
        assert found["drop"]["seeds"].shape == found["bottom half"]["seeds"].shape == (3,)

    def test_an_attack_that_is_not_stronger_has_no_share(self):
        labels, at = networks(UNEQUAL)
        found = classwise.gain(labels, at(UNEQUAL), at(UNEQUAL), splits=2, resamples=20)
        assert found["drop"]["mean"] == 0 and np.isnan(found["bottom half"]["mean"])
        assert np.isnan(found["correlation"]["mean"])

    def test_every_name_is_there(self):
        labels, at = networks(UNEQUAL, each=20, seeds=1)
        assert tuple(classwise.gain(labels, at(UNEQUAL), at(UNEQUAL**2), splits=2, resamples=20)) == classwise.GAIN
