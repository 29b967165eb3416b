"""Methods on one data set, trained and evaluated without DVC and Jupyter: `python -m lib paper`.

It does what stages `data`, `train` and `attack` do, by the same functions and into the same folders, and keeps of each
run a record for git. So it needs no more than torch, numpy, pandas, scipy, statsmodels, PyYAML and Pillow, and may be
stopped and called again: what is done is not done again, and what was begun goes on.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch

from lib import compute, config, methods
from lib.config import Config
from lib.data import Dataset
from lib.evaluate import CLEAN, WORST
from lib.paper import records
from lib.paper.clock import Clock, OutOfTime
from lib.paper.options import Options, configured, parse
from lib.paper.scores import WITHOUT_WEIGHTS, evaluated, every_attack, left
from lib.paper.training import prepared, trained, unfinished
from lib.params import ConfigError, root

NOTEBOOK = "notebooks/paper.ipynb"
MANY = 5000  # training images that are too many for a CPU, unless it is asked for


def run(*pairs: str) -> None:
    """Train and evaluate what `pairs` ask for, as far as it is not done; see `lib.paper.options.Options`.

    Raises ConfigError for options that name nothing, DataError for images that are not there.
    """
    options = parse(pairs)
    clock = Clock(options.seconds)
    every = [configured(options, method, seed) for seed in options.seeds for method in options.methods]
    for one in every:
        methods.build(one)  # both refuse what does not go together, before hours are spent
        every_attack(one, torch.device("cpu"))
    todo, stopped = every, ""
    if not options.force:
        todo = [one for one in every if left(one, records.find(one), options) and not _lost(one, clock)]
    try:
        if todo:
            device = compute.device(todo[0].compute)
            images = prepared(todo[0], device)
            _refuse_days(todo[0], images, device, options)
            for one in todo if options.force else ():
                forget(one)
            for one in sorted(todo, key=lambda one: records.find(one) is None):  # evaluation before new training
                _one(one, options, images, device, clock)
    except OutOfTime:
        clock.say(stopped := f"stopped before the limit of {options.seconds:g} s")
    except KeyboardInterrupt:
        clock.say(stopped := "interrupted")
    _report(every, options)
    if stopped == "interrupted":
        raise SystemExit(130)
    if not stopped:
        _draw(options)


def _one(one: Config, options: Options, images: Dataset, device: torch.device, clock: Clock) -> None:
    """Train a run, unless that was done, and evaluate it."""
    def log(line: str) -> None:
        """A line of this run."""
        clock.say(f"{one.method}, seed {one.seed}: {line}")

    if records.find(one) is None and records.place(one).exists():
        log("was recorded with other numbers: it is trained anew")
    try:
        record = records.find(one) or trained(one, options, images, device, clock, log)
        evaluated(one, record, options, images, device, clock, log)
    except FloatingPointError as error:
        log(f"given up: {error}")
    if device.type == "cuda":
        torch.compiler.reset()  # frees the compiled network; torch stops at so many of one class, too
        torch.cuda.empty_cache()


def _lost(one: Config, clock: Clock) -> bool:
    """Whether a run was trained, but its weights are not here, so that the rest of its evaluation is left out."""
    lost = records.find(one) is not None and not (one.folder("train") / "last.pt").exists()
    if lost:
        clock.say(f"{one.method}, seed {one.seed}: {WITHOUT_WEIGHTS}")
    return lost


def forget(one: Config) -> None:
    """Delete all that is kept of a run, the beginning of a training too."""
    for path in (records.place(one), records.place(one).with_suffix(".npz")):
        path.unlink(missing_ok=True)
    for folder in (one.folder("train"), one.folder("attack"), unfinished(one)):
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_days(one: Config, images: Dataset, device: torch.device, options: Options) -> None:
    asked = options.numbers.get("compute", {}).get("device")
    if device.type == "cpu" and len(images.train) > MANY and asked != "cpu":
        raise ConfigError(f"torch sees no GPU here, and {one.train.epochs} epochs of {len(images.train)} images take a "
                          "CPU days: compute.device=cpu does it all the same, profile=smoke rehearses it on a few")


def _report(every: list[Config], options: Options) -> None:
    """A line for each run, and what is left."""
    waiting = []
    for one in every:
        record = records.find(one)
        missing = left(one, record, options)
        if missing:
            waiting.append(f"{one.method}, seed {one.seed} ({'training' if record is None else 'evaluation'})")
        if record is None:
            continue
        wanted = (CLEAN, one.evaluate.headline, WORST)
        rates = [f"{r['attack']} {r['accuracy']:.1%} of {r['n']}" for r in record.facts["accuracy"]
                 if (r["checkpoint"], r["split"]) == ("last", "test") and r["attack"] in wanted]
        other = record.facts["code"] != records.code(one.method)
        print(f"{one.method}, seed {one.seed}, last: {', '.join(rates)}"
              + "; made with other code: force=true makes it anew" * other)
    if waiting:
        print(f"left: {'; '.join(waiting)}. The same command, without force=true, goes on")
    print(f"records: {records.place(every[0]).parents[1].relative_to(root())}/")


def _executed(options: Options) -> Path:
    return root() / "results" / options.profile / Path(NOTEBOOK).name


def _draw(options: Options) -> None:
    """Execute the notebook that shows all records of the profile, where Jupyter is installed."""
    if not (find_spec("papermill") and find_spec("nbformat")):
        print(f"{NOTEBOOK} was not run: papermill is not installed here")
        return
    from lib import notebook

    before = os.environ.get(config.OUT)
    os.environ[config.OUT] = str(_executed(options).parent)
    try:
        notebook.execute(NOTEBOOK, _executed(options).parent, profile=options.profile)
    finally:
        os.environ.pop(config.OUT) if before is None else os.environ.update({config.OUT: before})
    print(f"tables and figures: {_executed(options).relative_to(root())}, {_executed(options).parent.name}/figures/")
