"""What there is of a profile to make a site of: executed notebooks, figures, claims, and pages of the guide."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lib import stages
from lib.params import ConfigError, root

CHAPTERS = "papers"  # the stage that runs the chapters
FIRST = ("glossary", "evaluating", "teaching")  # pages of the guide, in reading order; others follow by name


@dataclass(frozen=True)
class Page:
    """An executed notebook and its place in the site.

    name: without suffix, papers/<chapter> or stages/<stage>/<data set>/<method>/<seed>/<notebook>. about: data set,
    method and seed, as far as the stage has them. title: the question that the notebook asks.
    """

    stage: str
    path: Path
    name: str
    about: tuple[str, ...]
    title: str

    @property
    def words(self) -> str:
        """Data set, method and seed in words, such as 'digits, pgd, seed 0'; '' for a stage without any."""
        return ", ".join([*self.about[:2], *(f"seed {seed}" for seed in self.about[2:])])


@dataclass(frozen=True)
class Found:
    """All of a profile. missing: instances of dvc.yaml, by name, that have no executed notebook yet."""

    profile: str
    pages: list[Page]
    missing: list[str]

    @property
    def folder(self) -> Path:
        """The results of the profile."""
        return root() / "results" / self.profile

    @property
    def chapters(self) -> list[Page]:
        """The chapters, in the order in which dvc.yaml lists them."""
        return [page for page in self.pages if page.stage == CHAPTERS]

    @property
    def stages(self) -> dict[str, list[Page]]:
        """The other pages by stage, in the order of dvc.yaml."""
        others = [page for page in self.pages if page.stage != CHAPTERS]
        return {stage: [page for page in others if page.stage == stage] for stage in {p.stage: 0 for p in others}}

    @cached_property
    def figures(self) -> dict[tuple[str, str], Path]:
        """The figures, by data set and name."""
        every = sorted((self.folder / "figures").glob("*-*.svg"))
        return {tuple(path.stem.split("-", 1)): path for path in every}

    @cached_property
    def claims(self) -> dict[str, list[dict]]:
        """The rows of claims.json by data set; none where there is no such file."""
        return _read(self.folder / "claims.json")

    @cached_property
    def summary(self) -> dict:
        """summary.json; {} where there is no such file."""
        return _read(self.folder / "summary.json")

    @cached_property
    def guides(self) -> list[Path]:
        """The pages of the guide, in reading order."""
        every = sorted((root() / "notebooks" / "guide").glob("*.md"))
        return sorted(every, key=lambda path: FIRST.index(path.stem) if path.stem in FIRST else len(FIRST))

    def stage_page(self, stage: str, dataset: str = "") -> str:
        """The name of the page of a stage: its only notebook (of this data set), or the page that lists several.

        '' for a stage of which nothing was run.
        """
        every = self.stages.get(stage, [])
        here = [page for page in every if not dataset or page.about[:1] in ((), (dataset,))]
        if len(here) == 1:
            return here[0].name
        return f"stages/{stage}/index" if every else ""


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def look(profile: str) -> Found:
    """What there is of a profile. Raises ConfigError if it has no executed notebook."""
    pages, missing = [], []
    for instance in stages.instances(profile):
        path = root() / instance.out / instance.notebook.name
        if path.exists():
            pages.append(_page(instance, path))
        else:
            missing.append(instance.name)
    if not pages:
        raise ConfigError(f"profile {profile} has no executed notebooks: run `make repro` first")
    return Found(profile, pages, missing)


def plain(text: str) -> str:
    """Markdown as words in one line."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[`*$\\]", "", text).split())


def _page(instance: stages.Instance, path: Path) -> Page:
    stage = instance.name.split("@")[0]
    inside = Path(*instance.out.parts[2:])  # results/<profile>/...
    name = f"{CHAPTERS}/{path.stem}" if stage == CHAPTERS else f"stages/{inside}/{path.stem}"
    about = () if stage == CHAPTERS else inside.parts[1:]
    first = json.loads(path.read_text())["cells"][0]
    return Page(stage, path, name, about, plain("".join(first["source"]).splitlines()[0].lstrip("# ")))
