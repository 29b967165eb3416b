"""What runs in the process of one question: the student's cells, our cells up to the tests, and the tests.

The student's code has names of its own, which begin as a copy of ours; only the names that our question cell defines
are taken over. So what it rebinds (`torch = ...`, `global libs`) is never seen by a test. All code runs in one process,
though, and code that sets out to find the report's nonce in memory can find it: see notebooks/guide/teaching.md.
"""

import json
import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass, field

from lib.course.watch import watch

GIB = 2**30
FILE = 64 * 2**20     # bytes of one file
PROCESSES = 64        # of the isolated runner with all its children
LONGEST = 300         # characters of a message


@dataclass(frozen=True)
class Task:
    """One question as its process needs it, code compiled beforehand.

    answer: the student's cell; before, after: the student's own cells around it. ours: our cells from there to the
    tests. tests: the statements of the tests cell, each with whether it is hidden; text: the cell.
    """

    binds: tuple[str, ...]
    answer: str
    ours: tuple
    tests: tuple
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    remarks: list = field(default_factory=list)


class Failed(Exception):
    """The question has no points, for this reason."""


class _Again(Exception):
    """The student's own cells did harm: try without them."""


def limit(seconds: float, memory: float, isolated: bool) -> None:
    """Bound this process: GiB on top of what it has, seconds of CPU, file sizes, and if isolated processes."""
    bounds = {resource.RLIMIT_CPU: int(seconds) + 5, resource.RLIMIT_FSIZE: FILE, resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            bounds[resource.RLIMIT_AS] = int(file.read().split()[0]) * resource.getpagesize() + int(memory * GIB)
    if isolated:
        bounds[resource.RLIMIT_NPROC] = PROCESSES
    for kind, value in bounds.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def alone(report: int, nobody: int) -> None:
    """Leave the runner's group, its files and its signals: only the report's pipe stays open."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file too long is an OSError
    for stream in (0, 1, 2):
        os.dup2(nobody, stream)
    os.closerange(3, report)
    os.closerange(report + 1, 4096)


def work(task: Task, names: dict, report: int, nonce: str) -> None:
    """Grade one question and write the verdict, after a nonce that the student's code is not given."""
    send, dump, failed, again, tell = os.write, json.dumps, Failed, _Again, message
    verdict = {"passed": False, "reason": "", "again": "", "remarks": task.remarks}
    try:
        _grade(task, names)
        verdict["passed"] = True
    except failed as error:
        verdict["reason"] = str(error)
    except again as error:
        verdict["again"] = str(error)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of the student too
        verdict["reason"] = tell(error)
    send(report, f"\n{nonce}{dump(verdict)}\n".encode())


def _grade(task: Task, names: dict) -> None:
    """Raise what is wrong with an answer."""
    failed, again, run = Failed, _Again, _test
    changed, moved = watch(names)
    own = dict(names)
    _extra(task.before, own, task.remarks)
    if harm := changed() + moved():
        raise again(f"changed {listed(harm)}")
    exec(compile(task.answer, "your cell", "exec", dont_inherit=True, optimize=0), own)
    if harm := changed() + moved():
        raise failed(f"the cell changes {listed(harm)}, which is not its own")
    _extra(task.after, own, task.remarks)
    if harm := changed() + moved():
        raise again(f"changed {listed(harm)}")
    missing = [name for name in task.binds if name not in own or own[name] is names.get(name)]
    if missing:
        raise failed(f"the cell does not define {listed(missing)}")
    names |= {name: own[name] for name in task.binds}
    seen = dict(names)
    for code in task.ours:
        exec(code, names)
        seen = _share(names, own, seen)
    for code, hidden in task.tests:
        run(code, hidden, names, task.text)
        seen = _share(names, own, seen)
    if harm := changed():
        raise failed(f"while the tests ran, the code changed {listed(harm)}, which is not its own")


def _extra(cells: tuple[str, ...], own: dict, remarks: list) -> None:
    """Run cells that the student added; their errors are remarks."""
    for number, source in enumerate(cells, 1):
        try:
            exec(compile(source, "a cell of your own", "exec", dont_inherit=True, optimize=0), own)
        except BaseException as error:
            remarks.append(f"own cell {number}: {message(error)}")


def _share(names: dict, own: dict, seen: dict) -> dict:
    """Let the student's functions see what our cells have bound since."""
    own |= {name: value for name, value in names.items() if name not in seen or seen[name] is not value}
    return dict(names)


def _test(code, hidden: bool, names: dict, text: str) -> None:
    """One statement of the tests."""
    try:
        exec(code, names)
    except BaseException as error:
        if hidden:
            raise Failed("a hidden test fails") from None
        raise Failed(message(error, text)) from None


def listed(words: list[str]) -> str:
    """At most three of them."""
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def message(error: BaseException, text: str = "") -> str:
    """An error in one line: of a failed assert the line of the tests, else what it says and where."""
    frames = traceback.extract_tb(error.__traceback__)
    place = [frame for frame in frames if frame.filename in ("your cell", "a cell of your own")]
    lines = [frame.lineno for frame in frames if frame.filename == "the tests"]
    try:
        said = str(error).strip()
    except BaseException:
        said = ""
    if isinstance(error, AssertionError) and lines and not place:
        line = text.split("\n")[lines[-1] - 1].strip()
        said = line if said in line else f"{line}  ({said})"
    elif isinstance(error, SyntaxError):
        said = f"{error.msg} (line {error.lineno} of {error.filename})"
    elif place:
        said += f" (line {place[-1].lineno} of {place[-1].filename})"
    return clean(f"{type(error).__name__}: {said}")


def clean(text: str) -> str:
    """Text of a student as one printable line."""
    line = " ".join(text.split())
    return "".join(c for c in line if c.isprintable())[:LONGEST]
