"""Students' copies of the chapters: without solutions, hidden tests and outputs, in the form that nbgrader releases."""

from copy import deepcopy

import nbformat
from nbformat.v4 import new_markdown_cell

from lib.course.questions import HIDDEN, SOLUTION, STUB, Question, path, questions, read, without
from lib.params import root

HEADER = "about-grading"
ABOUT = """## Your copy, and how it is graded

Replace each `raise NotImplementedError()` below by code of your own.

| question | points |
|---|---|
{rows}
| all | {total} |

- What counts is the cell of each question, and the cells that you add. Changes of any other cell are ignored: tests
  come from your instructor's copy, where some are hidden from you. So write what the text asks, and not only what the
  tests below it see.
- A question has all its points or none. It is run after our own solutions of the others, so a mistake costs once.
- Write it yourself: a question whose code calls a module of `lib` that our solution does without has no points.
- Numbers need not agree bit for bit: the tests allow for rounding.
- Run the notebook from the top before you hand it in. To see how many points it has:
  `python -m lib grade papers/{name} YOUR_COPY.ipynb`. Your instructor's tests may be others than the repository's."""


def released(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The student's copy of a chapter. Raises ConfigError where its markers or metadata are wrong.

    Sources are those that nbgrader's ClearSolutions and ClearHiddenTests leave; nbgrader's metadata stay, so that its
    locked tests and its formgrader work as with a release version of its own. Only the second cell is added.
    """
    asked = questions(notebook, name)
    copy = deepcopy(notebook)
    for cell in copy.cells:
        cell.source = without(without(cell.source, SOLUTION, STUB)[0], HIDDEN)[0]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    header = new_markdown_cell(about(asked, name), id=HEADER)
    header.metadata["nbgrader"] = {"grade": False, "grade_id": HEADER, "locked": True, "schema_version": 3,
                                   "solution": False, "task": False}
    copy.cells.insert(1, header)
    return copy


def about(asked: list[Question], name: str) -> str:
    """What a student has to know, with the table of questions and points."""
    rows = "\n".join(f"| `{question.name}` | {question.points} |" for question in asked)
    return ABOUT.format(rows=rows, total=sum(question.points for question in asked), name=name)


def release(name: str) -> str:
    """Write results/exercises/<name>.ipynb; one line that says what is in it."""
    source = path(name)
    notebook = read(source)
    target = root() / "results" / "exercises" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(released(notebook, source.stem), target)
    asked = questions(notebook, source.stem)
    return (f"{target.relative_to(root())}  {len(asked)} questions, {sum(q.points for q in asked)} points: "
            + ", ".join(f"{q.name} {q.points}" for q in asked))
