"""Your own images: a file of arrays, or a folder of image files. Whatever does not fit together is refused by name."""

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from lib.params import DataError

GIVEN = ("train_x", "train_y", "test_x", "test_y", "classes")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def from_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of <name>.npz: train_x, test_x uint8 (N, H, W, 1 or 3); train_y, test_y; classes, their names.

    It may also hold `superclasses`, the name of the group of each class. Nothing is unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = [*GIVEN, "superclasses"] if "superclasses" in file else GIVEN
            arrays = {key: file[key] for key in wanted}
    except (KeyError, OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read as the arrays {', '.join(GIVEN)}: {error}") from error
    check(path, arrays)
    return arrays


def check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuse images that are not uint8 (N, H, W, C), and labels that do not fit the images or the classes."""
    classes = arrays["classes"]
    for key in ("classes", "superclasses"):
        names = arrays.get(key, classes)
        if names.dtype.kind != "U" or names.shape != classes.shape or names.ndim != 1:
            raise DataError(f"{path}: {key} is {names.dtype} {names.shape}, not one name for each class")
    names, count = np.unique(classes, return_counts=True)
    if len(classes) < 2 or count.max() > 1:
        raise DataError(f"{path}: classes has {len(classes)} names, {len(names)} of them different: "
                        "at least two are needed, each once")
    for part in ("train", "test"):
        x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] not in (1, 3):
            raise DataError(f"{path}: {part}_x is {x.dtype} {x.shape}, not uint8 (N, H, W, 1 or 3)")
        if x.shape[1:] != arrays["train_x"].shape[1:]:
            raise DataError(f"{path}: images of test_x are {x.shape[1:]}, of train_x {arrays['train_x'].shape[1:]}")
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
            raise DataError(f"{path}: {part}_y is {y.dtype} {y.shape}, not one whole number for each image")
        _labels(path, part, y, classes)


def _labels(path: Path, part: str, y: np.ndarray, classes: np.ndarray) -> None:
    """Refuse labels that are no class, and classes without an image."""
    present = np.unique(y)
    outside = [int(label) for label in present if not 0 <= label < len(classes)]
    if outside:
        raise DataError(f"{path}: {part}_y holds the label {outside[0]}, but classes names {len(classes)}: "
                        f"labels run from 0 to {len(classes) - 1}")
    if len(present) < len(classes):
        absent = sorted(set(range(len(classes))) - set(present.tolist()))[0]
        raise DataError(f"{path}: {part}_x has no image of class {absent} ({classes[absent]})")


def from_folder(home: Path, name: str, test: tuple[str, ...] = ("test", "val")) -> dict[str, np.ndarray]:
    """The image files <name>/train/<class>/* and <name>/test/<class>/* in `home`, as paths relative to it.

    test: names of the folder of the test images; the first that exists is taken. Returns train_path and test_path
    (N,) of bytes, train_y, test_y and classes. Files come one of each class in turn, so that the first few are of all
    classes. Files without an image's suffix are passed over; what the images hold is looked at when they are read.
    """
    place = home / name
    found = [part for part in test if (place / part).is_dir()]
    if not found or not (place / "train").is_dir():
        raise DataError(f"{place} lacks the folder {'train' if found else test[0]}: images lie in "
                        f"train/<class>/ and {test[0]}/<class>/")
    folders = {part: _classes(home, f"{name}/{source}") for part, source in (("train", "train"), ("test", found[0]))}
    classes = sorted(folders["train"])
    for one in sorted(set(folders["train"]) ^ set(folders["test"])):
        where = "train" if one in folders["train"] else found[0]
        raise DataError(f"{place}: the class '{one}' is only in {where}; train and {found[0]} need the same classes")
    arrays = {"classes": np.array(classes), "ids": np.array(classes)}
    for part, by_class in folders.items():
        turn = sorted((i, label, path) for label, one in enumerate(classes) for i, path in enumerate(by_class[one]))
        arrays[f"{part}_path"] = np.array([os.fsencode(path) for *_, path in turn])
        arrays[f"{part}_y"] = np.array([label for _, label, _ in turn])
    return arrays


def _classes(home: Path, folder: str) -> dict[str, list[str]]:
    """The image files, sorted, of each folder in home/folder, as paths relative to `home`."""
    found = {}
    for one in sorted(name for name in os.listdir(home / folder) if (home / folder / name).is_dir()):
        if one.startswith("."):
            continue
        files = sorted(file for file in os.listdir(home / folder / one) if not file.startswith("."))
        found[one] = [f"{folder}/{one}/{file}" for file in files if file.lower().endswith(SUFFIXES)]
        if not found[one]:
            raise DataError(f"{home / folder / one} holds no image ({', '.join(SUFFIXES)}): fill it, or delete it")
    if len(found) < 2:
        raise DataError(f"{home / folder} holds {len(found)} folders of a class each; at least two are needed")
    return found
