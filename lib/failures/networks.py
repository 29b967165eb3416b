"""Adversarial examples of every network, shown to every other: the networks, and what they say.

A *source* is what examples are made on, a *target* what they are shown to. A target is always scored as it is deployed.
Of a classifier with dummy classes there are up to three sources: its 2C logits, as published; the deployed classifier,
adaptive; and its trunk, the same run just before the dummy classes start.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lib import attacks, compute, train
from lib.adaptive import ADAPTIVE, PUBLISHED, raw, trunk
from lib.config import Config
from lib.data import Dataset
from lib.params import ConfigError, DataError

PLAIN, TRUNK = "plain", "trunk"


@dataclass(frozen=True)
class Network:
    """A trained network. kind: what it is as a source, PLAIN, PUBLISHED, ADAPTIVE or TRUNK; net: what is attacked."""

    method: str
    seed: int
    kind: str
    net: nn.Module

    @property
    def name(self) -> str:
        """Such as 'pgd+ducat, as published, seed 0'."""
        return f"{label(self.method, self.kind)}, seed {self.seed}"


def label(method: str, kind: str) -> str:
    """A source without its seed: 'pgd', or 'pgd+ducat, as published'."""
    return method if kind == PLAIN else f"{method}, {kind}"


def runs(config: Config, axes: dict) -> list[tuple[str, int]]:
    """Method and seed of all networks: methods of the study and, as far as they are run, 'standard' and each '+ducat'.

    The first method has as many seeds as `config.failures.networks`: those of the axes, and the lowest others.
    """
    study, seeds = axes["studies"]["failures"], axes["seeds"]
    others = [m for m in ("standard", *(f"{m}+ducat" for m in study)) if m in axes["methods"] and m not in study]
    lowest = [s for s in range(len(seeds) + config.failures.networks) if s not in seeds]
    more = lowest[:max(0, config.failures.networks - len(seeds))]
    return [*((m, s) for m in (*study, *others) for s in seeds), *((study[0], s) for s in more)]


def networks(config: Config, axes: dict, dataset: Dataset, device: torch.device,
             log: Callable[[str], None] = print) -> tuple[list[Network], list[Network]]:
    """Targets and sources, at their last checkpoints; those with a seed that the axes lack are trained here.

    A trunk is there only if stage `train` has kept it.
    """
    targets, sources = [], []
    for method, seed in runs(config, axes):
        run = replace(config, method=method, seed=seed)
        if seed in axes["seeds"]:
            found = train.load(run, dataset, device)
        else:
            log(f"{method}, seed {seed}: trained here")
            found = train.fit(run, dataset, device, log=lambda line: None)
        net = train.model(run, found, "last", dataset, device)
        targets.append(Network(method, seed, ADAPTIVE if hasattr(net, "raw") else PLAIN, net))
        if hasattr(net, "raw"):
            sources.append(Network(method, seed, PUBLISHED, raw(net)))
        sources.append(targets[-1])
        if (before := trunk(run, dataset, device)) is not None:
            sources.append(Network(method, seed, TRUNK, before))
    return targets, sources


@dataclass(frozen=True)
class Predictions:
    """What every target says of the examples of every source. S sources, T targets, N images.

    source_method, source_seed, source_kind: (S,); target_method, target_seed: (T,). split: 'test' or 'train', and
    label: (N,). predicted: (S, T, N). clean: predictions of the images themselves, and margin: the highest wrong logit
    less that of the label there, (T, N).
    """

    source_method: np.ndarray
    source_seed: np.ndarray
    source_kind: np.ndarray
    target_method: np.ndarray
    target_seed: np.ndarray
    split: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    clean: np.ndarray
    margin: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Who has which example right: (S, T, N)."""
        return self.predicted == self.label

    def target(self, method: str, seed: int) -> int:
        """The place of a target."""
        return _place((self.target_method == method) & (self.target_seed == seed), f"{method}, seed {seed}")

    def source(self, method: str, seed: int, kind: str = PLAIN) -> int:
        """The place of a source."""
        fits = (self.source_method == method) & (self.source_seed == seed) & (self.source_kind == kind)
        return _place(fits, f"{label(method, kind)}, seed {seed}")

    def save(self, path: Path) -> None:
        """Write the arrays to an .npz file."""
        np.savez_compressed(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote. Raises DataError for a file of other contents."""
        with np.load(path) as file:
            if set(file.files) != {f.name for f in fields(cls)}:
                raise DataError(f"{path} is not what stage `failures` writes now: `dvc repro` makes it anew")
            return cls(**file)


def _place(fits: np.ndarray, name: str) -> int:
    if not fits.any():
        raise ConfigError(f"there is no network '{name}' here: studies.failures and seeds of params.yaml say which are")
    return int(np.flatnonzero(fits)[0])


def cross(config: Config, dataset: Dataset, targets: Sequence[Network], sources: Sequence[Network],
          log: Callable[[str], None] = print, batch_size: int = 500) -> Predictions:
    """PGD examples of every source, from a random start of its own, shown to every target: test, then training images.

    `config.failures` has the steps; the loss is cross-entropy. A source's noise hangs on its name alone.
    """
    splits = {"test": dataset.test, "train": dataset.train.first(config.evaluate.training_images)}
    device, total = dataset.test.y.device, sum(map(len, splits.values()))
    noise = [compute.generator(zlib.crc32(source.name.encode()), device) for source in sources]
    rows, done = [], 0
    for split, images in splits.items():
        for x, y in images.in_order(batch_size):
            for network in (*sources, *targets):
                attacks.check(network.net, x, y)
            with torch.no_grad():
                said = [_answers(targets, attacks.pgd(
                    source.net, x, y, threat=config.threat, steps=config.failures.steps,
                    step_size=config.failures.step_size, generator=generator)).argmax(2)
                    for source, generator in zip(sources, noise, strict=True)]
                clean = _answers(targets, x)
                margin = torch.stack([attacks.margin(logits, y) for logits in clean])
            rows.append([each.cpu().numpy() for each in (torch.stack(said), clean.argmax(2), margin, y)]
                        + [np.full(len(y), split)])
            done += len(y)
            log(f"image {done}/{total}  {split}: examples of {len(sources)} sources shown to {len(targets)} targets")
    predicted, clean, margin, labels, split = (np.concatenate(each, -1) for each in zip(*rows, strict=True))
    names = [np.array(each) for each in zip(*((s.method, s.seed, s.kind) for s in sources), strict=True)]
    shown = [np.array(each) for each in zip(*((t.method, t.seed) for t in targets), strict=True)]
    return Predictions(*names, *shown, split, *(a.astype(np.int16) for a in (labels, predicted, clean)), margin)


def _answers(targets: Sequence[Network], x: torch.Tensor) -> torch.Tensor:
    """The targets' logits, (T, N, C)."""
    return torch.stack([target.net(x) for target in targets])
