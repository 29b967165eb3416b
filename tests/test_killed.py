"""`dvc repro`, killed with all that it started, goes on where it was."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from lib import config, data, train

CPU = torch.device("cpu")
STAGE = "train@smoke-digits-pgd-0"


@pytest.fixture
def project_of_dvc(tmp_path, edit, monkeypatch):
    """A copy of the project that DVC can run, in profile smoke, with more epochs."""
    for name in ("lib", "notebooks", ".dvc"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache"))
    for name in ("dvc.yaml", "params.yaml", "data.dvc", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    edit(tmp_path / "params.yaml", "train: {epochs: 4}", "train: {epochs: 20}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "lib", "profile", "smoke"], check=True, stdout=subprocess.DEVNULL)
    return tmp_path


def repro(kill_at=None):
    """The output of `dvc repro`, up to where it is killed."""
    process = subprocess.Popen(["dvc", "repro", STAGE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if kill_at and kill_at in line:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == (-signal.SIGKILL if kill_at else 0), "".join(lines)
    return "".join(lines)


def test_a_killed_stage_goes_on_to_the_same_bits(project_of_dvc):
    results, kept = Path("results/smoke/train/digits/pgd/0"), Path("results/smoke/unfinished/train/digits/pgd/0")
    repro(kill_at="  epoch 8/20")
    assert not (results / "last.pt").exists() and len(list(kept.glob("*.pt"))) == 1
    again = repro()
    assert re.findall("Running stage '(.*)'", again) == [STAGE]
    assert f"going on from {kept.resolve()}" in again
    assert not kept.exists() and "going on" not in (results / "02_train.ipynb").read_text()
    run = config.load("smoke", "digits", "pgd", 0)
    whole = train.fit(run, data.load(run, CPU), CPU, lambda line: None)
    found = train.Trained.load(results)
    assert all(torch.equal(value, found.states[name][key]) for name, state in whole.states.items()
               for key, value in state.items())
    assert all((found.trace[key] == value).all() for key, value in whole.trace.items())
    assert found.history.epoch.tolist() == list(range(1, 21))
