"""Images in batches, from the device or, where they do not fit, from disk.

Stage `data` writes one file for each data set (`lib.sources`). `Images` holds a split of it as uint8 (N, C, H, W) on
the device; `Files` reads a split from disk as it goes, with the same methods. Either way images become float32 in
[0, 1] in the batch that needs them.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from lib import world
from lib.augment import AUGMENT
from lib.config import STAGE, Config, folder, home
from lib.params import DataError, known

Batch = tuple[Tensor, Tensor]
SPLITS = ("train", "validation", "test")
RESIZED_CROP = "resized_crop"  # the augmentation that only `Files` can do, since it begins with the whole image


@dataclass(frozen=True)
class Images:
    """One split in memory: `x` uint8 (N, C, H, W) and `y` int64 (N,), on one device."""

    x: Tensor
    y: Tensor
    augmentations = tuple(AUGMENT)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.x.shape[1:])

    def take(self, index: Tensor | Sequence[int]) -> "Images":
        """The images at these places."""
        return Images(self.x[index], self.y[index])

    def first(self, n: int) -> "Images":
        """The first n images. Of the training and validation splits, which are shuffled, a random sample."""
        return Images(self.x[:n], self.y[:n])

    def floats(self) -> tuple[Tensor, Tensor]:
        """All images as float32 in [0, 1], and their labels. For few images: it takes four times their memory."""
        return self.x.float() / 255, self.y

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Batches of (x float32 in [0, 1], y); the last one may be smaller."""
        for x, y in zip(self.x.split(batch_size), self.y.split(batch_size), strict=True):
            yield x.float() / 255, y

    def shuffled(self, size: int, generator: torch.Generator, augment: Sequence[str]) -> Iterator[Batch]:
        """One epoch of full batches (x uint8, y) in random order."""
        order = torch.randperm(len(self), generator=generator, device=self.y.device)
        for chosen in order[:len(self) // size * size].split(size):
            own = world.part(chosen, generator)
            yield self.x[own], self.y[own]


@dataclass(frozen=True)
class Files:
    """One split on disk: image files, and `y` int64 (N,) on the device that the batches go to.

    paths: (N,) of bytes, relative to `place`. size: pixels of a side; images are cut as is usual for ImageNet, the
    middle of the image with its shorter side at size x 256 / 224. workers: processes that read (0: this one).
    """

    place: Path
    paths: np.ndarray
    y: Tensor
    size: int
    workers: int
    augmentations = (RESIZED_CROP, *AUGMENT)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image as the network sees it."""
        return 3, self.size, self.size

    def take(self, index: Tensor | Sequence[int]) -> Images:
        """The images at these places, read into memory."""
        index = torch.as_tensor(index)
        x = torch.stack([self._reader()[int(i)] for i in index])
        return Images(x.to(self.y.device), self.y[index.to(self.y.device)])

    def first(self, n: int) -> Images:
        """The first n images, read into memory: of the shuffled training and validation splits a random sample."""
        return self.take(range(min(n, len(self))))

    def floats(self) -> tuple[Tensor, Tensor]:
        """All images as float32 in [0, 1], and their labels. For few images."""
        return self.first(len(self)).floats()

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Batches of (x float32 in [0, 1], y); the last one may be smaller."""
        for x, y in self._loader(torch.arange(len(self)), batch_size):
            yield x.float() / 255, y

    def shuffled(self, size: int, generator: torch.Generator, augment: Sequence[str]) -> Iterator[Batch]:
        """One epoch of full batches (x uint8, y) in random order, the same for any number of workers."""
        device = generator.device
        order = torch.randperm(len(self), generator=generator, device=device).cpu()
        seed = int(torch.randint(2**62, (1,), generator=generator, device=device))
        own = world.part(order[:len(self) // size * size], generator)
        return self._loader(own, size // world.size(), seed if RESIZED_CROP in augment else None)

    def _reader(self, seed: int | None = None) -> "_Reader":
        return _Reader(self.place, self.paths, self.size, seed)

    def _loader(self, order: Tensor, batch_size: int, seed: int | None = None) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        device = self.y.device
        loader = DataLoader(self._reader(seed), batch_size, sampler=order.tolist(), num_workers=self.workers,
                            pin_memory=device.type == "cuda", generator=torch.Generator())
        try:
            for x, chosen in zip(_ahead(loader, device), order.to(device).split(batch_size), strict=True):
                yield x, self.y[chosen]
        except DataError as error:  # out of a worker it comes with a traceback as its text
            raise DataError(str(error).strip().splitlines()[-1].split("DataError: ")[-1]) from None


def _ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The batches on the device; on a GPU each is copied by a stream of its own while the one before is in work."""
    if device.type != "cuda":
        yield from (x.to(device) for x in batches)
        return
    stream, waiting = torch.cuda.Stream(device), []

    def arrived() -> Tensor:
        """The batch that was sent first, once it is there."""
        x, sent = waiting.pop(0)
        torch.cuda.current_stream(device).wait_event(sent)
        x.record_stream(torch.cuda.current_stream(device))
        return x

    for x in batches:
        with torch.cuda.stream(stream):
            waiting.append((x.to(device, non_blocking=True), stream.record_event()))
        if len(waiting) > 1:
            yield arrived()
    while waiting:
        yield arrived()


@dataclass(frozen=True)
class _Reader:
    """Image i as uint8 (3, size, size): its middle or, with a seed, a random part of it, resized."""

    place: Path
    paths: np.ndarray
    size: int
    seed: int | None

    def __getitem__(self, i: int) -> Tensor:
        from PIL import Image
        from torchvision.transforms import v2

        whole = [v2.Resize(round(self.size * 256 / 224)), v2.CenterCrop(self.size)]
        cut = v2.Compose(whole if self.seed is None else [v2.RandomResizedCrop(self.size)])
        path = self.place / os.fsdecode(self.paths[i])
        try:
            with Image.open(path) as image, torch.random.fork_rng(devices=[]):
                torch.manual_seed(0 if self.seed is None else (self.seed + i) % 2**63)
                return v2.functional.pil_to_tensor(cut(image.convert("RGB")))
        except (OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Dataset:
    """A data set with its three splits.

    classes: their names. superclasses: the group of each class, or None. statistics: mean and standard deviation of
    each channel over the training images, in [0, 1].
    """

    name: str
    classes: list[str]
    superclasses: list[str] | None
    statistics: tuple[list[float], list[float]]
    train: Images | Files
    validation: Images | Files
    test: Images | Files

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.train.shape


def load(config: Config, device: str | torch.device = "cpu") -> Dataset:
    """The data set of a run: what stage `data` wrote or, by hand before that, the same made anew."""
    path = folder("data", profile=config.profile, dataset=config.dataset) / "images.npz"
    if path.exists():
        try:
            with np.load(path) as file:
                return dataset(config, file, device)
        except (KeyError, ValueError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} is not what stage `data` writes now: `dvc repro` makes it anew") from error
    if os.environ.get(STAGE):
        raise DataError(f"{path} is missing: `dvc repro data@{config.profile}-{config.dataset}` makes it")
    # No `import`: a stage reads the file, so it does not depend on how the file was made (see lib.stages).
    return import_module("lib.sources").prepare(config, device)


def dataset(config: Config, arrays, device: str | torch.device = "cpu") -> Dataset:
    """The arrays of images.npz as a data set on `device`; see `lib.sources.splits.split`.

    arrays: a mapping, read one array after the other, so that a file is in memory once.
    """
    def images(part: str) -> Images | Files:
        """One split."""
        y = torch.from_numpy(arrays[f"{part}_y"]).to(device)
        if f"{part}_path" in arrays:
            return Files(home(), arrays[f"{part}_path"], y, int(arrays["size"]), config.compute.workers)
        return Images(torch.from_numpy(arrays[f"{part}_x"]).to(device), y)

    superclasses = arrays["superclasses"].tolist() if "superclasses" in arrays else None
    statistics = arrays["mean"].tolist(), arrays["std"].tolist()
    return Dataset(config.dataset, arrays["classes"].tolist(), superclasses, statistics, *map(images, SPLITS))


def batches(images: Images | Files, batch_size: int, generator: torch.Generator,
            augment: Sequence[str] = ()) -> Iterator[Batch]:
    """One shuffled epoch of (x float32 in [0, 1], y), augmented on the device.

    The last batch, smaller than the others, is dropped: BatchNorm needs its neighbours, and shapes stay fixed.
    generator: on the device of the images; the only source of randomness. augment: names, in the order of their use.
    """
    for name in augment:
        known("augmentation", name, images.augmentations, "train.augment of params.yaml")
    for x, y in images.shuffled(min(batch_size, len(images)), generator, augment):
        x = x.float() / 255
        for name in augment:
            x = AUGMENT[name](x, generator) if name in AUGMENT else x
        yield x, y
