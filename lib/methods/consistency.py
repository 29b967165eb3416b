"""Consistency-AT (Tack et al., "Consistency regularization for adversarial robustness", AAAI 2022).

min_w E[ mean over two views t of l(f_w(t(x)'), y) + weight JS(p(t_1(x)'), p(t_2(x)')) ]: two views of an image, each
attacked by itself, are to be misled alike; p is at a temperature.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import attacks, models
from lib.augment import AUGMENT
from lib.config import Config
from lib.methods import Method, bounded, cross_entropy
from lib.params import ConfigError, known

CLASHES = ("cfa", "balanced")  # these count one example of each image


def objective(config: Config, *, weight: float, temperature: float, views: list, warmup: float,
              batchnorm: str) -> Method:
    """Consistency-AT with the steps of config.train.

    weight, temperature: of the divergence; 1 and 0.5 as in the code of DUCAT's authors, which is built on that of
    Consistency-AT. views: the augmentations, of `lib.augment`, that make the second view. warmup, batchnorm: as in
    `pgd`; theirs is without warm-up and attacks in eval mode.

    The attack answers with the examples of both views, (2N, C, H, W). Differs: the first view is the image as the loop
    has augmented it, and the second is augmented once more; theirs are two draws of one augmentation, in the code of
    Consistency-AT AutoAugment and Cutout. Where `views` is empty, as for digits, the two differ by their attacks alone.
    """
    bounded("consistency.weight", weight, least=0)
    bounded("consistency.temperature", temperature, above=0)
    bounded("consistency.warmup", warmup, least=0, most=1)
    for name in views:
        known("augmentation", name, AUGMENT, "knobs.consistency.views of params.yaml")
    if clash := [name for name in config.method.split("+") if name in CLASHES]:
        raise ConfigError(f"'{config.method}': {clash[0]} counts one example of each image, and consistency makes two")
    train, threat = config.train, config.threat

    def attack(model, x, y, moment):
        """PGD on both views at once."""
        second = x
        for name in views:
            second = AUGMENT[name](second, moment.generator)
        return attacks.pgd(model, torch.cat([x, second]), y.repeat(2), threat=moment.threat(threat, warmup),
                           steps=train.steps, step_size=train.step_size, batchnorm=batchnorm,
                           generator=moment.generator)

    def loss(model, x, x_adv, y, moment):
        """Mean cross-entropy of the two examples, and the divergence between what is said of them."""
        logits = model(x_adv)
        entropy = cross_entropy(logits, y.repeat(2), moment).view(2, -1).mean(0)
        return entropy + weight * moment.beta * jensen_shannon(*(logits / temperature).chunk(2))

    return Method(network=models.build, attack=attack, loss=loss)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of softmax(first) and softmax(second), in nats: two of (N, classes) -> (N,)."""
    a, b = F.log_softmax(first, 1), F.log_softmax(second, 1)
    middle = torch.logaddexp(a, b) - math.log(2)
    return sum(F.kl_div(middle, p, reduction="none", log_target=True).sum(1) for p in (a, b)) / 2
