"""One network, trained by several processes, each with its share of every batch (`lib.world`), on a GPU of its own.

`fit` has torchrun start them on this machine, since a notebook's process that has used a GPU cannot be forked. Over
several machines start torchrun yourself, on each of them, with its own options for where they meet:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        -m lib.distributed PROFILE DATASET METHOD SEED FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from lib import compute, data, train, world
from lib.config import Config, load
from lib.data import Dataset
from lib.params import ConfigError, DataError, root

WATCHED = "COMPANION_PARENT"  # environment variable: the process without which the others end


def fit(config: Config, dataset: Dataset, device: torch.device, log: Callable[[str], None] = print,
        keep: Mapping[str, int] | None = None) -> train.Trained:
    """`train.fit` by `config.compute.processes` processes: alone, that is all; else each loads its images itself.

    Raises ConfigError where there are fewer GPUs than processes, and for what is wrong in any of them; and for numbers
    that are not those of params.yaml, since each reads it itself.
    """
    processes = config.compute.processes
    if processes == 1:
        return train.fit(config, dataset, device, log, keep=keep)
    if processes < 1 or device.type == "cuda" and processes > torch.cuda.device_count():
        there = f"torch sees {torch.cuda.device_count()} GPUs here" if processes > 0 else "it takes at least one"
        raise ConfigError(f"compute.processes is {processes}, but {there}")
    if load(config.profile, config.dataset, config.method, config.seed) != config:
        raise ConfigError("several processes train with the numbers of params.yaml alone: change them there")
    with tempfile.TemporaryDirectory() as folder:
        words = [config.profile, config.dataset, config.method, str(config.seed), folder, json.dumps(dict(keep or {}))]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m",
                   "lib.distributed", *words]
        _run(command, log)
        return train.Trained.load(Path(folder))


def _run(command: list[str], log: Callable[[str], None]) -> None:
    """Run torchrun, and log what the processes say; ConfigError with the first error that one of them names."""
    env = {**os.environ, WATCHED: str(os.getpid()), "PYTHONPATH": str(root()), "OMP_NUM_THREADS": "1"}
    with (tempfile.TemporaryFile("w+") as errors,
          subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=root(), env=env) as torchrun):
        try:
            for line in torchrun.stdout:
                log(line.rstrip("\n"))
        except BaseException:
            torchrun.terminate()
            raise
        if torchrun.wait():
            errors.seek(0)
            lines = [" ".join(line.split()) for line in errors if line.strip()]
            named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            codes = [line for line in lines if line.startswith("exitcode")]  # torchrun ends with that of the first
            raise ConfigError((named or [f"a training process ended with {(codes or lines or ['no message'])[-1]}"])[0])


def main(profile: str, dataset: str, method: str, seed: str, folder: str, keep: str = "{}") -> int:
    """What each process does: trains with the others; the first one reports, and saves into `folder`."""
    if WATCHED in os.environ:
        threading.Thread(target=_end_with, args=[int(os.environ[WATCHED])], daemon=True).start()
    try:
        config = load(profile, dataset, method, int(seed))
        device = compute.device(config.compute)
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        first = world.rank() == 0
        trained = train.fit(config, data.load(config, device), device, keep=json.loads(keep),
                            log=lambda line: print(line, flush=True) if first else None)
        if first:
            trained.save(Path(folder))
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:  # whatever it is, the parent gets one line; torchrun ends the others, which wait in vain
        kind = "" if isinstance(error, (ConfigError, DataError, FloatingPointError)) else f"{type(error).__name__}: "
        print(f"error: {kind}{(str(error).strip().splitlines() or ['no message'])[0]}", file=sys.stderr, flush=True)
        return 1
    return 0


def _end_with(process: int) -> None:
    """End this process when that one is gone, however it went: torchrun would train on."""
    while True:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
