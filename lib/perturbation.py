"""Weight perturbation taken apart: how large it is, in which direction it goes, and how hard that is searched for.

The ablation of Wu et al. (NeurIPS 2020), which could not be read in full, so the values tried are ours. Each network is
trained anew, from the same seed, in the long training of `lib.trajectory`, in which the robust generalisation gap
opens; its last weights are measured. gamma is chosen on validation images, and reported on test images.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import compute, evaluate, landscape, stats, train, trajectory
from lib.config import Config
from lib.data import Dataset, Images
from lib.methods import awp  # noqa: F401  a stage depends on what is imported, not on names in a spec
from lib.params import ConfigError
from lib.weights import filter_normalised

NONE, ADVERSARIAL, RANDOM = "none", "adversarial", "random"
SETTING = ["direction", "gamma", "alternations", "steps"]
KEYS = ["method", "seed", *SETTING]
ACCURACIES = {  # of `by_seed`: name -> split and attack, of which None is the headline attack
    "train": ("train", None), "validation": ("validation", None), "test": ("test", None),
    **{f"{split}_{attack}": (split, attack) for split in ("validation", "test")
       for attack in (evaluate.CLEAN, evaluate.STRONG)}}
MEASURES = (*ACCURACIES, "gap", "sharpness")
BINS = 80


@dataclass(frozen=True)
class Setting:
    """One weight perturbation: its direction, gamma, A (`alternations`) and K2 (`steps`), as in `lib.methods.awp`.

    Of NONE gamma is 0; of all but the adversarial one A and K2 are 1, and mean nothing.
    """

    direction: str
    gamma: float
    alternations: int = 1
    steps: int = 1

    def __str__(self) -> str:
        more = f", A = {self.alternations}" * (self.alternations > 1) + f", K2 = {self.steps}" * (self.steps > 1)
        return self.direction if self.direction == NONE else f"{self.direction}, gamma {self.gamma:g}{more}"


def settings(config: Config) -> list[Setting]:
    """All that `config.perturbation` tries, each once; the gamma of A and K2 is one of the adversarial ones."""
    tried = config.perturbation
    found = [Setting(NONE, 0.0)]
    found += [Setting(ADVERSARIAL, float(g)) for g in sorted({*tried.adversarial, tried.gamma}) if g]
    found += [Setting(RANDOM, float(g)) for g in sorted(set(tried.random)) if g]
    found += [Setting(ADVERSARIAL, tried.gamma, steps=k) for k in sorted(set(tried.steps)) if k != 1]
    found += [Setting(ADVERSARIAL, tried.gamma, alternations=a) for a in sorted(set(tried.alternations)) if a != 1]
    return found


def explore(config: Config, dataset: Dataset, device: torch.device,
            log: Callable[[str], None] = print) -> dict[str, pd.DataFrame]:
    """Trains `config.method` with each of the `settings`, and measures it. Three tables, each with columns `KEYS`, and:

    per_sample: split, attack, index, label, predicted; of the training images only under the headline attack.
    flatness: number (of the direction), value (S on training images), images. weights: left, right, count, the weights
    of the last convolution in bins that all settings share. A network that training has left at chance stays in.
    """
    few, wanted = trajectory.fewer(dataset, config.trajectory.fraction), settings(config)
    seen = few.train.first(config.evaluate.training_images)
    others = {"validation": dataset.validation, "test": dataset.test}
    samples, curves, kernels = [], [], []
    for number, setting in enumerate(wanted, 1):
        model = network(config, few, setting, device)
        keys = {"method": config.method, "seed": config.seed, **asdict(setting)}
        rows = pd.concat([evaluate.attacked(config, model, {"train": seen}, device, [config.evaluate.headline]),
                          evaluate.attacked(config, model, others, device)])
        samples.append(rows.assign(**keys)[[*KEYS, *rows.columns]])
        curves.append(_sharpness(config, model, few.train, device).assign(**keys))
        kernels.append((keys, _last_convolution(model)))
        found = _measured(samples[-1], curves[-1]).iloc[0]
        log(f"perturbation {number}/{len(wanted)}  {setting}: under {config.evaluate.headline} training images "
            f"{found['train']:.1%}, test images {found['test']:.1%}; S {found['sharpness']:.2f}")
    flat = pd.concat(curves, ignore_index=True)[[*KEYS, "number", "value", "images"]]
    return {"per_sample": pd.concat(samples, ignore_index=True), "flatness": flat, "weights": _histograms(kernels)}


def network(config: Config, few: Dataset, setting: Setting, device: torch.device) -> nn.Module:
    """The last weights of `config.method` with one setting of AWP, trained on `few`, in eval mode."""
    if "awp" in config.method.split("+"):
        raise ConfigError(f"studies.perturbation in params.yaml names '{config.method}': name it without awp, which "
                          "this study adds itself")
    run = trajectory.recipe(config)
    if setting.direction != NONE:
        knobs = {**asdict(setting), "warmup": config.perturbation.warmup}
        run = replace(run, method=f"{config.method}+awp", knobs={**config.knobs, "awp": knobs})
    trained = train.fit(run, few, device, log=lambda line: None)
    return train.model(run, trained, "last", few, device)


def _sharpness(config: Config, model: nn.Module, images: Images, device: torch.device) -> pd.DataFrame:
    """S on training images along each of `config.landscape.directions` directions: columns number, value, images."""
    x, y = images.first(config.landscape.images).floats()
    alphas, generator = np.array([-0.5, 0.0, 0.5]), compute.generator(config.seed, device)
    curves = [landscape.curve(config, model, x, y, filter_normalised(model, generator), alphas)
              for _ in range(config.landscape.directions)]
    values = landscape.sharpness(alphas, np.array(curves))
    return pd.DataFrame({"number": np.arange(len(values)), "value": values, "images": len(y)})


def _last_convolution(model: nn.Module) -> np.ndarray:
    """The weights of the last convolution, in one row."""
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1].weight.detach().flatten().cpu().numpy()


def _histograms(kernels: Sequence[tuple[dict, np.ndarray]]) -> pd.DataFrame:
    """How many weights lie in each bin from left to right; the bins are symmetric about 0."""
    edges = np.linspace(-1, 1, BINS + 1) * max(np.abs(w).max() for _, w in kernels)
    return pd.concat([pd.DataFrame({**keys, "left": edges[:-1], "right": edges[1:], "count": np.histogram(w, edges)[0]})
                      for keys, w in kernels], ignore_index=True)


def _measured(table: pd.DataFrame, flatness: pd.DataFrame) -> pd.DataFrame:
    """The columns of `by_seed` that each network has by itself."""
    headline = next(a for a in table.attack.unique() if a not in (evaluate.CLEAN, evaluate.STRONG))
    order = pd.MultiIndex.from_frame(table[KEYS].drop_duplicates())
    hits = (table.label == table.predicted).groupby([*(table[c] for c in (*KEYS, "split", "attack"))])
    rates, sizes = (hits.agg(how).unstack(["split", "attack"]).reindex(order) for how in ("mean", "size"))
    found = pd.DataFrame({name: rates[split, attack or headline] for name, (split, attack) in ACCURACIES.items()})
    found["gap"] = found["train"] - found["test"]
    each = flatness.groupby(KEYS).value
    curves = {key: stats.over_seeds(values) for key, values in each}  # its "seeds" are the directions
    for end, column in (("mean", "sharpness"), ("low", "sharpness_low"), ("high", "sharpness_high"),
                        ("n", "directions")):
        found[column] = [curves[key][end] for key in order]
    for split in ("train", "validation", "test"):
        found[f"{split}_images"] = sizes[split, headline]
    return found.reset_index()


def by_seed(table: pd.DataFrame, flatness: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, seed and setting of the tables of `explore`, in their order.

    Columns: KEYS; accuracies train, validation and test (under the headline attack), with _clean and _strong those on
    clean images and under STRONG; gap, train less test; sharpness, the mean of S over directions, with _low and _high
    (Student's t over directions); directions, train_images, validation_images, test_images (n); dead, whether the
    network is at chance (`at_chance`); chose, whether validation images choose this gamma (`chosen`).
    """
    found = _measured(table, flatness)
    found["dead"] = [at_chance(run) for _, run in table.groupby(KEYS, sort=False)]
    choice = {key: chosen(run) for key, run in table.groupby(["method", "seed"])}
    best = [choice[run] for run in zip(found.method, found.seed, strict=True)]
    return found.assign(chose=_sweep(found) & (found.gamma == np.array(best)))


def _sweep(table: pd.DataFrame) -> pd.Series:
    """Which rows are of the sweep of gamma in the adversarial direction, 0 among them."""
    return (table.direction != RANDOM) & (table.alternations == 1) & (table.steps == 1)


def chosen(table: pd.DataFrame) -> float:
    """The gamma of the adversarial direction with the highest accuracy under STRONG on the validation images of a run.

    0, no perturbation, is among the candidates. Of equal ones the smaller is taken.
    """
    rows = table[_sweep(table) & (table.split == "validation") & (table.attack == evaluate.STRONG)]
    return float((rows.label == rows.predicted).groupby(rows.gamma).mean().idxmax())  # groupby sorts


def at_chance(table: pd.DataFrame) -> bool:
    """Whether one network, on clean test images, is no better than always naming the commonest class.

    By the lower end of Wilson's 95 % interval.
    """
    rows = table[(table.split == "test") & (table.attack == evaluate.CLEAN)]
    low, _ = stats.wilson((rows.label == rows.predicted).sum(), len(rows))
    return bool(low <= rows.label.value_counts(normalize=True).max())


def over(found: pd.DataFrame) -> pd.DataFrame:
    """`by_seed` over seeds: a row for each method and setting.

    Columns: method, SETTING, each of `MEASURES` with _low and _high, n (seeds), and how many seeds are dead and chose
    it. The interval is Student's t over seeds; of one seed it is over images (Wilson; for the gap, of both splits), and
    for sharpness over directions.
    """
    rows = []
    for key, runs in found.groupby(["method", *SETTING], sort=False):
        row = dict(zip(["method", *SETTING], key, strict=True))
        for name in MEASURES:
            within = (0, 1) if name in ACCURACIES else (-1, 1) if name == "gap" else (-np.inf, np.inf)
            each = stats.over_seeds(runs[name], within=within)
            low, high = _over_images(runs.iloc[0], name) if len(runs) == 1 else (each["low"], each["high"])
            row |= {name: each["mean"], f"{name}_low": low, f"{name}_high": high}
        rows.append({**row, "n": len(runs), "dead": runs.dead.sum(), "chose": runs.chose.sum()})
    return pd.DataFrame(rows)


def _over_images(row: pd.Series, name: str) -> tuple[float, float]:
    """The interval of one measure of one network."""
    if name == "sharpness":
        return row["sharpness_low"], row["sharpness_high"]
    if name == "gap":
        (a_low, a_high), (b_low, b_high) = (_over_images(row, split) for split in ("train", "test"))
        return (row["gap"] - np.hypot(row["train"] - a_low, b_high - row["test"]),
                row["gap"] + np.hypot(a_high - row["train"], row["test"] - b_low))
    n = row[f"{ACCURACIES[name][0]}_images"]
    return stats.wilson(round(row[name] * n), n)


def gain(table: pd.DataFrame) -> pd.DataFrame:
    """What each setting changes on the same test images under STRONG, against none: a row for each seed and setting.

    Columns: KEYS, before, after, change, low, high (`stats.paired`, 95 % over images) and n (images).
    """
    rows = table[(table.split == "test") & (table.attack == evaluate.STRONG)]
    hits = (rows.label == rows.predicted).groupby([*(rows[c] for c in (*KEYS, "index"))]).first().unstack()
    plain = hits.xs(NONE, level="direction").droplevel(SETTING[1:])
    found = hits.reindex(pd.MultiIndex.from_frame(rows.loc[rows.direction != NONE, KEYS].drop_duplicates()))
    before = [plain.loc[key[:2]] for key in found.index]
    changes = [stats.paired(after, b) for (_, after), b in zip(found.iterrows(), before, strict=True)]
    rates = pd.DataFrame({"before": [b.mean() for b in before], "after": found.mean(axis=1)}, index=found.index)
    changes = pd.DataFrame(changes, index=found.index).rename(columns={"mean": "change"})
    return rates.join(changes[["change", "low", "high", "n"]]).reset_index()


def sweeps(found: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """`over` of one method as arrays, for `figures.perturbation_sweep`.

    For 'none', 'adversarial', 'random' and each K2 and A beyond 1 ('K2 = 2'): gamma (G,), and of each of `MEASURES`
    mean, low and high (G, 3).
    """
    names = [f"K2 = {k}" if k > 1 else f"A = {a}" if a > 1 else d
             for d, a, k in zip(found.direction, found.alternations, found.steps, strict=True)]
    return {name: {"gamma": rows.gamma.to_numpy(),
                   **{m: rows[[m, f"{m}_low", f"{m}_high"]].to_numpy() for m in MEASURES}}
            for name, rows in found.groupby(names, sort=False)}


def histograms(weights: pd.DataFrame) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """The table `weights` of one run, of A = K2 = 1, for `figures.weight_histograms`: edges (B + 1,), and direction ->
    counts (B,) by gamma ('gamma 0.01'), of which 'none' is the first.
    """
    rows = weights[(weights.alternations == 1) & (weights.steps == 1)]
    none = {NONE: rows[rows.direction == NONE]["count"].to_numpy()}
    panels = {direction: {**none, **{f"gamma {gamma:g}": each["count"].to_numpy()
                                     for gamma, each in rows[rows.direction == direction].groupby("gamma")}}
              for direction in (ADVERSARIAL, RANDOM)}
    return np.append(weights.left.unique(), weights.right.max()), panels
