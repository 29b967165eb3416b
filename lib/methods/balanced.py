"""Classes that training finds hard weigh more in the loss. Ours.

Tian et al. (KDD 2021) announce a change of the training phase for the most vulnerable class; their formula could not
be read, and this is not it.
"""

from dataclasses import replace

from lib.config import Config
from lib.methods import Method
from lib.methods._classes import Record, Watched

LEAST = 0.01  # a class that is never fooled keeps some weight


def add_on(method: Method, config: Config, *, strength: float) -> Method:
    """The loss of an image of class c times (1 - a_c)^strength, over the mean of that for all classes.

    a_c: accuracy of the class under the training attack in the epoch before. strength 0 is the objective itself, and
    so is the first epoch. The adversary and its radius are left as they are.
    """
    record = Record(config.train.epochs)

    def loss(model, x, x_adv, y, moment):
        """The objective's losses, weighted by class."""
        model = Watched(model, x_adv)
        losses = method.loss(model, x, x_adv, y, moment)
        each = (1 - record.of(y, moment, before=0.0)).clamp_min(LEAST) ** strength
        if record.accuracy is not None:
            each = each / ((1 - record.accuracy).clamp_min(LEAST) ** strength).mean()
        record.count(model.logits, y, moment)
        return each * losses

    return replace(method, loss=loss)
