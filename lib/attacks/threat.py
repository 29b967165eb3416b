"""The ball of the threat model, its steps and projections; and the model as an attacker meets it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib import world
from lib.attacks.losses import Loss
from lib.compute import out_of_memory
from lib.config import Threat
from lib.params import ConfigError, known

BATCHNORM = (nn.modules.batchnorm._BatchNorm,)
most = sys.maxsize  # images that memory has held at once


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


def check(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse, each in one line, what would make every number after it wrong.

    Images that are not float32, hold a NaN or leave [0, 1]; labels that the model has no output for; a model that is
    not float32, or whose logits are not finite. Raises ConfigError.
    """
    if x.dtype != torch.float32:
        raise ConfigError(f"images are {x.dtype}: attacks take float32 in [0, 1]")
    if not torch.isfinite(x).all():
        raise ConfigError("images hold values that are not finite (NaN)")
    if not (x.min() >= 0 and x.max() <= 1):
        raise ConfigError(f"images run from {x.min():.3g} to {x.max():.3g}: attacks take images in [0, 1], and the "
                          "model begins with its own normalisation")
    wrong = {str(p.dtype) for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    if wrong:
        raise ConfigError(f"the model is {', '.join(wrong)}: attack and score it in float32 (model.float())")
    with under_attack(model), torch.no_grad():
        logits = model(x[:8])
    if not torch.isfinite(logits).all():
        raise ConfigError("the model's logits are not finite: it has diverged, or it divides by zero")
    if not (0 <= y.min() and y.max() < logits.shape[1]):
        raise ConfigError(f"labels run from {y.min()} to {y.max()}, but the model has {logits.shape[1]} outputs")


def loss_and_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The loss of each image, and the gradient of their sum: a mean would underflow in low precision.

    Where memory does not hold the batch, it is done in two halves from then on, and a line says so.
    """
    global most
    if len(x) <= most:
        try:
            return _at_once(model, x, y, loss)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            most = len(x) - 1
        # Outside of `except`, so that the tensors of the failed attempt are gone.
        print(f"out of memory with an attack on {len(x)} images at once: from now on in two halves", file=sys.stderr)
        if x.is_cuda:
            torch.cuda.empty_cache()
    if any(layer.training for layer in model.modules() if isinstance(layer, BATCHNORM)):
        raise ConfigError(f"out of memory with an attack on {len(x)} images, whose BatchNorm needs all of them: lower "
                          "train.batch_size, or attack with batchnorm: eval")
    try:
        return _in_halves(model, x, y, loss)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"out of memory with an attack on half of {len(x)} images: lower train.batch_size or "
                          "evaluate.batch_size") from None


def _at_once(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        losses = loss(model(x), y)
        gradient, = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient


def _in_halves(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The same in half the memory and one forward pass more: losses may know their batch, so they get all logits."""
    halves = x.detach().tensor_split(2)
    with torch.no_grad():
        logits = torch.cat([model(half) for half in halves])
    with torch.enable_grad():
        losses = loss(logits.requires_grad_(), y)
        above, = torch.autograd.grad(losses.sum(), logits)
        gradients = [torch.autograd.grad(model(half.requires_grad_()), half, part)[0]
                     for half, part in zip(halves, above.tensor_split(2), strict=True)]
    return losses.detach(), torch.cat(gradients)


def better(best: Tensor, highest: Tensor, x: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """The best images (N, C, H, W) and the highest losses (N,), with `x` taken over where its losses are higher."""
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
        return threat.eps * (2 * uniform(x, generator, x.shape[1:]) - 1)
    direction = normal(x, generator)
    radius = uniform(x, generator, (1, 1, 1)) ** (1 / x[0].numel())
    return threat.eps * radius * direction / norm2(direction)


def normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise like x."""
    return world.draw(lambda n: torch.randn(n, *x.shape[1:], generator=generator, device=x.device), len(x), generator)


def uniform(x: Tensor, generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Numbers from [0, 1) of this shape for each image of x."""
    return world.draw(lambda n: torch.rand(n, *shape, generator=generator, device=x.device), len(x), generator)
