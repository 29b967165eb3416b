"""Images: what was given, split once and for all, and served in batches from the device.

Images are kept as uint8 (N, C, H, W) on the device and become float32 in [0, 1] in the batch that needs them.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.config import STAGE, Config, folder
from lib.params import root

SPLITS = ("train", "validation", "test")
DIGITS_MD5 = "7696c07daa6d85010f8268703ab8b067"  # of the bytes of images, then target
GIVEN = ("train_x", "train_y", "test_x", "test_y", "classes")


class DataError(ValueError):
    """A data set that is missing, broken or not what it says it is."""


@dataclass(frozen=True)
class Images:
    """One split: `x` uint8 (N, C, H, W) and `y` int64 (N,), on one device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def first(self, n: int) -> "Images":
        """The first n images: a random sample, since splits are shuffled."""
        return Images(self.x[:n], self.y[:n])

    def floats(self) -> tuple[Tensor, Tensor]:
        """All images as float32 in [0, 1], and their labels."""
        return self.x.float() / 255, self.y


@dataclass(frozen=True)
class Dataset:
    """A data set with its three splits and the names of its classes."""

    name: str
    classes: list[str]
    train: Images
    validation: Images
    test: Images

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.train.x.shape[1:])

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the training images, in [0, 1]."""
        x = self.train.x.float() / 255
        return x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).tolist()


def load(config: Config, device: str | torch.device = "cpu") -> Dataset:
    """The data set of a run: what stage `data` wrote or, by hand before that, the same split made anew."""
    path = folder("data", profile=config.profile, dataset=config.dataset) / "images.npz"
    if path.exists():
        with np.load(path) as file:
            return _dataset(config.dataset, dict(file), device)
    if os.environ.get(STAGE):
        raise DataError(f"{path} is missing: `dvc repro data@{config.profile}-{config.dataset}` makes it")
    return prepare(config, device)


def prepare(config: Config, device: str | torch.device = "cpu") -> Dataset:
    """The data set of a run straight from what was given, split as stage `data` does it."""
    return _dataset(config.dataset, split(given(config.dataset), config), device)


def _dataset(name: str, arrays: dict[str, np.ndarray], device: str | torch.device) -> Dataset:
    def images(part: str) -> Images:
        """One split, from (N, H, W, C) on disk to (N, C, H, W) on the device."""
        x = torch.from_numpy(arrays[f"{part}_x"]).permute(0, 3, 1, 2).contiguous()
        return Images(x.to(device), torch.from_numpy(arrays[f"{part}_y"]).long().to(device))

    return Dataset(name, arrays["classes"].tolist(), *map(images, SPLITS))


def given(name: str) -> dict[str, np.ndarray]:
    """The images as they came: train_x, test_x uint8 (N, H, W, C) in 0..255, train_y, test_y, classes.

    `digits` comes from data/; any other name from the file <name>.npz in the folder that DATA_HOME names.
    """
    if name == "digits":
        return _digits()
    home = Path(os.environ.get("DATA_HOME", Path.home() / ".cache" / "adversarial-companion"))
    path = home / f"{name}.npz"
    if not path.exists():
        raise DataError(f"data set '{name}' needs {path}, with the arrays {', '.join(GIVEN)}; "
                        "set DATA_HOME to use another folder")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in GIVEN}
    except (KeyError, OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read as the arrays {', '.join(GIVEN)}: {error}") from error
    _check(path, arrays)
    return arrays


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuse images that are not uint8 (N, H, W, C), and labels that do not fit the images or the classes."""
    for part in ("train", "test"):
        x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] not in (1, 3):
            raise DataError(f"{path}: {part}_x is {x.dtype} {x.shape}, not uint8 (N, H, W, 1 or 3)")
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise DataError(f"{path}: {part}_y is {y.dtype} {y.shape}, not one whole number for each image")
        absent = sorted(set(range(len(arrays["classes"]))) ^ set(y.tolist()))
        if absent:
            raise DataError(f"{path}: {part}_y and classes differ about class {absent[0]}: each needs an image, "
                            f"and labels run from 0 to {len(arrays['classes']) - 1}")


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits: 0..16 becomes 0..255, and a quarter of the images, fixed, is the test set (ours)."""
    from sklearn.model_selection import train_test_split

    path = root() / "data" / "digits.npz"
    if not path.exists():
        subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "data.dvc"], cwd=root(), capture_output=True)
    if not path.exists():
        raise DataError(f"{path} is missing: `dvc repro data.dvc` restores it, without a network")
    with np.load(path, allow_pickle=False) as file:
        images, target = file["images"], file["target"]
    if hashlib.md5(images.tobytes() + target.tobytes()).hexdigest() != DIGITS_MD5:
        raise DataError(f"{path} does not hold scikit-learn's digits: delete data/ and run `dvc repro data.dvc`")
    x = np.round(images[..., None] * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(x)), test_size=0.25, stratify=target, random_state=0)
    classes = np.array([str(c) for c in range(10)])
    return {"train_x": x[train], "train_y": target[train], "test_x": x[test], "test_y": target[test],
            "classes": classes}


def split(arrays: dict[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """Train, validation and test arrays: stratified by class and fixed, whatever the seed of the run.

    The validation images are the share `config.data.validation` of the training set. `config.data.limit` cuts
    the training and the test set to that many images first.
    """
    from sklearn.model_selection import train_test_split  # takes a second, and only stage `data` needs it

    kept = {}
    for part in ("train", "test"):
        x, y, limit = arrays[f"{part}_x"], arrays[f"{part}_y"], config.data.limit
        if limit is not None and limit < len(y):
            keep, _ = train_test_split(np.arange(len(y)), train_size=limit, stratify=y, random_state=0)
            x, y = x[keep], y[keep]
        kept[part] = x, y
    x, y = kept["train"]
    train, validation = train_test_split(np.arange(len(y)), test_size=config.data.validation, stratify=y,
                                         random_state=0)
    parts = {"train": (x[train], y[train]), "validation": (x[validation], y[validation]), "test": kept["test"]}
    return {"classes": arrays["classes"]} | {
        f"{part}_{axis}": value for part, pair in parts.items() for axis, value in zip("xy", pair, strict=True)}


def batches(images: Images, batch_size: int, generator: torch.Generator,
            augment: list[str] = ()) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled epoch of (x float32 in [0, 1], y), augmented on the device.

    The last batch, smaller than the others, is dropped: BatchNorm needs its neighbours, and shapes stay fixed.
    generator: on the device of the images; the only source of randomness.
    """
    size = min(batch_size, len(images))
    order = torch.randperm(len(images), generator=generator, device=images.x.device)
    for start in range(0, len(images) - size + 1, size):
        chosen = order[start:start + size]
        x = images.x[chosen].float() / 255
        for name in augment:
            x = AUGMENT[name](x, generator)
        yield x, images.y[chosen]


def crop(x: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Each image of (N, C, H, W), padded with zeros by `pad` pixels, cut out again at a random place.

    Zeros as in TRADES-AWP; the AWP authors' CIFAR-10 script pads with reflected pixels.
    """
    n, _, height, width = x.shape
    top, left = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator, device=x.device)
    rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(n, device=x.device)[:, None, None]
    return padded[index, rows[:, 0], columns[:, 0]].permute(0, 3, 1, 2)


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of (N, C, H, W) mirrored left to right with probability one half."""
    mirrored = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


AUGMENT = {"crop": crop, "flip": flip}
