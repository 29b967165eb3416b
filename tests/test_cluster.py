"""The matrix as jobs: no stage twice, the results of a serial run, killed workers, interrupts; and Slurm, imitated."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from tiny import NAMES, make

from lib import cluster, processes
from lib.params import ConfigError

DATA = ("notebooks/pipeline/01_data.ipynb", "results/smoke/data/digits", "profile=smoke", "dataset=digits")
DROPPED = (processes.ENGINE, processes.LAUNCHER, processes.JOBS, "PYTHONPATH")
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k not in DROPPED}, "OMP_NUM_THREADS": "1",
               "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def lib(project, *words, code=0, **variables):
    """What `python -m lib` with these words prints in the project."""
    done = subprocess.run([sys.executable, "-m", "lib", *words], cwd=project, env={**ENVIRONMENT, **variables},
                          capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def log(project):
    """The stages that began, in order, since the last look."""
    names = (project / "log").read_text().split()
    (project / "log").write_text("")
    return names


def until(true, seconds=30):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def gone(process):
    """Whether a process has ended."""
    return not Path(f"/proc/{process}").exists() or " Z " in Path(f"/proc/{process}/stat").read_text()


class TestMatrix:
    """All of `repro` with DVC, two jobs at a time. One training is killed when it runs for the first time."""

    @pytest.fixture(scope="class")
    @staticmethod
    def project(tmp_path_factory):
        return make(tmp_path_factory.mktemp("matrix") / "jobs")

    @pytest.fixture(scope="class")
    @staticmethod
    def output(project):
        (project / "behaviour.py").write_text(
            "import os\n"
            "open('devices', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')\n"
            "if name.startswith('train@smoke-digits-pgd') and first:\n"
            "    (out / 'half a file').write_text('')\n"
            "    os.kill(os.getpid(), 9)")
        shutil.copytree(project, project.with_name("serial"))
        return lib(project, "repro", "2", "local", CUDA_VISIBLE_DEVICES="5,7")

    def test_no_stage_runs_twice_unless_killed_and_each_after_what_it_reads(self, project, output):
        began = log(project)
        assert sorted(began) == sorted([*NAMES, "train@smoke-digits-pgd-0"])
        assert began[0] == NAMES[0] and began[-1] == NAMES[-1]
        assert re.findall(r"  (\S+)  job \d+ was killed \((\w+)\): (.*)", output) == [
            ("train@smoke-digits-pgd-0", "SIGKILL", "submitted again, 1 of 2")]
        assert output.count("  train@smoke-digits-pgd-0  done\n") == 1  # each line names its stage

    def test_results_and_lock_are_those_of_a_serial_run(self, project, output):
        serial = project.with_name("serial")
        (serial / "behaviour.py").write_text("")
        subprocess.run(["dvc", "repro", "-q"], cwd=serial, env=ENVIRONMENT, check=True, capture_output=True)
        first, second = (yaml.safe_load((p / "dvc.lock").read_text())["stages"] for p in (project, serial))
        assert first == second and set(first) == {"code@smoke", *NAMES}
        files = [p.relative_to(project) for p in (project / "results").rglob("*") if p.is_file()]
        assert len(files) == 20  # four of each stage, and its code
        assert all((project / f).read_bytes() == (serial / f).read_bytes() for f in files)

    def test_dvc_finds_it_done(self, project, output):
        shown = subprocess.run(["dvc", "status"], cwd=project, env=ENVIRONMENT, capture_output=True, text=True)
        assert "up to date" in shown.stdout
        assert list((project / ".dvc/tmp/jobs").glob("*/job")) == []
        assert (project / ".dvc/tmp/repro.lock").read_text() == ""

    def test_jobs_at_a_time_have_devices_of_their_own(self, project, output):
        devices = (project / "devices").read_text().split()
        assert devices[1:3] in (["5", "7"], ["7", "5"])

    def test_a_failing_stage_is_not_tried_again_and_stops_the_rest(self, project, output, edit):
        edit(project / "params.yaml", "    warmup: 0.3", "    warmup: 0.4")  # of pgd: one training, and parity
        (project / "behaviour.py").write_text("raise SystemExit('02_train.ipynb, cell 3: KeyError: 7')")
        shown = lib(project, "repro", "2", "local", code=1)
        assert log(project) == ["train@smoke-digits-pgd-0"]
        assert "02_train.ipynb, cell 3: KeyError: 7\n" in shown and "killed" not in shown

    def test_an_interrupt_cancels_what_runs(self, project, output):
        """And while it runs, another launcher is refused."""
        (project / "behaviour.py").write_text("import os, time\nopen('process', 'w').write(str(os.getpid()))\n"
                                              "time.sleep(300)")
        process = subprocess.Popen([sys.executable, "-m", "lib", "repro", "2", "local"], cwd=project, text=True,
                                   env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        place = project / "process"
        until(lambda: place.exists() and place.read_text())
        refused = lib(project, "repro", code=1)
        assert re.fullmatch(rf"error: another run is under way \(.* on .*, process {process.pid}, since .*\): wait for "
                            "its end, or interrupt it there\n", refused)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and gone(int(place.read_text()))
        assert shown.endswith("interrupted: what was running has been stopped; finished stages and epochs are kept\n")
        assert "ERROR" not in shown and shown.count("interrupted") == 1


class TestJob:
    """One stage as a job, without DVC."""

    @pytest.fixture
    def project(self, tmp_path, monkeypatch):
        monkeypatch.chdir(make(tmp_path / "project"))
        lib(Path.cwd(), "code", "smoke")
        return Path.cwd()

    @pytest.fixture
    def slurm(self, project, tmp_path, monkeypatch):
        """The imitated commands are found; its jobs are in the folder that this returns."""
        tools, home = tmp_path / "bin", tmp_path / "slurm"
        tools.mkdir(), home.mkdir()
        script = tools / "slurm.py"
        text = (Path(__file__).with_name("slurm.py")).read_text()
        script.write_text(text.replace("#!/usr/bin/env python", f"#!{sys.executable}"))
        script.chmod(0o755)
        for name in ("sbatch", "srun", "sacct", "scancel"):
            (tools / name).symlink_to(script)
        for name, value in (("PATH", f"{tools}{os.pathsep}{ENVIRONMENT['PATH']}"), ("IMITATION", str(home))):
            monkeypatch.setitem(ENVIRONMENT, name, value)
            monkeypatch.setenv(name, value)
        return home

    @pytest.mark.parametrize("whom", ["the job", "its controller", "its kernel"])
    def test_whoever_is_killed_the_stage_is_taken_up_again(self, project, whom):
        """Where the notebook lives on for a moment, the next job waits for its end."""
        (project / "behaviour.py").write_text("import os, pathlib, time\nif first:\n" + {
            "the job": "    os.kill(os.getppid(), 9)\n",
            "its controller": "    stat = pathlib.Path(f'/proc/{os.getppid()}/stat').read_text()\n"
                              "    os.kill(int(stat.rpartition(')')[2].split()[1]), 9)\n",
            "its kernel": "    raise SystemExit(75)\n"}[whom] + (
            "    try:\n        time.sleep(100)\n"
            "    except KeyboardInterrupt:\n        time.sleep(3)\n        open('log', 'a').write('ended\\n')\n"
            "        raise"))
        shown = lib(project, "run", *DATA, **cluster.engine("local"))
        assert log(project) == ["data@smoke-digits", *["ended"] * (whom != "its kernel"), "data@smoke-digits"]
        how = "its kernel died" if whom == "its kernel" else "it left no result"
        assert f"was killed ({how}): submitted again, 1 of 2" in shown and "  done\n" in shown

    def test_a_stage_that_is_killed_again_and_again_is_given_up(self, project):
        (project / "behaviour.py").write_text("import os\nos.kill(os.getpid(), 9)")
        shown = lib(project, "run", *DATA, code=1, **cluster.engine("local", "retries=1"))
        assert len(log(project)) == 2 and shown.splitlines()[-1].endswith("was killed (SIGKILL): given up")

    @pytest.mark.parametrize("how", ["terminated", "killed"])
    def test_the_job_ends_with_the_one_who_waits_for_it(self, project, how):
        """Also where Ctrl-C is ignored, as by what a script starts in the background."""
        (project / "behaviour.py").write_text("import os, time\nopen('process', 'w').write(str(os.getpid()))\n"
                                              "time.sleep(300)")
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "lib", "run", *DATA]
        process = subprocess.Popen(command, env={**ENVIRONMENT, **cluster.engine("local")},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        place = project / "process"
        until(lambda: place.exists() and place.read_text())
        if how == "terminated":
            process.terminate()
            assert process.communicate(timeout=20)[1].count("interrupted: run it again to go on") == 1
            assert process.returncode == 130 and gone(int(place.read_text()))
        else:
            process.kill()
            process.communicate()
            until(lambda: gone(int(place.read_text())))

    def test_time_that_is_up_is_a_kill(self, project):
        (project / "behaviour.py").write_text(
            "import os, signal, time\n"
            "if first:\n    os.kill(os.getppid(), signal.SIGUSR2)\n    time.sleep(100)")  # as Slurm warns, and submitit
        shown = lib(project, "run", *DATA, **cluster.engine("local", "timeout_min=1"))
        assert "was killed (its time was up" in shown and "  done\n" in shown
        assert "Traceback" not in shown

    def test_slurm(self, project, slurm):
        """Its options reach sbatch; the node's devices are the job's; a job that is killed is submitted again."""
        (project / "behaviour.py").write_text(
            "import json, os\njson.dump(dict(os.environ), open('environment', 'w'))\n"
            "began = open('log').read().count(name)\n"
            "if began < 3:\n"
            "    if began == 1:\n        open(os.environ['IMITATION'] + '/1/state', 'w').write('PREEMPTED')\n"
            "    os.killpg(0, 9)")
        chosen = cluster.engine("slurm", "partition=gpu", "gpus_per_node=1", "timeout_min=600", "cpus_per_task=8",
                                "account=007", "exclusive=true", "setup=export A=B")
        launcher = f"me on here, process {os.getpid()}, since now"
        (project / ".dvc/tmp").mkdir()
        (project / ".dvc/tmp/repro.lock").write_text(launcher)
        shown = lib(project, "run", *DATA, **chosen, **{processes.LAUNCHER: launcher, "CUDA_VISIBLE_DEVICES": "0,1"})
        assert "job 1 was killed (PREEMPTED): submitted again, 1 of 2" in shown
        assert "job 2 was killed (OUT_OF_MEMORY): submitted again, 2 of 2" in shown and "job 3 of slurm" in shown
        assert log(project) == ["data@smoke-digits"] * 3 and shown.endswith("  done\n")
        script = (slurm / "1/script").read_text()
        for option in ("job-name=results-smoke-data-digits", "partition=gpu", "gpus-per-node=1", "time=600",
                       "cpus-per-task=8", "no-requeue", "account=007", "exclusive"):
            assert f"#SBATCH --{option}\n" in script
        assert re.search("^srun .* --cpus-per-task=8 ", script, re.M)
        seen = json.loads((project / "environment").read_text())
        assert seen["CUDA_VISIBLE_DEVICES"] == "7" and seen["A"] == "B"
        assert not {processes.LAUNCHER, processes.ENGINE} & set(seen)

    def test_a_job_of_slurm_that_was_left_over_is_cancelled(self, project, slurm):
        (project / "behaviour.py").write_text("import os, time\nopen('process', 'w').write(str(os.getpid()))\n"
                                              "time.sleep(300 * first)")
        chosen = cluster.engine("slurm")
        process = subprocess.Popen([sys.executable, "-m", "lib", "run", *DATA], env={**ENVIRONMENT, **chosen},
                                   stdout=subprocess.DEVNULL)
        place = project / "process"
        until(lambda: place.exists() and place.read_text())
        left = int(place.read_text())
        process.kill()
        process.wait()
        assert not gone(left)  # a node knows nothing of it
        shown = lib(project, "run", *DATA, **chosen)
        assert gone(left) and (slurm / "1/state").read_text().startswith("CANCELLED") and shown.endswith("  done\n")

    def test_what_sbatch_says_is_one_line(self, project, slurm):
        shown = lib(project, "run", *DATA, code=1, **cluster.engine("slurm", "partition=none"))
        assert shown == "error: slurm takes no job: sbatch: error: invalid partition specified: none\n"


def test_results_that_are_late_on_a_shared_file_system_are_waited_for(tmp_path):
    (tmp_path / "first").write_text("abc")
    files = {str(tmp_path / "first"): 3, str(tmp_path / "late/second"): 2}
    with pytest.raises(ConfigError, match="is not here as its job left it: do the nodes see this folder"):
        cluster._see(str(tmp_path), files, seconds=0)

    def write():
        (tmp_path / "late").mkdir()
        (tmp_path / "late/second").write_text("de")
    threading.Timer(0.5, write).start()
    cluster._see(str(tmp_path), files, seconds=20)
    assert (tmp_path / "late/second").exists()


@pytest.mark.parametrize("words, message", [
    (["slrum"], "unknown engine 'slrum' \\(did you mean 'slurm'\\?\\); there are: slurm, local"),
    (["local", "partitoin=gpu"], "unknown option 'partitoin' in engine local \\(did you mean 'partition'\\?\\)"),
    (["local", "nodes=2"], "unknown option 'nodes'"),
    (["local", "partition"], "option partition of engine local has no value: write partition=VALUE"),
    (["local", "gpus_per_node=one"], 'engine local: Parameter "gpus_per_node" expected type'),
    (["local", "retries=often"], "retries=often of engine local is no number of times"),
    (["slurm", "partition=gpu"], "engine slurm needs the commands of Slurm .* which are not here")])
def test_a_wrong_option_is_one_line(project, words, message):
    with pytest.raises(ConfigError, match=message) as error:
        cluster.engine(*words)
    assert "\n" not in str(error.value)
