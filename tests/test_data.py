"""Images in memory and on disk: batches, augmentation, one interface."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image

from lib import augment, compute, data, methods, train
from lib.params import ConfigError, DataError


def test_batches_cover_an_epoch_once_in_unit_range(digits):
    generator = compute.generator(0)
    batches = list(data.batches(digits.train, 64, generator))
    assert [len(y) for _, y in batches] == [64] * (len(digits.train) // 64)
    seen = torch.cat([(x * 255).round().byte() for x, _ in batches])
    rows = {row.numpy().tobytes() for row in digits.train.x}
    assert all(row.numpy().tobytes() in rows for row in seen) and len(torch.unique(seen, dim=0)) == len(seen)
    assert batches[0][0].dtype == torch.float32 and batches[0][0].max() <= 1
    assert len(list(data.batches(digits.train, 10_000, generator))) == 1  # a set smaller than a batch is one batch


def test_in_order_is_everything_once(digits):
    parts = list(digits.test.in_order(64))
    assert torch.equal(torch.cat([x for x, _ in parts]), digits.test.floats()[0])
    assert torch.equal(torch.cat([y for _, y in parts]), digits.test.y)


def test_unknown_augmentation_is_refused(digits):
    with pytest.raises(ConfigError, match="unknown augmentation 'crob' in train.augment of params.yaml .did you mean"):
        next(data.batches(digits.train, 8, compute.generator(0), ["crob"]))
    with pytest.raises(ConfigError, match="unknown augmentation 'resized_crop'"):  # needs the whole image
        next(data.batches(digits.train, 8, compute.generator(0), ["resized_crop"]))


def test_crop_moves_and_flip_mirrors():
    x = torch.rand(200, 3, 8, 10)
    shifted = augment.crop(x, compute.generator(0), pad=2)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    windows = torch.stack([padded[:, :, i:i + 8, j:j + 10] for i in range(5) for j in range(5)])
    hits = (windows == shifted).flatten(2).all(2)
    assert hits.any(0).all() and hits.any(1).all()  # each image is one of 25 windows, and each window occurs
    flipped = augment.flip(x, compute.generator(0))
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (mirrored | (flipped == x).flatten(1).all(1)).all() and 60 < mirrored.sum() < 140


@pytest.mark.parametrize("shape", [(32, 32), (20, 31)])
def test_turn_is_torchvisions_rotation(shape):
    x = torch.rand(5, 3, *shape)
    angles = [-15.0, -3.3, 0.0, 7.0, 40.0]
    turned = augment.turn(x, torch.deg2rad(torch.tensor(angles)))
    for image, result, angle in zip(x, turned, angles, strict=True):
        assert torch.equal(result, reference.rotate(image[None], angle)[0])


def test_rotate_turns_each_image_by_its_own_angle_up_to_15_degrees():
    bar = torch.zeros(500, 1, 41, 41)
    bar[:, :, 20, 20:] = 1  # from the middle to the right
    turned = augment.rotate(bar, compute.generator(0))
    rows = turned[:, 0, :, 38].argmax(1).float() - 20  # 18 pixels from the middle
    angles = torch.rad2deg(torch.atan2(-rows, torch.tensor(18.0)))[turned[:, 0, :, 38].sum(1) > 0]
    assert 12 < angles.max() <= 17 and -17 <= angles.min() < -12 and abs(angles.mean()) < 1.5


@pytest.fixture
def files(tmp_path):
    """Forty images of 40 x 30, of which each is one colour and its number is in that colour."""
    paths = []
    for i in range(40):
        paths.append(f"{i}.png".encode())
        Image.new("RGB", (40, 30), (6 * i, 0, 255)).save(tmp_path / f"{i}.png")
    return data.Files(tmp_path, np.array(paths), torch.arange(40), size=24, workers=0)


class TestFiles:
    def test_same_interface_as_images(self, files):
        assert len(files) == 40 and files.shape == (3, 24, 24)
        x, y = zip(*files.in_order(16), strict=True)
        assert [len(part) for part in y] == [16, 16, 8]
        assert torch.equal((torch.cat(x)[:, 0, 0, 0] * 255).round().long(), 6 * torch.arange(40))
        taken = files.take([5, 3])
        assert taken.y.tolist() == [5, 3] and taken.x[:, 0, 0, 0].tolist() == [30, 18]
        assert torch.equal(files.first(7).x, files.take(range(7)).x) and files.floats()[0].shape == (40, 3, 24, 24)

    @pytest.mark.parametrize("names", [[], ["resized_crop", "flip"]])
    def test_an_epoch_is_the_same_with_any_number_of_workers(self, files, names):
        def epoch(workers):
            few = replace(files, workers=workers)
            return [torch.cat(p) for p in zip(*data.batches(few, 16, compute.generator(1), names), strict=True)]

        (x, y), (again, labels) = epoch(0), epoch(2)
        assert torch.equal(x, again) and torch.equal(y, labels)
        assert len(y) == 32 and len(set(y.tolist())) == 32  # full batches, each image once
        assert torch.equal((x[:, 0, 9, 9] * 255).round().long(), 6 * y)

    def test_resized_crop_differs_from_epoch_to_epoch(self, tmp_path, files):
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "0.png")
        generator, one = compute.generator(0), replace(files, paths=files.paths[:1], y=files.y[:1])
        x, again = (next(data.batches(one, 1, generator, ["resized_crop"]))[0] for _ in range(2))
        assert not torch.equal(x, again)
        state = torch.get_rng_state()
        plain, same = (next(data.batches(one, 1, generator))[0] for _ in range(2))
        assert torch.equal(plain, same) and torch.equal(state, torch.get_rng_state())

    @pytest.mark.parametrize("workers", [0, 1])
    def test_an_image_that_breaks_later_is_named_in_one_line(self, files, workers):
        (files.place / "7.png").write_bytes(b"gone")
        with pytest.raises(DataError, match=r"7.png cannot be read: [^\n]*$"):
            list(replace(files, workers=workers).in_order(8))

    def test_trains(self, files, cfg):
        few = replace(files, y=files.y % 2)
        found = data.Dataset("few", ["a", "b"], None, ([0.5] * 3, [0.5] * 3), few, few, few)
        run = replace(cfg, train=replace(cfg.train, epochs=1, batch_size=8, augment=["resized_crop", "flip"]))
        history = train.fit(run, found, torch.device("cpu"), log=lambda line: None).history
        assert history.loss.notna().all() and methods.build(run).attack
