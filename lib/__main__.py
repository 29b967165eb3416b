"""python -m lib COMMAND: what dvc.yaml and the Makefile call.

  code PROFILE                         write what each stage computes from (stage `code`)
  run NOTEBOOK FOLDER NAME=VALUE ...   execute a notebook of dvc.yaml into its results folder
  fetch NAME ...                       download image sets into the data home, and check them
  profile NAME                         set profile, datasets, methods, seeds and studies of params.yaml to a profile's
  repro [JOBS] [only=STAGE,...] [ENGINE NAME=VALUE ...]
                                       dvc repro, with up to JOBS stages side by side (2), of all stages or of some
                                       and what they read from; with engine slurm each stage is a job of its own,
                                       with these options (local: a rehearsal here)
  figures [STAGE,...]                  say where the figures of the current profile, or of some stages, are
  cost [DATASET] [METHOD ...]          count the passes of a training step of each method, and time it
  bench [DATASET] [METHOD ...] [NAME=VALUE ...]
                                       time training beside a plain loop and what the hardware allows
  paper [NAME=VALUE ...]               train and evaluate methods on CIFAR-10, on a GPU (lib/paper/options.py)
  book [PROFILE]                       build one site of a profile's notebooks and results (results/PROFILE/book)
  exercises [CHAPTER ...]              write the students' copies of the chapters to results/exercises
  grade CHAPTER SUBMISSION [NAME=VALUE ...]
                                       grade a notebook, or a folder of them, with the chapter's tests
  smoke [FOLDER]                       run the whole pipeline, tiny, in a fresh copy of this tree (.smoke)
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

try:
    import yaml

    from lib import params, processes
except ModuleNotFoundError as error:
    sys.exit(f"error: the package '{error.name}' is missing: bring its wheel in the version of constraints.txt")


def run(notebook: str, out: str, *pairs: str) -> None:
    """Execute a notebook as a stage, here or as a job of the engine that `repro` was given."""
    if os.environ.get(processes.ENGINE):
        from lib import cluster

        sys.exit(cluster.run(notebook, out, *pairs))
    from lib import notebook as notebooks

    notebooks.run(notebook, out, **_typed(dict(pair.split("=", 1) for pair in pairs)))


def _typed(pairs: dict[str, str]) -> dict[str, str | int]:
    """Numbers as numbers."""
    return {name: int(value) if value.isdigit() else value for name, value in pairs.items()}


def code(profile: str) -> None:
    """Write the code files of a profile."""
    from lib import stages

    print(f"{stages.write(profile)} notebook stages in profile {profile}")


def fetch(*names: str) -> None:
    """Have image sets in the data home, so that stage `data` needs no network."""
    from lib import sources

    for name in names:
        params.known("data set", name, sources.SOURCES)
        found = sources.given(name)
        print(f"{name}: {len(found['train_y'])} training and {len(found['test_y'])} test images of "
              f"{len(found['classes'])} classes")


def profile(name: str) -> None:
    """Set the axes of params.yaml to those of a profile, and leave every other line as it is."""
    from lib.config import AXES

    path = params.root() / "params.yaml"
    raw = params.read()
    params.known("profile", name, raw["profiles"])
    text = path.read_text()
    for key in ("profile", *AXES):
        value = {"profile": name, **raw["profiles"][name]}.get(key, raw[key])
        shown = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
        shown = shown.removesuffix("...\n").strip()
        text = re.sub(rf"(?m)^{key}:.*$", f"{key}: {shown}", text, count=1)
        print(f"{key}: {shown}")
    path.write_text(text)


def repro(*words: str) -> None:
    """Run what is stale, stages side by side, here or as jobs of an engine."""
    from lib import cluster, parallel

    only = [stage for word in words if word.startswith("only=") for stage in word[5:].split(",")]
    jobs, *engine = [word for word in words if not word.startswith("only=")] or ["2"]
    if not jobs.isdigit() or jobs == "0":
        raise params.ConfigError(f"JOBS is '{jobs}': it has to be a number of stages, such as 2")
    parallel.repro(int(jobs), cluster.engine(*engine) if engine else {}, only)


def figures(only: str = "") -> None:
    """Say where the figures of the current profile are, or those of some stages."""
    if only:
        from lib import parallel, stages

        for instance in stages.instances():
            if parallel.stage(instance.name) in only.split(","):
                print(f"{instance.out}/  figures, tables, and the executed {instance.notebook.name}")
        return
    folder = Path("results") / params.read()["profile"]
    print(f"\nfigures:   {folder}/figures/\nnumbers:   {folder}/summary.json, {folder}/claims.json, {folder}/metrics/\n"
          f"notebooks: {folder}/*/  (executed)\nthe report: {folder}/report/90_report.ipynb")


def cost(dataset: str = "", *specs: str) -> None:
    """Print what a training step of each method costs, by default of all methods on the first data set."""
    from lib import compute, config, cost, data

    raw = params.read()
    found = config.load(raw["profile"], dataset or raw["datasets"][0], "pgd", seed=0)
    device = compute.device(found.compute)
    images = data.load(found, device)
    table = cost.table(found, specs or raw["methods"], images, device)
    print(f"{found.dataset}: a batch of {min(found.train.batch_size, len(images.train))}, training attacks of "
          f"{found.train.steps} steps, on {device.type}\n{cost.shown(table)}\n"
          "equivalents: in forward passes; predicted and measured: more than the objective alone; [quartiles of steps]")


def bench(*words: str) -> None:
    """Run the benchmark, by default on the first data set, and say where its numbers are."""
    from lib import bench

    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    place = bench.run(*(word for word in words if "=" not in word), **_typed(pairs)).relative_to(params.root())
    print(f"\nnumbers: {place}/bench.json\nfigures: {place}/figures/\nnotebook: {place}/bench.ipynb")


def paper(*pairs: str) -> None:
    """Train and evaluate methods on one data set, keep a record of each run, and draw what they say."""
    from lib import paper

    processes.interruptible()
    paper.run(*pairs)


def book(profile: str = "") -> None:
    """Build the site of a profile, by default that of params.yaml, and say where it is."""
    from lib import book

    first = book.build(profile)
    print(f"\nopen {first.relative_to(params.root())} in a browser")


def exercises(*names: str) -> None:
    """Write the students' copies of chapters, by default of all."""
    from lib import course

    course.exercises(*names)


def grade(chapter: str = "", where: str = "", *pairs: str) -> None:
    """Grade a notebook, or each of a folder, and say the points by question."""
    from lib import course

    if not where:
        raise params.ConfigError("name a chapter and a submission: python -m lib grade papers/awp submission.ipynb")
    course.grade(chapter, where, *pairs)


def smoke(folder: str = ".smoke") -> None:
    """Copy the tree (tracked and new files) to `folder`, set profile smoke there, and run it."""
    root, copy = params.root(), Path(folder).resolve()
    listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=root, capture_output=True,
                            text=True, check=True).stdout
    shutil.rmtree(copy, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file() and not name.startswith(("results/", "dvc.lock")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    for words in (["profile", "smoke"], ["repro"], ["figures"]):
        subprocess.run([sys.executable, "-m", "lib", *words], cwd=copy, check=True)
    print(f"(in {copy})")


COMMANDS = {"run": run, "code": code, "fetch": fetch, "profile": profile, "repro": repro, "figures": figures,
            "cost": cost, "bench": bench, "paper": paper, "book": book, "exercises": exercises, "grade": grade,
            "smoke": smoke}


def main(words: list[str]) -> int:
    """Run a command; an error in what the user wrote is one line, not a traceback."""
    if not words or words[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        COMMANDS[words[0]](*words[1:])
    except (params.ConfigError, params.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ModuleNotFoundError as error:
        if (error.name or "lib").split(".")[0] == "lib":
            raise
        print(f"error: the package '{error.name}' is missing: `make env` installs all of them; without a network, "
              "bring its wheel in the version of constraints.txt", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        logging.getLogger("asyncio").disabled = True  # what was cut off would tell of it, after the last line
        print(f"interrupted: {str(interrupt) or 'run it again to go on'}; finished stages and epochs are kept",
              file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
