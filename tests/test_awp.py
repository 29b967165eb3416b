"""Weights that move and come back: AWP against a plain implementation, its random control, and the moving average."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from lib import compute, data, methods, train
from lib.params import ConfigError
from lib.weights import movable

CPU = torch.device("cpu")
KNOBS = {"gamma": 0.02, "warmup": 0.0, "alternations": 1, "steps": 1, "direction": "adversarial"}


def run(cfg, spec="pgd+awp", **knobs):
    """A run of one epoch with these knobs of AWP."""
    return replace(cfg, method=spec, train=replace(cfg.train, epochs=1),
                   knobs={**cfg.knobs, "awp": KNOBS | knobs, "ema": {"decay": 0.9}})


@pytest.fixture
def step(cfg, digits, model):
    """What one step meets: (method, model in train mode, x, x_adv, y, moment), for knobs of AWP."""
    def made(**knobs):
        method = methods.build(run(cfg, **knobs))
        x, y = digits.train.first(64).floats()
        moment = methods.Moment(0.5, compute.generator(0))
        x_adv = method.attack(model, x, y, moment)
        return method, model.train(), x, x_adv, y, moment
    return made


def walked(method, model, x, x_adv, y, moment):
    """v, and what the model is afterwards: its state before and after `around`."""
    before, inside = train.snapshot(model), None
    with method.around(model, lambda: method.loss(model, x, x_adv, y, moment).mean(), moment):
        inside = train.snapshot(model)
    return {name: inside[name] - before[name] for name in movable(model)}, before, train.snapshot(model)


def plain_awp(cfg, model, images, gamma):
    """One epoch as a copy of the network does it: ascend on the copy, add the difference, step, take it off."""
    generator = compute.generator(cfg.seed)
    optimizer = SGD(model.parameters(), lr=0.01, momentum=cfg.train.momentum, weight_decay=0.0)
    attack = methods.build(replace(cfg, method="pgd")).attack
    steps = list(data.batches(images, cfg.train.batch_size, compute.generator(99)))
    model.train()
    for i, (x, y) in enumerate(steps):
        x_adv = attack(model, x, y, methods.Moment(i / len(steps), generator))
        proxy = copy.deepcopy(model)
        climber = SGD(proxy.parameters(), lr=0.01)
        (-F.cross_entropy(proxy(x_adv), y)).backward()
        climber.step()
        v = {}
        for (name, w), (_, moved) in zip(model.named_parameters(), proxy.named_parameters(), strict=True):
            if w.dim() > 1:
                difference = moved.detach() - w.detach()
                v[name] = gamma * w.detach().norm() / (difference.norm() + 1e-20) * difference
        for name, w in model.named_parameters():
            w.data.add_(v.get(name, 0.0))
        optimizer.zero_grad()
        F.cross_entropy(model(x_adv), y).backward()
        optimizer.step()
        for name, w in model.named_parameters():
            w.data.sub_(v.get(name, 0.0))
    return model


def test_a_few_steps_equal_a_plain_implementation(cfg, digits, model, monkeypatch):
    once = run(replace(cfg, train=replace(cfg.train, weight_decay=0.0)))
    few = digits.train.first(3 * once.train.batch_size)
    plain = plain_awp(once, copy.deepcopy(model), few, gamma=0.02)
    fixed = list(data.batches(few, once.train.batch_size, compute.generator(99)))
    monkeypatch.setattr(train, "batches", lambda *arguments: fixed)
    ours = copy.deepcopy(model)
    optimizer = SGD(ours.parameters(), lr=0.01, momentum=once.train.momentum)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    train.train_epoch(once, methods.build(once), ours, few, optimizer, scheduler, compute.generator(once.seed), 0.0)
    for name, w in plain.named_parameters():
        assert torch.allclose(w, dict(ours.named_parameters())[name], atol=1e-5), name


@pytest.mark.parametrize("direction", ["adversarial", "random"])
def test_v_has_its_norm_and_w_comes_back_bit_for_bit(step, direction):
    method, model, *batch = step(direction=direction)
    v, before, after = walked(method, model, *batch)
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # BatchNorm's statistics too
    for name, d in v.items():
        assert d.norm().item() == pytest.approx(0.02 * before[name].norm().item(), rel=1e-3)
    assert set(v) == {name for name, p in model.named_parameters() if p.dim() > 1}


def test_the_adversarial_v_raises_the_loss_more_than_a_random_one(step):
    def raised(direction):
        method, model, x, x_adv, y, moment = step(direction=direction)
        loss = lambda: method.loss(model, x, x_adv, y, moment).mean()  # noqa: E731
        before = loss().item()
        with method.around(model, loss, moment):
            return loss().item() - before
    assert raised("adversarial") > 3 * abs(raised("random")) > 0


@pytest.mark.parametrize(("alternations", "steps"), [(1, 3), (2, 1), (2, 2)])
def test_more_ascents_stay_within_gamma(step, alternations, steps):
    method, model, *batch = step(alternations=alternations, steps=steps)
    v, before, after = walked(method, model, *batch)
    lengths = torch.stack([d.norm() / before[name].norm() for name, d in v.items()])
    assert (lengths <= 0.02 * 1.001).all() and lengths.max() > 0.01
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_without_gamma_or_before_its_start_it_is_the_objective(cfg, digits):
    plain = train.fit(run(cfg, "pgd"), digits, CPU, lambda line: None).states["last"]
    for knobs in ({"gamma": 0.0}, {"warmup": 1.0}):
        same = train.fit(run(cfg, **knobs), digits, CPU, lambda line: None).states["last"]
        assert all(torch.equal(value, same[name]) for name, value in plain.items())


@pytest.mark.parametrize("spec", ["trades+awp", "mart+awp", "pgd+he+awp", "pgd+balanced+awp", "pgd+awp+ema"])
def test_it_composes(cfg, digits, spec):
    trained = train.fit(run(cfg, spec), digits, CPU, lambda line: None)
    assert trained.history.loss.notna().all()
    plain = train.fit(run(cfg, spec, gamma=0.0), digits, CPU, lambda line: None)
    assert not torch.equal(trained.states["last"]["1.hidden.weight"], plain.states["last"]["1.hidden.weight"])


def test_the_average_is_that_of_the_weights(cfg, digits):
    seen = []
    method = methods.build(run(cfg, "pgd+ema"))

    def around(model, loss, moment):
        seen.append(train.snapshot(model))
        return method.around(model, loss, moment)

    watched = replace(method, around=around)
    model = train.initial(cfg, watched, digits, CPU)
    optimizer, scheduler = train.optimizer_and_schedule(cfg, model, 100)
    train.train_epoch(cfg, watched, model, digits.train, optimizer, scheduler, compute.generator(0), 0.0)
    expected = seen[0]
    for t, state in enumerate([*seen[1:], train.snapshot(model)], 2):
        decay = min(0.9, t / (9 + t))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in state.items()}
    deployed = method.deploy(model).state_dict()
    for name in ("1.head.weight", "1.features.1.running_var"):
        assert torch.allclose(deployed[name], expected[name], atol=1e-6)
        assert not torch.allclose(deployed[name], model.state_dict()[name], atol=1e-6)


@pytest.mark.parametrize(("spec", "knobs", "message"), [
    ("pgd+awp", {"awp": KNOBS | {"gamma": -1.0}}, "knobs.awp.gamma in params.yaml is -1.0: it has"),
    ("pgd+awp", {"awp": KNOBS | {"direction": "up"}}, "unknown direction 'up' in knobs.awp of params.yaml"),
    ("pgd+ema", {"ema": {"decay": 1.5}}, "knobs.ema.decay in params.yaml is 1.5: it has"),
])
def test_wrong_knobs_are_named(cfg, spec, knobs, message):
    with pytest.raises(ConfigError, match=message):
        methods.build(replace(cfg, method=spec, knobs={**cfg.knobs, **knobs}))
