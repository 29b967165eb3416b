"""Images: provenance, splits, batches, and files that are refused."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lib import compute, config, data


def test_digits_are_scikit_learns():
    ours, theirs = data.given("digits"), load_digits()
    x, y = (np.concatenate([ours[f"train_{a}"], ours[f"test_{a}"]]) for a in "xy")
    back = np.round(x[..., 0] * (16 / 255)).astype(int)
    assert len(x) == 1797 and x.max() == 255
    assert sorted(map(bytes, np.c_[back.reshape(-1, 64), y].astype(np.uint8))) == \
        sorted(map(bytes, np.c_[theirs.data, theirs.target].astype(np.uint8)))


def test_splits_are_disjoint_balanced_and_fixed():
    default = config.load("default", "digits")
    parts, again = (data.split(data.given("digits"), default) for _ in range(2))
    assert [len(parts[f"{p}_y"]) for p in data.SPLITS] == [1212, 135, 450]
    for part in data.SPLITS:
        counts = np.bincount(parts[f"{part}_y"])
        assert counts.max() - counts.min() <= 0.12 * counts.mean() + 2
        assert np.array_equal(parts[f"{part}_x"], again[f"{part}_x"])
    images = [{i.tobytes() for i in parts[f"{p}_x"]} for p in data.SPLITS]
    assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]


def test_batches_cover_an_epoch_once_in_unit_range(digits):
    generator = compute.generator(0)
    batches = list(data.batches(digits.train, 64, generator))
    assert [len(y) for _, y in batches] == [64] * (len(digits.train) // 64)
    seen = torch.cat([(x * 255).round().byte() for x, _ in batches])
    rows = {row.numpy().tobytes() for row in digits.train.x}
    assert all(row.numpy().tobytes() in rows for row in seen) and len(torch.unique(seen, dim=0)) == len(seen)
    assert batches[0][0].dtype == torch.float32 and batches[0][0].max() <= 1
    assert len(list(data.batches(digits.train, 10_000, generator))) == 1  # a set smaller than a batch is one batch


def test_crop_moves_and_flip_mirrors():
    x = torch.rand(200, 3, 8, 10)
    shifted = data.crop(x, compute.generator(0), pad=2)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    windows = torch.stack([padded[:, :, i:i + 8, j:j + 10] for i in range(5) for j in range(5)])
    hits = (windows == shifted).flatten(2).all(2)
    assert hits.any(0).all() and hits.any(1).all()  # each image is one of 25 windows, and each window occurs
    flipped = data.flip(x, compute.generator(0))
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (mirrored | (flipped == x).flatten(1).all(1)).all() and 60 < mirrored.sum() < 140


def own(n=20, classes=2):
    x = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    y = np.arange(n) % classes
    return {"train_x": x, "train_y": y, "test_x": x[:6], "test_y": y[:6], "classes": np.array(["cat", "dog"])}


def test_your_own_file(tmp_path, monkeypatch, cfg):
    monkeypatch.setenv("DATA_HOME", str(tmp_path))
    np.savez(tmp_path / "pets.npz", **own())
    found = data.load(replace(cfg, dataset="pets"))
    assert torch.equal(found.train.x, data.prepare(replace(cfg, dataset="pets")).train.x)
    assert found.classes == ["cat", "dog"] and found.shape == (3, 8, 8) and len(found.test) == 6


@pytest.mark.parametrize(("change", "message"), [
    ({"train_x": np.zeros((20, 8, 8, 3))}, "train_x is float64"),
    ({"test_x": np.zeros((6, 8, 8), np.uint8)}, "test_x is uint8 (6, 8, 8), not uint8 (N, H, W, 1 or 3)"),
    ({"train_y": np.zeros(19, int)}, "train_y is int64 (19,)"),
    ({"train_y": np.arange(20) % 3}, "train_y and classes differ about class 2"),
    ({"test_y": np.zeros(6, int)}, "test_y and classes differ about class 1"),
])
def test_your_own_file_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("DATA_HOME", str(tmp_path))
    np.savez(tmp_path / "pets.npz", **(own() | change))
    with pytest.raises(data.DataError) as error:
        data.given("pets")
    assert message in str(error.value)


def test_missing_and_broken_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_HOME", str(tmp_path))
    with pytest.raises(data.DataError, match="'pets' needs .*pets.npz"):
        data.given("pets")
    (tmp_path / "pets.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(data.DataError, match="cannot be read"):
        data.given("pets")
    np.savez(tmp_path / "pets.npz", train_x=np.zeros(3))
    with pytest.raises(data.DataError, match="train_y"):
        data.given("pets")


def test_data_comes_back_by_itself_or_names_its_command(project):
    with pytest.raises(data.DataError, match="digits.npz is missing: `dvc repro data.dvc` restores it"):
        data.given("digits")
    root = Path(__file__).parents[1]
    shutil.copy(root / "data.dvc", project)
    shutil.copytree(root / ".dvc/embedded", project / ".dvc/embedded")
    shutil.copy(root / ".dvc/config", project / ".dvc")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert len(data.given("digits")["train_y"]) == 1347 and (project / "data/README.md").exists()


def test_digits_that_were_changed_are_not_called_digits(project, edit):
    (project / "data").mkdir()
    np.savez(project / "data/digits.npz", images=np.zeros((1797, 8, 8), np.uint8), target=np.zeros(1797, np.uint8))
    with pytest.raises(data.DataError, match="does not hold scikit-learn's digits"):
        data.given("digits")
