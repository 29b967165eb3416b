"""TRADES, MART and HE against their published formulas, computed here a second time in numpy's float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import built, cross_entropy, divergence, logits, moment, noisy
from scipy.special import softmax

from lib import attacks, compute, config, methods, train
from lib.methods.he import Cosine


def boosted(z, y):
    """BCE of MART, with its slack of 1e-4."""
    p = softmax(z, 1)
    wrong = np.where(np.arange(p.shape[1]) == y[:, None], 0, p).max(1)
    return -np.log(p[np.arange(len(y)), y]) - np.log(1 + 1e-4 - wrong)


@pytest.fixture
def sure(model):
    """A network that is sure of what it says, rightly or not: far from where all divergences are alike."""
    with torch.no_grad():
        model[1].head.weight.mul_(30)
    return model


@pytest.fixture
def pair(digits):
    return noisy(digits)


@pytest.mark.parametrize("spec", ["standard", "pgd", "trades", "mart", "pgd+he", "mart+he", "pgd+cfa", "trades+cfa",
                                  "pgd+balanced", "standard+balanced", "trades+he+balanced", "pgd+offset"])
def test_every_loss_is_one_number_an_image(cfg, digits, pair, spec):
    method, (x, x_adv, y) = built(cfg, spec), pair
    network = train.initial(cfg, method, digits, torch.device("cpu"))
    x_adv = x_adv if method.attack else x
    losses = method.loss(network, x, x_adv, y, moment())
    assert losses.shape == (32,) and losses.requires_grad and losses.isfinite().all()


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_trades_formula(cfg, sure, pair, beta):
    x, x_adv, y = pair
    clean, attacked = logits(sure, x, x_adv)
    each = torch.linspace(0.5, 1.5, 32)
    losses = built(cfg, "trades", trades={"beta": beta}).loss(sure, x, x_adv, y, moment(beta=each))
    expected = cross_entropy(clean, y.numpy()) + beta * each.numpy() * divergence(clean, attacked)
    assert np.allclose(losses.detach(), expected, rtol=1e-4, atol=1e-5)


class TestTradesAttack:
    def naive(self, cfg, model, x, steps):
        """As published: the prediction for x anew in each step."""
        model.eval()
        x_adv = x + 0.001 * torch.randn(x.shape, generator=compute.generator(5))
        x_adv = attacks.project(x_adv, x, cfg.threat)
        for _ in range(steps):
            x_adv = x_adv.detach().requires_grad_()
            loss = F.kl_div(F.log_softmax(model(x_adv), 1), F.log_softmax(model(x).detach(), 1), reduction="sum",
                            log_target=True)
            step = cfg.train.step_size * cfg.threat.eps * torch.autograd.grad(loss, x_adv)[0].sign()
            x_adv = attacks.project(x_adv.detach() + step, x, cfg.threat)
        return x_adv

    @pytest.mark.parametrize("steps", [0, 1, 7])
    def test_is_the_published_one_bit_for_bit(self, cfg, model, pair, steps):
        x, _, y = pair
        method = built(replace(cfg, train=replace(cfg.train, steps=steps)), "trades")
        model.train()
        assert torch.equal(method.attack(model, x, y, moment(seed=5)), self.naive(cfg, model, x, steps))

    def test_starts_near_the_image_and_ascends_the_divergence(self, cfg, model, pair):
        x, _, y = pair
        methods_of = [built(replace(cfg, train=replace(cfg.train, steps=n)), "trades") for n in (0, 7)]
        near, far = (m.attack(model, x, y, moment()) for m in methods_of)
        assert (near - x).abs().max() < 0.006 and not torch.equal(near, x)
        clean, before, after = logits(model, x, near, far)
        assert (divergence(clean, after) > divergence(clean, before)).all()
        noise, = logits(model, attacks.noise(model, x, y, threat=cfg.threat, generator=compute.generator(0)))
        assert divergence(clean, after).mean() > 2 * divergence(clean, noise).mean()

    def test_labels_play_no_part_and_the_model_stays(self, cfg, model, pair):
        x, _, y = pair
        for batchnorm in ("eval", "train"):
            method, before = built(cfg, "trades", trades={"batchnorm": batchnorm}), train.snapshot(model.train())
            first, other = (method.attack(model, x, labels, moment()) for labels in (y, (y + 3) % 10))
            assert torch.equal(first, other) and all(m.training for m in model.modules())
            assert all(torch.equal(v, before[k]) for k, v in train.snapshot(model).items())


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_mart_formula(cfg, sure, pair, beta):
    x, x_adv, y = pair
    clean, attacked = logits(sure, x, x_adv)
    unsure = 1 - softmax(clean, 1)[np.arange(32), y]
    losses = built(cfg, "mart", mart={"beta": beta}).loss(sure, x, x_adv, y, moment())
    expected = boosted(attacked, y.numpy()) + beta * divergence(clean, attacked) * unsure
    assert np.allclose(losses.detach(), expected, rtol=1e-3, atol=1e-4)
    assert np.ptp(unsure) > 0.5
    assert (attacked.argmax(1) != y.numpy()).any() and (attacked.argmax(1) == y.numpy()).any()  # both branches


def test_mart_stays_finite_where_the_model_is_sure(cfg):
    """One class with probability 1 in float32, right or wrong."""
    class Sure(torch.nn.Module):
        def forward(self, x):
            return 200 * F.one_hot(torch.zeros(len(x), dtype=int), 10) + 0 * x.flatten(1).sum(1, keepdim=True)

    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    losses = built(cfg, "mart").loss(Sure(), x, x, torch.tensor([0, 1]), moment())
    losses.sum().backward()
    assert losses.isfinite().all() and x.grad.isfinite().all()
    assert losses[1].item() == pytest.approx(200 - np.log(1e-4), rel=1e-4)


def test_mart_attacks_the_cross_entropy_from_near(cfg, model, pair):
    x, _, y = pair
    expected = attacks.pgd(model, x, y, threat=cfg.threat, steps=cfg.train.steps, step_size=cfg.train.step_size,
                           start="near", generator=compute.generator(2))
    assert torch.equal(built(cfg, "mart").attack(model, x, y, moment(seed=2)), expected)


@pytest.mark.parametrize("spec", ["trades", "mart"])
def test_warm_up_of_the_radius(cfg, model, pair, spec):
    x, _, y = pair
    x_adv = built(cfg, spec).attack(model, x, y, moment(progress=0.15))
    assert (x_adv - x).abs().max().item() == pytest.approx(cfg.threat.eps / 2, abs=1e-5)


class TestHypersphere:
    @pytest.fixture
    def network(self, cfg, digits):
        """An untrained network with a cosine head."""
        run = replace(cfg, method="pgd+he")
        return train.initial(run, methods.build(run), digits, torch.device("cpu")).eval()

    def test_logits_are_cosines(self, network, pair):
        features = []
        network[1].head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
        found = network(pair[0]).detach().double()
        f, w = features[0].detach().double(), network[1].head.weight.detach().double()
        expected = (f @ w.T) / (f.norm(dim=1)[:, None] * w.norm(dim=1))
        assert torch.allclose(found, expected, atol=1e-5) and found.abs().max() <= 1 + 1e-6
        assert "1.head.bias" not in network.state_dict()

    def test_no_scale_of_features_or_rows_matters(self):
        head, f = Cosine(6, 4), torch.randn(5, 6, generator=compute.generator(0))
        before = head(f)
        with torch.no_grad():
            head.weight.mul_(torch.tensor([0.1, 1.0, 3.0, 50.0])[:, None])
        assert torch.allclose(head(7 * f), before, atol=1e-6)

    def test_loss_and_deployed_model(self, cfg, network, pair):
        x, x_adv, y = pair
        clean, attacked = logits(network, x, x_adv)
        label = np.eye(10)[y]
        margin = {"he": {"s": 12.0, "m": 0.3}}
        losses = built(cfg, "pgd+he", **margin).loss(network, x, x_adv, y, moment())
        assert np.allclose(losses.detach(), cross_entropy(12 * (attacked - 0.3 * label), y), rtol=1e-4)
        losses = built(cfg, "trades+he", **margin).loss(network, x, x_adv, y, moment())
        expected = cross_entropy(12 * (clean - 0.3 * label), y) + 6 * divergence(12 * clean, 12 * attacked)
        assert np.allclose(losses.detach(), expected, rtol=1e-3)
        losses = built(cfg, "mart+he", **margin).loss(network, x, x_adv, y, moment())
        more = cross_entropy(12 * (attacked - 0.3 * label), y) - cross_entropy(12 * attacked, y)
        expected = boosted(12 * attacked, y.numpy()) + more + 5 * divergence(12 * clean, 12 * attacked) * (
            1 - softmax(12 * clean, 1)[np.arange(32), y])
        assert np.allclose(losses.detach(), expected, rtol=1e-3)
        assert np.abs(attacked).max() <= 1 + 1e-6  # and the network itself is as it was

    def test_the_attack_sees_the_scale_and_no_margin(self, cfg, network, pair):
        x, _, y = pair
        method = built(cfg, "pgd+he", he={"s": 12.0, "m": 0.3})
        expected = attacks.pgd(network, x, y, threat=cfg.threat, steps=cfg.train.steps, step_size=cfg.train.step_size,
                               loss=lambda z, y: attacks.cross_entropy(12 * z, y), generator=compute.generator(0))
        assert torch.equal(method.attack(network, x, y, moment()), expected)

    def test_it_trains_in_either_order_with_balanced(self, cfg, digits):
        found = []
        for spec in ("pgd+he+balanced", "pgd+balanced+he"):
            run = replace(cfg, method=spec)
            trained = train.fit(run, digits, torch.device("cpu"), lambda line: None)
            found.append(trained.states["last"])
            assert train.model(run, trained, "last", digits, "cpu")(digits.test.floats()[0]).abs().max() <= 1 + 1e-6
        assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())

    def test_the_head_of_any_network(self, cfg):
        method = built(cfg, "pgd+he")
        for name, width in (("preact_resnet18", 4), ("wide_resnet28", 1)):
            network = method.network(config.Model(name, width, "relu"), (3, 8, 8), 5, ([0.5] * 3, [0.2] * 3))
            heads = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
            assert [type(h) for h in heads] == [Cosine] and network(torch.rand(2, 3, 8, 8)).shape == (2, 5)
