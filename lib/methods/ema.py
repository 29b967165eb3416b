"""EMA, an exponential moving average of the weights along training, is what is deployed. The cheapest strong rival.

After weight averaging as robust training uses it (Rebuffi et al. 2021, "Fixing data augmentation to improve adversarial
robustness"); the ramp and the averaged BatchNorm statistics are ours.
"""

import copy
from contextlib import contextmanager
from dataclasses import replace

import torch

from lib.config import Config
from lib.methods import Method, bounded


def add_on(method: Method, config: Config, *, decay: float) -> Method:
    """The objective trains as ever; validated, kept and attacked is the average of its weights.

    decay: of the average at each step. Early on it is less, (1 + t) / (10 + t) at step t, so that the first weights
    are soon forgotten. BatchNorm's statistics are averaged with the weights.
    """
    bounded("ema.decay", decay, least=0, most=1)
    memory = method.memory.setdefault("ema", {"average": {}, "taken": 0})

    def towards(state, steps):
        """The average after `state`, the `steps`-th one, is taken in."""
        share, average = 1 - min(decay, steps / (9 + steps)), memory["average"]
        return {name: torch.lerp(average.get(name, value), value, share) if value.is_floating_point() else value.clone()
                for name, value in state.items()}

    @contextmanager
    def around(model, loss, moment):
        """Takes in the weights that the step before has left."""
        memory["taken"] += 1
        state = {name: value.detach() for name, value in model.state_dict().items()}
        memory["average"] = towards(state, memory["taken"])
        with method.around(model, loss, moment):
            yield

    def deploy(model):
        """A copy of the classifier, at the average."""
        averaged = copy.deepcopy(method.deploy(model))
        averaged.load_state_dict(towards(averaged.state_dict(), memory["taken"] + 1))
        return averaged

    return replace(method, around=around, deploy=deploy)
