"""Auto-PGD (Croce and Hein 2020): PGD with momentum that halves its step where it no longer gets on.

Untargeted on any loss, and targeted on the DLR loss, class after class. Written anew, with every choice as in the
authors' code, so that equal budgets mean equal attacks: `06_parity` compares them image by image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.attacks.losses import Loss, cross_entropy, targeted_dlr
from lib.attacks.threat import loss_and_gradient, norm2, project, step, under_attack
from lib.compute import exact
from lib.config import Threat
from lib.params import ConfigError


def apgd(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, generator: torch.Generator, steps: int = 100,
         restarts: int = 1, loss: Loss = cross_entropy, rho: float = 0.75) -> Tensor:
    """Untargeted Auto-PGD. There is no step size: it begins at 2 eps and halves by itself.

    rho: share of the steps since the last check that have to raise the loss. Later restarts attack only what the
    earlier ones left. Returns x_adv like x: where the model was fooled, the example of the highest loss that fooled it,
    elsewhere the iterate of the highest loss.
    """
    best = _Best.of(x)
    with under_attack(model):
        for _ in range(restarts):
            best.improve(lambda i: _ascend(model, x[i], y[i], threat, steps, loss, rho, generator))
            best.confirm(model, y)
    return best.x


def apgd_targeted(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, generator: torch.Generator,
                  steps: int = 100, restarts: int = 1, targets: int = 9, rho: float = 0.75) -> Tensor:
    """Auto-PGD on the targeted DLR loss, towards the `targets` wrong classes of the highest clean logits, one by one.

    targets: at most the number of classes less one. A target is tried only on images that no earlier one fooled.
    Raises ConfigError for fewer than 4 classes. Returns x_adv as `apgd` does.
    """
    best = _Best.of(x)
    with under_attack(model):
        with torch.no_grad():
            logits = torch.cat([model(part) for part in x.split(500)])
        if logits.shape[1] < 4:
            raise ConfigError(f"the targeted DLR loss needs 4 classes, the model has {logits.shape[1]}")
        order = logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
        for target in order[:, :min(targets, logits.shape[1] - 1)].T:
            for _ in range(restarts):
                best.improve(lambda i, target=target: _ascend(model, x[i], y[i], threat, steps, targeted_dlr(target[i]),
                                                              rho, generator))
                best.confirm(model, y)
    return best.x


@dataclass
class _Best:
    """For each image the best example so far, its loss, and whether it fools the model."""

    x: Tensor
    loss: Tensor
    fooled: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "_Best":
        """Nothing tried yet."""
        return cls(x.clone(), torch.full_like(x[:, 0, 0, 0], -torch.inf), torch.zeros(len(x), dtype=torch.bool,
                                                                                      device=x.device))

    def improve(self, attack) -> None:
        """Attack what is not fooled yet; attack: indices -> a `_Best` of these images."""
        left = (~self.fooled).nonzero().squeeze(1)
        if len(left):
            found = attack(left)
            self.update(found.x, found.loss, found.fooled, left)

    def confirm(self, model: nn.Module, y: Tensor) -> None:
        """After an attack in low precision: fooled is what float32 says of the examples, and the rest goes on."""
        if torch.is_autocast_enabled(self.x.device.type):
            with torch.no_grad(), exact(self.x.device):
                said = torch.cat([model(part) for part in self.x.split(500)]).argmax(1)
            self.fooled &= said != y

    def update(self, x: Tensor, loss: Tensor, fooled: Tensor, at: Tensor | slice = slice(None)) -> None:
        """Take over what is better: fooling before not fooling, then the higher loss."""
        before = self.fooled[at]
        better = (fooled & ~before) | ((fooled == before) & (loss > self.loss[at]))
        self.x[at] = torch.where(better[:, None, None, None], x, self.x[at])
        self.loss[at] = torch.where(better, loss, self.loss[at])
        self.fooled[at] = before | fooled


def _ascend(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int, loss: Loss, rho: float,
            generator: torch.Generator) -> _Best:
    """One run of Auto-PGD from a random point on the surface of the ball."""
    best, checks, checked = _Best.of(x), _checks(steps), 0
    now = before = _start(x, threat, generator)
    last, gradient, fooled = _evaluate(model, now, y, loss)
    best.update(now, last, fooled)
    peak, peak_x, peak_gradient, peak_at_check = last, now, gradient, last
    size = torch.full_like(x[:, :1, :1, :1], 2 * threat.eps)
    rises, halved = torch.zeros_like(last), torch.ones_like(last, dtype=torch.bool)
    for i in range(1, steps + 1):
        ahead = project(now + size * step(gradient, threat, 1.0), x, threat)
        if i > 1:  # momentum
            ahead = project(now + 0.75 * (ahead - now) + 0.25 * (now - before), x, threat)
        now, before = ahead, now
        losses, gradient, fooled = _evaluate(model, now, y, loss)
        best.update(now, losses, fooled)
        higher = losses > peak
        peak_x, peak_gradient = _where(higher, now, peak_x), _where(higher, gradient, peak_gradient)
        peak, rises, last = losses.maximum(peak), rises + (losses > last), losses
        if i in checks:
            stuck = (rises <= rho * (i - checked)) | (~halved & (peak <= peak_at_check))
            size = _where(stuck, size / 2, size)
            now, gradient = _where(stuck, peak_x, now), _where(stuck, peak_gradient, gradient)
            halved, peak_at_check, rises, checked = stuck, peak, torch.zeros_like(rises), i
    return best


def _evaluate(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each image, its gradient, and whether the model is fooled, in one pass."""
    fooled = []

    def watched(logits: Tensor, y: Tensor) -> Tensor:
        """The loss, while the prediction is noted."""
        fooled.append(logits.argmax(1) != y)
        return loss(logits, y)

    losses, gradient = loss_and_gradient(model, x, y, watched)
    return losses, gradient, fooled[0]


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask[:, None, None, None], a, b)


def _start(x: Tensor, threat: Threat, generator: torch.Generator) -> Tensor:
    """A random point whose largest change (Linf) or whose length (L2) is eps, as in the authors' code."""
    if threat.norm == "Linf":
        noise = 2 * torch.rand(x.shape, generator=generator, device=x.device) - 1
        noise = noise / noise.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    else:
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        noise = noise / norm2(noise)
    return (x + threat.eps * noise).clamp(0, 1)


def _checks(steps: int) -> set[int]:
    """The steps at which the step size is looked at: after 22 %, then at intervals that shrink by 3 % down to 6 %."""
    interval, shrink, least = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    at, found = interval, set()
    while at <= steps:
        found.add(at)
        interval = max(interval - shrink, least)
        at += interval
    return found
