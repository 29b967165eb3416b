"""The progress of a long computation, in a file that only the computation that wrote it can go on from."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def fingerprint(*parts) -> str:
    """A digest of tensors by shape and value, of dictionaries by their items, and of anything else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(part, dict):
            digest.update(fingerprint(*(piece for item in part.items() for piece in item)).encode())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\n")
    return digest.hexdigest()


class Progress:
    """Progress at `path` (None: kept nowhere) of the computation that `identity` names.

    identity: what `fingerprint` takes, all that decides the outcome. probe: numbers that the computation produces at
    its start, compared with a tolerance; they tell apart what no argument shows, such as another forward pass.
    """

    def __init__(self, path: str | Path | None, identity: tuple, probe: Tensor, log: Callable[[str], None]):
        self.path, self.log, self.full = Path(path) if path else None, log, False
        self.key, self.probe = fingerprint(*identity) if path else "", probe

    def load(self) -> dict:
        """What was saved last, on the device of the probe; empty if there is none of this computation."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            saved = torch.load(self.path, map_location=self.probe.device, weights_only=True)
            known = saved["key"] == self.key and torch.allclose(saved["probe"], self.probe, rtol=1e-3, atol=1e-3)
            content = saved["content"]
        except Exception as error:  # a broken file raises almost anything, and none of it matters
            self.log(f"{self.path} cannot be read ({type(error).__name__}): starting anew")
            return {}
        if not known:
            self.log(f"{self.path} is of another model, other images or other arguments: starting anew")
            return {}
        self.log(f"going on from {self.path}")
        return content

    def save(self, content: dict) -> None:
        """Keep `content`: tensors, numbers, text, and lists and dictionaries of them; the file is never cut short."""
        if self.path is None:
            return
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"key": self.key, "probe": self.probe, "content": content}, partial)
            os.replace(partial, self.path)
        except (OSError, RuntimeError) as error:  # torch says in a RuntimeError that the disk is full
            with suppress(OSError):
                partial.unlink()
            if not self.full:  # told once; it is tried again
                self.log(f"progress cannot be kept in {self.path.parent} ({(str(error).splitlines() or ['?'])[0]}): if "
                         "this is interrupted, it begins anew; free some space")
            self.full = True

    def remove(self) -> None:
        """The computation is done: its file goes, so that it is not taken for a result."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
