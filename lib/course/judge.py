"""Grade submissions of a chapter: our chapter with the student's cells in it, judged by our tests in another process.

Each question costs only itself. Its cell runs in a process that is forked from one that has run our own solutions up
to there (lib/course/runner.py); a loop, a crash or an error ends that process alone. What a student wrote in other
cells of ours, in tests and in metadata, is never read.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from lib.course import isolate
from lib.course.questions import Question, path, questions, read
from lib.course.submission import Answer, answers, ids, load, looked_at
from lib.params import ConfigError, root

OURS = 900  # seconds that our own chapter may take


@dataclass
class Grade:
    """What a submission is worth: points by question, why not more, and remarks for student and instructor."""

    submission: str
    points: dict[str, int]
    of: dict[str, int]
    reasons: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def total(self) -> tuple[int, int]:
        """Points, and of how many."""
        return sum(self.points.values()), sum(self.of.values())

    def text(self) -> str:
        """A line a question, the total, and the remarks."""
        width = max(map(len, [*self.of, "total"]))
        lines = [f"{name:{width}}  {self.points[name]}/{of}  {self.reasons.get(name, '')}".rstrip()
                 for name, of in self.of.items()]
        got, of = self.total()
        return "\n".join([*lines, f"{'total':{width}}  {got}/{of}", *(f"remark: {text}" for text in self.remarks)])


def judge(chapter: str, file: Path, seconds: float = 120, memory: float = 2) -> Grade:
    """Grade one notebook.

    chapter: 'papers/awp'. seconds: that one question may take, by the clock. memory: GiB that it may have on top of
    what our chapter has by then. Raises ConfigError where our own chapter is malformed or fails; a submission that
    cannot be read has no points and a remark.
    """
    source = path(chapter)
    ours = read(source)
    asked = questions(ours, source.stem)
    found = Grade(file.name, {q.name: 0 for q in asked}, {q.name: q.points for q in asked})
    try:
        theirs = load(file)
    except ValueError as error:
        found.remarks.append(str(error))
        return found
    given = ids(ours)
    written = answers(theirs, ours, asked, given)
    found.remarks = [f"{name}: {text}" for name, answer in written.items() for text in answer.remarks]
    found.reasons = {name: answer.reason for name, answer in written.items() if answer.reason}
    todo = [question for question in asked if written[question.name].source is not None]
    for name, verdict in _verdicts(ours, todo, written, seconds, memory).items():
        found.points[name] = found.of[name] if verdict["passed"] else 0
        found.reasons[name] = verdict["reason"]
        found.remarks += [f"{name}: {text}" for text in verdict["remarks"]]
    found.remarks += looked_at(theirs, given, asked)
    return found


def _verdicts(ours, todo: list[Question], written: dict[str, Answer], seconds: float, memory: float) -> dict:
    """The verdict on each answer that runs. A question that takes the runner down is skipped when it starts again."""
    verdicts = {}
    last = max((question.tests for question in todo), default=-1)
    cells = {number: cell.source for number, cell in enumerate(ours.cells[:last]) if cell.cell_type == "code"}
    cells |= {question.tests: ours.cells[question.tests].source for question in todo}
    while left := [question for question in todo if question.name not in verdicts]:
        job = {"cells": cells, "root": str(root()), "seconds": seconds, "memory": memory, "questions": [
            {"name": q.name, "cell": q.cell, "tests": q.tests, "binds": q.binds, "answer": written[q.name].source,
             "before": written[q.name].before, "after": written[q.name].after} for q in left]}
        new, asking, error = _run(job)
        verdicts |= new
        if asking and asking not in new:
            verdicts[asking] = {"passed": False, "reason": "it killed the process that grades", "remarks": []}
        elif len(verdicts) < len(todo):
            raise ConfigError(f"the grader ended before its work was done: {error}")
    return verdicts


def _run(job: dict) -> tuple[dict, str, str]:
    """Start a runner: its verdicts, the last question that it asked, and its last words."""
    isolated, nonce = isolate.possible(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryFile() as errors:
        read_end, write_end = os.pipe()
        command = [sys.executable, "-P", "-c", "from lib.course import runner; runner.main()", str(write_end)]
        process = subprocess.Popen([*(isolate.prefix(work) if isolated else ()), *command], cwd=root(), bufsize=0,
                                   env=isolate.environment(work), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=errors, pass_fds=[write_end], start_new_session=True)
        os.close(write_end)
        try:
            text = json.dumps(job | {"nonce": nonce, "work": work, "isolated": isolated})
            process.stdin.write(text.encode() + b"\n")
            verdicts, asking, broken = _listen(read_end, nonce, OURS + 2 * job["seconds"] * len(job["questions"]))
        except BrokenPipeError:
            verdicts, asking, broken = {}, "", ""
        finally:
            _end(process, read_end)
        if broken:
            raise ConfigError(f"our own chapter fails, {broken}")
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    return verdicts, asking, said[-1] if said else f"exit status {process.returncode}"


def _listen(pipe: int, nonce: str, seconds: float) -> tuple[dict, str, str]:
    """Read the runner's lines until it is done, gone or late."""
    verdicts, asking, broken, text, deadline = {}, "", "", b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if not selector.select(1):
                continue
            piece = os.read(pipe, 2**16)
            *lines, text = (text + piece).split(b"\n")
            for line in (json.loads(line[len(nonce):]) for line in lines if line.startswith(nonce.encode())):
                asking, broken = line.get("asking", asking), line.get("broken", broken)
                if "verdict" in line:
                    verdicts[line["name"]] = line["verdict"]
            if not piece:
                break
    return verdicts, asking, broken


def _end(process: subprocess.Popen, pipe: int) -> None:
    """End the runner and all that it started."""
    os.close(pipe)
    process.stdin.close()
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(2)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
