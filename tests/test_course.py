"""Chapters as assignments: what a student is given, and whose cell is whose in what comes back."""

import re
from copy import deepcopy

import nbformat
import pytest
from assignments import about, full, made, twice
from nbformat.v4 import new_code_cell

from lib.course import questions, release, screen, submission
from lib.params import ConfigError

CHAPTERS = questions.names()


@pytest.mark.parametrize("name", CHAPTERS)
def test_nbgraders_own_tools_strip_alike(name):
    from nbgrader.preprocessors import ClearHiddenTests, ClearOutput, ClearSolutions
    from nbgrader.utils import is_locked

    ours = questions.read(questions.path(name))
    theirs = deepcopy(ours)
    for tool in (ClearSolutions(), ClearHiddenTests(), ClearOutput()):
        theirs, _ = tool.preprocess(theirs, {})
    copy = release.released(ours, name)
    header = copy.cells.pop(1)
    assert [(c.id, c.source, c.get("outputs"), c.metadata) for c in copy.cells] == \
        [(c.id, c.source, c.get("outputs"), c.metadata) for c in theirs.cells]
    asked = questions.questions(ours, name)
    text = "\n".join(cell.source for cell in copy.cells)
    assert len(asked) >= 3 and "SOLUTION" not in text and "HIDDEN TESTS" not in text
    assert text.count("raise NotImplementedError()") >= len(asked) and is_locked(copy.cells[asked[0].tests])
    assert f"| all | {sum(q.points for q in asked)} |" in header.source


def test_nbgrader_accepts_the_students_copy(tmp_path):
    from nbgrader.nbgraderformat import read, write
    from nbgrader.preprocessors import CheckCellMetadata

    path = tmp_path / "quick.ipynb"
    write(release.released(twice("one", "two"), "quick"), str(path))
    notebook, _ = CheckCellMetadata().preprocess(read(str(path), 4), {})
    assert [c.metadata.nbgrader.points for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")] == [2, 2]


def test_a_stub_is_indented_as_its_region_and_outputs_are_gone():
    source = "for _ in x:\n    a = 1\n    # BEGIN SOLUTION\n    b = 2\n\n    c = 3\n    # END SOLUTION\n    d = 4"
    chapter = made(("f", 1, source, "assert d", "assert d"))
    chapter.cells[2].outputs, chapter.cells[2].execution_count = [nbformat.v4.new_output("stream", text="7")], 3
    copy = release.released(chapter, "quick")
    stub = next(cell for cell in copy.cells if cell.id == "f")
    assert stub.source == "for _ in x:\n    a = 1\n    # YOUR CODE HERE\n    raise NotImplementedError()\n    d = 4"
    assert copy.cells[3].outputs == [] and copy.cells[3].execution_count is None and chapter.cells[2].outputs


@pytest.mark.parametrize("break_it, says", [
    (lambda c: c[3].update(source="# BEGIN SOLUTION\nf = 1"), "'BEGIN SOLUTION' without 'END SOLUTION'"),
    (lambda c: c[3].update(source="f = 1\n# END SOLUTION"), "a lone 'END SOLUTION'"),
    (lambda c: c[3].update(source="# BEGIN SOLUTION\n# BEGIN SOLUTION"), "a second 'BEGIN SOLUTION'"),
    (lambda c: c[3].update(source="f = 1"), "question 'a' .* has no code between"),
    (lambda c: c[3].update(metadata={}), "cell 4 holds a solution but no question"),
    (lambda c: c[2].update(source="### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS"), "hidden tests but is no tests cell"),
    (lambda c: c.pop(5), "question 'a' has no tests cell 'a-tests'"),
    (lambda c: c.pop(3), "the tests cell 'a-tests' has no question"),
    (lambda c: c.append(c[3]), "the id 'a' is used twice"),
    (lambda c: c.append(c.pop(3)), "the tests of 'a' stand before the question"),
    (lambda c: c[5].metadata.nbgrader.pop("points"), "have points None"),
    (lambda c: c[3].update(source="# BEGIN SOLUTION\nf = (\n# END SOLUTION"), "question 'a' is not Python"),
])
def test_a_malformed_chapter_is_one_clear_error(break_it, says):
    chapter = twice("a", "b")
    break_it(chapter.cells)
    with pytest.raises(ConfigError, match=says) as error:
        release.released(chapter, "quick")
    assert str(error.value).startswith("quick: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", CHAPTERS)
def test_our_own_solutions_keep_the_rules_that_students_have(name):
    chapter = questions.read(questions.path(name))
    asked = questions.questions(chapter, name)
    found = submission.answers(full(chapter), chapter, asked, submission.ids(chapter))
    assert not {q.name: found[q.name].reason for q in asked if found[q.name].reason}
    assert not any(found[q.name].before or found[q.name].after or found[q.name].remarks for q in asked)
    assert submission.looked_at(full(chapter), submission.ids(chapter), asked) == []


def test_the_instructors_page_has_the_chapters_numbers():
    text = (questions.root() / "notebooks" / "guide" / "teaching.md").read_text()
    rows = re.findall(r"(?m)^\| \[`?(\w+)`?\]\(\.\./papers/\w+\.ipynb\).*\| (\d+) \| (\d+) \|$", text)
    asked = {name: questions.questions(questions.read(questions.path(name)), name) for name in CHAPTERS}
    assert {name: (int(n), int(points)) for name, n, points in rows} == {
        name: (len(found), sum(q.points for q in found)) for name, found in asked.items()}
    total = [sum(map(len, asked.values())), sum(q.points for found in asked.values() for q in found)]
    assert re.search(rf"(?m)^\| all \|.*\| {total[0]} \| {total[1]} \|$", text)
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("http") or (questions.root() / "notebooks" / "guide" / link).exists(), link


def test_the_last_answer_of_several_counts():
    chapter = twice("one")
    asked = questions.questions(chapter, "quick")
    copy = full(chapter)
    right, wrong, stub = (new_code_cell(source, id=f"copied{number}", metadata=about("one")) for number, source in
                          enumerate((asked[0].source, "def one(v): return v", asked[0].stub)))
    for cells in ([wrong, right, stub], [stub, wrong, stub, right], [right]):
        copy.cells[4:5] = cells
        found = submission.answers(copy, chapter, asked, submission.ids(chapter))["one"]
        assert found.source == right.source and not found.before
        says = f"{len(cells)} cells have its id: the last that is not the stub counts"
        assert found.remarks == ([says] if len(cells) > 1 else [])
        copy.cells[4:4 + len(cells)] = [right]


@pytest.mark.parametrize("answer, own, used", [
    ("def f(v): return attacks.fgsm(v)", [], {"attacks"}), ("def f(v): return g(v)", [], set()),
    ("def f(v): return g(v)", ["h = lambda v: attacks.pgd(v)", "def g(v): return h(v)"], {"attacks"}),
    ("def f(v): return g(v)", ["plots = attacks.pgd", "def g(v): return v"], set()),
    ("import lib.attacks as a\ndef f(v): return a.pgd(v)", [], {"lib.attacks"}),
    ("def f(v): return stats.wilson(v)", [], set()), ("def f(v): return s(v)", ["s = stats.wilson"], set())])
def test_borrowing_from_lib_is_seen_through_own_cells(answer, own, used):
    found = screen.borrowed(answer, own, "def f(v): return stats.wilson(v)", {"attacks", "stats"})
    assert found == used


@pytest.mark.parametrize("source, words", [
    ("import os.path as p", ["os"]), ("from ctypes import cdll", ["ctypes"]), ("open('a').read()", []),
    ("open('a', mode='w')", ["open to write"]), ("open('a', m)", ["open to write"]),
    ("().__class__.__subclasses__()", ["__subclasses__"]),
    ("class T:\n    def __eq__(self, o): return True", ["__eq__"]),
    ("y = model.eval().sum() + eps", []),
    ("def f():\n    global x", ["global"]), ("f(", [])])
def test_words_to_look_at(source, words):
    assert screen.suspicious(source) == words


def test_old_and_broken_formats(tmp_path):
    chapter = twice("one")
    old = nbformat.convert(full(chapter), 3)
    nbformat.write(old, tmp_path / "old.ipynb")
    asked = questions.questions(chapter, "quick")
    notebook = submission.load(tmp_path / "old.ipynb")
    found = submission.answers(notebook, chapter, asked, submission.ids(chapter))["one"]
    assert found.source == asked[0].source and not found.before and not found.after
    for text in ("", "[]", "{", '{"cells": 3}', "\0", '{"cells": [], "nbformat": "x"}', "[" * 100000):
        (tmp_path / "broken.ipynb").write_text(text)
        with pytest.raises(ValueError, match="^not a notebook: .+"):
            submission.load(tmp_path / "broken.ipynb")
    screen.parsed("-" * 40000 + "1")
    assert "longer" in screen.parsed("x" * 60000)
