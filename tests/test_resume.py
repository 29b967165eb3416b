"""A training that was interrupted goes on, to the same bits, from what is its own and goes when the stage is done."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lib import config, methods, notebook, stages, train

CPU = torch.device("cpu")
STAGE = "results/smoke/train/digits/pgd/0"
METHODS = ("pgd", "pgd+awp", "pgd+ema", "pgd+cfa", "pgd+balanced", "pgd+ducat", "pgd+offset", "consistency")


class Interrupted(BaseException):
    """As a kill: nothing in the loop catches it."""


def quiet(line):
    """No log."""


@pytest.fixture
def run(cfg):
    """Four epochs of three steps."""
    return replace(cfg, train=replace(cfg.train, epochs=4, batch_size=64, steps=2, trace=2, augment=["crop"]))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder in which a stage of another project keeps what is unfinished."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(config.OUT, str(tmp_path / STAGE))
    return tmp_path / "results/smoke/unfinished/train/digits/pgd/0"


def stopped(run, images, epoch, **more):
    """A training that is killed within this epoch, before it is kept; returns its lines."""
    lines = []

    def log(line):
        """Kills."""
        lines.append(line)
        if line.startswith(f"epoch {epoch}/") and len([one for one in lines if one.startswith("epoch")]) == epoch:
            raise Interrupted

    with pytest.raises(Interrupted):
        train.fit(run, images, CPU, log, **more)
    return lines


def same(found, expected):
    """Whether two trainings have left the same bits."""
    assert list(found.states) == list(expected.states)
    for name, state in expected.states.items():
        assert all(torch.equal(found.states[name][key], value) for key, value in state.items()), name
    assert found.history.equals(expected.history)
    assert all((found.trace[key] == value).all() and found.trace[key].dtype == value.dtype
               for key, value in expected.trace.items())
    return True


class TestTheSameBits:
    @pytest.mark.parametrize("method", METHODS)
    def test_interrupted_in_every_epoch(self, run, few, place, monkeypatch, method):
        run, keep = replace(run, method=method), {"trunk": 2}
        for epoch in range(1, 5):
            lines = stopped(run, few, epoch, keep=keep)
            assert ("going on from" in lines[0]) == (epoch > 1) and len(list(place.glob("*.pt"))) == 1
        lines, plain = [], []
        found = train.fit(run, few, CPU, lines.append, keep=keep)
        monkeypatch.delenv(config.OUT)
        assert same(found, train.fit(run, few, CPU, plain.append, keep=keep))
        assert lines[1:] == plain and set(found.states) == {"trunk", "best", "last"}

    @pytest.mark.parametrize("schedule", ["piecewise", "onecycle"])
    @pytest.mark.parametrize("epoch", [2, 3, 4])
    def test_each_schedule(self, run, few, place, monkeypatch, schedule, epoch):
        run = replace(run, train=replace(run.train, schedule=schedule))
        stopped(run, few, epoch)
        found = train.fit(run, few, CPU, quiet)
        monkeypatch.delenv(config.OUT)
        assert same(found, train.fit(run, few, CPU, quiet))

    def test_what_is_kept_is_needed(self, run, few, place):
        """Without the generator, the momentum or the schedule it would go on, but to other weights."""
        whole = train.fit(run, few, CPU, quiet)
        path, = place.glob("*.pt")
        path.unlink()
        for part in ("optimizer", "generator", "scheduler"):
            stopped(run, few, 3)
            path, = place.glob("*.pt")
            saved, fresh = torch.load(path), train.begin(run, methods.build(run), few, CPU)
            saved["content"][part] = (fresh.generator.get_state() if part == "generator"
                                      else getattr(fresh, part).state_dict())
            torch.save(saved, path)
            found = train.fit(run, few, CPU, quiet)
            assert any(not torch.equal(v, whole.states["last"][k]) for k, v in found.states["last"].items()), part
            path.unlink()

    def test_a_finished_training_is_not_done_again(self, run, few, place, monkeypatch):
        found = train.fit(run, few, CPU, quiet)
        monkeypatch.setattr(train, "train_epoch", None)
        assert same(train.fit(run, few, CPU, quiet), found)

    def test_two_trainings_of_a_stage(self, run, few, place, monkeypatch):
        """The first one is done, the second is interrupted."""
        other = replace(few, train=few.train.first(150))
        first = train.fit(run, few, CPU, quiet)
        stopped(run, other, 3)
        assert len(list(place.glob("*.pt"))) == 2
        lines = []
        assert same(train.fit(run, few, CPU, lines.append), first)
        second = train.fit(run, other, CPU, lines.append)
        assert [line for line in lines if "epoch" not in line] == [f"going on from {path}" for path in sorted(
            place.glob("*.pt"), key=lambda path: path.stat().st_mtime)]
        monkeypatch.delenv(config.OUT)
        assert same(second, train.fit(run, other, CPU, quiet))


KILLED = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from lib import config, data, train
torch.set_num_threads(1)
CPU = torch.device("cpu")
run = config.load("smoke", "digits", "pgd+ema", 0)
run = replace(run, train=replace(run.train, epochs=30, batch_size=64, steps=1, trace=7))
digits = data.load(run)
os.chdir(sys.argv[1])
few = replace(digits, train=digits.train.first(130), validation=digits.validation.first(20), test=digits.test.first(20))
out = Path(sys.argv[1])

def fork(name):
    pid = os.fork()
    if not pid:
        log = open(out / "log", "a", buffering=1)
        found = train.fit(run, few, CPU, lambda line: log.write(line + chr(10)))
        torch.save([found.states, found.history.to_csv(), [v.tolist() for v in found.trace.values()]], out / name)
        os._exit(0)
    return pid

def changed():
    return [path.stat().st_mtime_ns for path in place.glob("*.pt")]

os.waitpid(fork("whole"), 0)
os.environ[config.OUT] = str(Path.cwd() / "results/smoke/train/digits/pgd/0")
place = config.unfinished()
for _ in range(4):
    pid = fork("killed")
    for _ in range(random.randint(1, 6)):
        before = changed()
        while changed() == before:
            time.sleep(0.001)
    time.sleep(random.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
os.waitpid(fork("found"), 0)
"""


class TestKilled:
    def test_by_the_system_at_any_instant(self, place, tmp_path):
        """Four times in a row, while it computes or while it writes, within six epochs each."""
        script = tmp_path / "killed.py"
        script.write_text(KILLED)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop(config.OUT)
        subprocess.run([sys.executable, script, tmp_path], check=True, env=environment, cwd=ROOT)
        whole, found = (torch.load(tmp_path / name) for name in ("whole", "found"))
        assert whole[1:] == found[1:]
        for name, state in whole[0].items():
            assert all(torch.equal(value, found[0][name][key]) for key, value in state.items())
        lines = (tmp_path / "log").read_text().splitlines()
        assert sum("going on from" in line for line in lines) == 4
        assert not any("anew" in line for line in lines)

    @pytest.mark.parametrize("share", [0.0, 0.5])
    def test_while_it_writes(self, run, few, place, monkeypatch, share):
        """Half a file is left, under another name."""
        save, written = torch.save, []

        def killed(content, path):
            """The third time it dies on the way."""
            save(content, path)
            written.append(path)
            if len(written) == 3:
                whole = path.read_bytes()
                path.write_bytes(whole[:int(share * len(whole))])
                raise Interrupted

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(torch, "save", killed)
            train.fit(run, few, CPU, quiet)
        assert len(list(place.iterdir())) == 2
        lines = []
        found = train.fit(run, few, CPU, lines.append)
        assert "going on from" in lines[0] and [line.split()[1] for line in lines[1:]] == ["1/4", "2/4", "3/4", "4/4"]
        monkeypatch.delenv(config.OUT)
        assert same(found, train.fit(run, few, CPU, quiet))


def otherwise(what, run, few, place, monkeypatch):
    """The same training with something else."""
    split = few.train
    if what == "a number":
        return replace(run, train=replace(run.train, lr=0.05)), few
    if what == "a knob":
        return replace(run, knobs={**run.knobs, "pgd": {**run.knobs["pgd"], "warmup": 0.0}}), few
    if what == "the seed":
        return replace(run, seed=1), few
    if what == "the method":
        return replace(run, method="pgd+he"), few
    if what in ("train", "validation", "test"):
        split = getattr(few, what)
        changed = split.x.clone()
        changed[0, 0, 0, 0] += 1
        return run, replace(few, **{what: replace(split, x=changed)})
    if what == "the labels":
        return run, replace(few, train=replace(split, y=split.y.flip(0)))
    if what == "the code":
        (place / "code.json").write_text("other")
    if what == "torch":
        monkeypatch.setattr(torch, "__version__", "1.0")
    return run, few


class TestWhose:
    @pytest.mark.parametrize("what", ["a number", "a knob", "the seed", "the method", "train", "validation", "test",
                                      "the labels", "the code", "torch"])
    def test_what_was_changed_starts_anew(self, run, few, place, monkeypatch, what):
        place.mkdir(parents=True)
        (place / "code.json").write_text("one")
        monkeypatch.setenv(config.STAGE, str(place / "code.json"))
        stopped(run, few, 3)
        assert "going on" in stopped(run, few, 3)[0]
        changed = otherwise(what, run, few, place, monkeypatch)
        lines = []
        found = train.fit(*changed, CPU, lines.append)
        assert [line.split()[0] for line in lines] == ["epoch"] * 4
        monkeypatch.delenv(config.OUT)
        assert same(found, train.fit(*changed, CPU, quiet))

    def test_not_how_many_processes_there_are(self, run, few, place):
        stopped(run, few, 3)
        assert "going on" in stopped(replace(run, compute=replace(run.compute, processes=4)), few, 3)[0]

    @pytest.mark.parametrize("content", [b"", b"no file of torch", "half"])
    def test_a_broken_file_is_one_line(self, run, few, place, monkeypatch, content):
        stopped(run, few, 3)
        path, = place.glob("*.pt")
        path.write_bytes(path.read_bytes()[:5000] if content == "half" else content)
        lines = []
        found = train.fit(run, few, CPU, lines.append)
        assert lines[0].startswith(f"{path} cannot be read (") and lines[0].endswith("): starting anew")
        assert len(lines) == 5
        monkeypatch.delenv(config.OUT)
        assert same(found, train.fit(run, few, CPU, quiet))

    def test_nothing_is_kept_by_hand(self, run, few, place, monkeypatch):
        monkeypatch.delenv(config.OUT)
        stopped(run, few, 3)
        lines = []
        train.fit(run, few, CPU, lines.append)
        assert len(lines) == 4 and not place.exists()

    def test_nothing_is_kept_of_what_no_file_can_tell(self, run, few, place):
        stopped(run, few, 3, method=methods.build(run))
        assert not place.exists()


class TestLook:
    def test_what_was_seen_is_kept_and_not_looked_at_again(self, run, few, place):
        """Whether another training of the same stage, without a look, was interrupted or not."""
        looked = []

        def look(epoch, model):
            """The first numbers of the weights, and a table's row."""
            looked.append(epoch)
            return {"w": next(model.parameters()).detach().flatten()[:3].clone(), "row": [epoch, "text", None]}

        whole = train.fit(run, few, CPU, quiet, look=look)
        assert looked == [1, 2, 3, 4] == list(whole.seen)
        shutil.rmtree(place)
        looked.clear()
        train.fit(run, few, CPU, quiet)
        stopped(run, few, 3, look=look)
        found = train.fit(run, few, CPU, quiet, look=look)
        assert looked == [1, 2, 3, 4]
        assert same(found, whole) and list(found.seen) == list(whole.seen)
        for one, other in zip(found.seen.values(), whole.seen.values(), strict=True):
            assert torch.equal(one["w"], other["w"]) and one["row"] == other["row"]
        assert train.fit(run, few, CPU, quiet).seen == {}


class TestFull:
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"),
                                       RuntimeError("PytorchStreamWriter failed writing file\nand more")])
    def test_training_goes_on_with_one_line(self, run, few, place, monkeypatch, error):
        save, calls = torch.save, []

        def full(content, path):
            """No room in the first three epochs."""
            calls.append(path)
            if len(calls) <= 3:
                Path(path).write_bytes(b"half")
                raise error
            save(content, path)

        monkeypatch.setattr(torch, "save", full)
        lines = []
        found = train.fit(run, few, CPU, lines.append)
        told = [line for line in lines if not line.startswith("epoch")]
        assert len(lines) == 5 and told == [lines[0]]
        assert told[0].startswith(f"progress cannot be kept in {place} (") and told[0].endswith("free some space")
        assert len(calls) == 4 and [path.suffix for path in place.iterdir()] == [".pt"]  # it is tried again
        monkeypatch.delenv(config.OUT)
        assert same(found, train.fit(run, few, CPU, quiet))

    def test_a_folder_that_cannot_be_made(self, run, few, place):
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
        lines = []
        train.fit(run, few, CPU, lines.append)
        assert len(lines) == 5 and "progress cannot be kept" in lines[0]

    def test_an_old_file_stays_whole(self, run, few, place, monkeypatch):
        """If there is no room in epoch 2, it goes on after epoch 1."""
        save = torch.save

        def full(content, path):
            """Room for one."""
            if content["content"]["epoch"] > 1:
                raise OSError(28, "No space left on device")
            save(content, path)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", full)
            stopped(run, few, 4)
        lines = []
        train.fit(run, few, CPU, lines.append)
        assert "going on from" in lines[0] and lines[1].startswith("epoch 1/4")


class TestStage:
    """What `lib.notebook` does with the folder."""

    @pytest.fixture
    def execute(self, project, monkeypatch):
        """Run the data stage with something else in place of its notebook."""
        stages.write("default")
        out = "results/default/data/digits"
        monkeypatch.setattr(notebook, "end_with", lambda: None)
        for name in (config.OUT, config.STAGE, "PYTHONPATH"):
            monkeypatch.setenv(name, "")

        def start(instead):
            """`instead`: (target) -> None."""
            target = project / out / "01_data.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            monkeypatch.setattr(notebook, "execute", lambda *more, **parameters: instead(target))
            notebook.run("notebooks/pipeline/01_data.ipynb", out, profile="default", dataset="digits")

        return start

    def test_what_is_unfinished_stays_after_a_failure_and_goes_after_a_success(self, execute, project):
        place = project / "results/default/unfinished/data/digits"

        def fail(target):
            """Leaves something."""
            assert config.unfinished() == place
            place.mkdir(parents=True)
            (place / "kept.pt").write_text("a")
            raise SystemExit("a cell failed")

        def succeed(target):
            """Finds it."""
            assert (place / "kept.pt").read_text() == "a"
            nbformat.write(new_notebook(cells=[]), target)

        beside = project / "results/default/unfinished/data/mnist/kept.pt"
        beside.parent.mkdir(parents=True)
        beside.write_text("b")
        with pytest.raises(SystemExit, match="a cell failed"):
            execute(fail)
        assert (place / "kept.pt").exists()
        execute(succeed)
        assert not place.exists() and beside.exists()

    def test_the_notebook_tells_nothing_of_an_interruption(self, tmp_path):
        """So that its bytes are those of an unbroken run."""
        copies, path = [], tmp_path / "a.ipynb"
        for before in ("", "going on from /home/me/results/default/unfinished/data/digits/12.pt\n",
                       "/home/me/results/default/unfinished/12.pt cannot be read (EOFError): starting anew\n"):
            cell = new_code_cell("print()")
            cell.outputs = [new_output("stream", name="stdout", text=before + "epoch 1/2\nepoch 2/2\n")]
            alone = new_code_cell("2")
            alone.outputs = [new_output("stream", name="stdout", text=before)] * bool(before)
            nbformat.write(new_notebook(cells=[cell, alone]), path)
            notebook.tidy(path)
            copies.append(path.read_bytes())
        assert copies[0] == copies[1] == copies[2] and b"epoch 1/2" in copies[0]

