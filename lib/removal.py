"""The removal experiment: do attacked images come home once the class that they are taken for is gone?

Tian et al. (ICLR 2021 submission) say in their abstract of images that are attacked into specific, semantically similar
classes that they "will not exist adversarial counterparts in bounded eps-ball if we re-train the model without those
specific classes". How they measure it could not be read, so both readings are reported. `transfer`: the example made
for the full network f is shown to f_{-j}, trained without class j. `adaptive`: f_{-j} is attacked itself, which is
nearer to the sentence. The controls, another class removed and another seed, are ours.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute, data, evaluate, stats, train
from lib.config import Config
from lib.data import Dataset, Files, Images
from lib.params import ConfigError

READINGS = ("transfer", "adaptive")
GONE, OTHER_CLASS, OTHER_SEED = "class removed", "another class removed", "another seed"
LESS_CLASS, LESS_SEED = f"{GONE} less {OTHER_CLASS}", f"{GONE} less {OTHER_SEED}"
NONE = -1          # in column `removed`: no class is; this is the full network with another seed
SEED_STEP = 1000   # how far that seed lies from the run's
# What joins the resamples, so that few images give a wide interval: two images right and two wrong (Agresti and Coull
# 1998) for a rate, half an image of each of the four outcomes (Agresti and Min 2005) for a difference.
ADDED_TO_RATE = {1.0: 2.0, 0.0: 2.0}
ADDED_TO_DIFFERENCE = {1.0: 0.5, -1.0: 0.5, 0.0: 1.0}


def without(dataset: Dataset, label: int) -> Dataset:
    """The data set without the images of class `label`; the other classes keep their order and become 0 .. C - 2.

    The statistics stay those of all classes, so that networks with and without the class see the same normalisation.
    Raises ConfigError for a label that does not exist, or where fewer than two classes would be left.
    """
    count = len(dataset.classes)
    if not 0 <= label < count or count < 3:
        raise ConfigError(f"class {label} cannot be removed from the {count} classes of {dataset.name}: "
                          "it has to be one of them, and two have to be left")
    named = {name: [each for c, each in enumerate(getattr(dataset, name)) if c != label]
             for name in ("classes", "superclasses") if getattr(dataset, name)}
    return replace(dataset, **named, **{name: _without(getattr(dataset, name), label) for name in data.SPLITS})


def _without(images: Images | Files, label: int) -> Images | Files:
    keep = images.y != label
    rest = {"paths": images.paths[keep.cpu().numpy()]} if isinstance(images, Files) else {"x": images.x[keep]}
    return replace(images, y=images.y[keep] - (images.y[keep] > label).long(), **rest)


def headline(config: Config) -> attacks.Attack:
    """The headline attack of the run."""
    name = config.evaluate.headline
    return attacks.from_params(name, config.attacks[name], config.threat)


def attracted(config: Config, dataset: Dataset, model: nn.Module) -> np.ndarray:
    """How many attacked training images of other classes are taken for each class: (classes,).

    Of the first `config.evaluate.training_images` training images, under the headline attack: no test image is used.
    """
    seen = dataset.train.first(config.evaluate.training_images)
    generator = compute.generator(config.seed, seen.y.device)
    rows = evaluate.per_sample(model, seen, headline(config), generator)
    return np.bincount(rows.predicted[rows.predicted != rows.label], minlength=len(dataset.classes))


def chosen(config: Config, dataset: Dataset, model: nn.Module) -> list[int]:
    """The `config.removal.classes` classes that attract most; of two that attract alike the first."""
    most_first = np.argsort(-attracted(config, dataset, model), kind="stable")
    return [int(c) for c in most_first[:config.removal.classes]]


def retrained(config: Config, dataset: Dataset, removed: int, device: torch.device) -> tuple[nn.Module, pd.DataFrame]:
    """The last checkpoint without class `removed`, or, if that is NONE, of all classes with the seed SEED_STEP on.

    All else is as in the run itself. Returns the network and the history of its training.
    """
    if removed == NONE:
        config = replace(config, seed=config.seed + SEED_STEP)
    else:
        dataset = without(dataset, removed)
    trained = train.fit(config, dataset, device, log=lambda line: None)
    return train.model(config, trained, "last", dataset, device), trained.history


def attacked(config: Config, dataset: Dataset, model: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The test images in order, in batches (x, y, x_adv) under the headline attack; the same at every call."""
    generator, attack = compute.generator(config.seed, dataset.test.y.device), headline(config)
    for x, y in dataset.test.in_order(500):
        yield x, y, attack(model, x, y, generator=generator)


def explore(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
            log: Callable[[str], None] = print) -> pd.DataFrame:
    """Train without each chosen class in turn and once with another seed, and ask all of them about the test images.

    One row for each network and each test image whose class it knows. Columns: method, seed, removed (class or NONE),
    index, label; of the full network clean_f (its prediction of x) and fooled_as (of its own adversarial example); of
    the other network clean (of x), transfer (of the example made for the full network) and adaptive (of an example
    made for itself). All are labels of the full data set.
    """
    full, networks = train.model(config, trained, "last", dataset, device), {}
    removed = [*chosen(config, dataset, full), NONE]
    for number, label in enumerate(removed, 1):
        networks[label], history = retrained(config, dataset, label, device)
        name = f"seed {config.seed + SEED_STEP}" if label == NONE else f"without {dataset.classes[label]}"
        last = history.iloc[-1]
        log(f"removal {number}/{len(removed)}  {name}: validation: clean {last.clean:.1%}, "
            f"PGD-{config.train.steps} {last.robust:.1%}")
    return compare(config, dataset, full, networks).assign(method=config.method, seed=config.seed)[
        ["method", "seed", "removed", "index", "label", "clean_f", "fooled_as", "clean", *READINGS]]


def compare(config: Config, dataset: Dataset, full: nn.Module, networks: dict[int, nn.Module]) -> pd.DataFrame:
    """What the full network and the others, by the class that each lacks, say of the test images; see `explore`.

    Each of the others is attacked by the headline attack and, where that leaves an image right, by the tier `quick`.
    """
    quick = [attacks.from_params(name, each, config.threat) for name, each in evaluate.TIERS["quick"].items()]
    attack, tables, start = evaluate.cascade(headline(config), *quick), [], 0
    generators = {label: compute.generator(config.seed, dataset.test.y.device) for label in networks}
    for x, y, x_adv in attacked(config, dataset, full):
        with torch.no_grad():
            known = {"index": start + torch.arange(len(y), device=y.device), "label": y,
                     "clean_f": full(x).argmax(1), "fooled_as": full(x_adv).argmax(1)}
        start += len(y)
        for label, model in networks.items():
            classes, k = torch.arange(len(dataset.classes), device=y.device), y != label
            classes = classes[classes != label]  # output i of the network stands for the i-th of them
            with attacks.under_attack(model), torch.no_grad():
                own = attack(model, x[k], torch.searchsorted(classes, y[k]), generator=generators[label])
                shown = {"clean": x[k], "transfer": x_adv[k], "adaptive": own}
                said = {name: classes[model(images).argmax(1)] for name, images in shown.items()}
            columns = {name: values[k] for name, values in known.items()} | said
            rows = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
            tables.append(rows.assign(removed=label))
    return pd.concat(tables).sort_values(["removed", "index"], ignore_index=True)


def paired(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each reading and image that was right before the attack and then taken for a removed class.

    table: of `explore`, of one or several seeds. Columns: reading, method and seed as far as the table has them,
    removed (the class it was taken for), index, label; and whether the image is right, 1 or 0, under three networks:
    GONE, without that class; OTHER_CLASS, the mean of those that lack another class, not its own; and OTHER_SEED. A
    control that was not trained is nan.
    """
    fooled = table[(table.clean_f == table.label) & (table.fooled_as != table.label)]
    keys = [*(k for k in ("method", "seed") if k in table), "fooled_as", "index", "label"]
    tables = {}
    for reading in READINGS:
        hits = fooled.assign(hit=(fooled[reading] == fooled.label).astype(float))
        wide = hits.pivot(index=keys, columns="removed", values="hit")
        removed = wide.columns[wide.columns != NONE]
        same = np.equal.outer(wide.index.get_level_values("fooled_as").to_numpy(), removed.to_numpy())
        rows = pd.DataFrame({GONE: wide[removed].where(same).max(axis=1),
                             OTHER_CLASS: wide[removed].mask(same).mean(axis=1),
                             OTHER_SEED: wide.get(NONE, np.nan)}, index=wide.index, dtype=float)
        tables[reading] = rows[rows[GONE].notna()].reset_index()
    found = pd.concat(tables, names=["reading"]).reset_index(0).rename(columns={"fooled_as": "removed"})
    return found.reset_index(drop=True)


def homing(table: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """How many of the images that went to class j are right again without it, and under the two controls.

    by: columns of `paired`; () pools all removed classes and seeds, ["seed", "removed"] keeps them apart. Columns: by,
    reading, network (GONE, OTHER_CLASS, OTHER_SEED and, on the images that have both, the differences LESS_CLASS and
    LESS_SEED), n (images times seeds), images (distinct ones), rate, low, high (95 %): Wilson's for a rate in which
    each image stands once, otherwise that of `clustered`. They tell how well these images measure these networks, not
    how the next training ends: for that take by=["seed"] and `stats.over_seeds`. Without images n is 0, the rest nan.
    """
    rows, found = paired(table), []
    for reading in READINGS:
        part = rows[rows.reading == reading]
        for key, group in part.groupby([*by]) if by else [((), part)]:
            found += [{**dict(zip(by, key, strict=True)), "reading": reading, "network": name, **estimate}
                      for name, estimate in _estimates(group).items()]
    return pd.DataFrame(found, columns=[*by, "reading", "network", "n", "images", "rate", "low", "high"])


def _estimates(rows: pd.DataFrame) -> dict[str, dict]:
    """The five numbers of `homing` for rows of one reading."""
    index, found = rows["index"], {}
    for name in (GONE, OTHER_CLASS, OTHER_SEED):
        found[name] = clustered(index, rows[name], ADDED_TO_RATE)
        if found[name]["n"] == found[name]["images"] > 0:
            found[name]["low"], found[name]["high"] = stats.wilson(rows[name].sum(), found[name]["n"])
    for name, control in ((LESS_CLASS, OTHER_CLASS), (LESS_SEED, OTHER_SEED)):
        found[name] = clustered(index, rows[GONE] - rows[control], ADDED_TO_DIFFERENCE)
    return found


def clustered(index, values, added: dict[float, float], *, resamples: int = 4000, seed: int = 0) -> dict[str, float]:
    """Mean of values (n,) and its 95 % percentile bootstrap interval over images: n, images, rate, low, high. Ours.

    index: the image of each value (n,), which several values may share: images are drawn, each with all its values.
    nan is left out. added: value -> how many images of this value join the resamples, each of the average size.
    """
    each = pd.Series(np.asarray(values, float)).groupby(np.asarray(index)).agg(["sum", "count"])
    each = each[each["count"] > 0].to_numpy()
    if not len(each):
        return {"n": 0, "images": 0, "rate": np.nan, "low": np.nan, "high": np.nan}
    size, rate = each[:, 1].mean(), each[:, 0].sum() / each[:, 1].sum()
    patterns, counts = np.unique(np.round(each, 9), axis=0, return_counts=True)
    patterns = np.vstack([patterns, *([value * size, size] for value in added)])
    weights = np.append(counts, [*added.values()])
    draws = np.random.default_rng(seed).multinomial(round(weights.sum()), weights / weights.sum(), size=resamples)
    sums, sizes = (draws @ patterns).T
    low, high = np.quantile(sums / sizes, [0.025, 0.975])
    return {"n": int(each[:, 1].sum()), "images": len(each), "rate": rate, "low": min(low, rate),
            "high": max(high, rate)}


def taken_for(table: pd.DataFrame) -> pd.DataFrame:
    """What the images that went from class `label` to class `removed` are taken for once that is gone.

    Columns: reading, label, removed, next (their own class, if they came home), n (images times seeds; largest first)
    and share, of the n of all `next` together.
    """
    rows = table[(table.clean_f == table.label) & (table.fooled_as != table.label) & (table.fooled_as == table.removed)]
    found = rows.melt(["label", "removed"], READINGS, "reading", "next")
    counts = found.groupby(["reading", "label", "removed", "next"], sort=True).size().rename("n").reset_index()
    counts["share"] = counts.n / counts.groupby(["reading", "label", "removed"]).n.transform("sum")
    return counts.sort_values("n", ascending=False, kind="stable", ignore_index=True)
