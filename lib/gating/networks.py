"""Networks that differ in what stands in place of ReLU, and in nothing else: trained, attacked, kept for a closer look.

The abstract of Guo et al. (2021), all of the paper that could be read, says that ReLU makes networks less robust since
it is shared by all positions and does not depend on the input. The `LADDER` takes these two apart, and smoothness,
which ReLU lacks as well; it is ours, like every number here. The networks of a run begin with the same weights, but for
those of the activations, and see the same images in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from lib import activations, cost, evaluate, methods, train
from lib.config import Config, on_the_spot
from lib.data import Dataset
from lib.gating.measured import KEYS, SAID, attacked, controls, errors, sweeps
from lib.params import ConfigError, known, numbers

RELU, SILU, SPARTA, WIDE = "relu", "silu", "sparta", "wide silu"
LADDER = {"A0": RELU, "A1": "bias", "A2": "map", "A3": "pooled", "A4": SPARTA}
KEPT = (*LADDER.values(), SILU)  # whose weights are kept, and which are attacked at several radii
CURVES = (RELU, SILU, SPARTA)    # which are attacked with more and more steps
TABLES = {"per_sample": ["split", "attack", *SAID], "radii": ["radius", *SAID], "steps": ["steps", *SAID],
          "controls": ["attack", *SAID], "cost": ["parameters", "flops"],
          "history": ["epoch", "loss", "clean", "robust", "test_robust"]}


@dataclass(frozen=True)
class Setting:
    """One network: its name, the part of the spec that makes its activation, and the knobs of it that differ.

    wide: as many channels as it takes to have at least the parameters of the network with Sparta.
    """

    activation: str
    part: str
    changes: dict = field(default_factory=dict)
    wide: bool = False


@dataclass(frozen=True)
class Explored:
    """What one run leaves: tables, each with `KEYS` and its columns of `TABLES`, and the last weights of `KEPT`.

    per_sample: see `attacked`. radii, in units of eps, and steps: see `sweeps`. controls: see `controls`. cost: of a
    forward pass of one image. history: accuracies, clean and robust on validation images, test_robust on test images
    under the training attack (nan where nobody looked).
    """

    tables: dict[str, pd.DataFrame]
    weights: dict[str, dict[str, Tensor]]

    def save(self, folder: Path) -> None:
        """<table>.csv and weights/<activation>.pt in `folder`."""
        for name, table in self.tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        (folder / "weights").mkdir(exist_ok=True)
        for name, state in self.weights.items():
            torch.save(state, folder / "weights" / f"{name}.pt")


def settings(config: Config) -> list[Setting]:
    """All networks of the study of `config.method`: those of `KEPT`, and the others.

    A method that trains without an adversary has `KEPT` alone. Raises ConfigError for a method with an activation of
    its own, an unknown name in `config.activations.compared`, a variant that Sparta does not take, a variant with the
    name of another network, and where `config.activations.many` has no number of steps.
    """
    if named := [part for part in config.method.split("+") if part in activations.available()]:
        raise ConfigError(f"studies.activations in params.yaml names '{config.method}': name it without {named[0]}, "
                          "since this study adds the activations itself")
    for name in config.activations.compared:
        known("activation", name, activations.available(), "activations.compared of params.yaml")
    if min(config.activations.many, default=0) < 1:
        raise ConfigError(f"activations.many in params.yaml is {config.activations.many}: it has to hold numbers of "
                          "steps, of at least 1")
    wanted = [Setting(RELU, RELU), *(Setting(name, SPARTA, {"context": name}) for name in ("bias", "map", "pooled")),
              Setting(SPARTA, SPARTA), Setting(SILU, SILU)]
    if methods.build(config).attack is None:
        return wanted
    wanted += [Setting(name, name) for name in dict.fromkeys(config.activations.compared) if name not in KEPT]
    wanted.append(Setting(WIDE, SILU, wide=True))
    return wanted + _variants(config, [setting.activation for setting in wanted])


def _variants(config: Config, taken: Sequence[str]) -> list[Setting]:
    """The variants of Sparta, each tried on a few channels; null drops one. taken: names that none of them may have."""
    found = []
    for name, changes in config.activations.variants.items():
        if changes is None:
            continue
        where = f"'{name}' of activations.variants in params.yaml"
        if name in taken:
            raise ConfigError(f"{where} is the name of another network: choose another")
        found.append(Setting(name, SPARTA, numbers(f"activations.variants.{name}", changes)))
        try:
            activations.apart(activations.build(SPARTA, {**config.knobs[SPARTA], **found[-1].changes}))(8)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return found


def recipe(config: Config, setting: Setting, dataset: Dataset) -> Config:
    """The numbers of one network: those of the run, but for its activation and, of `WIDE`, its width.

    dataset: on its images' size and number of classes hangs which width matches.
    """
    knobs = {**config.knobs.get(setting.part, {}), **setting.changes}
    run = replace(config, method=f"{config.method}+{setting.part}", knobs={**config.knobs, setting.part: knobs})
    if setting.wide:
        least = size(recipe(config, Setting(SPARTA, SPARTA), dataset), dataset)
        while size(run, dataset) < least:
            run = replace(run, model=replace(run.model, width=run.model.width + 1))
    return run


def size(run: Config, dataset: Dataset) -> int:
    """How many parameters the network of `run` has."""
    return cost.parameters(train.initial(run, methods.build(run), dataset, torch.device("cpu")))


def explore(config: Config, dataset: Dataset, device: torch.device, log: Callable[[str], None] = print) -> Explored:
    """Trains every one of the `settings` with the seed of the run, and attacks its last weights; see `Explored`."""
    wanted, tables, weights, relu = settings(config), {name: [] for name in TABLES}, {}, None
    for number, setting in enumerate(wanted, 1):
        run, keys = recipe(config, setting, dataset), (config.method, config.seed, setting.activation)
        fitted = train.fit(run, dataset, device, log=lambda line: None)
        model = train.model(run, fitted, "last", dataset, device)
        relu = model if relu is None else relu
        found = {"per_sample": attacked(config, model, dataset, device),
                 **sweeps(config, model, dataset, device, setting.activation in KEPT, setting.activation in CURVES),
                 "controls": controls(config, model, relu, dataset, device), "cost": _cost(model, dataset),
                 "history": _history(fitted)}
        for name, rows in found.items():
            tables[name].append(rows.assign(**dict(zip(KEYS, keys, strict=True)))[[*KEYS, *TABLES[name]]])
        if setting.activation in KEPT:
            weights[setting.activation] = fitted.states["last"]
        log(f"activation {number}/{len(wanted)}  {setting.activation}: {_said(config, tables['per_sample'][-1])}")
    return Explored({name: pd.concat(each, ignore_index=True) for name, each in tables.items()}, weights)


def _cost(model: nn.Module, dataset: Dataset) -> pd.DataFrame:
    """Parameters, and operations of a forward pass of one image."""
    return pd.DataFrame({"parameters": [cost.parameters(model)], "flops": [cost.flops(model, dataset.shape)]})


def _history(fitted: train.Trained) -> pd.DataFrame:
    """The history of a training, with the accuracy on attacked test images where the trace has it."""
    right = (fitted.trace["attacked"] == fitted.trace["label"]).mean(1)
    return fitted.history.assign(test_robust=fitted.history.epoch.map(dict(zip(fitted.trace["epoch"], right,
                                                                               strict=True))))


def _said(config: Config, rows: pd.DataFrame) -> str:
    """The errors of one network on test images in a line."""
    rates = errors(rows).query("split == 'test'").set_index("attack").error
    names = [evaluate.CLEAN, config.evaluate.headline, rates.index[-2], rates.index[-1]]
    return "error " + ", ".join(f"{rates[name]:.1%} {name}" for name in dict.fromkeys(names))


def trained(config: Config, dataset: Dataset, device: torch.device) -> dict[str, nn.Module]:
    """The networks `KEPT` of this run as 19_activations left them, by name, in eval mode on `device`.

    By hand, in `smoke`, networks that are not there are trained on the spot.
    """
    folder = config.folder("activations") / "weights"
    missing, found = [name for name in KEPT if not (folder / f"{name}.pt").exists()], {}
    if missing:
        on_the_spot("activations", config, folder / f"{missing[0]}.pt")
    for setting in settings(config)[:len(KEPT)]:
        name, run = setting.activation, recipe(config, setting, dataset)
        found[name] = train.initial(run, methods.build(run), dataset, device)
        state = (train.fit(run, dataset, device, log=lambda line: None).states["last"] if missing
                 else torch.load(folder / f"{name}.pt", weights_only=True))
        found[name].load_state_dict(state)
        found[name].eval()
    return found


def chosen(found: pd.DataFrame, headline: str) -> pd.DataFrame:
    """The network that validation images choose in each run: the lowest error under the headline attack.

    found: of `errors`. Of equal ones that of the lower clean error, then the first. Columns: KEYS, n (images),
    validation and validation_clean (errors).
    """
    rows = found[found.split == "validation"].set_index(KEYS)
    by_attack = {name: rows[rows.attack == name] for name in (headline, evaluate.CLEAN)}
    both = by_attack[headline][["n", "error"]].rename(columns={"error": "validation"})
    both = both.assign(validation_clean=by_attack[evaluate.CLEAN].error).reset_index()
    return both.sort_values(["validation", "validation_clean"], kind="stable").drop_duplicates(KEYS[:2])
