"""Evaluation: one row for each image under each attack; every accuracy is a group-by of that table.

Nothing is evaluated twice: per-class, worst-class and worst-case accuracy, confusion and intervals all derive
from the predicted labels kept here.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, autoattack, compute, data, stats, train
from lib.config import Config, folder, on_the_spot
from lib.config import load as load_config
from lib.data import Dataset, Files, Images
from lib.params import known
from lib.progress import fingerprint

CLEAN, WORST = "clean", "worst case"
STRONG = "strong"  # see `few_attacks`
KEYS = ["method", "seed", "checkpoint", "split", "attack"]

# The strongest attack of a run: attacks one after the other, each on what the ones before left. `report` is within
# 0.02 points of AutoAttack in the nine logs that AWP's authors publish, in a quarter to a third of its time; in L2 on
# digits it is not (`notebooks/pipeline/06_parity`). `final` is the reference AutoAttack itself.
TIERS = {
    "quick": {"apgd-ce-20": {"attack": "apgd", "steps": 20},
              "margin-20": {"attack": "pgd", "loss": "margin", "steps": 20, "step_size": 1 / 8}},
    "report": {"apgd-ce": {"attack": "apgd", "steps": 100}, "apgd-t": {"attack": "apgd_targeted", "steps": 100}},
    "final": {},
}


def per_sample(model: nn.Module, images: Images | Files, attack: attacks.Attack | None, generator: torch.Generator,
               batch_size: int = 500, arithmetic: Callable[[], AbstractContextManager] = nullcontext) -> pd.DataFrame:
    """One row an image under one attack (None: clean), in eval mode: columns index and those of `score`.

    arithmetic: makes the context of the attack, such as `compute.fast`; what it finds is scored in float32.
    Raises ConfigError for images, labels or a model that attacks cannot be run on; see `attacks.check`.
    """
    rows = []
    with attacks.under_attack(model), torch.no_grad():
        for x, y in images.in_order(batch_size):
            attacks.check(model, x, y)
            with arithmetic():
                x_adv = attack(model, x, y, generator=generator) if attack else x
            rows.append(score(model, x_adv, y))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(index=np.arange(len(table)))[["index", *table.columns]]


def score(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
    """Columns label, predicted, loss, margin and peak of images (N, C, H, W), in the model's present mode, in float32.

    loss: cross-entropy; margin: the highest wrong logit less that of the label, positive where misclassified. peak: the
    variance of the class probabilities over its largest value, from 0 (all classes alike) to 1 (one class certain).
    """
    with compute.exact(x.device):
        logits = model(x)
    squares = logits.softmax(1).square().sum(1)
    classes = logits.shape[1]
    values = {"label": y, "predicted": logits.argmax(1), "loss": attacks.cross_entropy(logits, y),
              "margin": attacks.margin(logits, y), "peak": (classes * squares - 1) / (classes - 1)}
    return pd.DataFrame({name: value.detach().cpu() for name, value in values.items()})


def cascade(*each: attacks.Attack) -> attacks.Attack:
    """The attacks one after the other as one: each is run only on the images that no earlier one fooled, in float32."""
    def attack(model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """The first example that fools the model or, where none does, the last attack's."""
        def right(x: Tensor, y: Tensor) -> Tensor:
            """Where the model is right about x, whatever the arithmetic of the attacks."""
            with compute.exact(x.device):
                return model(x).argmax(1) == y

        x_adv, left = x.clone(), right(x, y).nonzero().squeeze(1)
        for one in each:
            if len(left):
                x_adv[left] = one(model, x[left], y[left], generator=generator)
                left = left[right(x_adv[left], y[left])]
        return x_adv

    return attack


def all_attacks(config: Config) -> dict[str, attacks.Attack]:
    """The attacks of params.yaml and the tier, the strongest that is run, by name."""
    tier = config.evaluate.tier
    known("tier", tier, TIERS, "evaluate.tier of params.yaml")
    found = {name: attacks.from_params(name, numbers, config.threat) for name, numbers in config.attacks.items()}
    if tier == "final":
        return found | {tier: Reference(config)}
    return found | {tier: cascade(*(attacks.from_params(name, numbers, config.threat)
                                    for name, numbers in TIERS[tier].items()))}


def few_attacks(config: Config) -> dict[str, attacks.Attack | None]:
    """For experiments that measure many networks: CLEAN, the headline attack, and STRONG.

    STRONG is the headline attack, and then those of the tier quick, on what is left.
    """
    headline = config.evaluate.headline
    one = attacks.from_params(headline, config.attacks[headline], config.threat)
    more = (attacks.from_params(name, numbers, config.threat) for name, numbers in TIERS["quick"].items())
    return {CLEAN: None, headline: one, STRONG: cascade(one, *more)}


def attacked(config: Config, model: nn.Module, splits: Mapping[str, Images | Files], device: torch.device,
             names: Sequence[str] = ()) -> pd.DataFrame:
    """What one network says of some splits: columns split, attack, index, label, predicted.

    names: of the attacks, by default all of `few_attacks`. They compute as `config.compute` says.
    """
    found, tables, arithmetic = few_attacks(config), [], partial(compute.fast, config.compute, device)
    for split, images in splits.items():
        for name in names or found:
            rows = per_sample(model, images, found[name], compute.generator(config.seed, device),
                              config.evaluate.batch_size, arithmetic)
            tables.append(rows[["index", "label", "predicted"]].assign(split=split, attack=name))
    return pd.concat(tables, ignore_index=True)[["split", "attack", "index", "label", "predicted"]]


class Reference:
    """The reference AutoAttack as an attack; `reports` keeps of each call the counts, flags, seconds and version.

    It computes in float32. An interrupted run goes on from a file under results/<profile>/unfinished.
    """

    def __init__(self, config: Config):
        self.config, self.reports = config, []

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Its examples; the seed is the run's, since the package takes no generator."""
        state = folder("unfinished", profile=self.config.profile) / f"{fingerprint(model.state_dict())[:16]}.pt"
        with compute.exact(x.device):
            found = autoattack.standard(model, x, y, threat=self.config.threat, seed=self.config.seed, state_path=state)
        self.reports.append({key: getattr(found, key) for key in ("counts", "flags", "seconds", "version")})
        return found.x_adv


def table(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
          log: Callable[[str], None] = print, found: dict[str, attacks.Attack] | None = None) -> pd.DataFrame:
    """The per-sample table of one run: both checkpoints, all attacks on the test images, and the headline attack
    on training images without augmentation. Columns: KEYS and those of `per_sample`. found: by default `all_attacks`.
    Attacks compute as `config.compute` says, scores are float32.
    """
    found, seen = found or all_attacks(config), dataset.train.first(config.evaluate.training_images)
    work = [("test", dataset.test, name) for name in (CLEAN, *found)]
    work += [("train", seen, name) for name in (CLEAN, config.evaluate.headline)]
    tables, arithmetic = [], partial(compute.fast, config.compute, device)
    for checkpoint in train.CHECKPOINTS:
        model = train.model(config, trained, checkpoint, dataset, device)
        for split, images, name in work:
            size = len(images) if name == "final" else config.evaluate.batch_size  # AutoAttack cuts batches itself
            rows = per_sample(model, images, found.get(name), compute.generator(config.seed, device), size, arithmetic)
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
    return pd.concat([load(run, compute.device(run.compute)) for run in runs], ignore_index=True)


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
    return ordered.drop_duplicates(keys).drop(columns="hit").assign(attack=WORST).sort_values(keys)


def by_class(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each class and run over its own images, clean errors included: columns as `accuracy`."""
    return accuracy(table, [*KEYS, "label"]).sort_values("label", kind="stable", ignore_index=True)


def confusion(table: pd.DataFrame, classes: int) -> np.ndarray:
    """Share of the images of class i (row) that are predicted as class j (column): (classes, classes)."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (table.label.to_numpy(), table.predicted.to_numpy()), 1)
    return counts / counts.sum(1, keepdims=True).clip(min=1)
