"""Cut the runner off from the network, from other processes and from the files of this machine, where Linux lets us."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lib.config import home
from lib.params import root

MIB = 512  # of the temporary folder, which is memory
# In its own namespaces all file systems become read-only but a temporary one, and the right to change that is given up.
SCRIPT = f"""
while read -r device place rest; do
  case "$place" in /proc|/proc/*|/sys|/sys/*) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null ;; esac
done < /proc/self/mounts
mount -t tmpfs -o ro tmpfs /run || exit 9  # where services have their sockets: read-only would not close these
mount -t tmpfs -o size={MIB}m tmpfs "$1" || exit 9
for place in "$2" "$3"; do
  touch "$place/.writable" 2>/dev/null && rm "$place/.writable" && exit 9
done
shift 3
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount",
              "--mount-proc")


def prefix(work: str) -> list[str]:
    """What stands before a command so that it runs isolated, with `work` as the one folder that it can write to."""
    return [*NAMESPACES, "sh", "-c", SCRIPT, "sh", work, str(Path.home()), str(root())]


@functools.cache
def possible() -> bool:
    """Whether this machine isolates: user, process, network and mount namespaces, tried once."""
    if not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        return False
    import tempfile

    with tempfile.TemporaryDirectory() as work:
        command = [*prefix(work), "sh", "-c", "echo $$"]
        try:
            tried = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return tried.returncode == 0 and tried.stdout.strip() == "1"


def environment(work: str) -> dict[str, str]:
    """The variables of the runner: few, so that nothing else of ours is there to be read."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "HOME": work, "TMPDIR": work, "DATA_HOME": str(home()), "PYTHONPATH": str(root()),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "MPLBACKEND": "Agg", "MPLCONFIGDIR": work,
            "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1"}
