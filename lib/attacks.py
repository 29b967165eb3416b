"""Attacks: functions (model, x, y, ...) -> x_adv within the threat model, for images x in [0, 1].

Every number is an argument, and `generator` is the only source of randomness. An attack asks for the gradient
with respect to the input alone, and leaves the model's mode, parameters and BatchNorm statistics as they were.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.config import Threat
from lib.params import ConfigError, known

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), labels (N,) -> one loss an image (N,)
BATCHNORM = (nn.modules.batchnorm._BatchNorm,)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y for each image: logits (N, C), labels (N,) -> (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y for each image, positive where it is misclassified (Carlini and Wagner 2017)."""
    right = logits.gather(1, y[:, None]).squeeze(1)
    wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return wrong - right


@contextmanager
def under_attack(model: nn.Module, batchnorm: str = "eval") -> Iterator[None]:
    """The model as an attacker meets it: parameters frozen, eval mode; all is put back afterwards.

    batchnorm: 'train' lets BatchNorm use the statistics of the batch, as the training attacks of Madry et al.
    and of AWP do; its running statistics are then put back, which AWP's code does not do.
    """
    known("mode of BatchNorm", batchnorm, ("eval", "train"))
    modes = {module: module.training for module in model.modules()}
    frozen = [p for p in model.parameters() if p.requires_grad]
    layers = [m for m in modes if isinstance(m, BATCHNORM)] if batchnorm == "train" else []
    buffers = [(b, b.clone()) for layer in layers for b in layer.buffers()]
    try:
        model.eval()
        for layer in layers:
            layer.train()
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in buffers:
            buffer.copy_(before)


def fgsm(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, loss: Loss = cross_entropy,
         batchnorm: str = "eval", generator: torch.Generator | None = None) -> Tensor:
    """One step of length eps from x itself (Goodfellow et al. 2015; in L2 along the gradient)."""
    return pgd(model, x, y, threat=threat, steps=1, step_size=1.0, loss=loss, random_start=False,
               batchnorm=batchnorm, generator=generator)


def noise(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, generator: torch.Generator) -> Tensor:
    """A random point of the ball: the control that any attack has to beat."""
    return project(x + uniform_in_ball(x, threat, generator), x, threat)


def pgd(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, steps: int, step_size: float,
        generator: torch.Generator | None, loss: Loss = cross_entropy, restarts: int = 1,
        random_start: bool = True, keep_best: bool = False, batchnorm: str = "eval") -> Tensor:
    """Projected gradient descent (Madry et al. 2018), which ascends the loss.

    x: (N, C, H, W) in [0, 1]; y: (N,). step_size: in units of eps. random_start: begin at a random point of the
    ball. keep_best: return, for each image, the iterate of the highest loss instead of the last one; several
    restarts always return the best of them. batchnorm: see `under_attack`.
    Returns x_adv like x, within the ball of radius `threat.eps` around x and within [0, 1].
    """
    best, highest = x.clone(), torch.full_like(y, -torch.inf, dtype=x.dtype)
    with under_attack(model, batchnorm):
        for _ in range(restarts):
            x_adv = noise(model, x, y, threat=threat, generator=generator) if random_start else x.clone()
            for _ in range(steps):
                losses, gradient = _loss_and_gradient(model, x_adv, y, loss)
                if keep_best:
                    best, highest = _better(best, highest, x_adv, losses)
                x_adv = project(x_adv + step(gradient, threat, step_size * threat.eps), x, threat)
            if not keep_best and restarts == 1:
                return x_adv
            with torch.no_grad():
                best, highest = _better(best, highest, x_adv, loss(model(x_adv), y))
    return best


def _loss_and_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The loss of each image, and the gradient of their sum: a mean would underflow in low precision."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        losses = loss(model(x), y)
        gradient, = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient


def _better(best: Tensor, highest: Tensor, x: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    better = losses > highest
    return torch.where(better[:, None, None, None], x, best), torch.where(better, losses, highest)


def norm2(x: Tensor) -> Tensor:
    """Euclidean norm of each image of (N, C, H, W), as (N, 1, 1, 1), never zero."""
    return x.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)


def step(gradient: Tensor, threat: Threat, size: float) -> Tensor:
    """The step of length `size` in the norm of the threat model that ascends the linearised loss fastest."""
    return size * (gradient.sign() if threat.norm == "Linf" else gradient / norm2(gradient))


def project(x_adv: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """The point of the ball around x nearest to x_adv, clipped to [0, 1]."""
    delta = x_adv - x
    if threat.norm == "Linf":
        delta = delta.clamp(-threat.eps, threat.eps)
    else:
        delta = delta * (threat.eps / norm2(delta)).clamp_max(1)
    return (x + delta).clamp(0, 1)


def uniform_in_ball(x: Tensor, threat: Threat, generator: torch.Generator) -> Tensor:
    """A perturbation drawn uniformly from the ball, one for each image."""
    known("norm", threat.norm, ("Linf", "L2"))
    if threat.norm == "Linf":
        return threat.eps * (2 * torch.rand(x.shape, generator=generator, device=x.device) - 1)
    direction = torch.randn(x.shape, generator=generator, device=x.device)
    radius = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) ** (1 / x[0].numel())
    return threat.eps * radius * direction / norm2(direction)


ATTACKS = {"noise": noise, "fgsm": fgsm, "pgd": pgd}


def from_params(name: str, numbers: dict, threat: Threat) -> Callable[..., Tensor]:
    """The attack that an entry of `attacks` in params.yaml describes, as (model, x, y, generator=...) -> x_adv."""
    numbers = dict(numbers)
    kind = numbers.pop("attack", None)
    known("attack", kind, ATTACKS, f"attacks.{name} of params.yaml")
    arguments = inspect.signature(ATTACKS[kind]).parameters
    for key in numbers:
        names = [a for a in arguments if a not in ("model", "x", "y", "threat", "generator", "loss")]
        known("argument", key, names, f"attacks.{name} of params.yaml")
    required = [a for a, p in arguments.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    missing = [a for a in required if a not in ("threat", "generator", *numbers)]
    if missing:
        raise ConfigError(f"attacks.{name} in params.yaml lacks {', '.join(missing)}")

    def attack(model, x, y, *, generator):
        """The attack with its numbers filled in."""
        return ATTACKS[kind](model, x, y, threat=threat, generator=generator, **numbers)

    return attack
