"""`dvc repro` with stages side by side: DVC runs one at a time, but most runs do not depend on one another."""

import json
import os
import subprocess
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import yaml

from lib.notebook import JOBS
from lib.params import ConfigError, root


def repro(jobs: int) -> None:
    """Reproduce the profile of params.yaml, up to `jobs` runs at a time; each line of output names its run.

    A stage begins when all stages that it reads from are done. What is not stale, nor reads from what is, is not looked
    at. After a failure nothing new begins; SystemExit comes when what was running has ended.
    """
    _dvc("repro", "-q", "data.dvc", "code")
    needs = reads()
    stale = {name.split("@")[0] for name in json.loads(_dvc("status", "--json"))} & set(needs)
    for stage in needs:  # dvc.yaml lists a stage after those that it reads from
        stale |= {stage} if needs[stage] & stale else set()
    left = {stage: [] for stage in needs if stage in stale}
    for name in _dvc("stage", "list", "--name-only").split():
        left.get(name.split("@")[0], []).append(name)
    _side_by_side(left, needs, jobs)
    subprocess.run(["dvc", "repro"], check=True)


def _side_by_side(left: dict[str, list[str]], needs: dict[str, set[str]], jobs: int) -> None:
    """Run all names in `left`, by stage, each stage after those in `left` that it needs."""
    running, unfinished, failed = {}, {stage: len(names) for stage, names in left.items()}, threading.Event()

    def one(name: str) -> None:
        """Run one, unless another has failed."""
        if not failed.is_set() and _one(name, jobs):
            failed.set()

    with ThreadPoolExecutor(jobs) as pool:
        while left or running:
            for stage in [s for s in left if not needs[s] & set(unfinished)]:
                running |= {pool.submit(one, name): stage for name in left.pop(stage)}
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                unfinished[stage] -= 1
                if not unfinished[stage]:
                    del unfinished[stage]
    if failed.is_set():
        raise SystemExit(1)


def reads() -> dict[str, set[str]]:
    """For each stage of dvc.yaml the stages that it reads from: those whose results folder its dependencies name."""
    stages = yaml.safe_load((root() / "dvc.yaml").read_text())["stages"]
    found = {stage: {dep.split("/")[2] for dep in entry["deps"] if dep.startswith("results/")}
             for stage, entry in stages.items()}
    for stage, needed in found.items():
        for name in needed - set(stages):
            raise ConfigError(f"stage {stage} in dvc.yaml depends on results of '{name}', which is no stage")
    return found


def _dvc(*words: str) -> str:
    """What a DVC command prints; CalledProcessError if it fails."""
    return subprocess.run(["dvc", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def _one(name: str, jobs: int) -> int:
    """Reproduce one run; its exit status."""
    return subprocess.run(["dvc", "repro", "-q", "-s", name], env={**os.environ, JOBS: str(jobs)}).returncode
