"""Training by several processes, as a notebook starts it: one answer, one line where it fails, and none left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from lib import config, data, distributed, train
from lib.params import ConfigError

CPU = torch.device("cpu")


def quiet(line):
    """No log."""


@pytest.fixture
def place(project, edit, monkeypatch):
    """A project whose trainings have two processes, in a stage; where it keeps what is unfinished."""
    shutil.copytree(ROOT / ".dvc/embedded", project / "data")
    edit(project / "params.yaml", "processes: 1", "processes: 2")
    edit(project / "params.yaml", "train: {epochs: 4}", "train: {epochs: 6, steps: 2, schedule: piecewise, lr: 0.02}")
    monkeypatch.setenv(config.OUT, str(project / "results/smoke/train/digits/pgd/0"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return project / "results/smoke/unfinished/train/digits/pgd/0"


def processes(parent):
    """Those that would end with this parent."""
    mark, found = f"{distributed.WATCHED}={parent}\0".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it is gone, or not ours
            continue
    return found


def gone(parent, seconds=20):
    """Whether all of them are gone before long."""
    until = time.monotonic() + seconds
    while processes(parent) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes(parent)


NOTEBOOK = """
import sys
from lib import compute, config, data, distributed
run = config.load("smoke", "digits", "pgd", 0)
device = compute.device(run.compute)
distributed.fit(run, data.load(run, device), device, lambda line: print(line, flush=True))
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_interrupted_killed_and_taken_up_again(place):
    """By Ctrl-C, then by the death of the notebook; in the end it is what one process finds."""
    run = config.load("smoke", "digits", "pgd", 0)
    images = data.load(run)
    lines = []

    def interrupted(line):
        """Ctrl-C comes in the second epoch."""
        lines.append(line)
        if line.startswith("epoch 2/6"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distributed.fit(run, images, CPU, interrupted)
    assert gone(os.getpid()) and len(lines) == 2

    environment = {**os.environ, "PYTHONPATH": str(place.parents[6]), "OMP_NUM_THREADS": "1"}
    notebook = subprocess.Popen([sys.executable, "-c", NOTEBOOK], stdout=subprocess.PIPE, text=True, env=environment)
    for line in notebook.stdout:
        lines.append(line)
        if line.startswith("epoch 4/6"):
            assert len(processes(notebook.pid)) == 3  # torchrun and two that train
            notebook.send_signal(signal.SIGKILL)
            break
    notebook.wait()
    assert gone(notebook.pid)

    lines.clear()
    found = distributed.fit(run, images, CPU, lines.append, keep={})
    assert "going on from" in lines[0] and [line.split()[1] for line in lines[1:]] == [f"{n}/6" for n in range(1, 7)]
    assert gone(os.getpid())
    os.environ.pop(config.OUT)
    alone = train.fit(run, images, CPU, quiet)
    assert found.history.loss.tolist() == pytest.approx(alone.history.loss.tolist(), rel=1e-3)
    for name, state in alone.states.items():
        assert max((value - found.states[name][key]).abs().max() for key, value in state.items()) < 0.01
    assert (found.trace["clean"] == alone.trace["clean"]).mean() > 0.97


def test_numbers_that_the_processes_would_not_see(cfg, few):
    """They read params.yaml themselves."""
    run = replace(cfg, compute=replace(cfg.compute, processes=2))
    with pytest.raises(ConfigError, match="several processes train with the numbers of params.yaml alone"):
        distributed.fit(run, few, CPU, quiet)


@pytest.mark.parametrize(("processes", "message"), [
    (3, "compute.processes is 3, but torch sees 2 GPUs here"),
    (0, "compute.processes is 0, but it takes at least one")])
def test_more_processes_than_gpus(cfg, few, monkeypatch, processes, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    run = replace(cfg, compute=replace(cfg.compute, processes=processes))
    with pytest.raises(ConfigError) as error:
        distributed.fit(run, few, torch.device("cuda"), quiet)
    assert str(error.value) == message


def test_alone_it_is_the_loop(cfg, few, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *arguments, **more: (arguments, more))
    assert distributed.fit(cfg, few, CPU, quiet, {"trunk": 1}) == ((cfg, few, CPU, quiet), {"keep": {"trunk": 1}})


@pytest.mark.parametrize(("script", "message"), [
    ("print('error: 2 processes cannot share it', file=sys.stderr); print('error: gone', file=sys.stderr); sys.exit(1)",
     "2 processes cannot share it"),
    ("print('  exitcode  : -15 \\n exitcode : -9  (SIGKILL)\\n===', file=sys.stderr); sys.exit(3)",
     "a training process ended with exitcode : -9 (SIGKILL)"),
    ("print('torchrun: not found', file=sys.stderr); sys.exit(3)", "a training process ended with torchrun: not found"),
    ("sys.exit(1)", "a training process ended with no message")])
def test_an_error_of_any_is_one_line(script, message):
    lines = []
    with pytest.raises(ConfigError) as error:
        distributed._run([sys.executable, "-c", f"import sys; print('epoch 1/2', flush=True); {script}"], lines.append)
    assert str(error.value) == message and lines == ["epoch 1/2"]


class TestProcess:
    """What each of the processes does."""

    @pytest.fixture
    def world(self, monkeypatch):
        """One process of one."""
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv(distributed.WATCHED, raising=False)
        yield
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def test_it_saves_what_it_finds(self, world, few, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(data, "load", lambda run, device: few)
        assert distributed.main("smoke", "digits", "standard", "3", str(tmp_path), '{"trunk": 2}') == 0
        found = train.Trained.load(tmp_path)
        assert set(found.states) == {"best", "last", "trunk"} and len(found.history) == 4
        said = capsys.readouterr()
        assert [line.split()[1] for line in said.out.splitlines()] == ["1/4", "2/4", "3/4", "4/4"] and not said.err
        run = config.load("smoke", "digits", "standard", 3)
        expected = train.fit(run, few, CPU, quiet).states["last"]
        assert all(torch.equal(value, expected[key]) for key, value in found.states["last"].items())

    @pytest.mark.parametrize(("error", "line"), [
        (ConfigError("lower train.batch_size"), "error: lower train.batch_size"),
        (FloatingPointError("loss nan in epoch 3: lower train.lr"), "error: loss nan in epoch 3: lower train.lr"),
        (RuntimeError("sizes differ\nat 3"), "error: RuntimeError: sizes differ"),
        (KeyError(), "error: KeyError: no message")])
    def test_whatever_goes_wrong_is_one_line(self, world, few, monkeypatch, tmp_path, capsys, error, line):
        def fail(*arguments, **more):
            """Goes wrong."""
            raise error

        monkeypatch.setattr(data, "load", lambda run, device: few)
        monkeypatch.setattr(train, "fit", fail)
        assert distributed.main("smoke", "digits", "pgd", "0", str(tmp_path)) == 1
        assert capsys.readouterr().err == line + "\n" and not list(tmp_path.iterdir())
