"""The classifiers. Each begins with its own normalisation, so that every attack sees images in [0, 1].

An activation is a function of the number of channels that returns a module, so that one with parameters per
channel fits wherever ReLU does.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.config import Model
from lib.params import ConfigError, known

Activation = Callable[[int], nn.Module]

ACTIVATIONS: dict[str, Activation] = {
    "relu": lambda channels: nn.ReLU(),
    "silu": lambda channels: nn.SiLU(),
    "gelu": lambda channels: nn.GELU(),
    "softplus": lambda channels: nn.Softplus(),
}


class Normalize(nn.Module):
    """(x - mean) / std per channel; the first layer of every network, so that it is part of what is attacked."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> normalised images of the same shape."""
        return (x - self.mean) / self.std


def conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    """A convolution without bias that keeps the image size at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class SmallCNN(nn.Module):
    """Four convolutions with BatchNorm and one hidden layer, for images of 8 to 28 pixels (ours)."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, activation: Activation):
        super().__init__()
        channels, height, side = shape

        def block(inputs, outputs):
            """Convolution, BatchNorm, activation."""
            return [conv(inputs, outputs), nn.BatchNorm2d(outputs), activation(outputs)]

        self.features = nn.Sequential(
            *block(channels, width), *block(width, width), nn.MaxPool2d(2),
            *block(width, 2 * width), *block(2 * width, 2 * width), nn.MaxPool2d(2), nn.Flatten())
        self.hidden = nn.Linear(2 * width * (height // 4) * (side // 4), 128)
        self.act = activation(128)
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> logits (N, classes)."""
        h = self.hidden(self.features(x))[:, :, None, None]  # a 1 x 1 image, so that any activation fits
        return self.head(self.act(h).flatten(1))


class PreActBlock(nn.Module):
    """Residual block with normalisation and activation before each convolution (He et al. 2016, identity maps)."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation):
        super().__init__()
        self.bn1, self.act1, self.conv1 = nn.BatchNorm2d(inputs), activation(inputs), conv(inputs, outputs, stride)
        self.bn2, self.act2, self.conv2 = nn.BatchNorm2d(outputs), activation(outputs), conv(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else conv(inputs, outputs, stride, size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        h = self.act1(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(h)
        return self.conv2(self.act2(self.bn2(self.conv1(h)))) + skip


class PreActResNet(nn.Module):
    """Pre-activation residual network for 32 x 32 images: a stem, then groups of blocks, each half the size before.

    widths and depths give the channels and the number of blocks of each group.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, stem: int, widths: list[int], depths: list[int],
                 activation: Activation):
        super().__init__()
        self.stem = conv(shape[0], stem)
        blocks, inputs = [], stem
        for group, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                stride = 2 if group > 0 and block == 0 else 1
                blocks.append(PreActBlock(inputs, width, stride, activation))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.bn, self.act = nn.BatchNorm2d(inputs), activation(inputs)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> logits (N, classes)."""
        h = self.act(self.bn(self.blocks(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


def preact_resnet18(shape, classes: int, width: int, activation: Activation) -> nn.Module:
    """PreActResNet-18 (He et al. 2016); width 64 is the usual one."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    return PreActResNet(shape, classes, width, widths, [2, 2, 2, 2], activation)


def wide_resnet(depth: int) -> Callable[..., nn.Module]:
    """WideResNet of Zagoruyko and Komodakis (2016), without dropout; width 10 makes WRN-<depth>-10."""

    def network(shape, classes: int, width: int, activation: Activation) -> nn.Module:
        """The network of this depth; see `NETWORKS`."""
        widths = [16 * width, 32 * width, 64 * width]
        return PreActResNet(shape, classes, 16, widths, [(depth - 4) // 6] * 3, activation)

    return network


def resnet(depth: int) -> Callable[..., nn.Module]:
    """torchvision's ResNet (He et al. 2016) for colour images of about 224 x 224: width 64, and ReLU only."""

    def network(shape, classes: int, width: int, activation: Activation) -> nn.Module:
        """The network of this depth; see `NETWORKS`."""
        from torchvision.models import resnet18, resnet50

        if shape[0] != 3 or width != 64 or not isinstance(activation(1), nn.ReLU):
            raise ConfigError(f"resnet{depth} takes images of 3 channels, width 64 and activation relu")
        return {18: resnet18, 50: resnet50}[depth](num_classes=classes)

    return network


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": SmallCNN,
    "preact_resnet18": preact_resnet18,
    "wide_resnet28": wide_resnet(28),
    "wide_resnet34": wide_resnet(34),
    "resnet18": resnet(18),
    "resnet50": resnet(50),
}


def build(model: Model, shape: tuple[int, int, int], classes: int,
          statistics: tuple[list[float], list[float]], activation: Activation | None = None) -> nn.Module:
    """A freshly initialised classifier of images (N, *shape) in [0, 1] into logits (N, classes).

    statistics: mean and standard deviation by channel. activation: in place of the one that `model` names.
    The weights come from torch's global generator: seed it before.
    """
    known("network", model.name, NETWORKS)
    known("activation", model.activation, ACTIVATIONS)
    network = NETWORKS[model.name](shape, classes, model.width, activation or ACTIVATIONS[model.activation])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(Normalize(*statistics), network)
