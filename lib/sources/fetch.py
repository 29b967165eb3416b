"""Getting the files of a set into the data home: checked, whole, or not at all.

What is downloaded or unpacked lies in a folder aside until its checksums are right; only then do the files move to
their place. So a broken line, Ctrl-C or a full disk leaves nothing half-written.
"""

import contextlib
import hashlib
import os
import socket
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from lib.params import DataError

ANSWER = 12  # seconds in which a server has to answer; a set has at most two of them
STALL = 30   # seconds without a byte after which a download is given up
_ALLOWED = ContextVar("downloads", default=True)


class Absent(DataError):
    """A set that is not on this machine, where nothing may be downloaded or nothing can be."""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within it nothing is downloaded: a set that is not on this machine is `Absent`."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


@dataclass(frozen=True)
class Originals:
    """The files of a set, as torchvision names them, relative to the data home.

    checksums: the md5 of each file that is read. archive: name and md5 of the one file that holds them all, if there
    is one. urls: where they come from. download: writes all of them into a folder, using what lies there already.
    """

    checksums: dict[str, str]
    urls: list[str]
    download: Callable[[Path], None]
    archive: dict[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> dict[str, str]:
        """The files to bring by hand, with their md5: the archive, or the files themselves."""
        return self.archive or self.checksums


def ensure(name: str, files: Originals, home: Path) -> None:
    """Have all files of the set in `home` with the right checksums: there already, unpacked, or downloaded.

    Raises DataError for a file that is not what it should be, and where there is no network; see `offline` too.
    """
    present = {path: md5 for path, md5 in (files.archive | files.checksums).items() if (home / path).exists()}
    if set(files.checksums) <= set(present):
        present = {path: md5 for path, md5 in present.items() if path in files.checksums}
    for path, md5 in present.items():
        if _md5(home / path) != md5:
            raise DataError(f"{home / path} is not the file of {name} (md5 is not {md5}): it is cut short, changed or "
                            "another version; delete it, and it is fetched anew")
    if set(files.checksums) <= set(present):
        return
    if not _ALLOWED.get() and not set(files.wanted) <= set(present):
        raise Absent(f"data set '{name}' is not on this machine: `python -m lib fetch {name}` brings it")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as aside:
            _fill(name, files, home, Path(aside), present)
    except (OSError, RuntimeError, HTTPException, EOFError, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"data set '{name}' could not be fetched from {files.urls[0]} ({reason}). "
                        f"Without a network, {bring(files, home)}") from error


def bring(files: Originals, home: Path) -> str:
    """What to put where, in words."""
    return f"put into {home}: " + ", ".join(f"{path} (md5 {md5})" for path, md5 in files.wanted.items())


def _fill(name: str, files: Originals, home: Path, aside: Path, present: dict[str, str]) -> None:
    """Unpack or download into `aside`, starting from the good files in `home`, then move what is new to `home`."""
    for path in set(files.wanted) & set(present):
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (aside / path).symlink_to(home / path)
    if not set(files.wanted) <= set(present):
        reach(files.urls)
        print(f"{name}: downloading from {files.urls[0]} to {home}", flush=True)
    with _careful(), _quiet():
        files.download(aside)
    missing = [path for path in files.checksums if not (aside / path).exists()]
    if missing:
        raise RuntimeError(f"the archive lacks {missing[0]}")
    for path in sorted(aside.rglob("*")):
        if path.is_file() and not path.is_symlink():
            place = home / path.relative_to(aside)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


def reach(urls: list[str]) -> None:
    """Return if one of the servers answers within `ANSWER` seconds each; else raise an OSError.

    Asked in a thread, since looking up a name has no time limit of its own.
    """
    for url in urls:
        answers: list[Exception | None] = []
        thread = threading.Thread(target=_ask, args=(url, answers), daemon=True)
        thread.start()
        thread.join(ANSWER)
        if answers == [None]:
            return
    raise OSError(f"no network: {answers[0] if answers else f'no answer in {ANSWER} s'}")


def _ask(url: str, answers: list) -> None:
    """Append None if anything answers at the url, whatever it says, and the exception otherwise."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER).close()
        answers.append(None)
    except urllib.error.HTTPError:
        answers.append(None)
    except (OSError, HTTPException) as error:
        answers.append(error)


@contextlib.contextmanager
def _careful() -> Iterator[None]:
    """What torchvision leaves open: a time limit for sockets and, before 0.29, archives that write elsewhere."""
    before = socket.getdefaulttimeout(), tarfile.TarFile.extraction_filter
    socket.setdefaulttimeout(STALL)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before[0])
        tarfile.TarFile.extraction_filter = before[1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torchvision's progress bars and messages, unless a person sits at the terminal."""
    if sys.stderr.isatty():
        yield
        return
    with open(os.devnull, "w") as sink, contextlib.redirect_stderr(sink), contextlib.redirect_stdout(sink):
        yield


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
