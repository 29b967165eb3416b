"""Every number of a run: params.yaml, merged for one data set and profile, checked and typed.

A notebook knows who it is (profile, dataset, method, seed) and asks `load` for the rest. Inside a stage of
`dvc repro` the numbers come from the file that the `code` stage wrote and that DVC hashed, so params.yaml may
be edited while a stage runs; anywhere else they come from params.yaml itself.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from lib.params import ConfigError, known, merge, numbers, read, root, typed
from lib.sections import (
    SCHEMA,
    Activations,
    Adaptive,
    Balance,
    Compute,
    Data,
    Evaluate,
    Failures,
    Flatness,
    Forks,
    Gates,
    Landscape,
    Model,
    Perturbation,
    Removal,
    Temperature,
    Threat,
    Train,
    Trajectory,
    Transplant,
)

STAGE = "COMPANION_STAGE"  # environment variable of a stage: the file that `code` wrote for it
OUT = "COMPANION_OUT"      # and its results folder


@dataclass(frozen=True)
class Config:
    """All numbers of one run. In a stage of `dvc repro` only the sections that its code names are there."""

    profile: str
    dataset: str
    method: str | None = None
    seed: int | None = None
    data: Data = None
    threat: Threat = None
    model: Model = None
    train: Train = None
    attacks: dict = None
    evaluate: Evaluate = None
    landscape: Landscape = None
    flatness: Flatness = None
    trajectory: Trajectory = None
    perturbation: Perturbation = None
    removal: Removal = None
    temperature: Temperature = None
    balance: Balance = None
    adaptive: Adaptive = None
    forks: Forks = None
    failures: Failures = None
    activations: Activations = None
    gates: Gates = None
    transplant: Transplant = None
    compute: Compute = None
    knobs: dict = field(default_factory=dict)

    def folder(self, stage: str) -> Path:
        """The results folder of `stage` for this data set, method and seed."""
        return folder(stage, profile=self.profile, dataset=self.dataset, method=self.method, seed=self.seed)


SECTIONS = (*SCHEMA, "attacks", "knobs")
AXES = ("datasets", "methods", "seeds", "studies")  # what a profile may set, each in place of the top-level entry


def home() -> Path:
    """The folder of image sets on this machine: DATA_HOME, or adversarial-companion in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("DATA_HOME") or cache / "adversarial-companion").expanduser().resolve()
    if place.is_relative_to(root() / "data"):
        raise ConfigError(f"DATA_HOME is {place}, inside data/, which holds only what data.dvc pins: "
                          "choose a folder elsewhere")
    return place


def folder(stage: str, *, profile: str, dataset=None, method=None, seed=None) -> Path:
    """results/<profile>/<stage>/<dataset>/<method>/<seed>, as far as they are given."""
    parts = [str(p) for p in (dataset, method, seed) if p is not None]
    return root().joinpath("results", profile, stage, *parts)


def out(name: str) -> Path:
    """The folder a notebook writes to: its results folder in a stage, results/scratch/<name> when run by hand."""
    place = Path(os.environ.get(OUT) or root() / "results" / "scratch" / name)
    place.mkdir(parents=True, exist_ok=True)
    return place


def unfinished() -> Path | None:
    """Where a stage keeps what an interrupted run goes on from, until it is done; None when run by hand."""
    place = os.environ.get(OUT)
    if not place:
        return None
    profile, *rest = Path(place).relative_to(root() / "results").parts
    return root().joinpath("results", profile, "unfinished", *rest)


def on_the_spot(stage: str, config: "Config", path: Path) -> None:
    """Called where an input is missing: allows, with a word, that a notebook run by hand in `smoke` makes it itself.

    Raises ConfigError in any larger profile and inside a stage, naming the command that makes the input.
    """
    if config.profile != "smoke" or os.environ.get(STAGE):
        instance = "-".join(str(p) for p in (config.profile, config.dataset, config.method, config.seed)
                            if p is not None)
        raise ConfigError(f"{path.relative_to(root())} is missing: `dvc repro {stage}@{instance}` makes it")
    print(f"stage {stage} of {config.method} has not run: a tiny one runs here")


def axes(profile: str) -> dict:
    """What a profile runs: its datasets, methods and seeds, and in `studies` the methods of each study.

    For the profile that params.yaml runs, its top-level entries; for another, those of `profiles`.
    """
    if os.environ.get(STAGE):
        return json.loads(Path(os.environ[STAGE]).read_text())["axes"]
    raw = read()
    known("profile", profile, raw["profiles"])
    chosen = raw if raw["profile"] == profile else {**raw, **raw["profiles"][profile]}
    return {axis: chosen[axis] for axis in AXES}


def load(profile: str, dataset: str, method: str | None = None, seed: int | None = None) -> Config:
    """The numbers of one run.

    method: a spec such as 'pgd' or 'pgd+awp'. Raises ConfigError for a name or key that does not exist.
    """
    if os.environ.get(STAGE):
        sections = json.loads(Path(os.environ[STAGE]).read_text())["config"][dataset]
    else:
        sections = resolve(profile, dataset)
    typed = {name: SCHEMA[name](**value) if name in SCHEMA else value for name, value in sections.items()}
    return Config(profile=profile, dataset=dataset, method=method, seed=seed, **typed)


def resolve(profile: str, dataset: str, specs=()) -> dict[str, dict]:
    """All sections for one data set as plain dictionaries; of `knobs` only the parts of `specs`, if given."""
    raw = read()
    known("profile", profile, raw["profiles"])
    scale = {k: v for k, v in raw["profiles"][profile].items() if k not in AXES}
    merged, dropped = {"knobs": raw["knobs"]}, set()
    for place, part in (("base", raw["base"]), (f"recipes.{dataset}", _recipe(raw["recipes"], dataset)),
                        (f"profiles.{profile}", scale)):
        for section, values in part.items():
            known("section", section, SECTIONS, f"{place} of params.yaml")
            merged[section] = merge(merged.get(section, {}), values)
        dropped |= {name for name, kw in (part.get("attacks") or {}).items() if kw is None}
    checked = {name: typed(name, kind, merged.get(name, {})) for name, kind in SCHEMA.items()}
    checked["attacks"] = {name: numbers(f"attacks.{name}", kw) for name, kw in merged["attacks"].items()
                          if name not in dropped}
    known("attack", checked["evaluate"]["headline"], checked["attacks"], "evaluate.headline of params.yaml")
    parts = {part for spec in specs for part in spec.split("+")}
    checked["knobs"] = {name: numbers(f"knobs.{name}", values or {}) for name, values in merged["knobs"].items()
                        if not specs or name in parts}
    return checked


def _recipe(recipes: dict, dataset: str) -> dict:
    """The recipe of a data set, laid over the one that it is `like`. Your own data may do without one."""
    if dataset not in recipes:
        file, directory = home() / f"{dataset}.npz", home() / dataset
        if file.exists() or directory.is_dir():
            return {}
        known("data set", dataset, recipes, more=f"; your own would be {file} or the folder {directory}")
    recipe, chain = recipes[dataset] or {}, [dataset]
    while "like" in recipe:
        known("data set", recipe["like"], [name for name in recipes if name not in chain],
              f"recipes.{chain[-1]}.like of params.yaml")
        chain.append(recipe["like"])
        recipe = merge(recipes[chain[-1]], {k: v for k, v in recipe.items() if k != "like"})
    return recipe
