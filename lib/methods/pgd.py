"""PGD adversarial training (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018).

min_w E[ max_{x' in B(x, eps)} l(f_w(x'), y) ]: the inner maximum by PGD, the outer minimum by SGD on its result.
"""

from lib import attacks, models
from lib.config import Config
from lib.methods import Method, bounded, cross_entropy


def objective(config: Config, *, warmup: float, batchnorm: str) -> Method:
    """PGD-AT with the steps of config.train.

    warmup: share of training over which eps grows linearly from 0 to its value, for a gentle start (ours). Madry
    et al. have none, and 0 gives theirs.
    batchnorm: mode of BatchNorm during the attack, 'eval' or 'train' (the codes of Madry et al. and AWP: train).
    """
    bounded("pgd.warmup", warmup, least=0, most=1)
    train, threat = config.train, config.threat

    def attack(model, x, y, moment):
        """PGD at the radius that the warm-up has reached."""
        return attacks.pgd(model, x, y, threat=moment.threat(threat, warmup), steps=train.steps,
                           step_size=train.step_size, batchnorm=batchnorm, generator=moment.generator)

    def loss(model, x, x_adv, y, moment):
        """Cross-entropy on the adversarial examples alone."""
        return cross_entropy(model(x_adv), y, moment)

    return Method(network=models.build, attack=attack, loss=loss)
