"""Stages side by side: in the order of what they read, never more than allowed, and nothing new after a failure."""

import subprocess
import sys
import threading
import time

import pytest
from tiny import NAMES, make

from lib import parallel
from lib.params import ConfigError
from lib.stages import instances

NEEDS = {"data": set(), "train@0": {"data"}, "train@1": {"data"}, "attack@0": {"train@0"}, "attack@1": {"train@1"},
         "landscape@0": {"train@0"}, "report": {"attack@0", "attack@1", "landscape@0"}}


class Runs:
    """In place of DVC: what was run, in order, and how many ran at once at most. Those named in `bad` fail."""

    def __init__(self, bad=()):
        self.bad, self.log, self.lock, self.now, self.most, self.stopped = bad, [], threading.Lock(), 0, 0, False

    def run(self, name):
        with self.lock:
            if self.stopped:
                return False
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02 + 0.2 * (name == "train@0"))
        with self.lock:
            self.now -= 1
            self.log.append(name)
            self.stopped |= name in self.bad
        return name not in self.bad

    def interrupt(self):
        self.stopped = True


def test_a_stage_waits_for_what_it_reads_and_for_nothing_else():
    runs = Runs()
    parallel.side_by_side(NEEDS, runs, jobs=2)
    order = {name: place for place, name in enumerate(runs.log)}
    assert len(order) == len(runs.log) == len(NEEDS) and runs.most == 2
    assert all(order[needed] < order[name] for name in NEEDS for needed in NEEDS[name])
    assert order["attack@1"] < order["train@0"]  # the slow training holds up its own readers only


def test_nothing_begins_after_a_failure():
    runs = Runs(bad=["train@1"])
    with pytest.raises(SystemExit):
        parallel.side_by_side(NEEDS, runs, jobs=2)
    assert runs.log == ["data", "train@1", "train@0"]  # what was running ends


def test_an_interrupt_stops_what_runs(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(parallel, "wait", interrupted)
    runs = Runs()
    with pytest.raises(KeyboardInterrupt, match="what was running has been stopped"):
        parallel.side_by_side(NEEDS, runs, jobs=2)
    assert runs.stopped


def test_it_knows_who_reads_from_whom(project, edit):
    found = parallel.reads()
    assert list(found) == [i.name for i in instances()]
    assert found["train@default-digits-pgd-0"] == {"data@default-digits"}
    assert found["attack@default-digits-pgd-0"] == {"data@default-digits", "train@default-digits-pgd-0"}
    attacks = {name for name in found if name.startswith("attack@")}
    assert attacks < found["classwise@default-digits"] and attacks < found["report@default"]
    seen = set()
    for name, needed in found.items():  # a stage is listed after what it reads
        assert needed <= seen
        seen.add(name)
    edit(project / "dvc.yaml", "/train/${item.dataset}/${item.method}/${item.seed}/best.pt", "/training/best.pt")
    with pytest.raises(ConfigError, match="stage attack@default-digits-standard-0 in dvc.yaml depends on "
                                          "results/default/training/best.pt, which no stage makes"):
        parallel.reads()


def test_only_some_stages_and_what_they_read_from():
    assert parallel.upstream(NEEDS, ()) == NEEDS
    assert list(parallel.upstream(NEEDS, ["landscape"])) == ["data", "train@0", "landscape@0"]
    assert list(parallel.upstream(NEEDS, ["attack"])) == ["data", "train@0", "train@1", "attack@0", "attack@1"]
    assert parallel.upstream(NEEDS, ["report", "data"]) == NEEDS
    with pytest.raises(ConfigError, match="unknown stage 'landscapes' .did you mean 'landscape'.*; there are: data, "):
        parallel.upstream(NEEDS, ["landscapes"])


def test_each_paper_is_a_stage_of_its_own():
    needs = parallel.reads()
    aside = {"page": "removal", "gap": "trajectory", "tradeoff": "forks", "gating": "transplant"}
    for paper, study in aside.items():
        run = set(map(parallel.stage, parallel.upstream(needs, [paper])))
        assert {study, "train", "attack"} < run and not run & ({*aside.values(), "report", "papers"} - {study})


def test_dvc_runs_no_other_stages(tmp_path):
    project = make(tmp_path)
    words = [sys.executable, "-m", "lib", "repro"]
    done = subprocess.run([*words, "only=train"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    began = (project / "log").read_text().split()
    assert began[0] == NAMES[0] and sorted(began) == sorted(NAMES[:3])  # not parity
    refused = subprocess.run([*words, "2", "only=parity,gap"], cwd=project, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == "error: unknown stage 'gap'; there are: data, train, parity\n"
    assert (project / "log").read_text().split() == began


@pytest.mark.parametrize("devices, jobs, dealt", [
    ("", 2, [None, None]), ("0", 2, [None, None]), ("-1", 1, [None]),
    ("0,1", 2, ["0", "1"]), ("2,5", 3, ["2", "5", "2"]), ("0,1,2,3", 2, ["0,2", "1,3"]),
    ("GPU-a,GPU-b", 1, ["GPU-a,GPU-b"])])
def test_devices_are_dealt_out(devices, jobs, dealt):
    assert parallel.shares(devices, jobs) == dealt
