"""Attacks along the gradient: FGSM, PGD and Temperature-PGD; and random noise, their control."""

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from lib.attacks.losses import Loss, cross_entropy, tempered
from lib.attacks.threat import better, loss_and_gradient, normal, project, step, under_attack, uniform_in_ball
from lib.compute import exact
from lib.config import Threat
from lib.params import known

STARTS = {
    "uniform": lambda x, threat, generator: project(x + uniform_in_ball(x, threat, generator), x, threat),
    "near": lambda x, threat, generator: project(x + 0.001 * normal(x, generator), x, threat),
    "image": lambda x, threat, generator: x.clone(),
}


def fgsm(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, loss: Loss = cross_entropy,
         batchnorm: str = "eval", generator: torch.Generator | None = None) -> Tensor:
    """One step of length eps from x itself (Goodfellow et al. 2015; in L2 along the gradient)."""
    return pgd(model, x, y, threat=threat, steps=1, step_size=1.0, loss=loss, start="image",
               batchnorm=batchnorm, generator=generator)


def noise(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, generator: torch.Generator) -> Tensor:
    """A random point of the ball: the control that any attack has to beat."""
    return STARTS["uniform"](x, threat, generator)


def pgd(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, steps: int, step_size: float,
        generator: torch.Generator | None, loss: Loss = cross_entropy, restarts: int = 1,
        start: str = "uniform", keep_best: bool = False, batchnorm: str = "eval") -> Tensor:
    """Projected gradient descent (Madry et al. 2018), which ascends the loss.

    x: (N, C, H, W) in [0, 1]; y: (N,). step_size: in units of eps. start: 'uniform', a random point of the ball;
    'near', normal noise of standard deviation 0.001 (TRADES); or the 'image' itself. keep_best: return, for each
    image, the iterate of the highest loss instead of the last one; several restarts are one batch, and the best of them
    is returned.
    batchnorm: see `under_attack`. `threat.eps` may be one radius, or (N, 1, 1, 1): each image its own.
    Returns x_adv like x, within the ball around x and within [0, 1].
    """
    known("start", start, STARTS)
    # So near to x a divergence from it is noise in bfloat16; the cross-entropy has a gradient there.
    noisy = start == "near" and loss is not cross_entropy
    if restarts > 1:  # all in one batch
        x, y, threat, loss = x.repeat(restarts, 1, 1, 1), y.repeat(restarts), _repeat(threat, restarts), _of_each(
            loss, restarts)
    best, highest = x, torch.full_like(y, -torch.inf, dtype=x.dtype)
    with under_attack(model, batchnorm):
        x_adv = STARTS[start](x, threat, generator)
        for i in range(steps):
            with exact(x.device) if noisy and i == 0 else nullcontext():
                losses, gradient = loss_and_gradient(model, x_adv, y, loss)
            if keep_best:
                best, highest = better(best, highest, x_adv, losses)
            x_adv = project(x_adv + step(gradient, threat, step_size * threat.eps), x, threat)
        if not keep_best and restarts == 1:
            return x_adv
        with torch.no_grad():
            best, highest = better(best, highest, x_adv, loss(model(x_adv), y))
    first = highest.view(restarts, -1).argmax(0)
    return best.view(restarts, -1, *x.shape[1:])[first, torch.arange(len(first), device=x.device)]


def _repeat(threat: Threat, restarts: int) -> Threat:
    """The threat model of images that are there several times; their radii may differ."""
    return replace(threat, eps=threat.eps.repeat(restarts, 1, 1, 1)) if isinstance(threat.eps, Tensor) else threat


def _of_each(loss: Loss, restarts: int) -> Loss:
    """The loss of each restart by itself: it may know its images, as `kl` does."""
    return lambda logits, y: torch.cat([loss(*part) for part in zip(logits.chunk(restarts), y.chunk(restarts),
                                                                    strict=True)])


def temperature_pgd(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, inverse_temperature: float,
                    stable: bool = True, steps: int, step_size: float, generator: torch.Generator | None,
                    restarts: int = 1, start: str = "uniform", keep_best: bool = False) -> Tensor:
    """PGD on the logits times 1/T (named by Tian et al. 2021): `losses.tempered` has its two forms, `pgd` the rest."""
    return pgd(model, x, y, threat=threat, steps=steps, step_size=step_size, generator=generator, restarts=restarts,
               start=start, keep_best=keep_best, loss=tempered(inverse_temperature, stable))
