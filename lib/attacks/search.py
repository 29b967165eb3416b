"""Square attack (Andriushchenko et al. 2020): random search by squares, without gradients.

The black-box control: where it beats an attack by gradients, the gradients are masked.
"""

import torch
from torch import Tensor, nn

from lib.attacks.losses import margin
from lib.attacks.threat import under_attack
from lib.compute import exact
from lib.config import Threat
from lib.params import ConfigError

# Share of the image's area in the square, halved after so many queries.
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, generator: torch.Generator, queries: int = 5000,
           area: float = 0.8) -> Tensor:
    """Square attack in Linf on the margin, as AutoAttack runs it: 5,000 queries, area 0.8, its schedule not rescaled.

    area: share of the image in the first squares. Images are left alone once they fool the model. Unlike the authors'
    code, each image has its own square in a query. Raises ConfigError for L2.
    """
    if threat.norm != "Linf":
        raise ConfigError("square is written for Linf: in a recipe for L2, drop it by `attacks: {square: null}`; the "
                          "tier final has the reference one")
    n, channels, height, width = x.shape
    with under_attack(model), torch.no_grad(), exact(x.device):  # it goes by predictions alone
        stripes = _signs((n, channels, 1, width), x, generator)
        best = (x + threat.eps * stripes).clamp(0, 1)
        highest = margin(model(best), y)
        for query in range(1, queries):
            left = (highest <= 0).nonzero().squeeze(1)
            if not len(left):
                break
            share = area / 2 ** sum(query > step for step in HALVED)
            side = min(max(round((share * height * width) ** 0.5), 1), height, width)
            change = 2 * threat.eps * _signs((len(left), channels, 1, 1), x, generator)
            there = _square(len(left), height, width, side, x.device, generator)
            tried = torch.where(there, best[left] + change, best[left])
            tried = torch.minimum(torch.maximum(tried, x[left] - threat.eps), x[left] + threat.eps).clamp(0, 1)
            margins = margin(model(tried), y[left])
            better = margins > highest[left]
            best[left] = torch.where(better[:, None, None, None], tried, best[left])
            highest[left] = torch.where(better, margins, highest[left])
    return best


def _signs(shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator, device=x.device).to(x) * 2 - 1


def _square(n: int, height: int, width: int, side: int, device, generator: torch.Generator) -> Tensor:
    """Masks (n, 1, height, width) that are true in a square of `side` pixels at a random place."""
    top = torch.randint(0, height - side + 1, (n, 1), generator=generator, device=device)
    left = torch.randint(0, width - side + 1, (n, 1), generator=generator, device=device)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None]
    return inside[:, None]
