"""What an attack ascends: functions of (logits (N, C), labels (N,)) that give one loss an image, (N,).

Each is higher the nearer the image is to being misclassified. They are attacked one by one, since a loss whose gradient
vanishes for one model works for another (Croce and Hein 2020).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.params import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y. Its gradient vanishes in float32 once p_y rounds to 1, as with logits of a large scale."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y, positive where the image is misclassified (Carlini and Wagner 2017)."""
    return _of_the_others(logits, y).amax(1) - _of_label(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over z_(1) - z_(3), so that no scale or shift of the logits changes it.

    z_(k) is the k-th largest logit. After Croce and Hein 2020. Raises ConfigError for fewer than 3 classes.
    """
    top = _sorted(logits, 3, "DLR")
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(target: Tensor) -> Loss:
    """The DLR loss towards classes `target` (N,): (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2).

    After Croce and Hein 2020. Raises ConfigError for fewer than 4 classes.
    """
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        """How much nearer to the target than to the label."""
        top = _sorted(logits, 4, "targeted DLR")
        scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12
        return (_of_label(logits, target) - _of_label(logits, y)) / scale

    return loss


def kl(clean: Tensor) -> Loss:
    """KL(p(x) || p(x_adv)) for the logits `clean` (N, C) of the images themselves; labels play no part.

    What TRADES ascends (Zhang et al. 2019). It is 0, and so is its gradient, at x itself: start elsewhere.
    """
    reference = F.log_softmax(clean, 1)
    return lambda logits, y: F.kl_div(F.log_softmax(logits, 1), reference, reduction="none", log_target=True).sum(1)


def tempered(inverse_temperature: float, stable: bool = True) -> Loss:
    """Cross-entropy of the logits times 1/T: our reading of Temperature-PGD, which Tian et al. (2021) name.

    inverse_temperature: 1/T > 0. At 1 the direction is that of cross-entropy; as it grows, that of the margin.
    stable=False is just that, and its gradient vanishes in float32 once p_y rounds to 1. stable=True
    (ours) is T log sum_{k != y} exp(z_k / T) - z_y. In exact arithmetic the two have parallel gradients, since the
    cross-entropy is softplus of it over T, a growing function; but this one has no factor 1 - p_y.
    """
    if not inverse_temperature > 0:
        raise ConfigError(f"inverse_temperature is {inverse_temperature}: it has to be above 0")

    def naive(logits: Tensor, y: Tensor) -> Tensor:
        """-log p_y at temperature T."""
        return cross_entropy(logits * inverse_temperature, y)

    def soft_margin(logits: Tensor, y: Tensor) -> Tensor:
        """The margin with a soft maximum."""
        others = (_of_the_others(logits, y) * inverse_temperature).logsumexp(1) / inverse_temperature
        return others - _of_label(logits, y)

    return soft_margin if stable else naive


def _of_label(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def _of_the_others(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y[:, None], -torch.inf)


def _sorted(logits: Tensor, k: int, name: str) -> Tensor:
    """The k largest logits of each image, largest first."""
    if logits.shape[1] < k:
        raise ConfigError(f"the {name} loss needs {k} classes, the model has {logits.shape[1]}: use margin")
    return logits.topk(k, 1).values


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
