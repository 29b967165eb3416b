"""AWP, adversarial weight perturbation (Wu, Xia, Wang, NeurIPS 2020), on any objective.

min_w max_{v in V} rho(w + v), V: ||v_l|| <= gamma ||w_l|| for every weight l of two or more dimensions. v ascends the
objective's own loss on the batch; the gradient for w is taken at w + v.

Decided on purpose, where the authors' code does otherwise: the optimiser steps at w, with the gradient from w + v, so
weight decay acts on w (theirs: on w + v), and w comes back exactly. The search for v leaves BatchNorm's running
statistics alone; the forward pass of the gradient step updates them at w + v, as theirs does. v is projected (their
code sets its norm; the same for A = K2 = 1), and its gradient taken directly (theirs is what a step of a copy changes).
Training robustness is measured at w, in eval mode and without augmentation (their logs: at w + v, in train mode, so
that the gap between training and test cannot be read off them).
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from lib import world
from lib.config import Config
from lib.methods import Method, bounded
from lib.params import known
from lib.weights import Direction, layer_normalised, movable, moved, projected, statistics_kept


def add_on(method: Method, config: Config, *, gamma: float, warmup: float, alternations: int, steps: int,
           direction: str) -> Method:
    """The objective's loss at w + v.

    gamma: the norm of v_l in units of ||w_l||. warmup: share of training before v starts. alternations A: how often
    x' and v answer each other. steps K2: ascents of v in each, of length gamma / (A K2), along the gradient normalised
    for each weight and projected onto V. direction: 'adversarial', or 'random', normal noise of norm gamma ||w_l||,
    the control.
    """
    known("direction", direction, ("adversarial", "random"), "knobs.awp of params.yaml")
    for name, value, least, most in (("gamma", gamma, 0, math.inf), ("warmup", warmup, 0, 1),
                                     ("alternations", alternations, 1, math.inf), ("steps", steps, 1, math.inf)):
        bounded(f"awp.{name}", value, least=least, most=most)
    size, found = gamma / (alternations * steps), []  # found: v as this step's attack has left it

    def attack(model, x, y, moment):
        """The objective's attack; with more alternations again at w + v, with v from the examples before."""
        x_adv = method.attack(model, x, y, moment)
        found.clear()
        if direction == "adversarial" and moment.progress >= warmup:
            for _ in range(alternations - 1):
                found[:] = [ascend(model, lambda at=x_adv: method.loss(model, x, at, y, moment).mean(), gamma, size,
                                   steps, *found)]
                with moved(model, (1.0, found[0])):
                    x_adv = method.attack(model, x, y, moment)
        return x_adv

    @contextmanager
    def around(model, loss, moment):
        """The model at w + v while the loss is computed and its gradient taken."""
        with method.around(model, loss, moment):
            v = {}
            if gamma and moment.progress >= warmup:
                v = (random(model, gamma, moment.generator) if direction == "random"
                     else ascend(model, loss, gamma, size, steps, *found))
            with moved(model, (1.0, v)):
                yield

    return replace(method, attack=method.attack and attack, around=around)


def ascend(model: nn.Module, loss: Callable[[], Tensor], gamma: float, size: float, steps: int,
           v: Direction | None = None) -> Direction:
    """v after `steps` ascents of the loss, each of length size ||w_l||, from `v` (None: 0), within gamma ||w_l||."""
    weights = movable(model)
    v = v or {name: torch.zeros_like(w) for name, w in weights.items()}
    for _ in range(steps):
        with moved(model, (1.0, v)), statistics_kept(model):
            gradient = dict(zip(weights, torch.autograd.grad(loss(), weights.values()), strict=True))
        world.average(gradient.values())  # so that v is the same in all processes
        step = layer_normalised(model, gradient, size)
        v = projected(model, {name: d + step[name] for name, d in v.items()}, gamma)
    return v


def random(model: nn.Module, gamma: float, generator: torch.Generator) -> Direction:
    """Normal noise of norm gamma ||w_l||."""
    noise = {name: torch.randn(w.shape, generator=generator, device=w.device) for name, w in movable(model).items()}
    return layer_normalised(model, noise, gamma)
