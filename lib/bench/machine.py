"""What was timed on: the machine, its software, and the state of the code; and the file that keeps it all."""

import json
import math
import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import torch

from lib.config import Compute
from lib.params import root

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_fp16", "amx_int8")  # of a CPU, that matter here


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(device: torch.device, compute: Compute) -> dict:
    """All that a reader has to know of the machine, as text and numbers; without a date.

    load: processes that were running on a core on average over the last minute, this one among them: above 1 timings
    are disturbed.
    """
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(_first(r"flags\s*: (.*)", text, "").split())
    found = {"device": device.type, "cpu": _first(r"model name\s*: (.*)", text, platform.processor() or "unknown"),
             "flags": [flag for flag in FLAGS if flag in flags], "cores": cores(), "threads": torch.get_num_threads(),
             "load": round(os.getloadavg()[0] / cores(), 2), "torch": torch.__version__,
             "python": platform.python_version(), "deterministic": str(getattr(compute, "deterministic", "auto")),
             "commit": _output("git", "-C", str(root()), "rev-parse", "HEAD"),
             "edited": bool(_output("git", "-C", str(root()), "status", "--porcelain", "--", "lib", "params.yaml"))}
    if device.type == "cuda":
        properties, cudnn = torch.cuda.get_device_properties(device), torch.backends.cudnn
        found |= {"gpu": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda,
                  "processors": properties.multi_processor_count, "cudnn": cudnn.version(), "tf32": cudnn.allow_tf32,
                  "benchmark": cudnn.benchmark,
                  "clocks": _output("nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm,power.limit,driver_version",
                                    "--format=csv,noheader")}
    return found


def name(device: torch.device) -> str:
    """The name of a folder for this device: 'nvidia-h200', 'amd-epyc'."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    full = (torch.cuda.get_device_name(device) if device.type == "cuda" else
            _first(r"model name\s*: (.*)", text, platform.machine()))
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|\bcpu\b|@.*", "", full.lower())).strip("-") or device.type


def _first(pattern: str, text: str, otherwise: str) -> str:
    match = re.search(pattern, text)
    return match[1].strip() if match else otherwise


def _output(*command: str) -> str | None:
    """What a command prints, or None where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write(path: Path, content: dict) -> None:
    """The content as JSON: floats with six digits, null where a number is not finite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def plain(value):
    """Dictionaries, lists, text, numbers and None, of what `write` is given."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
