"""Classes that training finds hard weigh more in the loss. Ours.

Tian et al. (KDD 2021) announce a change of the training phase for the most vulnerable class; their formula could not
be read, and this is not it.
"""

from dataclasses import replace

from torch import Tensor

from lib.config import Config
from lib.methods import Method, bounded
from lib.methods._classes import Record, Watched

LEAST = 0.01  # a class that is never fooled keeps some weight


def weights(accuracy: Tensor, strength: float) -> Tensor:
    """(1 - a_c)^strength over its mean: accuracies (classes,) in [0, 1] -> weights (classes,), on average 1."""
    each = (1 - accuracy).clamp_min(LEAST) ** strength
    return each / each.mean()


def add_on(method: Method, config: Config, *, strength: float) -> Method:
    """The loss of each image times the `weights` of its class.

    a_c: accuracy of the class under the training attack in the epoch before. strength 0 is the objective itself, and
    so is the first epoch. The adversary and its radius are left as they are.
    """
    bounded("balanced.strength", strength, least=0)
    record = Record(config.train.epochs, method.memory.setdefault("balanced", {}))

    def loss(model, x, x_adv, y, moment):
        """The objective's losses, weighted by class."""
        accuracy, model = record.at(moment), Watched(model, x_adv)
        losses = method.loss(model, x, x_adv, y, moment)
        record.count(model.logits, y, moment)
        return losses if accuracy is None else weights(accuracy, strength)[y] * losses

    return replace(method, loss=loss)
