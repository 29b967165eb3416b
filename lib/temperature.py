"""Temperature-PGD: PGD on logits z / T. Is it more than the margin loss, and does it enlarge the spread of the classes?

Tian et al. (2021) name the attack; that it ascends the cross-entropy of z / T is our reading, and the margin as its
limit and the stable form are ours (`attacks.tempered`). All attacks here have the same steps, step size and start.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute, evaluate, stats, train
from lib.attacks import Attack
from lib.config import Config
from lib.data import Dataset
from lib.params import ConfigError, DataError

FORMS = {"temperature": True, "temperature-naive": False}  # name of the attack -> whether it has the stable form
CHOSEN = "temperature, chosen"  # the attack at the 1/T that a run's validation images choose
RUN = ["method", "seed"]
KEYS = [*RUN, "split", "attack", "inverse_temperature"]
IMAGES = 200  # whose gradients are looked at
Work = tuple[str, float, Attack | None]  # name, 1/T (nan: none), attack (None: clean)


def plan(config: Config, classes: int) -> dict[str, list[Work]]:
    """The attacks on each split, with the numbers of `config.temperature`.

    pgd: on cross-entropy; margin: PGD on the margin; temperature, temperature-naive: each 1/T, both forms. On test
    images also apgd and apgd-dlr (from 3 classes on), which set their own step and take one gradient more, at the
    start. Raises ConfigError unless there are numbers above 0.
    """
    numbers, nan = config.temperature, float("nan")
    if not numbers.inverse or not all(isinstance(k, int | float) and k > 0 for k in numbers.inverse):
        raise ConfigError(f"temperature.inverse in params.yaml is {numbers.inverse}: list numbers above 0")
    budget = {"threat": config.threat, "steps": numbers.steps, "step_size": numbers.step_size}
    both = [("clean", nan, None), ("pgd", nan, partial(attacks.pgd, **budget)),
            ("margin", nan, partial(attacks.pgd, loss=attacks.margin, **budget))]
    both += [(name, float(k), partial(attacks.temperature_pgd, inverse_temperature=k, stable=stable, **budget))
             for name, stable in FORMS.items() for k in numbers.inverse]
    apgd = partial(attacks.apgd, threat=config.threat, steps=numbers.steps)
    more = [("apgd", nan, apgd)] + [("apgd-dlr", nan, partial(apgd, loss=attacks.dlr))] * (classes > 2)
    return {"validation": both, "test": both + more}


def explore(config: Config, dataset: Dataset, trained: train.Trained, device: torch.device,
            log: Callable[[str], None] = print) -> pd.DataFrame:
    """Every attack of `plan` on one run's last checkpoint: one row an image and attack.

    Columns: KEYS (split: validation or test; inverse_temperature: nan for attacks without) and those of
    `evaluate.per_sample`. Every attack begins with the same random numbers, those of the run's seed.
    """
    model = train.model(config, trained, "last", dataset, device)
    images = {"validation": dataset.validation, "test": dataset.test}
    work = [(split, *one) for split, each in plan(config, len(dataset.classes)).items() for one in each]
    tables = []
    for number, (split, name, k, attack) in enumerate(work, 1):
        rows = evaluate.per_sample(model, images[split], attack, compute.generator(config.seed, device))
        keys = dict(zip(KEYS, (config.method, config.seed, split, name, k), strict=True))
        tables.append(rows.assign(**keys)[[*KEYS, *rows.columns]])
        at = "" if np.isnan(k) else f" at 1/T = {k:g}"
        log(f"temperature {number}/{len(work)}  {split}, {name}{at}: {_hits(rows).mean():.1%} of {len(rows)} images")
    return pd.concat(tables, ignore_index=True)


def chosen(table: pd.DataFrame, attack: str = "temperature") -> float:
    """The 1/T of the lowest accuracy on the validation images of one run; of several, the one nearest to 1.

    Test rows are never looked at. Nearest in the logarithm; of k and 1/k, the smaller. Raises DataError where the
    table has no validation rows of the attack.
    """
    rows = table[(table.split == "validation") & (table.attack == attack)]
    if rows.empty:
        raise DataError(f"the table has no validation images under {attack}: run stage temperature again")
    rates = _hits(rows).groupby(rows.inverse_temperature).mean()
    return float(min(rates.index, key=lambda k: (rates[k], abs(np.log(k)), k)))


def tested(table: pd.DataFrame) -> pd.DataFrame:
    """The test rows of a table of one or more runs, and again those of each run at its chosen 1/T, as CHOSEN."""
    rows = table[table.split == "test"]
    again = []
    for _, run in table.groupby(RUN, sort=False):
        here = (run.split == "test") & (run.attack == "temperature") & (run.inverse_temperature == chosen(run))
        again.append(run[here].assign(attack=CHOSEN))
    return pd.concat([rows, *again], ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on test images, and how it differs between the classes, under each attack: means over seeds.

    table: of one or more seeds. A row a method, attack and 1/T (CHOSEN: nan, each seed has its own). Columns accuracy,
    sd, variance and spread (over classes; best less worst), each with _low and _high: Student's t over seeds or, of one
    seed, over images (Wilson; bootstrap within each class). seeds, images: how many.
    """
    rows = tested(table)
    rows = rows.assign(hit=_hits(rows), inverse_temperature=rows.inverse_temperature.mask(rows.attack == CHOSEN))
    found = []
    for key, group in rows.groupby(["method", "attack", "inverse_temperature"], sort=False, dropna=False):
        runs = [run for _, run in group.groupby("seed")]
        row = dict(zip(("method", "attack", "inverse_temperature"), key, strict=True))
        row |= _columns("accuracy", _over([_wilson(run.hit) for run in runs], (0, 1)))
        for name, statistic in UNEVENNESS.items():
            each = [stats.bootstrap(statistic, run.label, run.hit, within=(0, 1)) for run in runs]
            row |= _columns(name, _over(each, (0, 1)))
        found.append({**row, "seeds": len(runs), "images": group["index"].nunique()})
    return pd.DataFrame(found)


# How unevenly robust the classes are: functions of class accuracies (..., classes).
UNEVENNESS = {"sd": lambda a: a.std(-1), "variance": lambda a: a.var(-1), "spread": lambda a: a.max(-1) - a.min(-1)}


def gains(table: pd.DataFrame, over: tuple[str, ...] = ("pgd", "margin", "apgd", "apgd-dlr")) -> pd.DataFrame:
    """What Temperature-PGD, at the chosen 1/T, has more than each attack of `over`, on the same test images.

    A row a method, attack, quantity and seed, and one for all seeds (`seed` is 'all'). Quantities: 'attack rate', the
    share of images misclassified (`stats.paired`; its exact p value in `p`), and the sd, variance and spread over
    classes (paired bootstrap over images). Columns mean, low, high and n: images; or seeds for all, where Student's t
    does not see that the test images are a sample too.
    """
    rows = tested(table)
    hits = rows.assign(hit=_hits(rows)).pivot_table("hit", [*RUN, "index", "label"], "attack", aggfunc="first")
    found = []
    for method, runs in hits.groupby("method", sort=False):
        for other in (name for name in over if name in hits):
            each = {seed: _gain(run[other], run[CHOSEN]) for seed, run in runs.groupby("seed")}
            for quantity in ("attack rate", *UNEVENNESS):
                of_seeds = {seed: gain[quantity] for seed, gain in each.items()}
                of_seeds["all"] = stats.over_seeds([v["mean"] for v in of_seeds.values()], within=(-1, 1))
                found += [{"method": method, "over": other, "quantity": quantity, "seed": seed, **value}
                          for seed, value in of_seeds.items()]
    return pd.DataFrame(found).drop(columns=["a_only", "b_only"])


def _gain(other: pd.Series, ours: pd.Series) -> dict[str, dict]:
    """Each quantity of one run: hits (images,) under another attack and under ours -> ours less the other."""
    label, other, ours = other.index.get_level_values("label"), other.to_numpy(int), ours.to_numpy(int)
    found = {"attack rate": stats.paired(other, ours)}
    for name, statistic in UNEVENNESS.items():
        found[name] = stats.bootstrap(lambda a, b, s=statistic: s(b) - s(a), label, other, ours, within=(-1, 1))
    return found


def gradients(config: Config, dataset: Dataset, model: nn.Module, device: torch.device) -> pd.DataFrame:
    """The gradient of each form at each 1/T, at one random start around each of the first 200 test images.

    A row a form and 1/T: columns method, seed, attack (the form), inverse_temperature and n. zero: share of images
    whose gradient by the pixels is 0 everywhere. missing: share whose gradient by the label's own logit is 0, since p_y
    rounds to 1 in float32: nothing pushes that logit down. agreement_margin, agreement_cross_entropy: share of pixels
    where the gradient has the sign of that loss's gradient, among those where the latter is not 0; the mean over images
    that have such pixels (nan: none). Each with _low and _high, 95 % over images (Wilson; Student's t).
    """
    x, y = dataset.test.first(IMAGES).floats()
    with attacks.under_attack(model):
        start = attacks.noise(model, x, y, threat=config.threat, generator=compute.generator(config.seed, device))
        towards = {name: _gradient(model, start, y, attacks.LOSSES[name])[0] for name in ("margin", "cross_entropy")}
        found = []
        for form, stable in FORMS.items():
            for k in config.temperature.inverse:
                by_pixel, by_label = _gradient(model, start, y, attacks.tempered(k, stable))
                row = {"method": config.method, "seed": config.seed, "attack": form, "inverse_temperature": float(k),
                       "n": len(y)}
                row |= _columns("zero", _wilson(~by_pixel.any(1))) | _columns("missing", _wilson(by_label == 0))
                for name, direction in towards.items():
                    row |= _columns(f"agreement_{name}", _agreement(by_pixel, direction))
                found.append(row)
    return pd.DataFrame(found)


def arrays(table: pd.DataFrame, slopes: pd.DataFrame) -> dict:
    """One method for `figures.temperature_panels`, from the tables of `explore` and of `gradients`, all seeds."""
    rows = table[table.split == "test"].assign(hit=lambda rows: _hits(rows))
    rates = rows.pivot_table("hit", "seed", ["attack", "inverse_temperature"], dropna=False)
    several = rows.groupby(["attack", "seed"]).hit.mean().unstack()
    slopes = slopes.groupby(["attack", "inverse_temperature"]).mean(numeric_only=True)
    names = {"stable": "temperature", "naive": "temperature-naive"}
    return {"inverse": slopes.loc["temperature"].index.to_numpy(),
            "accuracy": {form: rates[name].dropna(axis=1).to_numpy() for form, name in names.items()},
            "references": {said: several.loc[name].to_numpy() for said, name in
                           (("PGD", "pgd"), ("margin", "margin"), ("APGD", "apgd"))},
            "chosen": np.array([chosen(run) for _, run in table.groupby("seed")]),
            "zero": {form: slopes.loc[name, "zero"].to_numpy() for form, name in names.items()},
            "agreement": {form: slopes.loc[name, "agreement_margin"].to_numpy() for form, name in names.items()}}


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: attacks.Loss) -> tuple[Tensor, Tensor]:
    """The gradient of the loss by the pixels (N, pixels) and by the label's logit (N,)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        by_pixel, by_logit = torch.autograd.grad(loss(logits, y).sum(), (x, logits))
    return by_pixel.flatten(1), by_logit.gather(1, y[:, None]).squeeze(1)


def _agreement(gradient: Tensor, towards: Tensor) -> dict[str, float]:
    """Share of pixels (N, pixels) with the same sign, of those where `towards` is not 0: mean over images."""
    there = towards != 0
    same = ((gradient.sign() == towards.sign()) & there).sum(1) / there.sum(1)
    some = same[there.any(1)].tolist()
    return stats.over_seeds(some, within=(0, 1)) if some else {"mean": np.nan, "low": np.nan, "high": np.nan}


def _hits(rows: pd.DataFrame) -> pd.Series:
    return (rows.label == rows.predicted).astype(int)


def _wilson(hits) -> dict[str, float]:
    """A share of images and its interval."""
    hits = np.asarray(hits)
    low, high = stats.wilson(hits.sum(), len(hits))
    return {"mean": hits.mean(), "low": float(low), "high": float(high)}


def _over(runs: list[dict], within: tuple[float, float]) -> dict[str, float]:
    """The estimates of several runs as one, over seeds; one run keeps its interval over images."""
    return runs[0] if len(runs) == 1 else stats.over_seeds([run["mean"] for run in runs], within=within)


def _columns(name: str, value: dict) -> dict[str, float]:
    return {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
