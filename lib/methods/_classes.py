"""How robust each class is while a network trains: what `balanced` and `cfa` go by."""

import torch
from torch import Tensor, nn

from lib import world
from lib.methods import Moment


class Watched(nn.Module):
    """A classifier that keeps its logits for one input: what the loss computes anyway need not be computed twice."""

    def __init__(self, model: nn.Module, x: Tensor):
        super().__init__()
        self.model, self.x, self.logits = model, x, None

    def forward(self, x: Tensor) -> Tensor:
        """The classifier's logits."""
        logits = self.model(x)
        if x is self.x:
            self.logits = logits.detach()
        return logits


class Record:
    """Accuracy of each class on the adversarial examples of the epoch before, at the weights as they moved.

    As in the code of CFA: counted on the outputs of the training step itself, so it costs nothing. memory: where it
    keeps what it knows, a part of `Method.memory`.
    """

    def __init__(self, epochs: int, memory: dict):
        self.epochs, self.memory = epochs, memory

    def at(self, moment: Moment) -> Tensor | None:
        """The accuracy of each class in the epoch before, (classes,); None while no epoch is over."""
        self._turn(moment)
        return self.memory.get("accuracy")

    def count(self, logits: Tensor, y: Tensor, moment: Moment) -> None:
        """Add a batch: its logits (N, classes) under attack."""
        self._turn(moment)
        each = torch.stack([logits.argmax(1) == y, torch.ones_like(y, dtype=torch.bool)]).long()
        found = torch.zeros(2, logits.shape[1], dtype=torch.long, device=y.device).index_add_(1, y, each)
        found, counts = world.total(found), self.memory.get("counts")
        self.memory["counts"] = found if counts is None else counts + found

    def _turn(self, moment: Moment) -> None:
        """At the first step of an epoch the counts become the accuracy of the one before."""
        epoch = int(moment.progress * self.epochs + 1e-6)
        if epoch > self.memory.get("epoch", 0) and "counts" in self.memory:
            hits, n = self.memory.pop("counts")
            self.memory["accuracy"] = hits / n.clamp_min(1)
        self.memory["epoch"] = epoch
