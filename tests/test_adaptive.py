"""The two protocols: what each attack faces, when it stops, and who tells success."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from lib import adaptive, attacks, compute, config, evaluate, methods, sources, train
from lib.adaptive import ADAPTIVE, PUBLISHED
from lib.config import Threat
from lib.data import Images
from lib.methods.ducat import Recovered, hard
from lib.params import ConfigError

CPU, CLASSES = torch.device("cpu"), 4


class Trap(nn.Module):
    """2C logits: a class is the mean of its 16 pixels; every dummy is far above its class once any of 16 others moves.

    In float32 the softmax is one-hot, so the cross-entropy of the 2C logits has no gradient but from class to dummy.
    """

    def forward(self, x):
        pixels = x.flatten(1)
        classes = 1e4 * pixels[:, :64].view(-1, CLASSES, 16).mean(2)
        moved = 1e6 * (pixels[:, 64:] - 0.5).abs().sum(1, keepdim=True) - 1
        return torch.cat([classes, classes + moved], 1)


@pytest.fixture
def trapped():
    """The constructed classifier, and images whose class is 0.12 above the others: eps = 0.1 is enough to change it."""
    y = torch.arange(40) % CLASSES
    x = torch.full((40, 80), 0.5)
    for label in range(CLASSES):
        x[y == label, 16 * label:16 * (label + 1)] += 0.12
    return Recovered(Trap()), x.view(40, 1, 8, 10), y


@pytest.fixture(scope="module")
def ducat(digits):
    """A network with dummies that were used: four epochs of PGD, the last two with DUCAT."""
    run = config.load("smoke", "digits", "pgd+ducat", 0)
    trained = train.fit(run, digits, CPU, lambda line: None)
    return run, train.model(run, trained, "last", digits, CPU)


class Float(Images):
    """Images that are float already."""

    def in_order(self, batch_size):
        yield from zip(self.x.split(batch_size), self.y.split(batch_size), strict=True)


def rate(model, x, y, attack, seed=0):
    rows = adaptive.per_sample(model, Float(x, y), attack, compute.generator(seed))
    return (rows.label == rows.predicted).mean()


@pytest.mark.parametrize("tier", ["quick", "report"])
def test_a_dummy_that_always_wins_is_robust_as_published_and_not_at_all_adaptively(cfg, trapped, tier):
    model, x, y = trapped
    run = replace(cfg, threat=Threat("Linf", 0.1), evaluate=replace(cfg.evaluate, tier=tier),
                  adaptive=replace(cfg.adaptive, steps=20))
    found, ours = adaptive.suite(run), adaptive.few(run)
    assert rate(model, x, y, None) == 1
    assert [rate(model, x, y, found[PUBLISHED, "T1", name]) for name in ("fgsm", "pgd-10", "pgd-20", tier)] == [1] * 4
    assert rate(model, x, y, found[PUBLISHED, "T6", "noise"]) == 1
    assert rate(model, x, y, found[ADAPTIVE, "T4", tier]) == 0
    assert rate(model, x, y, found[ADAPTIVE, "T2", "pgd-margin-max"]) == 0
    assert [rate(model, x, y, ours[key]) for key in ((PUBLISHED, "pgd-10"), (PUBLISHED, tier), (ADAPTIVE, tier))
            ] == [1, 1, 0]
    x_adv = found[PUBLISHED, "T1", "pgd-10"](model, x, y, generator=compute.generator(0))
    assert (model.raw(x_adv).argmax(1) == y + CLASSES).all() and (model.raw(x).argmax(1) == y).all()


def test_protocols_are_the_same_bits_without_dummies(cfg, digits, model):
    run = replace(cfg, adaptive=replace(cfg.adaptive, queries=60), evaluate=replace(cfg.evaluate, tier="report"))
    found, images = adaptive.suite(run), digits.test.first(25)
    twins = [(key, attack) for key, attack in found.items() if key[0] == PUBLISHED]
    by_name = {key[2]: attack for key, attack in found.items() if key[0] == ADAPTIVE}
    for (_, _, name), attack in twins:
        one, other = (adaptive.per_sample(model, images, a, compute.generator(0)) for a in (attack, by_name[name]))
        assert one.equals(other), name
        assert (one.raw == one.predicted).all()
    assert {"fgsm", "pgd-10", "pgd-20", "report", "report-n2", "square", "pgd-10-targeted"} <= {k[2] for k, _ in twins}


def test_pairs_are_the_logits_without_dummies(cfg, digits, model):
    found, images = adaptive.suite(cfg), digits.test.first(30)

    def said(name):
        return adaptive.per_sample(model, images, found[name], compute.generator(0))
    for few, more in (("T2", "apgd-ce"), ("T2", "pgd-margin")):
        assert said((ADAPTIVE, few, f"{more}-max")).equals(said((ADAPTIVE, few, f"{more}-lse")))
    assert said((ADAPTIVE, "T3", "multi-max")).equals(said((ADAPTIVE, "T3", "multi-raw")))
    quick = said((ADAPTIVE, "T4", "quick"))
    assert quick.equals(said((ADAPTIVE, "T4", "quick-raw"))) and quick.equals(said((ADAPTIVE, "T4", "quick-lse")))


def test_dummies_that_never_started_make_no_difference():
    """The strongest attack: at most 0.3 points, or a single image. The last iterate of PGD hits or misses by chance."""
    run = config.load("default", "digits", "pgd+ducat", 0)
    never = run.knobs | {"ducat": run.knobs["ducat"] | {"start": 1}}
    run = replace(run, train=replace(run.train, epochs=6), knobs=never)
    images = sources.prepare(run)
    network = train.model(run, train.fit(run, images, CPU, lambda line: None), "last", images, CPU)
    found, test = adaptive.suite(run), images.test
    for name, points in (("report", 0.003), ("fgsm", 0.01), ("pgd-10", 0.01)):
        both = [adaptive.per_sample(network, test, found[key], compute.generator(0)) for key in found if key[2] == name]
        right = [(rows.label == rows.predicted).sum() for rows in both]
        assert len(right) == 2 and abs(right[0] - right[1]) <= max(points * len(test), 1), name
        assert 0.3 < right[0] / len(test) < 0.9


class TestView:
    def test_it_gives_the_deployed_logits_and_keeps_the_raw_ones(self, ducat, digits):
        _, model = ducat
        view, (x, _) = adaptive.View(model), digits.test.first(20).floats()
        with torch.no_grad():
            assert torch.equal(view(x), model(x)) and torch.equal(view.logits, model.raw(x))
            z = model.raw(x)
            assert torch.equal(view.pairs("max"), hard(z)) and torch.equal(view.pairs("raw"), z)
            by_hand = torch.stack([torch.logsumexp(z[:, [k, k + 10]], 1) for k in range(10)], 1)
            assert torch.allclose(view.pairs("lse"), by_hand, atol=1e-5)
        with pytest.raises(ConfigError, match="unknown pair 'sum'.*max, lse, raw"):
            view.pairs("sum")

    def test_without_dummies_every_pair_is_the_logits(self, model, digits):
        view, (x, _) = adaptive.View(model), digits.test.first(5).floats()
        logits = view(x)
        assert all(torch.equal(view.pairs(kind), logits) for kind in ("max", "lse", "raw"))
        assert adaptive.raw(model) is model

    def test_success_is_told_by_the_deployed_classifier(self, trapped):
        """Auto-PGD on the 2C logits reaches the dummy at once, and goes on, since the view is not fooled by it."""
        model, x, y = trapped
        asked = []

        def loss(logits, y):
            asked.append(len(y))
            return attacks.cross_entropy(logits, y)
        attack = adaptive.adaptive(attacks.apgd, loss, "raw", threat=Threat("Linf", 0.1), steps=5, restarts=3)
        attack(model, x, y, generator=compute.generator(0))
        assert asked == [40] * 18  # no image is done before the last restart
        asked.clear()
        alone = adaptive.published(lambda *given, generator: attacks.apgd(
            *given, generator=generator, threat=Threat("Linf", 0.1), steps=5, restarts=3, loss=loss))
        alone(model, x, y, generator=compute.generator(0))
        assert asked == [40] * 6


def test_an_image_whose_raw_prediction_is_a_dummy_is_never_attacked_in_n1(ducat, digits):
    run, model = ducat
    x, y = digits.test.floats()
    found = adaptive.suite(run)[PUBLISHED, "T1", "quick"](model, x, y, generator=compute.generator(0))
    with torch.no_grad():
        said = model.raw(x).argmax(1)
    trapped = said == y + 10
    assert 10 < trapped.sum() < len(y) and (said == y).sum() > 10
    assert torch.equal(found[said != y], x[said != y]) and (found[said == y] != x[said == y]).flatten(1).any(1).all()


def test_n2_goes_on_where_the_deployed_classifier_is_right(ducat, digits, monkeypatch):
    run, model = ducat
    (x, y), given = digits.test.floats(), []

    def keep(kind):
        def attack(model, x, y, **numbers):
            given.append((kind, x, model))
            return attacks.noise(model, x, y, threat=numbers["threat"], generator=numbers["generator"])
        return attack
    monkeypatch.setitem(attacks.ATTACKS, "apgd", keep("apgd"))
    monkeypatch.setitem(attacks.ATTACKS, "pgd", keep("pgd"))
    monkeypatch.setattr(attacks, "from_params", lambda name, numbers, threat: (
        lambda m, x, y, *, generator: attacks.ATTACKS[numbers["attack"]](m, x, y, threat=threat, generator=generator)))
    n2 = adaptive.suite(run)[PUBLISHED, "T1", "quick-n2"]
    with torch.no_grad():
        n2(model, x, y, generator=compute.generator(0))
        (first, seen, faced), (second, later, _) = given
        assert (first, second) == ("apgd", "pgd") and faced is model.raw
        right = model(x).argmax(1) == y
        assert torch.equal(seen, x[right]) and (model.raw(seen).argmax(1) >= 10).any()
        noisy = attacks.noise(model, seen, y[right], threat=run.threat, generator=compute.generator(0))
        assert torch.equal(later, seen[model(noisy).argmax(1) == y[right]]) and 0 < len(later) < len(seen)


def test_a_row_says_what_both_predict(ducat, digits):
    _, model = ducat
    rows = adaptive.per_sample(model, digits.test, None, None, batch_size=64)
    x, y = digits.test.floats()
    with torch.no_grad():
        z = model.raw(x)
    assert rows.raw.tolist() == z.argmax(1).tolist() and rows["index"].tolist() == list(range(len(y)))
    assert rows.predicted.tolist() == (z.argmax(1) % 10).tolist() and rows.label.tolist() == y.tolist()
    assert (rows.raw >= 10).any()


def test_worst_case_groups_by_image():
    rows = pd.DataFrame([(ADAPTIVE, "clean", 0, 1, 1), (ADAPTIVE, "clean", 1, 2, 2), (ADAPTIVE, "clean", 2, 3, 0),
                         (PUBLISHED, "pgd-10", 0, 1, 1), (PUBLISHED, "pgd-10", 1, 2, 0), (PUBLISHED, "pgd-10", 2, 3, 3),
                         (ADAPTIVE, "rays", 0, 1, 7)],  # one image alone
                        columns=["protocol", "attack", "index", "label", "predicted"])
    assert adaptive.worst_case(rows, [], PUBLISHED).hit.tolist() == [True, False, False]
    assert adaptive.worst_case(rows, [], ADAPTIVE).hit.tolist() == [False, True, False]
    assert adaptive.worst_case(rows, []).hit.tolist() == [False, False, False]
    two = pd.concat([rows.assign(seed=0), rows.assign(seed=1, predicted=rows.label)])
    assert adaptive.worst_case(two, ["seed"]).groupby("seed").hit.sum().tolist() == [0, 3]


def test_few_attacks_on_many_networks(ducat, digits):
    run, model = ducat
    rows = adaptive.attacked(run, model, {"test": digits.test.first(20), "train": digits.train.first(10)}, CPU)
    assert rows.groupby("split").size().to_dict() == {"test": 120, "train": 60}
    assert set(zip(rows.protocol, rows.attack, strict=True)) == set(adaptive.few(run))
    same = evaluate.per_sample(model, digits.test.first(20), None, None)
    clean = rows[(rows.attack == "clean") & (rows.split == "test")]
    assert clean.predicted.tolist() == same.predicted.tolist()


def test_the_trunk_is_what_training_kept(project, digits):
    run = config.load("smoke", "digits", "pgd+ducat", 0)
    assert adaptive.trunk(run, digits, CPU) is None
    network = train.initial(replace(run, seed=7), methods.build(run), digits, CPU)
    run.folder("train").mkdir(parents=True)
    torch.save(train.snapshot(network), run.folder("train") / "trunk.pt")
    found, (x, _) = adaptive.trunk(run, digits, CPU), digits.test.first(8).floats()
    assert not found.training and torch.equal(found(x), network.eval()(x))
