"""Trained gates: known answers, brute force, networks of which the answer follows from their g, and planted faults."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats as scipy_stats
from torch import nn

from lib import activations, attacks, compute, evaluate, models
from lib.activations.sparta import Bias, Constant, Sparta
from lib.config import Threat
from lib.gating import ablations, gates, identities, radius
from lib.params import ConfigError

CPU = torch.device("cpu")
KNOBS = {"form": "gate", "slope": True, "start": "zero", "one_map": False, "kernel": 3, "reduction": 16}
CONTEXTS = {"bias": "bias", "map": "map", "pooled": "pooled", "sparta": "spatial"}


def network(cfg, digits, name, scale=0.5):
    """An untrained network with this activation of the ladder, whose g and slopes are moved away from their start."""
    torch.manual_seed(3)
    one = activations.build("sparta", {**KNOBS, "context": CONTEXTS[name]}) if name in CONTEXTS else (
        activations.build(name))
    model = models.build(cfg.model, digits.shape, len(digits.classes), digits.statistics, one)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in activations.learned(model):
            for parameter in module.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=draw)
    return model.eval()


@pytest.fixture
def few(cfg):
    """Few images, few halvings."""
    return replace(cfg, gates=replace(cfg.gates, images=12, pictures=2, halvings=3))


@pytest.fixture
def ladder(cfg, digits):
    """Networks of every activation of the stage."""
    return {name: network(cfg, digits, name) for name in ("relu", "bias", "map", "pooled", "sparta", "silu")}


def features_like(shape=(3, 4, 5, 5), seed=0):
    """Random features."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestGate:
    @pytest.mark.parametrize("name", ["relu", "silu", "gelu", "bias", "pooled", "sparta"])
    def test_is_the_output_over_the_input(self, name):
        x = features_like()
        make = activations.build("sparta", {**KNOBS, "context": CONTEXTS[name]}) if name in CONTEXTS else (
            activations.build(name))
        module = make(4)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.3
            assert torch.allclose(gates.gate(module, x), module(x) / x, atol=1e-4)

    def test_at_zero(self):
        zero = torch.zeros(1, 1, 1, 1)
        assert gates.gate(nn.ReLU(), zero).item() == 0 and gates.gate(nn.SiLU(), zero).item() == 0.5
        assert gates.gate(Sparta(torch.ones(1), Constant(torch.tensor(1.0))), zero).item() == pytest.approx(
            1 / (1 + np.exp(-1)))
        assert gates.gate(nn.GELU(), zero).isnan().all()

    def test_the_parts_of_a_sigmoid(self):
        x, g = features_like(), Constant(torch.full((4, 1, 1), 0.7))
        own, rest = gates.logits(Sparta(torch.full((4,), 2.0), g), x)
        assert torch.equal(own, 2 * x) and torch.equal(rest, torch.full_like(x, 0.7))
        assert torch.equal(gates.logits(Sparta(None, g), x)[0], torch.zeros_like(x))
        assert gates.logits(nn.ReLU(), x) is None and gates.logits(Sparta(None, g, "add"), x) is None

    def test_features_are_those_of_the_sites(self, ladder, digits):
        x, model = digits.test.first(7).floats()[0], ladder["sparta"]
        model.train()
        for site in models.sites(model):
            before, after = gates.features(model, site.name, x)
            with torch.no_grad():
                assert torch.equal(model.get_submodule(site.name)(before), after)
        assert model.training and not any(m._forward_hooks for m in model.modules())
        first = gates.features(model, models.sites(model)[0].name, x)[0]
        model.eval()
        with torch.no_grad():
            assert torch.equal(first, model[1].features[:2](model[0](x)))


class TestMeasures:
    def test_deviations_by_numpy(self):
        values = features_like()
        values[0, 1, 2, 2] = torch.nan
        array = values.numpy().astype(float)
        assert np.allclose(gates.over_positions(values), np.nanstd(array, axis=(2, 3)).mean(1), atol=1e-6)
        assert gates.over_images(values) == pytest.approx(np.nanstd(array, axis=0).mean(), abs=1e-6)
        assert torch.equal(gates.over_positions(features_like((3, 4, 1, 1))), torch.zeros(3))

    def test_moved_and_noise_by_hand(self):
        clean = torch.tensor([[0.0, 1.0, 0.2, 0.9], [0.5, 0.5, torch.nan, 0.5]]).view(2, 4, 1, 1)
        attacked = torch.tensor([[1.0, 0.4, 0.3, 0.9], [0.5, 1.1, 0.0, 0.2]]).view(2, 4, 1, 1)
        by, flipped = gates.moved(clean, attacked)
        assert np.allclose(by, [1.7 / 4, 0.3]) and np.allclose(flipped, [2 / 4, 1 / 3])
        x, d = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).view(2, 2, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
        noise = gates.noise(x, x + d)
        assert noise[0].item() == pytest.approx(0.2) and noise[1].isnan()

    def test_the_table_knows_what_g_looks_at(self, few, ladder, digits):
        shown = gates.examples(few, ladder, digits, CPU)
        table = gates.table(few, ladder, shown, log=lambda line: None)
        assert list(table.columns) == gates.COLUMNS and len(table) == 5 * len(ladder) and (table.n == 12).all()
        assert list(table["size"][:5]) == [8, 8, 4, 4, 1] and list(table.channels[:5]) == [16, 16, 32, 32, 128]
        assert (table.spatial[table["size"] == 1] < 1e-7).all() and (table.spatial[table["size"] > 1] > 0.01).all()
        wide = table[table["size"] > 1].set_index("activation")
        for name, (place, image) in {"bias": (0, 0), "silu": (0, 0), "map": (1, 0), "pooled": (0, 1),
                                     "sparta": (1, 1)}.items():
            assert ((wide.g_spatial[name] > 0.01) == place).all() and ((wide.g_across[name] > 0.01) == image).all()
            assert (wide.x_spatial[name] > 0.01).all() and wide.saturated[name].between(0, 1).all()
        relu = wide.loc["relu"]
        assert relu[["saturated", "g_spatial", "x_across"]].isna().all(axis=None)
        assert np.allclose(relu.flipped, relu.moved) and (relu.noise > 0).all()

    def test_one_row_by_brute_force(self, few, ladder, digits):
        shown = gates.examples(few, ladder, digits, CPU)
        row = gates.table(few, {"silu": ladder["silu"]}, shown, log=lambda line: None).iloc[1]
        model, name = ladder["silu"], models.sites(ladder["silu"])[1].name
        clean, attacked = (gates.features(model, name, x)[0] for x in (shown.x, shown.attacked["silu"]))
        s, t = clean.sigmoid().double().numpy(), attacked.sigmoid().double().numpy()
        each = s.std(axis=(2, 3)).mean(1)
        low, high = scipy_stats.t.interval(0.95, 11, each.mean(), scipy_stats.sem(each))
        assert (row.spatial, row.spatial_low, row.spatial_high) == pytest.approx((each.mean(), low, high), abs=1e-6)
        assert row.across == pytest.approx(s.std(axis=0).mean(), abs=1e-6)
        assert row.flipped == pytest.approx((abs(s - t) > 0.5).mean(), abs=1e-6)
        assert row.saturated == pytest.approx((s * (1 - s) < 1e-3).mean(), abs=1e-6)
        out, moved = F.silu(clean), F.silu(attacked)
        assert row.noise == pytest.approx(np.mean([((b - a).norm() / a.norm()).item()
                                                   for a, b in zip(out, moved, strict=True)]), abs=1e-6)

    def test_saturation(self):
        x = torch.full((2, 1, 2, 2), 20.0)
        found = gates.measures(nn.SiLU(), (x, F.silu(x)), (x, F.silu(x)))
        assert found["saturated"] == 1 and found["moved"] == 0
        assert gates.measures(nn.SiLU(), (x / 20, x), (x, x))["saturated"] == 0

    def test_examples_are_those_of_the_headline_attack(self, few, ladder, digits):
        shown = gates.examples(few, ladder, digits, CPU)
        attack = evaluate.few_attacks(few)[few.evaluate.headline]
        assert torch.equal(shown.x, digits.test.first(12).floats()[0])
        for name in ("relu", "sparta"):
            again = attack(ladder[name], shown.x, shown.y, generator=compute.generator(0))
            assert torch.equal(shown.attacked[name], again)
        assert not torch.equal(shown.attacked["relu"], shown.attacked["sparta"])


class TestPictures:
    def test_arrays(self, few, ladder, digits):
        shown = gates.examples(few, ladder, digits, CPU)
        found = gates.pictures(few, ladder, shown, digits)
        assert list(found["activations"]) == ["relu", "silu", "sparta"] and found["inputs"].shape == (2, 2, 8, 8)
        assert found["gates_0"].shape == (3, 2, 2, 8, 8) and found["gates_1"].shape == (3, 2, 2, 4, 4)
        assert np.array_equal(found["inputs"][:, 0], shown.x[:2, 0]) and np.array_equal(found["labels"], shown.y[:2])
        assert np.array_equal(found["inputs"][:, 1], found["attacked"][2])
        seen = digits.train.first(few.evaluate.training_images).floats()[0]
        for s, site in enumerate(found["sites"]):
            outputs = np.stack([gates.features(ladder[name], site, seen)[1].numpy().mean(axis=(0, 2, 3))
                                for name in found["activations"]])
            channel = (outputs / abs(outputs).max(1, keepdims=True)).sum(0).argmax()
            assert found["channels"][s] == channel
            for a, name in enumerate(found["activations"]):
                assert np.array_equal(found["attacked"][a], shown.attacked[name][:2, 0])
                for side, x in enumerate((shown.x, shown.attacked[name])):
                    before = gates.features(ladder[name], site, x[:2])[0]
                    whole = gates.gate(ladder[name].get_submodule(site), before).numpy()
                    assert np.allclose(found[f"gates_{s}"][a, :, side], whole[:, channel], atol=1e-6)

    def test_sites_of_two_sizes_in_a_residual_network(self, cfg):
        model = models.build(replace(cfg.model, name="resnet18", width=2), (3, 32, 32), 10, ([0.5] * 3, [0.2] * 3))
        sites = gates.first_sites(model, torch.rand(2, 3, 32, 32))
        before = [gates.features(model, site.name, torch.rand(1, 3, 32, 32))[0].shape[-1] for site in sites]
        assert before == [32, 16] and sites[0] == models.sites(model)[0]

    def test_colour(self):
        x = torch.rand(2, 3, 4, 5)
        assert np.array_equal(gates._image(x)[1, 2, 3], x[1, :, 2, 3]) and gates._image(x[:, :1]).shape == (2, 4, 5)


class TestAblations:
    def test_what_is_taken_away(self, cfg, ladder, digits):
        model, (x, _) = ladder["sparta"], digits.train.first(40).floats()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found, maps = ablations.ablated(model, x), ablations.mean_maps(model, x)
        for site in models.sites(model):
            h = gates.features(model, site.name, x)[0]
            g = {name: one.get_submodule(site.name).g(h).detach().expand_as(h) for name, one in found.items()}
            assert torch.allclose(maps[site.name], g["none"].mean(0), atol=1e-5)
            assert torch.allclose(g["averaged"], g["none"].mean((2, 3), keepdim=True).expand_as(h), atol=1e-5)
            assert torch.equal(g["fixed"], maps[site.name].expand_as(h))
            assert torch.allclose(g["constant"], maps[site.name].mean((1, 2))[:, None, None].expand_as(h), atol=1e-5)
            if h.shape[-1] == 1:
                assert torch.equal(g["averaged"], g["none"]) and torch.equal(g["constant"], g["fixed"])
        assert found["none"] is model
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    @pytest.mark.parametrize(("name", "same"), [("bias", {"averaged", "fixed", "constant"}), ("map", {"fixed"}),
                                                ("pooled", {"averaged"}), ("sparta", set())])
    def test_nothing_changes_where_there_is_nothing_to_take(self, ladder, digits, name, same):
        x = digits.train.first(30).floats()[0]
        found = ablations.ablated(ladder[name], x)
        with torch.no_grad():
            said = {one: net(x) for one, net in found.items()}
        close = {one for one in said if one != "none" and torch.allclose(said[one], said["none"], atol=1e-4)}
        assert close == same

    def test_an_attack_follows_the_averaged_g(self):
        x = features_like().requires_grad_()
        g = nn.Conv2d(4, 4, 1)
        gradient, = torch.autograd.grad(ablations.Averaged(g)(x).sum(), x)
        assert torch.allclose(gradient, (g.weight.sum((0, 2, 3)) / 25)[None, :, None, None].expand_as(x), atol=1e-6)

    def test_detached_says_the_same_and_its_gradient_is_that_of_a_constant_gate(self, ladder, digits):
        x = digits.test.first(6).floats()[0]
        model, copied = ladder["sparta"], ablations.detached(ladder["sparta"])
        assert torch.equal(model(x), copied(x))
        site = models.sites(model)[0].name
        h = gates.features(model, site, x)[0].requires_grad_()
        one, other = model.get_submodule(site), copied.get_submodule(site)
        gradient, = torch.autograd.grad(other(h).sum(), h)
        full, = torch.autograd.grad(one(h).sum(), h)
        s = one.logits(h).sigmoid()
        expected = s + one.slope[:, None, None] * h * s * (1 - s)
        assert torch.allclose(gradient, expected, atol=1e-5) and not torch.allclose(full, expected, atol=1e-2)

    def test_only_sparta_has_a_g(self, ladder):
        with pytest.raises(ConfigError, match="only Sparta has a g"):
            ablations.detached(ladder["silu"])

    def test_table_and_changes(self, cfg, ladder, digits):
        small, lines = replace(digits, test=digits.test.first(40)), []
        rows = ablations.table(cfg, ladder["sparta"], small, CPU, log=lines.append)
        sizes = rows.groupby(["ablation", "attack"], sort=False).size()
        names = ["clean", cfg.evaluate.headline, "strong"]
        assert list(sizes.index) == [(a, n) for a in ("none", "averaged", "fixed", "constant", "detached")
                                     for n in names if (a, n) != ("detached", "clean")] and (sizes == 40).all()
        assert len(lines) == 5 and (rows.activation == "sparta").all()
        attack = evaluate.few_attacks(cfg)[names[1]]
        x, y = small.test.floats()
        x_adv = attack(ablations.detached(ladder["sparta"]), x, y, generator=compute.generator(0))
        chosen = rows[(rows.ablation == "detached") & (rows.attack == names[1])]
        assert np.array_equal(chosen.predicted, ladder["sparta"](x_adv).argmax(1))
        found = ablations.changes(rows).set_index(["attack", "ablation"])
        fixed = rows[(rows.ablation == "fixed") & (rows.attack == "clean")]
        intact = rows[(rows.ablation == "none") & (rows.attack == "clean")]
        error = (fixed.label != fixed.predicted).mean()
        row = found.loc["clean", "fixed"]
        assert row.error == error and row.change == pytest.approx(error - (intact.label != intact.predicted).mean())
        assert row.change_low <= row.change <= row.change_high and found.change.isna().sum() == 3


def rows_of(none, detached):
    """Rows of two attacks from the images that each leaves right."""
    parts = []
    for ablation, hits in ((ablations.NONE, none), (ablations.DETACHED, detached)):
        for attack in ("pgd-20", "strong"):
            parts.append(pd.DataFrame({"method": "pgd", "seed": 0, "activation": "sparta", "ablation": ablation,
                                       "attack": attack, "index": range(len(hits)), "label": 1, "predicted": hits}))
    return pd.concat(parts, ignore_index=True)


class TestDetachedCheck:
    def test_alarm_only_where_detached_is_stronger(self, cfg):
        right, wrong = np.r_[np.ones(60, int), np.zeros(40, int)], np.r_[np.ones(30, int), np.zeros(70, int)]
        stronger = ablations.checks(cfg, rows_of(right, wrong)).set_index("check")
        assert list(stronger.verdict) == ["ALARM"] * 3 and stronger.value["detached, gain"] == pytest.approx(0.3)
        assert stronger.value["detached, strong"] == pytest.approx(0.3)
        weaker = ablations.checks(cfg, rows_of(wrong, right))
        assert list(weaker.verdict) == ["pass"] * 3 and list(weaker.columns) == [
            "method", "seed", "activation", "check", "verdict", "value", "limit", "note"]

    def test_a_g_with_a_misleading_gradient_sounds_it(self, cfg, model, digits):
        class Misleading(nn.Module):
            """g = 0, whose gradient points anywhere."""

            def forward(self, x):
                """Zero, with a gradient."""
                wild = 1e3 * x * torch.cos(1e4 * x)
                return wild - wild.detach()

        def planted(g):
            """The network with gates so steep that they are ReLU's, and this g."""
            net = network(cfg, digits, "bias", scale=0.0)
            net.load_state_dict(model.state_dict(), strict=False)
            for _, module in ablations.gated(net):
                module.slope.data.fill_(50.0)
                module.g = g
            return net

        small = replace(digits, test=digits.test.first(60), train=digits.train.first(10))
        run, verdicts = replace(cfg, threat=replace(cfg.threat, eps=0.1)), {}
        for name, g in (("masked", Misleading()), ("honest", Constant(torch.zeros(())))):
            rows = ablations.table(run, planted(g), small, CPU, log=lambda line: None)
            verdicts[name] = list(ablations.checks(run, rows).verdict)
        assert verdicts["masked"][0] == verdicts["masked"][2] == "ALARM" and verdicts["honest"] == ["pass"] * 3


class Linear(nn.Module):
    """Logits W x of images (N, C, H, W)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        """Logits (N, classes)."""
        return x.flatten(1) @ self.weight.T


class TestRadius:
    def test_bisection(self):
        least, calls = torch.tensor([0.0, 0.01, 0.3, 0.55, 1.0, 1.001, 7.0]), []

        def fooled(places, radius):
            """Whoever has reached its threshold."""
            calls.append(len(places))
            return radius >= least[places]

        found = radius.least_radius(fooled, len(least), 1.0, 6)
        assert found[0] == 0 and found[5:].isinf().all()
        assert ((found[1:5] >= least[1:5]) & (found[1:5] <= least[1:5] + 2**-6)).all()
        assert calls == [7, 6, *[4] * 6]
        assert radius.least_radius(lambda i, r: torch.ones(len(i), dtype=bool), 3, 1.0, 4).eq(0).all()
        assert radius.least_radius(lambda i, r: torch.zeros(len(i), dtype=bool), 3, 1.0, 4).isinf().all()

    @pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.03), ("L2", 0.08)])
    def test_of_a_linear_classifier(self, few, norm, eps):
        draw = torch.Generator().manual_seed(1)
        weight = torch.randn((2, 9), generator=draw)
        model = Linear(weight - weight.mean(1, keepdim=True))  # so that grey images lie on the border
        x, y = 0.5 + 0.1 * torch.randn((40, 1, 3, 3), generator=draw), torch.zeros(40, dtype=torch.long)
        run = replace(few, threat=Threat(norm, eps))
        found = radius.least_radius(radius.by_attack(run, model, x, y, CPU), 40, eps, 8)
        normal = (model.weight[1] - model.weight[0]).detach()
        margin = -(x.flatten(1) @ normal)
        exact = margin / (normal.abs().sum() if norm == "Linf" else normal.norm())
        expected = torch.where(margin < 0, 0, torch.where(exact > eps, torch.inf, exact))
        inside = expected.isfinite()
        assert 0 < (expected == 0).sum() < inside.sum() < 40 and torch.equal(found.isfinite(), inside)
        assert torch.allclose(found[inside], expected[inside], atol=eps / 50)

    def test_only_pgd(self, few, ladder, digits):
        x, y = digits.test.first(2).floats()
        with pytest.raises(ConfigError, match="evaluate.headline"):
            radius.by_attack(replace(few, evaluate=replace(few.evaluate, headline="fgsm")), ladder["relu"], x, y, CPU)

    @pytest.mark.parametrize("norm", ["Linf", "L2"])
    def test_lipschitz_of_a_linear_map(self, norm):
        draw = torch.Generator().manual_seed(2)
        weight = torch.randn((3, 4), generator=draw)
        x = 0.5 + 0.1 * torch.rand((30, 1, 2, 2), generator=draw)
        found = radius.lipschitz(Linear(weight), x, threat=Threat(norm, 0.2), steps=20, step_size=0.125,
                                 generator=compute.generator(0))
        signs = [torch.tensor(s) for s in itertools.product((-1.0, 1.0), repeat=4 if norm == "Linf" else 3)]
        exact = max((weight @ s).abs().sum() for s in signs) if norm == "Linf" else max(
            (weight.T @ s).norm() for s in signs)
        assert (found <= exact + 1e-4).all() and found.max() == pytest.approx(exact.item(), rel=1e-3)
        assert found.min() > 0.4 * exact  # the attack may end in a lesser maximum

    def test_table(self, few, ladder, digits):
        two = {name: ladder[name] for name in ("relu", "sparta")}
        rows = radius.table(few, two, digits, CPU, log=lambda line: None)
        assert list(rows.columns) == ["method", "seed", "activation", "index", "label", "radius", "lipschitz",
                                      "margin"] and list(rows.groupby("activation").size()) == [12, 12]
        finite = rows.radius[np.isfinite(rows.radius)]
        assert set((8 * finite / few.threat.eps).round(4)) <= set(range(9))
        x, y = digits.test.first(12).floats()
        with torch.no_grad():
            right = (ladder["sparta"](x).argmax(1) == y).numpy()
        of = rows[rows.activation == "sparta"]
        assert np.array_equal(of.radius > 0, right) and np.array_equal(of.margin > 0, right)
        assert (of.lipschitz > 0).all() and list(of["index"]) == list(range(12))


class TestIdentities:
    def test_hold_for_any_trained_sparta(self, cfg, ladder, digits):
        x = digits.test.first(10).floats()[0]
        found = identities.table(cfg, ladder["sparta"], x).set_index("identity")
        assert len(found) == 4 and (found.difference <= found.bound).all() and (found.bound < 1e-4).all()
        assert (found.n == 10 * (2 * 16 * 64 + 2 * 32 * 16 + 128)).all() and list(found.columns) == [
            "method", "seed", "difference", "bound", "n"]

    def test_the_gap_of_a_steep_slope(self):
        t = np.linspace(0, 5, 100_001)
        assert (t / (1 + np.exp(t))).max() == pytest.approx(identities.RELU_GAP, abs=1e-4)
        assert (t / (1 + np.exp(t))).max() <= identities.RELU_GAP

    def test_a_wrong_gate_breaks_them(self, cfg, ladder, digits, monkeypatch):
        right = Sparta.logits
        monkeypatch.setattr(Sparta, "logits", lambda self, x: right(self, x) + 0.01 * x.roll(1, 2))
        found = identities.table(cfg, ladder["sparta"], digits.test.first(10).floats()[0]).set_index("identity")
        assert (found.difference > found.bound)[["g = 0: Swish", "g = 0, slope 1: SiLU"]].all()

    def test_a_bias_that_is_not_the_last_one_breaks_its_identity(self, ladder, monkeypatch):
        x = features_like((2, 16, 3, 3))
        module = ladder["sparta"].get_submodule(models.sites(ladder["sparta"])[0].name)
        monkeypatch.setattr(Bias, "forward", lambda self, x: self.bias[:, None, None] + 0.1)
        with torch.no_grad():
            one, other, bound = identities.related(module, x)["W2 = 0: bias"]
        assert (one - other).abs().max() > bound


def test_attacks_are_within_the_ball(few, ladder, digits):
    shown = gates.examples(few, ladder, digits, CPU)
    assert all(((x - shown.x).abs() <= few.threat.eps + 1e-6).all() and attacks.project(x, shown.x, few.threat).equal(x)
               for x in shown.attacked.values())
