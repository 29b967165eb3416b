"""Stages as jobs of submitit: on a Slurm cluster, or on this machine as a rehearsal of one.

`python -m lib repro JOBS slurm` runs `dvc repro -s` for each stale stage as ever, but the command of the stage, which
is `python -m lib run`, then waits for a job that runs the same command on a node. So no DVC works in a job, and its
locks and dvc.lock, which are safe on one machine only, stay whole. A job that is killed is submitted again. The nodes
have to see this folder, under the same path.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

from lib.params import ConfigError, known, root
from lib.processes import DEVICES, ENGINE, JOBS, KERNEL_DIED, LAUNCHER, end_with, locked

ENGINES = ("slurm", "local")
MINUTES, RETRIES = 24 * 60, 2  # of a job, and after a job was killed, unless timeout_min and retries say otherwise
NOT_GIVEN = {"name", "job_name", "nodes", "tasks_per_node", "ntasks_per_node", "array_parallelism", "num_gpus", "time",
             "stderr_to_stdout", "additional_parameters", "srun_args", "teardown"}  # a job is one task; or no text
TIME_UP, INTERRUPTED = 124, 130  # exit statuses
KILLED = {KERNEL_DIED: "its kernel died", INTERRUPTED: "it was told to end",
          **dict.fromkeys((TIME_UP, -signal.SIGUSR2), "its time was up, see timeout_min, or it had to make room")}


def engine(name: str, *pairs: str) -> dict[str, str]:
    """The environment variable that sends the commands of stages to an engine, slurm or local.

    pairs: options such as 'partition=gpu', by the names of submitit's executor for Slurm, and retries, how often a
    stage is submitted again after its job was killed. Raises ConfigError for what does not exist.
    """
    known("engine", name, ENGINES)
    submitit = _submitit()
    shared = set(submitit.AutoExecutor._typed_parameters()) - NOT_GIVEN
    slurm = set(submitit.SlurmExecutor._valid_parameters()) - NOT_GIVEN - shared
    options, retries = {"timeout_min": MINUTES}, RETRIES
    for pair in pairs:
        key, _, text = pair.partition("=")
        known("option", key, sorted({*shared, *slurm, "retries"}), f"engine {name}")
        if not text:
            raise ConfigError(f"option {key} of engine {name} has no value: write {key}=VALUE")
        if key == "retries":
            retries = _number(text)
        elif key in shared:
            options[key] = _number(text)
        else:  # text for sbatch, but for true and false
            value = {"true": True, "false": False}.get(text, text)
            options[f"slurm_{key}"] = [value] if key == "setup" else value
    if type(retries) is not int or retries < 0:
        raise ConfigError(f"retries={retries} of engine {name} is no number of times")
    if "cpus_per_task" in options:  # srun of Slurm 22.05 and later does not take it over from sbatch
        options["slurm_srun_args"] = [f"--cpus-per-task={options['cpus_per_task']}"]
    _executor(name, options, root() / ".dvc/tmp/jobs")
    return {ENGINE: json.dumps({"cluster": name, "options": options, "retries": retries})}


def run(notebook: str, out: str, *pairs: str) -> int:
    """Run `python -m lib run` with these words as a job of the engine, show its output, and return its exit status.

    A job that was killed is submitted again. An interrupt of this process cancels the job.
    """
    chosen, name = json.loads(os.environ[ENGINE]), os.environ.get("DVC_STAGE", out)
    folder = root() / ".dvc/tmp/jobs" / name.replace("/", "-")
    end_with()
    _clear(folder, chosen["cluster"])
    for attempt in range(chosen["retries"] + 1):
        job = _submit(chosen, folder, attempt, (notebook, out, *pairs))
        try:
            print(f"  {name}  job {job.job_id} of {chosen['cluster']}", flush=True)
            status, how, files = _follow(job, chosen["cluster"])
            if not how:
                _see(out, files)
                shutil.rmtree(folder, ignore_errors=True)
                return status
        except KeyboardInterrupt:
            _cancel(job, chosen["cluster"], _lock(folder))
            raise
        last = attempt == chosen["retries"]
        then = "given up" if last else f"submitted again, {attempt + 1} of {chosen['retries']}"
        print(f"  {name}  job {job.job_id} was killed ({how}): {then}", file=sys.stderr if last else sys.stdout,
              flush=True)
    return 1


def _submit(chosen: dict, folder: Path, attempt: int, words: tuple[str, ...]):
    """A job of submitit for the command. Its id is left in the file `job` of the folder."""
    submitit, local = _submitit(), chosen["cluster"] == "local"
    executor = _executor(chosen["cluster"], {**chosen["options"], "name": folder.name}, folder / str(attempt))
    given = {name: os.environ.get(name) for name in ((JOBS, DEVICES) if local else (JOBS,))}  # Slurm gives devices
    with submitit.helpers.clean_env((ENGINE, LAUNCHER)):
        os.environ["SUBMITIT_LOG_LEVEL"] = "CRITICAL"
        try:
            with redirect_stderr(io.StringIO()):  # said below
                job = executor.submit(_work, words, str(root()), str(_lock(folder)), given, [os.getpid()] * local)
        except submitit.core.utils.FailedJobError as error:  # of sbatch itself
            reason = str(error).strip().splitlines() or ["no reason given"]
            raise ConfigError(f"{chosen['cluster']} takes no job: {reason[-1]}") from None
    (folder / "job").write_text(job.job_id)
    return job


def _work(words: tuple[str, ...], folder: str, lock: str, given: dict[str, str | None],
          others: list[int]) -> tuple[int, dict[str, int]]:
    """In the job: `python -m lib run` in the folder; its exit status (negative: killed by a signal) and `_files`.

    The command inherits the lock, so that it is held until the command has ended, however this process ends.
    given: environment variables, None for one to be unset. others: processes of this machine that the job is for.
    """
    end_with(*others)
    os.chdir(folder)
    environment = {name: value for name, value in {**os.environ, **given}.items() if value is not None}
    with open(lock, "w") as file:
        if locked(file, wait=False) is False:
            print("waiting for an earlier job of this stage to end", flush=True)
            locked(file)
        shutil.rmtree(words[1], ignore_errors=True)  # DVC did so, but an earlier job may have written since
        with subprocess.Popen([sys.executable, "-m", "lib", "run", *words], env=environment,
                              pass_fds=[file.fileno()]) as process:
            try:
                return process.wait(), _files(words[1])
            except KeyboardInterrupt:
                process.terminate()
                return INTERRUPTED, {}
            except Exception:  # submitit's, on Slurm's signal before the end
                process.terminate()
                return TIME_UP, {}


def _follow(job, cluster: str) -> tuple[int, str, dict[str, int]]:
    """Show a job's output until it ends: its exit status, how it was killed, if so, and the files that it left."""
    shown = {job.paths.stdout: 0, job.paths.stderr: 0}
    preempted = False
    while not (job.done() or preempted):
        _show(job, shown)
        time.sleep(0.5)
        preempted = job.state == "PREEMPTED"  # submitit would wait for Slurm to requeue it, which `_executor` forbids
    try:
        if (cluster == "local" or preempted) and not job.paths.result_pickle.exists():
            status, how, files = 1, "PREEMPTED" if preempted else "it left no result", {}
        else:  # the file may be late on a cluster; submitit waits
            status, files = job.result()
            how = KILLED.get(status, signal.Signals(-status).name if status < 0 else "")
    except _submitit().core.utils.UncompletedJobError:
        status, how, files = 1, job.state, {}
    _show(job, shown)
    return status, how, files


def _files(folder: str) -> dict[str, int]:
    """The sizes of all files in a folder."""
    return {str(path): path.stat().st_size for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def _see(folder: str, files: dict[str, int], seconds: float = 120) -> None:
    """Wait until the files that a node left are here: a shared file system may show them late, and DVC looks once."""
    end = time.monotonic() + seconds
    while _files(folder) != files:
        if time.monotonic() > end:
            raise ConfigError(f"{folder} is not here as its job left it: do the nodes see this folder?")
        time.sleep(1)


def _show(job, shown: dict[Path, int]) -> None:
    """Show what is new in a job's output. shown: of each of its files the number of bytes shown so far."""
    for path, stream in ((job.paths.stdout, sys.stdout), (job.paths.stderr, sys.stderr)):
        if path.exists():
            with path.open("rb") as file:
                file.seek(shown[path])
                new = file.read()
            shown[path] += len(new)
            stream.buffer.write(new)
            stream.flush()


def _clear(folder: Path, cluster: str) -> None:
    """An empty folder for a stage's jobs. A job that is left over from a run that was killed is cancelled."""
    if cluster == "slurm" and (folder / "job").exists():
        subprocess.run(["scancel", (folder / "job").read_text()], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _lock(folder: Path) -> Path:
    """The file that the job of a stage holds locked while it runs."""
    return folder.with_name(folder.name + ".lock")


def _cancel(job, cluster: str, lock: Path, seconds: float = 30) -> None:
    """Cancel a job, and wait until it has given up the lock, which is when it has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if cluster == "slurm":
        job.cancel(check=False)
    elif not job.done():  # not submitit's SIGINT, which whoever was started in the background ignores
        os.kill(int(job.job_id), signal.SIGTERM)
    end = time.monotonic() + seconds
    with lock.open("a") as file:
        while locked(file, wait=False) is False and time.monotonic() < end:
            time.sleep(0.2)


def _executor(cluster: str, options: dict, folder: Path):
    """submitit's executor. Slurm is told not to requeue: a killed stage is submitted again here and nowhere else."""
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**options, slurm_additional_parameters={"no-requeue": True})
    except RuntimeError:
        raise ConfigError("engine slurm needs the commands of Slurm (sbatch, srun, sacct, scancel), which are not "
                          "here: use it on a machine of the cluster, or rehearse with engine local") from None
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"engine {cluster}: {' '.join(str(error).split())}") from None
    return executor


def _submitit():
    """The package, imported where it is needed and without its log lines."""
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "CRITICAL")
    import submitit

    return submitit


def _number(text: str) -> int | float | str:
    """The number, or the text where it is none."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
