"""params.yaml as text becomes checked values: what exists is merged and typed, what does not is refused by name."""

import difflib
from dataclasses import asdict, fields
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import yaml

LISTED = 40  # names in a message; ImageNet has a thousand classes
TOP = ("profile", "datasets", "methods", "seeds", "studies", "base", "recipes", "knobs", "profiles")


class ConfigError(ValueError):
    """Something in params.yaml, or in the arguments of `load`, that names nothing; the message lists what exists."""


class DataError(ValueError):
    """A data set that is missing, broken or not what it says it is; the message says what to do."""


def root() -> Path:
    """The repository: the nearest folder with a dvc.yaml, from the working directory upwards."""
    here = Path.cwd()
    for place in (here, *here.parents):
        if (place / "dvc.yaml").exists():
            return place
    raise ConfigError(f"no dvc.yaml in {here} or above it: run inside the repository")


def read() -> dict:
    """params.yaml as it is written, or a ConfigError that says where it is broken."""
    try:
        raw = _parsed((root() / "params.yaml").read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"params.yaml is not valid YAML: {' '.join(str(error).split())}") from error
    for key in raw:
        known("key", key, TOP, "params.yaml")
    for key in TOP:
        if key not in raw:
            raise ConfigError(f"params.yaml lacks {key}")
    return raw


@cache
def _parsed(text: str) -> dict:
    return yaml.safe_load(text)


def known(what: str, name, names, where: str = "", more: str = "") -> None:
    """Raise a ConfigError unless `name` is one of `names`; it says where, lists them and guesses what was meant.

    more: what else there is, after the list.
    """
    if name not in names:
        close = difflib.get_close_matches(str(name), [str(n) for n in names], 1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        place = f" in {where}" if where else ""
        listed = [*map(str, names)][:LISTED] + [f"and {len(names) - LISTED} more"] * (len(names) > LISTED)
        raise ConfigError(f"unknown {what} '{name}'{place}{hint}; there are: {', '.join(listed) or 'none'}{more}")


def merge(below: dict, above: dict) -> dict:
    """`above` laid over `below`, dictionaries within them too."""
    both = dict(below)
    for key, value in (above or {}).items():
        both[key] = merge(both[key], value) if isinstance(both.get(key), dict) and isinstance(value, dict) else value
    return both


def typed(section: str, kind: type, values: dict) -> dict:
    """The values of a section, each of its field's type; unknown and missing keys are refused by name."""
    names = {f.name: f.type for f in fields(kind)}
    for key in values:
        known("key", key, names, f"section '{section}' of params.yaml")
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"section '{section}' of params.yaml lacks {', '.join(missing)}")
    return asdict(kind(**{key: _cast(f"{section}.{key}", names[key], value) for key, value in values.items()}))


def _cast(where: str, kind, value):
    """The value as `kind`, or as the first of its kinds that it fits where it is a union such as int | None."""
    for option in get_args(kind) if isinstance(kind, UnionType) else (kind,):
        try:
            return _cast_one(option, value)
        except (TypeError, ValueError, ZeroDivisionError):
            continue
    name = kind.__name__ if type(kind) is type else str(kind).replace("NoneType", "null").replace("None", "null")
    raise ConfigError(f"{where} in params.yaml is {value!r}, not {name}")


def _cast_one(kind: type, value):
    """The value as `kind`: a fraction may be a float and 3.0 an int, but nothing else becomes what it is not.

    Of a list[kind] each element.
    """
    if get_origin(kind) is list:
        return [_cast_one(get_args(kind)[0], element) for element in _cast_one(list, value)]
    if kind is float:
        return float(Fraction(value)) if isinstance(value, str) and "/" in value else float(value)
    if kind is int:
        if isinstance(value, bool) or int(value) != value:
            raise ValueError
        return int(value)
    if not isinstance(value, kind):
        raise ValueError
    return value


def numbers(where: str, values: dict) -> dict:
    """Fractions such as 1/4 and numbers such as 5e-4, which YAML reads as text, become floats; words stay."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} in params.yaml is {values!r}, not a mapping of names to values")

    def number(value):
        """The value as a float where it reads as one."""
        try:
            return _cast(where, float, value) if isinstance(value, str) else value
        except ConfigError:
            return value

    return {key: number(value) for key, value in values.items()}
