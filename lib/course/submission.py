"""A submission: which of its cells answer which question, and which cells are the student's own."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from lib.course import screen
from lib.course.child import clean
from lib.course.questions import Question, bound, meta
from lib.course.release import HEADER


@dataclass
class Answer:
    """What a student wrote for one question. source: None if there is nothing to run, and `reason` says why.

    before, after: cells of the student's own that stand before the answer, and between it and the tests.
    """

    source: str | None = None
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    reason: str = ""
    remarks: list[str] = field(default_factory=list)


def load(file: Path) -> nbformat.NotebookNode:
    """A submitted notebook of any format, as format 4. Raises ValueError in one line if it cannot be read."""
    try:
        notebook = nbformat.read(file, as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source if isinstance(cell.source, str) else "".join(cell.source)
            cell.metadata = cell.metadata if isinstance(cell.metadata, dict) else nbformat.NotebookNode()
        return notebook
    except Exception as error:  # whatever a broken file brings about
        raise ValueError(clean(f"not a notebook: {str(error) or type(error).__name__}")[:120]) from None


def answers(notebook, chapter, asked: list[Question], given: set[str]) -> dict[str, Answer]:
    """The answer to each question by its name.

    Cells are matched by nbgrader's grade_id, else by cell id, else by what they define. Of several the last that is not
    the stub counts. given: the ids of the cells that a student is given; a cell with another id is the student's own,
    unless its text is that of a given cell.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    idents = [meta(cell).get("grade_id") or cell.get("id") for cell in cells]
    texts = [_text(cell.source) for cell in chapter.cells] + [_text(question.stub) for question in asked]
    mine = [i for i, cell in enumerate(cells)
            if idents[i] not in given and cell.source.strip() and _text(cell.source) not in texts]
    lib = screen.from_lib([cell.source for cell in chapter.cells if cell.cell_type == "code"])
    return {question.name: _answer(question, [cell.source for cell in cells], idents, mine, lib) for question in asked}


def _text(source: str) -> str:
    """A source without blanks, to compare."""
    return re.sub(r"\s+", "", source)


def _answer(question: Question, sources: list[str], idents: list, mine: list[int], lib: set[str]) -> Answer:
    """The answer to one question, and what can be said of it before it runs."""
    here = [i for i, ident in enumerate(idents) if ident == question.name]
    written = [i for i in here if not screen.same(sources[i], question.stub)]
    found = Answer()
    if not written:
        elsewhere = [i for i in mine if set(question.binds) <= _defined(sources[i])]
        if not elsewhere:
            found.reason = "not answered" if here else "the cell is missing"
            return found
        written = elsewhere
        found.remarks.append(f"taken from cell {elsewhere[-1] + 1} of the code, which defines it")
    elif len(here) > 1:
        found.remarks.append(f"{len(here)} cells have its id: the last that is not the stub counts")
    place = written[-1]
    source = screen.plain(sources[place])
    tree = screen.parsed(source)
    if isinstance(tree, str):
        found.reason = tree
        return found
    end = next((i for i, ident in enumerate(idents) if ident == f"{question.name}-tests" and i > place), place)
    own = [i for i in mine if i not in written]
    found.before = [screen.plain(sources[i]) for i in own if i < place]
    found.after = [screen.plain(sources[i]) for i in own if place < i < end]
    stolen = screen.borrowed(source, found.before + found.after, question.source, lib)
    if stolen:
        found.reason = f"uses {', '.join(sorted(stolen))} of lib, which our solution does without"
    else:
        found.source = source
    return found


def _defined(source: str) -> set[str]:
    """The names that a cell binds, if it is Python."""
    tree = screen.parsed(screen.plain(source))
    return bound(tree) if isinstance(tree, ast.Module) else set()


def looked_at(notebook, given: set[str], asked: list[Question]) -> list[str]:
    """Remarks for the instructor: words in a student's cells that no question needs."""
    remarks, names = [], {question.name for question in asked}
    for cell in notebook.cells:
        ident = meta(cell).get("grade_id") or cell.get("id")
        if cell.cell_type == "code" and (ident in names or ident not in given):
            if words := screen.suspicious(cell.source):
                remarks.append(f"look at {ident if ident in names else 'a cell of their own'}: {', '.join(words)}")
    return list(dict.fromkeys(remarks))


def ids(chapter) -> set[str]:
    """The ids of all cells that a student is given."""
    found = {ident for cell in chapter.cells for ident in (cell.get("id"), meta(cell).get("grade_id"))}
    return found - {None} | {HEADER}
