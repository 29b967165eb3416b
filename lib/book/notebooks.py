"""An executed notebook as a page: figures first, their code behind a button, and alternative texts for pictures."""

import re
from pathlib import Path

import nbformat

from lib.book.found import Page, plain
from lib.book.links import rewrite
from lib.course.questions import HIDDEN, SOLUTION, without
from lib.params import root

DRAWS = re.compile(r"\bplt\.|\bfigures\.|\.plot\(|display\(SVG")
PICTURES = ("image/png", "image/svg+xml", "image/jpeg")
HIDE = "hide-input"  # the tag with which myst-nb puts a cell's code behind a button


def copy(page: Page, there, path: Path) -> None:
    """Write the page's notebook to `path` as the site shows it. The executed notebook stays as it is."""
    notebook = nbformat.read(page.path, as_version=4)
    source = f"notebooks/{'papers' if not page.name.startswith('stages') else 'pipeline'}/{page.path.name}"
    cells = _one_of_parameters(notebook.cells)
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            cell.source = rewrite(cell.source, source, page.name, there)
        elif cell.cell_type == "code":
            _shown(cell, alternative(cells, number))
    if page.name.startswith("stages"):
        cells[0].source = _titled(cells[0].source, page, there)
        notebook.metadata["orphan"] = True  # listed by the page of its stage
    notebook.cells = cells
    nbformat.write(notebook, path)


def _one_of_parameters(cells: list) -> list:
    """The cells, with the parameters that the notebook was run with in place of those that it starts from."""
    tags = [cell.metadata.get("tags", []) for cell in cells]
    injected = any("injected-parameters" in of for of in tags)
    kept = [cell for cell, of in zip(cells, tags, strict=True) if not (injected and "parameters" in of)]
    for cell in kept:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.removeprefix("# Parameters\n").strip()
    return kept


def _shown(cell, words: str) -> None:
    """Hide the code of imports, drawings and tests; name the pictures; show printed code as code."""
    tags = cell.metadata.setdefault("tags", [])
    lines = without(cell.source, HIDDEN)[0].rstrip().split("\n")  # tests that students should not see
    kept = [line for line in lines if not any(mark in line for mark in SOLUTION)]
    asked, cell.source = len(kept) < len(lines), "\n".join(kept)
    graded = cell.metadata.get("nbgrader", {}).get("grade", False)
    if not asked and HIDE not in tags and (graded or DRAWS.search(cell.source) or _imports(cell.source)):
        tags.append(HIDE)
    for output in cell.outputs:
        rich = output.get("data", {})
        if any(kind in rich for kind in PICTURES):
            cell.metadata["mystnb"] = {"image": {"alt": words}}
        if "text/latex" in rich and "highlight" in "".join(rich.get("text/html", "")):  # IPython's Code
            output["data"] = {"text/markdown": f"```python\n{rich['text/plain'].rstrip()}\n```"}


def _imports(source: str) -> bool:
    lines = [line for line in source.splitlines() if line.strip()]
    return bool(lines) and lines[0].startswith(("import ", "from "))


def alternative(cells: list, number: int) -> str:
    """What stands for a picture of this cell where it cannot be seen: its caption, or the section that it is in.

    A caption is the next text, where that is set in italics.
    """
    after = next((cell.source for cell in cells[number + 1:] if cell.cell_type == "markdown"), "")
    caption = re.match(r"\*([^*].*?)\*(?:\n\n|\Z)", after, re.S)
    if caption:
        return plain(caption[1])
    before = [line for cell in cells[:number] if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    titles = [line.lstrip("# ") for line in before if re.match(r"#{1,4} ", line)]
    return f"Figure of: {plain(titles[-1])}" if titles else "Figure"


def _titled(text: str, page: Page, there) -> str:
    """The first cell, its title made the page's own, and a way back to the page of the stage."""
    title, _, rest = text.partition("\n")
    words = f" ({page.words})" if page.words else ""
    above = f"stages/{page.stage}/index" if there.stage_page(page.stage).endswith("/index") else "stages/index"
    back = "../" * (len(Path(page.name).parts) - 1) + above
    named = f"stage {page.stage}" if above != "stages/index" else "all stages"
    code = page.path.relative_to(root()) if page.path.is_relative_to(root()) else page.path.name
    return f"{title}{words}\n\n*An executed notebook, `{code}`: [{named}]({back}.md)*\n{rest}"
