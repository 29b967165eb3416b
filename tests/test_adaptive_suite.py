"""The attacks of the full evaluation, each against a brute force or a known answer; its tables and checks."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import adaptive, attacks, compute, config, evaluate, figures, train
from lib.adaptive import ADAPTIVE, PUBLISHED, ascent
from lib.adaptive.checks import hits, white
from lib.config import Threat
from lib.methods.ducat import Recovered, hard
from lib.params import ConfigError

CPU, LINF, L2 = torch.device("cpu"), Threat("Linf", 0.2), Threat("L2", 0.7)


@pytest.fixture(scope="module")
def run():
    """DUCAT on digits in smoke."""
    return config.load("smoke", "digits", "pgd+ducat", 0)


@pytest.fixture(scope="module")
def ducat(run, digits):
    """A network whose dummies were used in the last two of four epochs."""
    return train.model(run, train.fit(run, digits, CPU, lambda line: None), "last", digits, CPU)


@pytest.fixture(scope="module")
def two(digits):
    """Some images and labels."""
    return digits.test.first(60).floats()


def right(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) == y


class Linear(nn.Module):
    """A linear classifier of small images."""

    def __init__(self, outputs, values, seed=0):
        super().__init__()
        generator = compute.generator(seed)
        self.layer = nn.Linear(values, outputs)
        self.layer.weight.data = torch.randn(outputs, values, generator=generator)
        self.layer.bias.data = -0.5 * self.layer.weight.data.sum(1)

    def forward(self, x):
        return self.layer(x.flatten(1))


class TestSuite:
    def test_every_attack_as_published_has_a_twin(self, run, ducat):
        found = adaptive.suite(run, ducat)
        tiers = [tier for _, tier, _ in found]
        assert tiers == sorted(tiers) and set(tiers) == {f"T{i}" for i in range(7)}
        published = {name for protocol, _, name in found if protocol == PUBLISHED}
        ours = {name: tier for protocol, tier, name in found if protocol == ADAPTIVE}
        assert published == {"fgsm", "pgd-10", "pgd-20", "pgd-5", "quick", "quick-n2", "pgd-10-targeted", "square",
                             "noise"}
        assert published < set(ours) and ours["quick"] == "T4" and ours["square"] == "T5" and ours["clean"] == "T0"
        assert {n for n, tier in ours.items() if tier == "T2"} == {
            f"{kind}-{pair}" for kind in ("pgd", "apgd")
            for pair in ("ce-max", "margin-max", "dlr-max", "ce-lse", "margin-lse")}
        assert {n for n, tier in ours.items() if tier == "T5"} == {"square", "rays", *(
            f"transfer-{source}-{loss}" for source in ("trunk", "classes") for loss in ("ce", "margin"))}

    def test_what_cannot_be_run_is_left_out(self, run):
        plain = {name for _, _, name in adaptive.suite(run, dummies=False)}
        assert not any(name.startswith("transfer") for name in plain)
        euclidean = {name for _, _, name in adaptive.suite(replace(run, threat=L2))}
        assert {"square", "rays"} & euclidean == set() < {"square", "rays"} & plain

    def test_autoattack_itself_is_the_headline_and_report_stands_in_where_pairs_are_needed(self, run):
        final = replace(run, evaluate=replace(run.evaluate, tier="final"))
        found = adaptive.suite(final)
        assert isinstance(found[ADAPTIVE, "T4", "final"], evaluate.Reference)
        names = {key for key in found if "final" in key[2] or "report" in key[2]}
        assert names == {(PUBLISHED, "T1", "final"), (ADAPTIVE, "T4", "final"), (PUBLISHED, "T1", "report-n2"),
                         (ADAPTIVE, "T1", "report-n2"), (ADAPTIVE, "T4", "report-raw"), (ADAPTIVE, "T4", "report-lse")}

    def test_transfer_is_from_the_trunk_and_from_the_classes_alone(self, run, ducat, model, two):
        x, y = two
        found = adaptive.suite(run, model)
        sources = {"trunk": model, "classes": lambda z: ducat.raw(z)[:, :10]}
        for source, network in sources.items():
            with attacks.under_attack(ducat), attacks.under_attack(model):
                at = attacks.project(x + attacks.uniform_in_ball(x, LINF, compute.generator(0)), x, LINF)
                for _ in range(20):
                    z = at.clone().requires_grad_()
                    gradient, = torch.autograd.grad(attacks.margin(network(z), y).sum(), z)
                    at = attacks.project(at + attacks.step(gradient, LINF, 0.125 * LINF.eps), x, LINF)
            x_adv = found[ADAPTIVE, "T5", f"transfer-{source}-margin"](ducat, x, y, generator=compute.generator(0))
            assert torch.allclose(x_adv, at, atol=1e-6)

    @pytest.mark.parametrize("threat", [LINF, L2], ids=str)
    def test_every_example_is_within_the_threat_model(self, run, ducat, two, threat):
        x, y = (part[:12] for part in two)
        for key, attack in adaptive.suite(replace(run, threat=threat), ducat).items():
            if attack is not None:
                before = x.clone()
                x_adv = attack(ducat, x, y, generator=compute.generator(0))
                delta = (x_adv - x).flatten(1)
                size = delta.abs().amax(1) if threat.norm == "Linf" else delta.norm(dim=1)
                assert size.max() <= threat.eps + 1e-6, key
                assert x_adv.min() >= 0 and x_adv.max() <= 1 and torch.equal(x, before) and x_adv.dtype == x.dtype, key
                assert not ducat.training and all(p.requires_grad for p in ducat.parameters())


class TestTracked:
    """PGD that tells success at every iterate, against a record of all iterates."""

    numbers = {"threat": LINF, "steps": 12, "step_size": 0.25}

    def brute(self, model, x, y, pair, generator):
        """One restart by hand: the first iterate that fools, or that of the highest loss; and who was fooled."""
        now = attacks.project(x + attacks.uniform_in_ball(x, LINF, generator), x, LINF)
        seen, losses, fooled = [], [], []
        for _ in range(13):
            z = now.clone().requires_grad_()
            r = {"max": hard, "raw": lambda v: v}[pair](model.raw(z))
            loss = attacks.margin(r, y)
            gradient, = torch.autograd.grad(loss.sum(), z)
            seen, losses = [*seen, now], [*losses, loss.detach()]
            fooled.append(~right(model, now, y))
            now = attacks.project(now + attacks.step(gradient, LINF, 0.25 * LINF.eps), x, LINF)
        fooled, losses = torch.stack(fooled), torch.stack(losses)
        at = torch.where(fooled.any(0), fooled.int().argmax(0), losses.argmax(0))
        return torch.stack(seen)[at, torch.arange(len(x))], fooled.any(0), fooled[-1]

    @pytest.mark.parametrize("pair", ["max", "raw"])
    def test_it_keeps_the_first_iterate_that_fools(self, ducat, two, pair):
        x, y = (part[right(ducat, *two)] for part in two)
        ducat.requires_grad_(False)
        expected, fooled, last = self.brute(ducat, x, y, pair, compute.generator(3))
        attack = ascent.tracked_pgd(attacks.margin, pair, restarts=1, **self.numbers)
        found = attack(ducat, x, y, generator=compute.generator(3))
        ducat.requires_grad_(True)
        assert torch.allclose(found, expected, atol=1e-6) and torch.equal(~right(ducat, found, y), fooled)
        assert fooled.sum() > last.sum() if pair == "raw" else fooled.any()  # the last iterate alone would miss some

    def test_a_restart_has_what_is_left(self, ducat, two, monkeypatch):
        x, y = two
        asked, real = [], attacks.pgd
        monkeypatch.setattr(attacks, "pgd", lambda model, x, y, **more: asked.append(len(x)) or real(
            model, x, y, **more))
        attack = ascent.tracked_pgd(attacks.cross_entropy, "lse", threat=Threat("Linf", 0.03), steps=3, step_size=0.5,
                                    restarts=3)
        found = attack(ducat, x, y, generator=compute.generator(0))
        clean = right(ducat, x, y)
        assert asked[0] == clean.sum() and asked[0] > asked[1] >= asked[2] >= right(ducat, found, y).sum() > 0
        assert torch.equal(found[~clean], x[~clean])

    def test_the_soft_pair_is_dawas_gradient(self, ducat, two):
        x, y = two
        with attacks.under_attack(ducat):
            a, b = (x.clone().requires_grad_() for _ in range(2))
            one, = torch.autograd.grad(attacks.cross_entropy(torch.logaddexp(*ducat.raw(a).chunk(2, 1)), y).sum(), a)
            z = ducat.raw(b)
            w = torch.stack([z.gather(1, y[:, None]), z.gather(1, y[:, None] + 10)], 1).softmax(1).detach()[:, :, 0]
            both = w[:, 0] * attacks.cross_entropy(z, y) + w[:, 1] * attacks.cross_entropy(z, y + 10)
            other, = torch.autograd.grad(both.sum(), b)
        assert torch.allclose(one, other, atol=1e-5)


class TestTargets:
    def test_on_the_hard_pair_it_is_targeted_auto_pgd(self, ducat, two):
        x, y = (part[right(ducat, *two)] for part in two)
        ours = ascent.targeted_dlr("max", threat=LINF, steps=6, targets=4)(ducat, x, y, generator=compute.generator(0))
        theirs = attacks.apgd_targeted(ducat, x, y, threat=LINF, steps=6, targets=4, generator=compute.generator(0))
        assert torch.equal(right(ducat, ours, y), right(ducat, theirs, y))
        assert torch.equal(ours[~right(ducat, ours, y)], theirs[~right(ducat, theirs, y)])

    def test_every_class_and_its_dummy_is_a_target(self, ducat, two, monkeypatch):
        x, y, tried = *two, []

        def apgd(view, x, y, *, loss, **more):
            z = ducat.raw(x)
            values = torch.stack([z.gather(1, t.expand(len(x))[:, None]).squeeze(1) for t in torch.arange(20)], 1)
            label = hard(z).gather(1, y[:, None])
            reached = (values - label - loss(view(x), y)[:, None]).abs() < 1e-5
            assert (reached.sum(1) == 1).all()
            tried.append(reached.int().argmax(1))
            return x
        monkeypatch.setattr(attacks, "apgd", apgd)
        clean = right(ducat, x, y)
        for pair, each in (("raw", 18), ("max", 9)):
            tried.clear()
            if pair == "max":
                monkeypatch.setattr(attacks, "apgd", lambda view, x, y, *, loss, **more: tried.append(
                    (hard(ducat.raw(x)) - hard(ducat.raw(x)).gather(1, y[:, None]) - loss(view(x), y)[:, None]
                     ).abs().argmin(1)) or x)
            ascent.multi_targeted(pair, threat=LINF, steps=1)(ducat, x, y, generator=compute.generator(0))
            targets = torch.stack(tried, 1)
            assert targets.shape == (clean.sum(), each)
            for label, row in zip(y[clean].tolist(), targets.tolist(), strict=True):
                outputs = range(20) if pair == "raw" else range(10)
                assert sorted(row) == [t for t in outputs if t % 10 != label]
                if pair == "raw":
                    assert row[0] + 10 == row[1]

    def test_it_finds_the_one_class_that_is_in_reach(self):
        """Output 7, the dummy of class 3, can be reached and no other class; few targets miss it."""
        class Model(nn.Module):
            def forward(self, x):
                v = x.flatten(1)[:, 0]
                fixed = torch.tensor([1.0, 0.9, 0.8, -1e3, 0.0, 0.0, 0.0]).expand(len(x), 7)
                return torch.cat([fixed, 500 * (v[:, None] - 0.55)], 1)
        model, x, y = Recovered(Model()), torch.full((5, 1, 8, 8), 0.36), torch.zeros(5, dtype=torch.int64)
        for pair in ("max", "raw"):
            for targets, fooled in ((2, False), (3, True)):
                found = ascent.multi_targeted(pair, threat=LINF, steps=5, targets=targets)(
                    model, x, y, generator=compute.generator(0))
                assert (~right(model, found, y)).all() == fooled == (~right(model, found, y)).any()

    def test_towards_classes_never_aims_at_a_dummy(self, ducat, two, monkeypatch):
        x, y, calls, real = *two, [], attacks.pgd

        def kept(model, x, target, **more):
            calls.append((model, target, real(model, x, target, **more)))
            return calls[-1][2]
        monkeypatch.setattr(attacks, "pgd", kept)
        for protocol, faced in ((PUBLISHED, ducat.raw), (ADAPTIVE, ducat)):
            calls.clear()
            attack = ascent.towards_classes(protocol, threat=LINF, steps=5, step_size=0.3)
            found = attack(ducat, x, y, generator=compute.generator(0))
            assert all(model is faced and target.max() < 10 for model, target, _ in calls) and 1 < len(calls) <= 9
            assert len(calls[0][1]) == len(y) and (calls[0][1] != y).all()
            for (_, target, x_adv), (_, later, _) in zip(calls, calls[1:], strict=False):
                assert len(later) == (~right(faced, x_adv, target)).sum()  # an image whose target is reached is done
            assert (~right(ducat, found, y)).sum() > (~right(ducat, x, y)).sum()

    def test_it_raises_the_probability_of_its_target(self):
        model = Linear(4, 9)
        x, y = torch.rand(30, 1, 3, 3, generator=compute.generator(1)), torch.arange(30) % 4
        attack = ascent.towards_classes(ADAPTIVE, threat=Threat("Linf", 1.0), steps=20, step_size=0.2, targets=1)
        found = attack(model, x, y, generator=compute.generator(0))
        target = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
        assert torch.equal(model(found).argmax(1), target)


class OneHot(nn.Module):
    """A classifier that says nothing but its label; it counts the images that it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, x):
        logits = self.model(x)
        self.asked += len(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(x) * 7


class TestRays:
    def test_labels_are_enough(self, ducat, two):
        x, y = two
        one, other = (adaptive.rays(m, x, y, threat=LINF, queries=60) for m in (ducat, OneHot(ducat)))
        assert torch.equal(one, other) and not one.requires_grad
        assert right(ducat, one, y).sum() < right(ducat, x, y).sum() / 2

    def test_it_finds_the_corner_of_a_linear_classifier(self):
        """The smallest radius is |margin| / ||w||_1, where no pixel meets the border of the cube."""
        model, generator = Linear(2, 36), compute.generator(2)
        x = 0.5 + 0.1 * torch.rand(200, 1, 6, 6, generator=generator)
        y = model(x).argmax(1)
        w = model.layer.weight.data[0] - model.layer.weight.data[1]
        least = attacks.margin(model(x), y).detach().neg() / w.abs().sum()
        eps = least.median().item()
        found = adaptive.rays(model, x, y, threat=Threat("Linf", eps), queries=1000)
        fooled = ~right(model, found, y)
        clear = (least - eps).abs() > 0.002  # the tolerance of the radius
        assert torch.equal(fooled[clear], (least < eps)[clear]) and 50 < clear.sum()

    def test_queries_are_counted(self, ducat, two):
        x, y = (part[right(ducat, *two)] for part in two)
        for queries in (20, 50):
            model = OneHot(ducat)
            adaptive.rays(model, x, y, threat=Threat("Linf", 1e-4), queries=queries)
            assert queries * len(y) <= model.asked <= (queries + 11) * len(y)
        model = OneHot(ducat)
        adaptive.rays(model, x, (y + 1) % 10, threat=LINF, queries=50)
        assert model.asked == len(y)  # wrong from the start

    def test_it_refuses_l2(self, ducat, two):
        with pytest.raises(ConfigError, match="rays is written for Linf"):
            adaptive.rays(ducat, *two, threat=L2, queries=5)


def rows_of(protocol, tier, attack, predicted, labels, raw=None):
    return pd.DataFrame({"method": "m", "seed": 0, "protocol": protocol, "tier": tier, "attack": attack,
                         "index": range(len(labels)), "label": labels, "predicted": predicted,
                         "raw": predicted if raw is None else raw})


def test_where_examples_end_up():
    table = rows_of(PUBLISHED, "T1", "fgsm", [0, 1, 0, 2, 1], [0, 1, 0, 1, 2], raw=[0, 4, 3, 2, 4])
    table = pd.concat([table, rows_of(ADAPTIVE, "T0", "clean", [0, 1], [0, 1], raw=[0, 1])])
    found = adaptive.ends(table, 3).set_index("attack")
    assert found.loc["fgsm", list(adaptive.ENDS)].tolist() == [0.2, 0.4, 0.2, 0.2] and found.loc["fgsm", "n"] == 5
    assert found.loc["clean", list(adaptive.ENDS)].tolist() == [1, 0, 0, 0] and found.loc["clean", "tier"] == "T0"


@pytest.fixture(scope="module")
def tables(run, ducat, digits):
    lines = []
    images = digits.test.first(40)
    small = replace(run, adaptive=replace(run.adaptive, radii=[1, 4], many=[2, 5]))
    table = adaptive.table(small, ducat, images, CPU, ducat, log=lines.append)
    return table, adaptive.sweeps(small, ducat, images, CPU, log=lines.append), lines, images


class TestTables:
    def test_a_row_for_each_image_and_attack(self, tables, run, ducat):
        table, sweeps, lines, images = tables
        assert list(table.columns) == ["method", "seed", "protocol", "tier", "attack", "index", "label", "predicted",
                                       "raw"]
        sizes = table.groupby(["protocol", "tier", "attack"], sort=False).size()
        assert list(sizes.index) == list(adaptive.suite(run, ducat))
        assert sizes[ADAPTIVE, "T5", "rays"] == run.adaptive.decisions == 10 and set(sizes) == {10, 40}
        x, y = images.floats()
        for protocol, faced in ((PUBLISHED, ducat.raw), (ADAPTIVE, ducat)):
            fgsm = attacks.fgsm(faced, x, y, threat=run.threat)
            one = table[(table.protocol == protocol) & (table.attack == "fgsm")]
            assert one.predicted.tolist() == ducat(fgsm).argmax(1).tolist()
            assert one.raw.tolist() == ducat.raw(fgsm).argmax(1).tolist()
        assert len([line for line in lines if line.startswith("attack ")]) == len(sizes)
        assert set(sweeps.columns) == {"method", "seed", "protocol", "sweep", "value", "index", "label", "predicted"}
        assert len(sweeps) == 2 * 4 * 40

    def test_attacks_along_gradients(self, tables):
        """As published these are of T1, but Square on the 2C logits is none of them."""
        table, _, _, _ = tables
        assert set(white(table, PUBLISHED)) == {"fgsm", "pgd-10", "pgd-20", "pgd-5", "quick", "quick-n2",
                                                "pgd-10-targeted"}
        ours = set(white(table, ADAPTIVE))
        assert ours > set(white(table, PUBLISHED)) and {"quick-lse", "multi-raw", "pgd-ce-lse"} < ours
        assert not ours & {"square", "rays", "noise", "clean", "transfer-trunk-ce"}

    def test_the_same_attack_is_run_once(self, run, ducat, model, digits, monkeypatch):
        images, calls, real = digits.test.first(6), [], adaptive.per_sample
        monkeypatch.setattr(import_module("lib.adaptive.suite"), "per_sample",  # the package's `suite` is the function
                            lambda *given: calls.append(given[2]) or real(*given))
        small = replace(run, adaptive=replace(run.adaptive, steps=2, queries=5, radii=[1], many=[2]))
        table = adaptive.table(small, model, images, CPU, log=lambda line: None)
        both = table.pivot(index="index", columns=["attack", "protocol"], values="predicted")
        twins = [name for name, protocol in both.columns if protocol == PUBLISHED]
        assert len(twins) == 9 and all(both[n, PUBLISHED].equals(both[n, ADAPTIVE]) for n in twins)
        assert len(calls) == 17 < len(adaptive.suite(small, dummies=False))
        calls.clear()
        adaptive.sweeps(small, model, images, CPU, log=lambda line: None)
        assert len(calls) == 1  # of both protocols, and both sweeps
        adaptive.sweeps(small, ducat, images, CPU, log=lambda line: None)
        assert len(calls) == 3

    def test_the_radius_grows(self, run, ducat, digits):
        images = digits.test.first(40)
        wide = replace(run, adaptive=replace(run.adaptive, steps=20, radii=[0, 1, 100], many=[5]))
        found = adaptive.sweeps(wide, ducat, images, CPU, log=lambda line: None)
        rate = (found.label == found.predicted).groupby([found.protocol, found.sweep, found.value]).mean()
        clean = right(ducat, *images.floats()).double().mean().item()
        assert rate[ADAPTIVE, "radii", 0] == rate[PUBLISHED, "radii", 0] == clean
        assert rate[ADAPTIVE, "radii", 100] == 0 < rate[ADAPTIVE, "radii", 0]

    def test_rates_put_twins_together(self, tables):
        table, _, _, _ = tables
        rates = adaptive.rates(table)
        quick = rates[rates.attack == "quick"]
        assert set(quick.tier) == {"T4"} and set(quick.protocol) == {PUBLISHED, ADAPTIVE} and len(rates) == len(
            table.drop_duplicates(["protocol", "attack"]))
        one = table[(table.protocol == PUBLISHED) & (table.attack == "quick")]
        assert quick.set_index("protocol").accuracy[PUBLISHED] == (one.label == one.predicted).mean()
        worst = adaptive.worst_accuracy(table)
        assert worst[ADAPTIVE]["accuracy"] == adaptive.worst_case(table, [], ADAPTIVE).hit.mean()
        assert worst[ADAPTIVE]["low"] <= worst[ADAPTIVE]["accuracy"] <= worst[ADAPTIVE]["high"]


class TestChecks:
    """Tables by hand: 1,000 images of one class, of which an attack fools the last so many."""

    def table(self, **fooled):
        found = []
        for name, count in {"fgsm": 200, "pgd_20": 400, "n1": 450, "noise": 10, **fooled}.items():
            protocol = ADAPTIVE if name.endswith("_") or name in ("square", "transfer_trunk_ce") else PUBLISHED
            tier = {"noise": "T6", "square": "T5", "transfer_trunk_ce": "T5"}.get(name.strip("_"), "T1")
            predicted = np.where(np.arange(1000) >= 1000 - count, 1, 0)
            found.append(rows_of(protocol, tier, name.strip("_").replace("_", "-"), predicted, np.zeros(1000, int)))
        return pd.concat(found)

    def verdicts(self, table, many=(5, 10), steps=(450, 450), radii=(600, 1000)):
        found = []
        for protocol in (PUBLISHED, ADAPTIVE):
            for sweep, values, counts in (("steps", many, steps), ("radii", (1, 8), radii)):
                for value, count in zip(values, counts, strict=True):
                    one = rows_of(protocol, "", "", np.where(np.arange(1000) >= 1000 - count, 1, 0), [0] * 1000)
                    found.append(one.assign(sweep=sweep, value=value))
        return {a.name: a.verdict for a in adaptive.checks(table, pd.concat(found))}

    ours = {"fgsm_": 200, "pgd_20_": 500, "n1_": 600, "noise_": 10}

    def test_a_network_as_robust_as_it_looks(self):
        found = self.verdicts(self.table(**self.ours, square=440, transfer_trunk_ce=300), radii=(600, 1000))
        assert set(found.values()) == {"pass"} and len(found) == 15

    def test_an_attack_that_sees_less_and_fools_more(self):
        found = self.verdicts(self.table(**self.ours, square=460, transfer_trunk_ce=550))
        assert [name for name, verdict in found.items() if verdict == "ALARM"] == [
            "black-box, as published", "transfer, as published"]
        few = self.verdicts(self.table(**self.ours, square=452, transfer_trunk_ce=453))
        assert set(few.values()) == {"pass"}  # three images are luck

    def test_nothing_to_compare_with_is_not_judged(self):
        found = self.verdicts(self.table(**self.ours))
        assert {name for name, verdict in found.items() if verdict == "not judged"} == {
            f"{check}, {protocol}" for check in ("black-box", "transfer") for protocol in (PUBLISHED, ADAPTIVE)}

    def test_steps_and_radii(self):
        table = self.table(**self.ours, square=440, transfer_trunk_ce=300)
        sounded = {"more steps fool fewer": self.verdicts(table, steps=(450, 400)),
                   "more steps fool more": self.verdicts(table, steps=(450, 700)),
                   "robust to anything": self.verdicts(table, radii=(600, 640)),
                   "a larger radius fools fewer": self.verdicts(table, radii=(1000, 600))}
        names = {what: {n.split(",")[0] for n, v in found.items() if v == "ALARM"} for what, found in sounded.items()}
        assert names == {"more steps fool fewer": {"ordering"}, "more steps fool more": {"steps"},
                         "robust to anything": set(), "a larger radius fools fewer": {"sweep"}}

    def test_chance_is_the_largest_class(self):
        table = self.table(**self.ours, square=440, transfer_trunk_ce=300)
        sweeps = pd.concat([rows_of(p, "", "", [0] * 500 + [1] * 500, [0] * 400 + [2] * 600).assign(sweep=s, value=v)
                            for p in (PUBLISHED, ADAPTIVE) for s, v in (("steps", 5), ("radii", 8))])
        found = {a.name: a for a in adaptive.checks(table, sweeps)}
        assert found["large-eps, adaptive"].value == 0.4 and found["large-eps, adaptive"].limit == 0.6
        assert found["sweep, adaptive"].verdict == "not judged"

    def test_the_adaptive_attacks_have_to_be_the_stronger_ones(self):
        found = self.verdicts(self.table(**self.ours | {"n1_": 300, "pgd_20_": 300}, square=100, transfer_trunk_ce=1))
        assert found["no weaker, adaptive"] == "ALARM"

    def test_an_image_that_an_attack_was_not_given_is_right_under_it(self):
        table = self.table(**self.ours, rays_=5)
        assert not hits(table)[ADAPTIVE, "rays"].all()
        table = pd.concat([table[table.attack != "rays"], table[table.attack == "rays"].head(4)])
        assert hits(table)[ADAPTIVE, "rays"].all() and len(hits(table)) == 1000


class TestFigures:
    def test_a_mark_for_each_protocol(self):
        one, other = ({"accuracy": a, "low": a - 0.1, "high": a + 0.05} for a in (0.8, 0.3))
        figure = figures.protocol_accuracy({"first": {"a": {PUBLISHED: one, ADAPTIVE: other}, "b": {ADAPTIVE: one}}},
                                           {PUBLISHED: one, ADAPTIVE: other})
        ax, = figure.axes
        marks = {tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "o"}
        assert marks == {(0.8, 1), (0.3, 1), (0.8, 2)}
        assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
        assert [line.get_xdata()[0] for line in ax.lines if line.get_xydata()[0, 0] == line.get_xydata()[1:, 0].max(
            initial=-1)] == [0.8, 0.3]  # the worst cases, upright

    def test_bars_add_up(self):
        figure = figures.raw_ends({"none": {"clean": [0.9, 0.06, 0.04, 0]}}, ["a", "b", "c", "d"])
        ax, = figure.axes
        assert np.allclose([(bar.get_x(), bar.get_width()) for bar in ax.patches],
                           [(0, 0.9), (0.9, 0.06), (0.96, 0.04), (1, 0)])
        assert [text.get_text() for text in ax.texts] == ["none", "90%", "6%"]
