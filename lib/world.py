"""The processes of one training, each with its share of every batch: what they share, and what they agree on.

Alone, a process is all of the world, and nothing here does anything. Noise is drawn for the whole batch by every
process, and each takes its own rows: so an image meets the same noise however many processes there are.
"""

import warnings
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.params import ConfigError


def size() -> int:
    """How many processes train this network."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(batch_size: int) -> int:
    """How many images of a batch each process has. Raises ConfigError where they cannot share it alike."""
    if batch_size % size():
        raise ConfigError(f"{size()} processes cannot share a batch of {batch_size} alike: change train.batch_size or "
                          "compute.processes")
    return batch_size // size()


class Shared(torch.Generator):
    """A generator that all processes have alike; `rows`: how many images of a batch each of them has."""

    rows: int


def generator(seed: int, device: torch.device, batch_size: int) -> torch.Generator:
    """The generator of a training with batches of so many images: one for each process, all in the same state."""
    if size() == 1:
        return torch.Generator(device).manual_seed(seed)
    shared = Shared(device)
    shared.rows = share(batch_size)
    return shared.manual_seed(seed)


def part(whole: Tensor, generator: torch.Generator, dim: int = 0) -> Tensor:
    """This process's rows of what all draw alike for one batch, or for several views of it one after the other."""
    if not isinstance(generator, Shared):
        return whole
    views = whole.unflatten(dim, (-1, size(), generator.rows)).select(dim + 1, rank())
    return views.flatten(dim, dim + 1)


def draw(sample: Callable[[int], Tensor], rows: int, generator: torch.Generator, dim: int = 0) -> Tensor:
    """Random numbers for `rows` images. sample: draws for so many images, which lie along `dim`."""
    return part(sample(rows * (size() if isinstance(generator, Shared) else 1)), generator, dim)


def replicated(module: nn.Module) -> nn.Module:
    """The module with gradients averaged over the processes as they come (DistributedDataParallel).

    Its buffers are not broadcast: an objective with two forward passes before one backward would find BatchNorm's
    changed under it. They stay alike, since BatchNorm is `synchronised`.
    """
    if size() == 1:
        return module
    with warnings.catch_warnings():  # newer torch has another name for the argument
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(module, broadcast_buffers=False)


def average(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes its mean over the processes."""
    if size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= size()


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, of the same shape."""
    if size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def agreed(value):
    """What the first process has, in all of them: numbers, tensors, and lists and dictionaries of them."""
    if size() > 1:
        box = [value]
        dist.broadcast_object_list(box)
        value, = box
    return value


def gathered(found: list[Tensor], count: int) -> list[Tensor]:
    """All of `count` tensors, of which process r has every `size()`-th one from the r-th on, in order."""
    if size() == 1:
        return found
    every = [None] * size()
    dist.all_gather_object(every, [one.cpu() for one in found])
    return [every[i % size()][i // size()] for i in range(count)]


def synchronised(model: nn.Module) -> nn.Module:
    """The model with BatchNorm that normalises by the whole batch, not by this process's share of it.

    torch's SyncBatchNorm on a GPU; it refuses the CPU, where a plain one of the same arithmetic stands in.
    """
    if size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = OnCPU
    return model


class Sum(torch.autograd.Function):
    """`total` in a forward pass. Each process's loss reaches the summands of all, so gradients are summed too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """The sum over the processes."""
        return total(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """The sum of the gradients."""
        return total(gradient)


class OnCPU(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, without kernels of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H, W) -> normalised ones."""
        if not self.training:
            return super().forward(x)
        dtype, x = x.dtype, x.float()  # in low precision too, as torch's own
        mean = Sum.apply(x.mean((0, 2, 3))) / size()
        variance = Sum.apply((x - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))) / size()
        with torch.no_grad():
            n = size() * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (x * scale.view(1, -1, 1, 1) + (self.bias - mean * scale).view(1, -1, 1, 1)).to(dtype)
