"""Residual networks: ResNet, PreActResNet and WideResNet."""

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from lib.activations import Activation
from lib.layers import Site, conv


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
        self.stem, self.depths = conv(shape[0], stem), depths
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

    def sites(self) -> Iterator[Site]:
        """The sites of activations: two a block; the last one is a group of its own."""
        yield from _in_blocks(self.depths, 2)
        yield Site("act", len(self.depths), 0, 0)


def _in_blocks(depths: list[int], places: int, first: int = 0) -> Iterator[Site]:
    """The sites blocks.<n>.act<place>, for so many places a block, of groups that are counted from `first`."""
    of_blocks = [(group, block) for group, depth in enumerate(depths, first) for block in range(depth)]
    for n, (group, block) in enumerate(of_blocks):
        for place in range(places):
            yield Site(f"blocks.{n}.act{place + 1}", group, block, place)


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


class ResBlock(nn.Module):
    """Residual block of He et al. (2016, deep residual learning): an activation behind each sum and each BatchNorm.

    expansion 1: the basic block, two 3 x 3 convolutions. 4: the bottleneck of 1 x 1, 3 x 3 (which has the stride, as in
    torchvision) and 1 x 1.
    """

    def __init__(self, inputs: int, width: int, stride: int, expansion: int, activation: Activation):
        super().__init__()
        outputs = expansion * width
        shapes = [(inputs, width, stride, 3), (width, outputs, 1, 3)] if expansion == 1 else [
            (inputs, width, 1, 1), (width, width, stride, 3), (width, outputs, 1, 1)]
        self.convolutions = len(shapes)
        for i, (before, after, step, size) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", conv(before, after, step, size))
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
            self.add_module(f"act{i}", activation(after))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(conv(inputs, outputs, stride, size=1),
                                                                 nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, inputs, H, W) -> (N, expansion * width, H / stride, W / stride)."""
        h = x
        for i in range(1, self.convolutions + 1):
            h = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(h))
            if i == self.convolutions:
                h = h + self.shortcut(x)
            h = self.get_submodule(f"act{i}")(h)
        return h


class ResNet(nn.Module):
    """ResNet of He et al. (2016). Images of up to 64 pixels get the stem of the robustness literature, one 3 x 3
    convolution at full size; larger ones that of ImageNet: 7 x 7 with stride 2, and a pooling.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, depths: list[int], expansion: int,
                 activation: Activation):
        super().__init__()
        self.depths, self.small = depths, shape[1] <= 64
        self.stem = conv(shape[0], width) if self.small else conv(shape[0], width, stride=2, size=7)
        self.bn, self.act = nn.BatchNorm2d(width), activation(width)
        blocks, inputs = [], width
        for group, depth in enumerate(depths):
            for block in range(depth):
                stride = 2 if group > 0 and block == 0 else 1
                blocks.append(ResBlock(inputs, width * 2**group, stride, expansion, activation))
                inputs = expansion * width * 2**group
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> logits (N, classes)."""
        h = self.act(self.bn(self.stem(x)))
        if not self.small:
            h = F.max_pool2d(h, 3, 2, 1)
        return self.head(F.adaptive_avg_pool2d(self.blocks(h), 1).flatten(1))

    def sites(self) -> Iterator[Site]:
        """The sites of activations: that of the stem, a group of its own, then one behind each convolution."""
        yield Site("act", 0, 0, 0)
        yield from _in_blocks(self.depths, self.blocks[0].convolutions, first=1)


def resnet(depths: list[int], expansion: int) -> Callable[..., nn.Module]:
    """A `ResNet`; width 64 is the usual one."""

    def network(shape, classes: int, width: int, activation: Activation) -> nn.Module:
        """The network of these depths; see `NETWORKS`."""
        return ResNet(shape, classes, width, depths, expansion, activation)

    return network
