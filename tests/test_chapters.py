"""The chapters as assignments: questions, their tests, what tests leave alone; and links that lead somewhere."""

import ast
import builtins
import json
import re
import symtable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(ROOT.glob("notebooks/papers/*.ipynb"))
BEGIN, END = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def text(cell):
    return "".join(cell["source"])


def graded(cell):
    """A cell's nbgrader metadata; nothing for a cell of prose or of the chapter's own code."""
    return cell["metadata"].get("nbgrader", {})


def questions(path):
    return {graded(c)["grade_id"]: c for c in cells(path) if graded(c).get("solution")}


def graders(path):
    return {graded(c)["grade_id"]: c for c in cells(path) if graded(c).get("grade")}


def asserts(code):
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))


def scopes(table):
    """A symbol table and all below it."""
    return [table, *(inner for child in table.get_children() for inner in scopes(child))]


def names(code):
    """Of a cell: what it binds, what it reads as it runs, and what the functions that it defines read when called."""
    top = symtable.symtable(code, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    read = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    later = set()
    for scope in scopes(top)[1:]:
        found = {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
        (read if scope.get_name() in ("listcomp", "dictcomp", "setcomp", "genexpr") else later).update(found)
    return bound, read - bound - set(dir(builtins)), later - set(dir(builtins))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
class TestChapter:
    def test_every_solution_is_a_question_of_one_definition(self, path):
        marked = {c["id"] for c in cells(path) if "BEGIN SOLUTION" in text(c) or "END SOLUTION" in text(c)}
        assert marked == set(questions(path)) and len(marked) >= 3
        for name, cell in questions(path).items():
            lines, tree = [line.strip() for line in text(cell).splitlines()], ast.parse(text(cell))
            marks = [line for line in lines if line.endswith(" SOLUTION")]
            assert marks == ["# BEGIN SOLUTION", "# END SOLUTION"], name
            assert [getattr(node, "name", "") for node in tree.body] == [name] and ast.get_docstring(tree.body[0]), name
            called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)
                      and isinstance(node.func, ast.Name)}
            assert not asserts(text(cell)) and "print" not in called, name
            assert graded(cell) == {"grade": False, "grade_id": name, "locked": False, "schema_version": 3,
                                    "solution": True, "task": False}

    def test_every_question_has_one_tests_cell_after_it(self, path):
        order = [c["id"] for c in cells(path)]
        assert len(order) == len(set(order)) and {f"{name}-tests" for name in questions(path)} == set(graders(path))
        for name in questions(path):
            assert order.index(name) < order.index(f"{name}-tests")
        for name, cell in graders(path).items():
            points = graded(cell)["points"]
            assert cell["id"] == name and 1 <= points <= 4
            assert graded(cell) == {"grade": True, "grade_id": name, "locked": True, "points": points,
                                    "schema_version": 3, "solution": False, "task": False}

    def test_tests_are_visible_first_and_hidden_last(self, path):
        for name, cell in graders(path).items():
            lines = text(cell).rstrip().splitlines()
            assert lines.count(BEGIN) == lines.count(END) == 1 and lines[-1] == END, name
            shown, hidden = text(cell).split(BEGIN)
            assert asserts(shown) and asserts(hidden), name
        elsewhere = [c for c in cells(path) if not graded(c).get("grade") and "HIDDEN TESTS" in text(c)]
        assert not elsewhere

    def test_nothing_needs_what_tests_have_bound(self, path):
        """A student's copy has no hidden tests, and a grader may skip tests: the other cells must not notice."""
        owner, wanted = {}, set()  # name -> the tests cell that bound it last; what functions so far read when called
        for cell in cells(path):
            bound, read, later = names(text(cell))
            if graded(cell).get("grade"):
                assert not bound & wanted, f"{cell['id']} binds {bound & wanted}, which a function above reads"
                assert not read & {"plt", "figures"}, f"{cell['id']} draws"
                owner |= dict.fromkeys(bound, cell["id"])
            else:
                taken = {name: owner[name] for name in (read | later - bound) & set(owner)}
                assert not taken, f"{cell['id']} reads what a tests cell has bound: {taken}"
                wanted |= later
                owner = {name: by for name, by in owner.items() if name not in bound}

    def test_hidden_tests_bind_nothing_for_visible_ones(self, path):
        hidden, order = set(), cells(path)
        for cell in order:
            shown = text(cell).split(BEGIN)[0]
            bound, read, _ = names(shown)
            assert not read & hidden, f"{cell['id']} reads {read & hidden} of hidden tests"
            hidden -= bound
            if BEGIN in text(cell):
                hidden |= names(text(cell).split(BEGIN)[1])[0]

    def test_links_lead_somewhere(self, path):
        prose = "\n".join(text(c) for c in cells(path, "markdown"))
        for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]+)(#([\w-]+))?\)", prose):
            assert (path.parent / target).exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.+)$", (path.parent / target).read_text(), re.M)
                assert anchor in {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}, anchor
