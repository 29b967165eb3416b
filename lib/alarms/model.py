"""Is the model what an attack takes it for? Eval mode, float32, frozen; fixed; one image at a time; logits."""

from collections.abc import Iterator

import torch
from torch import nn

from lib import attacks
from lib.alarms.alarm import Alarm, judge, unjudged
from lib.alarms.runs import Case

SMALL, LARGE = 7, 60  # images of a batch alone, and of the batch around them
REPEATS = 5
TOLERANCE = 1e-4      # of logits, in units of their scale: float32 sums in another order differ by about 1e-6


def state(case: Case) -> Alarm:
    """Check 2: during an attack all modules are in eval mode, frozen and float32; afterwards all is as before.

    value: how many things are wrong; the note names some.
    """
    model, before, wrong = case.model, _state(case.model), {}

    def probe(logits, y):
        """Cross-entropy that looks around while the attack runs."""
        wrong.update(dict.fromkeys(_unready(model)))
        if logits.dtype != torch.float32:
            wrong[f"logits are {logits.dtype}"] = None
        return attacks.cross_entropy(logits, y)

    attacks.pgd(model, case.x, case.y, threat=case.threat, steps=2, step_size=0.5, loss=probe,
                generator=case.generator())
    after = _state(model)
    wrong.update({f"{key} changed": None for key in before | after
                  if not _same(before.get(key), after.get(key))})
    return judge("state", len(wrong), 0, "; ".join(list(wrong)[:3]))


def _state(model: nn.Module) -> dict:
    """Weights and buffers (clones), gradients, and the mode of each module and parameter."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for name, parameter in model.named_parameters():
        found[f"requires_grad of {name}"] = parameter.requires_grad
        found[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
    return found | {f"mode of {name or 'the model'}": module.training for name, module in model.named_modules()}


def _same(before, after) -> bool:
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return torch.equal(before, after)
    return type(before) is type(after) and before == after


def _unready(model: nn.Module) -> Iterator[str]:
    """What an attack should not find in a model."""
    for name, module in model.named_modules():
        if module.training:
            yield f"{name or 'the model'} is in train mode"
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.requires_grad:
            yield f"{name} is not frozen"
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            yield f"{name} is {tensor.dtype}"


def fixed(case: Case) -> list[Alarm]:
    """Checks 4 and 3: the same batch gives the same logits, and the first images alone as in a larger batch.

    value: largest difference of a logit, divided by the standard deviation of all logits.
    """
    logits = case.model(case.x)
    scale = logits.std().clamp_min(1e-12)
    repeats = [_difference(logits, case.model(case.x), scale) for _ in range(REPEATS - 1)]
    found = [judge("determinism", max(repeats), TOLERANCE, f"{REPEATS} calls")]
    if not found[0].passed:
        return [*found, unjudged("batch", "the logits are random")]
    if len(case.y) <= SMALL:
        return [*found, unjudged("batch", f"needs more than {SMALL} images")]
    together, alone = case.model(case.x[:LARGE])[:SMALL], case.model(case.x[:SMALL])
    note = f"{SMALL} images alone and among {min(LARGE, len(case.y))}"
    return [*found, judge("batch", _difference(together, alone, scale), TOLERANCE, note)]


def _difference(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> float:
    return ((a - b).abs().max() / scale).item()


def outputs(case: Case, classes: int | None) -> list[Alarm]:
    """Check 5: the outputs are logits (value: share of images whose outputs are a distribution), one a class.

    classes: their number; None asks only that there is an output for every label.
    """
    logits = case.model(case.x)
    distribution = ((logits >= 0) & (logits <= 1)).all(1) & ((logits.sum(1) - 1).abs() < 1e-4)
    given, largest = logits.shape[1], int(case.y.max()) + 1
    missing = abs(given - classes) if classes else max(0, largest - given)
    note = f"{given} outputs, " + (f"{classes} classes" if classes else f"labels up to {largest - 1}")
    return [judge("logits", distribution.float().mean().item(), 0), judge("classes", missing, 0, note)]
