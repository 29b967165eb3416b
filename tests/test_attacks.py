"""Attacks: stay within the threat model, leave the model alone, and maximise what they say."""

import pytest
import torch
from torch import nn

from lib import attacks, compute
from lib.config import Threat
from lib.params import ConfigError

LINF, L2 = Threat("Linf", 0.2), Threat("L2", 0.7)
NUMBERS = {"steps": 5, "step_size": 0.3}


def run(model, digits, threat, name="pgd", seed=0, **more):
    x, y = digits.test.first(64).floats()
    numbers = NUMBERS if name == "pgd" else {}
    attack = attacks.ATTACKS[name]
    return x, y, attack(model, x, y, threat=threat, generator=compute.generator(seed), **numbers | more)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_stays_in_the_ball_and_the_image_range(model, digits, threat, name):
    x, _, x_adv = run(model, digits, threat, name)
    size = (x_adv - x).flatten(1).abs().amax(1) if threat.norm == "Linf" else (x_adv - x).flatten(1).norm(dim=1)
    assert size.max() <= threat.eps + 1e-5 and size.max() > 0.5 * threat.eps
    assert x_adv.min() >= 0 and x_adv.max() <= 1 and not x_adv.requires_grad


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_radius_zero_changes_nothing(model, digits, norm, name):
    x, _, x_adv = run(model, digits, Threat(norm, 0.0), name)
    assert torch.equal(x, x_adv)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
@pytest.mark.parametrize("mode", [True, False])
def test_leaves_the_model_as_it_was(model, digits, batchnorm, mode):
    model.train(mode)
    model[1].head.bias.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run(model, digits, LINF, batchnorm=batchnorm)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training == mode for m in model.modules())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    model.zero_grad(set_to_none=True)
    run(model, digits, LINF, batchnorm=batchnorm)
    assert all(p.grad is None for p in model.parameters())


def test_the_model_is_put_back_after_an_error(model, digits):
    model.train()
    def broken(logits, y):
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        run(model, digits, LINF, loss=broken)
    assert model.training and all(p.requires_grad for p in model.parameters())


def test_batchnorm_mode_matters_and_is_checked(model, digits):
    _, _, in_eval = run(model, digits, LINF, batchnorm="eval")
    _, _, in_train = run(model, digits, LINF, batchnorm="train")
    assert not torch.equal(in_eval, in_train)
    with pytest.raises(ConfigError, match="unknown mode of BatchNorm 'on'"):
        run(model, digits, LINF, batchnorm="on")


def test_the_seed_decides(model, digits):
    assert torch.equal(run(model, digits, LINF, seed=1)[2], run(model, digits, LINF, seed=1)[2])
    assert not torch.equal(run(model, digits, LINF, seed=1)[2], run(model, digits, LINF, seed=2)[2])


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_step_is_the_best_one_for_a_linear_loss(threat):
    gradient = torch.randn(3, 2, 4, 4, generator=compute.generator(0))
    best = (attacks.step(gradient, threat, threat.eps) * gradient).flatten(1).sum(1)
    dual = gradient.flatten(1).norm(p=1 if threat.norm == "Linf" else 2, dim=1)
    assert torch.allclose(best, threat.eps * dual)


def test_fgsm_is_optimal_on_a_linear_classifier():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.full((8, 1, 4, 4), 0.5), torch.arange(8) % 2
    fgsm = attacks.fgsm(linear, x, y, threat=LINF)
    pgd = attacks.pgd(linear, x, y, threat=LINF, steps=50, step_size=0.1, generator=compute.generator(0))
    losses = [attacks.cross_entropy(linear(z), y) for z in (fgsm, pgd)]
    assert torch.allclose(*losses, atol=1e-5)


def test_more_work_finds_more(model, digits):
    def loss(**more):
        x, y, x_adv = run(model, digits, LINF, **more)
        model.eval()
        return attacks.cross_entropy(model(x_adv), y).detach()
    assert loss(steps=20, step_size=0.1).mean() > loss(steps=2, step_size=0.1).mean() > loss(steps=0).mean()
    assert (loss(restarts=3, keep_best=True) >= loss(keep_best=True) - 1e-5).all()
    assert (loss(steps=7, step_size=1.0, keep_best=True) >= loss(steps=7, step_size=1.0) - 1e-5).all()


def test_another_loss_is_maximised(model, digits):
    x, y, by_margin = run(model, digits, LINF, loss=attacks.margin, steps=20)
    _, _, by_entropy = run(model, digits, LINF, steps=20)
    model.eval()
    assert attacks.margin(model(by_margin), y).mean() > attacks.margin(model(x), y).mean()
    assert not torch.equal(by_margin, by_entropy)


def test_margin_formula():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert attacks.margin(logits, torch.tensor([0, 2])).tolist() == [-1.0, 4.0]


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_random_start_is_uniform_in_the_ball(threat):
    delta = attacks.uniform_in_ball(torch.zeros(20_000, 1, 1, 2), threat, compute.generator(0)).flatten(1)
    size = delta.abs().amax(1) if threat.norm == "Linf" else delta.norm(dim=1)
    inside = (size <= threat.eps / 2).float().mean()  # in two dimensions a ball of half the radius has a quarter
    assert size.max() <= threat.eps + 1e-6 and abs(inside - 0.25) < 0.01
    assert delta.mean().abs() < 0.01


def test_params_entries_are_checked():
    with pytest.raises(ConfigError, match="unknown attack 'pdg' in attacks.strong .*did you mean 'pgd'"):
        attacks.from_params("strong", {"attack": "pdg"}, LINF)
    with pytest.raises(ConfigError, match="unknown argument 'step' in attacks.strong"):
        attacks.from_params("strong", {"attack": "pgd", "step": 3}, LINF)
    with pytest.raises(ConfigError, match="attacks.strong in params.yaml lacks step_size"):
        attacks.from_params("strong", {"attack": "pgd", "steps": 3}, LINF)
