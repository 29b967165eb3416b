"""TRADES (Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019).

min_w E[ l(f_w(x), y) + beta max_{x' in B(x, eps)} KL(p(x) || p(x')) ]: the adversary looks for the largest change of
the prediction, whatever the label.
"""

import torch
import torch.nn.functional as F

from lib import attacks, models
from lib.compute import exact
from lib.config import Config
from lib.methods import Method, bounded, cross_entropy


def objective(config: Config, *, beta: float, warmup: float, batchnorm: str) -> Method:
    """TRADES with the steps of config.train.

    beta: weight of the divergence (the authors' code: 6 for CIFAR-10). warmup, batchnorm: as in `pgd`; the authors
    have no warm-up. Their code attacks in eval mode.

    As in their code the attack begins at x plus normal noise of standard deviation 0.001, since at x itself the
    divergence has no gradient; and the prediction for x is the target of the divergence, but gradients pass
    through it. Ours: p(x) is computed once for an attack, not anew for each step (in eval mode the same numbers).
    """
    bounded("trades.beta", beta, least=0)
    bounded("trades.warmup", warmup, least=0, most=1)
    train, threat = config.train, config.threat

    def attack(model, x, y, moment):
        """PGD on the divergence from the prediction for x."""
        with attacks.under_attack(model, batchnorm), torch.no_grad(), exact(x.device):
            clean = model(x)
        return attacks.pgd(model, x, y, threat=moment.threat(threat, warmup), steps=train.steps, start="near",
                           step_size=train.step_size, loss=attacks.kl(clean), batchnorm=batchnorm,
                           generator=moment.generator)

    def loss(model, x, x_adv, y, moment):
        """Cross-entropy on the images, and beta times the divergence of the prediction under attack from theirs."""
        logits, attacked = model(x), model(x_adv)
        divergence = F.kl_div(F.log_softmax(attacked, 1), F.log_softmax(logits, 1), reduction="none",
                              log_target=True).sum(1)
        return cross_entropy(logits, y, moment) + beta * moment.beta * divergence

    return Method(network=models.build, attack=attack, loss=loss)
