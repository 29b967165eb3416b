"""The named sets, in the formats of their authors: downloaded, unpacked, read; and what is refused."""

import contextlib
import os
import socket
import tarfile
import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import archives as tiny
import numpy as np
import pytest
from torchvision import datasets

from lib import __main__ as commands
from lib import sources
from lib.params import DataError
from lib.sources import fetch


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home; its folder exists only once something is in it."""
    monkeypatch.setenv("DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def server(tmp_path):
    """A server of the files in a folder, which counts what it is asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            asked.append(args[1])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.folder, running.asked = folder, asked
        running.url = f"http://127.0.0.1:{running.server_port}/"
        yield running
        running.shutdown()


@pytest.fixture
def unverified(monkeypatch):
    """The tiny sets are not the real ones: without the md5 of the real arrays."""
    for name in ("mnist", "cifar10"):
        monkeypatch.setitem(sources.SOURCES, name, replace(sources.SOURCES[name], md5={}))


def served(server, name, monkeypatch):
    files, arrays = tiny.BUILDERS[name](monkeypatch, server.url)
    for file, content in files.items():
        (server.folder / file).write_bytes(content)
    return files, arrays


def bring(home, name, files):
    """Put the files where a user would."""
    place = home / {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}.get(name, ".")
    place.mkdir(parents=True)
    for file, content in files.items():
        (place / file).write_bytes(content)


def check(found, arrays):
    for key, values in arrays.items():
        assert np.array_equal(found[key], values), key
    for part in ("train", "test"):
        assert found[f"{part}_x"].dtype == np.uint8 and found[f"{part}_y"].max() < len(found["classes"])


@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_downloaded_once_and_read_as_it_was(name, home, server, monkeypatch, unverified):
    files, arrays = served(server, name, monkeypatch)
    check(sources.given(name), arrays)
    asked = len(server.asked)
    check(sources.given(name), arrays)
    assert asked >= len(files) and len(server.asked) == asked  # the second time without the server
    assert not [p for p in home.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_brought_by_hand_and_read_without_a_network(name, home, server, monkeypatch, unverified):
    files, arrays = served(server, name, monkeypatch)
    bring(home, name, files)
    check(sources.given(name), arrays)
    assert not server.asked


@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_a_file_cut_short_is_refused_by_name(name, home, server, monkeypatch, unverified):
    files, _ = served(server, name, monkeypatch)
    bring(home, name, {file: content[:len(content) // 2] for file, content in files.items()})
    before = sorted(home.rglob("*"))
    with pytest.raises(DataError, match=f"{next(iter(files))} is not the file of {name} .* delete it"):
        sources.given(name)
    assert not server.asked and sorted(home.rglob("*")) == before


def test_an_unpacked_file_that_was_changed_is_not_unpickled(home, server, monkeypatch, unverified):
    served(server, "cifar10", monkeypatch)
    sources.given("cifar10")
    batch = home / "cifar-10-batches-py/data_batch_2"
    batch.write_bytes(batch.read_bytes() + b"x")
    monkeypatch.setattr(datasets.cifar.pickle, "load", lambda *a, **k: pytest.fail("unpickled"))
    with pytest.raises(DataError, match="data_batch_2 is not the file of cifar10"):
        sources.given("cifar10")


def test_a_missing_member_comes_out_of_the_archive_again(home, server, monkeypatch, unverified):
    _, arrays = served(server, "cifar10", monkeypatch)
    sources.given("cifar10")
    asked = len(server.asked)
    (home / "cifar-10-batches-py/data_batch_2").unlink()
    check(sources.given("cifar10"), arrays)
    assert len(server.asked) == asked


def test_what_a_server_sends_instead_is_refused_and_removed(home, server, monkeypatch):
    files, _ = served(server, "cifar100", monkeypatch)
    for file in files:
        (server.folder / file).write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataError, match="'cifar100' could not be fetched .*corrupted.* put into .*cifar-100-"):
        sources.given("cifar100")
    assert list(home.iterdir()) == []


def test_an_archive_cannot_write_outside_its_folder(home, server, monkeypatch, tmp_path):
    """Even one whose checksum is right."""
    served(server, "cifar100", monkeypatch)
    evil = tiny.tarball({"../../evil": b"x", "cifar-100-python/train": b"x"})
    (server.folder / "cifar-100-python.tar.gz").write_bytes(evil)
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", tiny.md5(evil))
    with pytest.raises(DataError, match="outside"):
        sources.given("cifar100")
    assert not list(tmp_path.rglob("evil")) and list(home.iterdir()) == []
    assert tarfile.TarFile.extraction_filter is None and socket.getdefaulttimeout() is None


@contextlib.contextmanager
def silent():
    """A server that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def test_a_network_that_is_silent_is_one_line_in_time(home, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "ANSWER", 1)
    with silent() as url:
        tiny.mnist(monkeypatch, url)
        monkeypatch.setattr(datasets.MNIST, "mirrors", [url, url])
        start = time.monotonic()
        assert commands.main(["fetch", "mnist"]) == 1
    error = capsys.readouterr().err
    assert time.monotonic() - start < 5
    assert error.count("\n") == 1 and "no network" in error and "MNIST/raw/train-images-idx3-ubyte.gz (md5 " in error
    assert 2 * 12 < 30  # two mirrors, each with the real limit


def test_no_network_at_all(home, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    tiny.svhn(monkeypatch, f"http://127.0.0.1:{port}/")
    assert commands.main(["fetch", "svhn"]) == 1
    assert "Connection refused" in capsys.readouterr().err and list(home.iterdir()) == []


def test_a_download_that_stalls_is_given_up(home, server, monkeypatch):
    served(server, "cifar100", monkeypatch)
    monkeypatch.setattr(fetch, "STALL", 0.5)
    with silent() as url:
        monkeypatch.setattr(datasets.CIFAR100, "url", url + "x")
        monkeypatch.setattr(fetch, "reach", lambda urls: None)
        with pytest.raises(DataError, match="timed out"):
            sources.given("cifar100")
    assert list(home.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(home, server, monkeypatch):
    served(server, "stl10", monkeypatch)

    def interrupted(self, *args, **kwargs):
        with open(os.path.join(self.root, "stl10_binary.tar.gz"), "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets.STL10, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sources.given("stl10")
    assert list(home.iterdir()) == []


def test_a_full_disk_is_one_line(home, server, monkeypatch):
    served(server, "stl10", monkeypatch)

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.STL10, "download", full)
    with pytest.raises(DataError, match="'stl10' could not be fetched .*No space left on device"):
        sources.given("stl10")
    assert list(home.iterdir()) == []


def test_fetch_command(home, server, monkeypatch, capsys, unverified):
    served(server, "mnist", monkeypatch)
    assert commands.main(["fetch", "mnist"]) == 0
    assert "mnist: 60 training and 20 test images of 10 classes" in capsys.readouterr().out
    assert commands.main(["fetch", "minst"]) == 1
    assert "did you mean 'mnist'?" in capsys.readouterr().err


def test_cifar100s_superclasses_are_those_of_its_files(home, server, monkeypatch):
    """Against the coarse labels of the pickles, which many repositories quote as this list over the fine classes."""
    coarse = [4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15,
              0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18,
              17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5,
              8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13]
    served(server, "cifar100", monkeypatch)
    found = sources.given("cifar100")["superclasses"].tolist()
    names = sorted(set(found))
    assert len(names) == 20 and [names.index(one) for one in found] == coarse


def test_superclasses_of_cifar10_and_stl10(home, server, monkeypatch, unverified):
    for name, animals in (("cifar10", 6), ("stl10", 6)):
        served(server, name, monkeypatch)
        found = sources.given(name)
        assert found["superclasses"].tolist().count("animals") == animals
        assert {c for c, s in zip(found["classes"], found["superclasses"], strict=True) if s == "vehicles"} <= {
            "airplane", "automobile", "car", "ship", "truck"}
