"""What goes by class: CFA, `balanced` and `offset`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import attacks, compute, data, methods, train
from lib.config import Threat
from lib.methods import Moment, balanced
from lib.methods._classes import Record

CPU = torch.device("cpu")


def built(cfg, spec, **knobs):
    """The method of a spec without warm-up, some of its knobs changed: cfa={'begin': 0.0}."""
    base = {name: {**values, "warmup": 0.0} for name, values in cfg.knobs.items() if "warmup" in values}
    changed = {name: {**cfg.knobs[name], **values} for name, values in knobs.items()}
    return methods.build(replace(cfg, method=spec, knobs={**cfg.knobs, **base, **changed}))


def moment(progress, **more):
    return Moment(progress, compute.generator(0), **more)


class Says(nn.Module):
    """Predicts the given labels, whatever it sees."""

    def __init__(self, said):
        super().__init__()
        self.logits = 9.0 * F.one_hot(said, 10)

    def forward(self, x):
        return self.logits + 0 * x.flatten(1).sum(1, keepdim=True)


HITS = torch.tensor([0, 1, 2, 3, 4, 4, 3, 2, 1, 0])  # right answers for each class in an epoch of four images a class
ACCURACY = HITS / 4


def fed(method):
    """The method after an epoch in which class c was right for HITS[c] of 4 images."""
    y = torch.arange(40) % 10
    right = torch.arange(40) // 10 < HITS[y]
    x = torch.zeros(40, 1, 8, 8)
    method.loss(Says(torch.where(right, y, (y + 1) % 10)), x, x.clone() if method.attack else x, y, moment(0.0))
    return method


@pytest.fixture
def batch(digits):
    """Forty images, noisy ones in their place, and their labels."""
    x, y = digits.train.first(40).floats()
    return x, (x + 0.2 * torch.randn(x.shape, generator=compute.generator(1))).clamp(0, 1), y


class TestRecord:
    @pytest.mark.parametrize(("epochs", "steps"), [(2, 3), (7, 19), (30, 18), (49, 3)])
    def test_an_epoch_is_over_when_the_next_begins(self, epochs, steps):
        """With progress as the loop of training computes it: 1 / 49 * 49 is less than 1 in floating point."""
        record, y = Record(epochs, {}), torch.tensor([0, 0, 1])
        for epoch in range(min(epochs, 4)):
            for step in range(steps):
                now = moment(epoch / epochs + step / steps / epochs)
                assert (record.at(now) is None) == (epoch == 0)
                if epoch:
                    expected = [(epoch - 1) % 2, 1 / 2]  # class 0: right in every second epoch
                    assert record.at(now)[:2].tolist() == pytest.approx([expected[0], 1.0])
                right = torch.tensor([epoch % 2 == 1, epoch % 2 == 1, True])
                record.count(F.one_hot(torch.where(right, y, 2), 3).float(), y, now)
        assert record.memory["counts"].tolist() == [[2 * steps * (epoch % 2), steps, 0], [2 * steps, steps, 0]]

    def test_a_class_without_images_counts_as_wrong(self):
        record = Record(2, {})
        record.count(torch.eye(3)[:1], torch.tensor([0]), moment(0.0))
        assert record.at(moment(0.5)).tolist() == [1, 0, 0]


class TestCfa:
    knobs = {"cfa": {"lambda_1": 0.3, "lambda_2": 0.4, "begin": 0.0}}

    def test_each_class_has_its_radius(self, cfg, model, batch):
        x, _, y = batch
        x_adv = fed(built(cfg, "pgd+cfa", **self.knobs)).attack(model, x, y, moment(0.5))
        radius = (0.3 + ACCURACY[y]) * cfg.threat.eps
        assert torch.allclose((x_adv - x).abs().flatten(1).amax(1), radius, atol=1e-5) and len(radius.unique()) == 5

    @pytest.mark.parametrize(("progress", "begin"), [(0.0, 0.0), (0.5, 0.6)])
    def test_until_it_begins_it_is_the_objective(self, cfg, model, batch, progress, begin):
        """While no epoch is over, and before `begin`."""
        x, x_adv, y = batch
        for spec in ("pgd", "trades"):
            method = built(cfg, f"{spec}+cfa", cfa={**self.knobs["cfa"], "begin": begin})
            method, plain = fed(method) if progress else method, built(cfg, spec)
            assert torch.equal(*(m.attack(model, x, y, moment(progress)) for m in (method, plain)))
            assert torch.allclose(*(m.loss(model, x, x_adv, y, moment(progress)) for m in (method, plain)))

    def test_trades_weighs_as_published(self, cfg, model, batch):
        x, x_adv, y = batch
        model.eval()
        losses = fed(built(cfg, "trades+cfa", trades={"beta": 6.0}, **self.knobs)).loss(model, x, x_adv, y, moment(0.5))
        beta = (0.4 + ACCURACY[y]) * 6
        b = beta / (1 + beta)
        p, q = model(x).softmax(1), model(x_adv).softmax(1)
        divergence = (p * (p / q).log()).sum(1)
        expected = (1 + 6) * ((1 - b) * attacks.cross_entropy(model(x), y) + b * divergence)
        assert torch.allclose(losses, expected, rtol=1e-3)

    def test_mart_has_a_beta_of_each_class(self, cfg, model, batch):
        x, x_adv, y = batch
        losses = fed(built(cfg, "mart+cfa", **self.knobs)).loss(model, x, x_adv, y, moment(0.5))
        expected = built(cfg, "mart").loss(model, x, x_adv, y, moment(0.5, beta=0.4 + ACCURACY[y]))
        assert torch.allclose(losses, expected)

    def test_standard_training_has_no_radius(self, cfg, model, batch):
        assert built(cfg, "standard+cfa").attack is None


class TestBalanced:
    @pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
    def test_weights(self, strength):
        weights = balanced.weights(ACCURACY, strength)
        each = np.maximum(1 - ACCURACY.numpy(), 0.01) ** strength
        assert np.allclose(weights, each / each.mean()) and weights.mean().item() == pytest.approx(1)
        assert (weights[0] > weights[1]) == (weights[1] > weights[4]) == (strength > 0)

    def test_losses_of_the_objective_times_the_weights(self, cfg, model, batch):
        x, x_adv, y = batch
        for spec in ("pgd", "trades", "standard"):
            x_adv = x_adv if spec != "standard" else x
            method, plain = built(cfg, f"{spec}+balanced", balanced={"strength": 2.0}), built(cfg, spec)
            before = plain.loss(model, x, x_adv, y, moment(0.5))
            assert torch.equal(method.loss(model, x, x_adv, y, moment(0.0)), before)  # the first epoch
            method = fed(built(cfg, f"{spec}+balanced", balanced={"strength": 2.0}))
            found = method.loss(model, x, x_adv, y, moment(0.5))
            assert torch.allclose(found, balanced.weights(ACCURACY, 2.0)[y] * before)

    def test_strength_0_is_the_objective_bit_for_bit(self, cfg, digits):
        run = replace(cfg, method="pgd+balanced", knobs={**cfg.knobs, "balanced": {"strength": 0.0}})
        plain, same, other = (train.fit(r, digits, CPU, lambda line: None) for r in (
            cfg, run, replace(run, knobs={**cfg.knobs, "balanced": {"strength": 1.0}})))
        assert all(torch.equal(v, same.states["last"][k]) for k, v in plain.states["last"].items())
        assert plain.history.equals(same.history) and not plain.history.equals(other.history)


class TestOffset:
    @pytest.fixture
    def cfg(self, cfg):
        """A radius that some images survive, six epochs of standard training."""
        return replace(cfg, method="standard", threat=Threat("Linf", 0.05), train=replace(cfg.train, epochs=6))

    @pytest.fixture
    def model(self, cfg, digits):
        """A network that has learnt digits."""
        return train.model(cfg, train.fit(cfg, digits, CPU, lambda line: None), "last", digits, CPU)

    @pytest.fixture
    def network(self, cfg, digits, model):
        """Fits an offset of some strength to the trained weights of `model`, on the validation images."""
        def network(strength, validation=digits.validation):
            run = replace(cfg, method="pgd+offset", knobs={**cfg.knobs, "offset": {"strength": strength}})
            method = methods.build(run)
            found = train.initial(run, method, digits, CPU)
            found[:-1].load_state_dict(model.state_dict())
            found[-1].b.fill_(float("nan"))  # of an earlier fit, say
            method.finish(found.train(), validation, compute.generator(0))
            assert all(m.training for m in found.modules())
            return found.eval()
        return network

    def test_bonus_by_hand(self, cfg, digits, model, network):
        x, y = digits.train.floats()  # more than there are for validation
        x_adv = attacks.pgd(model, x, y, threat=cfg.threat, steps=cfg.train.steps, step_size=cfg.train.step_size,
                            loss=attacks.margin, generator=compute.generator(0))
        hit = (model.eval()(x_adv).argmax(1) == y).numpy()
        accuracy = np.array([hit[y.numpy() == c].mean() for c in range(10)])
        b = network(3.0, digits.train)[-1].b
        assert 0.1 < accuracy.mean() < 0.9 and len(set(accuracy)) > 2
        assert np.allclose(b, 3 * (accuracy.mean() - accuracy), atol=1e-5) and b.abs().max() > 0
        assert b.sum().item() == pytest.approx(0, abs=1e-5)

    def test_a_class_without_validation_images_gets_none(self, digits, network):
        some = digits.validation.take((digits.validation.y != 3).nonzero().squeeze(1))
        b = network(3.0, some)[-1].b
        assert b[3] == 0 and b.isfinite().all() and b.sum().item() == pytest.approx(0, abs=1e-5)

    def test_strength_0_changes_nothing(self, digits, model, network):
        x, _ = digits.test.floats()
        assert torch.equal(network(0.0)(x), model.eval()(x))

    def test_it_is_a_layer_that_attacks_face(self, cfg, digits, model, network):
        x, y = digits.test.first(64).floats()
        shifted = network(20.0)
        assert torch.allclose(shifted(x), model.eval()(x) + shifted[-1].b)
        names = [name for name in shifted.state_dict() if name != "2.b"]
        assert names == list(model.state_dict()) and "2.b" in shifted.state_dict()
        assert "2.b" not in dict(shifted.named_parameters())
        found = [attacks.pgd(m, x, y, threat=cfg.threat, steps=5, step_size=0.3, generator=compute.generator(0))
                 for m in (model, shifted)]
        losses = [attacks.cross_entropy(shifted(x_adv), y).mean() for x_adv in found]
        assert losses[1] > losses[0]  # the attack that knows the offset is the stronger one

    def test_training_is_that_of_the_objective_and_sees_no_test_image(self, cfg, digits):
        run = replace(cfg, method="standard+offset")
        plain, with_b = train.fit(cfg, digits, CPU, lambda line: None), train.fit(run, digits, CPU, lambda line: None)
        for checkpoint in train.CHECKPOINTS:
            state = with_b.states[checkpoint]
            assert all(torch.equal(v, state[k]) for k, v in plain.states[checkpoint].items())
        other = replace(digits, test=data.Images(255 - digits.test.x, digits.test.y))
        again = train.fit(run, other, CPU, lambda line: None)
        assert torch.equal(again.states["last"]["2.b"], with_b.states["last"]["2.b"])
