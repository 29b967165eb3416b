"""The images that are timed: those of a data set or, where it is not on this machine, random ones of its shape."""

from dataclasses import dataclass, replace

import torch

from lib import data
from lib.config import Config
from lib.data import Dataset, Images
from lib.sources import fetch

# Shape of an image, classes and training images of the sets that may be replaced by random images.
SHAPES = {"mnist": ((1, 28, 28), 10, 60_000), "cifar10": ((3, 32, 32), 10, 50_000),
          "cifar100": ((3, 32, 32), 100, 50_000), "svhn": ((3, 32, 32), 10, 73_257),
          "tiny_imagenet": ((3, 64, 64), 200, 100_000)}


@dataclass(frozen=True)
class Timed:
    """images: a data set. real: whether its images are those of its name. epoch: training images of an epoch of it."""

    images: Dataset
    real: bool
    epoch: int

    @property
    def described(self) -> str:
        """What the images are, in words."""
        shape, kind = " x ".join(map(str, self.images.shape)), "" if self.real else "random images of the shape of "
        return f"{kind}{self.images.name}, {shape}, {len(self.images.classes)} classes"


def load(config: Config, device: torch.device) -> Timed:
    """The data set of a run, if it is on this machine: nothing is downloaded. Or random images of its shape.

    Raises DataError for a set that is absent and not in `SHAPES`.
    """
    try:
        with fetch.offline():
            images = data.load(config, device)
        return Timed(images, True, len(images.train))
    except fetch.Absent:
        if config.dataset not in SHAPES:
            raise
    shape, classes, n = SHAPES[config.dataset]
    return Timed(random(config.dataset, shape, classes, device=device), False, round(n * (1 - config.data.validation)))


def random(name: str, shape: tuple[int, int, int], classes: int, n: int = 1024,
           device: torch.device | str = "cpu") -> Dataset:
    """A data set of random images and labels: n to train on, and 64 each to validate and to test."""
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        """One split."""
        x = torch.randint(0, 256, (count, *shape), generator=draw, dtype=torch.uint8)
        return Images(x.to(device), torch.randint(0, classes, (count,), generator=draw).to(device))

    statistics = [0.5] * shape[0], [0.29] * shape[0]
    return Dataset(name, [str(c) for c in range(classes)], None, statistics, images(n), images(64), images(64))


def repeated(images: Images | data.Files, n: int) -> Images:
    """n images in memory: the first ones, again and again where there are fewer."""
    first = images.first(n)
    return first.take(torch.arange(n, device=first.y.device) % len(first))


def settings(config: Config, images: Dataset, *, batch: int = 0, attack_steps: int = 0, width: int = 0,
             threads: int = 0) -> Config:
    """The config with these numbers in place of its own; 0 leaves one as it is.

    Augmentations that are not for images in memory are left out.
    """
    numbers = config.train
    augment = [name for name in numbers.augment if name in Images.augmentations]
    return replace(
        config, train=replace(numbers, augment=augment, batch_size=batch or numbers.batch_size,
                              steps=attack_steps or numbers.steps),
        model=replace(config.model, width=width or config.model.width),
        compute=replace(config.compute, threads=threads or config.compute.threads))
