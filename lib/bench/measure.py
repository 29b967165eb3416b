"""The protocol: warm-up, then rounds of training steps, each timed, in which the arms take turns; and tables of it.

Turns, so that what else the machine does disturbs all arms alike; comparisons of arms are made within rounds. Steps are
timed where they end, by the schedule's step, so nothing waits for the device that does not wait in training: by CUDA
events on a GPU, by the clock on a CPU. Training is in its last epoch, where warm-ups are over.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from lib import cost, methods, train
from lib.bench import arms, floor, sets
from lib.bench.arms import Arm
from lib.config import Config
from lib.cost import Passes
from lib.data import Dataset

Estimate = dict[str, float]  # median, low and high (quartiles), n


@dataclass(frozen=True)
class Trial:
    """What is timed: an arm, with these numbers, on these images. label: what tells it from trials of the same arm."""

    arm: Arm
    config: Config
    dataset: Dataset
    label: tuple = ()


@dataclass
class Timing:
    """What came of a trial.

    seconds: of each step (rounds, steps). startup: seconds of building and of the warm-up steps, beyond what as many
    later steps take: that of compilation, mostly. memory: bytes at the peak of a step, with weights and optimiser, or
    None on a CPU; what CUDA graphs keep is not in it. flops: of a forward pass of one batch. settings: see
    `arms.resolved`.
    """

    trial: Trial
    passes: Passes
    flops: int
    settings: dict = field(default_factory=dict)
    seconds: np.ndarray = None
    startup: float = 0.0
    memory: int | None = None

    @property
    def arm(self) -> Arm:
        """The arm that was timed."""
        return self.trial.arm

    @property
    def by_round(self) -> np.ndarray:
        """The median step of each round, (rounds,)."""
        return np.median(self.seconds, axis=1)


class Clock:
    """Marks the end of each training step, in the place of the schedule, whose step is the last thing that one does."""

    def __init__(self, device: torch.device, scheduler):
        self.cuda, self.scheduler, self.marks = device.type == "cuda", scheduler, []
        self.mark()

    def __getattr__(self, name):
        return getattr(self.scheduler, name)

    def mark(self) -> None:
        """Note the time, on a GPU that of its stream."""
        if self.cuda:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def step(self) -> None:
        """A step of the schedule, and so the end of one of training."""
        self.scheduler.step()
        self.mark()

    def seconds(self) -> list[float]:
        """Seconds between marks."""
        if not self.cuda:
            return np.diff(self.marks).tolist()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:], strict=False)]


def late(config: Config) -> float:
    """The share of training that is done when its last epoch begins."""
    return 1 - 1 / max(2, config.train.epochs)


def work(trial: Trial, device: torch.device) -> tuple[Passes, int]:
    """The passes of a step, counted, and the operations of a forward pass of one batch, both by plain arithmetic."""
    plain = arms.configured(trial.config, replace(trial.arm, **arms.PLAIN))
    one = sets.repeated(trial.dataset.train, plain.train.batch_size)
    if trial.arm.name in arms.REFERENCES:
        runner = arms.build(plain, trial.arm, trial.dataset, device)
        with ExitStack() as stack:
            counts = [stack.enter_context(cost.counted(network, len(one))) for network in runner.networks]
            runner.epoch(one, late(plain), runner.scheduler)
        passes = Passes(**{key: sum(count[key] for count in counts) for key in counts[0]})
    else:
        passes = cost.passes(plain, replace(trial.dataset, train=one), device)
    network = train.initial(plain, methods.build(plain), trial.dataset, device)
    return passes, cost.flops(network, trial.dataset.shape) * len(one)


def timed(trials: Sequence[Trial], device: torch.device, *, warmup: int, steps: int, rounds: int, workers: int = 0,
          log: Callable[[str], None] = print) -> list[Timing]:
    """Times every trial: `warmup` steps, then `rounds` of `steps` each, in which the trials take turns.

    workers: processes of the reference's loader.
    """
    runners, found = [], []
    for i, trial in enumerate(trials, 1):
        timing = Timing(trial, *work(trial, device))
        began = time.perf_counter()
        runner = arms.build(trial.config, trial.arm, trial.dataset, device, workers=workers)
        batch = trial.config.train.batch_size
        runner.epoch(sets.repeated(trial.dataset.train, batch), 0.0, runner.scheduler)  # what add-ons gather early
        runner.epoch(sets.repeated(trial.dataset.train, warmup * batch), late(trial.config), runner.scheduler)
        timing.startup = time.perf_counter() - began
        timing.settings = arms.resolved(trial.config, trial.arm, runner.network, device)
        runners.append((runner, sets.repeated(trial.dataset.train, steps * batch)))
        found.append(timing)
        log(f"arm {i}/{len(trials)}  {' '.join(map(str, (trial.arm.method, trial.arm.name, *trial.label)))}: "
            f"{timing.passes.equivalents} forward-equivalents a step")
    laps = [[] for _ in trials]
    for turn in range(1, rounds + 1):
        for (runner, images), timing, seconds in zip(runners, found, laps, strict=True):
            seconds.append(_round(runner, images, timing, device))
        log(f"round {turn}/{rounds}")
    for timing, seconds in zip(found, laps, strict=True):
        timing.seconds = np.array(seconds)
        timing.startup = max(0.0, timing.startup - (warmup + 1) * float(np.median(timing.seconds)))
    return found


def _round(runner, images, timing: Timing, device: torch.device) -> list[float]:
    """Seconds of the steps of one round; on a GPU the peak of memory goes into `timing`."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    clock = Clock(device, runner.scheduler)
    runner.epoch(images, late(runner.config), clock)
    seconds = clock.seconds()
    if device.type == "cuda":
        kept = [*(t for network in runner.networks for t in network.state_dict().values()),
                *(t for state in runner.optimizer.state.values() for t in state.values() if torch.is_tensor(t))]
        timing.memory = torch.cuda.max_memory_allocated() - before + sum(t.nbytes for t in kept)
    return seconds


def estimate(values: Iterable[float]) -> Estimate:
    """Median and quartiles of values."""
    values = np.asarray(list(values), float)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high), "n": values.size}


def rates(timings: Sequence[Timing], device: torch.device, sizes: Sequence[int] = ()) -> dict[str, dict[str, float]]:
    """The rate of the fastest matrix product (`floor.rate`) in each precision of the timings, by its name."""
    names = dict.fromkeys(timing.settings["precision"] for timing in timings)
    return {name: floor.rate(name, device, sizes) for name in names}


def rows(timings: Sequence[Timing], rates: dict[str, dict[str, float]], epoch: int) -> list[dict]:
    """A row for each timing, with its speed-up over the reference of the same method, by rounds.

    epoch: training images of an epoch, of which the last batch is dropped if it is not full.
    """
    references = {t.arm.method: t for t in timings if t.arm.name == arms.REFERENCE}
    found = []
    for timing in timings:
        numbers, measured = timing.trial.config.train, estimate(timing.seconds.ravel())
        least = floor.seconds(timing.passes.equivalents, timing.flops, rates[timing.settings["precision"]]["rate"])
        reference = references.get(timing.arm.method)
        found.append({
            "method": timing.arm.method, "arm": timing.arm.name, **timing.settings, "batch": numbers.batch_size,
            "attack_steps": numbers.steps, "forward": timing.passes.forward, "backward_image": timing.passes.image,
            "backward_weights": timing.passes.weights, "equivalents": timing.passes.equivalents,
            "flops_forward": timing.flops, "seconds": measured, "floor": least,
            "utilisation": floor.utilisation(least, measured["median"]),
            "images_a_second": numbers.batch_size / measured["median"],
            "seconds_an_epoch": epoch // numbers.batch_size * measured["median"],
            "speedup": estimate(reference.by_round / timing.by_round) if reference else None,
            "startup": timing.startup, "memory": timing.memory})
    return found
