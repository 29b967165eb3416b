"""Tiny image sets in the formats of their authors, with torchvision told of their checksums and of a local server."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile

import numpy as np
import scipy.io
from PIL import Image
from torchvision import datasets

from lib.sources import archives

FINE = [f"class{c:02}" for c in range(5)]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def labels(n, classes):
    return np.arange(n) % classes


def pictures(n, side, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def encoded(image, format):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, format)
    return file.getvalue()


def tarball(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def mnist(monkeypatch, url, kind=datasets.MNIST):
    """Four gzipped IDX files; returns (files on the server, what they hold)."""
    files, arrays = {}, {}
    for part, prefix, n in (("train", "train", 60), ("test", "t10k", 20)):
        x, y = pictures(n, 28, 1), labels(n, 10).astype(np.uint8)
        arrays |= {f"{part}_x": x, f"{part}_y": y}
        for kind_of, values in ((f"{prefix}-images-idx3-ubyte.gz", x[..., 0]), (f"{prefix}-labels-idx1-ubyte.gz", y)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            files[kind_of] = gzip.compress(head + values.tobytes(), mtime=0)
    monkeypatch.setattr(kind, "resources", [(name, md5(content)) for name, content in files.items()])
    monkeypatch.setattr(kind, "mirrors", [url])
    return files, arrays


def fashion_mnist(monkeypatch, url):
    return mnist(monkeypatch, url, datasets.FashionMNIST)


def cifar10(monkeypatch, url):
    """Pickled batches of (N, 3072) in a tarball."""
    kind, x, y = datasets.CIFAR10, pictures(60, 32), labels(60, 10)
    members = {}
    for i in range(6):
        rows = slice(10 * i, 10 * i + 10)
        batch = {"data": x[rows].transpose(0, 3, 1, 2).reshape(10, -1), "labels": y[rows].tolist()}
        members["test_batch" if i == 5 else f"data_batch_{i + 1}"] = pickle.dumps(batch)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    members["batches.meta"] = pickle.dumps({"label_names": names})
    _cifar(monkeypatch, url, kind, members)
    return ({kind.filename: SERVED[kind]},
            {"train_x": x[:50], "train_y": y[:50], "test_x": x[50:], "test_y": y[50:], "classes": names})


def cifar100(monkeypatch, url):
    """One pickle a part, with the hundred fine labels."""
    from lib.sources.superclasses import CIFAR100

    kind, x, y = datasets.CIFAR100, pictures(300, 32), labels(300, 100)
    names = sorted(one for members in CIFAR100.values() for one in members)
    members = {part: pickle.dumps({"data": x[rows].transpose(0, 3, 1, 2).reshape(len(x[rows]), -1),
                                   "fine_labels": y[rows].tolist()})
               for part, rows in (("train", slice(200)), ("test", slice(200, 300)))}
    members["meta"] = pickle.dumps({"fine_label_names": names})
    _cifar(monkeypatch, url, kind, members)
    return ({kind.filename: SERVED[kind]},
            {"train_x": x[:200], "train_y": y[:200], "test_x": x[200:], "test_y": y[200:], "classes": names})


SERVED = {}


def _cifar(monkeypatch, url, kind, members):
    SERVED[kind] = tarball({f"{kind.base_folder}/{name}": content for name, content in members.items()})
    monkeypatch.setattr(kind, "url", url + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(SERVED[kind]))
    sums = {name: md5(content) for name, content in members.items()}
    monkeypatch.setattr(kind, "train_list", [[n, sums[n]] for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[n, sums[n]] for n, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[kind.meta["filename"]]})


def svhn(monkeypatch, url):
    """Matlab files: X (32, 32, 3, N), and y from 1 to 10, where 10 is the digit 0."""
    kind, files, arrays, listed = datasets.SVHN, {}, {}, dict(datasets.SVHN.split_list)
    for part, n in (("train", 40), ("test", 20)):
        x, y = pictures(n, 32), labels(n, 10)
        file = io.BytesIO()
        scipy.io.savemat(file, {"X": x.transpose(1, 2, 3, 0), "y": np.where(y == 0, 10, y)[:, None].astype(np.uint8)})
        name = f"{part}_32x32.mat"
        files[name] = file.getvalue()
        arrays |= {f"{part}_x": x, f"{part}_y": y}
        listed[part] = [url + name, name, md5(files[name])]
    monkeypatch.setattr(kind, "split_list", listed)
    return files, arrays


def stl10(monkeypatch, url):
    """Raw bytes, column by column, in a tarball; labels from 1."""
    kind, members, arrays = datasets.STL10, {}, {}
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    for part, n in (("train", 20), ("test", 10), ("unlabeled", 2)):
        x, y = pictures(n, 96), labels(n, 10)
        members[f"{part}_X.bin"] = x.transpose(0, 3, 2, 1).tobytes()
        if part != "unlabeled":
            members[f"{part}_y.bin"] = (y + 1).astype(np.uint8).tobytes()
            arrays |= {f"{part}_x": x, f"{part}_y": y}
    members["class_names.txt"] = "\n".join(names).encode()
    archive = tarball({f"{kind.base_folder}/{name}": content for name, content in members.items()})
    monkeypatch.setattr(kind, "url", url + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(archive))
    monkeypatch.setattr(kind, "train_list", [[n, md5(members[n])] for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[n, md5(members[n])] for n, _ in kind.test_list])
    return {kind.filename: archive}, arrays | {"classes": names}


def tiny_imagenet(monkeypatch, url):
    """JPEGs in a zip: train/<wnid>/images, and one folder of validation images with a list of their classes."""
    ids = ["n02000003", "n02000001", "n02000002"]
    words = {"n02000001": "crane, a bird", "n02000002": "crane, a machine", "n02000003": "goldfish, Carassius auratus"}
    file, arrays = io.BytesIO(), {"ids": sorted(ids), "train_y": [], "test_y": [], "train_x": [], "test_x": []}
    with zipfile.ZipFile(file, "w") as archive:
        def add(name, content):
            archive.writestr(f"tiny-imagenet-200/{name}", content)

        def picture(part, name, label, grey):
            content = encoded(pictures(1, 64, 1 if grey else 3, seed=len(arrays["train_y"]))[0], "JPEG")
            add(name, content)
            arrays[f"{part}_x"].append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
            arrays[f"{part}_y"].append(label)

        add("wnids.txt", "\n".join(ids) + "\n")
        add("words.txt", "".join(f"{wnid}\t{name}\n" for wnid, name in (words | {"n09": "unused"}).items()))
        for label, wnid in enumerate(sorted(ids)):
            for i in range(4):
                picture("train", f"train/{wnid}/images/{wnid}_{i}.JPEG", label, grey=i == 0)
        for i, label in enumerate((2, 0, 1)):
            picture("test", f"val/images/val_{i}.JPEG", label, grey=False)
        add("val/val_annotations.txt", "".join(f"val_{i}.JPEG\t{sorted(ids)[c]}\t0\t0\t9\t9\n"
                                               for i, c in enumerate((2, 0, 1))))
    content = file.getvalue()
    monkeypatch.setitem(archives.TINY, "url", url + archives.TINY["file"])
    monkeypatch.setitem(archives.TINY, "md5", md5(content))
    arrays["classes"] = ["crane (n02000001)", "crane (n02000002)", "goldfish"]
    return {archives.TINY["file"]: content}, {k: np.array(v) for k, v in arrays.items()}


BUILDERS = {f.__name__: f for f in (mnist, fashion_mnist, cifar10, cifar100, svhn, stl10, tiny_imagenet)}
