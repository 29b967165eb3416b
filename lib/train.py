"""The one training loop. What a method changes is in `lib.methods`; everything else is here, on one page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

from lib import activations, attacks, compute, methods, resume, world
from lib.config import Config, on_the_spot, unfinished
from lib.data import Dataset, Files, Images, batches
from lib.methods import Method, Moment
from lib.params import known

CHECKPOINTS = ("best", "last")
VALIDATION_SEED = 1_000_000  # of the attack that picks the checkpoint: the same noise after each epoch


@dataclass(frozen=True)
class Trained:
    """What training leaves: the history, a row an epoch, the weights of the best and of the last epoch, and a trace.

    Best is the epoch with the highest accuracy on the validation images: under attack if the method trains with
    an adversary, clean otherwise. trace: what the network said of each test image along the way, clean and under the
    training attack: `epoch` (E,), `label` (N,), `clean` and `attacked` (E, N). seen: what `look` saw; not saved.
    """

    history: pd.DataFrame
    states: dict[str, dict[str, Tensor]]
    trace: dict[str, np.ndarray]
    seen: dict = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """history.csv, trace.npz, best.pt and last.pt in `folder`."""
        self.history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        np.savez_compressed(folder / "trace.npz", **self.trace)
        for name, state in self.states.items():
            torch.save(state, folder / f"{name}.pt")

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """What `save` has put there."""
        states = {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}
        with np.load(folder / "trace.npz") as trace:
            return cls(pd.read_csv(folder / "history.csv"), states, dict(trace))


def initial(config: Config, method: Method, data: Dataset, device: torch.device) -> nn.Module:
    """The untrained classifier of a run, its weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    model = method.network(config.model, data.shape, len(data.classes), data.statistics)
    return compute.place(model, config.compute, device)


class Run(NamedTuple):
    """What a training works with. objective: the mean loss of a batch, its gradients averaged over all processes."""

    model: nn.Module
    objective: nn.Module
    optimizer: SGD
    scheduler: lr_scheduler.LRScheduler
    generator: torch.Generator


class Objective(nn.Module):
    """The method's loss of a batch, as a scalar: a module, so that DistributedDataParallel can hold any method."""

    def __init__(self, method: Method, model: nn.Module):
        super().__init__()
        self.method, self.model = method, model

    def forward(self, *batch) -> Tensor:
        """x, x_adv, y and the moment -> the mean loss."""
        return self.method.loss(self.model, *batch).mean()


@dataclass
class Found:
    """What a training has found so far: `Trained`, and the best score. seen: None where nobody looks."""

    seen: dict | None
    rows: list = field(default_factory=list)
    looks: list = field(default_factory=list)
    states: dict = field(default_factory=dict)
    best: tuple = (-1.0,)

    def trace(self, labels: Tensor) -> dict[str, np.ndarray]:
        """The looks as arrays, as in `Trained`."""
        epoch, clean, attacked = zip(*self.looks, strict=True)
        return {"label": labels.cpu().numpy().astype(np.int16), "epoch": np.array(epoch),
                "clean": torch.stack(clean).numpy(), "attacked": torch.stack(attacked).numpy()}


def begin(config: Config, method: Method, data: Dataset, device: torch.device) -> Run:
    """A training before its first step. Raises ConfigError for a batch that the processes cannot share alike."""
    model = world.synchronised(initial(config, method, data, device))
    total = config.train.epochs * max(1, len(data.train) // config.train.batch_size)
    return Run(model, world.replicated(Objective(method, model)), *optimizer_and_schedule(config, model, total),
               world.generator(config.seed, device, min(config.train.batch_size, len(data.train))))


def fit(config: Config, data: Dataset, device: torch.device, log: Callable[[str], None] = print,
        look: Callable[[int, nn.Module], object] | None = None, method: Method | None = None,
        keep: Mapping[str, int] | None = None) -> Trained:
    """Train `config.method` on data.train, which lies on `device`, and report each epoch as one line to `log`.

    look: called after each epoch with its number, from 1, and the classifier as it would be deployed now, which it has
    to leave as it is; what it returns (tensors, numbers, text, lists and dictionaries) is in `Trained.seen`, by epoch.
    method: in place of the one that `config.method` spells. keep: further states, by name, and after which epoch. A
    stage that was interrupted goes on after its last whole epoch, on one CPU thread to the same bits, unless it has a
    `method` of its own. Raises ConfigError if memory does not hold a batch, FloatingPointError if training diverges.
    """
    place = None if method else unfinished()
    method, found, epochs = method or methods.build(config), Found({} if look else None), config.train.epochs
    model, objective, *rest = run = begin(config, method, data, device)
    checkpoint = resume.Checkpoint(place, config, data, run, found, method.memory, log)
    for epoch in range(1, checkpoint.load() + 1):
        log(line(config, found, epoch))
    size = world.share(min(config.train.batch_size, len(data.train)))
    compute.compiled(model, config.compute, torch.zeros(size, *data.shape, device=device), log)
    for epoch in range(len(found.rows) + 1, epochs + 1):
        with compute.memory_for(config.train.batch_size):
            loss = train_epoch(config, method, model, data.train, *rest, (epoch - 1) / epochs, objective)
        with compute.eager(config.compute, device):
            deployed = method.deploy(model)
            judge(config, method, deployed, data, loss, found)
            found.states |= {name: found.states["last"] for name, at in (keep or {}).items() if at == epoch}
            if look:
                found.seen[epoch] = look(epoch, deployed)
        if not loss < float("inf"):
            raise FloatingPointError(f"loss {loss} in epoch {epoch}: lower train.lr (now {config.train.lr})")
        checkpoint.save(epoch)
        log(line(config, found, epoch))
    for name in CHECKPOINTS:
        model.load_state_dict(found.states[name])
        with compute.eager(config.compute, device):
            method.finish(model, data.validation, compute.generator(VALIDATION_SEED, device))
        found.states[name] = snapshot(model)
    return Trained(pd.DataFrame(found.rows), found.states, found.trace(data.test.y), found.seen or {})


def judge(config: Config, method: Method, model: nn.Module, data: Dataset, loss: float, found: Found) -> None:
    """Adds an epoch, whose mean loss was `loss`, to what is found, with the classifier that it would hand over."""
    epoch = len(found.rows) + 1
    clean, robust = validate(config, model, data.validation)
    found.rows.append({"epoch": epoch, "loss": loss, "clean": clean, "robust": robust})
    found.states["last"] = snapshot(model)
    score = (robust, clean) if method.attack else (clean, robust)
    if score > found.best:
        found.best, found.states["best"] = score, found.states["last"]
    if epoch % config.train.trace == 0 or epoch == config.train.epochs:
        found.looks.append((epoch, *map(torch.from_numpy, predicted(config, model, data.test))))


def line(config: Config, found: Found, epoch: int) -> str:
    """What is told of an epoch."""
    _, loss, clean, robust = found.rows[epoch - 1].values()
    return (f"epoch {epoch}/{config.train.epochs}  loss {loss:.3f}  "
            f"validation: clean {clean:.1%}, PGD-{config.train.steps} {robust:.1%}")


def train_epoch(config: Config, method: Method, model: nn.Module, images: Images | Files, optimizer, scheduler,
                generator: torch.Generator, start: float, objective: nn.Module | None = None) -> float:
    """One pass over the images, from `start` (the share of training that is done); returns its mean loss."""
    model.train()
    losses, objective = [], objective or Objective(method, model)
    steps = max(1, len(images) // config.train.batch_size)
    stream = batches(images, config.train.batch_size, generator, config.train.augment)
    with compute.fast(config.compute, generator.device):
        for i, (x, y) in enumerate(stream):
            moment = Moment(start + i / steps / config.train.epochs, generator)
            x_adv = method.attack(model, x, y, moment) if method.attack else x
            closure = partial(objective, x, x_adv, y, moment)
            optimizer.zero_grad()
            with method.around(model, closure, moment):
                loss = closure()
                loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.detach())
    return world.total(torch.stack(losses).mean()).item() / world.size()


def optimizer_and_schedule(config: Config, model: nn.Module, total: int):
    """SGD with momentum, and its schedule over `total` steps.

    piecewise: lr / 10 at 50 % and at 75 % of training (Rice et al. 2020). onecycle: up to lr over the first 30 %
    and down to nothing (Smith 2018; torch's OneCycleLR). Frozen parameters stay out, and weight decay leaves those
    alone that `lib.activations` names.
    """
    train = config.train
    known("schedule", train.schedule, ("piecewise", "onecycle"))
    alone = {id(parameter) for parameter in activations.undecayed(model)}
    groups = [{"params": []}, {"params": [], "weight_decay": 0.0}]
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        groups[id(parameter) in alone]["params"].append(parameter)
    optimizer = SGD([group for group in groups if group["params"]], lr=train.lr, momentum=train.momentum,
                    weight_decay=train.weight_decay)
    if train.schedule == "onecycle":
        return optimizer, lr_scheduler.OneCycleLR(optimizer, max_lr=train.lr, total_steps=total)
    return optimizer, lr_scheduler.MultiStepLR(optimizer, milestones=[total // 2, total * 3 // 4], gamma=0.1)


def validate(config: Config, model: nn.Module, images: Images | Files) -> tuple[float, float]:
    """Accuracy on the images, clean and under the training attack without its warm-up, in eval mode."""
    labels = images.y.cpu().numpy()
    return tuple((said == labels).mean().item() for said in predicted(config, model, images))


def predicted(config: Config, model: nn.Module, images: Images | Files, batch_size: int = 500) -> list[np.ndarray]:
    """What the model says of the images, clean and under the training attack: two arrays (N,)."""
    generator, said = compute.generator(VALIDATION_SEED, images.y.device), []
    with attacks.under_attack(model), torch.no_grad():
        for batch, (x, y) in enumerate(images.in_order(batch_size)):
            if batch % world.size() != world.rank():  # another process has it, and draws this noise for it
                attacks.noise(model, x, y, threat=config.threat, generator=generator)
                continue
            with compute.fast(config.compute, x.device):
                x_adv = attacks.pgd(model, x, y, threat=config.threat, steps=config.train.steps,
                                    step_size=config.train.step_size, generator=generator)
            said.append(torch.stack([model(z).argmax(1) for z in (x, x_adv)]))
    return list(torch.cat(world.gathered(said, batch + 1), 1).cpu().numpy().astype(np.int16))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's parameters and statistics on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def load(config: Config, data: Dataset, device: torch.device) -> Trained:
    """What stage `train` wrote for this run. By hand, in `smoke`, a run that is not there is trained on the spot."""
    folder = config.folder("train")
    if (folder / "last.pt").exists():
        return Trained.load(folder)
    on_the_spot("train", config, folder / "last.pt")
    return fit(config, data, device, log=lambda line: None)


def model(config: Config, trained: Trained, checkpoint: str, data: Dataset, device: torch.device) -> nn.Module:
    """The classifier at a checkpoint ('best' or 'last'), on `device`, in eval mode."""
    known("checkpoint", checkpoint, CHECKPOINTS)
    network = initial(config, methods.build(config), data, device)
    network.load_state_dict(trained.states[checkpoint])
    return network.eval()
