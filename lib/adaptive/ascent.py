"""Attacks along gradients that are made for a classifier with dummies.

What they ascend may be read off the 2C logits, see `View`. Except in `towards_classes`, an example counts once the
deployed classifier is wrong, at whichever iterate, restart or target that is.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib import attacks, evaluate
from lib.adaptive.protocols import PUBLISHED, View, adaptive, raw
from lib.config import Config, Threat

MOST = 9  # targets, as AutoAttack: the wrong classes of the highest clean logits


def tracked_pgd(loss: attacks.Loss, pair: str, *, threat: Threat, steps: int, step_size: float,
                restarts: int) -> attacks.Attack:
    """PGD on a loss of a pair (see `View.pairs`) that keeps the first iterate which fools the deployed classifier.

    Where none does, it keeps the iterate of the highest loss. A later restart has only the images that are left. With
    cross-entropy of the pair 'lse' this is the idea of DAWA (Yu et al. 2026, known to us by its abstract): the gradient
    is the one of w CE(z, y) + (1 - w) CE(z, y + C), w being the share of y within its pair, held fixed.
    """
    def run(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The attack with its numbers filled in."""
        view, x_adv = View(model), x.clone()

        def watched(logits: Tensor, y: Tensor) -> Tensor:
            """The loss and its gradient; as a value infinity where the deployed classifier is wrong."""
            losses = loss(view.pairs(pair), y)
            return torch.where(logits.argmax(1) != y, losses - losses.detach() + torch.inf, losses)

        with attacks.under_attack(model), torch.no_grad():
            left = right(view, x, y)
            for _ in range(restarts):
                if len(left):
                    x_adv[left] = attacks.pgd(view, x[left], y[left], threat=threat, steps=steps, step_size=step_size,
                                              loss=watched, keep_best=True, generator=generator)
                    left = left[right(view, x_adv[left], y[left])]
        return x_adv

    return run


def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Places of the images (N, channels, H, W) that the classifier gets right, in order."""
    return (model(x).argmax(1) == y).nonzero().squeeze(1)


def multi_targeted(pair: str, *, threat: Threat, steps: int, targets: int = MOST) -> attacks.Attack:
    """Auto-PGD towards one wrong class after the other, on the difference of logits, until an image is fooled.

    pair 'max': r_t - r_y for the pairs r of targets t and label y. pair 'raw': z_t - r_y and then z_{t+C} - r_y. The
    targets are the classes of the highest clean r.
    """
    def gain(target: Tensor, view: View) -> attacks.Loss:
        """The target's logit less the higher one of the label's pair."""
        return lambda r, y: (view.pairs(pair).gather(1, target[:, None]) - r.gather(1, y[:, None])).squeeze(1)

    def order(view: View, x: Tensor, y: Tensor) -> Tensor:
        """The targets (N, T) of images that the view has just seen."""
        found = highest(view(x), y, targets)
        outputs, classes = view.pairs(pair).shape[1], view.pairs("max").shape[1]
        return torch.stack([found + first for first in range(0, outputs, classes)], 2).flatten(1)

    return _targets(order, gain, threat, steps)


def targeted_dlr(pair: str, *, threat: Threat, steps: int = 100, targets: int = MOST) -> attacks.Attack:
    """`attacks.apgd_targeted` on the logits of a pair, except that the deployed classifier tells success.

    pair 'max' is that attack itself; with 'raw' a target may be the label's own dummy.
    """
    def loss(target: Tensor, view: View) -> attacks.Loss:
        """The targeted DLR loss of the pair's logits."""
        return lambda _, y: attacks.targeted_dlr(target)(view.pairs(pair), y)

    def order(view: View, x: Tensor, y: Tensor) -> Tensor:
        """The targets (N, T)."""
        view(x)
        return highest(view.pairs(pair), y, targets)

    return _targets(order, loss, threat, steps)


def highest(logits: Tensor, y: Tensor, most: int) -> Tensor:
    """The wrong outputs of the highest logits, highest first: (N, K), (N,) -> (N, min(most, K - 1))."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :min(most, logits.shape[1] - 1)]


def _targets(order: Callable[[View, Tensor, Tensor], Tensor], loss: Callable[[Tensor, View], attacks.Loss],
             threat: Threat, steps: int) -> attacks.Attack:
    """Auto-PGD on a loss for each target in turn, on images that the deployed classifier still gets right."""
    def run(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The attack on a view of the model."""
        view, x_adv = View(model), x.clone()
        with attacks.under_attack(model), torch.no_grad():
            wanted, left = order(view, x, y), right(view, x, y)
            for target in wanted.T:
                if len(left):
                    x_adv[left] = attacks.apgd(view, x[left], y[left], loss=loss(target[left], view), threat=threat,
                                               steps=steps, generator=generator)
                    left = left[right(view, x_adv[left], y[left])]
        return x_adv

    return run


def towards_classes(protocol: str, *, threat: Threat, steps: int, step_size: float,
                    targets: int = MOST) -> attacks.Attack:
    """PGD that raises log p_t, for one other class t after the other, until the prediction is t; never for a dummy.

    As published it faces the 2C logits, adaptively the deployed classifier. DUCAT's authors speak of a targeted attack,
    but what they ran is not known to us: this one is ours.
    """
    def run(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The attack on the classifier or on what is behind it."""
        faced, x_adv, left = raw(model) if protocol == PUBLISHED else model, x.clone(), torch.arange(len(x)).to(y)
        with attacks.under_attack(model), torch.no_grad():
            order = highest(faced(x)[:, :model(x[:1]).shape[1]], y, targets)
            for target in order.T:
                if len(left):
                    x_adv[left] = attacks.pgd(faced, x[left], target[left], threat=threat, steps=steps,
                                              step_size=step_size, generator=generator,
                                              loss=lambda logits, t: -attacks.cross_entropy(logits, t))
                    left = left[faced(x_adv[left]).argmax(1) != target[left]]
        return x_adv

    return run


def tier(config: Config, pair: str) -> attacks.Attack:
    """The strongest attack of a run with its losses on a pair, while the deployed classifier tells success.

    Of pair 'max' it is the tier on the deployed classifier. `final`, AutoAttack's own code, takes only one classifier
    for both: `report` stands in for it.
    """
    name = "report" if config.evaluate.tier == "final" else config.evaluate.tier
    return evaluate.cascade(*(_one(numbers, pair, config.threat) for numbers in evaluate.TIERS[name].values()))


def _one(numbers: dict, pair: str, threat: Threat) -> attacks.Attack:
    """An attack of a tier on a pair."""
    numbers = dict(numbers)
    kind, loss = attacks.ATTACKS[numbers.pop("attack")], attacks.LOSSES[numbers.pop("loss", "cross_entropy")]
    if kind is attacks.apgd_targeted:
        return targeted_dlr(pair, threat=threat, **numbers)
    return adaptive(kind, loss, pair, threat=threat, **numbers)
