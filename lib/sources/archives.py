"""The image sets that can be downloaded, each read from its authors' files in their own format.

torchvision knows the addresses and checksums, downloads, unpacks and unpickles; where a set is not among its own
(Tiny-ImageNet), or where it does not check what it reads (MNIST's unpacked files), the checked file is read here.
The files lie in the data home as torchvision lays them out, so a folder that it has filled before can be DATA_HOME.
torchvision takes seconds to import, so each function does it for itself.
"""

import gzip
import io
from collections import Counter
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from lib.sources import fetch

DIGITS = [str(c) for c in range(10)]
TINY = {
    "url": "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "file": "tiny-imagenet-200.zip",
    "md5": "90528d7ca1a48142e341f4ef8d21d0de",
}


def mnist(name: str, home: Path) -> dict[str, np.ndarray]:
    """MNIST or Fashion-MNIST: four gzipped IDX files in <kind>/raw."""
    from torchvision.datasets import MNIST, FashionMNIST

    kind = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    raw = f"{kind.__name__}/raw"
    files = fetch.Originals(
        checksums={f"{raw}/{file}": md5 for file, md5 in kind.resources},
        urls=[mirror + kind.resources[0][0] for mirror in kind.mirrors],
        download=lambda root: kind(root, download=True))
    fetch.ensure(name, files, home)
    arrays = {"classes": np.array(DIGITS if kind is MNIST else kind.classes)}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"{part}_x"] = _idx(home / raw / f"{prefix}-images-idx3-ubyte.gz")[..., None]
        arrays[f"{part}_y"] = _idx(home / raw / f"{prefix}-labels-idx1-ubyte.gz")
    return arrays


def _idx(path: Path) -> np.ndarray:
    """An IDX file of bytes: 0, 0, 8, the number of dimensions, the dimensions as big-endian int32, the data."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def cifar(name: str, home: Path) -> dict[str, np.ndarray]:
    """CIFAR-10 or CIFAR-100: pickles, each of which torchvision checks before it opens it."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    files = fetch.Originals(
        checksums={f"{kind.base_folder}/{file}": md5 for file, md5 in listed},
        archive={kind.filename: kind.tgz_md5}, urls=[kind.url],
        download=lambda root: kind(root, download=True))
    fetch.ensure(name, files, home)
    train, test = kind(home, train=True), kind(home, train=False)
    return {"train_x": train.data, "train_y": np.array(train.targets), "test_x": test.data,
            "test_y": np.array(test.targets), "classes": np.array(train.classes)}


def svhn(name: str, home: Path) -> dict[str, np.ndarray]:
    """SVHN, cropped digits: two Matlab files. Its `extra` part is not used."""
    from torchvision.datasets import SVHN
    from torchvision.datasets.utils import download_url

    parts = ("train", "test")
    listed = [SVHN.split_list[part] for part in parts]

    def download(root: Path) -> None:
        """Both files."""
        for url, file, md5 in listed:
            download_url(url, root, file, md5)

    files = fetch.Originals(checksums={file: md5 for _, file, md5 in listed}, urls=[listed[0][0]], download=download)
    fetch.ensure(name, files, home)
    return {"classes": np.array(DIGITS)} | _channels_last({part: SVHN(home, split=part) for part in parts})


def stl10(name: str, home: Path) -> dict[str, np.ndarray]:
    """STL-10, labelled images: raw bytes. Its archive has the 100,000 unlabelled ones too, which are not read."""
    from torchvision.datasets import STL10

    files = fetch.Originals(
        checksums={f"{STL10.base_folder}/{file}": md5 for file, md5 in [*STL10.train_list, *STL10.test_list]},
        archive={STL10.filename: STL10.tgz_md5}, urls=[STL10.url],
        download=lambda root: STL10(root, download=True))
    fetch.ensure(name, files, home)
    parts = {part: STL10(home, split=part) for part in ("train", "test")}
    return {"classes": np.array(parts["train"].classes)} | _channels_last(parts)


def _channels_last(parts: dict) -> dict[str, np.ndarray]:
    """Images (N, C, H, W) and labels of torchvision sets as x (N, H, W, C) and y."""
    arrays = {}
    for part, images in parts.items():
        arrays[f"{part}_x"] = images.data.transpose(0, 2, 3, 1)
        arrays[f"{part}_y"] = images.labels.astype(np.int64)
    return arrays


def tiny_imagenet(name: str, home: Path) -> dict[str, np.ndarray]:
    """Tiny-ImageNet: JPEGs of 64 x 64 in a zip, which is read without unpacking it.

    Its test images have no labels, so the validation images are the test set, as in DUCAT's code.
    """
    from torchvision.datasets.utils import download_url

    files = fetch.Originals(checksums={TINY["file"]: TINY["md5"]}, urls=[TINY["url"]],
                        download=partial(download_url, TINY["url"], filename=TINY["file"], md5=TINY["md5"]))
    fetch.ensure(name, files, home)
    with ZipFile(home / TINY["file"]) as archive:
        def lines(file: str) -> list[list[str]]:
            """The lines of a text file, cut at tabs."""
            return [line.split("\t") for line in archive.read(f"tiny-imagenet-200/{file}").decode().splitlines()]

        ids = sorted(wnid for wnid, in lines("wnids.txt"))
        train = sorted(file for file in archive.namelist() if "/train/" in file and file.endswith(".JPEG"))
        test = [(f"tiny-imagenet-200/val/images/{file}", wnid) for file, wnid, *_ in lines("val/val_annotations.txt")]
        words = {wnid: names.split(",")[0] for wnid, names in lines("words.txt")}
        number = {wnid: i for i, wnid in enumerate(ids)}
        return {"train_x": _decoded(archive, train), "train_y": np.array([number[f.split("/")[2]] for f in train]),
                "test_x": _decoded(archive, [f for f, _ in test]), "test_y": np.array([number[w] for _, w in test]),
                "classes": named(ids, [words[wnid] for wnid in ids]), "ids": np.array(ids)}


def _decoded(archive: ZipFile, files: list[str]) -> np.ndarray:
    """The images (N, 64, 64, 3) of an archive; a few hundred of the set are grey, and become three equal channels."""
    images = np.empty((len(files), 64, 64, 3), np.uint8)
    for place, file in zip(images, files, strict=True):
        place[...] = Image.open(io.BytesIO(archive.read(file))).convert("RGB")
    return images


def named(ids: list[str], words: list[str]) -> np.ndarray:
    """Names of classes, with the identifier behind those that are not unique."""
    count = Counter(words)
    return np.array([word if count[word] == 1 else f"{word} ({wnid})" for wnid, word in zip(ids, words, strict=True)])
