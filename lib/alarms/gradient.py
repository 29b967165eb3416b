"""Does the gradient reach the image? Zero, infinite and huge gradients, and the layer where they vanish."""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks
from lib.alarms.alarm import Alarm, judge
from lib.alarms.runs import Case

ZERO_CE, ZERO_MARGIN = 0.05, 0.01  # share of images; the margin is linear in the logits and never saturates
WATCH = 0.01                       # a share of the cross-entropy's that is worth a word
HUGE = 1e6                         # Euclidean norm of the gradient at one image (ours)


def gradients(case: Case) -> list[Alarm]:
    """Check 7, at the images and at a random start: the larger share of images whose gradient is zero in every
    pixel, for the cross-entropy and for the margin, and the share with a gradient that is not finite or huge.
    """
    start = attacks.noise(case.model, case.x, case.y, threat=case.threat, generator=case.generator())
    found, wild = [], 0.0
    for name, loss, limit in (("zero-gradient-ce", attacks.cross_entropy, ZERO_CE),
                              ("zero-gradient-margin", attacks.margin, ZERO_MARGIN)):
        both = [input_gradient(case.model, at, case.y, loss) for at in (case.x, start)]
        share = max(zero_share(gradient) for gradient in both)
        note = f"above {WATCH:.0%}: keep an eye on it" if share > WATCH else ""
        if share > limit:
            note = "lost " + where_lost(by_layer(case.model, case.x, case.y, loss), limit)
        found.append(judge(name, share, limit, note))
        wild = max(wild, *(wild_share(gradient) for gradient in both))
    return [*found, judge("finite-gradient", wild, 0, f"norm above {HUGE:g} counts")]


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: attacks.Loss) -> Tensor:
    """Gradient of the loss of each image with respect to that image: (N, C, H, W); zero where there is no path."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = loss(model(x), y).sum()
        if not total.requires_grad:
            return torch.zeros_like(x)
        gradient, = torch.autograd.grad(total, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient


def zero_share(gradient: Tensor) -> float:
    """Share of the rows of (N, ...) that are zero everywhere."""
    return (gradient.flatten(1) == 0).all(1).float().mean().item()


def wild_share(gradient: Tensor) -> float:
    """Share of the rows of (N, ...) that hold an infinity or NaN, or have a norm above `HUGE`."""
    return (~(gradient.flatten(1).norm(dim=1) <= HUGE)).float().mean().item()


def by_layer(model: nn.Module, x: Tensor, y: Tensor, loss: attacks.Loss = attacks.cross_entropy) -> pd.DataFrame:
    """Where the gradient vanishes: a row for each call of a layer without children, in the order of the forward pass.

    x: (N, C, H, W), y: (N,). Columns layer, type, at_input and at_output: share of images whose gradient with
    respect to the layer's input or output is zero everywhere; 1 where no gradient arrives at all.
    """
    rows = []
    with attacks.under_attack(model), _watched(model, rows):
        input_gradient(model, x, y, loss)
    return pd.DataFrame(rows, columns=["layer", "type", "at_input", "at_output"])


@contextmanager
def _watched(model: nn.Module, rows: list[dict]) -> Iterator[None]:
    """Hooks on every layer without children that append to `rows`, and fill them in the backward pass."""
    def watch(tensor, row, side):
        """Note the gradient that arrives at a tensor; a hook of the tensor bears layers that work in place."""
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            tensor.register_hook(lambda gradient: row.update({side: zero_share(gradient)}))

    def enter(name):
        """A hook before the layer called `name`."""
        def hook(layer, inputs):
            """Begin a row."""
            rows.append({"layer": name, "type": type(layer).__name__, "at_input": 1.0, "at_output": 1.0})
            watch(inputs[0] if inputs else None, rows[-1], "at_input")
        return hook

    def leave(layer, inputs, output):
        """Layers without children do not nest, so the last row is this layer's."""
        watch(output, rows[-1], "at_output")

    hooks = []
    for name, layer in model.named_modules():
        if not any(layer.children()):
            hooks += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def where_lost(report: pd.DataFrame, limit: float) -> str:
    """The place, in words, where walking back from the loss the share of zero gradients first exceeds the limit."""
    behind = None
    for row in report.iloc[::-1].itertuples():
        this = f"{row.layer or 'the model'} ({row.type})"
        if row.at_output > limit:
            return f"between {this} and {behind}" if behind else f"after {this}: in the last operations or the loss"
        if row.at_input > limit:
            return f"in {this}"
        behind = this
    return f"before {behind}" if behind else "in a model without layers"
