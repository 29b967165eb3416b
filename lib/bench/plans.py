"""How much is measured, by profile, device and network."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plan:
    """methods: that are timed. short: only the reference and `auto`. warmup, steps, rounds: see `measure.timed`.

    batch, width: images a step and width of the network; 0: as in params.yaml. threads: of the CPU; 0: all cores.
    products: sizes of the matrix products; empty: the device's. batches, sides, classes, attacks: what is varied, see
    `compare.growth_trials`. images, test: at most so many training and test images in the study of bfloat16; epochs and
    seeds of its networks.
    """

    methods: tuple[str, ...] = ("pgd", "trades", "mart", "pgd+awp", "pgd+ducat", "pgd+silu", "pgd+sparta")
    short: bool = False
    warmup: int = 20
    steps: int = 50
    rounds: int = 3
    batch: int = 0
    width: int = 0
    threads: int = 0
    products: tuple[int, ...] = ()
    batches: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    sides: tuple[int, ...] = (16, 32, 64)
    classes: tuple[int, ...] = (10, 100, 1000)
    attacks: tuple[int, ...] = (1, 5, 10, 20)
    images: int = 50_000
    test: int = 10_000
    epochs: int = 10
    seeds: tuple[int, ...] = (0,)

    @property
    def growth(self) -> dict[str, tuple[int, ...]]:
        """The arguments of `compare.growth_trials`."""
        return {"batch": self.batches, "size": self.sides, "classes": self.classes, "attack_steps": self.attacks}


SMOKE = Plan(methods=("pgd", "trades"), short=True, warmup=1, steps=2, rounds=3, threads=1, products=(256,),
             batches=(16, 64), sides=(8, 16), classes=(10, 100), attacks=(1, 4), images=300, test=100, epochs=2)
SMALL = Plan(warmup=3, steps=6, rounds=8, batches=(16, 64, 256), sides=(8, 16, 32), attacks=(1, 4, 10), epochs=12,
             seeds=(0, 1, 2))
# A residual network of its usual width takes long on a CPU; one of width 16 takes a sixteenth of that.
LARGE = Plan(methods=("pgd", "trades", "pgd+awp"), warmup=1, steps=2, rounds=4, batch=64, width=16,
             batches=(16, 32, 64), sides=(16, 32), classes=(10, 1000), attacks=(1, 4, 10), images=1000, test=500,
             epochs=4)


def plan(profile: str, network: str, device: torch.device) -> Plan:
    """The plan of a profile ('smoke' is the tiny one), for a network by its name, on a device."""
    if profile == "smoke":
        return SMOKE
    if device.type == "cuda":
        return Plan()
    return SMALL if network.startswith("small_cnn") else LARGE
