"""Errors by activation: pairing, the one interval, worst cases, choices on validation images, and what gates do."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from lib import stats
from lib.claims import rules
from lib.evaluate import WORST
from lib.gating import mechanism, tables
from lib.params import DataError

RANDOM = np.random.default_rng(0)


def rows(wrong, method="pgd", split="test", **columns):
    """Rows of one network, run and attack: image i has the label 1, and is wrong where `wrong` is 1."""
    wrong = np.asarray(wrong, int)
    return pd.DataFrame({"method": method, "split": split, "index": range(len(wrong)), "label": 1,
                         "predicted": 1 + wrong, **columns})


def networks(errors, seeds=3, method="pgd", **attacks):
    """Of 19_activations: activation -> its errors (images,), the same for every seed; attacks: those beside clean."""
    return pd.concat([rows(wrong, method, seed=seed, activation=name, attack=attack)
                      for name, wrong in errors.items() for seed in range(seeds) for attack in attacks or ("pgd",)])


def random_frames(**shares):
    return {name: pd.DataFrame((RANDOM.random((3, 80)) < share).astype(float)) for name, share in shares.items()}


class TestErrors:
    TABLE = pd.concat([rows(wrong, seed=seed, activation="relu", attack=attack) for attack, wrong in
                       (("clean", [0, 0, 0, 1]), ("pgd", [0, 1, 0, 1]), ("square", [1, 0, 0, 1])) for seed in (1, 0)]
                      + [rows([1, 1, 1, 1, 1], split="validation", seed=0, activation="relu", attack="pgd")])

    def test_one_attack_and_the_worst_case(self):
        found = tables.errors(self.TABLE)["relu"]
        assert found.to_numpy().tolist() == [[1, 1, 0, 1]] * 2 and found.index.tolist() == [0, 1]
        assert tables.errors(self.TABLE, "pgd")["relu"].to_numpy().tolist() == [[0, 1, 0, 1]] * 2

    def test_of_validation_images(self):
        assert tables.errors(self.TABLE, "pgd", "validation")["relu"].shape == (1, 5)

    def test_other_columns_tell_networks_apart(self):
        arms = self.TABLE.rename(columns={"activation": "arm"})
        assert tables.errors(arms, key="arm")["relu"].equals(tables.errors(self.TABLE)["relu"])

    def test_networks_that_faced_other_attacks_are_not_compared(self):
        other = rows([0, 0, 0, 0], seed=0, activation="silu", attack="clean")
        with pytest.raises(DataError, match="same attacks"):
            tables.errors(pd.concat([self.TABLE, other]))

    def test_methods_are_not_mixed(self):
        with pytest.raises(DataError, match="one method"):
            tables.errors(pd.concat([self.TABLE, self.TABLE.assign(method="standard")]))

    def test_mean_over_radii(self):
        table = pd.concat([networks({"relu": wrong}).assign(radius=radius) for radius, wrong in
                           ((0.5, [0, 0, 1]), (1, [0, 1, 1]))])
        assert tables.along(table)["relu"].to_numpy().tolist() == [[0, 0.5, 1]] * 3


class TestEffect:
    def test_of_two_networks_is_the_difference_of_the_claims(self):
        found = random_frames(sparta=0.3, silu=0.4)
        accuracy = [frame.rename_axis(index="seed").melt(ignore_index=False, var_name="index").reset_index().assign(
            split="test", hit=lambda r: 1 - r.value) for frame in (found["silu"], found["sparta"])]
        claim = rules.difference(*accuracy)  # errors of sparta less silu are accuracies of silu less sparta
        assert tables.effect(found, {"sparta": 1, "silu": -1}) == pytest.approx(claim)

    def test_interaction_is_taken_image_by_image(self):
        found = random_frames(a=0.5, b=0.4, c=0.3, d=0.2)
        weights = {"a": 1, "b": -1, "c": -1, "d": 1}
        each = (found["a"] - found["b"] - found["c"] + found["d"]).to_numpy()
        over, both = stats.over_seeds(each.mean(1)), stats.hierarchical(each)
        effect = tables.effect(found, weights)
        assert effect["mean"] == pytest.approx(each.mean()) and (effect["n"], effect["images"]) == (3, 80)
        assert effect["low"] == min(over["low"], both["low"]) and effect["high"] == max(over["high"], both["high"])

    def test_what_two_networks_share_leaves_no_interval(self):
        hard = random_frames(a=0.5)["a"]
        better = hard.copy()
        better.loc[:, hard.all()] = 0  # by as many images in each seed
        effect = tables.effect({"a": hard, "b": better}, {"a": 1, "b": -1})
        assert effect["low"] < effect["mean"] < effect["high"]
        same = tables.effect({"a": hard, "b": hard}, {"a": 1, "b": -1})
        assert (same["low"], same["mean"], same["high"]) == (0, 0, 0)

    def test_seeds_are_paired_by_name(self):
        one = pd.DataFrame([[0.0, 0], [1, 1], [1, 0]], index=[0, 1, 2])
        two = pd.DataFrame([[1.0, 1], [0, 0]], index=[1, 3])
        effect = tables.effect({"a": one, "b": two}, {"a": 1, "b": -1})
        assert (effect["mean"], effect["n"]) == (0, 1) and np.isnan(effect["low"])

    def test_refusals(self):
        found = random_frames(a=0.5, b=0.5)
        with pytest.raises(DataError, match="no network 'map' in the table; there are: a, b"):
            tables.effect(found, {"a": 1, "map": -1})
        with pytest.raises(DataError, match="images in common"):
            tables.effect({**found, "b": found["b"].iloc[:, 1:]}, {"a": 1, "b": -1})
        with pytest.raises(DataError, match="no seed"):
            tables.effect({**found, "b": found["b"].set_axis([7, 8, 9])}, {"a": 1, "b": -1})


class TestChosen:
    @staticmethod
    def table(**wrong):
        """activation -> how many of ten validation images are wrong; on test images it is the other way round."""
        return pd.concat([rows(np.arange(10) < count, split=split, seed=0, activation=name, attack=attack)
                          for name, each in wrong.items() for split, attack, count in
                          (("validation", "clean", 10 - each), ("validation", "pgd", each), ("test", "pgd", 10 - each),
                           ("test", "clean", 0))])

    def test_by_attacked_validation_images_alone(self):
        assert tables.chosen(self.table(relu=5, silu=3, gelu=4), ["relu", "silu", "gelu"]) == "silu"

    def test_only_among_the_names(self):
        assert tables.chosen(self.table(relu=5, silu=3, gelu=4), ["relu", "gelu"]) == "gelu"

    def test_of_equal_ones_the_first_name(self):
        assert tables.chosen(self.table(relu=3, silu=3), ["silu", "relu"]) == "silu"
        assert tables.chosen(self.table(relu=3, silu=3), ["relu", "silu"]) == "relu"

    def test_as_many_errors_in_other_seeds_are_equal(self):
        counts = {"silu": (1, 2, 3), "relu": (2, 2, 2), "gelu": (3, 3, 0)}
        table = pd.concat([rows(np.arange(10) < n, split="validation", seed=s, activation=name, attack="pgd")
                           for name, each in counts.items() for s, n in enumerate(each)])
        for names in (["silu", "relu", "gelu"], ["relu", "gelu", "silu"], ["gelu", "relu", "silu"]):
            assert tables.chosen(table, names) == names[0]
        with pytest.raises(DataError, match="no network 'elu'"):
            tables.chosen(table, ["relu", "elu"])

    def test_a_second_attack_on_validation_images_is_an_error(self):
        table = self.table(relu=3)
        with pytest.raises(DataError, match="pgd, fgsm"):
            tables.chosen(pd.concat([table, table[table.attack == "pgd"].assign(attack="fgsm")]), ["relu"])


class TestTables:
    LEVELS = {"relu": 8, "bias": 6, "map": 5, "pooled": 4, "sparta": 1, "silu": 7}  # of ten images, so many are wrong

    @classmethod
    def ladder(cls, method="pgd", **attacks):
        errors = {name: np.arange(10) < count for name, count in cls.LEVELS.items()}
        return networks(errors, method=method, **attacks)

    def test_effects(self):
        found = tables.effects(self.ladder(clean=0, pgd=0)).set_index(["measure", "effect"])
        assert found.loc[WORST, "mean"].to_dict() == pytest.approx({
            "smoothness": -0.2, "spatial variation": -0.1, "input dependence": -0.2,
            "interaction": -0.2, "both together": -0.5, "sparta against silu": -0.6})
        assert found.networks["clean", "interaction"] == "sparta - pooled - map + bias"
        assert (found.seeds == 3).all() and (found.images == 10).all() and (found.method == "pgd").all()

    def test_effects_along_radii(self):
        radii = pd.concat([self.ladder(m).assign(radius=r) for m in ("standard", "pgd") for r in (0.5, 1)])
        radii.loc[(radii.radius == 0.5) & (radii.method == "pgd"), "predicted"] = 1
        table = pd.concat([self.ladder(m, clean=0, pgd=0) for m in ("standard", "pgd")])
        found = tables.effects(table, radii).set_index(["method", "measure", "effect"])["mean"]
        assert found["pgd", tables.MEAN, "smoothness"] == pytest.approx(-0.1)
        assert found["pgd", "radius 0.5", "smoothness"] == 0 > found["pgd", "radius 1", "smoothness"]
        assert found["standard", tables.MEAN, "smoothness"] == pytest.approx(-0.2)

    def test_effects_whose_networks_are_missing_are_left_out(self):
        table = self.ladder(clean=0)
        found = tables.effects(table[table.activation != "map"])
        assert set(found.effect) == {"smoothness", "input dependence", "both together", "sparta against silu"}

    def test_summary(self):
        table = pd.concat([self.ladder(clean=0).assign(predicted=1), self.ladder(pgd=0)])
        found = tables.summary(table, baseline="silu").set_index(["activation", "attack"])
        assert found.error["relu"].to_dict() == pytest.approx({"clean": 0, "pgd": 0.8, WORST: 0.8})
        assert found.less["sparta", WORST] == pytest.approx(-0.6) and np.isnan(found.less["silu", WORST])
        assert (found.less_low <= found.less)[found.less.notna()].all()
        assert "less" not in tables.summary(table)

    def test_summary_of_other_groups(self):
        arms = pd.concat([rows(np.arange(n) < 2, seed=s, direction=d, arm=a, attack="clean")
                          for (d, n), s, a in product((("halves", 4), ("mnist", 8)), range(2), ("T0", "T3"))])
        found = tables.summary(arms, ["method", "direction"], "arm", "T3").set_index(["direction", "arm", "attack"])
        assert found.error["halves", "T0", WORST] == 0.5 and found.error["mnist", "T0", WORST] == 0.25
        assert found.images["mnist"].unique() == [8] and found.less["halves", "T0", "clean"] == 0

    def test_sweep_begins_at_clean(self):
        radii = pd.concat([self.ladder().assign(radius=r) for r in (1, 0.5)])
        radii = radii[radii.activation != "pooled"]
        found = tables.swept(radii, "radius", self.ladder(clean=0).assign(predicted=1))
        assert found[found.activation == "relu"].radius.tolist() == [0, 0.5, 1]
        assert found[found.activation == "relu"].error.tolist() == pytest.approx([0, 0.8, 0.8])
        assert "pooled" not in set(found.activation) and set(tables.swept(radii, "radius").radius) == {0.5, 1}

    def test_pareto_front(self):
        points = {f"n{i}": RANDOM.integers(0, 6, 2) / 6 for i in range(25)}
        table = pd.DataFrame([{"activation": name, "attack": attack, "error": error} for name, point in points.items()
                              for attack, error in zip(("clean", WORST), point, strict=True)])
        beaten = {a for a, b in product(points, points)
                  if (points[b] <= points[a]).all() and (points[b] < points[a]).any()}
        assert set(tables.pareto(table)) == set(points) - beaten != set(points)

    def test_cost(self):
        table = pd.DataFrame({"seed": [0, 0, 1, 1], "activation": ["sparta", "relu"] * 2, "parameters": [30, 20] * 2,
                              "flops": [500, 100] * 2})
        found = tables.cost(table).set_index("activation")
        assert found.parameters_ratio.to_dict() == {"sparta": 1.5, "relu": 1} and found.flops_ratio["sparta"] == 5
        assert tables.cost(table[table.activation == "sparta"]).flops_ratio.isna().all()


class TestMechanism:
    def test_gates_over_seeds(self):
        values = np.array([0.2, 0.3, 0.35])
        table = pd.DataFrame([{"method": "pgd", "seed": s, "activation": a, "site": site, "spatial": v,
                               "g_spatial": np.nan if a == "relu" else v} for s, v in enumerate(values)
                              for a in ("relu", "sparta") for site in ("one", "two")])
        found = mechanism.gate_means(table, ["spatial", "g_spatial"]).set_index(["activation", "site", "measure"])
        assert len(found) == 6 and ("relu", "one", "g_spatial") not in found.index
        low, high = t.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3))
        row = found.loc["sparta", "two", "g_spatial"]
        assert [row.value, row.low, row.high, row.seeds] == pytest.approx([values.mean(), low, high, 3])

    def test_ablations(self):
        parts = [("none", "clean", 1), ("none", "pgd", 4), ("fixed", "clean", 2), ("fixed", "pgd", 7),
                 ("detached", "pgd", 3)]
        table = pd.concat([rows(np.arange(10) < n, seed=s, activation="sparta", ablation=a, attack=attack)
                           for a, attack, n in parts for s in range(2)]).drop(columns="split")
        found = mechanism.ablations(table).set_index(["ablation", "attack"])
        assert found.less["fixed"].to_dict() == pytest.approx({"clean": 0.1, "pgd": 0.3, WORST: 0.3})
        assert found.less["detached"].to_dict() == pytest.approx({"pgd": -0.1, WORST: -0.1})
        assert found.index.is_unique and found.error["none", "clean"] == 0.1

    def test_nearness(self):
        radius = pd.DataFrame({"method": "pgd", "activation": "relu", "index": [*range(4)] * 2,
                               "seed": [0] * 4 + [1] * 4, "radius": [0, 0.1, 0.2, np.inf] * 2, "lipschitz": 6.0,
                               "margin": [-1, 1, 2, 3] * 2})
        found = mechanism.nearness(radius, 0.2).set_index("measure").value
        assert found.to_dict() == pytest.approx({"mean radius": (0 + 0.5 + 1 + 1) / 4, "median radius": 0.75,
                                                 "steepness": (6 + 3) / 2})  # of inf, 6, 3 and 2
        far = mechanism.nearness(radius.assign(radius=[0, np.inf, np.inf, np.inf] * 2), 0.2).set_index("measure")
        assert np.isinf(far.value["median radius"]) and np.isnan(far.low["median radius"])
        assert far.value["mean radius"] == 0.75

    def test_median_is_resampled_over_seeds_and_images(self):
        hard = RANDOM.normal(3, 1, 60)
        values = pd.DataFrame(hard + RANDOM.normal(scale=0.02, size=(6, 60)))
        found, draw = mechanism.median(values), np.random.default_rng(5)
        drawn = [np.mean([np.median(values.to_numpy()[s, images]) for s in draw.integers(6, size=6)])
                 for images in draw.integers(60, size=(1500, 60))]
        each = stats.over_seeds(values.median(axis=1))
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert low < each["low"] and high > each["high"]  # so the bootstrap decides
        assert [found["low"], found["high"]] == pytest.approx([low, high], abs=0.06)
        assert found["mean"] == pytest.approx(each["mean"]) and (found["n"], found["images"]) == (6, 60)

    def test_median_interval_is_no_narrower_than_over_seeds(self):
        values = pd.DataFrame(np.array([[1.0], [2], [4]]) * np.ones(50))
        found, each = mechanism.median(values), stats.over_seeds([1, 2, 4], within=(0, np.inf))
        assert (found["low"], found["high"]) == (each["low"], each["high"])
        assert np.isnan(mechanism.median(values.iloc[:1])["low"])

    def test_sounded(self):
        table = pd.DataFrame({"method": "pgd", "activation": "relu", "check": ["fgsm"] * 3 + ["sweep"] * 3,
                              "verdict": ["pass", "ALARM", "ALARM", "pass", "not judged", "pass"]})
        found = mechanism.sounded(table).set_index("check")[["sounded", "unjudged", "runs"]]
        assert found.to_numpy().tolist() == [[2, 0, 3], [0, 1, 3]]
