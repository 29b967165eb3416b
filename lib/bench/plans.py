"""How much is measured, by profile, device and network."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plan:
    """methods: that are timed. short: only the reference and `auto`. warmup, steps, rounds: see `measure.timed`.

    threads: of the CPU, 0: all cores. sizes: of the matrix products; empty: the device's. growth: arguments of
    `compare.growth_trials`. images, test: at most so many training and test images in the study of bfloat16; epochs and
    seeds of its networks.
    """

    methods: tuple[str, ...] = ("pgd", "trades", "mart", "pgd+awp", "pgd+ducat", "pgd+sparta")
    short: bool = False
    warmup: int = 20
    steps: int = 50
    rounds: int = 3
    threads: int = 0
    sizes: tuple[int, ...] = ()
    batch: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    size: tuple[int, ...] = (16, 32, 64)
    classes: tuple[int, ...] = (10, 100, 1000)
    attack_steps: tuple[int, ...] = (1, 5, 10, 20)
    images: int = 50_000
    test: int = 10_000
    epochs: int = 10
    seeds: tuple[int, ...] = (0,)

    @property
    def growth(self) -> dict[str, tuple[int, ...]]:
        """The numbers that are varied."""
        return {"batch": self.batch, "size": self.size, "classes": self.classes, "attack_steps": self.attack_steps}


SMOKE = Plan(methods=("pgd", "trades"), short=True, warmup=1, steps=2, rounds=3, threads=1, sizes=(256,),
             batch=(16, 64), size=(8, 16), classes=(10, 100), attack_steps=(1, 4), images=300, test=100, epochs=2)
CPU_SMALL = Plan(warmup=3, steps=6, rounds=8, batch=(16, 64, 256), size=(8, 16, 32), attack_steps=(1, 4, 10),
                 epochs=12, seeds=(0, 1, 2))
CPU = Plan(methods=("pgd", "trades", "pgd+awp"), warmup=1, steps=2, rounds=4, batch=(16, 32, 64), size=(16, 32),
           classes=(10, 1000), attack_steps=(1, 4, 10), images=1000, test=500, epochs=4)


def plan(profile: str, network: str, device: torch.device) -> Plan:
    """The plan of a profile ('smoke' is the tiny one), for a network by its name, on a device."""
    if profile == "smoke":
        return SMOKE
    if device.type == "cuda":
        return Plan()
    return CPU_SMALL if network.startswith("small_cnn") else CPU


def width(network: str, device: torch.device) -> int:
    """The width at which a network is timed: 16 for PreActResNet-18 on a CPU, where 64 takes a minute a step; else 0,
    as params.yaml has it.
    """
    return 16 if network == "preact_resnet18" and device.type != "cuda" else 0
