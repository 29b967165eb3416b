"""What it costs to help the weakest class: two defences of ours, each at several strengths, against doing nothing.

Tian et al. (KDD 2021) announce "some modifications in the training and inference phase to improve the robustness of
the most vulnerable class". What they are could not be read. `balanced` (training) and `offset` (inference), add-ons
of lib/methods, are ours and stand in their place. A published rival, CFA, is a method of its own: 'pgd+cfa'.

Every network is attacked as it would be deployed: the offset is one of its layers. The strength, the vulnerable class
and its confound class are chosen on validation images, and reported on test images.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import compute, evaluate, methods, stats, train
from lib.config import Config
from lib.data import Dataset
from lib.evaluate import STRONG
from lib.methods import balanced, offset  # noqa: F401  a stage depends on what is imported, not on names in a spec
from lib.params import known

NONE, BALANCED, OFFSET = "none", "balanced", "offset"
MEASURES = {  # of the accuracies of the classes (..., classes)
    "mean": lambda a: a.mean(-1), "worst": lambda a: a.min(-1), "variance": lambda a: a.var(-1),
    "sd": lambda a: a.std(-1), "spread": lambda a: a.max(-1) - a.min(-1)}


def explore(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
            log: Callable[[str], None] = print) -> pd.DataFrame:
    """One row an image of the validation and the test split, for each defence, strength and attack.

    trained: the run of `config.method` without a defence, of which the last checkpoint is used. Columns: method, seed,
    defence, strength, split, attack, index, label, predicted. Attacks: `evaluate.CLEAN`, the headline attack, and
    STRONG, the headline attack and then those of the quick tier, on what is left.
    """
    strengths = ((BALANCED, config.balance.balanced), (OFFSET, config.balance.offset))
    wanted = [(NONE, 0.0), *((defence, float(s)) for defence, each in strengths for s in each if s)]
    tables = []
    for number, (defence, strength) in enumerate(wanted, 1):
        model = network(config, dataset, trained, defence, strength, device)
        rows = evaluate.attacked(config, model, {"validation": dataset.validation, "test": dataset.test}, device)
        rows = rows.assign(method=config.method, seed=config.seed, defence=defence, strength=strength)
        tables.append(rows)
        found = by_seed(rows).iloc[0]
        log(f"balance {number}/{len(wanted)}  {defence} {strength:g}: under {STRONG} {found['mean']:.1%}, "
            f"worst class {found.worst:.1%} of {found.images} test images")
    front = ["method", "seed", "defence", "strength"]
    return pd.concat(tables, ignore_index=True)[[*front, *rows.columns.drop(front)]]


def network(config: Config, dataset: Dataset, trained: train.Trained, defence: str, strength: float,
            device: torch.device) -> nn.Module:
    """The classifier with one defence at one strength, in eval mode.

    'none': the last checkpoint of `trained`. 'offset': the same weights, with an offset fitted to validation images.
    'balanced': trained anew, from the same seed.
    """
    known("defence", defence, (NONE, BALANCED, OFFSET))
    if defence == NONE:
        return train.model(config, trained, "last", dataset, device)
    run = replace(config, method=f"{config.method}+{defence}",
                  knobs={**config.knobs, defence: {"strength": strength}})
    if defence == BALANCED:
        again = train.fit(run, dataset, device, log=lambda line: None)
        return train.model(run, again, "last", dataset, device)
    method = methods.build(run)
    model = train.initial(run, method, dataset, device)
    model[:-1].load_state_dict(trained.states["last"])  # all but the offset
    method.finish(model, dataset.validation, compute.generator(train.VALIDATION_SEED, device))
    return model.eval()


def chosen(table: pd.DataFrame, defence: str) -> float:
    """The strength with the highest worst-class accuracy under STRONG on the validation images of one run.

    0, no defence, is among the candidates. Of equal ones the smaller is taken.
    """
    known("defence", defence, table.defence.unique())
    rows = table[table.defence.isin([NONE, defence])]
    worst = _by_class(rows, "validation", ["strength"]).min(axis=1)
    return float(worst.sort_index().idxmax())


def _by_class(table: pd.DataFrame, split: str, by: list[str]) -> pd.DataFrame:
    """Accuracy under STRONG: a row for each value of the columns `by`, a column for each class."""
    rows = table[(table.split == split) & (table.attack == STRONG)]
    return (rows.label == rows.predicted).groupby([*(rows[c] for c in by), rows.label]).mean().unstack()


def _defences(table: pd.DataFrame) -> list[str]:
    """The defences of a table, without 'none'."""
    return [defence for defence in table.defence.unique() if defence != NONE]


def by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """How the classes fare under STRONG on test images: a row for each seed, defence and strength.

    Columns: seed, defence, strength, `MEASURES` (the mean is over classes, worst is the worst class, variance and sd
    are over the classes, spread is best less worst), images (n) and whether validation images `chose` this strength of
    this defence; where none of its rows is chosen, they chose to do without.
    """
    classes = _by_class(table, "test", ["seed", "defence", "strength"])
    found = classes.index.to_frame(index=False)
    for name, measure in MEASURES.items():
        found[name] = measure(classes.to_numpy())
    found["images"] = table[table.split == "test"]["index"].nunique()
    choice = {(seed, d, chosen(run, d)) for seed, run in table.groupby("seed") for d in _defences(run)}
    found["chose"] = [key in choice for key in zip(found.seed, found.defence, found.strength, strict=True)]
    place = {defence: i for i, defence in enumerate(table.defence.unique())}
    return found.sort_values(["seed", "defence", "strength"], ignore_index=True,
                             key=lambda column: column.map(place) if column.name == "defence" else column)


def pareto(table: pd.DataFrame) -> pd.DataFrame:
    """`by_seed` over the seeds of a table of several runs: a row for each defence and strength.

    Columns: defence, strength, each of `MEASURES` as mean over seeds with _low and _high (Student's t, nan for one
    seed), n (seeds), images and chose (how many seeds chose it).
    """
    rows = []
    for (defence, strength), runs in by_seed(table).groupby(["defence", "strength"], sort=False):
        row = {"defence": defence, "strength": strength}
        for name in MEASURES:
            found = stats.over_seeds(runs[name], within=(0, 1))
            row |= {name: found["mean"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        rows.append({**row, "n": len(runs), "images": runs.images.iloc[0], "chose": runs.chose.sum()})
    return pd.DataFrame(rows)


def curves(table: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """`by_seed` as arrays, for `figures.pareto_curves`: for each defence, with no defence as its first strength.

    strength (K,); mean and worst (seeds, K); chose (seeds,), the place of each seed's chosen strength among the K.
    """
    found = by_seed(table)
    result = {}
    for defence in _defences(table):
        rows = found[found.defence.isin([NONE, defence])]
        mean, worst = (rows.pivot(index="seed", columns="strength", values=name) for name in ("mean", "worst"))
        choice = [chosen(run, defence) for _, run in table.groupby("seed")]
        result[defence] = {"strength": mean.columns.to_numpy(), "mean": mean.to_numpy(), "worst": worst.to_numpy(),
                           "chose": mean.columns.get_indexer(choice)}
    return result


def vulnerable(table: pd.DataFrame, classes: int) -> tuple[int, int]:
    """The class of the lowest accuracy without a defence, and the one it is most often taken for: two labels.

    Both under STRONG on validation images, all seeds of the table together; of equal ones the first.
    """
    rows = table[(table.defence == NONE) & (table.split == "validation") & (table.attack == STRONG)]
    matrix = evaluate.confusion(rows, classes)
    weak = int(np.diag(matrix).argmin())
    return weak, int((matrix - np.eye(classes))[weak].argmax())


def _pairs(table: pd.DataFrame):
    """For each seed and defence: seed, defence, chosen strength, and the test images with `before` and `after`."""
    rows = table[(table.split == "test") & (table.attack == STRONG)]
    rows = rows.assign(hit=rows.label == rows.predicted)
    for seed, run in table.groupby("seed"):
        before = rows[(rows.seed == seed) & (rows.defence == NONE)].set_index("index")
        for defence in _defences(run):
            strength = chosen(run, defence)
            after = rows[(rows.seed == seed) & rows.defence.isin([NONE, defence]) & (rows.strength == strength)]
            yield seed, defence, strength, before[["label"]].assign(
                before=before.hit, after=after.set_index("index").hit)


def paid(table: pd.DataFrame, classes: int) -> pd.DataFrame:
    """What each class gains or loses at the chosen strength, on the same test images under STRONG.

    A row for each seed, defence and class. Columns: seed, defence, strength, label, role ('vulnerable', 'confound' or
    ''), before, after, change, low, high (`stats.paired`, 95 % over images; 0 if no defence was chosen) and n (images).
    """
    roles = dict(zip(vulnerable(table, classes), ("vulnerable", "confound"), strict=True))
    rows = []
    for seed, defence, strength, pairs in _pairs(table):
        for label, of_class in pairs.groupby("label"):
            same = {"mean": 0.0, "low": 0.0, "high": 0.0, "n": len(of_class)}  # one network, compared with itself
            found = stats.paired(of_class.after, of_class.before) if strength else same
            rows.append({"seed": seed, "defence": defence, "strength": strength, "label": label,
                         "role": roles.get(label, ""), "before": of_class.before.mean(), "after": of_class.after.mean(),
                         "change": found["mean"], "low": found["low"], "high": found["high"], "n": found["n"]})
    return pd.DataFrame(rows)


def gain(table: pd.DataFrame) -> pd.DataFrame:
    """What the chosen strength changes in each of `MEASURES`, on the same test images under STRONG.

    A row for each seed, defence and measure. Columns: seed, defence, strength, measure, before, after, change, low,
    high (bootstrap over images, within each class) and n (images). It knows nothing of training noise.
    """
    rows = []
    for seed, defence, strength, pairs in _pairs(table):
        for name, measure in MEASURES.items():
            found = stats.bootstrap(lambda a, b, measure=measure: measure(b) - measure(a), pairs.label,
                                    pairs.before, pairs.after, within=(-1, 1))
            before, after = (measure(pairs.groupby("label")[c].mean().to_numpy()) for c in ("before", "after"))
            rows.append({"seed": seed, "defence": defence, "strength": strength, "measure": name, "before": before,
                         "after": after, "change": after - before, "low": found["low"], "high": found["high"],
                         "n": found["n"]})
    return pd.DataFrame(rows)
