"""The least time that a training step can take: its operations, at the rate of the fastest matrix product.

The operations are those of convolutions and matrix products, as many as the passes of the step are worth, by direct
convolution: an algorithm such as Winograd's, which takes fewer, may be below this floor. What the floor leaves out,
memory traffic and elementwise work, is on a fast device about as much again.
"""

import time
from collections.abc import Sequence

import torch

SIZES = {"cuda": (4096, 8192, 16384), "cpu": (512, 1024, 2048)}


def rate(precision: str, device: torch.device, sizes: Sequence[int] = (), repeats: int = 5) -> dict[str, float]:
    """The fastest square matrix product: its `rate` in operations a second, and its `size`.

    precision: float32, bfloat16, or tf32, float32 as a GPU's tensor cores round it. An operation is a multiplication or
    an addition: a product of n x n matrices takes 2 n^3. sizes: those tried, by default `SIZES` of the device. repeats:
    of each size, of which the fastest counts.
    """
    found, before = {}, torch.get_float32_matmul_precision()
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        for n in sizes or SIZES[device.type]:
            a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            found[n] = 2 * n**3 / min(_product(a, b, device) for _ in range(repeats + 1))
    finally:
        torch.set_float32_matmul_precision(before)
    size = max(found, key=found.get)
    return {"rate": found[size], "size": size}


def _product(a: torch.Tensor, b: torch.Tensor, device: torch.device) -> float:
    """Seconds of one product."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    torch.mm(a, b)
    wait()
    return time.perf_counter() - began


def seconds(equivalents: int, flops: int, rate: float) -> float:
    """The floor of a step of so many forward-equivalents, in which a forward pass of the batch takes `flops`."""
    return equivalents * flops / rate


def utilisation(floor: float, measured: float) -> float:
    """Model-FLOP utilisation (MFU): the floor as a share of the seconds that were measured."""
    return floor / measured
