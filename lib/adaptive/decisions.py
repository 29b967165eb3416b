"""An attack that sees nothing but the label which the classifier gives: RayS (Chen and Gu 2020), for Linf."""

import torch
from torch import Tensor, nn

from lib import attacks
from lib.config import Threat
from lib.params import ConfigError


def rays(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, queries: int, tolerance: float = 1e-3,
         generator: torch.Generator | None = None) -> Tensor:
    """The direction of signs along which the label changes soonest, found by flipping blocks of pixels.

    It begins with all signs alike, and flips the image, then its halves, its quarters and so on down to single values.
    A flip is kept where the label is still wrong at the best radius so far, which is then found anew by halving, to
    `tolerance`. After single values it begins again. An image is done once its radius is within eps. queries: labels
    that are asked for, for each image; the last search of a radius may exceed it. Nothing is random. Written from the
    idea of the paper. Raises ConfigError for L2.
    """
    if threat.norm != "Linf":
        raise ConfigError("rays is written for Linf: its directions are corners of that ball")
    with attacks.under_attack(model), torch.no_grad():
        best, values, level, block = _Best(model, x, y, tolerance), x[0].numel(), 0, 0
        while len(left := ((best.radius > threat.eps) & (best.asked < queries)).nonzero().squeeze(1)):
            size = -(-values // 2**level)
            if block * size < values:
                best.flip(left, slice(block * size, (block + 1) * size))
            block += 1
            if block == 2**level:
                level, block = (level + 1 if size > 1 else 0), 0
        return best.at(slice(None), best.radius.clamp(max=threat.eps))


class _Best:
    """For each image the best direction so far, (N, values) of signs, and the radius at which its label is wrong.

    A radius that is not found yet is 1, which is the whole cube. asked: labels asked for.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, tolerance: float):
        self.model, self.x, self.y, self.tolerance = model, x, y, tolerance
        self.signs = torch.ones_like(x.flatten(1))
        self.radius = torch.ones_like(self.signs[:, 0])
        self.asked = torch.zeros_like(y)
        every = torch.arange(len(y)).to(y)
        wrong = self.fooled(every, 0 * self.radius)
        self.radius[wrong] = 0.0
        self.search(every[~wrong])

    def at(self, places: Tensor | slice, radius: Tensor) -> Tensor:
        """The images at these places, moved by `radius` along their directions."""
        x = self.x[places]
        return (x + radius.view(-1, 1, 1, 1) * self.signs[places].view_as(x)).clamp(0, 1)

    def fooled(self, places: Tensor, radius: Tensor) -> Tensor:
        """Whether the label is wrong there: one query each."""
        self.asked[places] += 1
        return self.model(self.at(places, radius)).argmax(1) != self.y[places]

    def search(self, places: Tensor) -> Tensor:
        """Whether the label is wrong at the best radius so far; where it is, the smaller one where it begins to be."""
        within = self.fooled(places, self.radius[places])
        kept = places[within]
        low, high = torch.zeros_like(self.radius[kept]), self.radius[kept]
        while len(kept) and (high - low).max() > self.tolerance:
            middle = (low + high) / 2
            wrong = self.fooled(kept, middle)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        self.radius[kept] = high
        return within

    def flip(self, places: Tensor, block: slice) -> None:
        """Flip a block of signs, and back where that helps nothing."""
        self.signs[places, block] *= -1
        lost = places[~self.search(places)]
        self.signs[lost, block] *= -1
