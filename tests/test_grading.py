"""The grader on full, empty, half-right, tampered and hostile submissions."""

import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from assignments import answered, full, twice
from nbformat.v4 import new_code_cell

from lib import course
from lib.course import isolate, questions, release
from lib.course.judge import judge
from lib.params import ConfigError

isolated = pytest.mark.skipif(not isolate.possible(), reason="no namespaces here: such code is run in them only")


@pytest.fixture
def graded(tmp_path):
    """Grade a submission of a chapter, both notebooks."""
    def run(chapter, notebook, **options):
        nbformat.write(chapter, tmp_path / "quick.ipynb")
        nbformat.write(notebook, tmp_path / "student.ipynb")
        return judge(str(tmp_path / "quick.ipynb"), tmp_path / "student.ipynb", **options)
    return run


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


def test_the_chapter_pgd_full_and_with_two_mistakes():
    chapter = questions.read(questions.path("pgd"))
    copy = full(chapter)
    for cell in copy.cells:
        if cell.id == "fgsm":
            cell.source = "def fgsm(model, x, y, eps):\n    return x + eps * input_gradient(model, x, y).sign()"
        elif cell.id == "step_l2":
            cell.source = "def step_l2(gradient, size): return attacks.step(gradient, config.Threat('L2', 1.0), size)"
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(copy, Path(folder, "student.ipynb"))
        found = judge("papers/pgd", Path(folder, "student.ipynb"))
    assert found.reasons["fgsm"].startswith("AssertionError") or found.reasons["fgsm"] == "a hidden test fails"
    assert found.reasons["step_l2"].startswith("uses attacks, config of lib")
    lost = {"fgsm": 0, "step_l2": 0}
    assert found.points == {**found.of, **lost}, found.text()


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
        "import sys\nsys.modules['lib.stats'].wilson = print\ndef library(v): return 2 * v",
        "changes lib.stats.wilson"),
    "inside": ("def inside(v): return 2 * v\nhelper.__code__ = inside.__code__", "changes helper"),
    "empty": ("def empty(v): return 2 * v, torch.empty(3, device='meta')", "TypeError"),
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
    found = graded(chapter, answered(chapter, **good, **{name: code for name, (code, _) in HOSTILE.items()}),
                   seconds=3, memory=1)
    assert {name: points for name, points in found.points.items() if name.endswith("_good")} == dict.fromkeys(good, 2)
    wrong = {name: found.reasons[name] for name, (_, says) in HOSTILE.items()
             if found.points[name] or not re.search(says, found.reasons[name])}
    assert not wrong
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
            open(path, "a").close()
        except OSError:
            continue
        return 0
    open("here_it_may", "w").write("x")
    if os.listdir("/run"):
        return 0
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
    assert not (root / "hacked").exists()
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
    copy.cells.insert(at["two"], new_code_cell("def harm():\n    x[:] = 0\nharm()", id="harms"))
    copy.cells.insert(at["one"], new_code_cell("plus = lambda a, b: a + b\n1 / 0", id="before"))
    found = graded(chapter, copy)
    assert found.points == {"one": 2, "two": 2, "three": 2, "four": 2}, found.text()
    assert "one: own cell 1: ZeroDivisionError: division by zero (line 2 of a cell of your own)" in found.remarks
    assert not [text for text in found.remarks if "without them" in text or text.startswith("one: with your own")]
    assert "three: with your own cells it changed x: graded with what they define only" in found.remarks
    assert any(text.startswith("four: taken from cell") for text in found.remarks)


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
