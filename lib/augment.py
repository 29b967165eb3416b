"""Random changes of training images, made on the device, each image of a batch with its own.

An augmentation is a function of (x, generator): x float32 (N, C, H, W) in [0, 1], the generator on the same device
and the only source of randomness. It returns images of the same shape and range.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import world


def crop(x: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Each image, padded with zeros by `pad` pixels, cut out again at a random place.

    Zeros as in TRADES-AWP; the AWP authors' CIFAR-10 script pads with reflected pixels.
    """
    n, _, height, width = x.shape
    top, left = world.draw(lambda n: torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator, device=x.device),
                           n, generator, dim=1)
    rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    index = torch.arange(n, device=x.device)[:, None, None]
    return padded[index, rows[:, 0], columns[:, 0]].permute(0, 3, 1, 2)


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability one half."""
    mirrored = _uniform(x, generator) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def rotate(x: Tensor, generator: torch.Generator, degrees: float = 15.0) -> Tensor:
    """Each image turned about its middle by an angle from [-degrees, degrees]; what comes into view is black.

    15 degrees and the nearest pixel as in AWP's CIFAR-100 script (torchvision's RandomRotation).
    """
    angle = (_uniform(x, generator) * 2 - 1) * math.radians(degrees)
    return turn(x, angle)


def turn(x: Tensor, angle: Tensor) -> Tensor:
    """Images (N, C, H, W) turned counter-clockwise by angles (N,) in radians."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 along each side, so the angle is one of pixels only after scaling by the sides.
    ratio = x.shape[2] / x.shape[3]
    matrix = torch.stack([cos, -sin * ratio, zero, sin / ratio, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest", align_corners=False)


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    """A number from [0, 1) for each image."""
    return world.draw(lambda n: torch.rand(n, generator=generator, device=x.device), len(x), generator)


AUGMENT = {"crop": crop, "flip": flip, "rotate": rotate}
