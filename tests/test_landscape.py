"""The landscape: filters of the right norm, weights that come back, and a plain implementation to agree with."""

import copy

import numpy as np
import pytest
import torch

from lib import attacks, compute, landscape, weights


@pytest.fixture
def direction(model):
    return weights.filter_normalised(model, compute.generator(0))


def test_every_filter_has_the_norm_of_the_models(model, direction):
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    assert set(direction) == set(weights)
    for name, weight in weights.items():
        for d, w in zip(direction[name], weight, strict=True):
            assert d.norm() == pytest.approx(w.norm().item(), rel=1e-4)


def test_weights_come_back_bit_for_bit(model, direction):
    before = copy.deepcopy(model.state_dict())
    with weights.moved(model, (0.3, direction), (1e-9, direction)):
        moved = model.state_dict()
        assert all(torch.equal(moved[k], v) == (k not in direction) for k, v in before.items())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ZeroDivisionError):
        with weights.moved(model, (0.3, direction)):
            raise ZeroDivisionError
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_curve_agrees_with_a_plain_implementation(cfg, digits, model, direction):
    x, y = digits.train.first(48).floats()
    alphas = np.array([-0.5, 0.0, 0.5])
    ours = landscape.curve(cfg, model, x, y, direction, alphas)
    plain = []
    for alpha in alphas:
        other = copy.deepcopy(model).eval()
        with torch.no_grad():
            for name, p in other.named_parameters():
                if name in direction:
                    p += alpha * direction[name]
        x_adv = attacks.pgd(other, x, y, threat=cfg.threat, steps=cfg.landscape.steps,
                            step_size=cfg.landscape.step_size, generator=compute.generator(0))
        plain.append(torch.nn.functional.cross_entropy(other(x_adv), y).item())
    assert ours == pytest.approx(plain, rel=1e-5)
    assert ours[1] == landscape.adversarial_loss(cfg, model, x, y)


def test_surface_contains_its_curves(cfg, digits, model, direction):
    x, y = digits.train.first(16).floats()
    second = weights.filter_normalised(model, compute.generator(1))
    grid = np.array([-1.0, 0.0, 1.0])
    surface = landscape.surface(cfg, model, x, y, (direction, second), grid)
    assert surface[:, 1] == pytest.approx(landscape.curve(cfg, model, x, y, direction, grid), rel=1e-6)
    assert surface[1, :] == pytest.approx(landscape.curve(cfg, model, x, y, second, grid), rel=1e-6)


def test_fixed_examples_underestimate(cfg, digits, model, direction):
    """Why the examples are made anew at each point: those made at w fool the moved network less."""
    x, y = digits.train.first(64).floats()
    model.eval()
    fixed = attacks.pgd(model, x, y, threat=cfg.threat, steps=10, step_size=0.25, generator=compute.generator(0))
    with weights.moved(model, (1.0, direction)), torch.no_grad():
        held = attacks.cross_entropy(model(fixed), y).mean().item()
    assert landscape.curve(cfg, model, x, y, direction, np.array([1.0]))[0] > held


def test_sharpness():
    alphas = np.linspace(-1, 1, 21)
    curves = np.array([2 * alphas**2 + 1, np.full(21, 3.0)])
    assert landscape.sharpness(alphas, curves) == pytest.approx([0.5, 0.0])


def test_frozen_statistics(cfg, digits, model, direction):
    model.train()
    x, y = digits.train.first(16).floats()
    before = model[1].features[1].running_mean.clone()
    landscape.curve(cfg, model, x, y, direction, np.array([0.5]))
    assert torch.equal(before, model[1].features[1].running_mean) and model.training
