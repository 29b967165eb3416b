"""The evidence of a profile on one data set, from what the stages wrote."""

import pandas as pd

from lib import evaluate
from lib.claims.rules import Evidence
from lib.config import folder, load

STUDIES = ("removal", "temperature", "balance")  # of the class-wise paper
TABLES = {  # what claims and notebooks read of the studies: name -> (stage, file)
    **{study: (study, "per_sample.csv") for study in (*STUDIES, "trajectory", "perturbation")},
    "looks": ("trajectory", "looks.csv"), "sharpness": ("trajectory", "sharpness.csv"),
    "flatness": ("landscape", "flatness.csv"), "ablation": ("perturbation", "flatness.csv"),
    "adaptive": ("adaptive", "per_sample.csv"), "sweeps": ("adaptive", "sweeps.csv"),
    "forks": ("forks", "per_sample.csv"), "activations": ("activations", "per_sample.csv"),
    "radii": ("activations", "radii.csv"), "gates": ("gates", "ablations.csv"),
    "identities": ("gates", "identities.csv"), "transplant": ("transplant", "per_sample.csv")}
JOINT = {name: ("failures", f"{name}.csv") for name in ("failing", "difference", "rescued")}  # of all runs of a set


def gather(profile: str, dataset: str, axes: dict, superclasses: list[str] | None) -> Evidence:
    """Per-sample tables of all runs of `axes`, and of each study that has run (by hand, in `smoke`, perhaps none).

    superclasses: the group of each class, or None. A table of `TABLES` is there if those of all its runs are, one of
    `JOINT` if its file is.
    """
    numbers = load(profile, dataset).evaluate
    found = {name: study(*place, profile, dataset, axes) for name, place in TABLES.items()}
    studies = {name: table for name, table in found.items() if table is not None}
    for name, (stage, file) in JOINT.items():
        if (path := folder(stage, profile=profile, dataset=dataset) / file).exists():
            studies[name] = pd.read_csv(path)
    norms = folder("classwise", profile=profile, dataset=dataset) / "norms.csv"
    return Evidence(evaluate.load_all(profile, dataset, axes), numbers.headline, numbers.tier, superclasses, studies,
                    pd.read_csv(norms) if norms.exists() else None)


def study(stage: str, file: str, profile: str, dataset: str, axes: dict) -> pd.DataFrame | None:
    """The table of a study, of all its methods and the seeds of `axes`, or None where one of them has not run."""
    paths = [folder(stage, profile=profile, dataset=dataset, method=method, seed=seed) / file
             for method in axes["studies"][stage] for seed in axes["seeds"]]
    return pd.concat(map(pd.read_csv, paths), ignore_index=True) if all(path.exists() for path in paths) else None
