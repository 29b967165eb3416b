"""Where tensors live, and what makes a run repeatable."""

import torch

from lib.config import Compute
from lib.params import ConfigError, known


def device(compute: Compute) -> torch.device:
    """The device that `compute` asks for, after setting torch's threads and its deterministic algorithms.

    On one CPU thread a run gives the same bits each time. Raises ConfigError where cuda is asked for and absent.
    """
    known("device", compute.device, ("auto", "cpu", "cuda"))
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device is cuda, but torch sees no GPU here: use auto or cpu")
    torch.set_num_threads(compute.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    use_cuda = compute.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts from `seed`."""
    return torch.Generator(device).manual_seed(seed)
