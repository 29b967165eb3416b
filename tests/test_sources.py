"""Your own images, sets under their names, and what is used of them; input that is refused."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lib import __main__ as commands
from lib import config, data, sources
from lib.params import ConfigError, DataError
from lib.sources import splits


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home."""
    monkeypatch.setenv("DATA_HOME", str(tmp_path))
    return tmp_path


def own(n=40, classes=2, side=8):
    x = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    y = np.arange(n) % classes
    return {"train_x": x, "train_y": y, "test_x": x[:6], "test_y": y[:6], "classes": np.array(["cat", "dog"])}


def folder(home, name="pets", n=6, size=(8, 8), mode="RGB", classes=("cat", "dog"), test="test", suffix="png"):
    """Images in train/<class>/ and test/<class>/; returns those of the training set by class."""
    rng, made = np.random.default_rng(0), {}
    for part in ("train", test):
        for one in classes:
            (home / name / part / one).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (*size[::-1], *((3,) if mode == "RGB" else ())), dtype=np.uint8)
                Image.fromarray(pixels).save(home / name / part / one / f"{i}.{suffix}")
                made.setdefault((part, one), []).append(pixels)
    return made


def options(cfg, dataset="pets", **numbers):
    fresh = config.Data(source=None, classes=None, without=[], limit=None, fraction=1.0, validation=0.1, seed=0,
                        size=None, stream=False)
    return replace(cfg, dataset=dataset, data=replace(fresh, **numbers))


def test_digits_are_scikit_learns():
    ours, theirs = sources.given("digits"), load_digits()
    x, y = (np.concatenate([ours[f"train_{a}"], ours[f"test_{a}"]]) for a in "xy")
    back = np.round(x[..., 0] * (16 / 255)).astype(int)
    assert len(x) == 1797 and x.max() == 255
    assert sorted(map(bytes, np.c_[back.reshape(-1, 64), y].astype(np.uint8))) == \
        sorted(map(bytes, np.c_[theirs.data, theirs.target].astype(np.uint8)))


def test_data_comes_back_by_itself_or_names_its_command(project):
    with pytest.raises(DataError, match="digits.npz is missing: `dvc repro data.dvc` restores it"):
        sources.given("digits")
    root = Path(__file__).parents[1]
    shutil.copy(root / "data.dvc", project)
    shutil.copytree(root / ".dvc/embedded", project / ".dvc/embedded")
    shutil.copy(root / ".dvc/config", project / ".dvc")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert len(sources.given("digits")["train_y"]) == 1347 and (project / "data/README.md").exists()


def test_digits_that_were_changed_are_not_called_digits(project):
    (project / "data").mkdir()
    np.savez(project / "data/digits.npz", images=np.zeros((1797, 8, 8), np.uint8), target=np.zeros(1797, np.uint8))
    with pytest.raises(DataError, match="does not hold scikit-learn's digits"):
        sources.given("digits")


class TestSplits:
    def test_disjoint_in_proportion_and_fixed(self):
        default = config.load("default", "digits")
        parts, again = (sources.arrays(default) for _ in range(2))
        counts = {p: np.bincount(parts[f"{p}_y"]) for p in data.SPLITS}
        whole = np.bincount(sources.given("digits")["train_y"])
        assert np.array_equal(counts["validation"], np.round(0.1 * whole))
        assert np.array_equal(counts["train"] + counts["validation"], whole) and counts["test"].sum() == 450
        assert all(np.array_equal(parts[key], again[key]) for key in parts)
        images = [{i.tobytes() for i in parts[f"{p}_x"]} for p in data.SPLITS]
        assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]

    def test_places_lead_back_to_what_was_given(self):
        given, parts = sources.given("digits"), sources.arrays(config.load("default", "digits"))
        for part, source in zip(data.SPLITS, ("train", "train", "test"), strict=True):
            places = parts[f"{part}_index"]
            assert np.array_equal(parts[f"{part}_x"].transpose(0, 2, 3, 1), given[f"{source}_x"][places])
            assert np.array_equal(parts[f"{part}_y"], given[f"{source}_y"][places])
        assert np.array_equal(parts["test_index"], np.arange(450))

    def test_fractions_nest_and_leave_validation_and_test_alone(self, cfg):
        tenth, half, whole = (sources.arrays(options(cfg, "digits", fraction=f)) for f in (0.1, 0.5, 1.0))
        chosen = [set(a["train_index"]) for a in (tenth, half, whole)]
        assert chosen[0] < chosen[1] < chosen[2]
        counts = [np.bincount(a["train_y"]) for a in (half, whole)]
        assert np.abs(counts[0] - counts[1] / 2).max() <= 0.5
        for key in ("validation_index", "test_index"):
            assert np.array_equal(tenth[key], whole[key]) and np.array_equal(half[key], whole[key])

    def test_seed_changes_the_choice_only(self, cfg):
        a, b = (sources.arrays(options(cfg, "digits", seed=s)) for s in (0, 1))
        assert set(a["validation_index"]) != set(b["validation_index"])
        assert np.array_equal(a["test_x"], b["test_x"])
        assert np.array_equal(np.bincount(a["train_y"]), np.bincount(b["train_y"]))

    def test_limit_is_of_each_class(self, cfg):
        parts = sources.arrays(options(cfg, "digits", limit=20))
        assert [len(parts[f"{p}_y"]) for p in data.SPLITS] == [180, 20, 200]
        assert set(np.bincount(parts["test_y"])) == {20}

    def test_a_class_taken_out(self, cfg):
        """The removal experiment: the other classes keep their order, names and images."""
        given = sources.given("digits")
        parts = sources.arrays(options(cfg, "digits", without=[3, "8"]))
        assert parts["classes"].tolist() == ["0", "1", "2", "4", "5", "6", "7", "9"]
        assert set(parts["train_y"]) == set(range(8))
        names = parts["classes"][parts["test_y"]]
        assert np.array_equal(names, given["test_y"][parts["test_index"]].astype(str))

    def test_some_classes(self, cfg):
        named = sources.arrays(options(cfg, "digits", classes=["7", "1"]))
        assert named["classes"].tolist() == ["1", "7"]
        three, again, other = (sources.arrays(options(cfg, "digits", classes=3, seed=s))["classes"] for s in (0, 0, 1))
        assert len(three) == 3 and np.array_equal(three, again) and not np.array_equal(three, other)

    @pytest.mark.parametrize(("numbers", "message"), [
        ({"without": ["horse"]}, "unknown class 'horse' in data.without of params.yaml; there are: 0, 1"),
        ({"classes": ["1"]}, "leave 1 classes"),
        ({"classes": 11}, "data.classes in params.yaml is 11: the set has 10 classes"),
        ({"validation": 1.0}, "data.validation in params.yaml is 1.0: it has to be between 0 and 1"),
        ({"fraction": 0.0}, "data.fraction in params.yaml is 0.0"),
        ({"limit": 1}, "data.limit in params.yaml is 1"),
    ])
    def test_options_out_of_range(self, cfg, numbers, message):
        with pytest.raises(ConfigError) as error:
            sources.arrays(options(cfg, "digits", **numbers))
        assert message in str(error.value)

    def test_statistics_are_exact(self, cfg):
        parts = sources.arrays(options(cfg, "digits"))
        x = parts["train_x"] / 255
        assert np.allclose(parts["mean"], x.mean((0, 2, 3))) and np.allclose(parts["std"], x.std((0, 2, 3)))
        assert parts["histogram"].sum() == x.size

    def test_size_resizes(self, cfg):
        parts = sources.arrays(options(cfg, "digits", size=16, limit=5))
        before = sources.arrays(options(cfg, "digits", limit=5))
        assert parts["train_x"].shape[1:] == (1, 16, 16)
        assert abs(parts["train_x"].mean() / before["train_x"].mean() - 1) < 0.05

    def test_repeated_images_are_counted(self, cfg, home):
        np.savez(home / "pets.npz", **own())
        found = splits.repeated(sources.arrays(options(cfg)))
        assert found == {"test images also in training or validation": 6, "validation images also in training": 0,
                         "training images that repeat another": 0}


class TestFile:
    def test_used_by_its_name_alone(self, home, monkeypatch):
        """No recipe in params.yaml: `datasets: [pets]` is enough."""
        np.savez(home / "pets.npz", **own(), superclasses=np.array(["animals", "animals"]))
        found = data.load(config.load("default", "pets"))
        assert found.classes == ["cat", "dog"] and found.superclasses == ["animals", "animals"]
        assert found.shape == (3, 8, 8) and len(found.test) == 6

    @pytest.mark.parametrize(("change", "message"), [
        ({"train_x": np.zeros((40, 8, 8, 3))}, "train_x is float64"),
        ({"test_x": np.zeros((6, 8, 8), np.uint8)}, "test_x is uint8 (6, 8, 8), not uint8 (N, H, W, 1 or 3)"),
        ({"test_x": np.zeros((6, 9, 8, 3), np.uint8)}, "images of test_x are (9, 8, 3), of train_x (8, 8, 3)"),
        ({"train_y": np.zeros(39, int)}, "train_y is int64 (39,)"),
        ({"train_y": np.zeros(40)}, "train_y is float64"),
        ({"train_y": np.arange(40) % 3}, "train_y holds the label 2, but classes names 2: labels run from 0 to 1"),
        ({"train_y": np.arange(40) % 2 - 1}, "train_y holds the label -1"),
        ({"test_y": np.zeros(6, int)}, "test_x has no image of class 1 (dog)"),
        ({"classes": np.array(["cat", "cat"])}, "classes has 2 names, 1 of them different"),
        ({"classes": np.array([0, 1])}, "classes is int64 (2,), not one name for each class"),
        ({"superclasses": np.array(["animals"])}, "superclasses is <U7 (1,), not one name for each class"),
    ])
    def test_refused(self, home, change, message):
        np.savez(home / "pets.npz", **(own() | change))
        with pytest.raises(DataError) as error:
            sources.given("pets")
        assert message in str(error.value) and "pets.npz" in str(error.value)

    def test_broken_files_are_named(self, home):
        (home / "pets.npz").write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(DataError, match="pets.npz cannot be read"):
            sources.given("pets")
        np.savez(home / "pets.npz", **own())
        whole = (home / "pets.npz").read_bytes()
        (home / "pets.npz").write_bytes(whole[:len(whole) // 2])
        with pytest.raises(DataError, match="pets.npz cannot be read"):
            sources.given("pets")
        np.savez(home / "pets.npz", train_x=np.zeros(3))
        with pytest.raises(DataError, match="train_y"):
            sources.given("pets")

    def test_nothing_is_unpickled(self, home, monkeypatch):
        np.savez(home / "pets.npz", **(own() | {"classes": np.array(["cat", "dog"], object)}))
        with pytest.raises(DataError, match="allow_pickle"):
            sources.given("pets")

    def test_another_sets_arrays_do_not_get_its_name(self, home):
        np.savez(home / "cifar10.npz", **own())
        with pytest.raises(DataError, match="train_x is not that of 'cifar10' .*give .*cifar10.npz a name of its own"):
            sources.given("cifar10")
        np.savez(home / "svhn.npz", **own())
        with pytest.raises(DataError, match="svhn.npz cannot be told from a changed copy of 'svhn'"):
            sources.given("svhn")


class TestFolder:
    def test_read_as_it_is(self, cfg, home):
        made = folder(home)
        (home / "pets/train/cat/.DS_Store").write_text("x")
        (home / "pets/train/readme.txt").write_text("x")
        parts = sources.arrays(options(cfg, validation=0.2))
        assert parts["classes"].tolist() == ["cat", "dog"]
        assert [len(parts[f"{p}_y"]) for p in data.SPLITS] == [10, 2, 12]
        given = sources.given("pets")
        for image, place in zip(parts["train_x"], parts["train_index"], strict=True):
            one, file = given["train_path"][place].decode().split("/")[2:]
            assert np.array_equal(image.transpose(1, 2, 0), made["train", one][int(file[0])])
        assert parts["test_y"].tolist() == [0, 1] * 6  # in turn, so that the first few are of every class

    def test_used_by_its_name_alone(self, home):
        folder(home)
        assert data.load(config.load("default", "pets")).shape == (3, 8, 8)

    def test_grey_images_have_one_channel(self, cfg, home):
        folder(home, mode="L")
        assert sources.arrays(options(cfg))["train_x"].shape[1] == 1

    def test_sizes_that_differ_need_a_size(self, cfg, home):
        folder(home)
        Image.new("RGB", (12, 9)).save(home / "pets/train/dog/3.png")
        with pytest.raises(DataError, match="is .* x .*: set data.size in params.yaml"):
            sources.arrays(options(cfg))
        assert sources.arrays(options(cfg, size=6))["train_x"].shape[1:] == (3, 6, 6)

    @pytest.mark.parametrize("stream", [False, True])
    def test_an_unreadable_image_is_named(self, cfg, home, stream):
        folder(home)
        (home / "pets/train/dog/3.png").write_bytes(b"\x89PNG no image")
        with pytest.raises(DataError, match="pets/train/dog/3.png cannot be read as an image"):
            sources.arrays(options(cfg, stream=stream, size=8))

    def test_an_image_cut_short_is_named(self, cfg, home):
        folder(home, size=(64, 64))
        path = home / "pets/train/dog/3.png"
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(DataError, match="pets/train/dog/3.png cannot be read as an image"):
            sources.arrays(options(cfg))

    def test_more_than_8_bits_are_refused(self, cfg, home):
        folder(home)
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(home / "pets/train/dog/3.png")
        with pytest.raises(DataError, match="3.png has pixels of mode I;16, not 8 bits a channel"):
            sources.arrays(options(cfg))

    @pytest.mark.parametrize(("change", "message"), [
        (lambda pets: shutil.rmtree(pets / "test"), "lacks the folder test"),
        (lambda pets: shutil.rmtree(pets / "train"), "lacks the folder train"),
        (lambda pets: shutil.rmtree(pets / "test/dog"), "test holds 1 folders of a class each"),
        (lambda pets: (pets / "test/dog").rename(pets / "test/god"), "the class 'dog' is only in train"),
        (lambda pets: [f.unlink() for f in (pets / "train/cat").iterdir()], "train/cat holds no image"),
    ])
    def test_refused(self, cfg, home, change, message):
        folder(home)
        change(home / "pets")
        with pytest.raises(DataError) as error:
            sources.given("pets")
        assert message in str(error.value)


class TestImageNet:
    def test_your_copy_is_streamed_and_goes_by_identifiers(self, cfg, home):
        ids = ("n01440764", "n01443537", "n01484850")
        folder(home, "imagenet", classes=ids, test="val", size=(80, 60), suffix="JPEG")
        parts = sources.arrays(options(cfg, "imagenet", stream=True, size=32, without=[ids[1]]))
        assert parts["classes"].tolist() == [ids[0], ids[2]] and "train_x" not in parts
        found = data.dataset(replace(options(cfg, "imagenet"), compute=replace(cfg.compute, workers=0)), parts)
        assert found.shape == (3, 32, 32) and found.test.first(4).x.shape == (4, 3, 32, 32)
        assert len(found.statistics[0]) == 3 and len(found.train) == 10

    def test_names_of_the_thousand_classes(self, home):
        for part in ("train", "val"):
            for i in range(1000):
                (home / "imagenet" / part / f"n{i:08}").mkdir(parents=True)
                (home / "imagenet" / part / f"n{i:08}" / "a.JPEG").touch()
        found = sources.given("imagenet")
        assert found["classes"][1] == "goldfish" and found["ids"][1] == "n00000001"

    def test_missing_says_where_it_goes(self, home):
        with pytest.raises(DataError, match="'imagenet' is not downloaded: put your copy, or a link to it, at .*/im"):
            sources.given("imagenet")

    def test_stream_needs_a_size(self, cfg, home):
        folder(home, "imagenet", test="val")
        with pytest.raises(ConfigError, match="data.stream in params.yaml needs data.size"):
            sources.arrays(options(cfg, "imagenet", stream=True))


def test_a_name_that_is_nothing_says_what_there_could_be(home, project, edit, capsys):
    edit(project / "params.yaml", "datasets: [digits]", "datasets: [pets]")
    assert commands.main(["code", "default"]) == 1
    error = capsys.readouterr().err
    assert "unknown data set 'pets'" in error and f"{home}/pets.npz or the folder {home}/pets" in error
    with pytest.raises(DataError, match="none of digits, mnist, .* and not found: your own would be"):
        sources.given("pets")


def test_data_home_is_never_in_data(project, monkeypatch):
    monkeypatch.setenv("DATA_HOME", "data/sets")
    with pytest.raises(ConfigError, match="inside data/, which holds only what data.dvc pins"):
        sources.given("mnist")


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    sources.write(tmp_path / "images.npz", {"x": np.arange(3)})
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        sources.write(tmp_path / "images.npz", {"x": np.arange(4)})
    with np.load(tmp_path / "images.npz") as file:
        assert len(file["x"]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["images.npz"]


def test_data_sheet_tells_what_is_used(cfg):
    chosen = options(cfg, "digits", without=["8"], fraction=0.5)
    sheet = sources.sheet(chosen, sources.arrays(chosen))
    assert sheet["terms of use"] == "CC BY 4.0" and sheet["image (C, H, W)"] == "1 x 8 x 8"
    assert sheet["values of a pixel"] == "0 to 255, 17 different ones"
    assert sheet["differs from the set as given"] == "without: ['8'], fraction: 0.5"
