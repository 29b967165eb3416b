"""Forks: which part of DUCAT does what? One training, continued in several ways from the same moment.

The trunk is the objective on a network of 2C outputs, whose dummy classes have not been used. A fork is the rest of
training from the last whole epoch before the dummies start: the same images, order of batches and schedule, another
setting of knobs.ducat. Beside them stands the objective on a network of C outputs, from the beginning, at several
radii: its ordinary trade-off. These controls are ours; what the paper's ablation has could not be read.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from lib import adaptive, evaluate, methods, stats, train
from lib.adaptive import ADAPTIVE, PUBLISHED
from lib.config import Config
from lib.data import Dataset
from lib.methods import ducat  # noqa: F401  a stage depends on what is imported, not on names in a spec
from lib.params import ConfigError, numbers

CONTINUED, HALF, DUCAT, HARD = "continued", "half and half", "ducat", "hard labels"
KNOBS = ("w_benign", "w_adv", "start", "adversary")
SETTING = [*KNOBS, "radius"]
KEYS = ["method", "seed", "fork"]
COLUMNS = [*KEYS, *SETTING, "split", "protocol", "attack", "index", "label", "predicted", "raw"]
ACCURACIES = ("clean", "published", "robust")
SHARES = (*ACCURACIES, "trapped", "dummies", "validation_published", "validation_robust")
CHANGES = tuple(f"{name}_change" for name in ACCURACIES)
BELIEFS = {PUBLISHED: "published", ADAPTIVE: "robust"}  # which protocol is believed -> the measure that chooses


@dataclass(frozen=True)
class Setting:
    """One network of the study: its name, and the knobs of DUCAT or the radius, in units of eps, that make it."""

    fork: str
    w_benign: float = math.nan
    w_adv: float = math.nan
    start: float = math.nan
    adversary: str | float = math.nan
    radius: float = math.nan


@dataclass(frozen=True)
class State:
    """Training after `epoch` epochs: copies of everything that the rest of it depends on."""

    epoch: int
    weights: dict[str, Tensor]
    optimizer: dict
    schedule: dict
    generator: Tensor


def settings(config: Config) -> list[Setting]:
    """All networks of the study of the objective `config.method`, each setting once and under its first name.

    Raises ConfigError for a method that is no objective, or none with an adversary, and for a value of `config.forks`
    that DUCAT or the threat model does not take.
    """
    if "+" in config.method:
        raise ConfigError(f"studies.forks in params.yaml names '{config.method}': name an objective, without add-ons")
    methods.build(replace(config, method=f"{config.method}+ducat"))
    tried, found = {name: _numbers(name, values) for name, values in asdict(config.forks).items()}, {}
    own = {knob: config.knobs["ducat"][knob] for knob in KNOBS}
    changes = [(DUCAT, {}), (HALF, {"w_benign": 0, "w_adv": 0}), (HARD, {"w_benign": 0, "w_adv": 1})]
    changes += [(f"{knob} {value if isinstance(value, str) else format(value, 'g')}", {knob: value}) for knob in KNOBS
                for value in tried[knob] if (knob, value) != ("start", 1)]  # which is CONTINUED
    for name, change in changes:
        found.setdefault(tuple({**own, **change}.values()), name)
    radii = sorted({float(radius) for radius in (*tried["radii"], 1)})
    wanted = [Setting(CONTINUED), *(Setting(name, *values) for values, name in found.items()),
              *(Setting(f"radius {radius:g}", radius=radius) for radius in radii)]
    for setting in wanted:
        try:
            methods.build(recipe(config, setting))
        except ConfigError as error:
            raise ConfigError(f"'{setting.fork}' of forks in params.yaml: {error}") from error
    return wanted


def _numbers(name: str, values: list) -> list:
    """The list of `config.forks` with fractions as numbers."""
    found = [*numbers(f"forks.{name}", dict(enumerate(values))).values()]
    if name == "radii" and (words := [value for value in found if isinstance(value, str)]):
        raise ConfigError(f"forks.radii in params.yaml holds {words[0]!r}: a radius is a number, in units of eps")
    return found


def recipe(config: Config, setting: Setting) -> Config:
    """The numbers of one network: those of the run, but for what the setting changes."""
    if not math.isnan(setting.radius):
        return replace(config, threat=replace(config.threat, eps=setting.radius * config.threat.eps))
    change = {"start": 1.0} if setting.fork == CONTINUED else {knob: getattr(setting, knob) for knob in KNOBS}
    return replace(config, method=f"{config.method}+ducat",
                   knobs={**config.knobs, "ducat": {**config.knobs["ducat"], **change}})


def complete(run: Config, dataset: Dataset, device: torch.device, state: State | None = None,
             keep: Sequence[int] = ()) -> tuple[nn.Module, dict[int, State]]:
    """Trains from `state` (None: from the beginning) to the end, as `train.fit` does but for its validation.

    Returns the network after the last epoch, in eval mode, and the states after the epochs `keep`, counted from 1.
    """
    method, epochs = methods.build(run), run.train.epochs
    model, _, optimizer, scheduler, generator = train.begin(run, method, dataset, device)
    if state:
        for part, kept in ((model, state.weights), (optimizer, state.optimizer), (scheduler, state.schedule)):
            part.load_state_dict(copy.deepcopy(kept))  # the optimizer takes over the very tensors that it is given
        generator.set_state(state.generator)
    done, states = state.epoch if state else 0, {}
    for epoch in range(done + 1, epochs + 1):
        train.train_epoch(run, method, model, dataset.train, optimizer, scheduler, generator,
                          start=(epoch - 1) / epochs)
        if epoch in keep:
            parts = [part.state_dict() for part in (model, optimizer, scheduler)]
            states[epoch] = State(epoch, *copy.deepcopy(parts), generator.get_state())
    return model.eval(), states


def begins(setting: Setting, epochs: int) -> int:
    """How many whole epochs are over when the dummies of a fork start: there the trunk ends.

    A start within an epoch is not moved: until then the fork trains the objective, as the trunk did.
    """
    return int(setting.start * epochs + 1e-6)


def explore(config: Config, dataset: Dataset, device: torch.device,
            log: Callable[[str], None] = print) -> pd.DataFrame:
    """Trains every one of the `settings`, and attacks its last weights at the full radius by both protocols.

    One row an image for each network, split, protocol and attack: `COLUMNS`. CONTINUED is the trunk trained to its end.
    """
    wanted = [(setting, recipe(config, setting)) for setting in settings(config)]
    moments = {setting.fork: begins(setting, config.train.epochs) for setting, _ in wanted if setting.start >= 0}
    trunk, states = complete(wanted[0][1], dataset, device, keep=list(moments.values()))
    tables = []
    for number, (setting, run) in enumerate(wanted, 1):
        model = (trunk if setting.fork == CONTINUED
                 else complete(run, dataset, device, states.get(moments.get(setting.fork)))[0])
        rows = attacked(config, model, dataset, device).assign(method=config.method, seed=config.seed)
        tables.append(rows.assign(**asdict(setting))[COLUMNS])
        rates = {name: hits.to_numpy().mean() for name, hits in measured(tables[-1]).items()}
        log(f"fork {number}/{len(wanted)}  {setting.fork}: clean {rates['clean']:.1%}, as published "
            f"{rates['published']:.1%}, worst case {rates['robust']:.1%}")
    return pd.concat(tables, ignore_index=True)


def attacked(config: Config, model: nn.Module, dataset: Dataset, device: torch.device) -> pd.DataFrame:
    """`adaptive.attacked` on validation and test images; validation images, which only choose, without the slow tier.

    A network without dummies is the same to both protocols, so it is attacked once, and the rows are given twice.
    """
    plain, found = adaptive.raw(model) is model, adaptive.few(config)
    twice = [name for protocol, name in found if protocol == PUBLISHED]
    found = {key: attack for key, attack in found.items() if not (plain and key[0] == PUBLISHED)}
    fast = {key: attack for key, attack in found.items() if key[1] not in evaluate.TIERS}
    table = pd.concat([adaptive.attacked(config, model, {"validation": dataset.validation}, device, fast),
                       adaptive.attacked(config, model, {"test": dataset.test}, device, found)], ignore_index=True)
    return pd.concat([table, table[plain & table.attack.isin(twice)].assign(protocol=PUBLISHED)], ignore_index=True)


def measured(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What is true of each image of each network: measure -> frame (networks by KEYS, images) of booleans.

    `SHARES`, of which these are of test images: clean: right; published: right under every attack as published, and
    clean; robust: right under every attack of both protocols; trapped: the PGD-10 example as published has the label's
    own dummy as its raw prediction, which is then not the deployed one; dummies: the image itself has some dummy.
    validation_published, validation_robust: as published and robust, of validation images.
    """
    test, validation = (table[table.split == split] for split in ("test", "validation"))
    clean = test[test.attack == evaluate.CLEAN]
    ten = test[(test.attack == "pgd-10") & (test.protocol == PUBLISHED)]
    hits = {"clean": adaptive.worst_case(clean, KEYS), "published": adaptive.worst_case(test, KEYS, PUBLISHED),
            "robust": adaptive.worst_case(test, KEYS),
            "trapped": ten.assign(hit=(ten.raw != ten.predicted) & (ten.predicted == ten.label)),
            "dummies": clean.assign(hit=clean.raw != clean.predicted),
            "validation_published": adaptive.worst_case(validation, KEYS, PUBLISHED),
            "validation_robust": adaptive.worst_case(validation, KEYS)}
    order = pd.MultiIndex.from_frame(table[KEYS].drop_duplicates())
    return {name: rows.pivot(index=KEYS, columns="index", values="hit").reindex(order) for name, rows in hits.items()}


def by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, seed and network of the table of `explore`, in its order.

    Columns: KEYS; SETTING; the `SHARES` in [0, 1], with _low and _high (Wilson, 95 %); `CHANGES`, the accuracies less
    those of CONTINUED on the same test images, with _low and _high (`stats.paired`, 95 %); test_images and
    validation_images (n); chose_published and chose_robust: whether validation images choose this network where one
    believes the published protocol, and where one believes the worst case of both. Candidates are CONTINUED and the
    forks; of equal ones the first is taken.
    """
    found, hits = table[[*KEYS, *SETTING]].drop_duplicates(KEYS).set_index(KEYS), measured(table)
    for name in SHARES:
        found[name], right, n = hits[name].mean(axis=1), hits[name].sum(axis=1).to_numpy(), hits[name].shape[1]
        found[f"{name}_low"], found[f"{name}_high"] = stats.wilson(right, n)
    for name in ACCURACIES:
        changes = [stats.paired(hits[name].loc[key], hits[name].loc[(*key[:2], CONTINUED)]) for key in found.index]
        for column, end in (("", "mean"), ("_low", "low"), ("_high", "high")):
            found[f"{name}_change{column}"] = [change[end] for change in changes]
    found["test_images"], found["validation_images"] = (hits[name].shape[1] for name in ("clean", "validation_robust"))
    for name in BELIEFS.values():
        best = found[found.radius.isna()].groupby(KEYS[:2])[f"validation_{name}"].idxmax()  # of equal ones the first
        found[f"chose_{name}"] = found.index.isin(best)
    return found.reset_index()


def choices(found: pd.DataFrame) -> pd.DataFrame:
    """What validation images choose in `by_seed`, and what it is worth: a row for each method, seed and belief.

    Columns: method, seed, believed (the protocol), fork, validation (the accuracy that chose it), and on test images
    clean, published and robust.
    """
    rows = pd.concat([found[found[f"chose_{name}"]].assign(believed=protocol, validation=found[f"validation_{name}"])
                      for protocol, name in BELIEFS.items()]).sort_values(["method", "seed"], kind="stable")
    return rows[["method", "seed", "believed", "fork", "validation", *ACCURACIES]].reset_index(drop=True)


def over(found: pd.DataFrame) -> pd.DataFrame:
    """`by_seed` over seeds: a row for each method and network.

    Columns: method, fork, SETTING, group (see `group`), each of `SHARES` and `CHANGES` with _low and _high, n (seeds),
    and how many seeds chose it, chose_published and chose_robust. The interval is Student's t over seeds; of one seed
    it is that of `by_seed`, over images.
    """
    rows = []
    for (method, fork), runs in found.groupby(["method", "fork"], sort=False):
        first = runs.iloc[0]
        row = {"method": method, "fork": fork, **first[SETTING], "group": group(fork)}
        for name in (*SHARES, *CHANGES):
            each = stats.over_seeds(runs[name], within=(-1 if name in CHANGES else 0, 1))
            alone = {end: first[f"{name}_{end}"] for end in ("low", "high")} if len(runs) == 1 else {}
            row |= {name: each["mean"], **{f"{name}_{end}": (each | alone)[end] for end in ("low", "high")}}
        chose = {f"chose_{name}": runs[f"chose_{name}"].sum() for name in BELIEFS.values()}
        rows.append({**row, "n": len(runs), **chose})
    return pd.DataFrame(rows)


def group(fork: str) -> str:
    """What a fork is about: 'controls', 'labels', 'start', 'adversary' or 'radius'."""
    word = fork.split()[0]
    others = "controls" if fork in (CONTINUED, HALF, DUCAT) else "labels"
    return word if word in ("start", "adversary", "radius") else others
