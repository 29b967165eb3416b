"""DUCAT (Wang et al. 2024, arXiv 2410.12671): each class gets a dummy class, a second place for its images.

The network has 2C outputs: k is class k, k + C its dummy. From some moment on an image x is to be y with a share of
its dummy, and its adversarial example x' is to be the dummy:

L = 1/2 H(y_b, p(x)) + w_alpha / 2 H(y_a, p(x')),   y_s = (1 - w_s) e_y + w_s e_{y+C} for s = b (benign), a (adv)

The deployed classifier takes a dummy for its class: argmax_k max(z_k, z_{k+C}). Here that is its last layer, so that
every attack faces it; the authors attack the 2C logits and map the prediction afterwards. `lib.adaptive` does both.

Until the start it is the objective, on a network of 2C outputs of which half are never a label. Then x and x' go
through the network together, so BatchNorm sees both, as theirs. The training attack faces the 2C logits (`adversary`
raw), as theirs; or the pair as one class, by `soft` (lse) or `hard` (max), which is ours. In place of the objective's
cross-entropy comes L; its other terms stay what they are, on the 2C logits, as in their code, also where they work
against L: the divergence of TRADES pulls p(x) and p(x') together while their labels differ, and MART's margin lowers
the runner-up, which is most often the label's own dummy. The defaults of the knobs are those of the authors' code, and
its start is epoch 105 of 130.

Decided otherwise than in their code: TRADES before the start is TRADES (theirs takes the label's loss on x'); no image
goes through the network a second time for those terms; w_alpha works with every objective (theirs: PGD-AT alone); with
`consistency`, x is the image as the loop gives it, not each of its views.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.config import Config
from lib.methods import Method, bounded, cross_entropy
from lib.params import ConfigError, known

LOSS_ON = {"pgd": "x_adv", "trades": "x", "mart": "x_adv", "consistency": "x_adv"}  # where an objective names the label
CLASHES = ("he", "cfa", "balanced", "offset")  # these change or count the logits of C classes


class Recovered(nn.Module):
    """A classifier of C classes out of one of C classes and their dummies, `raw`: a dummy counts as its class."""

    def __init__(self, raw: nn.Module):
        super().__init__()
        self.raw = raw

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> logits (N, C): the higher one of each class and its dummy."""
        return hard(self.raw(x))


class Smooth(Recovered):
    """`Recovered` with a soft maximum: for gradients only, since its prediction may be another."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> logits (N, C)."""
        return soft(self.raw(x))


def hard(logits: Tensor) -> Tensor:
    """max(z_k, z_{k+C}): (N, 2C) -> (N, C)."""
    return torch.maximum(*logits.chunk(2, 1))


def soft(logits: Tensor) -> Tensor:
    """log(exp z_k + exp z_{k+C}), the log-probability of the pair up to a constant: (N, 2C) -> (N, C)."""
    return torch.logaddexp(*logits.chunk(2, 1))


ADVERSARIES = {"raw": lambda model: model.raw, "lse": lambda model: Smooth(model.raw), "max": lambda model: model}


def two_hot(logits: Tensor, y: Tensor, w: float) -> Tensor:
    """H((1 - w) e_y + w e_{y+C}, p): logits (N, 2C), labels (N,) in 0 .. C - 1 -> (N,)."""
    own, dummy = (F.cross_entropy(logits, label, reduction="none") for label in (y, y + logits.shape[1] // 2))
    return (1 - w) * own + w * dummy


def add_on(method: Method, config: Config, *, w_benign: float, w_adv: float, w_alpha: float, start: float,
           adversary: str) -> Method:
    """Dummy classes on any objective that has an adversary; `adversary` is told above.

    w_benign, w_adv: w_b and w_a; w_alpha: weight of the loss of x'; start: the share of training before the dummies.
    """
    for name, value in (("w_benign", w_benign), ("w_adv", w_adv), ("start", start)):
        bounded(f"ducat.{name}", value, least=0, most=1)
    bounded("ducat.w_alpha", w_alpha, least=0)
    known("adversary", adversary, ADVERSARIES, "knobs.ducat of params.yaml")
    first, *others = config.method.split("+")
    if first not in LOSS_ON:
        raise ConfigError(f"'{config.method}': ducat needs an objective with an adversary: {', '.join(LOSS_ON)}")
    if clash := [name for name in others if name in CLASHES]:
        raise ConfigError(f"'{config.method}': ducat does not go with {clash[0]}, which works on C logits")

    def started(moment):
        """Whether the dummies are in use."""
        return moment.progress >= start - 1e-9

    def network(model, shape, classes, *more):
        """The network with 2C outputs, and the recovery behind it."""
        return Recovered(method.network(model, shape, 2 * classes, *more))

    def attack(model, x, y, moment):
        """The objective's attack."""
        return method.attack(ADVERSARIES[adversary](model) if started(moment) else model.raw, x, y, moment)

    def loss(model, x, x_adv, y, moment):
        """L, and what the objective adds to its cross-entropy; before the start the objective's loss."""
        if not started(moment):
            return method.loss(model.raw, x, x_adv, y, moment)
        clean, attacked = model.raw(torch.cat([x, x_adv])).split([len(x), len(x_adv)])
        every = y.repeat(len(x_adv) // len(x))  # the label of each example: `consistency` makes two of an image
        labelled = (clean, y) if LOSS_ON[first] == "x" else (attacked, every)
        rest = method.loss(Known((x, clean), (x_adv, attacked)), x, x_adv, y, moment) - by_image(
            cross_entropy(*labelled, moment), y)
        return two_hot(clean, y, w_benign) / 2 + w_alpha / 2 * by_image(two_hot(attacked, every, w_adv), y) + rest

    return replace(method, network=network, attack=attack, loss=loss)


def by_image(losses: Tensor, y: Tensor) -> Tensor:
    """The mean over the examples of each image: (V N,) -> (N,)."""
    return losses.view(-1, len(y)).mean(0)


class Known(nn.Module):
    """Stands in for a network whose logits of some tensors of images are known: Known((x, logits), ...)(x)."""

    def __init__(self, *known: tuple[Tensor, Tensor]):
        super().__init__()
        self.known = known

    def forward(self, x: Tensor) -> Tensor:
        """The logits of x."""
        return next(logits for images, logits in self.known if images is x)
