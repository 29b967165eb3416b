"""Loops in lockstep: a right one stays with lib's at every step, and a wrong step is seen where it is taken."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib import attacks, data, lockstep, methods, train

CPU = torch.device("cpu")


@pytest.fixture
def run(cfg, few):
    """Two epochs of three steps."""
    assert len(few.train) // cfg.train.batch_size == 3
    return cfg


def plain(run, wrong=-1, steps=6):
    """PGD training as one would write it, with another loss at step `wrong`, and so many steps in all."""
    def training(model, images, generator, each):
        optimizer, schedule = train.optimizer_and_schedule(run, model, max(6, steps))
        batches = (batch for _ in range(9) for batch in data.batches(images, run.train.batch_size, generator))
        for done, (x, y) in zip(range(steps), batches, strict=False):
            eps = min(1.0, done / 6 / run.knobs["pgd"]["warmup"]) * run.threat.eps
            x_adv = attacks.pgd(model, x, y, threat=replace(run.threat, eps=eps), steps=run.train.steps,
                                step_size=run.train.step_size, generator=generator)
            model.train()
            loss = F.nll_loss(model(x if done == wrong else x_adv).log_softmax(1), y, reduction="sum") / len(y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            each(model)

    return training


def test_lib_is_in_step_with_itself(run, few):
    assert not lockstep.apart(run, few, lockstep.loop(run, methods.build(run)), CPU).any()


def test_the_states_are_those_of_a_training(run, few):
    first, *rest = lockstep.states(run, few, CPU)
    last = train.fit(run, few, CPU, log=lambda line: None).states["last"]
    untrained = train.snapshot(train.initial(run, methods.build(run), few, CPU))
    assert len(rest) == 6 and all(torch.equal(first[name], value) for name, value in untrained.items())
    assert all(torch.equal(rest[-1][name], value) for name, value in last.items())
    assert any(not torch.equal(rest[0][name], first[name]) for name in first)


def test_another_order_of_sums_is_rounding(run, few):
    found = lockstep.apart(run, few, plain(run), CPU)
    assert found.shape == (6,) and found.max() < 1e-6


@pytest.mark.parametrize("step", [1, 3])
def test_a_wrong_step_is_seen_where_it_is_taken(run, few, step):
    found = lockstep.apart(run, few, plain(run, wrong=step), CPU)
    assert found[:step].max() < 1e-6 and found[step] > 1e-4


def test_too_few_steps_and_too_many(run, few):
    found = lockstep.apart(run, few, plain(run, steps=4), CPU)
    assert found[:4].max() < 1e-6 and np.isinf(found[4:]).all()
    with pytest.raises(AssertionError, match="more than 6 steps"):
        lockstep.apart(run, few, plain(run, steps=7), CPU)


def test_lib_can_be_given_an_attack_and_a_network(run, few):
    method = methods.build(run)

    def noise(model, x, y, moment):
        """In place of PGD."""
        return attacks.noise(model, x, y, threat=run.threat, generator=moment.generator)

    other = replace(method, attack=noise)
    assert not lockstep.apart(run, few, lockstep.loop(run, other), CPU, other).any()
    assert lockstep.apart(run, few, lockstep.loop(run, method), CPU, other)[-1] > 1e-4
    knobs = {**run.knobs, "sparta": {**run.knobs["sparta"], "context": "none"}}
    swish, sparta = replace(run, method="pgd+swish"), replace(run, method="pgd+sparta", knobs=knobs)
    found = lockstep.apart(swish, few, lockstep.loop(swish, methods.build(swish)), CPU, methods.build(sparta))
    assert found.max() < 1e-6  # another class with the same tensors: the slopes
