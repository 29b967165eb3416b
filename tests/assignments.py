"""Quick chapters, and what students hand in for them."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.course import questions, release

LIGHT = "import numpy as np\nx = np.arange(4.0)"
HEAVY = ("import numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom lib import attacks, stats\n"
         "x = torch.arange(4.0)\nweights = torch.nn.Linear(2, 1)\n"
         "hollow = torch.empty(3, device='meta')\nhalves = x.bfloat16()\ndef helper(v):\n    return v")
TWICE = ("def {name}(v):\n    # BEGIN SOLUTION\n    return 2 * v\n    # END SOLUTION",
         "assert torch.allclose({name}(x), 2 * x)\nassert np.allclose({name}(np.ones(3)), 2)",
         "assert {name}(21) == 42  # secret")


def about(name, points=None):
    """nbgrader's metadata of a question, or of its tests."""
    tests = points is not None
    found = {"grade": tests, "grade_id": f"{name}-tests" if tests else name, "locked": tests, "schema_version": 3,
             "solution": not tests, "task": False}
    return {"nbgrader": found | ({"points": points} if tests else {})}


def made(*asked, setup=LIGHT):
    """A quick chapter: a question for each (name, points, solution, tests, hidden tests)."""
    cells = [new_markdown_cell("# Is it quick?", id="title"), new_code_cell('profile = "smoke"', id="parameters"),
             new_code_cell(setup, id="setup")]
    for name, points, solution, tests, hidden in asked:
        tests = f"{tests}\n### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS"
        cells += [new_code_cell(solution, id=name, metadata=about(name)),
                  new_code_cell("shown = 1", id=f"{name}-shown"),
                  new_code_cell(tests, id=f"{name}-tests", metadata=about(name, points))]
    return new_notebook(cells=cells)


def twice(*names, heavy=False):
    """A chapter of questions that all want a function that doubles; heavy: with torch and lib at hand."""
    solution, tests, hidden = (text if heavy else text.replace("torch", "np") for text in TWICE)
    return made(*((name, 2, *(text.format(name=name) for text in (solution, tests, hidden))) for name in names),
                setup=HEAVY if heavy else LIGHT)


def answered(chapter, **sources):
    """The student's copy of a chapter with these cells put in."""
    copy = release.released(chapter, "quick")
    for cell in copy.cells:
        cell.source = sources.get(cell.id, cell.source)
    assert set(sources) <= {cell.id for cell in copy.cells}
    return copy


def full(chapter, *names):
    """The student's copy with our own solutions of some questions, by default of all."""
    return answered(chapter, **{q.name: q.source for q in questions.questions(chapter, "quick")
                                if not names or q.name in names})
