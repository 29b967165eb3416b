"""From what was given to what is used: which classes, which images, which splits, and in what form.

Every choice has the seed `config.data.seed` and its own stream of random numbers, so that one option does not move
another: with half of the training images the validation images are still the same, and a tenth is part of the half.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lib.config import Config, Data
from lib.data import SPLITS, Files
from lib.params import ConfigError, DataError, known

SAMPLE = 2000  # streamed training images from which mean and standard deviation are taken
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of 8 bits; others would lose their range


def split(given: dict[str, np.ndarray], config: Config, home: Path) -> dict[str, np.ndarray]:
    """The arrays of images.npz, from those of `lib.sources.given`.

    For each split: <split>_x uint8 (N, C, H, W) or, streamed, <split>_path; <split>_y int64; <split>_index, its
    images' places in the set as it was given. Then classes, superclasses if there are any, mean and std (C,) of the
    training images in [0, 1], histogram (C, 256), how often they have each value, and, streamed, size. Training and
    validation images are shuffled, test images keep their order. The same for every seed of a run.
    """
    numbers = _checked(config.data)
    kept = chosen_classes(given, numbers)
    label = np.full(len(given["classes"]), -1)
    label[kept] = np.arange(len(kept))
    arrays = {key: given[key][kept] for key in ("classes", "superclasses") if key in given}
    for part, index in _places(given, label, numbers).items():
        source = "test" if part == "test" else "train"
        arrays[f"{part}_y"] = label[given[f"{source}_y"][index]].astype(np.int64)
        arrays[f"{part}_index"] = index
        stored = "path" if f"{source}_path" in given else "x"
        arrays[f"{part}_{stored}"] = given[f"{source}_{stored}"][index]
    if "train_path" in arrays and numbers.stream:
        return arrays | _streamed(arrays, numbers, home)
    return arrays | _in_memory(arrays, numbers, home)


def _checked(numbers: Data) -> Data:
    """The options themselves, or a ConfigError for one out of its range."""
    for key, fine, wanted in (
            ("validation", 0 < numbers.validation < 1, "between 0 and 1"),
            ("fraction", 0 < numbers.fraction <= 1, "above 0 and at most 1"),
            ("limit", numbers.limit is None or numbers.limit >= 2, "null or at least 2 images of a class"),
            ("size", numbers.size is None or numbers.size >= 1, "null or a number of pixels"),
            ("seed", numbers.seed >= 0, "0 or more")):
        if not fine:
            raise ConfigError(f"data.{key} in params.yaml is {getattr(numbers, key)}: it has to be {wanted}")
    return numbers


def chosen_classes(given: dict[str, np.ndarray], numbers: Data) -> np.ndarray:
    """The numbers of the classes that are used, in the order of the set, after `classes` and `without`.

    Classes go by their names, or by the identifiers ("ids") that some sets have, such as ImageNet's n01440764.
    """
    names = given["classes"].tolist()
    alias = dict(zip(given.get("ids", given["classes"]).tolist(), names, strict=True))

    def named(option: str) -> set[str]:
        """The names in an option, each of which there must be."""
        wanted = [alias.get(str(name), str(name)) for name in getattr(numbers, option)]
        for name in wanted:
            known("class", name, names, f"data.{option} of params.yaml")
        return set(wanted)

    kept = set(names)
    if isinstance(numbers.classes, list):
        kept = named("classes")
    elif numbers.classes is not None:
        if not 2 <= numbers.classes <= len(names):
            raise ConfigError(f"data.classes in params.yaml is {numbers.classes}: the set has {len(names)} classes, "
                              "and at least two are needed")
        kept = {names[i] for i in _stream(numbers, 1).permutation(len(names))[:numbers.classes]}
    kept -= named("without")
    if len(kept) < 2:
        raise ConfigError(f"data.classes and data.without in params.yaml leave {len(kept)} classes: two are needed")
    return np.array([i for i, name in enumerate(names) if name in kept])


def _stream(numbers: Data, purpose: int) -> np.random.Generator:
    return np.random.default_rng([numbers.seed, purpose])


def _places(given: dict[str, np.ndarray], label: np.ndarray, numbers: Data) -> dict[str, np.ndarray]:
    """Which of the given images each split has."""
    index = {}
    for part, purpose in (("train", 2), ("test", 3)):
        y = label[given[f"{part}_y"]]
        shuffled = _stream(numbers, purpose).permutation(np.flatnonzero(y >= 0))
        if numbers.limit is not None:
            shuffled = shuffled[_rank(y[shuffled]) < numbers.limit]
        index[part] = shuffled
    y = label[given["train_y"]][index["train"]]
    rank, count = _rank(y), np.bincount(y)[y]
    if count.min() < 2:
        raise DataError(f"class {y[count.argmin()]} has one training image: two are needed, one of them to validate")
    held_out = np.maximum(1, np.round(numbers.validation * count)).clip(max=count - 1)
    used = held_out + np.maximum(1, np.round(numbers.fraction * (count - held_out)))
    return {"train": index["train"][(held_out <= rank) & (rank < used)],
            "validation": index["train"][rank < held_out], "test": np.sort(index["test"])}


def _rank(y: np.ndarray) -> np.ndarray:
    """For each image its place among those of its class: 0 for the first of its class, then 1, and so on."""
    order = np.argsort(y, kind="stable")
    rank = np.empty(len(y), int)
    rank[order] = np.arange(len(y)) - np.repeat(np.cumsum(np.bincount(y)) - np.bincount(y), np.bincount(y))
    return rank


def _streamed(arrays: dict, numbers: Data, home: Path) -> dict[str, np.ndarray]:
    """What belongs to a set that stays on disk. The head of every file is read; its size in bytes marks the copy."""
    import torch

    if numbers.size is None:
        raise ConfigError("data.stream in params.yaml needs data.size, the pixels of a side")
    new = {"size": np.array(numbers.size)}
    for part in SPLITS:
        for path in arrays[f"{part}_path"]:
            _head(home, path)
        new[f"{part}_bytes"] = np.array([os.stat(home / os.fsdecode(p)).st_size for p in arrays[f"{part}_path"]])
    train = Files(home, arrays["train_path"], torch.from_numpy(arrays["train_y"]), numbers.size, workers=0)
    return new | _statistics(train.first(SAMPLE).x.numpy())


def _in_memory(arrays: dict, numbers: Data, home: Path) -> dict[str, np.ndarray]:
    """Images (N, C, H, W) in the recipe's size, and their statistics."""
    new, wanted = {}, None if numbers.size is None else (numbers.size, numbers.size)
    if "train_path" in arrays:
        grey = all(_head(home, p)[0] in ("1", "L", "LA") for part in SPLITS for p in arrays[f"{part}_path"])
        wanted = wanted or _head(home, arrays["train_path"][0])[1]
    for part in SPLITS:
        if f"{part}_path" in arrays:
            new[f"{part}_x"] = _read(home, arrays.pop(f"{part}_path"), wanted, "L" if grey else "RGB", numbers.size)
        else:
            x = arrays.pop(f"{part}_x")
            resize = wanted is not None and x.shape[1:3] != wanted
            x = np.stack([_fit(Image.fromarray(image.squeeze()), wanted) for image in x]) if resize else x
            new[f"{part}_x"] = np.ascontiguousarray(x.reshape(*x.shape[:3], -1).transpose(0, 3, 1, 2))
    return new | _statistics(new["train_x"])


def _fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The image resized to (width, height); what is too long or too broad is cut off at both ends."""
    return np.asarray(image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BILINEAR))


def _read(home: Path, paths: np.ndarray, size: tuple[int, int], mode: str, resize: int | None) -> np.ndarray:
    """Image files as uint8 (N, C, H, W). Without data.size, all have to be of one size."""
    width, height = size
    x = np.empty((len(paths), 1 if mode == "L" else 3, height, width), np.uint8)
    for place, path in zip(x, paths, strict=True):
        with _opened(home, path) as image:
            if resize is None and image.size != size:
                raise DataError(f"{home / os.fsdecode(path)} is {image.size[0]} x {image.size[1]}, others are {width} "
                                f"x {height}: set data.size in params.yaml, and all are resized")
            place[...] = _fit(image.convert(mode), size).reshape(height, width, -1).transpose(2, 0, 1)
    return x


def _head(home: Path, path: bytes) -> tuple[str, tuple[int, int]]:
    """Mode, width and height of an image file."""
    with _opened(home, path) as image:
        return image.mode, image.size


@contextmanager
def _opened(home: Path, path: bytes) -> Iterator[Image.Image]:
    """An image file of 8 bits a channel; whatever is wrong with it, now or when it is read, is a DataError."""
    place = home / os.fsdecode(path)
    try:
        with Image.open(place) as image:
            if image.mode not in MODES:
                raise DataError(f"{place} has pixels of mode {image.mode}, not 8 bits a channel: convert it")
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place} cannot be read as an image: {error}") from error


def histogram(x: np.ndarray) -> np.ndarray:
    """How often each value 0..255 occurs in each channel: uint8 (N, C, H, W) -> int (C, 256)."""
    chunks = [x[i:i + 1000] for i in range(0, len(x), 1000)]  # bincount makes eight bytes of each
    return np.stack([sum(np.bincount(part[:, c].ravel(), minlength=256) for part in chunks)
                     for c in range(x.shape[1])])


def _statistics(x: np.ndarray) -> dict[str, np.ndarray]:
    """Histogram, mean and standard deviation of each channel; the images are never copied as floats."""
    counts = histogram(x)
    share = counts / counts[0].sum()
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt(np.maximum(share @ values**2 - mean**2, 0))
    std = np.where(std > 0, std, 1.0)  # a channel that is always the same is normalised to 0
    return {"histogram": counts, "mean": mean, "std": std}


def repeated(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """How many images are, pixel for pixel, also elsewhere: of the arrays of `split`, in memory."""
    keys = {part: [hashlib.md5(image).digest() for image in arrays[f"{part}_x"]] for part in SPLITS}
    train, validation = set(keys["train"]), set(keys["validation"])
    return {"test images also in training or validation": sum(k in train or k in validation for k in keys["test"]),
            "validation images also in training": sum(k in train for k in keys["validation"]),
            "training images that repeat another": len(keys["train"]) - len(train)}
