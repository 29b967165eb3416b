#!/usr/bin/env python
"""Imitates sbatch, srun, sacct and scancel, by the name under which it is called, as far as submitit uses them.

One node. What is known of a job is in $IMITATION/<id>/: its script, process group and state.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["IMITATION"])


def sbatch(script):
    """Start a job; a process of its own waits for its end."""
    number = str(1 + len(list(HOME.iterdir())))
    job = HOME / number
    job.mkdir()
    text = Path(script).read_text()
    if "--partition=none" in text:
        sys.exit("sbatch: error: invalid partition specified: none")
    (job / "script").write_text(text)
    (job / "state").write_text("RUNNING")
    subprocess.Popen([sys.executable, Path(__file__).resolve(), "wait", number], start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def wait(number):
    """Run a job's script to its end."""
    job = HOME / number
    variables = {"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "CUDA_VISIBLE_DEVICES": "7"}
    process = subprocess.Popen(["bash", job / "script"], env={**os.environ, **variables}, start_new_session=True)
    (job / "group").write_text(str(process.pid))
    ended = process.wait()
    if (job / "state").read_text() == "RUNNING":
        (job / "state").write_text("FAILED" if ended > 0 else "OUT_OF_MEMORY" if ended else "COMPLETED")


def srun(*words):
    """Run a command with its output in files."""
    files = {}
    while words[0].startswith("--"):
        option, *words = words
        if option in ("--output", "--error"):
            place, *words = words
            files[option] = place.replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
    with open(files["--output"], "a") as out, open(files["--error"], "a") as error:
        sys.exit(subprocess.run(words, stdout=out, stderr=error).returncode)


def sacct(*words):
    """The states of jobs."""
    print("JobID|State|NodeList")
    for number in re.findall(r"-j (\d+)", " ".join(words)):
        print(f"{number}|{(HOME / number / 'state').read_text()}|node")


def scancel(number):
    """End a job."""
    (HOME / number / "state").write_text("CANCELLED by 0")
    try:
        os.killpg(int((HOME / number / "group").read_text()), signal.SIGTERM)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    name = Path(sys.argv[0]).name
    called, given = (sys.argv[1], sys.argv[2:]) if name.endswith(".py") else (name, sys.argv[1:])
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel, "wait": wait}[called](*given)
