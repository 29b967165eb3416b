"""One launcher at a time, by a lock that a dead process cannot hold."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from lib import processes
from lib.params import ConfigError

HERE = socket.gethostname()


@pytest.fixture
def lock(project):
    (project / ".dvc/tmp").mkdir(parents=True)
    return project / ".dvc/tmp/repro.lock"


def dead():
    """The number of a process that has ended."""
    return subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout.decode()


def test_a_second_launcher_is_told_of_the_first(lock):
    with processes.only_launcher() as launcher:
        assert lock.read_text() == launcher.name and f" on {HERE}, process {os.getpid()}, since " in launcher.name
        with pytest.raises(ConfigError, match=re.escape(f"another run is under way ({launcher.name}): wait for")):
            with processes.only_launcher():
                pass
        assert lock.read_text() == launcher.name  # the refused one changes nothing
    assert lock.read_text() == ""
    with processes.only_launcher():
        pass


@pytest.mark.parametrize("process", ["dead", "alive"])  # a number may come again: the lock counts
def test_what_a_dead_launcher_left_is_taken_over(lock, process):
    number = os.getpid() if process == "alive" else dead().strip()
    lock.write_text(f"me on {HERE}, process {number}, since then")
    with processes.only_launcher() as launcher:
        assert lock.read_text() == launcher.name


def test_a_launcher_of_another_host_is_for_a_person_to_judge(lock):
    lock.write_text("me on elsewhere, process 1, since then")
    with pytest.raises(ConfigError, match="me on elsewhere.*if it is gone, delete .dvc/tmp/repro.lock"):
        with processes.only_launcher():
            pass
    assert lock.read_text()


def test_without_locks_the_process_counts(lock, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "no locks here")
    monkeypatch.setattr(processes.fcntl, "flock", no_locks)
    lock.write_text(f"me on {HERE}, process {dead().strip()}, since then")
    with processes.only_launcher():
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
            with processes.only_launcher():
                pass


@pytest.mark.parametrize("what", ["stops", "is killed"])
def test_a_process_ends_with_its_launcher(lock, what):
    """In both cases within seconds, as if it were interrupted."""
    launcher = subprocess.Popen(["sleep", "100"])
    name = f"me on {HERE}, process {launcher.pid}, since then"
    lock.write_text(name)
    code = ("import time; from lib import processes\n"
            "try: processes.end_with(); print('up', flush=True); time.sleep(60)\n"
            "except KeyboardInterrupt: print('interrupted')")
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, processes.LAUNCHER: name}, text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == "up\n"
    if what == "stops":
        lock.write_text("")
    else:
        launcher.kill()
        launcher.wait()
    assert process.communicate(timeout=20)[0] == "interrupted\n"
    launcher.kill()
    launcher.wait()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # of this process
