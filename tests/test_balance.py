"""The study of defences for the weakest class: its table, its choice on validation images, its arithmetic, figures."""

from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib import balance, compute, config, evaluate, figures, params, stages, train

CPU = torch.device("cpu")


def table(accuracy, seed=0, n=10, wrong=None):
    """A table in which class c is right for accuracy[defence, strength][split][c] x n of n images, under every attack.

    wrong: what a class is taken for, by default the next one.
    """
    rows = []
    for (defence, strength), splits in accuracy.items():
        for split, attack in product(("validation", "test"), ("clean", "strong")):
            labels = np.repeat(np.arange(3), n)
            right = np.arange(3 * n) % n < np.round(np.array(splits[split])[labels] * n)
            predicted = np.where(right, labels, (wrong or [1, 2, 0])[0] if wrong else (labels + 1) % 3)
            rows.append(pd.DataFrame({"method": "pgd", "seed": seed, "defence": defence, "strength": strength,
                                      "split": split, "attack": attack, "index": np.arange(3 * n), "label": labels,
                                      "predicted": predicted}))
    return pd.concat(rows, ignore_index=True)


def both(*values):
    return {"validation": values, "test": values}


@pytest.fixture(scope="module")
def run(digits):
    """Two epochs of PGD on digits, with a radius that some images survive, and what they left."""
    run = config.load("smoke", "digits", "pgd", 0)
    run = replace(run, train=replace(run.train, epochs=2), balance=config.Balance([1], [0, 3]),
                  threat=config.Threat("Linf", 0.05))
    trained = train.fit(run, digits, CPU, lambda line: None)
    useless = {name: 0 * value for name, value in trained.states["last"].items()}
    return run, replace(trained, states={"last": trained.states["last"], "best": useless})


@pytest.fixture(scope="module")
def found(run, digits):
    """The table of the study, and its log."""
    lines = []
    return balance.explore(run[0], digits, run[1], CPU, lines.append), lines


class TestExplore:
    def test_one_row_an_image(self, found, run, digits):
        rows, lines = found
        assert list(rows.columns) == ["method", "seed", "defence", "strength", "split", "attack", "index", "label",
                                      "predicted"]
        counts = rows.groupby(["defence", "strength", "split", "attack"]).size().unstack("split")
        assert len(counts) == 3 * 3 and (counts.test == len(digits.test)).all()
        assert (counts.validation == len(digits.validation)).all()
        assert set(rows.attack) == {"clean", run[0].evaluate.headline, "strong"}
        assert [line.split("  ")[0] for line in lines] == ["balance 1/3", "balance 2/3", "balance 3/3"]
        strong = balance.by_seed(rows)
        assert f"{strong['mean'][2]:.1%}, worst class {strong.worst[2]:.1%} of {len(digits.test)}" in lines[2]

    def test_without_a_defence_it_is_the_trained_network(self, found, run, digits):
        rows = found[0].query("defence == 'none' & split == 'test'")
        model = train.model(run[0], run[1], "last", digits, CPU)
        for name, attack in ((evaluate.CLEAN, None), ("pgd-20", evaluate.all_attacks(run[0])["pgd-20"])):
            expected = evaluate.per_sample(model, digits.test, attack, compute.generator(0))
            assert rows[rows.attack == name].predicted.tolist() == expected.predicted.tolist()

    def test_strong_is_at_least_the_headline_attack(self, found):
        rows = found[0].assign(hit=found[0].label == found[0].predicted)
        hits = rows.groupby(["defence", "split", "attack"]).hit.mean().unstack("attack")
        assert (hits.strong <= hits["pgd-20"]).all() and (hits["pgd-20"] < hits.clean).all()
        wide = rows.pivot(index=["defence", "split", "index"], columns="attack", values="hit")
        assert not (wide.strong & ~wide.clean).any()

    def test_the_offset_is_what_training_would_have_left(self, run, digits):
        spec = replace(run[0], method="pgd+offset", knobs={**run[0].knobs, "offset": {"strength": 3.0}})
        trained = train.fit(spec, digits, CPU, lambda line: None).states["last"]
        found = balance.network(run[0], digits, run[1], "offset", 3.0, CPU)
        assert all(torch.equal(v, trained[k]) for k, v in found.state_dict().items()) and found[-1].b.any()

    def test_balanced_of_strength_0_is_no_defence(self, run, digits):
        none, same, other = (balance.network(run[0], digits, run[1], d, s, CPU).state_dict()
                             for d, s in (("none", 0.0), ("balanced", 0.0), ("balanced", 1.0)))
        assert all(torch.equal(v, same[k]) for k, v in none.items())
        assert not torch.equal(none["1.head.weight"], other["1.head.weight"])
        with pytest.raises(params.ConfigError, match="unknown defence 'ofset' .*did you mean 'offset'"):
            balance.network(run[0], digits, run[1], "ofset", 1.0, CPU)

    def test_weights_of_another_network_are_refused(self, run, digits):
        narrow = replace(run[0], model=replace(run[0].model, width=8))
        with pytest.raises(RuntimeError, match="size mismatch"):
            balance.network(narrow, digits, run[1], "offset", 1.0, CPU)


def test_the_stage_depends_on_both_add_ons(project):
    found = stages.describe(next(i for i in stages.instances() if i.name == "balance@default-digits-pgd-0"))
    assert {f"lib.methods.{name}" for name in ("pgd", "balanced", "offset", "_classes")} <= set(found["modules"])
    assert found["config"]["digits"]["balance"]["offset"] and "train" in found["config"]["digits"]


@pytest.mark.parametrize(("validation", "strength"), [
    ({1.0: (0.5, 0.5, 0.9), 2.0: (0.3, 0.9, 0.9)}, 1.0),   # the best worst class, not the best mean
    ({1.0: (0.2, 0.9, 0.9), 2.0: (0.1, 0.9, 0.9)}, 0.0),   # no better than none
    ({1.0: (0.4, 0.4, 0.9), 2.0: (0.9, 0.4, 0.9)}, 1.0),   # equal: the smaller
    ({2.0: (0.4, 0.4, 0.9), 0.5: (0.4, 0.5, 0.4)}, 0.5),   # whatever the order in the table
])
def test_the_strength_is_chosen_on_validation_images(validation, strength):
    """The test images, where the largest strength is best by far, have no say; nor has another defence."""
    accuracy = {("none", 0.0): {"validation": (0.2, 0.5, 0.8), "test": (0.0, 0.5, 0.9)},
                ("balanced", 4.0): both(1.0, 1.0, 1.0)}
    accuracy |= {("offset", s): {"validation": v, "test": (s / 2, s / 2, s / 2)} for s, v in validation.items()}
    assert balance.chosen(table(accuracy), "offset") == strength
    assert balance.chosen(table(accuracy), "balanced") == 4.0
    with pytest.raises(params.ConfigError, match="unknown defence 'awp'"):
        balance.chosen(table(accuracy), "awp")


SEEDS = pd.concat([  # seed 0 chooses offset 2, seed 1 chooses offset 1, both no balanced
    table({("none", 0.0): both(0.1, 0.5, 0.9), ("balanced", 1.0): both(0.0, 0.9, 0.9),
           ("offset", 1.0): both(0.2, 0.5, 0.8), ("offset", 2.0): both(0.4, 0.3, 0.8)}),
    table({("none", 0.0): both(0.3, 0.5, 0.7), ("balanced", 1.0): both(0.1, 0.9, 0.9),
           ("offset", 1.0): both(0.5, 0.5, 0.6), ("offset", 2.0): both(0.5, 0.4, 0.6)}, seed=1)])


def test_by_seed_and_pareto_by_hand():
    rows = balance.by_seed(SEEDS)
    assert rows.defence.tolist() == ["none", "balanced", "offset", "offset"] * 2
    assert rows.worst.tolist() == [0.1, 0.0, 0.2, 0.3, 0.3, 0.1, 0.5, 0.4] and set(rows.images) == {30}
    assert rows.chose.tolist() == [False, False, False, True, False, False, True, False]
    first = rows.iloc[0]
    assert [first["mean"], first.variance, first.sd, first.spread] == pytest.approx(
        [0.5, np.var([0.1, 0.5, 0.9]), np.std([0.1, 0.5, 0.9]), 0.8])
    front = balance.pareto(SEEDS).set_index(["defence", "strength"])
    one = front.loc["offset", 1.0]
    half = 12.706 * np.std([0.2, 0.5], ddof=1) / np.sqrt(2)  # Student's t with one degree of freedom
    assert one.worst == pytest.approx(0.35) and one.n == 2 and one.chose == 1 and one.images == 30
    assert [one.worst_low, one.worst_high] == [0, 1] and half > 1  # cut at the range of an accuracy
    assert one["mean"] == pytest.approx((0.5 + 1.6 / 3) / 2)
    assert one.mean_high - one["mean"] == pytest.approx(12.706 * (0.1 / 3) / 2, rel=1e-3)
    assert np.isnan(balance.pareto(SEEDS[SEEDS.seed == 0]).worst_low).all()


def test_the_curve_begins_without_a_defence():
    curve = balance.curves(SEEDS)["offset"]
    assert curve["strength"].tolist() == [0, 1, 2] and curve["chose"].tolist() == [2, 1]
    assert curve["worst"].tolist() == [[0.1, 0.2, 0.3], [0.3, 0.5, 0.4]]
    assert balance.curves(SEEDS)["balanced"]["chose"].tolist() == [0, 0]


def test_the_vulnerable_class_and_what_it_is_taken_for():
    """On validation images without a defence; on the test images it is another."""
    accuracy = {("none", 0.0): {"validation": (0.6, 0.9, 0.4), "test": (0.0, 1.0, 1.0)}}
    assert balance.vulnerable(table(accuracy), 3) == (2, 0)
    assert balance.vulnerable(table(accuracy, wrong=[1]), 3) == (2, 1)


def test_what_each_class_pays():
    paid = balance.paid(SEEDS, 3).set_index(["seed", "defence", "label"])
    assert paid.loc[0, "offset", 0].role == "vulnerable" and paid.loc[0, "offset", 1].role == "confound"
    assert paid.loc[0, "offset"].strength.tolist() == [2, 2, 2]
    assert paid.loc[0, "offset"].change.tolist() == pytest.approx([0.3, -0.2, -0.1])
    assert paid.loc[1, "offset"].change.tolist() == pytest.approx([0.2, 0.0, -0.1])
    assert not paid.loc[0, "balanced"][["strength", "change", "low", "high"]].any(axis=None)  # none was chosen
    assert (paid.low <= paid.change).all() and (paid.change <= paid.high).all() and (paid.n == 10).all()


def test_gain_is_paired_and_has_the_change_of_each_measure():
    gain = balance.gain(SEEDS).set_index(["seed", "defence", "measure"])
    assert gain.loc[0, "offset", "worst"].change == pytest.approx(0.2)  # from 0.1 of class 0 to 0.3 of class 1
    assert gain.loc[0, "offset", "mean"].change == pytest.approx(0)
    assert gain.loc[0, "offset", "spread"].change == pytest.approx(-0.3)
    assert gain.loc[1, "offset", "sd"].change == pytest.approx(np.std([0.5, 0.5, 0.6]) - np.std([0.3, 0.5, 0.7]))
    worst = gain.loc[0, "offset", "worst"]
    assert worst.low <= worst.change <= worst.high and worst.n == 30 and worst.high - worst.low > 0.1
    assert (gain.loc[0, "balanced"][["change", "low", "high"]] == 0).all(axis=None)


class TestFigures:
    @pytest.fixture(autouse=True)
    def style(self):
        figures.use_style()
        yield
        plt.close("all")

    def test_pareto_draws_means_seeds_choice_and_single_points(self):
        curves = balance.curves(SEEDS)
        extra = {"pgd+cfa": (np.array([0.5, 0.6]), np.array([0.2, 0.4]))}
        ax = figures.pareto_curves(curves, "the strong attack", extra=extra).axes[0]
        lines = {line.get_label(): line for line in ax.lines}
        assert lines["offset, by strength"].get_ydata().tolist() == pytest.approx([0.2, 0.35, 0.35])
        assert lines["no defence"].get_ydata()[0] == pytest.approx(0.2)
        assert lines["pgd+cfa"].get_xdata()[0] == pytest.approx(0.55)
        rings = [line for line in ax.lines if line.get_markersize() == 12 and len(line.get_xdata())]
        assert [ring.get_ydata().tolist() for ring in rings] == [[0.1, 0.3], [0.3, 0.5]]
        assert rings[1].get_xdata().tolist() == pytest.approx([0.5, 1.6 / 3])
        assert {text.get_text() for text in ax.texts} == {"1", "2"}

    def test_class_changes_stand_weakest_first(self):
        change = {"change": np.array([0.1, -0.2, 0.3]), "low": np.zeros(3) - 0.5, "high": np.ones(3) / 2}
        figure, ax = plt.subplots()
        assert figures.class_changes("xyz", np.array([0.5, 0.2, 0.9]), {"offset": change}, 1, 2, "it", ax=ax) is figure
        assert [t.get_text() for t in ax.get_xticklabels()] == ["y\n20%", "x\n50%", "z\n90%"]
        heights = [bar.get_height() for bar in ax.patches[:3]]
        assert heights == [-0.2, 0.1, 0.3]

    def test_of_many_classes_those_that_change_most(self):
        change = np.linspace(0, 1, 100)
        each = {"change": change, "low": change, "high": change}
        ax = figures.class_changes([f"class {i}" for i in range(100)], np.ones(100), {"a": each}, 3, 5, "it").axes[0]
        names = {label.get_text().split()[1] for label in ax.get_xticklabels()}
        assert names == {"3", "5", *map(str, range(82, 100))}

    def test_equal_numbers_equal_files(self, tmp_path):
        for name in ("first", "second"):
            figure = figures.pareto_curves(balance.curves(SEEDS), "it")
            figures.save(figure, tmp_path / f"{name}.svg", "digits")
        assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
