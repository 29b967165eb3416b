"""Shared pieces: tiny configurations, digits, and an untrained network."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
os.chdir(ROOT)

from lib import compute, config, data, methods, sources, train  # noqa: E402

LONGEST = ("test_pipeline.py",)


def pytest_collection_modifyitems(items):
    """The longest files first: a file is one worker's, and what it begins last the other only waits for."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Bit-reproducible sums."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def signals():
    """A command that a test calls in this process may ask for signals; the next test finds them as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cfg():
    """PGD on digits in smoke, two epochs."""
    found = config.load("smoke", "digits", "pgd", 0)
    return replace(found, train=replace(found.train, epochs=2))


@pytest.fixture(scope="session")
def digits():
    """A few hundred digits, split as in smoke."""
    return data.load(config.load("smoke", "digits", "pgd", 0))


@pytest.fixture(scope="module")
def few(digits):
    """Few of the digits: three steps an epoch."""
    return replace(digits, train=digits.train.first(200), validation=digits.validation.first(30),
                   test=digits.test.first(60))


@pytest.fixture
def model(cfg, digits):
    """A network on its way: one epoch, so that its gradients mean something."""
    cpu, method = torch.device("cpu"), methods.build(cfg)
    network = train.initial(cfg, method, digits, cpu)
    optimizer, scheduler = train.optimizer_and_schedule(cfg, network, 10)
    train.train_epoch(cfg, method, network, digits.train, optimizer, scheduler, compute.generator(0), start=0.5)
    return network


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's text, as working directory, to edit at will."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("lib", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def edit():
    """Replace a piece of text in a file, and insist that it was there."""
    def replace_text(path, before, after):
        text = path.read_text()
        assert before in text, f"{before!r} is not in {path}"
        path.write_text(text.replace(before, after, 1))
    return replace_text


@pytest.fixture(scope="session")
def robust():
    """A network trained with PGD on digits for ten epochs, and the digits: about ten seconds a process."""
    run = config.load("default", "digits", "pgd", 0)
    run = replace(run, train=replace(run.train, epochs=10))
    images = sources.prepare(run)
    trained = train.fit(run, images, torch.device("cpu"), lambda line: None)
    return train.model(run, trained, "last", images, torch.device("cpu")), images, run


@pytest.fixture
def style():
    """The project's look, and no figure left open."""
    import matplotlib.pyplot as plt

    from lib import figures

    figures.use_style()
    yield
    plt.close("all")
