"""Stages side by side: in the order of what they read, never more than allowed, and nothing new after a failure."""

import threading
import time

import pytest
import yaml

from lib import parallel
from lib.stages import instances

NEEDS = {"data": {"code"}, "train": {"code", "data"}, "attack": {"train"}, "landscape": {"train"}, "report": {"attack"}}


@pytest.fixture
def runs(monkeypatch):
    """What was run, in order, and how many ran at once at most."""
    log, lock, now, most = [], threading.Lock(), [0], [0]

    def one(name, jobs):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
            log.append(name)
        return int(name == "train@bad")

    monkeypatch.setattr(parallel, "_one", one)
    return log, most


def test_a_stage_waits_for_what_it_reads(runs):
    log, most = runs
    left = {"report": ["report"], "attack": ["attack@0", "attack@1"], "landscape": ["landscape"],
            "train": ["train@0", "train@1", "train@2"]}
    parallel._side_by_side(left, NEEDS, jobs=2)
    assert sorted(log) == ["attack@0", "attack@1", "landscape", "report", "train@0", "train@1", "train@2"]
    assert set(log[:3]) == {"train@0", "train@1", "train@2"} and log[-1] == "report" or log[-2] == "report"
    assert log.index("report") > max(log.index("attack@0"), log.index("attack@1")) and most[0] == 2


def test_nothing_begins_after_a_failure(runs):
    log, _ = runs
    with pytest.raises(SystemExit):
        parallel._side_by_side({"train": ["train@bad", "train@1"], "attack": ["attack@0"]}, NEEDS, jobs=1)
    assert log == ["train@bad"]


def test_it_knows_who_reads_from_whom(project):
    found = parallel.reads()
    assert found["train"] == {"code", "data"} and {"train", "attack", "page", "papers"} <= found["report"]
    order = list(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    assert all(order.index(needed) < order.index(stage) for stage in found for needed in found[stage])
    assert {i.name.split("@")[0] for i in instances()} == set(order) - {"code"}
