"""The process that runs our chapter, and forks one process for each question (lib/course/child.py).

It reads one job, a line of JSON, from stdin, and writes lines of JSON to a pipe: {"asking": NAME} before a question,
{"name": NAME, "verdict": ...} after it, {"broken": ...} where our own chapter fails. Each line begins with the job's
nonce. Chapters run in profile smoke, on one thread, in a temporary folder that looks like this one.
"""

import ast
import builtins
import ctypes
import json
import linecache
import os
import secrets
import select
import signal
import sys
import time
import types
from pathlib import Path

from lib.course import child, screen
from lib.course.questions import HIDDEN, regions

LARGEST = 2**20  # bytes of a report
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36


def main() -> None:
    """Do the job on stdin, and write its verdicts to the pipe whose number is the last argument."""
    job = json.loads(sys.stdin.buffer.readline())
    say = os.fdopen(int(sys.argv[-1]), "w", buffering=1)

    def tell(**line) -> None:
        """One line for the grader."""
        print(job["nonce"] + json.dumps(line), file=say)

    _lone()
    os.chdir(_folder(Path(job["root"]), Path(job["work"])))
    module = types.ModuleType("__main__")
    names = module.__dict__
    names |= {"__builtins__": builtins, "display": lambda *objects, **options: None}
    sys.modules["__main__"] = module
    try:
        _chapter(job, names, tell)
    except child.Failed as error:
        tell(broken=str(error))
    say.flush()
    os._exit(0)


def _lone() -> None:
    """Keep other processes from reading this one's memory and files, and get the orphans of its children."""
    def end(*_):
        """Take the children along."""
        end_children()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    """Ask Linux for something about this process; other systems do without."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _folder(root: Path, work: Path) -> Path:
    """Make `work` look like the repository without results; the folder of the chapters in it."""
    for place in root.iterdir():
        if place.name not in ("results", "notebooks"):
            (work / place.name).symlink_to(place)
    papers = work / "notebooks" / "papers"
    papers.mkdir(parents=True)
    return papers


def compiled(source: str, name: str):
    """Code with its asserts, whose lines tracebacks can show."""
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    return compile(source, name, "exec", dont_inherit=True, optimize=0)


def _chapter(job: dict, names: dict, tell) -> None:
    """Run our cells one by one, and ask each question where it stands."""
    cells = {int(number): source for number, source in job["cells"].items()}
    codes = {number: compiled(source, f"cell {number + 1}") for number, source in cells.items()}
    asked = {question["cell"]: question for question in job["questions"]}
    for number, code in codes.items():
        question = asked.get(number)
        if question:
            tell(asking=question["name"])
            tell(name=question["name"], verdict=_ask(question, job, codes, cells, names))
        try:
            exec(code, names)
        except BaseException as error:
            raise child.Failed(f"cell {number + 1}: {child.message(error)}") from error


def _ask(question: dict, job: dict, codes: dict, cells: dict, names: dict) -> dict:
    """The verdict on one answer. Where the student's own cells do harm or take all the time, less of them is run."""
    text = cells[question["tests"]]
    hidden = regions(text, HIDDEN)
    tests = tuple((compile(ast.Module([node], []), "the tests", "exec", dont_inherit=True, optimize=0),
                   node.lineno in hidden) for node in ast.parse(text).body)
    ours = tuple(code for number, code in codes.items() if question["cell"] < number < question["tests"])
    linecache.cache["your cell"] = (1, None, question["answer"].splitlines(True), "your cell")
    own = tuple(question["before"]), tuple(question["after"])
    defined = tuple(tuple(filter(None, map(definitions, part))) for part in own)
    remarks, tried, verdict = [], [], {}
    for (before, after), how in ((own, ""), (defined, "with what they define only"), (((), ()), "without them")):
        if (before, after) in tried:
            continue
        if tried:
            remarks.append(f"with your own cells it {verdict['again']}: graded {how}")
        verdict = _fork(child.Task(tuple(question["binds"]), question["answer"], ours, tests, text, before, after), job,
                        names)
        tried.append((before, after))
        if not verdict["again"]:
            break
    reason = verdict["reason"] or f"it {verdict['again']}"
    return verdict | {"remarks": remarks + verdict["remarks"], "reason": "" if verdict["passed"] else reason}


def definitions(source: str) -> str:
    """Only the functions, classes, imports and constants of a cell."""
    tree = screen.parsed(source)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    kept = [node for node in getattr(tree, "body", []) if isinstance(node, kinds)
            or isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Lambda)]
    try:
        return ast.unparse(ast.Module(kept, []))
    except RecursionError:
        return ""


def _fork(task: child.Task, job: dict, names: dict) -> dict:
    """The verdict of a process of its own, or what became of it in `again`."""
    nonce = secrets.token_hex(16)
    read, write = os.pipe()
    nobody = os.open(os.devnull, os.O_RDWR)
    pid = os.fork()
    if not pid:
        try:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            child.alone(write, nobody)
            child.limit(job["seconds"], job["memory"], job["isolated"])
            child.work(task, names, write, nonce)
        finally:
            os._exit(0)
    os.close(write)
    os.close(nobody)
    text, ended = _listen(read, pid, job["seconds"])
    os.close(read)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    end_children()
    for line in reversed(text.split(b"\n")):
        if line.startswith(nonce.encode()):
            return json.loads(line[len(nonce):])
    return {"passed": False, "reason": "", "again": ended, "remarks": []}


def _listen(read: int, pid: int, seconds: float) -> tuple[bytes, str]:
    """What a process writes until it ends, and how it ended. Ends this process if the grader has gone."""
    deadline, text, over = time.monotonic() + seconds, b"", ""
    os.set_blocking(read, False)
    while not over:
        ready, _, _ = select.select([read, 0], [], [], 0.02)
        if 0 in ready and not os.read(0, 1):
            end_children()
            os._exit(1)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            over = f"ended the process ({_ending(status)})"
        elif time.monotonic() > deadline:
            over = f"took longer than {seconds:g} s"
        try:
            text += os.read(read, 2 * LARGEST)
        except BlockingIOError:
            pass
        if len(text) > LARGEST:
            over = "wrote where it should not"
    return text, over


def _ending(status: int) -> str:
    """How a process ended: a signal's name or its exit status."""
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def end_children() -> None:
    """Kill every process that descends from this one: orphans come to it, and are the children of the next round."""
    for _ in range(1000):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            children = []
        for process in children:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)
