"""Notice what a student's code changed that is not its own: functions of modules, and what the chapter has made."""

import hashlib
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType

WATCHED = ("builtins", "math", "operator", "random", "copy", "functools", "itertools", "statistics", "inspect", "torch",
           "torch.nn", "torch.nn.functional", "torch.autograd", "torch.linalg", "torch.testing", "torch.optim",
           "torch._C", "torch.nn.modules.module", "numpy", "numpy.linalg", "numpy.random", "numpy.testing", "pandas")


def watch(names: dict) -> tuple[Callable[[], list[str]], Callable[[], list[str]]]:
    """Look now at the chapter's names; returns two functions that say later what differs, the first by name.

    The first tells functions and classes of modules and of the chapter that were replaced or given other code, and
    methods of their classes. Modules: those in `names`, all of lib, and WATCHED. The second tells arrays, tensors and
    networks among `names` that hold other values. What hides inside other objects is not seen.
    """
    # Everything below is kept in local names: a student's code that replaces functions of this module changes nothing.
    modules = {value for value in names.values() if isinstance(value, ModuleType)}
    modules |= {m for n, m in list(sys.modules.items()) if n.split(".")[0] == "lib" or n in WATCHED}
    places = [(module.__name__, vars(module)) for module in modules] + [("", names)]
    classes = {id(value): value for _, place in places for value in list(place.values()) if isinstance(value, type)}
    places += [(f"{kind.__module__}.{kind.__name__}", vars(kind)) for kind in classes.values()]
    kept = [(label, place, {key: value for key, value in place.items() if _is_code(value)}) for label, place in places]
    functions = {id(f): (label, key, f, f.__code__, f.__defaults__, dict(f.__kwdefaults__ or {}))
                 for label, _, held in kept for key, f in held.items() if isinstance(f, FunctionType)}
    prints = {name: (value, print_) for name, value in names.items() if (print_ := _fingerprint(value)) is not None}
    fingerprint = _fingerprint

    def code() -> list[str]:
        found = [f"{label}.{key}".lstrip(".") for label, place, held in kept if label for key, value in held.items()
                 if place.get(key) is not value]
        found += [f"{label}.{key}".lstrip(".") for label, key, f, body, defaults, words in functions.values()
                  if f.__code__ is not body or f.__defaults__ is not defaults or (f.__kwdefaults__ or {}) != words]
        return found

    def values() -> list[str]:
        return [name for name, (value, before) in prints.items() if fingerprint(value) != before]

    return code, values


def _is_code(value) -> bool:
    """Whether it is something that tests could call."""
    return isinstance(value, FunctionType | BuiltinFunctionType | type) or (
        callable(value) or hasattr(type(value), "__get__")) and not isinstance(value, ModuleType)


def _fingerprint(value, md5=hashlib.md5):
    """What an array, tensor or network holds, in few bytes; None for anything else."""
    import numpy as np
    import torch

    if isinstance(value, torch.nn.Module):
        inside = [(name, sorted(vars(part)), part.training, len(part._forward_hooks), len(part._forward_pre_hooks))
                  for name, part in value.named_modules()]
        return repr(inside), *(_fingerprint(tensor) for tensor in value.state_dict().values())
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().contiguous().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.shape, str(value.dtype), md5(np.ascontiguousarray(value).tobytes()).hexdigest()
    return None
