"""MART (Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020).

min_w E[ BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)) ], with x' from PGD and
BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k): a margin, and a divergence that counts most where x itself is wrong.
"""

import torch.nn.functional as F

from lib import attacks, models
from lib.config import Config
from lib.methods import Method, bounded, cross_entropy

SLACK = 1e-4  # 1 - p + SLACK stays above 0 in float32; the authors' code adds the same


def objective(config: Config, *, beta: float, warmup: float, batchnorm: str) -> Method:
    """MART with the steps of config.train.

    beta: weight of the divergence (the authors' code: 5 in train_resnet.py). warmup, batchnorm: as in `pgd`; the
    authors attack in eval mode and have no warm-up. As in their code the attack begins at x plus normal noise of
    standard deviation 0.001, and gradients pass through p(x) and its weight.
    """
    bounded("mart.beta", beta, least=0)
    bounded("mart.warmup", warmup, least=0, most=1)
    train, threat = config.train, config.threat

    def attack(model, x, y, moment):
        """PGD on the cross-entropy."""
        return attacks.pgd(model, x, y, threat=moment.threat(threat, warmup), steps=train.steps, start="near",
                           step_size=train.step_size, batchnorm=batchnorm, generator=moment.generator)

    def loss(model, x, x_adv, y, moment):
        """Boosted cross-entropy under attack, and the divergence weighted by how little p(x) believes the label."""
        logits, attacked = model(x), model(x_adv)
        clean, wrong = F.log_softmax(logits, 1), F.softmax(attacked, 1).scatter(1, y[:, None], 0).amax(1)
        boosted = cross_entropy(attacked, y, moment) - (1 + SLACK - wrong).log()
        divergence = F.kl_div(F.log_softmax(attacked, 1), clean, reduction="none", log_target=True).sum(1)
        unsure = 1 - clean.gather(1, y[:, None]).squeeze(1).exp()
        return boosted + beta * moment.beta * divergence * unsure

    return Method(network=models.build, attack=attack, loss=loss)
