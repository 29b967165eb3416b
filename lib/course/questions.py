"""The questions of a chapter: which cells ask, which cells grade, and for how many points.

A question is a code cell with one or more solution regions, from a line `# BEGIN SOLUTION` to a line `# END SOLUTION`,
and nbgrader's metadata {"grade_id": NAME, "solution": true}. Exactly one tests cell follows it, with {"grade_id":
NAME-tests, "grade": true, "locked": true, "points": N}. It holds asserts, the last of them perhaps between `### BEGIN
HIDDEN TESTS` and `### END HIDDEN TESTS`. nbgrader looks for these words anywhere in a line, and so do we.

Otter's documentation of `otter assign` has solutions between the same two lines, and puts `...` in their place; its
questions begin with raw cells `# BEGIN QUESTION`, and a tests cell is hidden as a whole by a first line `# HIDDEN`. So
of our markers it shares those of solutions only. This was read, not tried: Otter is no dependency of ours.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from lib.params import ConfigError, known, root

STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
SOLUTION, HIDDEN = ("BEGIN SOLUTION", "END SOLUTION"), ("BEGIN HIDDEN TESTS", "END HIDDEN TESTS")


@dataclass(frozen=True)
class Question:
    """One question of a chapter. cell, tests: positions of its two cells in the notebook. binds: the names that our
    solution's cell defines, which are all that is taken over from a student.
    """

    name: str
    points: int
    cell: int
    tests: int
    source: str
    stub: str
    binds: tuple[str, ...]


def path(chapter: str) -> Path:
    """The notebook of a chapter, given as 'awp' or 'papers/awp', or a notebook elsewhere that is written as one."""
    if chapter.endswith(".ipynb") and Path(chapter).is_file():
        return Path(chapter)
    name = Path(chapter).stem
    known("chapter", name, names())
    return root() / "notebooks" / "papers" / f"{name}.ipynb"


def names() -> list[str]:
    """The chapters that there are."""
    return sorted(p.stem for p in (root() / "notebooks" / "papers").glob("*.ipynb"))


def read(file: Path) -> nbformat.NotebookNode:
    """A chapter as a notebook of format 4."""
    try:
        return nbformat.read(file, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise ConfigError(f"{file.name} is not a notebook: {str(error).splitlines()[0]}") from error


def meta(cell) -> dict:
    """nbgrader's metadata of a cell, or nothing."""
    found = cell.metadata.get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def without(source: str, markers: tuple[str, str], stub: tuple[str, ...] = ()) -> tuple[str, int]:
    """The source with each region between two markers replaced by the stub, indented as its first line; and how many.

    Raises ValueError for a marker that has no partner.
    """
    kept, inside, found = [], False, 0
    for line in source.split("\n"):
        if markers[0] in line or markers[1] in line:
            begins = markers[0] in line
            if begins == inside:
                raise ValueError(f"{'a second' if begins else 'a lone'} '{markers[not begins]}'")
            inside, found = begins, found + begins
            if begins:
                kept += [re.match(r"\s*", line)[0] + text for text in stub]
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"'{markers[0]}' without '{markers[1]}'")
    return "\n".join(kept), found


def regions(source: str, markers: tuple[str, str]) -> set[int]:
    """The numbers, from 1, of the lines that lie within regions."""
    inside, found = False, set()
    for number, line in enumerate(source.split("\n"), 1):
        inside = (inside or markers[0] in line) and markers[1] not in line
        found |= {number} if inside else set()
    return found


def bound(tree: ast.AST) -> set[str]:
    """The names that code binds at its top level: by def, class, assignment, import, for, with and so on."""
    found, todo = set(), list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        if isinstance(node, ast.alias):
            found.add(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        todo += ast.iter_child_nodes(node)
    return found


def questions(notebook: nbformat.NotebookNode, name: str) -> list[Question]:
    """The questions of a chapter in order. Raises ConfigError where a chapter breaks the rules above."""
    try:
        return _questions(notebook)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _questions(notebook: nbformat.NotebookNode) -> list[Question]:
    """The same. Raises ValueError."""
    asked, tests = {}, {}
    for number, cell in enumerate(notebook.cells):
        about, where = meta(cell), f"cell {number + 1}"
        try:
            stub, solutions = without(cell.source, SOLUTION, STUB)
            hidden = without(cell.source, HIDDEN)[1]
        except ValueError as error:
            raise ValueError(f"{where} has {error}") from None
        solution, grade, ident = about.get("solution"), about.get("grade"), about.get("grade_id")
        if solutions and not solution:
            raise ValueError(f"{where} holds a solution but no question: give it nbgrader's metadata "
                             "(manual: teaching.md)")
        if solution and (cell.cell_type != "code" or not solutions):
            raise ValueError(f"question '{ident}' ({where}) has no code between '# BEGIN SOLUTION' and "
                             "'# END SOLUTION'")
        if hidden and not grade:
            raise ValueError(f"{where} has hidden tests but is no tests cell")
        if solution and grade:
            raise ValueError(f"'{ident}' is a question and a tests cell at once, or graded by hand: make it two cells")
        if (solution or grade) and (ident in asked or ident in tests):
            raise ValueError(f"the id '{ident}' is used twice")
        if solution:
            asked[ident] = (number, cell.source, stub)
        elif grade:
            tests[ident] = (number, about.get("points"))
    _check_pairs(asked, tests)
    found = []
    for ident, (number, source, stub) in asked.items():
        try:
            binds = tuple(sorted(bound(ast.parse(source))))
        except SyntaxError as error:
            raise ValueError(f"question '{ident}' is not Python: {error}") from None
        place, points = tests[f"{ident}-tests"]
        found.append(Question(ident, points, number, place, source, stub, binds))
    return found


def _check_pairs(asked: dict, tests: dict) -> None:
    """Each question has its tests after it, with points; each tests cell has its question."""
    for ident in tests:
        if not str(ident).endswith("-tests") or ident[:-6] not in asked:
            raise ValueError(f"the tests cell '{ident}' has no question: the two are named NAME and NAME-tests")
    for ident, (number, *_) in asked.items():
        if f"{ident}-tests" not in tests:
            raise ValueError(f"question '{ident}' has no tests cell '{ident}-tests'")
        place, points = tests[f"{ident}-tests"]
        if place < number:
            raise ValueError(f"the tests of '{ident}' stand before the question")
        if not isinstance(points, int) or points < 1:
            raise ValueError(f"the tests of '{ident}' have points {points!r}: a whole number from 1 on is wanted")
