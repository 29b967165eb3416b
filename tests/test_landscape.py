"""The landscape: filters of the right norm, weights that come back, and a plain implementation to agree with."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lib import attacks, compute, landscape, train, weights
from lib.config import Threat
from lib.params import ConfigError

CPU = torch.device("cpu")
NORMS = pytest.mark.parametrize("threat", [Threat("Linf", 0.2), Threat("L2", 1.0)], ids=["Linf", "L2"])


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


def test_frozen_examples_underestimate(cfg, digits, model, direction):
    """Why the examples are made anew at each point: those made at w fool the moved network less."""
    x, y = digits.train.first(64).floats()
    alphas = np.array([-1.0, 0.0, 1.0])
    made = landscape.examples(cfg, model, x, y)
    anew = landscape.curve(cfg, model, x, y, direction, alphas)
    frozen = landscape.curve(cfg, model, x, y, direction, alphas, made)
    assert frozen[1] == anew[1] and (frozen < anew)[[0, 2]].all()
    with weights.moved(model, (1.0, direction)), torch.no_grad():
        model.eval()
        assert frozen[2] == pytest.approx(attacks.cross_entropy(model(made), y).mean().item(), rel=1e-5)


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


@NORMS
def test_input_landscape_has_the_clean_loss_in_the_middle_and_fgsm_at_its_edge(cfg, digits, model, threat):
    x, y = digits.test.first(40).floats()
    found = landscape.inputs(replace(cfg, threat=threat), model, x, y, compute.generator(0), np.array([-1, 0, 1]))
    fgsm = attacks.fgsm(model, x, y, threat=threat)
    laid_out_anew = (x + 0).clamp(0, 1)  # the same numbers with the strides of a sum, by which a convolution may round
    assert found[1, 1] == landscape.losses(model, laid_out_anew, y).mean().item()
    assert found[2, 1] == pytest.approx(landscape.losses(model, fgsm, y).mean().item(), rel=1e-6)
    assert found[2, 1] > found[1, 1] > found[0, 1] and found[2, 1] > found[1, 2] != found[1, 0]


@NORMS
def test_the_random_direction_of_inputs_reaches_the_border_of_the_ball(cfg, model, monkeypatch, threat):
    seen = []
    monkeypatch.setattr(landscape, "losses", lambda model, x, y: seen.append(x) or torch.zeros(len(y)))
    x, y = torch.full((50, 1, 8, 8), 0.5), torch.zeros(50, dtype=torch.long)
    landscape.inputs(replace(cfg, threat=threat), model, x, y, compute.generator(0), np.array([0, 1]))
    (still, aside, *_), size = seen, threat.eps
    assert torch.equal(still, x)
    delta = (aside - x).flatten(1)
    if threat.norm == "Linf":
        assert torch.allclose(delta.abs(), torch.tensor(size)) and delta.mean().abs() < 0.05 * size
    else:
        assert torch.allclose(delta.norm(dim=1), torch.tensor(size))
    assert not torch.equal(delta[0], delta[1])  # each image has its own


def test_batches_change_nothing(cfg, digits, model, monkeypatch):
    x, y = digits.test.first(40).floats()
    whole, clean = (landscape.inputs(cfg, model, x, y, compute.generator(0), np.array([-1, 0, 1])),
                    landscape.losses(model, x, y))
    monkeypatch.setattr(landscape, "BATCH", 7)
    parts = landscape.inputs(cfg, model, x, y, compute.generator(0), np.array([-1, 0, 1]))
    assert parts == pytest.approx(whole, rel=1e-4) and torch.allclose(landscape.losses(model, x, y), clean, rtol=1e-4)
    made = landscape.examples(cfg, model, x, y)
    assert made.shape == x.shape and (made - x).abs().max() <= cfg.threat.eps * 1.001


@pytest.fixture
def trained(cfg, digits, model):
    """A run whose checkpoints are `model`."""
    return train.Trained(None, dict.fromkeys(train.CHECKPOINTS, train.snapshot(model)), {})


def test_explore(cfg, digits, model, trained):
    lines = []
    found = landscape.explore(cfg, digits, trained, CPU, lines.append)
    n, points, several, b = (cfg.landscape.images, cfg.landscape.points, cfg.landscape.directions,
                             cfg.landscape.surface_points)
    assert {name: value.shape for name, value in found.items()} == {
        "alphas": (points,), **dict.fromkeys(("train", "test", "frozen"), (several, points)),
        **dict.fromkeys(("train_images", "test_images", "frozen_images"), (points, n)),
        "grid": (b,), "surface": (b, b), "input_grid": (2 * b - 1,), "inputs": (2 * b - 1, 2 * b - 1)}
    middle = points // 2
    assert found["alphas"][middle] == 0 and len(lines) == several and lines[0].startswith("direction 1/")
    assert (found["frozen"][:, middle] == found["train"][:, middle]).all()  # exactly
    assert (found["frozen"][:, [0, -1]] < found["train"][:, [0, -1]]).all()
    for name in ("train", "test", "frozen"):
        assert found[f"{name}_images"].mean(1) == pytest.approx(found[name].mean(0), rel=1e-5)
    x, y = digits.train.first(n).floats()
    assert found["surface"][b // 2, b // 2] == pytest.approx(found["train"][0, middle])
    first = weights.filter_normalised(model.eval(), compute.generator(cfg.seed))
    assert found["train"][0] == pytest.approx(landscape.curve(cfg, model, x, y, first, found["alphas"]))
    other = landscape.explore(replace(cfg, seed=1), digits, trained, CPU, lines.append)
    assert not np.allclose(other["train"], found["train"]) and other["train"][0, middle] == found["train"][0, middle]


def test_every_run_sees_the_same_images_and_test_images_are_drawn_at_random(cfg, digits):
    one, other = landscape.sample(cfg, digits), landscape.sample(replace(cfg, method="trades", seed=7), digits)
    for split in ("train", "test"):
        assert all(torch.equal(a, b) for a, b in zip(one[split], other[split], strict=True))
        assert len(one[split][1]) == cfg.landscape.images
    assert not torch.equal(one["test"][1], digits.test.first(cfg.landscape.images).y)


@pytest.mark.parametrize("points", [1, 4])
def test_zero_has_to_be_among_the_points(cfg, digits, trained, points):
    with pytest.raises(ConfigError, match=f"landscape.points in params.yaml is {points}: it has to be odd"):
        landscape.explore(replace(cfg, landscape=replace(cfg.landscape, points=points)), digits, trained, CPU)


def test_everything_leaves_the_network_as_it_was(cfg, digits, model, direction):
    x, y = digits.train.first(16).floats()
    model.train()[1].head.bias.requires_grad_(False)
    model.zero_grad()
    before, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    grid = np.array([-0.5, 0.0, 0.5])
    landscape.surface(cfg, model, x, y, (direction, direction), grid)
    landscape.inputs(cfg, model, x, y, compute.generator(0), grid)
    landscape.curve(cfg, model, x, y, direction, grid, landscape.examples(cfg, model, x, y))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model.training
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def rescaled(model, c):
    """The same function from other weights: a convolution times c, undone by its BatchNorm, and a hidden layer."""
    other = copy.deepcopy(model).eval()
    convolution, norm = other[1].features[0], other[1].features[1]
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        convolution.weight *= c
        norm.running_mean *= c
        norm.running_var *= c**2
        norm.eps *= c**2
        for tensor, factor in ((other[1].hidden.weight, c), (other[1].hidden.bias, c), (other[1].head.weight, 1 / c)):
            tensor *= factor
    return other


def test_rescaled_weights_have_the_same_sharpness(cfg, digits, model):
    """What filter normalisation is for; a direction that ignores the norms of filters sees another landscape."""
    x, y = digits.train.first(32).floats()
    model.eval()
    alphas, other = np.array([-0.5, 0.0, 0.5]), rescaled(model, 4.0)  # a power of 2: no rounding

    def sharpness(network, normalised):
        direction = weights.filter_normalised(model, compute.generator(3))
        if normalised:
            direction = weights.filter_normalised(network, compute.generator(3))
        return landscape.sharpness(alphas, landscape.curve(cfg, network, x, y, direction, alphas)[None])[0]

    assert sharpness(other, True) == pytest.approx(sharpness(model, True), abs=1e-6)
    assert sharpness(other, False) != pytest.approx(sharpness(model, False), abs=1e-2)
