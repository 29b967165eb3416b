"""Classes that turn out weak get a bonus on their logit, once the network is trained. Ours.

Tian et al. (KDD 2021) announce a change of the inference phase for the most vulnerable class; their formula could not
be read, and this is not it. The bonus is a layer of the classifier, so every attack faces it.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lib import attacks
from lib.config import Config
from lib.methods import Method, bounded


class Offset(nn.Module):
    """Adds b (classes,) to the logits."""

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("b", torch.zeros(classes))

    def forward(self, logits: Tensor) -> Tensor:
        """(N, classes) -> (N, classes)."""
        return logits + self.b


def add_on(method: Method, config: Config, *, strength: float) -> Method:
    """Adds b_c = strength (mean a - a_c) to the logit of class c, in the last layer.

    a_c: accuracy of the class on validation images under PGD on the margin, with the steps of config.train, against
    the network without the bonus; a class without such images gets none. strength 0 is the objective itself. The sum
    of b is 0. It is in units of the logits: cosines of `he` lie in [-1, 1], so there a strength does far more.
    """
    bounded("offset.strength", strength, least=0)

    def network(model, shape, classes, statistics, *more):
        """The network with an `Offset` as its last layer."""
        return method.network(model, shape, classes, statistics, *more).append(Offset(classes))

    def finish(model, images, generator):
        """Fit the offset on validation images."""
        method.finish(model, images, generator)
        layer, hits, n = model[-1], 0, 0
        layer.b.zero_()
        for x, y in images.in_order(500):
            x_adv = attacks.pgd(model, x, y, threat=config.threat, steps=config.train.steps, loss=attacks.margin,
                                step_size=config.train.step_size, generator=generator)
            with attacks.under_attack(model), torch.no_grad():
                right = y[model(x_adv).argmax(1) == y]
            hits, n = (total + torch.bincount(v, minlength=len(layer.b)) for total, v in ((hits, right), (n, y)))
        accuracy, seen = hits / n.clamp_min(1), n > 0
        layer.b.copy_(torch.where(seen, strength * (accuracy[seen].mean() - accuracy), 0.0))

    return replace(method, network=network, finish=finish)
