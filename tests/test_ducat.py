"""DUCAT and Consistency-AT against their formulas, computed a second time in numpy's float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from formulas import built, cross_entropy, divergence, logits, moment, noisy
from scipy.special import log_softmax, logsumexp, softmax

from lib import attacks, compute, config, train
from lib.methods import ducat
from lib.methods.consistency import jensen_shannon
from lib.params import ConfigError

CPU = torch.device("cpu")
OBJECTIVES = ("pgd", "trades", "mart", "consistency")


def network(cfg, digits, spec, scale=30.0):
    """An untrained network that is sure of what it says, rightly or not, in eval mode."""
    model = train.initial(replace(cfg, method=spec), built(cfg, spec), digits, CPU).eval()
    with torch.no_grad():
        getattr(model, "raw", model)[1].head.weight.mul_(scale)
    return model


@pytest.fixture
def batch(digits):
    return noisy(digits)


def shannon(z, other, temperature):
    p, q = softmax(z / temperature, 1), softmax(other / temperature, 1)
    return (divergence(np.log(p), np.log((p + q) / 2)) + divergence(np.log(q), np.log((p + q) / 2))) / 2


def two_hot(z, y, w):
    """H of a two-hot label, from the label itself."""
    label = np.zeros(z.shape)
    label[np.arange(len(y)), y] += 1 - w
    label[np.arange(len(y)), y + z.shape[1] // 2] += w
    return -(label * log_softmax(z, 1)).sum(1)


def test_a_dummy_counts_as_its_class(cfg, digits, batch):
    model, x = network(cfg, digits, "pgd+ducat"), batch[0]
    z, deployed = logits(model.raw, x)[0], logits(model, x)[0]
    assert z.shape == (32, 20) and deployed.shape == (32, 10)
    assert (z.argmax(1) >= 10).any(), "no dummy is predicted: the test shows nothing"
    assert (deployed.argmax(1) == z.argmax(1) % 10).all()
    soft = logits(ducat.Smooth(model.raw), x)[0]
    assert np.allclose(soft, logsumexp(z.reshape(32, 2, 10), axis=1), atol=1e-5)


@pytest.mark.parametrize("w", [{"w_benign": 0.25, "w_adv": 1.0, "w_alpha": 1.0},
                               {"w_benign": 0.4, "w_adv": 0.7, "w_alpha": 0.5}])
def test_pgd_formula(cfg, digits, batch, w):
    x, x_adv, y = batch
    model = network(cfg, digits, "pgd+ducat")
    clean, attacked = logits(model.raw, x, x_adv)
    expected = (two_hot(clean, y, w["w_benign"]) + w["w_alpha"] * two_hot(attacked, y, w["w_adv"])) / 2
    found = built(cfg, "pgd+ducat", ducat=w).loss(model, x, x_adv, y, moment())
    assert np.allclose(found.detach(), expected, rtol=1e-4)


def test_the_other_terms_of_trades_and_mart_stay(cfg, digits, batch):
    x, x_adv, y = batch
    model = network(cfg, digits, "trades+ducat", scale=5.0)
    clean, attacked = logits(model.raw, x, x_adv)
    label = (two_hot(clean, y, 0.25) + two_hot(attacked, y, 1.0)) / 2
    far, p = divergence(clean, attacked), softmax(clean, 1)[np.arange(32), y]
    wrong = np.where(np.arange(20) == y.numpy()[:, None], 0, softmax(attacked, 1)).max(1)
    expected = {"trades": label + 6 * far, "mart": label - np.log(1 + 1e-4 - wrong) + 5 * far * (1 - p)}
    for name, value in expected.items():
        found = built(cfg, f"{name}+ducat").loss(model, x, x_adv, y, moment())
        assert np.allclose(found.detach(), value, rtol=1e-3, atol=1e-4), name


def test_consistency_formula(cfg, digits, batch):
    x, other, y = batch
    for spec in ("consistency", "consistency+ducat"):
        method, model = built(cfg, spec, consistency={"weight": 2.0}), network(cfg, digits, spec, scale=5.0)
        raw = getattr(model, "raw", model)
        clean, first, second = logits(raw, x, x * 0.5, other)
        far = 2 * shannon(first, second, 0.5)
        label = (cross_entropy(first, y) + cross_entropy(second, y)) / 2
        if spec != "consistency":
            label = (two_hot(clean, y, 0.25) + (two_hot(first, y, 1.0) + two_hot(second, y, 1.0)) / 2) / 2
        found = method.loss(model, x, torch.cat([x * 0.5, other]), y, moment())
        assert found.shape == (32,) and np.allclose(found.detach(), label + far, rtol=1e-3, atol=1e-4), spec


def test_jensen_shannon_of_known_distributions():
    same, apart = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 80.0]])
    assert jensen_shannon(same, same).item() == pytest.approx(0, abs=1e-7)
    assert jensen_shannon(-apart, apart).item() == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize("views", [[], ["flip"]])
def test_consistency_attacks_two_views(cfg, digits, batch, views):
    x, _, y = batch
    method, model = built(cfg, "consistency", consistency={"views": views}), network(cfg, digits, "consistency")
    x_adv = method.attack(model, x, y, moment())
    first, second = x_adv.chunk(2)
    far = (x_adv - x.repeat(2, 1, 1, 1)).flatten(1).abs().amax(1) > cfg.threat.eps + 1e-6
    assert x_adv.shape[0] == 64 and not torch.equal(first, second)
    assert not far[:32].any() and far[32:].any() == bool(views), "only the second view is of another image"


@pytest.mark.parametrize("spec", OBJECTIVES)
def test_before_the_start_it_is_the_objective_on_2C_logits(cfg, digits, batch, spec):
    x, _, y = batch
    model, method = network(cfg, digits, f"{spec}+ducat"), built(cfg, f"{spec}+ducat", ducat={"start": 0.5})
    plain = built(cfg, spec)
    x_adv = method.attack(model, x, y, moment(0.4))
    assert torch.equal(x_adv, plain.attack(model.raw, x, y, moment(0.4)))
    before = method.loss(model, x, x_adv, y, moment(0.4))
    assert torch.equal(before, plain.loss(model.raw, x, x_adv, y, moment(0.4)))
    assert not torch.allclose(before, method.loss(model, x, x_adv, y, moment(0.5)))


def test_both_halves_of_a_batch_share_their_statistics(cfg, digits, batch):
    x, x_adv, y = batch
    model, method = network(cfg, digits, "pgd+ducat").train(), built(cfg, "pgd+ducat")
    seen = []
    model.raw[1].features[0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    method.loss(model, x, x_adv, y, moment())
    assert seen == [64]


@pytest.mark.parametrize(("adversary", "target"), [("raw", lambda m: m.raw), ("max", lambda m: m),
                                                   ("lse", lambda m: ducat.Smooth(m.raw))])
def test_the_training_adversary_faces_what_its_knob_says(cfg, digits, batch, adversary, target):
    x, _, y = batch
    model = network(cfg, digits, "pgd+ducat", scale=5.0)
    x_adv = built(cfg, "pgd+ducat", ducat={"adversary": adversary}).attack(model, x, y, moment())
    expected = attacks.pgd(target(model), x, y, threat=cfg.threat, steps=cfg.train.steps,
                           step_size=cfg.train.step_size, generator=compute.generator(0))
    assert torch.equal(x_adv, expected)
    others = {name: built(cfg, "pgd+ducat", ducat={"adversary": name}).attack(model, x, y, moment())
              for name in ducat.ADVERSARIES if name != adversary}
    assert not any(torch.equal(x_adv, other) for other in others.values())


@pytest.mark.parametrize("spec", ["pgd+ducat", "trades+ducat", "mart+ducat", "consistency+ducat", "pgd+awp+ducat",
                                  "pgd+ducat+awp", "pgd+ducat+ema"])
def test_it_trains_and_composes(cfg, digits, spec):
    run = replace(cfg, method=spec, knobs={**cfg.knobs, "ducat": {**cfg.knobs["ducat"], "start": 0.5}})
    trained = train.fit(run, digits, CPU, log=lambda line: None)
    model = train.model(run, trained, "last", digits, CPU)
    x, _ = digits.test.first(8).floats()
    assert model(x).shape == (8, 10) and model.raw(x).shape == (8, 20)
    assert np.isfinite(trained.history.loss).all()


@pytest.mark.parametrize(("spec", "knobs", "word"), [
    ("standard+ducat", {}, "needs an objective with an adversary: pgd, trades, mart, consistency"),
    ("pgd+he+ducat", {}, "does not go with he"),
    ("pgd+ducat+offset", {}, "does not go with offset"),
    ("consistency+cfa", {}, "cfa counts one example"),
    ("pgd+ducat", {"ducat": {"start": 1.5}}, "ducat.start.*at least 0 and at most 1"),
    ("pgd+ducat", {"ducat": {"w_adv": -0.1}}, "ducat.w_adv"),
    ("pgd+ducat", {"ducat": {"adversary": "smooth"}}, "adversary 'smooth'.*raw, lse, max"),
    ("consistency", {"consistency": {"views": ["blur"]}}, "augmentation 'blur'"),
    ("consistency", {"consistency": {"temperature": 0.0}}, "temperature"),
])
def test_what_cannot_be_is_said_in_one_line(cfg, spec, knobs, word):
    with pytest.raises(ConfigError, match=word) as error:
        built(cfg, spec, **knobs)
    assert "\n" not in str(error.value)


def test_the_defaults_are_those_of_the_authors_code():
    knobs = config.load("paper", "cifar10", "pgd+ducat", 0).knobs["ducat"]
    assert knobs == {"w_benign": 0.25, "w_adv": 1.0, "w_alpha": 1.0, "start": 0.8, "adversary": "raw"}
