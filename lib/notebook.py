"""Run a notebook as a stage: live progress, one clear line on failure, and a copy of the same bytes each time."""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat

from lib.config import OUT, STAGE, unfinished
from lib.params import ConfigError, known, root
from lib.processes import JOBS, KERNEL_DIED, end_with
from lib.stages import describe, instances

AT_ONCE = 0.01  # seconds
UNFINISHED = f"{os.sep}unfinished{os.sep}"  # what a line names that tells of an interruption
PROGRESS = re.compile(r"\w+ (\d+)/(\d+)\b")  # 'epoch 3/30 ...': how a notebook reports progress


class Terminal:
    """A stream that shows a notebook's output as it comes, and adds the time left to lines such as 'epoch 3/30'.

    Times appear here only, never in the notebook, so that executed copies can be compared. prefix: before each line,
    for runs that go side by side.
    """

    def __init__(self, stream, prefix: str = ""):
        self.stream, self.prefix, self.pending, self.done = stream, prefix, "", None
        self.shown = time.monotonic()

    def write(self, text: str) -> None:
        """Show the lines that are complete by now."""
        *lines, self.pending = (self.pending + text).split("\n")
        for line in filter(str.strip, lines):
            print(f"  {self.prefix}{line}{self._left(line)}", file=self.stream, flush=True)
            self.shown = time.monotonic()

    def _left(self, line: str) -> str:
        match = PROGRESS.match(line)
        if not match:
            return ""
        done, total = map(int, match.groups())
        now = time.monotonic()
        if self.done is None or done <= self.done:  # another series begins
            self.base = self.shown, done - 1
        elif now - self.shown < AT_ONCE:  # told again of what was done before an interruption
            self.base = now, done
        self.done = done
        left = (now - self.base[0]) / max(done - self.base[1], 1) * (total - done)
        return f"  [{time.strftime('%H:%M:%S' if left >= 3600 else '%M:%S', time.gmtime(left))} left]"

    def flush(self) -> None:
        """Nothing to do: each line is flushed as it is shown."""


def run(notebook: str, out: str, **parameters) -> None:
    """Execute a notebook with these parameters as the stage of dvc.yaml that has `out` as its results folder.

    The executed copy, with figures, is out/<name of the notebook>.ipynb. On an error of a cell the partial copy
    stays, and SystemExit carries the cell's own message.
    """
    every = instances()
    here = [i for i in every if i.out == Path(out) and i.notebook == Path(notebook)]
    if not here:
        raise ConfigError(f"no stage of dvc.yaml runs {notebook} into {out} in the profile of params.yaml")
    instance = here[0]
    _refuse_stale(instance)
    print(f"stage {every.index(instance) + 1}/{len(every)}  {instance.name}", flush=True)
    os.environ |= {STAGE: str(root() / instance.code), OUT: str(root() / out)}
    execute(notebook, out, f"{instance.name}  " if int(os.environ.get(JOBS) or 1) > 1 else "", **parameters)
    shutil.rmtree(unfinished(), ignore_errors=True)


def _refuse_stale(instance) -> None:
    """Stop if code was edited after stage `code` looked at it: the result would be filed under the old code."""
    recorded, now = json.loads((root() / instance.code).read_text()), describe(instance)
    changed = [name for name in {**now["modules"], **recorded["modules"]}
               if now["modules"].get(name) != recorded["modules"].get(name)]
    if now["cells"] != recorded["cells"]:
        changed.append(str(instance.notebook))
    if changed:
        raise ConfigError(f"{changed[0]} was edited after this `dvc repro` began: run `dvc repro` again")


def execute(notebook: str | Path, out: str | Path, prefix: str = "", **parameters) -> None:
    """Execute a notebook with these parameters into the folder `out`, both from the root of the repository.

    prefix: before each line that is shown. Raises ConfigError for a parameter that the notebook does not have; on an
    error of a cell the partial copy stays, and SystemExit carries the cell's own message.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source, target = root() / notebook, root() / out / Path(notebook).name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(root())
    end_with()
    names = papermill.inspect_notebook(str(source))
    for name in parameters:
        known("parameter", name, names, source.name)
    try:
        papermill.execute_notebook(str(source), str(target), parameters, kernel_name="python3", cwd=str(root()),
                                   progress_bar=False, stdout_file=Terminal(sys.stdout, prefix),
                                   stderr_file=Terminal(sys.stderr, prefix), extra_arguments=["--log-level=40"])
    except PapermillExecutionError as error:
        place = target.relative_to(root())
        raise SystemExit(f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue} "
                         f"(the notebook as far as it came: {place})") from None
    except DeadKernelError:
        print(f"{source.name}: the kernel died, perhaps for want of memory", file=sys.stderr)
        raise SystemExit(KERNEL_DIED) from None
    tidy(target)


def tidy(path: Path) -> None:
    """Take out of an executed notebook what differs from run to run: times, paths, ids, how streams were cut up, and
    what was said of an interruption.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    temporary = path.with_suffix(".tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)


def _joined(outputs: list) -> list:
    """Outputs with consecutive pieces of one stream made one."""
    joined = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = "".join(line for line in output.text.splitlines(True) if UNFINISHED not in line)
    return [output for output in joined if output.output_type != "stream" or output.text]
