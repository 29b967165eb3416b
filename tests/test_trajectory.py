"""Sharpness and gap along training: the looks change nothing and see what is there; what is read off them; claims."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib import (
    classwise,
    compute,
    config,
    evaluate,
    figures,
    landscape,
    overfitting,
    params,
    published,
    stages,
    train,
    trajectory,
)
from lib.data import Files, Images
from lib.weights import filter_normalised

CPU = torch.device("cpu")


def small(**more):
    """Numbers of a training of four epochs, and of landscapes, that take a second or two."""
    found = config.load("smoke", "digits", "pgd", 0)
    return replace(found, evaluate=replace(found.evaluate, training_images=40), threat=config.Threat("Linf", 0.05),
                   landscape=replace(found.landscape, images=16, steps=2),
                   trajectory=replace(found.trajectory, epochs=4, every=2, fraction=0.5), **more)


@pytest.fixture(scope="module")
def few(digits):
    """Digits with few validation and test images."""
    return replace(digits, validation=digits.validation.first(20), test=digits.test.first(50))


@pytest.fixture(scope="module")
def run(few):
    """What one small run left, its log, and what `train.fit` returned within it."""
    lines, trained, fit = [], [], train.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", lambda *a, **kw: trained.append(fit(*a, **kw)) or trained[0])
        found = trajectory.explore(small(), few, CPU, lines.append)
    return found, lines, trained[0]


class TestFewerImages:
    Y = torch.tensor([0, 1, 0, 0, 2, 0, 1, 0, 0, 0, 1, 0])  # eight, three and one

    @pytest.mark.parametrize(("fraction", "kept"), [(0.5, [0, 1, 2, 3, 4, 5, 6]), (0.01, [0, 1, 4]),
                                                    (1.0, list(range(12)))])
    def test_the_first_of_each_class_in_order(self, digits, fraction, kept):
        images = Images(torch.arange(12, dtype=torch.uint8)[:, None, None, None], self.Y)
        found = trajectory.fewer(replace(digits, train=images), fraction)
        assert found.train.x.flatten().tolist() == kept and found.train.y.tolist() == self.Y[kept].tolist()
        assert found.validation is digits.validation and found.test is digits.test

    def test_of_images_on_disk(self, digits):
        files = Files(Path("x"), np.array([f"{i}.png".encode() for i in range(12)]), self.Y, 8, 0)
        found = trajectory.fewer(replace(digits, train=files), 0.5).train
        assert isinstance(found, Files) and len(found) == 7 and found.size == 8
        assert [p.decode() for p in found.paths] == [f"{i}.png" for i in range(7)]

    @pytest.mark.parametrize("fraction", [0, 1.5])
    def test_no_such_share(self, digits, fraction):
        with pytest.raises(params.ConfigError, match="trajectory.fraction .* above 0 and at most 1"):
            trajectory.fewer(digits, fraction)


class TestLooksAt:
    def test_every_so_many_around_drops_and_the_last_six(self):
        run = trajectory.recipe(config.load("default", "digits", "pgd", 0))
        found = trajectory.looks_at(run)
        wide = [20, 40, 60, 80, 100, 101, 120, 140, 150, 151, 160, 180, 200]
        assert [e for e, w in found.items() if w] == wide
        assert list(found) == [*wide[:-1], 195, 196, 197, 198, 199, 200] and trajectory.drops(run) == [100, 150]

    def test_without_drops_and_of_few_epochs(self):
        run = small()
        smooth = replace(run, train=replace(run.train, schedule="onecycle", epochs=7))
        assert trajectory.looks_at(smooth) == {2: True, 3: False, 4: True, 5: False, 6: True, 7: False}
        one = replace(run, train=replace(run.train, schedule="piecewise", epochs=1))
        assert trajectory.looks_at(one) == {1: False} and trajectory.drops(one) == []

    @pytest.mark.parametrize("epochs", [8, 7])
    def test_drops_are_where_the_optimiser_has_them(self, epochs):
        run = small()
        run = replace(run, train=replace(run.train, schedule="piecewise", epochs=epochs))
        optimizer, scheduler = train.optimizer_and_schedule(run, torch.nn.Linear(1, 1), 5 * epochs)
        first = []  # the rate of each epoch's first step
        for step in range(5 * epochs):
            if step % 5 == 0:
                first.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        before = [e for e in range(1, epochs) if first[e] < first[e - 1]]
        if epochs == 8:
            assert before == trajectory.drops(run) and trajectory.learning_rates(run) == pytest.approx(first)
        else:  # drops within epochs 4 and 6, so before them is after epochs 3 and 5
            assert trajectory.drops(run) == [e - 1 for e in before] == [3, 5]

    def test_the_recipe_changes_the_schedule_alone(self):
        before = config.load("default", "digits", "pgd", 0)
        after = trajectory.recipe(before)
        assert after.train == replace(before.train, epochs=200, schedule="piecewise", trace=200)
        assert replace(after, train=before.train) == before

    def test_warm_up_of_the_radius(self):
        run = trajectory.recipe(config.load("default", "digits", "pgd+awp", 0))
        assert [trajectory.radius(run, e) for e in (20, 60, 200)] == pytest.approx([1 / 3, 1, 1])
        assert trajectory.radius(replace(run, method="standard"), 1) == 1


class TestExplore:
    def test_the_looks_change_nothing(self, run, few):
        cfg, dataset = trajectory.recipe(small()), trajectory.fewer(few, 0.5)
        alone = train.fit(cfg, dataset, CPU, lambda line: None)
        assert alone.history.equals(run[2].history)
        for name, state in alone.states.items():
            assert all(torch.equal(v, run[2].states[name][k]) for k, v in state.items())

    def test_interrupted_it_goes_on_to_the_same_tables(self, run, few, tmp_path, monkeypatch):
        """What was seen before the interruption is not looked at again."""
        monkeypatch.setattr(train, "unfinished", lambda: tmp_path)
        lines = []

        def killed(line):
            """Ends it in the look of the third epoch, of four."""
            lines.append(line)
            if line.startswith("epoch 3/"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trajectory.explore(small(), few, CPU, killed)
        found = trajectory.explore(small(), few, CPU, lines.append)
        assert lines == [*run[1][:3], *run[1][2:]]
        for name in ("looks", "sharpness", "per_sample"):
            assert getattr(found, name).equals(getattr(run[0], name))
        assert all(np.array_equal(found.curves[name], curve) for name, curve in run[0].curves.items())

    def test_a_look_leaves_weights_statistics_and_mode(self, few, model):
        observer = trajectory.Observer(trajectory.recipe(small()), few)
        before, seed = train.snapshot(model), torch.get_rng_state()
        model.train()
        observer.look(2, model)
        assert model.training and all(m.training for m in model.modules())
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert torch.equal(seed, torch.get_rng_state())

    def test_rows_and_log(self, run):
        looks, lines = run[0].looks, run[1]
        assert looks.checkpoint.tolist() == ["along"] * 4 + ["best", "last"] and looks.epoch.iloc[-1] == 4
        assert looks.epoch[:4].tolist() == [1, 2, 3, 4] and np.isnan(looks.sharpness[0])
        assert looks.lr[:4].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.001])
        assert looks.radius[:4].tolist() == pytest.approx([0.25 / 0.3, 1, 1, 1])
        assert (looks.gap == looks.train - looks.test).all() and looks.sharpness[1:].notna().all()
        assert [line.split("  ")[0] for line in lines] == [f"epoch {e}/4" for e in range(1, 5)]
        assert "S" not in lines[0] and lines[3].endswith(f"S {looks.sharpness[3]:.2f}")

    def test_accuracy_and_loss_by_another_way(self, run, few):
        cfg, dataset = trajectory.recipe(small()), trajectory.fewer(few, 0.5)
        row = run[0].looks.iloc[-1]
        model = train.model(cfg, run[2], "last", dataset, CPU)
        attack = evaluate.all_attacks(cfg)["pgd-20"]
        for split, images in (("train", dataset.train.first(40)), ("test", dataset.test)):
            rows = evaluate.per_sample(model, images, attack, compute.generator(0))
            assert row[split] == (rows.label == rows.predicted).mean() and row[f"{split}_loss"] == rows.loss.mean()
            clean = evaluate.per_sample(model, images, None, compute.generator(0))
            assert row[f"{split}_clean"] == (clean.label == clean.predicted).mean()
        rows = evaluate.per_sample(model, dataset.validation, attack, compute.generator(0))
        assert row.validation == (rows.label == rows.predicted).mean()
        assert 0 < row.test < row.test_clean

    def test_curves_and_sharpness_by_another_way(self, run, few):
        found, cfg = run[0], trajectory.recipe(small())
        model = train.model(cfg, run[2], "last", few, CPU)
        x, y = trajectory.fewer(few, 0.5).train.first(16).floats()
        alphas, way = found.curves["alphas"], filter_normalised(model, compute.generator(0))
        expected = landscape.curve(cfg, model, x, y, way, alphas)
        assert found.curves["last"][0] == pytest.approx(expected, rel=1e-6) and alphas.tolist() == [-1, -0.5, 0, 0.5, 1]
        assert np.array_equal(found.curves["last"], found.curves["along"][-1])
        assert found.curves["epochs"].tolist() == [2, 3, 4] and found.curves["along"].shape == (3, 2, 5)
        s = (expected[1] + expected[3]) / 2 - expected[2]
        rows = found.sharpness[found.sharpness.checkpoint == "last"]
        assert rows[(rows.split == "train") & (rows.direction == 0)].value.item() == pytest.approx(s, rel=1e-5)
        means = rows.groupby("split").value.mean()
        last = found.looks.iloc[-1]
        assert [last.sharpness, last.sharpness_test] == pytest.approx([means["train"], means["test"]])
        assert means["train"] != means["test"] and set(rows.images) == {16} and len(rows) == 4

    def test_one_row_an_image_at_both_checkpoints(self, run):
        rows = run[0].per_sample
        assert list(rows.columns) == ["method", "seed", "checkpoint", "split", "attack", "index", "label", "predicted"]
        counts = rows.groupby(["checkpoint", "split", "attack"]).size()
        assert counts.to_dict() == {(c, s, a): n for c in ("best", "last") for s, a, n in (
            ("train", "clean", 40), ("train", "pgd-20", 40), ("test", "clean", 50), ("test", "pgd-20", 50),
            ("test", "strong", 50))}
        hits = (rows.label == rows.predicted).groupby([rows.checkpoint, rows.split, rows.attack]).mean()
        assert (hits[:, "test", "strong"] <= hits[:, "test", "pgd-20"]).all()
        looks = run[0].looks.set_index("checkpoint")
        assert hits["best", "test", "pgd-20"] == looks.test["best"]

    def test_saved(self, run, tmp_path):
        run[0].save(tmp_path)
        looks = pd.read_csv(tmp_path / "looks.csv")
        assert list(looks.columns) == list(run[0].looks.columns) and looks.gap.to_numpy() == pytest.approx(
            run[0].looks.gap.to_numpy(), rel=1e-5)
        assert len(pd.read_csv(tmp_path / "per_sample.csv")) == 460
        with np.load(tmp_path / "curves.npz") as file:
            assert set(file) == {"alphas", "epochs", "along", "best", "last"}

    def test_best_is_the_epoch_that_training_chose(self, run):
        history = pd.DataFrame({"epoch": [1, 2, 3, 4], "clean": [0.5, 0.6, 0.9, 0.7], "robust": [0.1, 0.3, 0.3, 0.3]})
        assert trajectory.best_epoch(small(), history) == 3
        assert trajectory.best_epoch(small(method="standard"), history.assign(clean=0.5, robust=0.2)) == 1
        assert run[0].looks.epoch.iloc[-2] == trajectory.best_epoch(small(), run[2].history)


def test_the_stage_depends_on_the_method_but_not_on_what_is_read_off(project):
    found = stages.describe(next(i for i in stages.instances() if i.name == "trajectory@default-digits-pgd+awp-0"))
    assert {"lib.trajectory", "lib.methods.awp", "lib.landscape"} <= set(found["modules"])
    assert not {m for m in found["modules"] if m.startswith(("lib.figures", "lib.overfitting", "lib.published"))}
    assert found["config"]["digits"]["trajectory"]["every"] == 20 and "perturbation" not in found["config"]["digits"]


EPOCHS = [20, 60, 80, 100, 101, 120, 140, 200]


def looks(method="pgd", seed=0, s=(9, 1, 1.5, 2, 2, 3, 4, 5), test=(0.1, 0.4, 0.5, 0.6, 0.7, 0.6, 0.5, 0.4), gap=None,
          s_best=2.0):
    """A table of looks: half radius at epoch 20, a drop after epoch 100, best checkpoint in epoch 101."""
    gap = np.asarray(s if gap is None else gap, float) / 10
    table = pd.DataFrame({"method": method, "seed": seed, "checkpoint": "along", "epoch": EPOCHS,
                          "lr": np.where(np.array(EPOCHS) <= 100, 0.1, 0.01), "test_clean": 0.9, "test": test,
                          "train": np.asarray(test) + gap, "test_loss": 2.0, "gap": gap, "sharpness": s,
                          "radius": [0.5] + [1.0] * 7})
    ends = table.iloc[[4, 7]].assign(checkpoint=["best", "last"])
    ends.iloc[0, ends.columns.get_loc("sharpness")] = s_best
    return pd.concat([table, ends], ignore_index=True)


class TestReadings:
    def test_followed_by_hand(self):
        found = overfitting.followed(pd.concat([looks(), looks("trades", 1, gap=[0, *range(7, 0, -1)])]))
        first, second = found.iloc[0], found.iloc[1]
        assert [first[k] for k in ("start", "drop", "later", "end", "n")] == [60, 100, 140, 200, 7]
        assert [first[f"S_{k}"] for k in ("start", "drop", "later", "end")] == [1, 2, 4, 5]
        assert first["rank"] == pytest.approx(1) and second["rank"] < -0.9 and second.method == "trades"

    def test_a_constant_has_no_rank(self):
        assert classwise.rank_correlation([1, 2, 3], [5, 9, 7]) == pytest.approx(0.5)
        assert np.isnan(classwise.rank_correlation([1, 2, 3], [4, 4, 4]))

    def test_a_smooth_fall_is_no_drop(self):
        table = looks()
        assert overfitting.followed(table.assign(lr=0.1 * 0.97 ** table.epoch)).empty
        assert overfitting.followed(table[table.epoch != 101]).empty  # tenfold, but in twenty epochs
        only = overfitting.followed(table[table.epoch >= 100]).iloc[0]
        assert np.isnan(only.S_start) and only.S_drop == 2

    def test_best_and_last_by_hand(self):
        table = looks()
        table.loc[table.epoch == 140, "epoch"] = 196  # now among the last six
        found = overfitting.best_last(table).set_index("reading")
        assert found.loc["theirs", ["epoch", "best", "last", "fall", "looks"]].tolist() == pytest.approx(
            [101, 0.7, 0.45, 0.25, 8])
        assert found.loc["ours", ["epoch", "best", "last", "fall"]].tolist() == pytest.approx([101, 0.7, 0.4, 0.3])
        table.loc[(table.epoch == 80), "test"] = 0.9  # theirs takes what validation images did not choose
        assert overfitting.best_last(table).best.tolist() == [0.9, 0.7]

    def test_networks(self):
        found = overfitting.networks(pd.concat([looks(), looks("trades")]))
        assert found.network.tolist() == ["pgd", "trades", overfitting.EARLY]
        assert found.sharpness.tolist() == [5, 5, 2] and found.columns[0] == "network"

    def test_the_authors_logs_are_those_of_the_table(self):
        logs = published.awp_logs()
        falls = [8.35, 0.66, 3.22, 0.61, 6.95, 0.44, 6.06, 0.94, 8.87, 3.25, 1.84, 4.84, 8.15, 0.79]
        assert 100 * logs.fall.to_numpy() == pytest.approx(falls, abs=0.011)
        assert (logs.best >= logs.final).all() and logs[["best", "last_clean"]].stack().between(0.2, 1).all()
        assert logs.groupby(["dataset", "norm", "network"]).method.apply(list).map(set).eq({"pgd", "pgd+awp"}).all()
        assert logs.gap.notna().tolist() == (logs.method == "pgd").tolist() == logs.gamma.isna().tolist()
        assert logs[logs.attack == "pgd-10"].note.tolist() == ["Rice et al.'s log"] and (logs.best > logs["last"]).all()
        assert len(published.awp_logs("svhn")) == 4 and published.awp_logs("digits").empty


class TestFigures:
    @pytest.fixture(autouse=True)
    def style(self):
        figures.use_style()
        yield
        plt.close("all")

    @staticmethod
    def curves():
        """Curves whose g(0) is the epoch."""
        alphas = np.linspace(-1, 1, 5)
        along = np.array([e + np.tile(alphas**2, (2, 1)) for e in EPOCHS])
        return {"alphas": alphas, "epochs": np.array(EPOCHS), "along": along, "best": along[4], "last": along[7]}

    def test_along_training(self):
        table = looks()
        sharp = pd.DataFrame([{"checkpoint": "along", "split": "train", "epoch": e, "direction": d, "value": s + d}
                              for e, s in zip(EPOCHS, table.sharpness, strict=False) for d in (0, 2)])
        found = overfitting.along(table, sharp, self.curves())
        assert list(found["curves"]) == [60, 80, 100, 120, 140, 200] and found["drops"] == [100]
        assert list(overfitting.along(table, sharp, self.curves(), most=3)["curves"]) == [80, 120, 200]
        assert found["warmup"] == 40 and found["sharpness"]["mean"][1] == 2 and found["sharpness"]["high"][1] == 3
        valleys, rate, below = figures.along_training(**found, attack="pgd-20").axes
        assert [line.get_ydata()[2] for line in valleys.lines[:6]] == [60, 80, 100, 120, 140, 200]
        assert rate.lines[0].get_ydata().tolist() == pytest.approx((table.train[:8]).tolist())
        assert {t.get_text() for t in rate.texts} >= {"training 90%", "test 40%", "gap 50 points", "lr / 10"}
        assert below.lines[1].get_ydata().tolist() == pytest.approx([s + 1 for s in table.sharpness[:8]])

    def test_across_networks(self):
        tables = pd.concat([looks(m, seed, gap=np.arange(8) + seed) for m in ("pgd", "trades") for seed in range(3)])
        found = overfitting.across(tables, {(m, s): self.curves() for m in ("pgd", "trades") for s in range(3)})
        assert found["curves"]["trades"].shape == (6, 5) and found["curves"][overfitting.EARLY][0, 2] == 101
        assert found["estimates"]["pgd"][1]["mean"] == pytest.approx(0.8) and len(found["points"]["pgd"][0]) == 3
        left, right = figures.across_networks(**found).axes
        assert {t.get_text() for t in left.texts} == set(found["curves"])
        for line, name in zip(left.lines[-3:], found["curves"], strict=True):  # one marker stands for it in both
            mean = next(c for c in right.lines if c.get_marker() == line.get_marker() and len(c.get_xdata()) == 1)
            assert mean.get_color() == line.get_color()
            assert mean.get_ydata()[0] == pytest.approx(found["estimates"][name][1]["mean"])

    def test_names_keep_their_order_and_their_distance(self):
        heights = [20.0, 19.9, 19.9, 13.0, 19.95, 19.8]
        found = figures.apart(heights, 1.0)
        assert np.diff(np.sort(found)).min() > 1 - 1e-9 and found[0] == found.max() and found[3] == 13
