"""HE, hypersphere embedding (Pang et al., "Boosting adversarial training with hypersphere embedding", NeurIPS 2020).

The last layer's features and rows have length 1, so that the logits are cosines in [-1, 1]; training sees them times
a scale s, and the label's cosine less a margin m.
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from lib.config import Config
from lib.methods import Method, bounded


class Cosine(nn.Linear):
    """A linear layer without bias that gives cosines: features (N, in) -> the cosine with each row, (N, out)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines in [-1, 1]. The authors' code normalises the rows in place, outside the gradient; here inside it."""
        return F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


class Scaled(nn.Module):
    """A classifier of cosines as training sees it: times s. It shares the classifier's weights."""

    def __init__(self, model: nn.Module, s: float):
        super().__init__()
        self.model, self.s = model, s

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        return self.s * self.model(x)


def add_on(method: Method, config: Config, *, s: float, m: float) -> Method:
    """The objective on cosines times `s`, with the margin `m` in its cross-entropy.

    The deployed classifier gives the bare cosines, as the authors' does, and is attacked so: cross-entropy on logits
    in [-1, 1] weighs the wrong classes nearly alike. Temperature-PGD with 1/T = s attacks what training attacked. The
    accuracy is the same with any s. As in a copy of the authors' losses.py, the margin is in the cross-entropy alone:
    the training attack and the divergence of TRADES have none. With MART, which they do not have, the same (ours).
    """
    bounded("he.s", s, above=0)
    bounded("he.m", m, least=0)

    def network(*arguments, **more):
        """The network with a `Cosine` in place of its head."""
        model = method.network(*arguments, **more)
        name, head = [(n, module) for n, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Cosine(head.in_features, head.out_features))
        return model

    def attack(model, x, y, moment):
        """The objective's attack, on cosines times s."""
        return method.attack(Scaled(model, s), x, y, moment)

    def loss(model, x, x_adv, y, moment):
        """The objective's loss, on cosines times s, with the margin."""
        return method.loss(Scaled(model, s), x, x_adv, y, replace(moment, margin=s * m))

    return replace(method, network=network, attack=method.attack and attack, loss=loss)

