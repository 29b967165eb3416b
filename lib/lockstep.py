"""A training loop of one's own beside lib's, step by step from the same weights: how the chapters check theirs (ours).

Training under attack is chaotic. Where the gradient of a pixel is next to nothing, rounding decides its sign, and with
it the adversarial example: two right loops that add up in another order, or one loop on two processors, are soon far
apart. So the loops are compared after each step, and each step begins where lib's does.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from lib import compute, methods, train
from lib.config import Config
from lib.data import Dataset, Images
from lib.methods import Method

Training = Callable[[nn.Module, Images, torch.Generator, Callable[[nn.Module], None]], None]


def states(config: Config, dataset: Dataset, device: torch.device,
           method: Method | None = None) -> list[dict[str, Tensor]]:
    """The weights and statistics of lib's training before its first step and after each one.

    method: in place of the one that `config.method` spells. It has to train with an adversary, and to deploy the
    network that it trains.
    """
    method, found = method or methods.build(config), []

    def attack(model, *batch):
        """The method's: it meets the network once a step, as the step before has left it."""
        found.append(train.snapshot(model))
        return method.attack(model, *batch)

    run = replace(config, train=replace(config.train, trace=config.train.epochs))
    last = train.fit(run, dataset, device, log=lambda line: None, method=replace(method, attack=attack),
                     look=lambda epoch, model: train.snapshot(model)).seen[run.train.epochs]
    return [*found, last]


def apart(config: Config, dataset: Dataset, training: Training, device: torch.device,
          method: Method | None = None) -> np.ndarray:
    """After each step the largest difference of any weight or statistic from lib's: (steps,).

    training: (model, images, generator, each) -> None. It trains the model in place on the images, all its randomness
    from the generator, and calls each(model) after every step, which notes the difference and then puts lib's weights
    into the model. method: with which lib trains, in place of that of `config.method`, such as one with an attack or a
    network of one's own, whose tensors are the same in the same order. inf for a step that training leaves out;
    AssertionError where it takes more of them than lib.
    """
    right = states(config, dataset, device, method)[1:]
    model, found = train.initial(config, methods.build(config), dataset, device), []

    def each(_=None):
        """The difference of this step; the next one begins at lib's weights."""
        assert len(found) < len(right), f"the training takes more than {len(right)} steps"
        theirs = dict(zip(model.state_dict(), right[len(found)].values(), strict=True))
        found.append(max((value - theirs[name]).abs().max().item() for name, value in train.snapshot(model).items()))
        model.load_state_dict(theirs)

    training(model, dataset.train, compute.generator(config.seed, device), each)
    return np.array(found + [np.inf] * (len(right) - len(found)))


def loop(config: Config, method: Method) -> Training:
    """lib's own loop with this method: a training for `apart`."""
    def training(model, images, generator, each):
        """All epochs; what lib does after each step is followed by each(model)."""
        epochs, steps = config.train.epochs, len(images) // config.train.batch_size
        optimizer, schedule = train.optimizer_and_schedule(config, model, epochs * steps)
        after = SimpleNamespace(step=lambda: (schedule.step(), each(model)))
        for epoch in range(epochs):
            train.train_epoch(config, method, model, images, optimizer, after, generator, epoch / epochs)

    return training
