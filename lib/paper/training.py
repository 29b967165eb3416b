"""The images and the training of a run, as stages `data` and `train` do them; the beginning of its record."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lib import compute, config, data, distributed, methods, sources, train
from lib.bench import machine
from lib.config import Config
from lib.data import Dataset
from lib.paper import records
from lib.paper.clock import Clock
from lib.paper.options import Options
from lib.paper.records import Record
from lib.params import root


def prepared(one: Config, device: torch.device) -> Dataset:
    """The images of a run. What stage `data` writes is written first, unless it was, with the same numbers."""
    folder = config.folder("data", profile=one.profile, dataset=one.dataset)
    mark, wanted = folder / "numbers.json", json.dumps(records.numbers(one)["data"])
    if not (mark.exists() and mark.read_text() == wanted and (folder / "images.npz").exists()):
        arrays = sources.arrays(one)
        folder.mkdir(parents=True, exist_ok=True)
        sources.write(folder / "images.npz", arrays)
        mark.write_text(wanted)
    return data.load(one, device)


def trained(one: Config, options: Options, images: Dataset, device: torch.device, clock: Clock,
            log: Callable[[str], None]) -> Record:
    """Train a run, from its beginning or from where it was interrupted; its record, without an evaluation."""
    times, notes = [time.monotonic()], []

    def heard(line: str) -> None:
        """A line of the training, after which it may have to stop."""
        log(line)
        notes.extend([line] * line.startswith("not compiled"))
        if line.startswith("epoch "):
            times.append(time.monotonic())
            if len(times) <= one.train.epochs:
                clock.step()

    start = one.knobs["ducat"]["start"] if "ducat" in one.method.split("+") else 0
    trunk = int(start * one.train.epochs + 1e-6)  # kept as 02_train keeps it
    clock.start()
    with as_stage(one):
        alone = config.load(one.profile, one.dataset, one.method, one.seed)
        found = distributed.fit(alone, images, device, heard, keep={"trunk": trunk} if trunk else {})
    for stage in ("train", "attack"):
        shutil.rmtree(one.folder(stage), ignore_errors=True)
    one.folder("train").mkdir(parents=True)
    found.save(one.folder("train"))
    facts = {**identity(one, images, device, options), "training": history(one, images, found, times, notes),
             "alarms": None}
    record = Record(facts, records.empty(), found.trace)
    record.save(records.place(one))
    shutil.rmtree(unfinished(one), ignore_errors=True)
    return record


def identity(one: Config, images: Dataset, device: torch.device, options: Options) -> dict:
    """What was run, with what numbers and code, and on what machine."""
    weight = compute.place(torch.nn.Conv2d(4, 4, 3), one.compute, device).weight
    last = weight.is_contiguous(memory_format=torch.channels_last)
    made = machine.describe(device, one.compute) | ({"commit": options.commit} if options.commit else {})
    made |= {"precision": str(compute.precision(one.compute, device)).removeprefix("torch."),
             "memory_format": "channels_last" if last else "contiguous", "processes": one.compute.processes}
    return {"name": one.dataset, "dataset": one.data.source, "profile": one.profile, "method": one.method,
            "seed": one.seed, "classes": list(images.classes), "code": records.code(one.method), "made_on": made,
            "numbers": records.numbers(one)}


def history(one: Config, images: Dataset, found: train.Trained, times: list[float], notes: list[str]) -> dict:
    """A training as its record tells it.

    seconds_an_epoch: median and quartiles of the time from line to line, validation included; the first epoch, which
    compiles, is left out, and so are epochs that an interrupted training only tells again.
    """
    took = np.diff(times)[1:] if len(times) > 2 else np.diff(times)
    took = took[took > 1e-3]
    pace = dict(zip(("low", "median", "high"), np.quantile(took, [0.25, 0.5, 0.75]).round(4).tolist(),
                    strict=True)) if len(took) else None
    measure = "robust" if methods.build(one).attack else "clean"
    columns = {name: [float(f"{value:.6g}") for value in values] for name, values in found.history.items()}
    return {"images": len(images.train), "validation_images": len(images.validation),
            "best_epoch": int(found.history.epoch[found.history[measure].idxmax()]), "seconds_an_epoch": pace,
            "epochs_timed": len(took), "notes": notes, "weights": records.weights(found), "history": columns}


def unfinished(one: Config) -> Path:
    """Where a run keeps what it goes on from, until it is done: as `config.unfinished` has it for a stage."""
    results = root() / "results" / one.profile
    return results / "unfinished" / one.folder("train").relative_to(results)


@contextmanager
def as_stage(one: Config) -> Iterator[None]:
    """As in stage `train`: numbers come from a file, for other processes too, and what is interrupted can go on."""
    place, before = unfinished(one), {name: os.environ.get(name) for name in (config.STAGE, config.OUT)}
    place.mkdir(parents=True, exist_ok=True)
    sections = {name: records.numbers(one)[name] for name in records.TRAINING} | {"compute": vars(one.compute)}
    content = {"code": records.code(one.method), "config": {one.dataset: sections}}
    (place / "numbers.json").write_text(json.dumps(content))
    os.environ |= {config.STAGE: str(place / "numbers.json"), config.OUT: str(one.folder("train"))}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
