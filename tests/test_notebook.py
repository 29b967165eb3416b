"""Running a notebook as a stage: progress, failure, interruption, and copies of equal bytes."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lib import notebook, stages
from lib.params import ConfigError
from lib.processes import KERNEL_DIED

STAGE = "results/default/data/digits"


def test_terminal_adds_the_time_left(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(notebook.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    terminal = notebook.Terminal(stream)
    for text in ("training\n", "epoch 1/3  lo", "ss 2\n\nepoch 2/3  loss 1\n", "epoch 3/3  loss 0\n", "point 1/2\n"):
        terminal.write(text)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  training" and lines[1].startswith("  epoch 1/3  loss 2  [00:")
    left = [re.search(r"\[(\d\d):(\d\d) left\]", line) for line in lines[1:]]
    seconds = [60 * int(m[1]) + int(m[2]) for m in left]
    assert seconds[0] > seconds[1] > seconds[2] == 0 < seconds[3]


def test_tidy_makes_equal_runs_equal_files(tmp_path):
    def executed(stamp, pieces):
        cell = new_code_cell("print()", id=f"random{stamp}", metadata={"papermill": {"start": stamp}, "tags": ["a"]})
        cell.outputs = [new_output("stream", name="stdout", text=text) for text in pieces]
        path = tmp_path / f"{stamp}.ipynb"
        nbformat.write(new_notebook(cells=[cell], metadata={"papermill": {"duration": stamp}}), path)
        notebook.tidy(path)
        return path.read_bytes()
    assert executed(1, ["one\n", "two\n"]) == executed(2, ["one\ntwo\n"])
    assert json.loads(executed(3, ["x"]))["cells"][0]["metadata"] == {"tags": ["a"]}


@pytest.fixture
def stage(project, edit):
    """Start the data stage of a copy of the project as DVC does, after replacing its last cell."""
    shutil.copytree(stages.Path(__file__).parents[1] / ".dvc/embedded", project / "data")

    def start(last_cell, through=()):
        path = project / "notebooks/pipeline/01_data.ipynb"
        text = json.loads(path.read_text())
        text["cells"][2:] = [c for c in text["cells"][2:] if "parameters" in c["metadata"].get("tags", [])]
        text["cells"].append(new_code_cell(last_cell))
        path.write_text(json.dumps(text))
        stages.write("default")
        command = [sys.executable, "-m", "lib", "run", "notebooks/pipeline/01_data.ipynb", STAGE,
                   "profile=default", "dataset=digits"]
        return subprocess.Popen([*through, *command], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)
    return start


def test_a_failing_cell_is_the_last_line_and_the_partial_copy_stays(project, stage):
    process = stage("print('so far')\nraise OSError(28, 'No space left on device')")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "stage 1/216  data@default-digits" in out and "so far" in out
    assert error.splitlines()[-1].startswith("01_data.ipynb, cell 3: OSError: [Errno 28] No space left on device")
    assert "Traceback" not in error
    kept = nbformat.read(project / STAGE / "01_data.ipynb", 4)
    assert "so far" in str(kept.cells[-1].outputs)


def test_a_kernel_that_dies_is_one_line(stage):
    process = stage("import os\nos._exit(9)")
    _, error = process.communicate(timeout=120)
    assert process.returncode == KERNEL_DIED
    assert "01_data.ipynb: the kernel died, perhaps for want of memory" in error.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_one_line(project, stage):
    (project / STAGE).parent.mkdir(parents=True)
    (project / STAGE).write_text("in the way")
    process = stage("print()")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1 and error.startswith("error: [Errno 17] File exists") and error.count("\n") == 1


@pytest.mark.parametrize("how", ["ctrl-c", "terminated", "parent killed"])
def test_interruption_leaves_no_kernel(project, stage, how):
    shell = ("sh", "-c", '"$@"; true', "sh") if how == "parent killed" else ()
    process = stage("import os, time\nprint('kernel', os.getpid(), flush=True)\ntime.sleep(300)", shell)
    line = ""
    while "kernel" not in line:
        line = process.stdout.readline()
        assert line, process.stderr.read()
    kernel = int(line.split()[-1])
    os.kill(kernel, 0)
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    elif how == "terminated":
        process.terminate()
    else:
        process.kill()  # the shell, as if DVC were gone
    _, error = process.communicate(timeout=30)
    assert process.returncode == (-9 if how == "parent killed" else 130)
    assert error.splitlines()[-1] == "interrupted: run it again to go on; finished stages and epochs are kept"
    for _ in range(50):
        if not os.path.exists(f"/proc/{kernel}"):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the kernel lives on")


def test_code_edited_after_stage_code_is_refused(project, edit):
    stages.write("default")
    edit(project / "lib/augment.py", "pad: int = 4", "pad: int = 3")
    stages._imports.cache_clear()
    with pytest.raises(ConfigError, match="lib.augment was edited after this `dvc repro` began: run `dvc repro` again"):
        notebook.run("notebooks/pipeline/01_data.ipynb", STAGE, profile="default", dataset="digits")


def test_a_run_that_dvc_does_not_know_is_refused(project):
    stages.write("default")
    with pytest.raises(ConfigError, match="no stage of dvc.yaml runs notebooks/pipeline/01_data.ipynb into elsewhere"):
        notebook.run("notebooks/pipeline/01_data.ipynb", "elsewhere", profile="default", dataset="digits")
