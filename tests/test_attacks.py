"""Attacks: stay within the threat model, leave the model alone, and maximise what they say."""

import copy

import pytest
import torch
from torch import nn

from lib import attacks, compute
from lib.config import Threat
from lib.params import ConfigError

LINF, L2 = Threat("Linf", 0.2), Threat("L2", 0.7)
NUMBERS = {"pgd": {"steps": 5, "step_size": 0.3},
           "temperature_pgd": {"steps": 5, "step_size": 0.3, "inverse_temperature": 5.0},
           "apgd": {"steps": 10}, "apgd_targeted": {"steps": 10, "targets": 3}, "square": {"queries": 30}}
L2_TOO = [name for name in attacks.ATTACKS if name != "square"]


def run(model, digits, threat, name="pgd", seed=0, **more):
    x, y = digits.test.first(64).floats()
    attack = attacks.ATTACKS[name]
    return x, y, attack(model, x, y, threat=threat, generator=compute.generator(seed), **NUMBERS.get(name, {}) | more)


@pytest.mark.parametrize(("name", "threat"), [*((n, LINF) for n in attacks.ATTACKS), *((n, L2) for n in L2_TOO)])
def test_stays_in_the_ball_and_the_image_range(model, digits, threat, name):
    x, _, x_adv = run(model, digits, threat, name)
    size = (x_adv - x).flatten(1).abs().amax(1) if threat.norm == "Linf" else (x_adv - x).flatten(1).norm(dim=1)
    assert size.max() <= threat.eps + 1e-5 and size.max() > 0.5 * threat.eps
    assert x_adv.min() >= 0 and x_adv.max() <= 1 and not x_adv.requires_grad


@pytest.mark.parametrize(("name", "norm"), [*((n, "Linf") for n in attacks.ATTACKS), *((n, "L2") for n in L2_TOO)])
def test_radius_zero_changes_nothing(model, digits, norm, name):
    x, _, x_adv = run(model, digits, Threat(norm, 0.0), name)
    assert torch.equal(x, x_adv)


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_every_attack_has_its_seed_and_leaves_the_model(model, digits, name):
    model.train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    first, again = (run(model, digits, LINF, name, seed=3)[2] for _ in range(2))
    assert torch.equal(first, again) and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules()) and all(p.requires_grad for p in model.parameters())


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


def test_dlr_ignores_scale_and_shift():
    logits, y = torch.randn(50, 6, generator=compute.generator(0)), torch.arange(50) % 6
    target = (y + 1) % 6
    for loss in (attacks.dlr, attacks.targeted_dlr(target)):
        assert torch.allclose(loss(logits, y), loss(100 * logits - 7, y), atol=1e-4)
    assert torch.equal(attacks.dlr(logits, y) > 0, logits.argmax(1) != y)
    top = logits[:1].sort(descending=True).values[0]
    assert attacks.dlr(logits[:1], logits[:1].argmax(1)).item() == pytest.approx(
        ((top[1] - top[0]) / (top[0] - top[2])).item())
    for classes, loss in ((2, attacks.dlr), (3, attacks.targeted_dlr(target))):
        with pytest.raises(ConfigError, match=f"needs {classes + 1} classes, the model has {classes}: use margin"):
            loss(logits[:, :classes], y % classes)


def test_kl_is_the_divergence_from_the_clean_prediction():
    clean, other = torch.randn(2, 5, 4, generator=compute.generator(0))
    p, q = clean.softmax(1), other.softmax(1)
    assert torch.allclose(attacks.kl(clean)(other, None), (p * (p / q).log()).sum(1), atol=1e-5)
    assert torch.allclose(attacks.kl(clean)(clean, None), torch.zeros(5), atol=1e-6)


def gradients(loss, logits, y):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, y).sum(), logits)[0]


class TestTemperature:
    logits = 3 * torch.randn(40, 5, generator=compute.generator(0), dtype=torch.float64)
    y = torch.arange(40) % 5

    @pytest.mark.parametrize("k", [0.2, 1.0, 4.0])
    def test_the_two_forms_have_parallel_gradients(self, k):
        naive, stable = (gradients(attacks.tempered(k, stable=s), self.logits, self.y) for s in (False, True))
        assert torch.allclose(torch.cosine_similarity(naive, stable), torch.ones(40, dtype=torch.float64))

    def test_one_is_pgd_and_large_is_the_margin_attack(self, model, digits):
        _, _, pgd = run(model, digits, LINF)
        for stable in (True, False):
            _, _, same = run(model, digits, LINF, "temperature_pgd", inverse_temperature=1.0, stable=stable)
            assert (same - pgd).abs().max() < 1e-5
        _, _, margin = run(model, digits, LINF, loss=attacks.margin)
        _, _, cold = run(model, digits, LINF, "temperature_pgd", inverse_temperature=1e4)
        assert ((cold - margin).abs().flatten(1).amax(1) < 1e-5).float().mean() > 0.95

    def test_only_the_naive_form_vanishes_in_float32(self):
        logits, y = torch.tensor([[30.0, 1.0, 0.0]]), torch.tensor([0])
        assert not gradients(attacks.tempered(10.0, stable=False), logits, y).any()
        kept = gradients(attacks.tempered(10.0), logits, y)
        assert torch.allclose(kept, torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-3)

    def test_a_temperature_below_zero_is_refused(self):
        with pytest.raises(ConfigError, match="inverse_temperature is 0: it has to be above 0"):
            attacks.tempered(0)


def test_transfer_gives_the_sources_examples(model, digits):
    x, y = digits.test.first(8).floats()
    attack = attacks.from_params("a", {"attack": "fgsm"}, LINF)
    moved = attacks.transfer(model, attack)(nn.Identity(), x, y, generator=compute.generator(0))
    assert torch.equal(moved, attack(model, x, y, generator=compute.generator(0)))


def test_apgd_returns_what_fools_before_what_has_a_higher_loss(model, digits):
    """The example is never one that the model gets right although another fooled it."""
    x, y, x_adv = run(model, digits, LINF, "apgd", steps=30)
    seen = []

    def watched(logits, y):
        seen.append(logits.detach().argmax(1) != y)
        return attacks.cross_entropy(logits, y)

    _, _, again = run(model, digits, LINF, "apgd", steps=30, loss=watched)
    model.eval()
    assert torch.equal(x_adv, again) and len(seen) == 31
    assert torch.equal(torch.stack(seen).any(0), model(x_adv).argmax(1) != y)


def test_square_stops_at_what_it_fooled(model, digits):
    x, y, few = run(model, digits, LINF, "square", queries=40)
    _, _, more = run(model, digits, LINF, "square", queries=200)
    model.eval()
    fooled = model(few).argmax(1) != y
    assert torch.equal(few[fooled], more[fooled]) and (attacks.margin(model(more), y) >= attacks.margin(
        model(few), y)).all()
    with pytest.raises(ConfigError, match="square is written for Linf"):
        run(model, digits, L2, "square")


@pytest.mark.parametrize(("break_it", "message"), [
    (lambda m, x, y: (m, x.double(), y), "images are torch.float64: attacks take float32"),
    (lambda m, x, y: (m, x * 255, y), "images run from 0 to 255: attacks take images in [0, 1]"),
    (lambda m, x, y: (m, x.masked_fill(x > 0.9, torch.nan), y), "images hold values that are not finite"),
    (lambda m, x, y: (m, x, y + 1), "labels run from 1 to 10, but the model has 10 outputs"),
    (lambda m, x, y: (m, x, y - 1), "labels run from -1 to 8, but the model has 10 outputs"),
    (lambda m, x, y: (copy.deepcopy(m).half(), x, y), "the model is torch.float16: attack and score it in float32"),
    (lambda m, x, y: (nn.Sequential(m, Divide()), x, y), "the model's logits are not finite"),
])
def test_input_that_would_make_numbers_wrong(model, digits, break_it, message):
    x, y = digits.test.floats()
    with pytest.raises(ConfigError) as error:
        attacks.check(*break_it(model, x, y))
    assert message in str(error.value)


class Divide(nn.Module):
    def forward(self, z):
        return z / 0


def test_losses_by_name():
    with pytest.raises(ConfigError, match="unknown loss 'crossentropy' in attacks.strong .*there are: cross_entropy"):
        attacks.from_params("strong", {"attack": "pgd", "steps": 1, "step_size": 1.0, "loss": "crossentropy"}, LINF)
    with pytest.raises(ConfigError, match="unknown loss 'kl' in attacks.strong"):
        attacks.from_params("strong", {"attack": "apgd", "loss": "kl"}, LINF)


@pytest.mark.parametrize("name", [*attacks.LOSSES, "kl"])
def test_a_loss_by_name_is_that_loss(model, digits, name):
    x, y = digits.test.first(16).floats()
    numbers = {"attack": "pgd", "steps": 3, "step_size": 0.3}
    by_name = attacks.from_params("a", numbers | {"loss": name}, LINF)(model, x, y, generator=compute.generator(0))
    model.eval()
    loss = attacks.kl(model(x).detach()) if name == "kl" else attacks.LOSSES[name]
    direct = attacks.pgd(model, x, y, threat=LINF, steps=3, step_size=0.3, generator=compute.generator(0), loss=loss)
    assert torch.equal(by_name, direct)


def test_params_entries_are_checked():
    with pytest.raises(ConfigError, match="unknown attack 'pdg' in attacks.strong .*did you mean 'pgd'"):
        attacks.from_params("strong", {"attack": "pdg"}, LINF)
    with pytest.raises(ConfigError, match="unknown argument 'step' in attacks.strong"):
        attacks.from_params("strong", {"attack": "pgd", "step": 3}, LINF)
    with pytest.raises(ConfigError, match="attacks.strong in params.yaml lacks step_size"):
        attacks.from_params("strong", {"attack": "pgd", "steps": 3}, LINF)
