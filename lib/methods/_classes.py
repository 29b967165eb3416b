"""How robust each class is while a network trains: what `balanced` and `cfa` go by."""

import torch
from torch import Tensor, nn

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

    As in the code of CFA: counted on the outputs of the training step itself, so it costs nothing.
    """

    def __init__(self, epochs: int):
        self.epochs, self.epoch, self.accuracy, self.counts = epochs, 0, None, None

    def at(self, moment: Moment) -> Tensor | None:
        """The accuracy of each class in the epoch before, (classes,); None while no epoch is over."""
        self._turn(moment)
        return self.accuracy

    def count(self, logits: Tensor, y: Tensor, moment: Moment) -> None:
        """Add a batch: its logits (N, classes) under attack."""
        self._turn(moment)
        classes = logits.shape[1]
        hits = y[logits.argmax(1) == y]
        found = torch.stack([torch.bincount(v, minlength=classes) for v in (hits, y)])
        self.counts = found if self.counts is None else self.counts + found

    def _turn(self, moment: Moment) -> None:
        """At the first step of an epoch the counts become the accuracy of the one before."""
        epoch = int(moment.progress * self.epochs + 1e-6)
        if epoch > self.epoch and self.counts is not None:
            hits, n = self.counts
            self.accuracy, self.counts = hits / n.clamp_min(1), None
        self.epoch = epoch
