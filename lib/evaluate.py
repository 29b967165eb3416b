"""Evaluation: one row for each image under each attack; every accuracy is a group-by of that table.

Nothing is evaluated twice: per-class, worst-class and worst-case accuracy, confusion and intervals all derive
from the predicted labels kept here.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import attacks, compute, data, stats, train
from lib.config import Config, on_the_spot
from lib.config import load as load_config
from lib.data import Dataset, Files, Images

CLEAN = "clean"
KEYS = ["method", "seed", "checkpoint", "split", "attack"]


def per_sample(model: nn.Module, images: Images | Files, attack: Callable | None, generator: torch.Generator,
               batch_size: int = 500) -> pd.DataFrame:
    """Predicted labels under one attack (None: clean), in eval mode: columns index, label, predicted."""
    predicted = []
    with attacks.under_attack(model), torch.no_grad():
        for x, y in images.in_order(batch_size):
            x_adv = attack(model, x, y, generator=generator) if attack else x
            predicted.append(model(x_adv).argmax(1))
    return pd.DataFrame({"index": np.arange(len(images)), "label": images.y.cpu(),
                         "predicted": torch.cat(predicted).cpu()})


def table(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
          log: Callable[[str], None] = print) -> pd.DataFrame:
    """The per-sample table of one run: both checkpoints, all attacks on the test images, and the headline attack
    on training images without augmentation. Columns: KEYS, index, label, predicted.
    """
    headline = config.evaluate.headline
    seen = dataset.train.first(config.evaluate.training_images)
    work = [(split, images, name) for split, images, names in
            (("test", dataset.test, [CLEAN, *config.attacks]), ("train", seen, [CLEAN, headline])) for name in names]
    tables = []
    for checkpoint in train.CHECKPOINTS:
        model = train.model(config, trained, checkpoint, dataset, device)
        for split, images, name in work:
            attack = None if name == CLEAN else attacks.from_params(name, config.attacks[name], config.threat)
            rows = per_sample(model, images, attack, compute.generator(config.seed, device))
            keys = dict(zip(KEYS, (config.method, config.seed, checkpoint, split, name), strict=True))
            tables.append(rows.assign(**keys)[[*KEYS, *rows.columns]])
            rate = (rows.label == rows.predicted).mean()
            done = len(tables)
            log(f"attack {done}/{2 * len(work)}  {checkpoint}, {split}, {name}: {rate:.1%} of {len(images)} images")
    return pd.concat(tables, ignore_index=True)


def load(config: Config, device: torch.device) -> pd.DataFrame:
    """The per-sample table of one run, as stage `attack` wrote it. By hand, in `smoke`, it is made on the spot."""
    path = config.folder("attack") / "per_sample.csv"
    if path.exists():
        return pd.read_csv(path)
    on_the_spot("attack", config, path)
    dataset = data.load(config, device)
    return table(config, dataset, train.load(config, dataset, device), device, log=lambda line: None)


def load_all(profile: str, dataset: str, axes: dict[str, list]) -> pd.DataFrame:
    """The per-sample tables of all methods and seeds of `axes` (see `lib.config.axes`) on one data set."""
    runs = [load_config(profile, dataset, method, seed) for method in axes["methods"] for seed in axes["seeds"]]
    return pd.concat([load(run, torch.device("cpu")) for run in runs], ignore_index=True)


def accuracy(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Accuracy of each group of rows of a per-sample table: columns n, hits, accuracy, low, high (Wilson, 95 %)."""
    groups = table.assign(hit=table.label == table.predicted).groupby(by, sort=False).hit
    result = groups.agg(n="size", hits="sum").reset_index()
    low, high = stats.wilson(result.hits, result.n)
    return result.assign(accuracy=result.hits / result.n, low=low, high=high)


def worst_case(table: pd.DataFrame) -> pd.DataFrame:
    """A per-sample table with one row an image: its prediction under the first attack of the table that fools it."""
    keys = [k for k in (*KEYS, "index") if k != "attack"]
    ordered = table.assign(hit=table.label == table.predicted).sort_values("hit", kind="stable")
    return ordered.drop_duplicates(keys).drop(columns="hit").assign(attack="worst case").sort_values(keys)


def by_class(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each class and run over its own images, clean errors included: columns as `accuracy`."""
    return accuracy(table, [*KEYS, "label"]).sort_values("label", kind="stable", ignore_index=True)


def confusion(table: pd.DataFrame, classes: int) -> np.ndarray:
    """Share of the images of class i (row) that are predicted as class j (column): (classes, classes)."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (table.label.to_numpy(), table.predicted.to_numpy()), 1)
    return counts / counts.sum(1, keepdims=True).clip(min=1)
