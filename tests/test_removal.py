"""The removal experiment: known answers, independent counts, and networks that must and must not profit."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn

from lib import attacks, compute, config, data, evaluate, figures, removal, stats, train
from lib.config import Threat
from lib.params import ConfigError

CPU = torch.device("cpu")
NETWORKS = (removal.GONE, removal.OTHER_CLASS, removal.OTHER_SEED)


def row(removed, index, label, fooled_as, transfer, adaptive, clean_f=None, seed=0):
    """One row of the table of `explore`."""
    return {"method": "pgd", "seed": seed, "removed": removed, "index": index, "label": label,
            "clean_f": label if clean_f is None else clean_f, "fooled_as": fooled_as, "clean": label,
            "transfer": transfer, "adaptive": adaptive}


def by_hand():
    """Four classes, of which 1, 2 and 3 are removed. Images 0 and 1 are of class 0 and were taken for class 1."""
    return pd.DataFrame([
        row(1, 0, 0, 1, 0, 0), row(2, 0, 0, 1, 0, 1), row(3, 0, 0, 1, 1, 1), row(-1, 0, 0, 1, 1, 1),
        row(1, 1, 0, 1, 0, 2), row(2, 1, 0, 1, 1, 1), row(3, 1, 0, 1, 1, 1), row(-1, 1, 0, 1, 0, 1),
        row(1, 2, 2, 3, 2, 2), row(3, 2, 2, 3, 1, 1), row(-1, 2, 2, 3, 2, 3),  # of class 2, so only 1 is a control
        row(1, 3, 0, 2, 0, 0, clean_f=2), row(2, 3, 0, 2, 0, 0, clean_f=2), row(-1, 3, 0, 2, 0, 0, clean_f=2),
        row(1, 4, 0, 0, 0, 0), row(2, 4, 0, 0, 0, 0), row(-1, 4, 0, 0, 0, 0),  # never fooled
        row(1, 5, 3, 0, 3, 3), row(2, 5, 3, 0, 3, 3), row(-1, 5, 3, 0, 3, 3),  # taken for a class that stays
    ])


class TestWithout:
    @pytest.mark.parametrize("label", [0, 4, 9])
    def test_the_other_images_stay_and_labels_map_back(self, digits, label):
        found = removal.without(digits, label)
        assert found.classes == [c for c in digits.classes if c != digits.classes[label]]
        assert found.statistics == digits.statistics and found.name == digits.name
        for split in data.SPLITS:
            before, after = getattr(digits, split), getattr(found, split)
            kept = [i for i, y in enumerate(before.y.tolist()) if y != label]
            assert torch.equal(after.x, before.x[kept]) and after.y.dtype == before.y.dtype
            assert [found.classes[y] for y in after.y] == [digits.classes[before.y[i]] for i in kept]

    def test_files_and_superclasses(self, digits, tmp_path):
        files = data.Files(tmp_path, np.array([b"a", b"b", b"c", b"d"]), torch.tensor([2, 0, 1, 2]), 8, 0)
        three = replace(digits, classes=["x", "y", "z"], superclasses=["p", "q", "p"], train=files, validation=files,
                        test=files)
        found = removal.without(three, 1)
        assert found.superclasses == ["p", "p"] and found.classes == ["x", "z"]
        assert found.test.paths.tolist() == [b"a", b"b", b"d"] and found.test.y.tolist() == [1, 0, 1]
        assert (found.test.place, found.test.size) == (tmp_path, 8)

    def test_what_cannot_be_removed_is_refused(self, digits):
        for label in (-1, 10):
            with pytest.raises(ConfigError, match="cannot be removed"):
                removal.without(digits, label)
        with pytest.raises(ConfigError, match="two have to be left"):
            removal.without(replace(digits, classes=["a", "b"]), 0)


class TestChosen:
    def test_agrees_with_a_count_by_hand_and_sees_no_test_image(self, cfg, digits, model):
        blind = replace(digits, test=None)
        few = replace(cfg, evaluate=replace(cfg.evaluate, training_images=100))
        x, y = digits.train.first(100).floats()
        x_adv = attacks.pgd(model, x, y, threat=cfg.threat, steps=20, step_size=1 / 8, generator=compute.generator(0))
        said = model.eval()(x_adv).argmax(1)
        counts = [int(((said == c) & (y != c)).sum()) for c in range(10)]
        assert removal.attracted(few, blind, model).tolist() == counts and sum(counts) > 0
        assert removal.chosen(few, blind, model) == sorted(range(10), key=lambda c: (-counts[c], c))[:2]

    def test_of_equals_the_first(self, cfg, digits, monkeypatch):
        monkeypatch.setattr(removal, "attracted", lambda *_: np.array([3, 5, 5, 0, 5, 9]))
        assert removal.chosen(replace(cfg, removal=replace(cfg.removal, classes=3)), digits, None) == [5, 1, 2]


class TestHoming:
    def test_pairs_by_hand(self):
        found = removal.paired(by_hand()).set_index(["reading", "index"])[[*NETWORKS]]
        assert found.loc["transfer"].to_numpy().tolist() == [[1, 0.5, 0], [1, 0, 1], [0, 1, 1]]
        assert found.loc["adaptive"].to_numpy().tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]

    def test_pooled_by_hand(self):
        found = removal.homing(by_hand()).set_index(["reading", "network"])
        assert found.n.tolist() == [3] * 10 and found.images.tolist() == [3] * 10
        assert found.rate["transfer"].tolist() == pytest.approx([2 / 3, 1.5 / 3, 2 / 3, 0.5 / 3, 0])
        assert found.rate["adaptive"].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0, 1 / 3])
        assert (found.low <= found.rate + 1e-9).all() and (found.rate <= found.high + 1e-9).all()
        assert (found.high - found.low > 0.5).all()  # three images say little
        assert tuple(found.loc[("transfer", removal.GONE), ["low", "high"]]) == pytest.approx(stats.wilson(2, 3))

    def test_by_class_and_seed(self):
        two = pd.concat([by_hand(), by_hand().assign(seed=1, transfer=0, adaptive=0)])
        found = removal.homing(two, ["seed", "removed"]).set_index(["seed", "removed", "reading", "network"]).rate
        assert found[0, 1, "transfer", removal.GONE] == 1 and found[0, 3, "transfer", removal.GONE] == 0
        assert found[1, 3, "adaptive", removal.OTHER_CLASS] == 0
        pooled = removal.homing(two).set_index(["reading", "network"])
        assert pooled.loc[("adaptive", removal.GONE), ["n", "images"]].tolist() == [6, 3]
        assert pooled.rate["adaptive", removal.GONE] == pytest.approx((1 + 2) / 6)  # images of class 0 are "0" again

    def test_seeds_may_remove_other_classes(self):
        one, other = by_hand(), by_hand().assign(seed=1)
        found = removal.paired(pd.concat([one[one.removed != 2], other[other.removed != 3]]))
        assert found.groupby(["seed", "removed"]).size().to_dict() == {(0, 1): 4, (0, 3): 2, (1, 1): 4}

    def test_little_never_crashes(self):
        table = by_hand()
        assert removal.homing(table[table["index"] == 4]).n.tolist() == [0] * 10
        assert removal.homing(table[table["index"] == 4]).rate.isna().all()
        assert removal.homing(table.head(0)).n.sum() == 0 and removal.homing(table.head(0), ["seed"]).empty
        assert removal.taken_for(table.head(0)).empty
        alone = removal.homing(table[table.removed == 1]).set_index(["reading", "network"])
        assert alone.rate["transfer", removal.GONE] == 1 and alone.n["transfer", removal.OTHER_SEED] == 0
        assert alone.loc["transfer"].loc[list(NETWORKS[1:]), "low"].isna().all()

    def test_what_they_are_taken_for_next(self):
        found = removal.taken_for(by_hand()).set_index(["reading", "label", "removed", "next"])
        assert found.n["transfer", 0, 1, 0] == 2 and found.share["transfer", 0, 1, 0] == 1
        assert found.share["adaptive", 0, 1, 2] == 0.5 and found.share["adaptive", 2, 3, 1] == 1
        assert len(found) == 5 and found.n.iloc[0] == 2
        home = removal.homing(by_hand()).set_index(["reading", "network"]).rate
        own = found.reset_index().query("label == next").groupby("reading").n.sum()
        assert {r: own.get(r, 0) / 3 for r in removal.READINGS} == {r: home[r, removal.GONE] for r in removal.READINGS}


class TestClustered:
    def test_one_value_an_image_is_like_the_closed_forms(self):
        """Agresti and Coull's interval of a rate, Agresti and Min's of a difference."""
        draw = np.random.default_rng(0)
        a, b = (draw.random((2, 200)) < [[0.7], [0.5]]).astype(float)
        found = removal.clustered(np.arange(200), a, removal.ADDED_TO_RATE, resamples=20_000)
        middle = (a.sum() + 2) / 204
        half = scipy_stats.norm.ppf(0.975) * np.sqrt(middle * (1 - middle) / 204)
        assert found["rate"] == a.mean()
        assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half), abs=0.006)
        found, closed = (removal.clustered(np.arange(200), a - b, removal.ADDED_TO_DIFFERENCE, resamples=20_000),
                         stats.paired(a, b))
        assert [found[key] for key in ("rate", "low", "high")] == pytest.approx(
            [closed[key] for key in ("mean", "low", "high")], abs=0.008)

    def test_the_same_images_again_say_nothing_new(self):
        values, index = np.random.default_rng(1).integers(0, 2, 60), np.arange(60)
        once = removal.clustered(index, values, removal.ADDED_TO_RATE)
        thrice = removal.clustered(np.tile(index, 3), np.tile(values, 3), removal.ADDED_TO_RATE)
        assert thrice == {**once, "n": 180}
        more = removal.clustered(np.arange(180), np.tile(values, 3), removal.ADDED_TO_RATE)
        assert more["high"] - more["low"] < 0.7 * (once["high"] - once["low"])

    def test_agrees_with_drawing_images_one_by_one(self):
        draw = np.random.default_rng(2)
        index = draw.integers(0, 40, 100)
        values = (draw.random(100) < draw.random(40)[index]).astype(float)
        found = removal.clustered(index, values, {}, resamples=10_000)
        images = [values[index == i] for i in np.unique(index)]
        means = [np.concatenate([images[i] for i in draw.integers(0, len(images), len(images))]).mean()
                 for _ in range(4000)]
        assert (found["low"], found["high"]) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.015)

    def test_few_or_no_images(self):
        one = removal.clustered([7], [1.0], removal.ADDED_TO_DIFFERENCE)
        assert (one["rate"], one["n"], one["high"]) == (1, 1, 1) and one["low"] < 0
        assert np.isnan(removal.clustered([1, 2], [np.nan, np.nan], removal.ADDED_TO_RATE)["low"])


class Nearest(nn.Module):
    """Takes an image of two pixels for the nearest centre: a network whose robustness is a matter of distance."""

    def __init__(self, centres):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(centres))

    def forward(self, x):
        return -10 * (x.flatten(1)[:, None] - self.centres).square().sum(2)


def test_what_lies_between_comes_home_once_that_is_gone(cfg):
    """Centres at 0.2, 0.4 and 0.9: with eps 0.15 class 0 is fooled into class 1, and by nothing once that is gone."""
    x = torch.tensor([[0.2, 0.2], [0.4, 0.4], [0.9, 0.9]]).repeat(5, 1).reshape(-1, 1, 1, 2)
    images = data.Images((255 * x).round().to(torch.uint8), torch.arange(3).repeat(5))
    dataset = data.Dataset("toy", ["a", "b", "c"], None, ([0.0], [1.0]), images, images, images)
    run = replace(cfg, threat=Threat("Linf", 0.15))
    centres = [[0.2, 0.2], [0.4, 0.4], [0.9, 0.9]]
    networks = {1: Nearest([centres[0], centres[2]]), 2: Nearest(centres[:2]), removal.NONE: Nearest(centres)}
    table = removal.compare(run, dataset, Nearest(centres), networks)
    assert table.groupby("removed").label.agg(set).to_dict() == {-1: {0, 1, 2}, 1: {0, 2}, 2: {0, 1}}
    zero = table[table.label == 0]
    assert (zero.fooled_as == 1).all() and (zero.clean == 0).all()
    rates = removal.homing(table[table.label == 0]).set_index(["reading", "network"]).rate
    for reading in removal.READINGS:
        assert rates[reading].loc[list(NETWORKS)].tolist() == [1, 0, 0]
    two = table[(table.label == 2) & (table.removed == 1)]
    assert (two[["clean", "transfer", "adaptive"]] == 2).all().all()  # output 1 of that network is class 2


@pytest.fixture(scope="module")
def explored(digits):
    """A tiny run: its configuration, what was trained, the table of `explore`, and the log."""
    run = config.load("smoke", "digits", "pgd", 0)
    run = replace(run, train=replace(run.train, epochs=2, steps=2), removal=replace(run.removal, classes=1))
    small = replace(digits, **{split: getattr(digits, split).first(120) for split in data.SPLITS})
    trained, lines = train.fit(run, small, CPU, lambda line: None), []
    return run, small, trained, removal.explore(run, small, trained, CPU, lines.append), lines


class TestExplore:
    def test_one_row_for_each_network_and_image_it_knows(self, explored):
        run, small, trained, table, lines = explored
        full = train.model(run, trained, "last", small, CPU)
        one, = removal.chosen(run, small, full)
        expected = {-1: list(range(120)), one: [i for i, y in enumerate(small.test.y.tolist()) if y != one]}
        assert table.groupby("removed")["index"].agg(list).to_dict() == expected
        assert table.label.tolist() == small.test.y[table["index"].tolist()].tolist()
        assert list(table) == ["method", "seed", "removed", "index", "label", "clean_f", "fooled_as", "clean",
                               "transfer", "adaptive"]
        assert [line.split(":")[0] for line in lines] == [f"removal 1/2  without {one}", "removal 2/2  seed 1000"]

    def test_the_full_network_says_what_it_says_in_stage_attack(self, explored):
        run, small, trained, table, _ = explored
        full = train.model(run, trained, "last", small, CPU)
        rows = table[table.removed == -1]
        for name, column in ((None, "clean_f"), ("pgd-20", "fooled_as")):
            attack = evaluate.all_attacks(run)[name] if name else None
            again = evaluate.per_sample(full, small.test, attack, compute.generator(0))
            assert again.predicted.tolist() == rows[column].tolist()

    def test_the_other_networks_answer_in_labels_of_all_classes(self, explored):
        run, small, trained, table, _ = explored
        full = train.model(run, trained, "last", small, CPU)
        one = table.removed.max()
        less = removal.without(small, one)
        again = train.model(run, train.fit(run, less, CPU, lambda line: None), "last", less, CPU)
        (_, _, x_adv), = removal.attacked(run, small, full)
        rows, other = table[table.removed == one], table[table.removed == -1]
        x, y = less.test.floats()
        for shown, column in ((x, "clean"), (x_adv[small.test.y != one], "transfer")):
            said = [small.classes.index(less.classes[c]) for c in again(shown).argmax(1)]
            assert said == rows[column].tolist() and one not in said
        attack = evaluate.cascade(*(evaluate.all_attacks(run)[name] for name in ("pgd-20", "quick")))
        own = evaluate.per_sample(again, less.test, attack, compute.generator(0))
        assert [small.classes.index(less.classes[c]) for c in own.predicted] == rows.adaptive.tolist()
        assert not ((table.adaptive == table.label) & (table.clean != table.label)).any()
        assert (other.clean != other.clean_f).any()  # the other seed is another network

    def test_the_run_itself_is_left_alone(self, explored):
        run, small, trained, table, _ = explored
        before = {name: value.clone() for name, value in trained.states["last"].items()}
        network, history = removal.retrained(run, small, removal.NONE, CPU)
        assert len(history) == 2 and run.seed == 0
        assert all(torch.equal(trained.states["last"][name], value) for name, value in before.items())
        assert not torch.equal(next(network.parameters()), trained.states["last"][next(iter(before))])


class TestFigures:
    @pytest.fixture(autouse=True)
    def style(self):
        figures.use_style()
        yield
        plt.close("all")

    @pytest.fixture
    def estimates(self):
        good, bad = ({"rate": rate, "low": rate - 0.1, "high": rate + 0.1} for rate in (0.8, 0.3))
        gap = {"rate": 0.5, "low": 0.4, "high": 0.6}
        return {"A": {"gone": good, "control": bad}, "B": {"gone": bad, "control": bad}}, {
            "A": {"control": gap}, "B": {"control": {"rate": np.nan, "low": np.nan, "high": np.nan}}}

    def test_rates_stand_in_their_rows(self, estimates):
        ax = figures.homing_rates(*estimates).axes[0]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["gone", "control"] * 2
        marks = [c.lines[0].get_xydata()[0].tolist() for c in ax.containers]
        assert marks == [[rate, y] for rate, y in zip((0.8, 0.3, 0.3, 0.3), ax.get_yticks(), strict=True)]
        texts = [t.get_text() for t in ax.texts]
        assert texts == ["A", "80 % (70 to 90)", "removal +50 points (+40 to +60)", "B", "30 % (20 to 40)", ""]

    def test_draws_on_given_axes_without_numbers(self, estimates):
        figure, (left, right) = plt.subplots(1, 2)
        assert figures.homing_rates(estimates[0], ax=right) is figure and not left.has_data()
        assert [t.get_text() for t in right.texts] == ["A", "B"]

    def test_examples_say_what_came_home(self):
        shown = np.random.default_rng(0).random((2, 3, 8, 8))
        lines = {"image of": "ab", "f says": "cc", "f without c says": "ad"}
        figure = figures.homing_examples(*shown[:, :2], lines, [True, False])
        texts = [t.get_text() for ax in figure.axes for t in ax.texts]
        assert {"a ✓", "d ✗", "f without c says"} <= set(texts) and len(figure.axes) == 4
        assert np.array_equal(figure.axes[2].images[0].get_array(), shown[1, 0])

    def test_equal_numbers_equal_files(self, estimates, tmp_path):
        for name in ("first", "second"):
            figures.save(figures.homing_rates(*estimates), tmp_path / f"{name}.svg", "title")
        assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
