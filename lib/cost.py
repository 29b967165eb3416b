"""What a training step costs: passes through the network, counted on the step itself, and seconds.

In forward-equivalents a forward pass counts 1, the gradient of the input alone 1, and a backward pass that reaches the
weights 2, since it computes the gradients of the layers' inputs and of their weights. So PGD training with K steps
takes 2K + 3, and AWP 3 more: of 10 steps, 3 in 23. The code of AWP's authors computes gradients of the weights in its
PGD too: by our count 35 for a step of theirs, so 3 in 35, or 8.6 %; in their logs an epoch takes 8 to 11 % longer.

An activation adds no pass: it makes each dearer. What a pass costs is in `parameters` and `flops`, and in the seconds.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib import attacks, compute, methods, train
from lib.config import Config
from lib.data import Dataset

LATE = 1 - 1e-6  # the share of training that is done: past every warm-up but one of all of training


@dataclass(frozen=True)
class Passes:
    """Passes through the network in one training step: forward, and backward to the image alone or to the weights.

    One of more images than the batch has, as of two views or of x and x' together, counts as so many.
    """

    forward: int = 0
    image: int = 0
    weights: int = 0

    @property
    def equivalents(self) -> int:
        """The work in units of a forward pass."""
        return self.forward + self.image + 2 * self.weights


def passes(config: Config, dataset: Dataset, device: torch.device) -> Passes:
    """Counts the passes of one step of `config.method`, on a batch of training images, late in training."""
    step, model = _stepper(config, dataset, device)
    step(0.0)  # what add-ons gather in the first epoch is there
    with counted(model, min(config.train.batch_size, len(dataset.train))) as counts:
        step(LATE)
    return Passes(**counts)


def _stepper(config: Config, dataset: Dataset, device: torch.device) -> tuple[Callable[[float], None], nn.Module]:
    """A function of the share of training that is done, which takes one step of it, and the model that it trains."""
    images = dataset.train.first(config.train.batch_size)
    known = [name for name in config.train.augment if name in images.augmentations]  # of images in memory
    config = replace(config, train=replace(config.train, augment=known))
    method = methods.build(config)
    model, generator = train.initial(config, method, dataset, device), compute.generator(config.seed, device)
    optimizer, scheduler = train.optimizer_and_schedule(config, model, total=1_000_000)  # its lr hardly moves
    return lambda done: train.train_epoch(config, method, model, images, optimizer, scheduler, generator, done), model


@contextmanager
def counted(model: nn.Module, batch: int):
    """Counts passes of `batch` images while it is open, at the network's first convolution, which all images go
    through: forward, and backward, of which kind, where its gradients come: for its weight, or only for what goes
    into it.
    """
    counts = {"forward": 0, "image": 0, "weights": 0}

    def forward(module, arguments, output):
        """A forward pass; watches for the way back."""
        counts["forward"] += len(output) // batch
        if output.grad_fn is not None:
            output.grad_fn.register_hook(partial(backward, len(output) // batch))

    def backward(passes, gradients, outputs):
        """A backward pass: gradients of the convolution's input, weight and bias, None where they are not computed."""
        counts["weights" if gradients[1] is not None else "image"] += passes

    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    hook = convolution.register_forward_hook(forward)
    try:
        yield counts
    finally:
        hook.remove()


def seconds(configs: Sequence[Config], dataset: Dataset, device: torch.device, repeats: int = 30) -> np.ndarray:
    """Seconds of single training steps, late in training: (methods, repeats).

    Each round takes one step of every method, so that what else the machine does disturbs all alike. Each step ends
    with its loss on the CPU, and on a GPU the device is synchronised before it and after it.
    """
    steps = [_stepper(config, dataset, device)[0] for config in configs]
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for done in (0.0, LATE, LATE):  # libraries choose their kernels in the first steps
        for step in steps:
            step(done)
    found = np.empty((len(steps), repeats))
    for turn in range(repeats):
        for row, step in enumerate(steps):
            wait()
            began = time.perf_counter()
            step(LATE)
            wait()
            found[row, turn] = time.perf_counter() - began
    return found


def parameters(model: nn.Module) -> int:
    """How many parameters the model has, fixed ones too."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating point operations of one forward pass of one image of this shape, in eval mode, by torch's counter.

    Those of convolutions and matrix products, two for a multiplication and its addition. Elementwise work, in which
    many activations do all of theirs, poolings and BatchNorm are not in it.
    """
    counter, device = FlopCounterMode(display=False), next(model.parameters()).device
    with attacks.under_attack(model), torch.no_grad(), counter:
        model(torch.zeros(1, *shape, device=device))
    return counter.get_total_flops()


def base(spec: str) -> str:
    """The spec without its add-ons: what an overhead is over."""
    return spec.split("+")[0]


def table(config: Config, specs: Sequence[str], dataset: Dataset, device: torch.device,
          repeats: int = 30) -> pd.DataFrame:
    """One row for each spec, and for the objective of each: what a training step costs.

    Columns: method; forward, backward_image, backward_weights and equivalents, as in `Passes`; predicted, the share of
    forward-equivalents over the objective's; ms, the median of a step, with _low and _high (quartiles); measured, the
    same share of seconds, the median over rounds of `seconds`, with _low and _high (quartiles), nan for an objective;
    parameters and flops, as in the functions of these names, of the network that is trained.
    """
    every = list(dict.fromkeys(name for spec in specs for name in (base(spec), spec)))
    runs = [replace(config, method=spec) for spec in every]
    counts = {spec: passes(run, dataset, device) for spec, run in zip(every, runs, strict=True)}
    times = dict(zip(every, seconds(runs, dataset, device, repeats), strict=True))
    rows = []
    for spec, run in zip(every, runs, strict=True):
        count, alone = counts[spec], base(spec) == spec
        more = np.full(repeats, np.nan) if alone else times[spec] / times[base(spec)] - 1
        row = {"method": spec, "forward": count.forward, "backward_image": count.image,
               "backward_weights": count.weights, "equivalents": count.equivalents,
               "predicted": np.nan if alone else count.equivalents / counts[base(spec)].equivalents - 1}
        for name, values in (("ms", 1000 * times[spec]), ("measured", more)):
            row |= dict(zip((f"{name}_low", name, f"{name}_high"), np.quantile(values, [0.25, 0.5, 0.75]), strict=True))
        model = train.initial(run, methods.build(run), dataset, device)
        row |= {"parameters": parameters(model), "flops": flops(model, dataset.shape)}
        rows.append(row)
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> str:
    """`table` as text, with quartiles in brackets, `equivalents` in forward passes and flops in millions; and a line on
    what these are.
    """
    def share(value: float) -> str:
        """An overhead in percent."""
        return "" if np.isnan(value) else f"{value:+.0%}"

    text = table[["method", "forward", "backward_image", "backward_weights", "equivalents"]].copy()
    text["predicted"] = [share(v) for v in table.predicted]
    text["ms a step"] = [f"{m:.1f} [{a:.1f}, {b:.1f}]" for a, m, b in zip(table.ms_low, table.ms, table.ms_high,
                                                                          strict=True)]
    text["measured"] = [share(m) and f"{share(m)} [{share(a)}, {share(b)}]" for a, m, b in zip(
        table.measured_low, table.measured, table.measured_high, strict=True)]
    text["parameters"] = [f"{count:,}" for count in table.parameters]
    text["Mflop"] = [f"{count / 1e6:,.2f}" for count in table.flops]
    text.columns = [name.replace("_", " ") for name in text.columns]
    return (text.to_string(index=False) + "\nMflop: millions of operations of a forward pass of one image, in "
            "convolutions and matrix products; elementwise work is not in it")
