"""The record of a run: small enough for git, and enough to compute every accuracy, interval and comparison again.

It is results/<profile>/runs/<name>/<method>/<seed>.json, one for each method and seed, and beside it <seed>.npz with
what the network said of each image.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from lib import evaluate, stages, stats, train
from lib.config import Config, folder
from lib.params import DataError, read
from lib.progress import fingerprint

TRAINING = ("data", "threat", "model", "train", "knobs", "compute")  # sections that decide the weights
EVALUATION = ("attacks", "evaluate")                                 # and those that decide what is made of them
MACHINE = ("device", "threads", "workers", "processes")              # of `compute`, and changes no outcome
COLUMNS = [*evaluate.KEYS, "index", "label", "predicted"]


@dataclass
class Record:
    """One run. facts: the content of its JSON. table: a per-sample table of `COLUMNS`, and perhaps more of them.

    trace: what the network said of the test images along training, as in `lib.train.Trained`.
    """

    facts: dict
    table: pd.DataFrame
    trace: dict[str, np.ndarray]

    def save(self, path: Path) -> None:
        """<seed>.json and <seed>.npz; each is written aside and renamed, so that none is ever cut short."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.facts["accuracy"] = accuracies(self.table)
        arrays = {f"trace/{name}": values for name, values in self.trace.items()}
        for keys, rows in self.table.groupby(["checkpoint", "split", "attack"], sort=False):
            arrays |= {"/".join(keys): rows.predicted.to_numpy(np.int16),
                       f"label/{keys[1]}/{len(rows)}": rows.label.to_numpy(np.int16)}
        _replace(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))
        text = json.dumps(self.facts, indent=1, allow_nan=False) + "\n"
        short = re.compile(r"\[\n([^][{}]*)\]")  # a list of numbers or words: on one line
        text = short.sub(lambda found: "[" + re.sub(r"\n *", " ", found[1]).strip() + "]", text)
        _replace(path, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Path) -> "Record":
        """What `save` has put there. Raises DataError for files that are something else."""
        try:
            facts = json.loads(path.read_text())
            with np.load(path.with_suffix(".npz")) as file:
                arrays = dict(file)
            parts = {name: name.split("/") for name in arrays}
            tables = [pd.DataFrame({"index": np.arange(len(said)), "label": arrays[f"label/{of[1]}/{len(said)}"],
                                    "predicted": said}).assign(method=facts["method"], seed=facts["seed"],
                                                               checkpoint=of[0], split=of[1], attack="/".join(of[2:]))
                      for name, said in arrays.items() if (of := parts[name])[0] not in ("trace", "label")]
            trace = {of[1]: arrays[name] for name, of in parts.items() if of[0] == "trace"}
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise DataError(f"{path} and its .npz are no record of a run ({error}): restore or delete them") from error
        return cls(facts, pd.concat(tables, ignore_index=True)[COLUMNS] if tables else empty(), trace)


def _replace(path: Path, write) -> None:
    aside = path.with_name(path.name + ".partial")
    with open(aside, "wb") as file:
        write(file)
    os.replace(aside, path)


def empty() -> pd.DataFrame:
    """A per-sample table without rows."""
    return pd.DataFrame({name: [] for name in COLUMNS})


def place(config: Config) -> Path:
    """Where the record of this run is."""
    return config.folder("runs").with_name(f"{config.seed}.json")


def numbers(config: Config) -> dict:
    """The sections of a run as JSON has them, without what only says how its machine is used."""
    found = {name: getattr(config, name) for name in (*TRAINING, *EVALUATION)}
    plain = {name: asdict(value) if is_dataclass(value) else value for name, value in found.items()}
    plain["compute"] = {key: value for key, value in plain["compute"].items() if key not in MACHINE}
    return json.loads(json.dumps(plain))


def find(config: Config) -> Record | None:
    """The record of this run, if one was made with the same numbers of training.

    Its table is empty if the attacks are others now; a new tier is no other attack, but one more.
    """
    path = place(config)
    if not path.exists():
        return None
    record, now = Record.load(path), numbers(config)
    before = record.facts["numbers"]
    if any(before[name] != now[name] for name in TRAINING):
        return None
    for each in (before, now):
        each["evaluate"] = {**each["evaluate"], "tier": None}
    if any(before[name] != now[name] for name in EVALUATION):
        record.table, record.facts["alarms"] = empty(), None
    record.facts["numbers"] = numbers(config)
    return record


def code(spec: str) -> str:
    """A digest of the code that trains and evaluates `spec`, without comments, docstrings and layout."""
    parts = [f"import lib.{folder}.{name}" for folder, names in stages.parts().items() for name in names
             if name in ("relu", *spec.split("+"))]
    modules = stages.reached(["from lib import data, distributed, evaluate", *parts]) - set(stages.SETTINGS)
    sources = (stages.normalised(Path(find_spec(name).origin).read_text()) for name in sorted(modules))
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]


def weights(found: train.Trained) -> dict[str, str]:
    """A digest of the weights of each checkpoint."""
    return {name: fingerprint(found.states[name])[:16] for name in train.CHECKPOINTS}


def load(profile: str) -> dict[str, list[Record]]:
    """All records of a profile, by name of the data set: by seed, and then in the order of methods in params.yaml."""
    order, found = read()["methods"], {}
    for path in sorted(folder("runs", profile=profile).glob("*/*/*.json")):
        record = Record.load(path)
        found.setdefault(record.facts["name"], []).append(record)

    def key(record: Record) -> tuple:
        """Where a record stands."""
        method = record.facts["method"]
        return record.facts["seed"], order.index(method) if method in order else len(order), method

    return {name: sorted(records, key=key) for name, records in found.items()}


def seen_by_all(table: pd.DataFrame) -> pd.DataFrame:
    """Of each run and checkpoint the test images that all of its attacks saw: the first so many."""
    test = table[table.split == "test"]
    parts = [rows[rows["index"] < rows.attack.value_counts().min()]
             for _, rows in test.groupby(["method", "seed", "checkpoint"], sort=False)]
    return pd.concat(parts, ignore_index=True) if parts else test


def with_worst_case(table: pd.DataFrame) -> pd.DataFrame:
    """The table, and of each run and checkpoint the worst case over its attacks on test images that all of them saw."""
    return pd.concat([table, evaluate.worst_case(seen_by_all(table))], ignore_index=True)[COLUMNS]


def accuracies(table: pd.DataFrame) -> list[dict]:
    """For each checkpoint, split and attack of one run, and the worst case: n, hits, accuracy, low, high (Wilson)."""
    if not len(table):
        return []
    rates = evaluate.accuracy(with_worst_case(table), ["checkpoint", "split", "attack"])
    return json.loads(rates.round(6).to_json(orient="records"))


def main_table(records: Sequence[Record], checkpoint: str) -> pd.DataFrame:
    """A row for each run, measured on test images: method, seed, attack, n, accuracy, low, high; CLEAN, the headline
    attack and the worst case, as far as they are there."""
    tables = []
    for record in records:
        rows = pd.DataFrame(record.facts["accuracy"], columns=["checkpoint", "split", "attack", "n", "hits", "accuracy",
                                                               "low", "high"])
        wanted = [evaluate.CLEAN, record.facts["numbers"]["evaluate"]["headline"], evaluate.WORST]
        rows = rows[(rows.checkpoint == checkpoint) & (rows.split == "test") & rows.attack.isin(wanted)]
        tables.append(rows.assign(method=record.facts["method"], seed=record.facts["seed"]))
    columns = ["method", "seed", "attack", "n", "accuracy", "low", "high"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def differences(records: Sequence[Record], checkpoint: str, base: str = "pgd") -> pd.DataFrame:
    """Each run less the run of `base` with the same seed, image by image (`lib.stats.paired`).

    Columns method, seed, attack, n, difference, low, high, p; for CLEAN, the headline attack and, where both met the
    same attacks, the worst case.
    """
    found, runs = [], {(r.facts["method"], r.facts["seed"]): r for r in records}
    for (method, seed), record in runs.items():
        other = runs.get((base, seed))
        if method == base or other is None:
            continue
        headline = record.facts["numbers"]["evaluate"]["headline"]
        ours, theirs = (_hits(r.table, checkpoint) for r in (record, other))
        names = [n for n in (evaluate.CLEAN, headline) if n in ours and n in theirs]
        names += [evaluate.WORST] * (set(ours) == set(theirs) and evaluate.WORST in ours)
        for name in names:
            n = min(len(ours[name]), len(theirs[name]))
            pair = stats.paired(ours[name][:n], theirs[name][:n])
            found.append({"method": method, "seed": seed, "attack": name, "n": n, "difference": pair["mean"],
                          **{key: pair[key] for key in ("low", "high", "p")}})
    return pd.DataFrame(found, columns=["method", "seed", "attack", "n", "difference", "low", "high", "p"])


def _hits(table: pd.DataFrame, checkpoint: str) -> dict[str, np.ndarray]:
    """Which test images are right under each attack and in the worst case, in their order."""
    rows = table[(table.checkpoint == checkpoint) & (table.split == "test")]
    if not len(rows):
        return {}
    every = with_worst_case(rows).sort_values("index", kind="stable")
    return {name: (one.label == one.predicted).to_numpy() for name, one in every.groupby("attack")}
