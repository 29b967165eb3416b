"""AutoAttack (Croce and Hein 2020), the reference code: APGD-CE, targeted APGD, targeted FAB and Square, in turn.

The attacks are those of the package pyautoattack, and its numbers of steps, restarts and queries; nothing of them is
here. This module hands it a copy of the model that cannot go wrong, images that are what they should be, and as many
target classes as there are. It feeds one batch at a time, so that a run can be interrupted (the package seeds every
batch anew, so the result is the same; its own resume file cannot be read back in 0.2.0), and it scores what it gets.
"""

import copy
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.config import Threat
from lib.params import ConfigError, known
from lib.progress import Progress

PACKAGE, TESTED = "pyautoattack", "0.2.0"
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
TARGETS = 9                              # target classes of APGD-T and FAB-T, where there are as many
TOLERANCE = {"Linf": 1e-6, "L2": 1e-5}   # of the radius, for rounding
SQUARE_GAIN = 0.002                      # AutoAttack distrusts a result that Square still lowers by more
SAVE_EVERY = 60.0                        # seconds between two states within an attack


@dataclass(frozen=True)
class Result:
    """What AutoAttack found. An image that was never fooled, or was wrong from the start, is unchanged in x_adv.

    x_adv: (N, C, H, W) float32; robust: (N,) bool, whether the model, scored anew in float32, is right on x_adv.
    counts: images still right at first ('clean') and after each attack, by AutoAttack's own count; seconds: of each
    attack; flags: reasons to doubt the result, AutoAttack's warnings and ours; version: of pyautoattack.
    """

    x_adv: Tensor
    robust: Tensor
    counts: dict[str, int]
    flags: list[str]
    seconds: dict[str, float]
    version: str


def standard(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, seed: int, log: Callable[[str], None] = print,
             state_path: str | Path | None = None, batch_size: int = 500,
             attacks: Collection[str] | None = None) -> Result:
    """AutoAttack's standard version against a float32 copy of the model in eval mode, on the device of x.

    x: (N, C, H, W) in [0, 1]; y: (N,), the labels; attacks: run only these of STANDARD. With fewer than four classes
    the standard version goes without APGD-T, and says so in the flags. state_path: a file that keeps the progress
    until the run is done; a run that was cut off goes on from there, if all of its arguments are the same.
    Raises ConfigError for arguments that cannot be right, RuntimeError if x_adv leaves the threat model.
    """
    package = _package()
    x, y = _checked(x, y, threat, batch_size)
    network = copy.deepcopy(model).to(x.device).float().eval().requires_grad_(False)
    logits = _logits(network, x, batch_size)
    if y.min() < 0 or y.max() >= logits.shape[1]:
        raise ConfigError(f"labels from {y.min()} to {y.max()}, but the model has {logits.shape[1]} classes")
    names, flags = _plan(attacks, logits.shape[1])
    flags += _doubts(network, x, logits)
    run = {"x_adv": x.clone(), "robust": logits.argmax(1) == y, "flags": flags, "seconds": {}, "todo": None, "done": 0}
    run["counts"] = {"clean": int(run["robust"].sum())}
    state = Progress(state_path, (network.state_dict(), x, y, threat, seed, batch_size, names), logits[:8], log)
    run.update(state.load())
    log(f"AutoAttack ({PACKAGE} {version(PACKAGE)}), {threat.norm} {threat.eps:g}: {', '.join(names)}; "
        f"{run['counts']['clean']} of {len(x)} images right when clean")
    reference = _reference(package, network, threat, seed, logits.shape[1], x.device)
    for name in names:
        if name not in run["counts"]:
            _attack(reference, name, run, x, y, batch_size, log, lambda: state.save(run))
    result = _result(network, run, x, y, threat, batch_size, log)
    state.remove()
    return result


def _package():
    """The package, or a ConfigError that says how to get it."""
    try:
        import pyautoattack.checks
    except ImportError as error:
        raise ConfigError(f"AutoAttack is not installed: pip install {PACKAGE}=={TESTED}") from error
    return pyautoattack


def _checked(x: Tensor, y: Tensor, threat: Threat, batch_size: int) -> tuple[Tensor, Tensor]:
    """Images as float32 and labels as int64 on the images' device, if they and the radius can be right."""
    if x.ndim != 4 or not len(x) or not x.is_floating_point():
        raise ConfigError(f"images {tuple(x.shape)} of {x.dtype}: AutoAttack needs floats of shape (N, C, H, W), N > 0")
    if y.shape != x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        raise ConfigError(f"labels {tuple(y.shape)} of {y.dtype}: AutoAttack needs {len(x)} integers")
    if x.isnan().any():
        raise ConfigError(f"{int(x.isnan().flatten(1).any(1).sum())} images contain NaN")
    if x.min() < 0 or x.max() > 1:
        raise ConfigError(f"images from {x.min():g} to {x.max():g}: AutoAttack needs them in [0, 1], not normalised")
    widest = 1 if threat.norm == "Linf" else math.sqrt(x[0].numel())
    if not 0 < threat.eps <= widest:
        raise ConfigError(f"radius {threat.eps:g} in {threat.norm}: in [0, 1] it is above 0 and at most {widest:.4g}; "
                          "8 of 255 grey levels are 8/255")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}: at least 1")
    return x.detach().float(), y.to(x.device, torch.int64)


def _plan(asked: Collection[str] | None, classes: int) -> tuple[list[str], list[str]]:
    """The attacks to run, in AutoAttack's order, and a flag if the standard version had to do without one."""
    for name in asked or ():
        known("attack", name, STANDARD, "AutoAttack")
    names = [name for name in STANDARD if asked is None or name in asked]
    if not names or classes < 2:
        raise ConfigError(f"AutoAttack needs an attack and two classes; here are {len(names)} and {classes}")
    if classes >= 4 or "apgd-t" not in names:
        return names, []
    reason = f"apgd-t needs 4 classes for its targeted DLR loss and the model has {classes}"
    if asked is not None:
        raise ConfigError(f"{reason}: leave it out of attacks")
    return [name for name in names if name != "apgd-t"], [f"not the standard version: {reason}, so it was left out"]


def _doubts(network: nn.Module, x: Tensor, logits: Tensor) -> list[str]:
    """Flags before the attack: another version of the package; logits of an image that depend on its batch."""
    flags = []
    if version(PACKAGE) != TESTED:
        flags.append(f"{PACKAGE} is {version(PACKAGE)}; {TESTED} was tested")
    alone = torch.cat([_logits(network, image[None], 1) for image in x[:4]])
    if not torch.allclose(alone, logits[:4], rtol=1e-3, atol=1e-3):
        flags.append("an image's logits change with the rest of its batch, or from call to call")
    return flags


@torch.no_grad()
def _logits(network: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Logits (N, C) in float32, batch by batch, if they are such."""
    with torch.autocast(x.device.type, enabled=False):
        logits = torch.cat([network(batch) for batch in x.split(batch_size)])
    if logits.ndim != 2 or len(logits) != len(x) or logits.isnan().any():
        raise ConfigError(f"the model returns {tuple(logits.shape)} for {len(x)} images, or NaN; "
                          "AutoAttack needs logits (N, C)")
    return logits


def _reference(package, network: nn.Module, threat: Threat, seed: int, classes: int, device: torch.device):
    """AutoAttack as the package sets it up, with no more target classes than there are."""
    reference = package.AutoAttack(network, norm=threat.norm, eps=threat.eps, seed=seed, device=device)
    reference.apgd_targeted.n_target_classes = reference.fab.n_target_classes = min(TARGETS, classes - 1)
    reference.verbose = False  # its progress: ours names the attack and the batch
    return reference


def _attack(reference, name: str, run: dict, x: Tensor, y: Tensor, batch_size: int, log: Callable[[str], None],
            save: Callable[[], None]) -> None:
    """One attack on all images that are still right; its outcome is written into `run`, which is saved now and then."""
    if run["todo"] is None:
        run.update(todo=run["robust"].nonzero().squeeze(1), done=0)
    saved = time.monotonic()
    reference.attacks_to_run = [name]
    while run["done"] < len(run["todo"]):
        begun, batch = time.monotonic(), run["todo"][run["done"]:run["done"] + batch_size]
        with _contained(x.device) as warned:
            run["x_adv"][batch], labels = reference.run_standard_evaluation(x[batch], y[batch], batch_size=len(batch))
        run["robust"][batch] = labels == y[batch]
        run["done"] += len(batch)
        run["seconds"][name] = run["seconds"].get(name, 0.0) + time.monotonic() - begun
        for flag in _new(warned, run["flags"]):
            run["flags"].append(flag)
            log(f"AutoAttack warns: {flag}")
        if time.monotonic() - saved >= SAVE_EVERY:
            save()
            saved = time.monotonic()
        if len(run["todo"]) > batch_size:
            log(f"AutoAttack {name}, {run['done']} of {len(run['todo'])} images: {int(run['robust'].sum())} right")
    run["counts"][name], run["todo"] = int(run["robust"].sum()), None
    save()
    log(f"AutoAttack {name}: {run['counts'][name]} of {len(x)} images right ({run['seconds'].get(name, 0):.0f} s)")


@contextmanager
def _contained(device: torch.device) -> Iterator[list[str]]:
    """What the package does to its process is undone: torch's global seeds, the trace function of a debugger or of
    coverage, its count of suspicious calls. The caller's autocast does not reach it. Yields a list that receives the
    warnings of its logger.
    """
    from pyautoattack import checks
    warned, logger, trace = [], logging.getLogger("auto-attack"), sys.gettrace()
    handler, before = logging.Handler(logging.WARNING), (logger.level, logger.propagate)
    handler.emit = lambda record: warned.append(record.getMessage())
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), torch.autocast(device.type, enabled=False):
            yield warned
    finally:
        sys.settrace(trace)
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _new(warned: list[str], flags: list[str]) -> list[str]:
    """The warnings whose kind, their numbers aside, is not among the flags."""
    kinds, new = {re.sub(r"\d+", "", flag) for flag in flags}, []
    for text in (message.split(" See flags_doc")[0] for message in warned):
        if re.sub(r"\d+", "", text) not in kinds:
            kinds.add(re.sub(r"\d+", "", text))
            new.append(text)
    return new


def _result(network: nn.Module, run: dict, x: Tensor, y: Tensor, threat: Threat, batch_size: int,
            log: Callable[[str], None]) -> Result:
    """x_adv checked and scored, with the flags that only the outcome can raise."""
    delta, x_adv, counts, flags = (run["x_adv"] - x).flatten(1), run["x_adv"], run["counts"], list(run["flags"])
    radius = (delta.abs().amax(1) if threat.norm == "Linf" else delta.norm(dim=1)).max().item()
    if not (radius <= threat.eps + TOLERANCE[threat.norm] and x_adv.min() >= 0 and x_adv.max() <= 1):
        raise RuntimeError(f"AutoAttack left the threat model: radius {radius:g} of {threat.eps:g}, "
                           f"images from {x_adv.min():g} to {x_adv.max():g}")
    robust = _logits(network, x_adv, batch_size).argmax(1) == y
    differ = int((robust != run["robust"]).sum())
    if differ:
        flags.append(f"scored anew, {int(robust.sum())} of {len(x)} images are right, by AutoAttack's own count "
                     f"{int(run['robust'].sum())}; {differ} differ")
    before = [n for name, n in counts.items() if name != "square"]
    if "square" in counts and len(before) > 1 and min(before) - counts["square"] > SQUARE_GAIN * len(x):
        flags.append(f"Square, which needs no gradient, still fooled {min(before) - counts['square']} images: "
                     "the gradients may mislead the other attacks")
    for flag in flags[len(run["flags"]):]:
        log(f"AutoAttack warns: {flag}")
    return Result(x_adv, robust, counts, flags, run["seconds"], version(PACKAGE))
