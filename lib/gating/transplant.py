"""Transplants: does a trained activation carry over to another network, and to other images?

The paper's abstract (Guo et al. 2021, arXiv 2105.08269) says that a Sparta that was trained adversarially in one
network can be fixed and used to train another, or on other images, and that the result is more robust than with ReLU.
How its authors did it could not be read. Here the activations of the source, at the checkpoint that its validation
images chose, are put into a target that begins anew; everything else of the target is then trained by the same method,
and attacked at its last weights. `lib.gating.arms` has the arms, `lib.gating.directions` the sources and targets.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import evaluate, methods, models, stats, train
from lib.config import Config
from lib.gating import arms
from lib.gating.arms import OWN
from lib.gating.directions import Direction, End
from lib.layers import Site
from lib.methods import Method, standard  # noqa: F401  a stage depends on what is imported: T5 is trained by `standard`

REFERENCES = ("T0", "T1", "T4")  # what the other arms are compared with
WHO = ["method", "seed", "direction", "kind", "source", "target", "arm"]
COLUMNS = [*WHO, "split", "attack", "index", "label", "predicted"]
SPARTA = "sparta"


def method(end: End, activation: str, spec: str | None = None) -> Method:
    """The method of an end, or another one, with an activation."""
    run = replace(end.config, method=spec or end.config.method)
    return methods.activated(methods.build(run), activation, run)


def fresh(end: End, device: torch.device, given: Method | None = None) -> nn.Module:
    """The untrained network of an end, by default with Sparta."""
    return train.initial(end.config, given or method(end, SPARTA), end.images, device)


def last(end: End, given: Method, device: torch.device) -> nn.Module:
    """The last weights of a training at an end, in eval mode: as `train.fit`, which also looks where it stands."""
    run, epochs = end.config, end.config.train.epochs
    model, _, *rest = train.begin(run, given, end.images, device)
    for epoch in range(epochs):
        train.train_epoch(run, given, model, end.images.train, *rest, start=epoch / epochs)
    return model.eval()


class Trainings:
    """The networks of the study, on one device. What is a source, or might be one, is trained once."""

    def __init__(self, device: torch.device):
        self.device, self.kept = device, {}

    def whole(self, end: End, spec: str) -> dict[str, dict[str, torch.Tensor]]:
        """The best and last weights of a network with Sparta, trained at an end by the method `spec`."""
        key = end.config.model.name, end.images.name, end.config.seed, spec
        if key not in self.kept:
            given = method(end, SPARTA, spec)
            self.kept[key] = train.fit(end.config, end.images, self.device, lambda line: None, method=given).states
        return self.kept[key]

    def source(self, end: End, spec: str) -> dict[Site, arms.State]:
        """The activations of a network with Sparta, at the checkpoint that its validation images chose."""
        model = fresh(end, self.device)
        model.load_state_dict(self.whole(end, spec)["best"])
        return arms.states(model)

    def target(self, way: Direction, arm: str) -> nn.Module:
        """The network of an arm at its last weights, in eval mode."""
        end = way.target
        if OWN.get(arm) != SPARTA:
            return last(end, method(end, OWN[arm]) if arm in OWN else self.planted(way, arm), self.device)
        model = fresh(end, self.device)  # it may be a source too
        model.load_state_dict(self.whole(end, end.config.method)["last"])
        return model.eval()

    def planted(self, way: Direction, arm: str) -> Method:
        """The method of an arm with a transplant."""
        seed = way.target.config.seed
        given = self.source(way.source, "standard" if arm == arms.STANDARD else way.source.config.method)
        if arm == arms.RANDOM:
            given = arms.randomised(given, seed)
        elif arm == arms.PERMUTED:
            given = arms.permuted(given, seed)
        placed = arms.placed(given, fresh(way.target, self.device), names(way))
        return arms.planted(method(way.target, SPARTA), placed, fixed=arm != arms.TRAINED_ON)


def names(way: Direction) -> tuple[str, str]:
    """The networks at the two ends."""
    return way.source.config.model.name, way.target.config.model.name


def work(ways: list[Direction], device: torch.device) -> list[tuple[Direction, str]]:
    """All directions and arms, in order. Raises ConfigError where a source's activations do not fit the target."""
    found = []
    for way in ways:
        given = arms.states(fresh(way.source, device))
        arms.placed(given, fresh(way.target, device), names(way))
        found += [(way, arm) for arm in arms.possible(given)]
    return found


def explore(config: Config, ways: list[Direction], device: torch.device,
            log: Callable[[str], None] = print) -> pd.DataFrame:
    """Train every arm of every direction and attack it: one row an image, columns `COLUMNS`.

    ways: of `lib.gating.directions.directions`. The attacks are those of `evaluate.few_attacks`, on test images.
    """
    trainings, todo, tables = Trainings(device), work(ways, device), []
    for number, (way, arm) in enumerate(todo, 1):
        model = trainings.target(way, arm)
        rows = attacked(way.target, model, device)
        who = config.method, config.seed, way.name, way.kind, way.source.name, way.target.name, arm
        tables.append(rows.assign(**dict(zip(WHO, who, strict=True)))[COLUMNS])
        wrong = (rows.label != rows.predicted).groupby(rows.attack, sort=False).mean()
        said = ", ".join(f"{attack} {rate:.1%}" for attack, rate in wrong.items())
        log(f"arm {number}/{len(todo)}  {way.name}, {arm}: error {said}")
    return pd.concat(tables, ignore_index=True)


def attacked(end: End, model: nn.Module, device: torch.device) -> pd.DataFrame:
    """What a network says of the test images under `evaluate.few_attacks`: columns as `evaluate.attacked`.

    STRONG begins with the headline attack, so it is run only on what that has left, and not for all images again.
    """
    run, images, headline = end.config, end.images.test, end.config.evaluate.headline
    rows = evaluate.attacked(run, model, {"test": images}, device, [evaluate.CLEAN, headline])
    strong = rows[rows.attack == headline].assign(attack=evaluate.STRONG)
    left = (strong.label == strong.predicted).to_numpy()
    if left.any():
        rest = {"test": images.take(np.flatnonzero(left).tolist())}
        more = evaluate.attacked(run, model, rest, device, [evaluate.STRONG])
        strong.loc[left, "predicted"] = more.predicted.to_numpy()
    return pd.concat([rows, strong], ignore_index=True)


def mapping(ways: list[Direction], device: torch.device) -> pd.DataFrame:
    """Which site gets which: a row for each site of a target that is another network than its source.

    Columns: direction, site (of the target), group, block, place, its channels and size, from (the site of the source),
    parameters (how many are copied).
    """
    rows = []
    for way in ways:
        given, model = arms.states(fresh(way.source, device)), fresh(way.target, device)
        found = arms.counterparts(given, models.sites(model), names(way))
        shapes = _shapes(model, way.target)
        rows += [{"direction": way.name, "site": site.name, "group": site.group, "block": site.block,
                  "place": site.place, "channels": shapes[site.name][0], "size": shapes[site.name][-1],
                  "from": other.name, "parameters": sum(value.numel() for value in given[other].values())}
                 for site, other in found.items()]
    return pd.DataFrame(rows)


def _shapes(model: nn.Module, end: End) -> dict[str, tuple[int, int, int]]:
    """Channels, height and width of what reaches each site of a network, by the site's name."""
    found, hooks = {}, []
    for site in models.sites(model):
        def note(module, inputs, output, name=site.name):
            """Keep the shape."""
            found[name] = tuple(inputs[0].shape[1:])

        hooks.append(model.get_submodule(site.name).register_forward_hook(note))
    with torch.no_grad():
        model.eval()(end.images.test.first(1).floats()[0])
    for hook in hooks:
        hook.remove()
    return found


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """Error of each arm under each attack: columns WHO, attack, n, error, low, high, in [0, 1] (Wilson, 95 %), chance.

    chance: the error of one answer for all images, that of the commonest class, which no attack changes.
    """
    found = evaluate.accuracy(table, [*WHO, "attack"])
    commonest = table.groupby([*WHO, "attack"], sort=False).label.agg(lambda labels: labels.value_counts(True).max())
    return found.assign(error=1 - found.accuracy, low=1 - found.high, high=1 - found.low,
                        chance=1 - commonest.to_numpy())[[*WHO, "attack", "n", "error", "low", "high", "chance"]]


def at_chance(found: pd.DataFrame) -> set[tuple[str, str]]:
    """Direction and arm of the networks that have not learned: chance lies in the interval of their clean error."""
    clean = found[found.attack == evaluate.CLEAN]
    return set(clean.loc[clean.high >= clean.chance, ["direction", "arm"]].itertuples(index=False, name=None))


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Error of each arm less that of each of REFERENCES, on the same images: below 0 the arm is better.

    Columns: WHO, attack, reference, n, difference, low, high in [-1, 1], p (see `stats.paired`).
    """
    return pd.DataFrame(_differences(table))


def _differences(table: pd.DataFrame) -> Iterator[dict]:
    right = table.assign(right=table.label == table.predicted)
    for keys, each in right.groupby([*WHO[:-1], "attack"], sort=False):
        hits = each.pivot(index="index", columns="arm", values="right")
        for arm in hits:
            for reference in (name for name in REFERENCES if name in hits and name != arm):
                found = stats.paired(hits[reference], hits[arm])
                yield {**dict(zip([*WHO[:-1], "attack"], keys, strict=True)), "arm": arm, "reference": reference,
                       "n": found["n"], "difference": found["mean"], "low": found["low"], "high": found["high"],
                       "p": found["p"]}
