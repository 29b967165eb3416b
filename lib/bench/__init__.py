"""How fast training is: ours beside a plain loop, and both beside what the hardware allows. See notebooks/bench.ipynb.

Timings differ from run to run and from machine to machine, so nothing here is a stage of dvc.yaml: `make bench`, or
`python -m lib bench`, runs the notebook.
"""

import os
from pathlib import Path

NOTEBOOK = Path("notebooks/bench.ipynb")


def run(dataset: str = "", *specs: str, **parameters: str | int) -> Path:
    """Execute the notebook of the benchmark in the profile of params.yaml, and return the folder of its results.

    dataset: by default the first of params.yaml. specs: the methods, by default those of the profile's plan.
    parameters: further ones of the notebook. The folder is results/bench/<device>/<data set>, or results/scratch/bench
    in `smoke`, whose numbers mean nothing: bench.json, figures/, and the executed notebook. Raises ConfigError for a
    data set or a parameter that does not exist.
    """
    from lib import compute, config, notebook, params
    from lib.bench import machine

    raw = params.read()
    dataset = dataset or raw["datasets"][0]
    found = config.load(raw["profile"], dataset, specs[0] if specs else "pgd", seed=0)
    place = Path("scratch", "bench") if raw["profile"] == "smoke" else Path(
        "bench", machine.name(compute.device(found.compute)), dataset)
    out = params.root() / "results" / place
    os.environ[config.OUT] = str(out)
    notebook.execute(NOTEBOOK, out, profile=raw["profile"], dataset=dataset, methods=" ".join(specs), **parameters)
    return out
