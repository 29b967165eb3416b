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

STAGE = "COMPANION_STAGE"  # environment variable of a stage: the file that `code` wrote for it
OUT = "COMPANION_OUT"      # and its results folder


@dataclass(frozen=True)
class Data:
    """Which images are used, in what form, and how they are split (`lib.sources.splits`).

    source: the data set that is read, None for the one that the run is named after. classes, without, limit,
    fraction: which of its images; validation: the share of the training images that chooses the checkpoint; seed
    of all these choices. size: pixels of a side, None for the images as they are. stream: read from disk in batches.
    """

    source: str | None
    classes: int | list | None
    without: list
    limit: int | None
    fraction: float
    validation: float
    seed: int
    size: int | None
    stream: bool


@dataclass(frozen=True)
class Threat:
    """The threat model: `norm` Linf or L2, `eps` the radius for images in [0, 1].

    Training may give each image its own radius: `eps` is then a tensor (N, 1, 1, 1), which is not checked here.
    """

    norm: str
    eps: float

    def __post_init__(self):
        known("norm", self.norm, ("Linf", "L2"), "threat.norm of params.yaml")
        if isinstance(self.eps, float) and (not 0 <= self.eps or self.norm == "Linf" and self.eps > 1):
            raise ConfigError(f"threat.eps in params.yaml is {self.eps:g}: images lie in [0, 1], so a radius in Linf "
                              "is at most 1, such as 8/255, and none is below 0")


@dataclass(frozen=True)
class Model:
    """The network: a name of `lib.models.NETWORKS`, its width in channels and a name of `lib.models.ACTIVATIONS`."""

    name: str
    width: int
    activation: str


@dataclass(frozen=True)
class Train:
    """SGD and its schedule, and the training adversary: `steps` of `step_size` x eps.

    trace: how many epochs lie between two looks at the test images, which change nothing (`lib.train.Trained`).
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    augment: list
    steps: int
    step_size: float
    trace: int


@dataclass(frozen=True)
class Evaluate:
    """The attack of the main table, the tier of the strongest one, and how many training images are attacked too."""

    headline: str
    tier: str
    training_images: int


@dataclass(frozen=True)
class Landscape:
    """Weight-space landscape: PGD of `steps` x `step_size` anew at each of the points of curves and surfaces."""

    images: int
    steps: int
    step_size: float
    span: float
    points: int
    directions: int
    surface_points: int


@dataclass(frozen=True)
class Removal:
    """The removal experiment: how many classes are left out, one at a time (`lib.removal`)."""

    classes: int


@dataclass(frozen=True)
class Temperature:
    """The sweep of Temperature-PGD: the values of 1/T, each with `steps` of `step_size` x eps."""

    inverse: list
    steps: int
    step_size: float


@dataclass(frozen=True)
class Balance:
    """What is given to the vulnerable classes: the strengths of `balanced` (trained) and of `offset` (fitted)."""

    balanced: list
    offset: list


@dataclass(frozen=True)
class Compute:
    """Where to compute: `device` auto, cpu or cuda; `threads` of the CPU; `workers` that read streamed images."""

    device: str
    threads: int
    workers: int


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
    removal: Removal = None
    temperature: Temperature = None
    balance: Balance = None
    compute: Compute = None
    knobs: dict = field(default_factory=dict)

    def folder(self, stage: str) -> Path:
        """The results folder of `stage` for this data set, method and seed."""
        return folder(stage, profile=self.profile, dataset=self.dataset, method=self.method, seed=self.seed)


_SCHEMA = {"data": Data, "threat": Threat, "model": Model, "train": Train, "evaluate": Evaluate,
           "landscape": Landscape, "removal": Removal, "temperature": Temperature, "balance": Balance,
           "compute": Compute}
SECTIONS = (*_SCHEMA, "attacks", "knobs")
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
    typed = {name: _SCHEMA[name](**value) if name in _SCHEMA else value for name, value in sections.items()}
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
    checked = {name: typed(name, kind, merged.get(name, {})) for name, kind in _SCHEMA.items()}
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
