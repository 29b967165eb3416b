"""The classifiers. Each begins with its own normalisation, so that every attack sees images in [0, 1].

Any of them takes any activation of `lib.activations`, a module of its own at each of its sites.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lib import activations, residual
from lib.activations import Activation
from lib.config import Model
from lib.layers import Classifier, Normalize, Site, conv
from lib.params import known


class SmallCNN(nn.Module):
    """Two groups of convolutions with BatchNorm and one hidden layer, for images of 8 to 28 pixels (ours).

    depth: convolutions in each group.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, activation: Activation, depth: int = 2):
        super().__init__()
        channels, height, side = shape
        self.depth = depth

        def block(inputs, outputs):
            """Convolution, BatchNorm, activation."""
            return [conv(inputs, outputs), nn.BatchNorm2d(outputs), activation(outputs)]

        def group(inputs, outputs):
            """Blocks, the first of which widens, and half the size."""
            return [*block(inputs, outputs), *sum((block(outputs, outputs) for _ in range(depth - 1)), []),
                    nn.MaxPool2d(2)]

        self.features = nn.Sequential(*group(channels, width), *group(width, 2 * width), nn.Flatten())
        self.hidden = nn.Linear(2 * width * (height // 4) * (side // 4), 128)
        self.act = activation(128)
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> logits (N, classes)."""
        h = self.hidden(self.features(x))[:, :, None, None]  # a 1 x 1 image, so that any activation fits
        return self.head(self.act(h).flatten(1))

    def sites(self) -> Iterator[Site]:
        """The sites of activations; that of the hidden layer is a group of its own."""
        for group in range(2):
            for block in range(self.depth):
                yield Site(f"features.{group * (3 * self.depth + 1) + 3 * block + 2}", group, block, 0)
        yield Site("act", 2, 0, 0)


def small_cnn(depth: int) -> Callable[..., nn.Module]:
    """`SmallCNN` of so many convolutions a group."""
    def network(shape, classes: int, width: int, activation: Activation) -> nn.Module:
        """The network of this depth; see `NETWORKS`."""
        return SmallCNN(shape, classes, width, activation, depth)

    return network


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": small_cnn(2),
    "small_cnn_deep": small_cnn(3),
    "preact_resnet18": residual.preact_resnet18,
    "wide_resnet28": residual.wide_resnet(28),
    "wide_resnet34": residual.wide_resnet(34),
    "resnet18": residual.resnet([2, 2, 2, 2], expansion=1),
    "resnet34": residual.resnet([3, 4, 6, 3], expansion=1),
    "resnet50": residual.resnet([3, 4, 6, 3], expansion=4),
}


def build(model: Model, shape: tuple[int, int, int], classes: int,
          statistics: tuple[list[float], list[float]], activation: Activation | None = None) -> nn.Module:
    """A freshly initialised classifier of images (N, *shape) in [0, 1] into logits (N, classes).

    statistics: mean and standard deviation by channel. activation: in place of the one that `model` names.
    The weights come from torch's global generator: seed it before. An activation with parameters sets its own first
    values, and the other weights are the same whatever it is.
    """
    known("network", model.name, NETWORKS)
    activation = activation or activations.build(model.activation)
    network = NETWORKS[model.name](shape, classes, model.width, activations.apart(activation))
    own = {id(module) for one in activations.learned(network) for module in one.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and id(module) not in own:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    whole = Classifier(Normalize(*statistics), network)
    if any(map(nn.parameter.is_lazy, network.parameters())):
        with torch.no_grad():
            whole.eval()(torch.zeros(1, *shape))  # tells an activation the size of what it is given
    return whole.train()


def sites(model: nn.Module) -> list[Site]:
    """The sites of a classifier's activations, in the order in which an image meets them, by their names in `model`."""
    prefix, network = next((name, module) for name, module in model.named_modules() if hasattr(module, "sites"))
    return [site._replace(name=f"{prefix}.{site.name}".lstrip(".")) for site in network.sites()]
