"""A plain training loop that does what the authors' scripts do, to compare ours with. No line of it is theirs.

What it does that `lib.train` does not: in the attack of PGD the gradient reaches all parameters (`backward`), and it is
that of a mean; TRADES predicts the image itself anew in each step of its attack; for the log there is a forward pass on
the clean images, with its graph (but not for TRADES, which has their logits), and each step waits for its loss and its
accuracies (`item`); images are floats, which a DataLoader changes one by one and copies to the device batch by batch;
arithmetic is float32, in the default memory format. BatchNorm is in train mode in the attack of PGD, and its statistics
follow the attack; for TRADES it is in eval mode.

In forward-equivalents (`lib.cost`) PGD with 10 steps takes 34 so, TRADES 36, PGD with AWP 37. The code of AWP takes one
more forward pass, to choose among restarts, which is left out here.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Items

from lib import activations, compute, methods, train
from lib.attacks.threat import project, step, uniform_in_ball
from lib.augment import turn
from lib.config import Config
from lib.data import Dataset, Images
from lib.methods import Moment
from lib.params import ConfigError

PAD, DEGREES = 4, 15.0  # of crop and rotate, as in lib.augment
CLIMB = 0.01            # learning rate of the copy of the network that looks for AWP's v; only its direction counts


def supports(spec: str) -> bool:
    """Whether this module can train the spec: pgd or trades, with AWP or not, with any activation."""
    first, *rest = spec.split("+")
    return first in ("pgd", "trades") and all(part == "awp" or part in activations.available() for part in rest)


class Reference:
    """A training of `config.method`, from the weights with which `lib.train` begins.

    config: as for `lib.train`; its arithmetic has to be the plain one. total: steps of the schedule. workers: processes
    that change images (0: this one). tf32: whether a GPU's convolutions may use TF32, as torch has it by default.
    network, optimizer and scheduler are what they are called; networks: all that passes go through. Raises ConfigError
    for a method that it does not know.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, total: int, workers: int = 0,
                 tf32: bool = True):
        if not supports(config.method):
            raise ConfigError(f"there is no reference loop for '{config.method}': it knows pgd and trades, with awp or "
                              "not, and activations")
        self.config, self.device, self.workers, self.tf32 = config, device, workers, tf32
        self.trades, self.knobs = config.method.startswith("trades"), config.knobs[config.method.split("+")[0]]
        self.network = train.initial(config, methods.build(config), dataset, device)
        self.optimizer, self.scheduler = train.optimizer_and_schedule(config, self.network, total)
        self.generator, self.loaders = compute.generator(config.seed, device), {}
        self.awp = config.knobs["awp"] if "awp" in config.method.split("+") else None
        self.proxy = copy.deepcopy(self.network) if self.awp else None
        self.climber = SGD(self.proxy.parameters(), lr=CLIMB) if self.awp else None
        self.networks = [self.network, self.proxy] if self.awp else [self.network]

    def epoch(self, images: Images, start: float, scheduler) -> dict[str, float]:
        """One pass over the images from `start`, the share of training that is done; means of what `step` logs."""
        loader, log, before = self._loader(images), [], torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        try:
            for i, (x, y) in enumerate(loader):
                x, y = x.to(self.device), y.to(self.device)
                log.append(self.step(x, y, start + i / len(loader) / self.config.train.epochs))
                scheduler.step()
        finally:
            torch.backends.cudnn.allow_tf32 = before
        return {name: sum(entry[name] for entry in log) / len(log) for name in log[0]}

    def step(self, x: Tensor, y: Tensor, progress: float, noise: Tensor | None = None) -> dict[str, float]:
        """One step on images (N, C, H, W) in [0, 1]; returns its loss, and accuracies robust and clean.

        noise: where the attack begins, less x; None: drawn.
        """
        x_adv = self.attack(x, y, progress, noise).detach()
        self.network.train()
        v = self._ascend(x, x_adv, y) if self.awp and progress >= self.awp["warmup"] else {}
        self._move(v, 1)
        loss, attacked, clean = self._loss(self.network, x, x_adv, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._move(v, -1)
        if clean is None:
            clean = self.network(x)
            F.cross_entropy(clean, y).item()
        return {"loss": loss.item(), "robust": (attacked.argmax(1) == y).float().mean().item(),
                "clean": (clean.argmax(1) == y).float().mean().item()}

    def attack(self, x: Tensor, y: Tensor, progress: float, noise: Tensor | None = None) -> Tensor:
        """The training attack, at the radius that the warm-up has reached."""
        numbers = self.config.train
        threat = Moment(progress, self.generator).threat(self.config.threat, self.knobs["warmup"])
        if noise is None:
            noise = (0.001 * torch.randn(x.shape, generator=self.generator, device=x.device) if self.trades
                     else uniform_in_ball(x, threat, self.generator))
        self.network.train(not self.trades)
        x_adv = project(x + noise, x, threat)
        for _ in range(numbers.steps):
            x_adv = x_adv.detach().requires_grad_()
            if self.trades:
                divergence = F.kl_div(F.log_softmax(self.network(x_adv), 1), F.softmax(self.network(x), 1),
                                      reduction="sum")
                gradient, = torch.autograd.grad(divergence, x_adv)
            else:
                F.cross_entropy(self.network(x_adv), y).backward()
                gradient = x_adv.grad
            x_adv = project(x_adv.detach() + step(gradient, threat, numbers.step_size * threat.eps), x, threat)
        return x_adv

    def _loss(self, network: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The loss of the batch, the logits of x', and those of x where they are computed."""
        if not self.trades:
            attacked = network(x_adv)
            return F.cross_entropy(attacked, y), attacked, None
        clean, attacked = network(x), network(x_adv)
        divergence = F.kl_div(F.log_softmax(attacked, 1), F.softmax(clean, 1), reduction="sum") / len(x)
        return F.cross_entropy(clean, y) + self.knobs["beta"] * divergence, attacked, clean

    def _ascend(self, x: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, Tensor]:
        """AWP's v: where a step of a copy of the network leads that ascends the loss, with norm gamma ||w_l||."""
        self.proxy.load_state_dict(self.network.state_dict())
        self.proxy.train()
        self.climber.zero_grad()
        (-self._loss(self.proxy, x, x_adv, y)[0]).backward()
        self.climber.step()
        moved, v = dict(self.proxy.named_parameters()), {}
        for name, w in self.network.named_parameters():
            if w.dim() > 1:
                d = moved[name].detach() - w.detach()
                v[name] = self.awp["gamma"] * w.detach().norm() / (d.norm() + 1e-20) * d
        return v

    def _move(self, v: dict[str, Tensor], sign: int) -> None:
        """Add v to the weights, or take it off again."""
        weights = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, d in v.items():
                weights[name].add_(d, alpha=sign)

    def _loader(self, images: Images) -> DataLoader:
        """The loader of these images, with its processes; made once."""
        if id(images) not in self.loaders:
            changed = _Changed(images, self.config.train.augment)
            self.loaders[id(images)] = DataLoader(
                changed, min(self.config.train.batch_size, len(images)), shuffle=True, drop_last=True,
                num_workers=self.workers, persistent_workers=self.workers > 0, pin_memory=self.device.type == "cuda",
                generator=torch.Generator().manual_seed(self.config.seed))
        return self.loaders[id(images)]


class _Changed(Items):
    """Images as float32 in [0, 1], padded once, each cut out, mirrored and turned when it is asked for."""

    def __init__(self, images: Images, augment: list[str]):
        self.shape, self.augment, self.y = images.shape, augment, images.y.cpu()
        self.x = F.pad(images.x.cpu().float() / 255, [PAD * ("crop" in augment)] * 4)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, (_, height, width) = self.x[i], self.shape
        for name in self.augment:
            if name == "crop":
                top, left = torch.randint(0, 2 * PAD + 1, (2,)).tolist()
                x = x[:, top:top + height, left:left + width]
            elif name == "flip" and torch.rand(()) < 0.5:
                x = x.flip(2)
            elif name == "rotate":
                x = turn(x[None], (torch.rand(1) * 2 - 1) * torch.pi * DEGREES / 180)[0]
        return x, self.y[i]
