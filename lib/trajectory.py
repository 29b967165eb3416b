"""Sharpness of the weight loss landscape and the robust generalisation gap along training.

The experiment is the first figure of Wu et al. (NeurIPS 2020), in a regime in which the gap opens: a long training with
a stepwise learning rate and, on digits, few images (ours).
"""

from dataclasses import replace

import torch

from lib.config import Config
from lib.data import Dataset, Images
from lib.params import ConfigError


def recipe(config: Config) -> Config:
    """The run's numbers with the epochs and the schedule of `config.trajectory`.

    The trace of `train.fit` is left at the last epoch alone: the looks stand in its place, and nothing depends on it.
    """
    epochs, schedule = config.trajectory.epochs, config.trajectory.schedule
    return replace(config, train=replace(config.train, epochs=epochs, schedule=schedule, trace=epochs))


def fewer(dataset: Dataset, fraction: float) -> Dataset:
    """The data set with the first share `fraction` of each class's training images, in their order.

    Of each class at least one image stays. Validation and test images stay, and so do the statistics of the channels.
    Raises ConfigError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"trajectory.fraction in params.yaml is {fraction:g}: it has to be above 0 and at most 1")
    images = dataset.train
    y = images.y.cpu()
    kept = [(y == c).nonzero().squeeze(1) for c in y.unique()]
    kept = torch.cat([each[:max(1, round(fraction * len(each)))] for each in kept]).sort().values
    if isinstance(images, Images):
        return replace(dataset, train=images.take(kept.to(images.y.device)))
    return replace(dataset, train=replace(images, paths=images.paths[kept.numpy()], y=images.y[kept.to(images.y.device)]))
