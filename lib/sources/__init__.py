"""Where images come from: the papers' sets by name, or your own; and what stage `data` makes of them.

Only stage `data` depends on what is here: it writes images.npz, and everything later reads that (`lib.data`).
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib import data
from lib.config import Config, home
from lib.params import DataError, root
from lib.sources import archives, fetch, own, splits
from lib.sources.superclasses import SUPERCLASSES


@dataclass(frozen=True)
class Source:
    """A set that has a name: who made it, under what terms, how it is read.

    read: (name, home) -> train_x, test_x uint8 (N, H, W, C), or train_path, test_path; train_y, test_y; classes.
    checked: how its data are known to be the original's. md5: of images and labels as bytes and of the names of the
    classes, a line each, where these are known.
    """

    title: str
    page: str
    terms: str
    read: Callable[[str, Path], dict[str, np.ndarray]]
    checked: str = "the authors' files, by the md5 that torchvision has for them"
    md5: dict[str, str] | None = None


def _digits(name: str, place: Path) -> dict[str, np.ndarray]:
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
    return {"train_x": x[train], "train_y": target[train], "test_x": x[test], "test_y": target[test],
            "classes": np.array([str(c) for c in range(10)])}


def _imagenet(name: str, place: Path) -> dict[str, np.ndarray]:
    """Your copy of ImageNet, imagenet/train/<wnid>/* and imagenet/val/<wnid>/*; with all 1,000 classes, their names."""
    if not (place / name).is_dir():
        raise fetch.Absent(f"data set 'imagenet' is not downloaded: put your copy, or a link to it, at {place / name}, "
                           "as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG (torchvision.datasets.ImageNet unpacks the "
                           "official archives so), or set DATA_HOME")
    arrays = own.from_folder(place, name, test=("val",))
    if len(arrays["classes"]) == 1000:
        from torchvision.models import ResNet18_Weights

        arrays["classes"] = np.array(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return arrays


DIGITS_MD5 = "7696c07daa6d85010f8268703ab8b067"  # of the bytes of images, then target

SOURCES = {
    "digits": Source("Optical recognition of handwritten digits, E. Alpaydin and C. Kaynak 1998, as in scikit-learn",
                     "archive.ics.uci.edu/dataset/80", "CC BY 4.0", _digits, checked="md5 of the arrays"),
    "mnist": Source("MNIST, Y. LeCun, C. Cortes and C. Burges 1998", "yann.lecun.com/exdb/mnist", "CC BY-SA 3.0",
                    archives.mnist, checked="md5 of the arrays", md5={
                        "train_x": "6510e85a72c3e9475c492d559d3770d2", "train_y": "e86ee40d66677c011a9abda399ec8c4d",
                        "test_x": "240610fa99e73bfa49df8e7fc24d3206", "test_y": "073c3904dfbd3e141ff8aa01cfde6b15",
                        "classes": "edfb93fce32f5831bcf18f3e155286ad"}),
    "fashion_mnist": Source("Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf 2017",
                            "github.com/zalandoresearch/fashion-mnist", "MIT", archives.mnist),
    "cifar10": Source("CIFAR-10, A. Krizhevsky 2009", "www.cs.toronto.edu/~kriz/cifar.html", "none stated; cite",
                      archives.cifar, checked="md5 of the arrays", md5={
                          "train_x": "17e2cb5a4119d89a4a13e02b91701bff", "train_y": "69c5f3349be54915edfca558b72ad888",
                          "test_x": "6d2714505047e13831cd876923568712", "test_y": "251f18ce75337ae9ca5d0dbd7ea62cf4",
                          "classes": "c4a53feb1b64ee5c7b132f9a245e037b"}),
    "cifar100": Source("CIFAR-100, A. Krizhevsky 2009", "www.cs.toronto.edu/~kriz/cifar.html", "none stated; cite",
                       archives.cifar),
    "svhn": Source("Street View House Numbers, cropped, Y. Netzer et al. 2011", "ufldl.stanford.edu/housenumbers",
                   "non-commercial use only", archives.svhn),
    "stl10": Source("STL-10, labelled part, A. Coates, H. Lee and A. Ng 2011", "cs.stanford.edu/~acoates/stl10",
                    "none stated; images from ImageNet", archives.stl10),
    "tiny_imagenet": Source("Tiny-ImageNet, Stanford CS231n", "cs231n.stanford.edu",
                            "those of ImageNet: research and teaching", archives.tiny_imagenet,
                            checked="the authors' zip, by its md5"),
    "imagenet": Source("ImageNet, ILSVRC 2012, O. Russakovsky et al. 2015", "image-net.org",
                       "non-commercial research and teaching", _imagenet, checked="not checked: your own copy"),
}


def given(name: str) -> dict[str, np.ndarray]:
    """The images as they came: train_x, test_x uint8 (N, H, W, C), or train_path, test_path for a folder of files;
    train_y, test_y; classes and, where the set has them, superclasses and ids.

    A set of `SOURCES` comes from its authors' files in the data home, which are downloaded if need be, or from
    <name>.npz if the md5 of its arrays is known; any other name from <name>.npz or the folder <name>. Raises
    DataError for what is missing, broken, or not what its name says.
    """
    place, source = home(), SOURCES.get(name)
    file = place / f"{name}.npz"
    if file.exists() and name != "digits":
        arrays = own.from_npz(file)
    elif source:
        arrays = source.read(name, place)
    elif (place / name).is_dir():
        arrays = own.from_folder(place, name)
    else:
        raise DataError(f"data set '{name}' is none of {', '.join(SOURCES)} and not found: your own would be {file}, "
                        f"with the arrays {', '.join(own.GIVEN)}, or the folder {place / name}, with train/<class>/* "
                        "and test/<class>/*; set DATA_HOME to use another place")
    if source and name != "digits":
        _verify(name, source, arrays, file)
        groups = {one: group for group, members in SUPERCLASSES.get(name, {}).items() for one in members}
        if groups:
            arrays["superclasses"] = np.array([groups[one] for one in arrays["classes"].tolist()])
    return arrays


def _verify(name: str, source: Source, arrays: dict[str, np.ndarray], file: Path) -> None:
    """Refuse arrays under the name of a set whose arrays they are not, or cannot be shown to be."""
    if file.exists() and source.md5 is None:
        raise DataError(f"{file} cannot be told from a changed copy of '{name}': bring its authors' files instead (the "
                        "README lists them), or give the file a name of its own")
    for key, md5 in (source.md5 or {}).items():
        values = "\n".join(arrays[key]).encode() if key == "classes" else arrays[key].astype(np.uint8).tobytes()
        if hashlib.md5(values).hexdigest() != md5:
            raise DataError(f"{key} is not that of '{name}' (md5 is not {md5})"
                            + (f": give {file} a name of its own" if file.exists() else ""))


def prepare(config: Config, device: str | torch.device = "cpu") -> data.Dataset:
    """The data set of a run straight from what was given, split as stage `data` does it."""
    return data.dataset(config, arrays(config), device)


def arrays(config: Config) -> dict[str, np.ndarray]:
    """The arrays of images.npz for a run; see `lib.sources.splits.split`."""
    return splits.split(given(config.data.source or config.dataset), config, home())


def sheet(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """The data sheet: what the set is, whose, under what terms, and what of it is used. From the arrays of `arrays`."""
    name, used = config.data.source or config.dataset, config.data
    source = SOURCES.get(name, Source("your own", "", "yours", own.from_npz, checked="its form only"))
    shape = arrays["train_x"].shape[1:] if "train_x" in arrays else (3, used.size, used.size)
    values = np.flatnonzero(arrays["histogram"].sum(0))
    choices = {key: getattr(used, key) for key in ("classes", "without", "limit", "fraction", "size", "stream")}
    base = {"classes": None, "without": [], "limit": None, "fraction": 1.0, "size": None, "stream": False}
    return {
        "data set": name, "title": source.title, "page": source.page, "terms of use": source.terms,
        "checked by": source.checked, "image (C, H, W)": " x ".join(map(str, shape)),
        "values of a pixel": f"{values.min()} to {values.max()}, {len(values)} different ones",
        "mean by channel": ", ".join(f"{m:.3f}" for m in arrays["mean"]),
        "standard deviation": ", ".join(f"{s:.3f}" for s in arrays["std"]),
        "differs from the set as given": ", ".join(f"{k}: {v}" for k, v in choices.items() if v != base[k]) or "no",
    }


def pictures(config: Config, arrays: dict[str, np.ndarray], index: list[int]) -> np.ndarray:
    """Training images at these places, uint8 (N, C, H, W), from memory or from their files."""
    if "train_x" in arrays:
        return arrays["train_x"][index]
    labels = torch.from_numpy(arrays["train_y"])
    return data.Files(home(), arrays["train_path"], labels, config.data.size, workers=0).take(index).x.numpy()


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write images.npz aside and then to its place, so that a file cut short is never found there."""
    aside = path.with_suffix(".tmp")
    try:
        with open(aside, "wb") as file:
            np.savez(file, **arrays)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
