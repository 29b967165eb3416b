"""Processes of a run: one launcher at a time, and none that outlives what it works for."""

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.params import ConfigError, root

JOBS = "JOBS"                    # environment variable of `make repro`: how many stages go side by side
LAUNCHER = "COMPANION_LAUNCHER"  # and of the stages that a `python -m lib repro` runs: its name
ENGINE = "COMPANION_ENGINE"      # and where the command of a stage runs, as `cluster.engine` writes it
DEVICES = "CUDA_VISIBLE_DEVICES"
KERNEL_DIED = 75                 # exit status of a stage: it may work when tried again


class Launcher:
    """A `python -m lib repro`. Its name (user, host, process, time) is in the lock file for as long as it goes on."""

    def __init__(self, file):
        self.file = file
        self.name = (f"{os.environ.get('USER') or f'user {os.getuid()}'} on {socket.gethostname()}, "
                     f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        self._say(self.name)

    def stop(self) -> None:
        """Tell the stages of this launcher to end; see `end_with`."""
        self._say("")

    def _say(self, text: str) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.file.write(text)
        self.file.flush()


@contextmanager
def only_launcher() -> Iterator[Launcher]:
    """Be the only launcher of this repository, or raise a ConfigError that says who is.

    The kernel frees the lock when the launcher and the stages that it began have ended, however that was, so nothing is
    left to clear up. But a name of another host that is left may mean that it died, or that locks do not reach from
    host to host: a person has to look.
    """
    path = _lock_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        free = locked(file, wait=False)
        file.seek(0)
        before = file.read()
        elsewhere = bool(before) and f" on {socket.gethostname()}, " not in before
        if free is False or elsewhere or free is None and _alive(before):
            hint = f"; if it is gone, delete {path.relative_to(root())}" if elsewhere else ""
            raise ConfigError(f"another run is under way ({before}): wait for its end, or interrupt it there{hint}")
        launcher = Launcher(file)
        try:
            yield launcher
        finally:
            launcher.stop()


def locked(file, wait: bool = True) -> bool | None:
    """Lock an open file for this process and all that inherit it: False if another has it.

    None on a file system that has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def interruptible() -> None:
    """End on SIGTERM, and when the terminal is closed, as on Ctrl-C: by a KeyboardInterrupt, which can clear up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def end_with(*processes: int) -> None:
    """Be interrupted when this process is not wanted any more; see `interruptible`.

    That is when its parent is gone, or one of `processes`, or the launcher that it belongs to, or that launcher stops.
    """
    interruptible()
    parent, launcher = os.getppid(), os.environ.get(LAUNCHER)

    def wanted() -> bool:
        """Whether all that this process works for go on."""
        return (os.getppid() == parent and all(map(_exists, processes))
                and (not launcher or _named() == launcher and _alive(launcher)))

    def watch():
        """Wait until it is not wanted."""
        while wanted():
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _lock_file() -> Path:
    return root() / ".dvc" / "tmp" / "repro.lock"


def _named() -> str:
    """The launcher that goes on, by the lock file."""
    return _lock_file().read_text() if _lock_file().exists() else ""


def _alive(launcher: str) -> bool:
    """Whether the process of a launcher on this host exists."""
    return ", process " in launcher and _exists(int(launcher.split(", process ")[1].split(",")[0]))


def _exists(process: int) -> bool:
    """Whether a process of this host goes on: one that has ended but that nobody has waited for does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # another's, or no /proc on this system
        return True
