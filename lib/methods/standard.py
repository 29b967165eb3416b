"""Standard training: cross-entropy on clean images. The control of every other method."""

from lib import models
from lib.config import Config
from lib.methods import Method, cross_entropy


def objective(config: Config) -> Method:
    """Empirical risk minimisation, min_w E[l(f_w(x), y)]."""

    def loss(model, x, x_adv, y, moment):
        """Cross-entropy on the clean images."""
        return cross_entropy(model(x), y, moment)

    return Method(network=models.build, attack=None, loss=loss)
