"""Temperature-PGD: where it is PGD, where it is the margin attack, where float32 ends it, and what chooses 1/T."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import attacks, compute, config, evaluate, figures, stats, temperature, train
from lib.config import Threat
from lib.params import ConfigError, DataError

CPU, LINF = torch.device("cpu"), Threat("Linf", 0.2)
BUDGET = {"threat": LINF, "steps": 5, "step_size": 0.3}


class Times(nn.Module):
    """A network whose logits are those of another, times a factor."""

    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


def examples(model, digits, k=None, **more):
    x, y = digits.test.first(64).floats()
    attack, at = (attacks.pgd, {}) if k is None else (attacks.temperature_pgd, {"inverse_temperature": k})
    return attack(model, x, y, generator=compute.generator(0), **BUDGET, **at, **more)


def direction(model, digits, loss):
    x, y = digits.test.first(64).floats()
    x.requires_grad_()
    return torch.autograd.grad(loss(model.eval()(x), y).sum(), x)[0]


class TestWhatTheAttackIs:
    def test_naive_at_one_is_pgd_bit_for_bit(self, model, digits):
        assert torch.equal(examples(model, digits, 1.0, stable=False), examples(model, digits))

    def test_stable_at_one_has_the_signs_of_cross_entropy(self, model, digits):
        ours, plain = (direction(model, digits, loss) for loss in (attacks.tempered(1.0), attacks.cross_entropy))
        clear = plain.abs() > 1e-4 * plain.abs().amax((1, 2, 3), keepdim=True)
        assert clear.float().mean() > 0.95 and torch.equal(ours.sign()[clear], plain.sign()[clear])

    def test_the_factor_is_on_the_logits(self, model, digits):
        """Cosines times s, attacked by PGD, are the bare cosines attacked at 1/T = s (powers of two are exact)."""
        assert torch.equal(examples(model, digits, 8.0, stable=False), examples(Times(model, 8.0), digits))
        assert torch.equal(examples(Times(model, 0.5), digits, 8.0), examples(model, digits, 4.0))

    def test_where_one_wrong_class_leads_by_far_it_is_the_margin_attack(self, digits):
        torch.manual_seed(0)
        head = nn.Linear(64, 10)
        head.bias.data[[3, 7]] += torch.tensor([40.0, 80.0])  # 3 leads for images of class 7, else 7
        linear = nn.Sequential(nn.Flatten(), head)
        for k in (1.0, 30.0):
            assert torch.equal(examples(linear, digits, k), examples(linear, digits, loss=attacks.margin))

    def test_large_is_the_margin_attack(self, model, digits):
        ours, margin = (direction(model, digits, loss) for loss in (attacks.tempered(1e5), attacks.margin))
        assert (ours.sign() == margin.sign()).float().mean() > 0.999

    def test_small_is_the_mean_of_the_wrong_logits(self, model, digits):
        def mean(logits, y):
            return (logits.sum(1) - logits.gather(1, y[:, None])[:, 0]) / 9 - logits.gather(1, y[:, None])[:, 0]
        ours, uniform = (direction(model, digits, loss) for loss in (attacks.tempered(1e-3), mean))
        assert (ours.sign() == uniform.sign()).float().mean() > 0.99

    def test_a_confident_network_stops_the_naive_form_alone(self, model, digits):
        confident = Times(model, 1e5)
        x, y = digits.test.first(64).floats()
        start = attacks.noise(model, x, y, threat=LINF, generator=compute.generator(0))
        sure = attacks.margin(model.eval()(start), y) < -0.005  # times 1e5: beyond what float32 keeps of exp
        naive, stable = (examples(confident, digits, 1.0, stable=s) for s in (False, True))
        assert sure.any() and torch.equal(naive[sure], start[sure])
        assert ((stable - start).abs().flatten(1).amax(1) > 0.1)[sure].all()


@pytest.fixture(scope="module")
def swept(digits):
    """A run of two epochs, explored: its configuration, what training left, the table and the log."""
    run = config.load("smoke", "digits", "pgd", 0)
    run, lines = replace(run, train=replace(run.train, epochs=2)), []
    trained = train.fit(run, digits, CPU, lambda line: None)
    return run, trained, temperature.explore(run, digits, trained, CPU, lines.append), lines


class TestExplore:
    def test_every_attack_has_the_same_passes(self, cfg, digits, model):
        x, y = digits.test.first(8).floats()
        passes = []
        model.register_forward_hook(lambda *_: passes.append(1))
        for name, k, attack in temperature.plan(cfg, 10)["test"]:
            if attack is not None:
                passes.clear()
                attack(model, x, y, generator=compute.generator(0))
                assert len(passes) == cfg.temperature.steps + name.startswith("apgd"), (name, k)

    def test_one_row_an_image_and_attack(self, swept, digits):
        cfg, _, table, lines = swept
        assert list(table.columns) == [*temperature.KEYS, "index", "label", "predicted", "loss", "margin", "peak"]
        sweep = 3 + 2 * len(cfg.temperature.inverse)
        rows = table.groupby("split").size()
        assert rows.validation == sweep * len(digits.validation) and rows.test == (sweep + 2) * len(digits.test)
        assert not table.duplicated([*temperature.KEYS, "index"]).any()
        assert len(lines) == 2 * sweep + 2 and lines[0].startswith(f"temperature 1/{len(lines)}  validation, clean: ")
        assert f"temperature {len(lines)}/{len(lines)}  test, apgd-dlr: " in lines[-1]

    def test_all_begin_at_the_same_point(self, swept):
        table = swept[2].set_index(["split", "index"])
        pgd = table[table.attack == "pgd"]
        naive = table[(table.attack == "temperature-naive") & (table.inverse_temperature == 1)]
        assert pgd[["predicted", "loss"]].equals(naive[["predicted", "loss"]])

    def test_rows_are_those_of_the_attack(self, swept, digits):
        cfg, trained, table, _ = swept
        attack = attacks.from_params("a", {"attack": "temperature_pgd", "inverse_temperature": 5.0,
                                           "steps": cfg.temperature.steps, "step_size": cfg.temperature.step_size},
                                     cfg.threat)
        model = train.model(cfg, trained, "last", digits, CPU)
        plain = evaluate.per_sample(model, digits.test, attack, compute.generator(cfg.seed))
        ours = table[(table.split == "test") & (table.attack == "temperature") & (table.inverse_temperature == 5)]
        assert ours.margin.tolist() == plain.margin.tolist()

    def test_dlr_needs_three_classes(self, cfg):
        assert [name for name, *_ in temperature.plan(cfg, 2)["test"]][-2:] == ["temperature-naive", "apgd"]

    @pytest.mark.parametrize("wrong", [[], [1, 0], [1, "1/2"]])
    def test_an_inverse_that_is_none_is_refused(self, cfg, wrong):
        with pytest.raises(ConfigError, match="temperature.inverse in params.yaml is .*: list numbers above 0"):
            temperature.plan(replace(cfg, temperature=replace(cfg.temperature, inverse=wrong)), 10)


def rows(rates, split="test", attack="temperature", seed=0, method="pgd", images=40):
    """Per-sample rows of ten classes: for each 1/T the share of the images of each class that is right."""
    label = np.arange(images) % 10
    turn = np.arange(images) // 10
    made = []
    for k, rate in rates.items():
        right = turn < np.round(images / 10 * np.broadcast_to(rate, 10))[label]
        made.append(pd.DataFrame({"method": method, "seed": seed, "split": split, "attack": attack,
                                  "inverse_temperature": k, "index": np.arange(images), "label": label,
                                  "predicted": np.where(right, label, (label + 1) % 10)}))
    return pd.concat(made, ignore_index=True)


class TestChosen:
    def test_the_lowest_on_validation_whatever_the_test_images_say(self):
        validation = rows({0.1: 0.75, 1.0: 0.5, 10.0: 0.25}, "validation")
        for test in ({0.1: 0.0, 1.0: 0.5, 10.0: 1.0}, {0.1: 1.0, 1.0: 0.0, 10.0: 1.0}, {}):
            table = pd.concat([validation, *([rows(test)] if test else [])])
            assert temperature.chosen(table) == 10.0

    @pytest.mark.parametrize(("tied", "expected"), [((0.1, 5.0, 20.0), 5.0), ((0.5, 5.0), 0.5), ((2.0, 0.5), 0.5)])
    def test_a_tie_goes_to_the_nearest_to_one(self, tied, expected):
        assert temperature.chosen(rows({k: 0.25 if k in tied else 0.5 for k in (1.0, *tied)}, "validation")) == expected

    def test_of_the_attack_that_is_asked_for(self):
        table = pd.concat([rows({1.0: 0.5, 5.0: 0.25}, "validation"),
                           rows({1.0: 0.25, 5.0: 0.5}, "validation", "temperature-naive")])
        assert (temperature.chosen(table), temperature.chosen(table, "temperature-naive")) == (5.0, 1.0)

    def test_without_validation_images_there_is_no_choice(self):
        with pytest.raises(DataError, match="no validation images under temperature: run stage temperature again"):
            temperature.chosen(rows({1.0: 0.5}))


@pytest.fixture
def several():
    """Two seeds that choose another 1/T, and PGD; class 0 is weaker by half under Temperature-PGD at 5."""
    uneven, nan = np.array([0.25, *[0.75] * 9]), float("nan")
    return pd.concat([
        rows({1.0: 0.75, 5.0: 0.5}, "validation", seed=0), rows({1.0: 0.25, 5.0: 0.5}, "validation", seed=1),
        rows({1.0: 0.75, 5.0: uneven}, seed=0), rows({1.0: 0.5, 5.0: uneven}, seed=1),
        rows({nan: 0.75}, attack="pgd", seed=0), rows({nan: 0.75}, attack="pgd", seed=1)], ignore_index=True)


class TestSummary:
    def test_each_seed_at_its_own_choice(self, several):
        found = temperature.summary(several).set_index(["attack", "inverse_temperature"])
        at = found.loc[temperature.CHOSEN].iloc[0]
        by_seed = [(0.25 + 9 * 0.75) / 10, 0.5]
        assert at.accuracy == pytest.approx(np.mean(by_seed)) and (at.seeds, at.images) == (2, 40)
        expected = stats.over_seeds(by_seed, within=(0, 1))
        assert (at.accuracy_low, at.accuracy_high) == pytest.approx((expected["low"], expected["high"]))
        classes = np.array([0.25, *[0.75] * 9])
        uneven = found.loc["temperature", 5.0]
        assert uneven[["sd", "variance", "spread"]].tolist() == pytest.approx([classes.std(), classes.var(), 0.5])
        assert found.loc["pgd"].iloc[0][["sd", "sd_low", "sd_high"]].tolist() == pytest.approx([0, 0, 0], abs=1e-12)

    def test_one_seed_has_intervals_over_images(self, several):
        found = temperature.summary(several[several.seed == 0]).set_index("attack").loc["pgd"]
        assert (found.accuracy_low, found.accuracy_high) == pytest.approx(tuple(map(float, stats.wilson(30, 40))))

    def test_gains_are_paired(self, several):
        found = temperature.gains(several).set_index(["quantity", "seed"])
        assert set(found.over) == {"pgd"}  # what the table does not have is left out
        rate = found.loc["attack rate"]
        assert rate["mean"].tolist() == pytest.approx([0.05, 0.25, 0.15])
        # Two images differ in seed 0, ten in seed 1, all of them fooled by Temperature-PGD alone: McNemar's exact test.
        assert rate.loc[[0, 1], "p"].tolist() == pytest.approx([0.5, 2 * 0.5**10]) and rate.n.tolist() == [40, 40, 2]
        assert found.loc[("sd", 0), "mean"] == pytest.approx(0.15) and found.loc[("spread", 0), "mean"] == 0.5
        assert rate.loc[0, "low"] < 0 < rate.loc[1, "low"]

    def test_arrays_have_a_row_a_seed(self, several):
        pgd, ours = (several[several.attack == name] for name in ("pgd", "temperature"))
        table = pd.concat([several, pgd.assign(attack="margin"), pgd.assign(attack="apgd"),
                           ours.assign(attack="temperature-naive")])
        slopes = pd.DataFrame([{"attack": a, "inverse_temperature": k, "zero": z, "agreement_margin": 1 - z}
                               for a, z in (("temperature", 0.0), ("temperature-naive", 0.5)) for k in (5.0, 1.0)])
        found = temperature.arrays(table, slopes)
        assert found["inverse"].tolist() == [1, 5] and found["chosen"].tolist() == [5, 1]
        assert found["accuracy"]["stable"].tolist() == pytest.approx(np.array([[0.75, 0.7], [0.5, 0.7]]))
        assert found["references"]["PGD"].tolist() == [0.75, 0.75] and found["zero"]["naive"].tolist() == [0.5, 0.5]


class TestGradients:
    def test_agrees_with_a_loop_over_images(self, cfg, digits, model):
        found = temperature.gradients(cfg, digits, model, CPU).set_index(["attack", "inverse_temperature"])
        x, y = digits.test.first(temperature.IMAGES).floats()
        start = attacks.noise(model, x, y, threat=cfg.threat, generator=compute.generator(cfg.seed))
        same = []
        for image, label in zip(start, y, strict=True):
            at = image[None].clone().requires_grad_()
            z = model.eval()(at)[0]
            others = torch.cat([z[:label], z[label + 1:]])
            tempered = torch.autograd.grad(F.cross_entropy(5 * z[None], label[None]), at, retain_graph=True)[0]
            margin = torch.autograd.grad(others.max() - z[label], at)[0]
            there = margin != 0
            same.append((tempered.sign() == margin.sign())[there].float().mean().item())
        row = found.loc[("temperature-naive", 5.0)]
        assert row.n == len(y) and row.agreement_margin == pytest.approx(np.mean(same), abs=2e-3)

    def test_the_trap_of_float32(self, cfg, digits, model):
        confident = Times(model, 1000.0)
        found = temperature.gradients(cfg, digits, confident, CPU).set_index(["attack", "inverse_temperature"])
        naive, stable = found.loc["temperature-naive"], found.loc["temperature"]
        assert not stable.zero.any() and not stable.missing.any() and (stable.agreement_margin > 0.99).all()
        x, y = digits.test.first(temperature.IMAGES).floats()
        start = attacks.noise(model, x, y, threat=cfg.threat, generator=compute.generator(cfg.seed))
        rounded = (confident.eval()(start) * 50).softmax(1).gather(1, y[:, None]) == 1
        assert naive.missing[50.0] == pytest.approx(rounded.float().mean().item()) and naive.missing[50.0] > 0.2
        assert naive.zero[50.0] > 0.2 and naive.agreement_margin[50.0] < 1 - naive.zero[50.0] + 0.01
        assert ((found.zero_low <= found.zero + 1e-9) & (found.zero <= found.zero_high)).all()

    def test_each_loss_agrees_with_itself(self, cfg, digits, model):
        found = temperature.gradients(cfg, digits, model, CPU).set_index(["attack", "inverse_temperature"])
        assert found.agreement_cross_entropy[("temperature-naive", 1.0)] == 1
        assert found.agreement_margin.loc["temperature"].is_monotonic_increasing


class TestFigure:
    numbers = {"inverse": np.array([1.0, 10.0, 0.1]), "chosen": np.array([10.0, 1.0]),
               "accuracy": {"stable": np.array([[0.5, 0.4, 0.6], [0.6, 0.5, 0.7]]),
                            "naive": np.array([[0.5, 0.9, 0.6], [0.6, 0.9, 0.7]])},
               "references": {name: np.array([0.4, 0.5]) + 0.1 * (name == "PGD") for name in ("PGD", "margin", "APGD")},
               "zero": {"stable": np.zeros(3), "naive": np.array([0, 1, 0])},
               "agreement": {"stable": np.ones(3), "naive": np.ones(3)}}

    def test_sweep_is_paired_with_pgd(self):
        keys = ("inverse", "accuracy", "references", "chosen")
        ax = figures.temperature_sweep(*(self.numbers[key] for key in keys))
        stable = next(line for line in ax.lines if line.get_color() == figures.OKABE_ITO[0])
        assert stable.get_xdata().tolist() == [0.1, 1, 10] and stable.get_ydata() == pytest.approx([10, 0, -10])
        rings = [(*line.get_xdata(), *line.get_ydata()) for line in ax.lines if line.get_marker() == "o"]
        assert np.array(rings) == pytest.approx(np.array([[10, -10], [1, 0]]))
        said = {text.get_text(): text.get_position()[1] for text in ax.texts}
        assert "90%" in [*said][-1] and said["margin"] != said["APGD"]  # equal lines, names apart
        low, high = ax.get_ylim()
        assert low < -10 and 10 < high < 35

    def test_panels_share_their_axes_and_are_equal_files(self, tmp_path):
        figures.use_style()
        for name in "ab":
            figure = figures.temperature_panels({"pgd": self.numbers, "trades": self.numbers})
            figures.save(figure, tmp_path / f"{name}.svg", "digits")
        assert len(figure.axes) == 6 and figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
        plt.close("all")
