"""AWP, adversarial weight perturbation (Wu, Xia, Wang, NeurIPS 2020), on any objective.

min_w max_{v in V} rho(w + v), V: ||v_l|| <= gamma ||w_l|| for every weight l of two or more dimensions. v ascends the
objective's own loss on the batch; the gradient for w is taken at w + v.
"""

from contextlib import contextmanager
from dataclasses import replace

import torch

from lib.config import Config
from lib.methods import Method, bounded
from lib.params import known
from lib.weights import Direction, layer_normalised, movable, moved, statistics_kept


def add_on(method: Method, config: Config, *, gamma: float, warmup: float, alternations: int, steps: int,
           direction: str) -> Method:
    """The objective's loss at w + v.

    gamma: the norm of v_l in units of ||w_l||. warmup: share of training before v starts. alternations A: how often
    x' and v answer each other. steps K2: ascents of v in each, of length gamma / (A K2), along the gradient normalised
    for each weight and projected onto V. direction: 'adversarial', or 'random', normal noise of norm gamma ||w_l||,
    the control.

    Decided on purpose, where the authors' code does otherwise: the optimiser steps at w, with the gradient from
    w + v, so weight decay acts on w (theirs: on w + v), and w comes back exactly. The search for v leaves BatchNorm's
    running statistics alone; the forward pass of the gradient step updates them at w + v, as theirs does. v is
    projected (their code sets its norm; the same for A = K2 = 1). The gradient is taken directly (theirs is the
    difference that a step of a copy makes).
    """
    known("direction", direction, ("adversarial", "random"), "knobs.awp of params.yaml")
    bounded("awp.gamma", gamma, least=0)
    bounded("awp.warmup", warmup, least=0, most=1)
    bounded("awp.alternations", alternations, least=1)
    bounded("awp.steps", steps, least=1)
    found: list[Direction] = []  # v as the attack of this step has left it, for `around` to go on from

    def attack(model, x, y, moment):
        """The objective's attack; with more alternations again at w + v, with v from the examples before."""
        x_adv = method.attack(model, x, y, moment) if method.attack else x
        found.clear()
        if direction == "adversarial" and moment.progress >= warmup:
            for _ in range(alternations - 1):
                v = ascend(model, lambda at=x_adv: method.loss(model, x, at, y, moment).mean(), found)
                with moved(model, (1.0, v)):
                    x_adv = method.attack(model, x, y, moment)
        return x_adv

    def ascend(model, loss, before):
        """v after another `steps` ascents from `before` (a list of one, or empty for v = 0)."""
        weights, size = movable(model), gamma / (alternations * steps)
        v = before.pop() if before else {name: torch.zeros_like(w) for name, w in weights.items()}
        for _ in range(steps):
            with moved(model, (1.0, v)), statistics_kept(model):
                gradient = dict(zip(weights, torch.autograd.grad(loss(), weights.values()), strict=True))
            step = layer_normalised(model, gradient, size)
            v = inside({name: v[name] + step[name] for name in v}, weights)
        before.append(v)
        return v

    def inside(v, weights):
        """The nearest point of V."""
        return {name: d * (gamma * weights[name].detach().norm() / d.norm().clamp_min(1e-20)).clamp_max(1)
                for name, d in v.items()}

    @contextmanager
    def around(model, loss, moment):
        """The model at w + v while the loss is computed and its gradient taken."""
        with method.around(model, loss, moment):
            if gamma == 0 or moment.progress < warmup:
                yield
                return
            if direction == "random":
                noise = {name: torch.randn(w.shape, generator=moment.generator, device=w.device)
                         for name, w in movable(model).items()}
                v = layer_normalised(model, noise, gamma)
            else:
                v = ascend(model, loss, found)
            with moved(model, (1.0, v)):
                yield

    return replace(method, attack=method.attack and attack, around=around)
