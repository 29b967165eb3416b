"""What each stage of dvc.yaml computes from, so that DVC reruns what an edit touches and nothing else.

Stage `code` calls `write`, which gives every notebook stage a small file: the notebook's code without its
prose, a hash of each module of `lib` that it reaches, and the sections of params.yaml that these name. The stage
depends on that file. So prose, comments and docstrings rerun nothing; an edit of lib/methods/awp.py or of
knobs.awp reruns what uses AWP; and a stage reads its numbers from a file that nobody edits while it runs.
"""

import ast
import hashlib
import itertools
import json
import re
import shlex
from dataclasses import dataclass
from functools import cache, reduce
from operator import getitem
from pathlib import Path

import yaml

from lib.config import SECTIONS, axes, resolve
from lib.params import ConfigError, known, read, root

SETTINGS = ("lib.config", "lib.sections", "lib.params")  # not hashed: what they decide is in `config`
STUDIES = ("landscape", "trajectory", "perturbation", "removal", "temperature", "balance", "adaptive", "forks",
           "failures", "activations", "gates", "transplant")  # for some methods only
PARTS = ("methods", "activations")  # folders of lib/ whose files a spec names
BASIC = ("relu", "silu", "sparta")
# What a study adds to its methods, whose knobs it reads: parts of a spec, or all of a folder.
ADDED = {"forks": ("ducat",), "activations": ("activations",), "gates": BASIC, "transplant": BASIC}


@dataclass(frozen=True)
class Instance:
    """One item of the matrix of a stage: its name in DVC, notebook, results folder, parameters and dependencies."""

    name: str
    notebook: Path
    out: Path
    parameters: dict[str, str | int]
    deps: tuple[Path, ...] = ()

    @property
    def code(self) -> Path:
        """The file of stage `code` for this instance: results/<profile>/code/<the rest of its folder>.json."""
        results, profile, *rest = self.out.parts
        return Path(results, profile, "code", *rest).with_name(self.out.name + ".json")


def instances(profile: str = "") -> list[Instance]:
    """All notebook stages of dvc.yaml for a profile (that of params.yaml), in the order of dvc.yaml."""
    lists = {**read(), "profile": profile, **axes(profile)} if profile else read()
    found = []
    for stage, entry in yaml.safe_load((root() / "dvc.yaml").read_text())["stages"].items():
        names = list(entry["matrix"])
        values = [_values(entry["matrix"][name], lists) for name in names]
        for item in (dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)):
            filled = [re.sub(r"\$\{item\.(\w+)\}", lambda m, item=item: str(item[m[1]]), text)
                      for text in (entry["cmd"], *entry["deps"])]
            words = shlex.split(filled[0])
            if words[:4] != ["python", "-m", "lib", "run"]:
                continue
            pairs = dict(word.split("=", 1) for word in words[6:])
            found.append(Instance(f"{stage}@{'-'.join(map(str, item.values()))}", Path(words[4]), Path(words[5]),
                                  {k: int(v) if v.isdigit() else v for k, v in pairs.items()},
                                  tuple(map(Path, filled[1:]))))
    return found


def _values(axis, lists: dict) -> list:
    """An axis of a matrix: a list, or '${name}' for a value of params.yaml."""
    def fill(text):
        """The value that '${name}' or '${studies.name}' stands for, or the text itself."""
        named = re.fullmatch(r"\$\{([\w.]+)\}", str(text))
        return reduce(getitem, named[1].split("."), lists) if named else text

    return [fill(v) for v in axis] if isinstance(axis, list) else fill(axis)


def describe(instance: Instance) -> dict:
    """Everything that decides what an instance computes, apart from the files of earlier stages."""
    profile, method = instance.parameters["profile"], instance.parameters.get("method")
    cells = [normalised(cell) for cell in code_cells(root() / instance.notebook)]
    every = axes(profile) if any("config.axes" in cell for cell in cells) else {}
    words, dataset = strings(cells), instance.parameters.get("dataset")
    added = [name for part in ADDED.get(instance.name.split("@")[0], ()) for name in parts().get(part, [part])]
    spelled = set().union(*parts().values())  # a string of these, joined by '+', spells a method
    specs = ["+".join([method, *added])] if method else [
        *every.get("methods", ()), *(word for word in words if set(word.split("+")) <= spelled)]
    datasets = [dataset] if dataset else [*every.get("datasets", ()), *(w for w in words if w in read()["recipes"])]
    modules = reached(cells)
    if "lib.methods" in modules:
        named = [*(part for spec in specs for part in spec.split("+")),
                 *(resolve(profile, d)["model"]["activation"] for d in datasets)]
        modules = reached([*cells, *(f"import lib.{folder}.{name}" for folder, names in parts().items()
                                     for name in names if name in named)])
    sources = [*cells, *(_source(m) for m in modules if m not in SETTINGS)]
    sections = set().union(*map(sections_named, sources))
    config = {d: {k: v for k, v in resolve(profile, d, tuple(specs)).items() if k in sections} for d in datasets}
    return {"parameters": instance.parameters, "axes": every, "config": config,
            "modules": {name: _hash(name) for name in sorted(modules - set(SETTINGS))}, "cells": cells}


def write(profile: str) -> int:
    """Check params.yaml, and write the code file of every instance of the profile. Returns how many there are."""
    known("profile", read()["profile"], read()["profiles"])
    run = axes(profile)
    check_specs(run["methods"])
    check_studies(run["studies"], run["methods"])
    every = [i for i in instances() if i.parameters["profile"] == profile]
    for instance in every:
        path = root() / instance.code
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(describe(instance), indent=1, ensure_ascii=False) + "\n")
    return len(every)


def check_specs(specs: list[str]) -> None:
    """Raise a ConfigError for a spec with a part that is none of `parts`, or for a knob that it does not take."""
    folders = {name: folder for folder, names in parts().items() for name in names}
    knobs = read()["knobs"]
    for name in knobs:
        known("method", name, folders, "knobs of params.yaml")
    for spec in specs:
        for part in spec.split("+"):
            known("method", part, folders, f"'{spec}'")
            arguments = [a.arg for node in ast.walk(ast.parse(_source(f"lib.{folders[part]}.{part}")))
                         if isinstance(node, ast.FunctionDef) and node.name in ("objective", "add_on", "activation")
                         for a in node.args.kwonlyargs]
            for key in knobs.get(part) or {}:
                known("knob", key, arguments, f"knobs.{part} of params.yaml")


def check_studies(studies: dict[str, list], methods: list[str]) -> None:
    """Raise a ConfigError for a study that does not exist or is not given, or is of a method that is not run."""
    for name in studies:
        known("study", name, STUDIES, "studies of params.yaml")
    for name in STUDIES:
        if not studies.get(name):
            raise ConfigError(f"studies.{name} in params.yaml names no method: give it at least one")
        for method in studies[name]:
            known("method", method, methods, f"studies.{name} of params.yaml")


def code_cells(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


@cache
def normalised(source: str) -> str:
    """The source as Python sees it: without comments, docstrings and layout. IPython's % and ! lines are dropped."""
    tree = ast.parse(re.sub(r"(?m)^[%!].*$", "", source))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body
        if documented and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def strings(cells: list[str]) -> list[str]:
    """The strings in the cells: a chapter names its data set and the methods it builds, such as 'digits' and 'pgd'."""
    return sorted({node.value for cell in cells for node in ast.walk(ast.parse(cell))
                   if isinstance(node, ast.Constant) and isinstance(node.value, str)})


def parts() -> dict[str, list[str]]:
    """What a spec may be made of: the names of the files in lib/methods/ and in lib/activations/, by folder."""
    return {folder: sorted(p.stem for p in (root() / "lib" / folder).glob("[a-z]*.py")) for folder in PARTS}


def reached(cells: list[str]) -> set[str]:
    """The modules of `lib` that the cells import, and those that these import, and so on."""
    waiting, seen = {name for cell in cells for name in _imports(cell)}, set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= set(_imports(_source(name))) - seen
    return seen


@cache
def sections_named(source: str) -> set[str]:
    """The sections of the configuration that code can read: those that an attribute such as cfg.train names.

    Whatever the object is called, so that no use is missed; but not `self`, which is no configuration.
    """
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)
            and node.attr in SECTIONS and getattr(node.value, "id", "") != "self"}


@cache
def _imports(source: str) -> tuple[str, ...]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return tuple(n for n in names if n.split(".")[0] == "lib" and _path(n).exists())


def _path(module: str) -> Path:
    base = root().joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _source(module: str) -> str:
    return _path(module).read_text()


def _hash(module: str) -> str:
    return hashlib.md5(normalised(_source(module)).encode()).hexdigest()
