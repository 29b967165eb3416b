"""Notice what a student's code changed that is not its own: functions of modules, and what the chapter has made."""

import builtins
import hashlib
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType

WATCHED = ("builtins", "math", "operator", "random", "copy", "functools", "itertools", "statistics", "inspect", "torch",
           "torch.nn", "torch.nn.functional", "torch.autograd", "torch.linalg", "torch.testing", "torch.optim",
           "torch._C", "torch.nn.modules.module", "numpy", "numpy.linalg", "numpy.random", "numpy.testing", "pandas")


def watch(names: dict) -> tuple[Callable[[], list[str]], Callable[[], list[str]]]:
    """Look now at the chapter's names; returns two functions that say later what differs, the first by name.

    The first tells functions and classes of modules and of the chapter that were replaced, given other code or hidden
    by a new name, and methods of their classes. Modules: those in `names`, all of lib, and WATCHED. The second tells
    arrays, tensors and networks among `names` that hold other values. What hides inside other objects is not seen.
    """
    # Everything below is kept in local names: code that replaces functions of this module changes nothing.
    modules = {value for value in names.values() if isinstance(value, ModuleType)}
    modules |= {m for n, m in list(sys.modules.items()) if n.split(".")[0] == "lib" or n in WATCHED}
    places = [(module.__name__, vars(module), set(vars(builtins))) for module in modules] + [("", names, set())]
    kinds = {id(value): value for _, place, _ in places for value in list(place.values()) if isinstance(value, type)}
    places += [(f"{kind.__module__}.{kind.__name__}", vars(kind), set().union(*map(vars, kind.__mro__[1:])))
               for kind in kinds.values()]
    kept = [(label, place, {key: value for key, value in place.items() if _is_code(value)}, hideable - set(place))
            for label, place, hideable in places]
    functions = {id(f): (f"{label}.{key}".lstrip("."), f, f.__code__, f.__defaults__, dict(f.__kwdefaults__ or {}))
                 for label, _, held, _ in kept for key, f in held.items() if isinstance(f, FunctionType)}
    prints = {name: (value, print_) for name, value in names.items() if (print_ := _fingerprint(value)) is not None}
    fingerprint = _fingerprint

    def code() -> list[str]:
        """What of code differs."""
        found = [f"{label}.{key}" for label, place, held, hideable in kept if label
                 for key in [*(key for key, value in held.items() if place.get(key) is not value),
                             *(key for key in place if key in hideable)]]
        return found + [label for label, f, body, defaults, words in functions.values() if f.__code__ is not body
                        or f.__defaults__ is not defaults or (f.__kwdefaults__ or {}) != words]

    def values() -> list[str]:
        """What of values differs."""
        return [name for name, (value, before) in prints.items() if fingerprint(value) != before]

    return code, values


def _is_code(value) -> bool:
    """Whether it is something that tests could call."""
    return isinstance(value, FunctionType | BuiltinFunctionType | type) or (
        callable(value) or hasattr(type(value), "__get__")) and not isinstance(value, ModuleType)


def _fingerprint(value, md5=hashlib.md5):
    """What an array, tensor or network holds, in few bytes; None for anything else, such as tensors without values."""
    torch, np = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch and isinstance(value, torch.nn.Module):
        inside = [(name, sorted(vars(part)), part.training, len(part._forward_hooks), len(part._forward_pre_hooks))
                  for name, part in value.named_modules()]
        return repr(inside), *(_fingerprint(tensor) for tensor in value.state_dict().values())
    if torch and isinstance(value, torch.Tensor):
        if value.is_meta or value.is_sparse or value.dtype == torch.bfloat16:
            return None
        value = value.detach().cpu().resolve_conj().contiguous().numpy()
    if np and isinstance(value, np.ndarray) and value.dtype != object:
        return value.shape, str(value.dtype), md5(np.ascontiguousarray(value).tobytes()).hexdigest()
    return None
