"""`dvc repro` with stages side by side: DVC runs one at a time, but most runs do not depend on one another."""

import os
import subprocess
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import yaml

from lib.notebook import JOBS
from lib.params import ConfigError, root


def repro(jobs: int) -> None:
    """Reproduce the profile of params.yaml, up to `jobs` stages at a time; each line of output names its stage.

    A stage begins when all stages that it reads from are done. What DVC does not find stale is not run. After a failure
    nothing new begins; SystemExit comes when what was running has ended.
    """
    subprocess.run(["dvc", "repro", "-q", "data.dvc", "code"], check=True)
    listed = subprocess.run(["dvc", "stage", "list", "--name-only"], check=True, capture_output=True, text=True).stdout
    left, needs = {}, reads()
    for name in listed.split():
        left.setdefault(name.split("@")[0], []).append(name)
    done, running, open_runs = {"code"}, {}, {stage: len(names) for stage, names in left.items()}
    del left["code"]
    with ThreadPoolExecutor(jobs) as pool:
        while left or running:
            for stage in [s for s in left if needs[s] <= done]:
                running |= {pool.submit(_one, name, jobs): stage for name in left.pop(stage)}
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                stage = running.pop(future)
                open_runs[stage] -= 1
                if future.result():
                    pool.shutdown(cancel_futures=True)
                    raise SystemExit(1)
                if not open_runs[stage]:
                    done.add(stage)
    subprocess.run(["dvc", "repro"], check=True)


def reads() -> dict[str, set[str]]:
    """For each stage of dvc.yaml the stages that it reads from: those whose results folder its dependencies name."""
    stages = yaml.safe_load((root() / "dvc.yaml").read_text())["stages"]
    found = {stage: {dep.split("/")[2] for dep in entry["deps"] if dep.startswith("results/")}
             for stage, entry in stages.items()}
    for stage, needed in found.items():
        for name in needed - set(stages):
            raise ConfigError(f"stage {stage} in dvc.yaml depends on results of '{name}', which is no stage")
    return found


def _one(name: str, jobs: int) -> int:
    """Reproduce one stage; its exit status."""
    return subprocess.run(["dvc", "repro", "-q", "-s", name], env={**os.environ, JOBS: str(jobs)}).returncode
