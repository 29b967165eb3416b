"""Links of notebooks and guide pages, which are right in the repository, made right in the site."""

import os
import re
from pathlib import PurePosixPath

from lib.book.found import Found

# Code and formulas are left alone; a link is [text](target), without the ! of an image.
PIECES = re.compile(r"(?P<skip>^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
                    r"|\$\$.+?\$\$|\$[^$\n]+(?:\n[^$\n]+)*\$)"
                    r"|(?<!!)\[(?P<text>(?:[^\[\]]|`[^`]*`)+)\]\((?P<target>[^()\s]+)\)", re.M | re.S)
ELSEWHERE = re.compile(r"[a-z]+:")


def rewrite(text: str, source: str, page: str, there: Found) -> str:
    """The Markdown `text` with each link into the repository led to the site's page, or plain text where it has none.

    source: the file of the text, from the root of the repository; page: the name of its page in the site.
    """
    def led(match: re.Match) -> str:
        """One link, or a piece that holds none."""
        if match["skip"] or ELSEWHERE.match(match["target"]) or match["target"].startswith("#"):
            return match[0]
        path, _, anchor = match["target"].partition("#")
        found = place(os.path.normpath(PurePosixPath(source).parent / path), there)
        if not found:
            return match["text"]
        target = os.path.relpath(found, PurePosixPath(page).parent)
        return f"[{match['text']}]({target}{'#' * bool(anchor)}{anchor})"

    return PIECES.sub(led, text)


def place(path: str, there: Found) -> str:
    """The source in the site of a file or folder of the repository, such as papers/pgd.ipynb; '' if it has none."""
    folder, stem = PurePosixPath(path).parent.as_posix(), PurePosixPath(path).stem
    if path in ("README.md", "."):
        return "index.md"
    if folder == "notebooks/guide" and stem in [guide.stem for guide in there.guides]:
        return f"guide/{stem}.md"
    chapters = {chapter.path.stem: chapter.name for chapter in there.chapters}
    if folder == "notebooks/papers" and stem in chapters:
        return f"{chapters[stem]}.ipynb"
    for stage, pages in there.stages.items():
        if folder == "notebooks/pipeline" and pages[0].path.stem == stem:
            return _file(there.stage_page(stage))
    return ""


def near(name: str, page: str) -> str:
    """The way from a page to the page `name`, as a link's target; '' for no name."""
    return os.path.relpath(_file(name), PurePosixPath(page).parent) if name else ""


def _file(name: str) -> str:
    return f"{name}.md" if name.endswith("index") else f"{name}.ipynb"
