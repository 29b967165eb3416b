"""What is asked of `python -m lib paper`: options, and numbers of params.yaml that are to be others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import reduce

import yaml

from lib import stages, train
from lib.config import SECTIONS, Config, resolve
from lib.paper.records import MACHINE
from lib.params import ConfigError, known, merge, numbers, read, typed
from lib.sections import SCHEMA


@dataclass(frozen=True)
class Options:
    """All that may be asked, as NAME=VALUE.

    profile, dataset: of params.yaml. name: of these runs, by default that of the data set. methods, seeds: separated by
    commas. checkpoints: which are evaluated. tier: the strongest attack, by default the profile's, but `report` for
    `final`, which takes hours; tier_images: on how many test images it is run (0: all of them). alarms: whether
    the networks are inspected (`lib.alarms`). seconds: stop before so many are over (0: never). force: make the
    runs anew. commit: of the code, where git is not at hand. numbers: of the sections of params.yaml, as
    SECTION.KEY=VALUE; runs with other numbers need a name of their own.
    """

    profile: str = "paper"
    dataset: str = "cifar10_short"
    name: str = ""
    methods: Sequence[str] = ("pgd", "pgd+awp", "trades", "pgd+ducat", "pgd+silu", "pgd+sparta")
    seeds: Sequence[int] = (0,)
    checkpoints: Sequence[str] = train.CHECKPOINTS
    tier: str = ""
    tier_images: int = 0
    alarms: bool = True
    seconds: float = 0.0
    force: bool = False
    commit: str = ""
    numbers: dict = field(default_factory=dict)


def words(text: str) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(filter(None, text.split(",")))


def whether(text: str) -> bool:
    """true or false."""
    return {"true": True, "false": False}[text]


# How the text of an option is read, where it is no text, and what it has to be.
READ = {"methods": (words, ""), "checkpoints": (words, ""), "tier_images": (int, "a whole number"),
        "seeds": (lambda text: tuple(map(int, words(text))), "whole numbers with commas"),
        "seconds": (float, "a number"), "alarms": (whether, "true or false"), "force": (whether, "true or false")}


def parse(pairs: Sequence[str]) -> Options:
    """The options in texts such as 'seeds=0,1' and 'train.epochs=110'. Raises ConfigError for what names nothing."""
    given, changed = {}, {}
    names = [f.name for f in fields(Options) if f.name != "numbers"]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"'{pair}' is not NAME=VALUE, such as methods=pgd,trades or train.epochs=110")
        if "." in key:
            known("section", key.split(".")[0], SECTIONS, f"'{pair}'")
            nested = reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), _value(pair, value))
            changed = merge(changed, nested)
        else:
            known("option", key, names, more=", and numbers of params.yaml as SECTION.KEY=VALUE")
            read_as, wanted = READ.get(key, (str, ""))
            try:
                given[key] = read_as(value)
            except (ValueError, KeyError):
                raise ConfigError(f"'{pair}': {key} has to be {wanted}") from None
    options = Options(**given, numbers=changed)
    _check(options)
    return Options(**{**vars(options), "name": options.name or options.dataset})


def _value(pair: str, text: str):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"'{pair}': the value is not valid YAML") from None


def _check(options: Options) -> None:
    """Names that exist, and a name of their own for other numbers."""
    raw = read()
    for key in ("methods", "seeds", "checkpoints"):
        if not getattr(options, key):
            raise ConfigError(f"{key}= is empty")
    stages.check_specs(list(options.methods))
    for checkpoint in options.checkpoints:
        known("checkpoint", checkpoint, train.CHECKPOINTS, "checkpoints=")
    decides = [f"{section}.{key}" for section, values in options.numbers.items() for key in values
               if section != "compute" or key not in MACHINE]
    if decides and options.name in ("", *raw["recipes"]):
        raise ConfigError(f"{decides[0]} is not as in params.yaml: these runs need a name of their own, such as "
                          f"name={options.dataset}-2")
    if options.name in set(raw["recipes"]) - {options.dataset}:
        raise ConfigError(f"name={options.name} is another data set of params.yaml")
    if options.name and not re.fullmatch(r"\w[\w.+-]*", options.name):
        raise ConfigError(f"name={options.name}: a name has letters, digits and . _ + -")


def configured(options: Options, method: str, seed: int) -> Config:
    """All numbers of one run. Raises ConfigError for a number that is none."""
    sections = resolve(options.profile, options.dataset, (method,))
    sections["data"]["source"] = sections["data"]["source"] or options.dataset
    sections["evaluate"]["tier"] = options.tier or sections["evaluate"]["tier"].replace("final", "report")
    try:
        for name, values in options.numbers.items():
            if not isinstance(values, dict):
                raise ConfigError(f"{name} of the command is {values!r}, not KEY=VALUE")
            sections[name] = merge(sections[name], values)
        checked = {name: SCHEMA[name](**typed(name, SCHEMA[name], values)) for name, values in sections.items()
                   if name in SCHEMA}
        for name in ("attacks", "knobs"):
            checked[name] = {key: numbers(f"{name}.{key}", values) for key, values in sections[name].items()
                             if values is not None}
    except ConfigError as error:
        raise ConfigError(str(error).replace("params.yaml", "the command")) from None
    known("attack", checked["evaluate"].headline, checked["attacks"], "evaluate.headline")
    return Config(options.profile, options.name, method, seed, **checked)
