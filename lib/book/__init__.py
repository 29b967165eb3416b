"""The executed notebooks of a profile, its figures, claims and guide pages as one static site that needs no network.

`found` says what there is; `notebooks`, `results` and `pages` write it as sources of Sphinx; `site` builds them.
"""

import shutil
from pathlib import Path

from lib import params
from lib.book import found, notebooks, pages, results, site

__all__ = ["build", "found"]


def build(profile: str = "") -> Path:
    """Build results/<profile>/book, by default of the profile of params.yaml, and return its first page.

    It is built aside and renamed at the end: an old book stays until the new one is whole. Raises ConfigError if
    nothing of the profile was run, or if Sphinx warns of anything.
    """
    profile = profile or params.read()["profile"]
    there = found.look(profile)
    aside, place = there.folder / "book.unfinished", there.folder / "book"
    shutil.rmtree(aside, ignore_errors=True)
    sources(there, aside / "source")
    site.build(aside / "source", aside / "html")
    shutil.rmtree(place, ignore_errors=True)
    (aside / "html").rename(place)
    shutil.rmtree(aside)
    return place / "index.html"


def sources(there: found.Found, folder: Path) -> None:
    """Write the sources of the site into `folder`, which is made."""
    (folder / "figures").mkdir(parents=True)
    for path in there.figures.values():
        shutil.copy(path, folder / "figures")
    texts = {"index": pages.front(there), "results": results.page(there), "figures": pages.figures(there),
             "stages/index": pages.stages(there), **pages.stage_pages(there), **pages.guides(there)}
    for name, text in texts.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for page in there.pages:
        path = folder / f"{page.name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        notebooks.copy(page, there, path)
