"""What timings say beside one another: overheads of methods over PGD, and growth with sizes."""

from collections.abc import Sequence
from dataclasses import replace

from lib.bench import arms, floor, sets
from lib.bench.arms import Arm
from lib.bench.measure import Timing, Trial, estimate
from lib.config import Config
from lib.data import Dataset

BASE = "pgd"


def overheads(timings: Sequence[Timing]) -> list[dict]:
    """A row for each method and arm of ours, where PGD was timed with the same settings: seconds over those of PGD.

    `passes`: the share that the passes of a step predict; `operations`: that of passes times the operations of one,
    which differ where networks do; `measured`: by rounds. `points`: measured less predicted by passes, in percentage
    points.
    """
    base = {tuple(t.settings.values()): t for t in reversed(timings) if _ours(t) and t.arm.method == BASE}
    found = []
    for timing in timings:
        other = base.get(tuple(timing.settings.values()))
        if not _ours(timing) or timing.arm.method == BASE or other is None:
            continue
        passes = timing.passes.equivalents / other.passes.equivalents - 1
        measured = estimate(timing.by_round / other.by_round - 1)
        found.append({"method": timing.arm.method, "arm": timing.arm.name, **timing.settings, "passes": passes,
                      "operations": (1 + passes) * timing.flops / other.flops - 1, "measured": measured,
                      "points": 100 * (measured["median"] - passes)})
    return found


def _ours(timing: Timing) -> bool:
    return timing.arm.name not in arms.REFERENCES


def growth_trials(config: Config, dataset: Dataset, *, batch: Sequence[int] = (), size: Sequence[int] = (),
                  classes: Sequence[int] = (), attack_steps: Sequence[int] = ()) -> list[Trial]:
    """PGD by our loop, not compiled, in the arithmetic that `auto` chooses, with one number changed in each trial.

    batch: images a step. size: pixels of a side, of random images. classes: of random images. attack_steps: of the
    training attack. Compilation would take longer than all the rest, so it is left out.
    """
    arm = Arm(BASE, compile=False)
    channels, side, _ = dataset.shape
    several = len(dataset.classes)

    def trial(knob: str, value: int, images: Dataset, **numbers) -> Trial:
        """The trial in which this knob has this value."""
        return Trial(arm, replace(config, train=replace(config.train, **numbers)), images, (knob, value))

    def noise(side: int, classes: int) -> Dataset:
        """Random images."""
        return sets.random("random", (channels, side, side), classes, n=256, device=dataset.train.y.device)

    return ([trial("batch", n, dataset, batch_size=n) for n in batch]
            + [trial("size", n, noise(n, several)) for n in size]
            + [trial("classes", n, noise(side, n)) for n in classes]
            + [trial("attack_steps", n, dataset, steps=n) for n in attack_steps])


def growth(timings: Sequence[Timing], rates: dict[str, dict[str, float]]) -> list[dict]:
    """A row for each trial of `growth_trials`: its knob and value, seconds of a step, and its floor."""
    found = []
    for timing in timings:
        knob, value = timing.trial.label
        measured = estimate(timing.seconds.ravel())
        least = floor.seconds(timing.passes.equivalents, timing.flops, rates[timing.settings["precision"]]["rate"])
        found.append({"knob": knob, "value": value, "equivalents": timing.passes.equivalents,
                      "flops_forward": timing.flops, "seconds": measured, "floor": least,
                      "utilisation": floor.utilisation(least, measured["median"]),
                      "images_a_second": timing.trial.config.train.batch_size / measured["median"]})
    return found
