"""Chapters as assignments: what a student is given, and what the grader makes of what comes back."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib import course
from lib.course import isolate, questions, release, screen, submission
from lib.course.judge import judge
from lib.params import ConfigError

CHAPTERS = questions.names()
LIGHT = "import numpy as np\nx = np.arange(4.0)"
HEAVY = ("import numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom lib import attacks, stats\n"
         "x = torch.arange(4.0)\nweights = torch.nn.Linear(2, 1)\ndef helper(v):\n    return v")
TWICE = ("def {name}(v):\n    # BEGIN SOLUTION\n    return 2 * v\n    # END SOLUTION",
         "assert torch.allclose({name}(x), 2 * x)\nassert np.allclose({name}(np.ones(3)), 2)",
         "assert {name}(21) == 42  # secret")
isolated = pytest.mark.skipif(not isolate.possible(), reason="no namespaces here: such code is run in them only")


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


@pytest.fixture
def graded(tmp_path):
    """Grade a submission of a chapter, both notebooks."""
    def run(chapter, notebook, **options):
        nbformat.write(chapter, tmp_path / "quick.ipynb")
        nbformat.write(notebook, tmp_path / "student.ipynb")
        return judge(str(tmp_path / "quick.ipynb"), tmp_path / "student.ipynb", **options)
    return run


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


def test_full_half_and_tampered(graded):
    chapter = twice("one", "two", "three", "four")
    assert graded(chapter, full(chapter)).total() == (8, 8)
    half = full(chapter, "one", "three", "four")
    for cell in half.cells:  # tests made easy, points raised, our own cells broken, questions in another order
        if cell.id.endswith("-tests"):
            cell.source, cell.metadata.nbgrader.points = "pass", 100
        if cell.id in ("setup", "one-shown"):
            cell.source = "raise ValueError"
        if cell.id == "four":
            cell.source = "def four(v):\n    return 2 * v if len(v) > 2 else 0"
    half.cells = half.cells[:3:-1]
    half.cells = [cell for cell in half.cells if not cell.id.endswith("-tests")]
    found = graded(chapter, half)
    assert found.points == {"one": 2, "two": 0, "three": 2, "four": 0} and found.total() == (4, 8)
    assert found.reasons["two"] == "not answered" and found.reasons["four"] == "a hidden test fails"
    assert "secret" not in found.text() and "42" not in found.text()


def test_nothing_answered_runs_nothing(graded, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    chapter = twice("one", "two")
    copy = release.released(chapter, "quick")
    copy.cells = [cell for cell in copy.cells if cell.id != "two"]
    found = graded(chapter, copy)
    assert found.total() == (0, 4) and found.reasons == {"one": "not answered", "two": "the cell is missing"}


HOSTILE = {  # what a cell does, and how the grader says so
    "loop": ("while True:\n    pass", "took longer than 3 s"),
    "sleeps": ("def sleeps(v):\n    import time\n    time.sleep(99)", "took longer than 3 s"),
    "memory": ("hoard = bytearray(8 * 2**30)", "MemoryError"),
    "leaves": ("import os\nos._exit(0)", r"ended the process \(exit status 0\)"),
    "exits": ("raise SystemExit(0)", "SystemExit: 0"),
    "exits_late": ("import sys\ndef exits_late(v):\n    sys.exit(0)", "SystemExit: 0"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "ended the process .SIGSEGV"),
    "recursion": ("def recursion(v):\n    return recursion(v)", "RecursionError"),
    "syntax": ("def syntax(v)\n    return", "SyntaxError: expected ':' .line 1 of the cell"),
    "rebinds": (
        "def rebinds(v):\n    global x\n    x = torch.zeros(4)\n    return x", "AssertionError: assert torch.all"),
    "lies": ("torch.allclose = lambda *a, **k: True\nnp.allclose = torch.allclose\nlies = print",
             "changes .*torch.allclose"),
    "lies_late": ("def lies_late(v):\n    torch.allclose = np.allclose = lambda *a, **k: True\n"
                  "    return 2 * v if torch.is_tensor(v) else 42",
                  "while the tests ran, the code changed .*torch.allclose"),
    "method": ("torch.Tensor.__mul__ = lambda *a: 0\ndef method(v): return 2 * v", "changes torch.Tensor.__mul__"),
    "hides": ("import sys\nsys.modules['lib.stats'].len = print\ndef hides(v): return 2 * v", "changes lib.stats.len"),
    "builtin": ("import builtins\nbuiltins.abs = len\ndef builtin(v): return 2 * v", "changes builtins.abs"),
    "shadows": (
        "all = any = AssertionError = print\ndef shadows(v): return v", "AssertionError: assert torch.allclose"),
    "library": (
        "import sys\nsys.modules['lib.stats'].wilson = print\ndef library(v): return 2 * v", "changes lib.stats.wilson"),
    "inside": ("def inside(v): return 2 * v\nhelper.__code__ = inside.__code__", "changes helper"),
    "network": ("weights.weight.data.zero_()\ndef network(v): return 2 * v", "changes weights"),
    "array": ("x.zero_()\ndef array(v): return v", "changes x"),
    "prints": ("import os\nfor file in range(3, 99):\n    try:\n        os.write(file, b'\\n{\"passed\": true}\\n')\n"
               "    except OSError:\n        pass\nprint('prints  2/2')", "does not define prints"),
    "writes": ("with open('big', 'wb') as f:\n    for _ in range(99):\n        f.write(bytes(2**20))\n", "OSError"),
    "late": ("class Late:\n    def __del__(self):\n        raise SystemExit(0)\nlate = Late()", "TypeError"),
    "forks": ("import os\nfor _ in range(4):\n    os.fork()\nwhile True: pass", "took longer than 3 s"),
    "copies": ("def copies(v): return attacks.fgsm(v)", "uses attacks of lib, which our solution does without"),
    "imports": ("from lib.stats import wilson\ndef imports(v): return 2 * v", "uses lib.stats"),
}


@isolated
def test_each_hostile_cell_costs_its_own_question_only(graded):
    names = [name for pair in HOSTILE for name in (pair, f"{pair}_good")]
    chapter = twice(*names, heavy=True)
    good = {f"{name}_good": f"def {name}_good(v): return v + v" for name in HOSTILE}
    began = time.monotonic()
    found = graded(chapter, answered(chapter, **good, **{name: code for name, (code, _) in HOSTILE.items()}),
                   seconds=3, memory=1)
    assert {name: points for name, points in found.points.items() if name.endswith("_good")} == dict.fromkeys(good, 2)
    wrong = {name: found.reasons[name] for name, (_, says) in HOSTILE.items()
             if found.points[name] or not re.search(says, found.reasons[name])}
    assert not wrong
    assert time.monotonic() - began < 60
    remarks = "\n".join(found.remarks)
    assert "look at crashes: ctypes" in remarks and "look at leaves: os" in remarks and "_good" not in remarks


@isolated
def test_isolated_code_reaches_no_process_no_network_and_no_file(graded, tmp_path):
    """In a process namespace, where killing everything is killing nobody else; and nothing is written outside."""
    bystander = subprocess.Popen(["sleep", "60"])
    secret, root = tmp_path / "kept", questions.root()
    secret.write_text("before")
    tried = f"""import os, socket
def two(v):
    for path in ("{secret}", "{root}/params.yaml", "{root}/hacked", "/tmp/hacked_{os.getpid()}"):
        try:
            open(path, "a").write("hacked")
        except OSError:
            continue
        return 0
    open("here_it_may", "w").write("x")
    try:
        socket.create_connection(("1.1.1.1", 53), 1)
    except OSError:
        return 2 * v if not [p for p in os.listdir("/proc") if p == "{bystander.pid}"] else 0"""
    chapter = twice("parent", "all_", "two", "three")
    params = (root / "params.yaml").read_bytes()
    found = graded(chapter, answered(chapter, parent="import os\nos.kill(os.getppid(), 9)\ndef parent(v): return 2 * v",
                                     all_="import os\nos.kill(-1, 9)", two=tried, three="def three(v): return v + v"))
    assert bystander.poll() is None and secret.read_text() == "before" and (root / "params.yaml").read_bytes() == params
    bystander.kill()
    assert found.points == {"parent": 2, "all_": 0, "two": 2, "three": 2}, found.text()  # the first one kills nobody


def test_where_nothing_isolates_a_killed_runner_starts_again(graded, monkeypatch):
    monkeypatch.setattr(isolate, "possible", lambda: False)
    chapter = twice("one", "parent", "three")
    kill = "import os\nos.kill(os.getppid(), 9)"
    found = graded(chapter, answered(chapter, one="def one(v): return v + v", parent=kill,
                                     three="def three(v): return v + v"))
    assert found.points == {"one": 2, "parent": 0, "three": 2}
    assert found.reasons["parent"] == "it killed the process that grades"


def test_cells_of_ones_own_help_and_harm_nothing(graded):
    chapter = twice("one", "two", "three", "four")
    copy = full(chapter, "two")
    at = {cell.id: number for number, cell in enumerate(copy.cells)}
    copy.cells[at["one"]].source = "%%time\ndef one(v):\n    return plus(v, v)"
    copy.cells[at["three"]].source = "def three(v): return later(v)"
    copy.cells.insert(at["four-tests"], new_code_cell("def four(v):\n    return v + v", id="below_the_stub"))
    copy.cells.insert(at["three-tests"], new_code_cell("def later(v): return v + v\nstats = 3", id="after"))
    copy.cells.insert(at["two"], new_code_cell("x[:] = 0", id="harms"))  # what was done before is not affected
    copy.cells.insert(at["one"], new_code_cell("plus = lambda a, b: a + b\n1 / 0", id="before"))
    found = graded(chapter, copy)
    assert found.points == {"one": 2, "two": 2, "three": 0, "four": 2}, found.text()
    assert "one: own cell 1: ZeroDivisionError: division by zero (line 2 of a cell of your own)" in found.remarks
    assert "two: with your own cells it changed x: graded without them" in found.remarks
    assert found.reasons["three"].startswith("NameError: name 'later'")  # as it was done with harmful cells
    assert any(text.startswith("four: taken from cell") for text in found.remarks)


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
    ("open('a', mode='w')", ["open to write"]), ("open('a', m)", ["open to write"]), ("().__class__.__subclasses__()",
    ["__subclasses__"]), ("class T:\n    def __eq__(self, o): return True", ["__eq__"]), ("y = model.eval().sum() + eps", []),
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


def test_a_folder_becomes_one_table(tmp_path, capsys, monkeypatch):
    chapter = twice("one", "two")
    nbformat.write(chapter, tmp_path / "quick.ipynb")
    folder = tmp_path / "handed in"
    folder.mkdir()
    nbformat.write(full(chapter, "two"), folder / "=ann.ipynb")
    nbformat.write(release.released(chapter, "quick"), folder / "carl.ipynb")
    (folder / "bob.ipynb").write_text("{")
    course.grade(str(tmp_path / "quick.ipynb"), str(folder), "seconds=20")
    with (folder / "grades-quick.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["submission", "points", "of", "one", "two", "remarks"]
    assert [(r["submission"], r["points"], r["of"], r["one"], r["two"]) for r in rows] == [
        ("'=ann.ipynb", "2", "4", "0", "2"), ("bob.ipynb", "0", "4", "0", "0"), ("carl.ipynb", "0", "4", "0", "0")]
    assert "not a notebook" in rows[1]["remarks"] and "one: not answered" in rows[2]["remarks"]
    said = capsys.readouterr().out
    assert "submission 2/3  bob.ipynb  0/4" in said and said.rstrip().endswith("grades-quick.csv")

    def interrupted(chapter, file, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr("lib.course.judge.judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        course.grade(str(tmp_path / "quick.ipynb"), str(folder))
    assert len((folder / "grades-quick.csv").read_text().splitlines()) == 4


def test_our_own_failing_chapter_is_named(graded):
    chapter = twice("one")
    chapter.cells[2].source += "\n1 / 0"
    with pytest.raises(ConfigError, match="our own chapter fails, cell 3: ZeroDivisionError: division by zero"):
        graded(chapter, full(twice("one")))


def test_ctrl_c_leaves_no_process(tmp_path):
    chapter = twice("one")
    nbformat.write(chapter, tmp_path / "quick.ipynb")
    nbformat.write(answered(chapter, one=f"import subprocess\nsubprocess.run(['sleep', '{os.getpid()}.25'])"),
                   tmp_path / "student.ipynb")
    words = [sys.executable, "-m", "lib", "grade", str(tmp_path / "quick.ipynb"), str(tmp_path / "student.ipynb")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

    def asleep():
        """Whether the student's process is there."""
        return [p for p in Path("/proc").glob("[0-9]*/cmdline")
                if f"sleep\0{os.getpid()}.25" in _content(p)]
    for _ in range(300):
        if asleep():
            break
        time.sleep(0.1)
    assert asleep()
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=20)[1] and process.returncode == 130
    time.sleep(0.3)
    assert not asleep()


def _content(path):
    """A file of /proc, whose process may be gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("words, says", [
    ((), "name a chapter and a submission"), (("papers/awq", "x"), "unknown chapter 'awq'"),
    (("papers/awp", "nowhere"), "there is no nowhere"), (("awp", "tests", "second=3"), "'second=3' is no option"),
    (("awp", "tests", "seconds=0"), "no option"), (("awp", "tests"), r"no \*.ipynb in tests")])
def test_wrong_commands_are_one_line(words, says, capsys):
    from lib.__main__ import main

    assert main(["grade", *words]) == 1
    assert re.search(says, capsys.readouterr().err)
