"""The way back into an interrupted training: all that decides how it goes on, kept after each epoch."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lib import world
from lib.config import STAGE, Config
from lib.data import Dataset, Images
from lib.progress import Progress, fingerprint


class Checkpoint:
    """A training in a file of the folder `place` (None: kept nowhere), under a name that tells it from any other.

    run: model, optimizer, scheduler and generator of `lib.train.Run`. found, memory: what is known so far, an object
    with attributes and `Method.memory`; both are filled anew in place. The file is written aside and renamed, so that
    whenever the process is killed there is a whole one. It stays when training is done: a stage that trains many
    networks has those that were finished, and its folder goes when the stage is done (`lib.notebook`).
    """

    def __init__(self, place: Path | None, config: Config, data: Dataset, run, found, memory: dict,
                 log: Callable[[str], None]):
        self.run, self.found, self.memory = run, found, memory
        self.parts = {"model": run.model, "optimizer": run.optimizer, "scheduler": run.scheduler}
        identity = self._identity(config, data) if place and world.rank() == 0 else ""
        self.progress = Progress(identity and place / f"{identity[:16]}.pt", (identity,), torch.zeros(1), log)

    def _identity(self, config: Config, data: Dataset) -> str:
        """A digest of all that decides the outcome: numbers, images, first weights, and in a stage its code; and of
        whether somebody looks.
        """
        code = os.environ.get(STAGE)
        images = [part for split in (data.train, data.validation, data.test)
                  for part in (split.y, split.x if isinstance(split, Images) else split.paths.tobytes())]
        alone = replace(config, compute=replace(config.compute, processes=1))
        return fingerprint(alone, torch.__version__, Path(code).read_text() if code else "", data.statistics, *images,
                           self.run.model.state_dict(), self.found.seen is None)

    def load(self) -> int:
        """Take up what was kept, and return how many epochs that is; 0 for a new training.

        Of several processes the first one reads, since the others may be on machines without its files.
        """
        saved = world.agreed(self.progress.load())
        if not saved:
            return 0
        device = self.run.generator.device
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.run.generator.set_state(saved["generator"])
        vars(self.found).update(saved["found"])
        for name, kept in saved["memory"].items():  # in place: the method's functions hold these dictionaries
            self.memory[name].clear()
            self.memory[name].update(to(kept, device))
        return saved["epoch"]

    def save(self, epoch: int) -> None:
        """Keep everything as it is after this epoch. Of several processes the first one writes."""
        if self.progress.path:
            parts = {name: part.state_dict() for name, part in self.parts.items()}
            self.progress.save({"epoch": epoch, "generator": self.run.generator.get_state(), "memory": self.memory,
                                "found": vars(self.found), **parts})


def to(value, device: torch.device):
    """The tensors in nested dictionaries, on a device."""
    if isinstance(value, dict):
        return {key: to(inner, device) for key, inner in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
