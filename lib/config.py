"""Every number of a run: params.yaml, merged for one data set and profile, checked and typed.

A notebook knows who it is (profile, dataset, method, seed) and asks `load` for the rest. Inside a stage of
`dvc repro` the numbers come from the file that the `code` stage wrote and that DVC hashed, so params.yaml may
be edited while a stage runs; anywhere else they come from params.yaml itself.
"""

import difflib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path

import yaml

STAGE = "COMPANION_STAGE"  # environment variable of a stage: the file that `code` wrote for it
OUT = "COMPANION_OUT"      # and its results folder


class ConfigError(ValueError):
    """Something in params.yaml, or in the arguments of `load`, that names nothing; the message lists what exists."""


@dataclass(frozen=True)
class Data:
    """How the images are split: `validation` is a share of the training set, `limit` a number of images or None."""

    validation: float
    limit: int | None


@dataclass(frozen=True)
class Threat:
    """The threat model: `norm` Linf or L2, `eps` the radius for images in [0, 1]."""

    norm: str
    eps: float


@dataclass(frozen=True)
class Model:
    """The network: a name of `lib.models.NETWORKS`, its width in channels and a name of `lib.models.ACTIVATIONS`."""

    name: str
    width: int
    activation: str


@dataclass(frozen=True)
class Train:
    """SGD and its schedule, and the training adversary: `steps` of `step_size` x eps."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    augment: list
    steps: int
    step_size: float


@dataclass(frozen=True)
class Evaluate:
    """The attack of the main table, and how many training images are attacked besides the test images."""

    headline: str
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
class Compute:
    """Where to compute: `device` auto, cpu or cuda; `threads` of the CPU."""

    device: str
    threads: int


@dataclass(frozen=True)
class Config:
    """All numbers of one run. In a stage of `dvc repro` only the sections that the stage declares are there."""

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
    compute: Compute = None
    knobs: dict = field(default_factory=dict)

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if value is None and name in SECTIONS:
            raise ConfigError(f"this stage does not declare that it reads '{name}': add it to meta.reads in dvc.yaml")
        return value

    def folder(self, stage: str) -> Path:
        """The results folder of `stage` for this data set, method and seed."""
        return folder(stage, profile=self.profile, dataset=self.dataset, method=self.method, seed=self.seed)


SECTIONS = ("data", "threat", "model", "train", "attacks", "evaluate", "landscape", "compute", "knobs")
_SCHEMA = {"data": Data, "threat": Threat, "model": Model, "train": Train, "evaluate": Evaluate,
           "landscape": Landscape, "compute": Compute}


def root() -> Path:
    """The repository: the nearest folder with a dvc.yaml, from the working directory upwards."""
    here = Path.cwd()
    for place in (here, *here.parents):
        if (place / "dvc.yaml").exists():
            return place
    raise ConfigError(f"no dvc.yaml in {here} or above it: run inside the repository")


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


def params() -> dict:
    """params.yaml as it is written, or a ConfigError that says where it is broken."""
    try:
        return yaml.safe_load((root() / "params.yaml").read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"params.yaml is not valid YAML: {' '.join(str(error).split())}") from error


def known(what: str, name, names) -> None:
    """Raise a ConfigError unless `name` is one of `names`; it lists them and guesses what was meant."""
    if name not in names:
        close = difflib.get_close_matches(str(name), [str(n) for n in names], 1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise ConfigError(f"unknown {what} '{name}'{hint}; there are: {', '.join(map(str, names)) or 'none'}")


def axes(profile: str) -> dict[str, list]:
    """The data sets, methods and seeds of a profile.

    For the profile that params.yaml runs, its top-level lists; for another, those of `profiles`.
    """
    if os.environ.get(STAGE):
        return json.loads(Path(os.environ[STAGE]).read_text())["axes"]
    raw = params()
    known("profile", profile, raw["profiles"])
    chosen = raw if raw["profile"] == profile else {"methods": raw["methods"], **raw["profiles"][profile]}
    return {axis: list(chosen[axis]) for axis in ("datasets", "methods", "seeds")}


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
    raw = params()
    known("profile", profile, raw["profiles"])
    known("data set", dataset, raw["recipes"])
    scale = {k: v for k, v in raw["profiles"][profile].items() if k not in ("datasets", "seeds")}
    merged = {"knobs": raw["knobs"]}
    for place, part in (("base", raw["base"]), (f"recipes.{dataset}", raw["recipes"][dataset]),
                        (f"profiles.{profile}", scale)):
        for section, values in part.items():
            known(f"section in params.yaml at {place}", section, SECTIONS)
            merged[section] = _merge(merged.get(section, {}), values)
    checked = {name: _typed(name, kind, merged.get(name, {})) for name, kind in _SCHEMA.items()}
    checked["attacks"] = {name: _numbers(f"attacks.{name}", kw) for name, kw in merged["attacks"].items()}
    known("attack as evaluate.headline", checked["evaluate"]["headline"], merged["attacks"])
    parts = {part for spec in specs for part in spec.split("+")}
    checked["knobs"] = {name: _numbers(f"knobs.{name}", values or {}) for name, values in merged["knobs"].items()
                        if not specs or name in parts}
    return checked


def _merge(below: dict, above: dict) -> dict:
    """`above` laid over `below`, dictionaries within them too."""
    both = dict(below)
    for key, value in (above or {}).items():
        both[key] = _merge(both[key], value) if isinstance(both.get(key), dict) and isinstance(value, dict) else value
    return both


def _typed(section: str, kind: type, values: dict) -> dict:
    """The values of a section, each of its field's type; unknown and missing keys are refused by name."""
    names = {f.name: f.type for f in fields(kind)}
    for key in values:
        known(f"key in section '{section}' of params.yaml", key, names)
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"section '{section}' of params.yaml lacks {', '.join(missing)}")
    return asdict(kind(**{key: _cast(f"{section}.{key}", names[key], value) for key, value in values.items()}))


def _cast(where: str, kind, value):
    try:
        if kind is float:
            return float(Fraction(value)) if isinstance(value, str) and "/" in value else float(value)
        if kind in (int, int | None):
            if value is None and kind is not int:
                return None
            if isinstance(value, bool) or int(value) != value:
                raise ValueError
            return int(value)
        if not isinstance(value, kind):
            raise ValueError
        return value
    except (TypeError, ValueError, ZeroDivisionError):
        raise ConfigError(f"{where} in params.yaml is {value!r}, not {getattr(kind, '__name__', kind)}") from None


def _numbers(where: str, values: dict) -> dict:
    """Fractions such as 1/4 and numbers such as 5e-4, which YAML reads as text, become floats; words stay."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} in params.yaml is {values!r}, not a mapping of names to values")

    def number(value):
        try:
            return _cast(where, float, value) if isinstance(value, str) else value
        except ConfigError:
            return value

    return {key: number(value) for key, value in values.items()}
