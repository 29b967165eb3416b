"""Sharpness of the weight loss landscape and the robust generalisation gap along training.

The experiment is the first figure of Wu et al. (NeurIPS 2020), in a regime in which the gap opens: a long training with
a stepwise learning rate and, on digits, few images (ours). S, sharpness, is `lib.landscape.sharpness`; the gap is the
accuracy under the headline attack on training images, at w, in eval mode and without augmentation, less that on test
images. The test images choose nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import compute, evaluate, landscape, methods, train
from lib.config import Config
from lib.data import Dataset, Images
from lib.params import ConfigError
from lib.weights import Direction, filter_normalised, moved

ALONG, BEST, LAST = "along", "best", "last"
TAIL = 6  # the last epochs, whose mean is the "last" of the paper's table, as the numbers of the authors' logs suggest


def recipe(config: Config) -> Config:
    """The run's numbers with the epochs and the schedule of `config.trajectory`.

    The trace of `train.fit` is left at the last epoch alone: the looks stand in its place, and nothing depends on it.
    """
    epochs, schedule = config.trajectory.epochs, config.trajectory.schedule
    return replace(config, train=replace(config.train, epochs=epochs, schedule=schedule, trace=epochs))


def fewer(dataset: Dataset, fraction: float) -> Dataset:
    """The data set with the first share `fraction` of each class's training images, in their order.

    Of each class at least one image stays. Validation and test images stay, and so do the statistics of the channels.
    Raises ConfigError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"trajectory.fraction in params.yaml is {fraction:g}: it has to be above 0 and at most 1")
    images = dataset.train
    y = images.y.cpu()
    kept = [(y == c).nonzero().squeeze(1) for c in y.unique()]
    kept = torch.cat([each[:max(1, round(fraction * len(each)))] for each in kept]).sort().values
    if isinstance(images, Images):
        return replace(dataset, train=images.take(kept.to(images.y.device)))
    few = replace(images, paths=images.paths[kept.numpy()], y=images.y[kept.to(images.y.device)])
    return replace(dataset, train=few)


def drops(config: Config) -> list[int]:
    """The last epoch before each drop of the learning rate, of a piecewise schedule; none of another."""
    epochs = config.train.epochs
    return sorted({epochs // 2, epochs * 3 // 4} - {0}) if config.train.schedule == "piecewise" else []


def looks_at(config: Config) -> dict[int, bool]:
    """The epochs that are looked at, in order, and for each whether its landscape is made too.

    With a landscape: every `config.trajectory.every`-th, and the last one before and the first one after each drop of
    the learning rate. Without: the last `TAIL` of training. config: of `recipe`.
    """
    epochs = config.train.epochs
    wide = {*range(config.trajectory.every, epochs + 1, config.trajectory.every),
            *(e for d in drops(config) for e in (d, d + 1))}
    return {e: e in wide for e in sorted(wide | set(range(max(1, epochs - TAIL + 1), epochs + 1)))}


def learning_rates(config: Config) -> np.ndarray:
    """The learning rate of each epoch, as if an epoch were one step: (epochs,)."""
    weight, rates = nn.Linear(1, 1), []
    optimizer, scheduler = train.optimizer_and_schedule(config, weight, config.train.epochs)
    for _ in range(config.train.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def radius(config: Config, epoch: int) -> float:
    """The share of eps that the training attack has reached after an epoch: the warm-up of the objective, ours."""
    warmup = config.knobs.get(config.method.split("+")[0], {}).get("warmup", 0.0)
    return min(1.0, epoch / config.train.epochs / warmup) if warmup else 1.0


@dataclass(frozen=True)
class Explored:
    """What one training leaves, as tables and arrays; `save` says the files.

    looks: a row a look, of the deployed network along training, and two more, of the checkpoints. Columns method, seed,
    checkpoint ('along', 'best', 'last'), epoch, lr, train_clean, train, validation, test_clean, test (accuracies;
    without suffix under the headline attack), train_loss, test_loss (mean cross-entropy under the headline attack), gap
    (train less test), sharpness, sharpness_test (means over directions; nan without a landscape), radius (share of eps
    in training). sharpness: S by direction, columns method, seed, checkpoint, epoch, split, direction, value, images.
    curves: g on training images: alphas (A,), epochs (E,), along (E, D, A), best and last (D, A). per_sample: of the
    checkpoints, columns method, seed, checkpoint, split, attack, index, label, predicted; attacks `evaluate.CLEAN`, the
    headline attack and, on test images, `evaluate.STRONG`.
    """

    looks: pd.DataFrame
    sharpness: pd.DataFrame
    curves: dict[str, np.ndarray]
    per_sample: pd.DataFrame

    def save(self, folder: Path) -> None:
        """looks.csv, sharpness.csv, per_sample.csv and curves.npz in `folder`."""
        for name in ("looks", "sharpness", "per_sample"):
            getattr(self, name).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        np.savez_compressed(folder / "curves.npz", **self.curves)


class Observer:
    """Looks at networks of one run. It has its own generators, and changes no network."""

    def __init__(self, config: Config, dataset: Dataset):
        self.config, self.rates = config, learning_rates(config)
        self.images = {"train": dataset.train.first(config.evaluate.training_images),
                       "validation": dataset.validation, "test": dataset.test}
        self.near = landscape.sample(config, dataset)
        self.tried = evaluate.few_attacks(config)
        self.alphas = np.linspace(-config.landscape.span, config.landscape.span, config.trajectory.points)

    def said(self, model: nn.Module, strong: bool) -> pd.DataFrame:
        """`evaluate.per_sample` of each split, clean and under the headline attack; of test images STRONG too."""
        tables = []
        for split, images in self.images.items():
            for name, attack in self.tried.items():
                if name != evaluate.STRONG or strong and split == "test":
                    generator = compute.generator(self.config.seed, images.y.device)
                    rows = evaluate.per_sample(model, images, attack, generator)
                    tables.append(rows.assign(split=split, attack=name))
        return pd.concat(tables, ignore_index=True)

    def curves(self, model: nn.Module) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """g on training images (D, A), and S by direction (D,) on training and on test images.

        The directions begin from the same noise at each look, and have the norms of the filters that they meet.
        """
        generator = compute.generator(self.config.seed, self.near["train"][1].device)
        ways = [filter_normalised(model, generator) for _ in range(self.config.landscape.directions)]
        three = np.array([-0.5, 0.0, 0.5])
        found = self.g(model, "train", ways, self.alphas)
        at_test = self.g(model, "test", ways, three)
        return found, {"train": landscape.sharpness(self.alphas, found), "test": landscape.sharpness(three, at_test)}

    def g(self, model: nn.Module, split: str, ways: list[Direction], alphas: np.ndarray) -> np.ndarray:
        """The adversarial loss at w + alpha d for each direction d, computed once at w: (D, A)."""
        found = np.full((len(ways), len(alphas)), landscape.adversarial_loss(self.config, model, *self.near[split]))
        for row, way in zip(found, ways, strict=True):
            for place in np.flatnonzero(alphas):
                with moved(model, (alphas[place], way)):
                    row[place] = landscape.adversarial_loss(self.config, model, *self.near[split])
        return found

    def look(self, epoch: int, model: nn.Module, checkpoint: str = ALONG, wide: bool = True) -> dict:
        """A `row` of `looks`; with `wide` the landscape, rows `sharp` of sharpness and `curve`, g of training images
        (D, A), else none; and of a checkpoint `table`, rows of per_sample.
        """
        keys = {"method": self.config.method, "seed": self.config.seed, "checkpoint": checkpoint}
        table = self.said(model, strong=checkpoint != ALONG)
        curve, sharp = self.curves(model) if wide else (None, {})
        row = {**keys, "epoch": epoch, "lr": float(self.rates[epoch - 1]), **_row(table, self.config),
               "sharpness": float(np.mean(sharp.get("train", np.nan))),
               "sharpness_test": float(np.mean(sharp.get("test", np.nan))), "radius": radius(self.config, epoch)}
        seen = {"row": row, "sharp": []}
        for split, values in sharp.items():
            seen["sharp"] += [{**keys, "epoch": epoch, "split": split, "direction": number, "value": float(value),
                               "images": len(self.near[split][1])} for number, value in enumerate(values)]
        if wide:
            seen["curve"] = torch.from_numpy(curve)
        if checkpoint != ALONG:
            columns = ["split", "attack", "index", "label", "predicted"]
            seen["table"] = table[table.split != "validation"].assign(**keys)[[*keys, *columns]]
        return seen


def _row(table: pd.DataFrame, config: Config) -> dict[str, float]:
    """Accuracies, robust losses and the gap, of a table of `Observer.said`."""
    groups = table.assign(hit=table.label == table.predicted).groupby(["split", "attack"])
    rate, loss = groups.hit.mean(), groups.loss.mean()
    clean, headline = evaluate.CLEAN, config.evaluate.headline
    found = {"train_clean": rate["train", clean], "train": rate["train", headline],
             "validation": rate["validation", headline],
             "test_clean": rate["test", clean], "test": rate["test", headline],
             "train_loss": loss["train", headline], "test_loss": loss["test", headline],
             "gap": rate["train", headline] - rate["test", headline]}
    return {name: float(value) for name, value in found.items()}


def explore(config: Config, dataset: Dataset, device: torch.device, log: Callable[[str], None] = print) -> Explored:
    """Train once, by `recipe` on the images of `fewer`, and look at `looks_at`, and at the checkpoints best and last.

    Accuracies: of `config.evaluate.training_images` training images and all validation and test images. S: of
    `config.landscape.images` images. The looks change nothing: the weights are those of the same training without them.
    """
    config, dataset = recipe(config), fewer(dataset, config.trajectory.fraction)
    observer, wanted = Observer(config, dataset), looks_at(config)

    def look(epoch: int, model: nn.Module) -> dict | None:
        """What `train.fit` calls after each epoch."""
        if epoch not in wanted:
            return None
        seen = observer.look(epoch, model, wide=wanted[epoch])
        row = seen["row"]
        log(f"epoch {epoch}/{config.train.epochs}  under attack: train {row['train']:.1%}, test {row['test']:.1%}, "
            f"test loss {row['test_loss']:.2f}" + (f", S {row['sharpness']:.2f}" if wanted[epoch] else ""))
        return seen

    trained = train.fit(config, dataset, device, log=lambda line: None, look=look)
    epochs = {BEST: best_epoch(config, trained.history), LAST: config.train.epochs}
    ends = {name: observer.look(epoch, train.model(config, trained, name, dataset, device), name)
            for name, epoch in epochs.items()}
    every = [*filter(None, trained.seen.values()), *ends.values()]
    along = {epoch: seen["curve"].numpy() for epoch, seen in trained.seen.items() if seen and "curve" in seen}
    curves = {"epochs": np.array(list(along)), "along": np.array(list(along.values()))}
    return Explored(pd.DataFrame([seen["row"] for seen in every]),
                    pd.DataFrame([row for seen in every for row in seen["sharp"]]),
                    {"alphas": observer.alphas, **curves, **{name: ends[name]["curve"].numpy() for name in ends}},
                    pd.concat([seen["table"] for seen in ends.values()], ignore_index=True))


def best_epoch(config: Config, history: pd.DataFrame) -> int:
    """The epoch of the checkpoint 'best' of `train.Trained`, from its history."""
    order = ["robust", "clean"] if methods.build(config).attack else ["clean", "robust"]
    return int(history.sort_values(order, ascending=False, kind="stable").epoch.iloc[0])
