"""The study of weight perturbation: what it trains, its tables, its choice on validation images, its figures."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lib import attacks, compute, config, evaluate, figures, landscape, params, perturbation, stages, train, trajectory
from lib.perturbation import ADVERSARIAL, NONE, RANDOM, Setting
from lib.weights import filter_normalised, moved

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run():
    """PGD on digits: two epochs at a radius that some images survive."""
    found = config.load("smoke", "digits", "pgd", 0)
    return replace(found, threat=config.Threat("Linf", 0.05), landscape=replace(found.landscape, images=20, steps=2),
                   trajectory=replace(found.trajectory, fraction=0.6, epochs=2),
                   perturbation=config.Perturbation([0, 0.02], [0.02], 0.01, [1, 2], [2, 2], 0.0),
                   evaluate=replace(found.evaluate, training_images=1000))


@pytest.fixture(scope="module")
def found(run, digits):
    """The tables of the study, and its log."""
    lines = []
    return perturbation.explore(run, digits, CPU, lines.append), lines


class TestExplore:
    def test_settings_are_each_once(self, run):
        assert perturbation.settings(run) == [
            Setting(NONE, 0.0), Setting(ADVERSARIAL, 0.01), Setting(ADVERSARIAL, 0.02), Setting(RANDOM, 0.02),
            Setting(ADVERSARIAL, 0.01, steps=2), Setting(ADVERSARIAL, 0.01, alternations=2)]
        assert str(Setting(ADVERSARIAL, 0.01, 2, 3)) == "adversarial, gamma 0.01, A = 2, K2 = 3"
        assert str(Setting(NONE, 0.0)) == "none"

    def test_one_row_an_image(self, found, run, digits):
        rows, lines = found[0]["per_sample"], found[1]
        keys = ["method", "seed", "direction", "gamma", "alternations", "steps"]
        assert list(rows.columns) == [*keys, "split", "attack", "index", "label", "predicted"]
        counts = rows.groupby([*keys, "split", "attack"]).size().unstack(["split", "attack"])
        assert len(counts) == 6 and (counts["train", "pgd-20"] == 16 * 10).all()  # 27 a class without `fewer`
        assert ("train", "clean") not in counts and ("train", "strong") not in counts
        for split, images in (("validation", digits.validation), ("test", digits.test)):
            assert (counts[split][["clean", "pgd-20", "strong"]] == len(images)).all(axis=None)
        assert [line.split("  ")[0] for line in lines] == [f"perturbation {i}/6" for i in range(1, 7)]
        one = perturbation.by_seed(rows, found[0]["flatness"]).iloc[2]
        assert f"images {one['train']:.1%}, test images {one['test']:.1%}; S {one['sharpness']:.2f}" in lines[2]

    def test_strong_is_at_least_the_headline_attack(self, found):
        rows = found[0]["per_sample"].query("split != 'train'")
        wide = rows.assign(hit=rows.label == rows.predicted).pivot(
            index=[*perturbation.KEYS, "split", "index"], columns="attack", values="hit")
        assert not (wide.strong & ~wide["pgd-20"]).any() and not (wide.strong & ~wide.clean).any()
        assert wide.strong.mean() < wide["pgd-20"].mean() < wide.clean.mean()

    def test_none_is_the_long_training_itself(self, found, run, digits):
        long, few = trajectory.recipe(run), trajectory.fewer(digits, 0.6)
        trained = train.fit(long, few, CPU, lambda line: None)
        model = train.model(long, trained, "last", few, CPU)
        rows = found[0]["per_sample"].query("direction == 'none' & split == 'test'")
        for name, attack in (("clean", None), ("pgd-20", evaluate.all_attacks(run)["pgd-20"])):
            expected = evaluate.per_sample(model, digits.test, attack, compute.generator(0))
            assert rows[rows.attack == name].predicted.tolist() == expected.predicted.tolist()
        expected = evaluate.per_sample(model, few.train, evaluate.all_attacks(run)["pgd-20"], compute.generator(0))
        seen = found[0]["per_sample"].query("direction == 'none' & split == 'train'")
        assert seen[["label", "predicted"]].to_numpy().tolist() == expected[["label", "predicted"]].to_numpy().tolist()
        assert torch.equal(next(perturbation.network(run, few, Setting(NONE, 0.0), CPU).parameters()),
                           next(model.parameters()))

    def test_sharpness_of_one_network_by_hand(self, found, run, digits):
        few = trajectory.fewer(digits, 0.6)
        model = perturbation.network(run, few, Setting(ADVERSARIAL, 0.01), CPU)
        x, y = few.train.first(20).floats()
        generator, expected = compute.generator(0), []
        for _ in range(run.landscape.directions):
            d, g = filter_normalised(model, generator), []
            for alpha in (-0.5, 0.0, 0.5):
                with moved(model, (alpha, d)), attacks.under_attack(model):
                    g.append(landscape.adversarial_loss(run, model, x, y))
            expected.append((g[0] + g[2]) / 2 - g[1])
        rows = found[0]["flatness"].query("gamma == 0.01 & steps == 1 & alternations == 1")
        assert rows.value.tolist() == pytest.approx(expected, abs=1e-6) and rows.number.tolist() == [0, 1]
        assert set(rows.images) == {20} and len(found[0]["flatness"]) == 6 * 2

    def test_every_setting_is_another_network(self, found):
        values = found[0]["flatness"].query("number == 0").value
        assert values.nunique() == 6

    def test_histograms_count_every_weight_in_common_bins(self, found):
        weights = found[0]["weights"]
        assert list(weights.columns) == [*perturbation.KEYS, "left", "right", "count"]
        groups = list(weights.groupby(perturbation.SETTING))
        assert len(groups) == 6
        for _, rows in groups:
            assert rows["count"].sum() == 32 * 32 * 9 and rows.left.tolist() == groups[0][1].left.tolist()
        assert weights.right.max() == pytest.approx(-weights.left.min())
        edges, panels = perturbation.histograms(weights)
        assert len(edges) == perturbation.BINS + 1 and list(panels[ADVERSARIAL]) == ["none", "gamma 0.01", "gamma 0.02"]
        assert panels[RANDOM]["none"].tolist() == panels[ADVERSARIAL]["none"].tolist()

    def test_a_method_with_awp_is_refused(self, run, digits):
        with pytest.raises(params.ConfigError, match=r"studies.perturbation .* 'trades\+awp': name it without awp"):
            perturbation.explore(replace(run, method="trades+awp"), digits, CPU, print)


def test_the_stage_depends_on_awp_and_the_long_training(project):
    stage = stages.describe(next(i for i in stages.instances() if i.name == "perturbation@default-digits-pgd-0"))
    assert {"lib.methods.pgd", "lib.methods.awp", "lib.trajectory", "lib.landscape"} <= set(stage["modules"])
    assert not {"lib.methods.balanced", "lib.figures.style"} & set(stage["modules"])
    assert {"perturbation", "trajectory", "landscape", "train"} <= set(stage["config"]["digits"])


def table(seed=0, n=100, **settings):
    """A table of `explore`: name -> accuracies train, validation (strong), test, test_clean, test_strong.

    Names: none, a1 (adversarial, gamma 0.1), r2 (random, gamma 0.2), k1 (K2 = 2) and so on. Labels are 0 to 4.
    """
    names = {"n": (NONE, 1, 1), "a": (ADVERSARIAL, 1, 1), "r": (RANDOM, 1, 1), "k": (ADVERSARIAL, 1, 2)}
    rows = []
    for name, (seen, validation, test, clean, strong) in settings.items():
        direction, alternations, steps = names[name[0]]
        keys = {"method": "pgd", "seed": seed, "direction": direction, "steps": steps, "alternations": alternations,
                "gamma": 0.0 if name == "none" else int(name[1:]) / 10}
        for split, attack, rate in (
                ("train", "pgd-20", seen), ("validation", "clean", 0.9), ("validation", "pgd-20", 0.5),
                ("validation", "strong", validation), ("test", "clean", clean), ("test", "pgd-20", test),
                ("test", "strong", strong)):
            labels = np.arange(n) % 5
            predicted = np.where(np.arange(n) < round(rate * n), labels, (labels + 1) % 5)
            rows.append(pd.DataFrame({**keys, "split": split, "attack": attack, "index": np.arange(n),
                                      "label": labels, "predicted": predicted}))
    return pd.concat(rows, ignore_index=True)


def curves(rows, values):
    """The table `flatness` with two directions for each setting: its value less and plus 1."""
    keys = rows[perturbation.KEYS].drop_duplicates()
    return pd.concat([keys.assign(number=i, value=np.array(values) + d, images=20) for i, d in enumerate((-1, 1))])


PLAIN = (0.9, 0.5, 0.4, 0.9, 0.4)


@pytest.mark.parametrize(("settings", "expected"), [
    ({"none": PLAIN, "a1": (0.9, 0.6, 0.1, 0.9, 0.1), "a2": (0.9, 0.5, 0.8, 0.9, 0.8)}, 0.1),  # not on test images
    ({"none": PLAIN, "a1": (0.9, 0.4, 0.8, 0.9, 0.8)}, 0.0),                                   # none is a candidate
    ({"none": PLAIN, "a2": (0.9, 0.6, 0.4, 0.9, 0.4), "a1": (0.9, 0.6, 0.4, 0.9, 0.4)}, 0.1),  # equal: the smaller
    ({"none": PLAIN, "r1": (0.9, 0.9, 0.4, 0.9, 0.4), "k2": (0.9, 0.9, 0.4, 0.9, 0.4)}, 0.0),  # of the sweep alone
])
def test_gamma_is_chosen_on_validation_images(settings, expected):
    assert perturbation.chosen(table(**settings)) == expected


def test_at_chance():
    """Of 100 clean test images of five equal classes, 20 right are chance, 27 are not surely more, 30 are."""
    for right, expected in ((0.0, True), (0.2, True), (0.27, True), (0.3, False), (0.9, False)):
        assert perturbation.at_chance(table(none=(0.2, 0.2, 0.2, right, 0.2))) is expected
    one = table(none=(0.2, 0.2, 0.2, 0.6, 0.2))
    one.loc[(one.split == "test") & (one["index"] < 60), "label"] = 0  # 60 of one class: 60 right are chance
    one["predicted"] = 0
    assert perturbation.at_chance(one)


SEEDS = pd.concat([
    table(none=PLAIN, a1=(0.8, 0.6, 0.5, 0.9, 0.5), a2=(0.2, 0.2, 0.2, 0.2, 0.2), r2=(0.9, 0.5, 0.4, 0.9, 0.3),
          k1=(0.7, 0.9, 0.5, 0.9, 0.5)),
    table(seed=1, none=(0.8, 0.7, 0.6, 0.9, 0.5), a1=(0.8, 0.6, 0.6, 0.9, 0.5), a2=(0.7, 0.1, 0.5, 0.9, 0.2),
          r2=(0.9, 0.5, 0.5, 0.9, 0.4), k1=(0.7, 0.9, 0.5, 0.9, 0.5))], ignore_index=True)
FLAT = curves(SEEDS, [5, 3, 0, 4, 3, 6, 3, 1, 4, 3])


def test_by_seed_by_hand():
    rows = perturbation.by_seed(SEEDS, FLAT)
    assert rows.direction.tolist() == [NONE, ADVERSARIAL, ADVERSARIAL, RANDOM, ADVERSARIAL] * 2
    assert rows.steps.tolist() == [1, 1, 1, 1, 2] * 2 and rows.seed.tolist() == [0] * 5 + [1] * 5
    assert rows.gap.tolist() == pytest.approx([0.5, 0.3, 0.0, 0.5, 0.2, 0.2, 0.2, 0.2, 0.4, 0.2])
    assert rows.test_strong.tolist() == [0.4, 0.5, 0.2, 0.3, 0.5, 0.5, 0.5, 0.2, 0.4, 0.5]
    assert rows.validation_strong.tolist()[:3] == [0.5, 0.6, 0.2] and set(rows.validation_clean) == {0.9}
    assert rows.sharpness.tolist() == [5, 3, 0, 4, 3, 6, 3, 1, 4, 3] and set(rows.directions) == {2}
    assert rows.sharpness_low[0] == pytest.approx(5 - 12.706, abs=1e-2)  # Student's t, sd of 4 and 6 over root 2: 1
    assert rows.dead.tolist() == [False, False, True, False, False] + [False] * 5
    assert rows.chose.tolist() == [False, True, False, False, False, True, False, False, False, False]
    assert (rows[["train_images", "validation_images", "test_images"]] == 100).all(axis=None)


def test_over_seeds_and_over_images():
    rows = perturbation.over(perturbation.by_seed(SEEDS, FLAT))
    assert rows.n.tolist() == [2] * 5
    assert rows.dead.tolist() == [0, 0, 1, 0, 0] and rows.chose.tolist() == [1, 1, 0, 0, 0]
    low, high = stats.t.interval(0.95, 1, loc=0.5, scale=np.std([0.4, 0.6], ddof=1) / np.sqrt(2))
    assert rows.test[0] == pytest.approx(0.5) and [rows.test_low[0], rows.test_high[0]] == [max(low, 0), min(high, 1)]
    assert rows.sharpness_low[0] == pytest.approx(5.5 - 12.706 * 0.5, abs=1e-2)
    alone = perturbation.over(perturbation.by_seed(SEEDS[SEEDS.seed == 0], FLAT[FLAT.seed == 0]))
    wilson = stats.binomtest(40, 100).proportion_ci(method="wilson")
    assert [alone.test_low[0], alone.test_high[0]] == pytest.approx([wilson.low, wilson.high])
    other = stats.binomtest(90, 100).proportion_ci(method="wilson")
    assert alone.gap_low[0] == pytest.approx(0.5 - np.hypot(0.9 - other.low, wilson.high - 0.4))
    assert alone.gap_high[0] == pytest.approx(0.5 + np.hypot(other.high - 0.9, 0.4 - wilson.low))
    assert alone.sharpness_high[0] == pytest.approx(5 + 12.706, abs=1e-2) and set(alone.n) == {1}


def test_gain_is_paired_with_the_same_seed():
    gain = perturbation.gain(SEEDS)
    assert len(gain) == 8 and gain.before.tolist() == [0.4] * 4 + [0.5] * 4
    assert gain.change.tolist() == pytest.approx([0.1, -0.2, -0.1, 0.1, 0, -0.3, -0.1, 0])
    assert (gain.low < gain.change).all() and (gain.change < gain.high).all() and set(gain.n) == {100}
    assert gain.low[0] > 0  # ten images won, none lost: unpaired intervals would cross 0


class TestFigures:
    @pytest.fixture(autouse=True)
    def style(self):
        figures.use_style()
        yield
        plt.close("all")

    def test_the_sweep_draws_lines_levels_points_and_rings(self):
        sweeps = perturbation.sweeps(perturbation.over(perturbation.by_seed(SEEDS, FLAT)))
        assert list(sweeps) == [NONE, ADVERSARIAL, RANDOM, "K2 = 2"]
        assert sweeps[ADVERSARIAL]["gamma"].tolist() == [0.1, 0.2]
        assert sweeps[ADVERSARIAL]["gap"][:, 0] == pytest.approx([0.25, 0.1])
        figure = figures.perturbation_sweep(sweeps, {"test_strong": "test", "sharpness": "S", "gap": "gap"}, [0.0, 0.1])
        ax = figure.axes[0]
        assert [a.get_title(loc="left") for a in figure.axes] == ["test", "S", "gap", ""]
        lines = [line for line in ax.lines if line.get_marker() == "o" and line.get_markersize() == 5]
        assert lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.2])
        assert ax.lines[0].get_ydata()[0] == pytest.approx(0.45)  # the level
        rings = [line for line in ax.lines if line.get_markersize() == 11]
        assert sorted(line.get_ydata()[0] for line in rings) == pytest.approx([0.45, 0.5])
        assert {t.get_text() for t in figure.legends[0].get_texts()} == {
            "no perturbation", "adversarial", "random", "adversarial, K2 = 2", "chosen on validation images"}

    def test_close_gammas_keep_their_ticks_but_not_all_numbers(self):
        sweeps = perturbation.sweeps(perturbation.over(perturbation.by_seed(SEEDS, FLAT)))
        for name, gammas in ((ADVERSARIAL, [0.02, 0.03]), (RANDOM, [1.0]), ("K2 = 2", [0.02])):
            sweeps[name]["gamma"] = np.array(gammas)
        figure = figures.perturbation_sweep(sweeps, {"gap": "gap"})
        figure.canvas.draw()
        assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0.02", "", "1"]

    def test_histograms_are_shares_with_their_deviation(self):
        edges = np.array([-3.0, -1.0, 1.0, 3.0])
        figure = figures.weight_histograms(edges, {"adversarial": {"none": [10, 0, 10], "gamma 0.1": [0, 5, 0]}})
        first, second = figure.axes[0].patches
        assert first.get_data().values.tolist() == [0.5, 0, 0.5] and second.get_data().values.tolist() == [0, 1, 0]
        assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["none (sd 2.000)",
                                                                                  "0.1 (sd 0.000)"]

    def test_equal_numbers_equal_files(self, tmp_path):
        sweeps = perturbation.sweeps(perturbation.over(perturbation.by_seed(SEEDS, FLAT)))
        for name in ("first", "second"):
            figures.save(figures.perturbation_sweep(sweeps, {"gap": "gap"}), tmp_path / f"{name}.svg", "digits")
        assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
