"""CFA (Wei et al., "CFA: class-wise calibrated fair adversarial training", CVPR 2023), from its authors' code.

Each class has its own radius and its own weight of the divergence: eps_c = (lambda_1 + t_c) eps and
beta_c = (lambda_2 + t_c) beta, where t_c is the class's accuracy under the training attack in the epoch before. So
what is hard gets a smaller radius, what is easy a larger one.
"""

from dataclasses import replace

from lib.config import Config
from lib.methods import Method, bounded
from lib.methods._classes import Record, Watched


def add_on(method: Method, config: Config, *, lambda_1: float, lambda_2: float, begin: float) -> Method:
    """Its calibrated radius and regularisation, on any objective; `begin`: the share of training before they start.

    As in the authors' code, TRADES weighs the two parts of its loss as (1 - b_c) and b_c with b_c = beta_c / (1 +
    beta_c); here times 1 + beta, so that beta_c = beta is TRADES as we train it. Differs: the step of the attack is a
    fraction of the class's own radius, theirs is the same for all. Not here: their fairness-aware weight average.
    """
    for name, value in (("lambda_1", lambda_1), ("lambda_2", lambda_2)):
        bounded(f"cfa.{name}", value, least=0)
    bounded("cfa.begin", begin, least=0, most=1)
    record = Record(config.train.epochs, method.memory.setdefault("cfa", {}))
    trades = config.method.split("+")[0] == "trades"
    beta = config.knobs["trades"]["beta"] if trades else 0.0

    def calibrated(y, moment):
        """The moment, with the radius and the beta of each image's class; as it is while no epoch is over."""
        t = record.at(moment)
        if moment.progress < begin or t is None:
            return moment
        return replace(moment, radius=lambda_1 + t[y], beta=lambda_2 + t[y])

    def attack(model, x, y, moment):
        """The objective's attack, at each class's radius."""
        return method.attack(model, x, y, calibrated(y, moment))

    def loss(model, x, x_adv, y, moment):
        """The objective's loss, at each class's beta."""
        model, of_class = Watched(model, x_adv), calibrated(y, moment)
        losses = method.loss(model, x, x_adv, y, of_class)
        record.count(model.logits, y, moment)
        return losses * (1 + beta) / (1 + of_class.beta * beta)

    return replace(method, attack=method.attack and attack, loss=loss)
