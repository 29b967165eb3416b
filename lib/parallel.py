"""`dvc repro` with stages side by side: DVC runs one at a time, but most of them do not depend on one another.

Each stage is a `dvc repro -s` of its own, on this machine, so DVC itself decides, prepares and records under its own
lock. With an engine its command does not run here but as a job; see lib/cluster.py.
"""

import json
import os
import subprocess
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from queue import SimpleQueue

from lib.params import ConfigError, known
from lib.processes import DEVICES, JOBS, LAUNCHER, Launcher, interruptible, only_launcher
from lib.stages import instances


class Stages:
    """Runs stages by name, each as a `dvc repro -s`, until one fails or all are interrupted.

    variables: added to their environment. devices: for each stage that runs at a time the devices it sees (None: all).
    """

    def __init__(self, launcher: Launcher, variables: dict[str, str], devices: list[str | None]):
        self.launcher, self.variables = launcher, {**variables, LAUNCHER: launcher.name}
        self.failed, self.interrupted, self.devices = threading.Event(), threading.Event(), SimpleQueue()
        for share in devices:
            self.devices.put(share)

    def run(self, name: str) -> bool:
        """Run a stage, show its output, and say whether it succeeded. After a failure nothing new begins."""
        if self.failed.is_set():
            return False
        share = self.devices.get()
        environment = {**os.environ, **self.variables, **({DEVICES: share} if share else {})}
        # Ctrl-C does not reach a session of its own: the stage ends as `end_with` says, and DVC after it, unharmed.
        # It inherits the launcher's lock: if the launcher is killed, the next one has to wait for DVC's end.
        with subprocess.Popen(["dvc", "--wait-for-lock", "repro", "-q", "-s", name], env=environment, text=True,
                              errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True, pass_fds=[self.launcher.file.fileno()]) as process:
            for line in process.stdout:
                if not self.interrupted.is_set():
                    print(line, end="", flush=True)
        if process.returncode:
            self.failed.set()
        self.devices.put(share)
        return not process.returncode

    def interrupt(self) -> None:
        """End what runs; what DVC is recording at this moment is recorded."""
        self.failed.set()
        self.interrupted.set()
        self.launcher.stop()


def repro(jobs: int, engine: dict[str, str] | None = None, only: Collection[str] = ()) -> None:
    """Reproduce the profile of params.yaml, up to `jobs` stages at a time; each line of output names its stage.

    A stage begins when all that it reads from are done. What is not stale, nor reads from what is, is not looked at.
    After a failure nothing new begins; SystemExit comes when what was running has ended. An interrupt ends what runs.
    engine: environment variables that send stages elsewhere; see `cluster.engine`. only: stages of dvc.yaml, by name;
    nothing runs but these and what they read from. ConfigError if another is at work, and for an unknown stage.
    """
    engine = engine or {}
    interruptible()
    with only_launcher() as launcher:
        _dvc("repro", "-q", "data.dvc", "code")
        needs = upstream(reads(), only)
        stale = set(json.loads(_dvc("status", "--json")))
        for name in needs:  # dvc.yaml lists a stage after those that it reads from
            stale |= {name} if needs[name] & stale else set()
        stages = Stages(launcher, {**engine, JOBS: str(jobs)}, shares(os.environ.get(DEVICES, ""), jobs))
        side_by_side({name: needs[name] & stale for name in needs if name in stale}, stages, jobs)
        last = [name for name in needs if stage(name) in only]
        subprocess.run(["dvc", "repro", *last], check=True, env={**os.environ, **engine})


def side_by_side(needs: dict[str, set[str]], stages: Stages, jobs: int) -> None:
    """Run all stages that `needs` names, up to `jobs` at a time, each after those that it needs."""
    waiting, running, done = dict(needs), {}, set()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                ready = [name for name in waiting if waiting[name] <= done]
                for name in ready:
                    del waiting[name]
                    running[pool.submit(stages.run, name)] = name
                if not running:  # what is left waits for what has failed
                    break
                ended = wait(running, return_when=FIRST_COMPLETED).done
                done |= {running[future] for future in ended if future.result()}
                for future in ended:
                    del running[future]
        except KeyboardInterrupt:
            stages.interrupt()
            raise KeyboardInterrupt("what was running has been stopped") from None
    if len(done) < len(needs):
        raise SystemExit(1)


def reads() -> dict[str, set[str]]:
    """For each stage instance those that it reads from: what they make is, holds or lies in one of its dependencies."""
    every = instances()
    makers, within = {instance.out: instance.name for instance in every}, defaultdict(set)
    for instance in every:
        for place in (instance.out, *instance.out.parents):
            within[place].add(instance.name)
    found = {}
    for instance in every:
        found[instance.name] = set()
        for needed in instance.deps:
            names = within[needed] | {makers[place] for place in needed.parents if place in makers}
            if not names and needed.parts[0] == "results" and needed != instance.code:
                raise ConfigError(f"stage {instance.name} in dvc.yaml depends on {needed}, which no stage makes")
            found[instance.name] |= names
    return found


def upstream(needs: Mapping[str, set[str]], only: Collection[str]) -> dict[str, set[str]]:
    """Of `needs` the instances of these stages and all that they read from; without any stage all of `needs`."""
    for name in only:
        known("stage", name, list(dict.fromkeys(map(stage, needs))))
    found = {name for name in needs if stage(name) in only or not only}
    for name in reversed(needs):  # what an instance reads from is listed before it
        found |= needs[name] if name in found else set()
    return {name: needs[name] for name in needs if name in found}


def stage(name: str) -> str:
    """The stage of an instance: 'train@default-digits-pgd-0' -> 'train'."""
    return name.partition("@")[0]


def shares(devices: str, jobs: int) -> list[str | None]:
    """A list of devices such as '0,1,2,3' dealt out among so many jobs; with fewer than two nothing is dealt out.

    With more jobs than devices some share one; with fewer a job has several, for a training of several processes.
    """
    names = [name for name in devices.split(",") if name.strip()]
    if len(names) < 2:
        return [None] * jobs
    return [",".join(names[job::jobs]) or names[job % len(names)] for job in range(jobs)]


def _dvc(*words: str) -> str:
    """What a DVC command prints; CalledProcessError if it fails."""
    return subprocess.run(["dvc", *words], check=True, stdout=subprocess.PIPE, text=True).stdout
