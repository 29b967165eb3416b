"""The one training loop. What a method changes is in `lib.methods`; everything else is here, on one page."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

from lib import activations, attacks, compute, methods
from lib.config import Config, on_the_spot
from lib.data import Dataset, Files, Images, batches
from lib.methods import Method, Moment
from lib.params import known

CHECKPOINTS = ("best", "last")
VALIDATION_SEED = 1_000_000  # of the attack that picks the checkpoint: the same noise after each epoch


@dataclass(frozen=True)
class Trained:
    """What training leaves: the history, a row an epoch, the weights of the best and of the last epoch, and a trace.

    Best is the epoch with the highest accuracy on the validation images: under attack if the method trains with
    an adversary, clean otherwise. The test images have no part in it. trace: what the network said of each test image
    along the way, clean and under the training attack: `epoch` (E,), `label` (N,), `clean` and `attacked` (E, N).
    Nothing is chosen by it.
    """

    history: pd.DataFrame
    states: dict[str, dict[str, Tensor]]
    trace: dict[str, np.ndarray]

    def save(self, folder: Path) -> None:
        """history.csv, trace.npz, best.pt and last.pt in `folder`."""
        self.history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        np.savez_compressed(folder / "trace.npz", **self.trace)
        for name, state in self.states.items():
            torch.save(state, folder / f"{name}.pt")


def initial(config: Config, method: Method, data: Dataset, device: torch.device) -> nn.Module:
    """The untrained classifier of a run, its weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    model = method.network(config.model, data.shape, len(data.classes), data.statistics)
    return model.to(device)


def fit(config: Config, data: Dataset, device: torch.device, log: Callable[[str], None] = print,
        look: Callable[[int, nn.Module], None] = lambda epoch, model: None, method: Method | None = None) -> Trained:
    """Train `config.method` on data.train, which lies on `device`, and report each epoch as one line to `log`.

    look: called after each epoch with its number, from 1, and the classifier as it would be deployed now. It has to
    leave the classifier as it is. method: in place of the one that `config.method` spells.
    """
    method = method or methods.build(config)
    model = initial(config, method, data, device)
    generator = compute.generator(config.seed, device)
    per_epoch = max(1, len(data.train) // config.train.batch_size)
    total = config.train.epochs * per_epoch
    optimizer, scheduler = optimizer_and_schedule(config, model, total)
    rows, traces, states, best = [], [], {}, (-1.0,)
    for epoch in range(1, config.train.epochs + 1):
        mean_loss = train_epoch(config, method, model, data.train, optimizer, scheduler, generator,
                                start=(epoch - 1) / config.train.epochs)
        deployed = method.deploy(model)
        clean, robust = validate(config, deployed, data.validation)
        rows.append({"epoch": epoch, "loss": mean_loss, "clean": clean, "robust": robust})
        states["last"] = snapshot(deployed)
        score = (robust, clean) if method.attack else (clean, robust)
        if score > best:
            best, states["best"] = score, states["last"]
        if epoch % config.train.trace == 0 or epoch == config.train.epochs:
            traces.append((epoch, *predicted(config, deployed, data.test)))
        look(epoch, deployed)
        log(f"epoch {epoch}/{config.train.epochs}  loss {mean_loss:.3f}  "
            f"validation: clean {clean:.1%}, PGD-{config.train.steps} {robust:.1%}")
        if not mean_loss < float("inf"):
            raise FloatingPointError(f"loss {mean_loss} in epoch {epoch}: lower train.lr (now {config.train.lr})")
    for name, state in states.items():
        model.load_state_dict(state)
        method.finish(model, data.validation, compute.generator(VALIDATION_SEED, device))
        states[name] = snapshot(model)
    labels = data.test.y.cpu().numpy().astype(np.int16)
    trace = dict(zip(("epoch", "clean", "attacked"), map(np.array, zip(*traces, strict=True)), strict=True))
    return Trained(pd.DataFrame(rows), states, {"label": labels, **trace})


def train_epoch(config: Config, method: Method, model: nn.Module, images: Images | Files, optimizer, scheduler,
                generator: torch.Generator, start: float) -> float:
    """One pass over the images, from `start` (the share of training that is done); returns its mean loss."""
    model.train()
    losses = []
    steps = max(1, len(images) // config.train.batch_size)
    stream = batches(images, config.train.batch_size, generator, config.train.augment)
    for i, (x, y) in enumerate(stream):
        moment = Moment(start + i / steps / config.train.epochs, generator)
        x_adv = method.attack(model, x, y, moment) if method.attack else x
        closure = partial(mean_loss, method, model, x, x_adv, y, moment)
        optimizer.zero_grad()
        with method.around(model, closure, moment):
            loss = closure()
            loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def mean_loss(method: Method, *batch) -> Tensor:
    """The method's loss, as a scalar."""
    return method.loss(*batch).mean()


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
    clean, robust = ((said == labels).mean().item() for said in predicted(config, model, images))
    return clean, robust


def predicted(config: Config, model: nn.Module, images: Images | Files, batch_size: int = 500) -> list[np.ndarray]:
    """What the model says of the images, clean and under the training attack: two arrays (N,)."""
    generator = compute.generator(VALIDATION_SEED, images.y.device)
    said = []
    with attacks.under_attack(model), torch.no_grad():
        for x, y in images.in_order(batch_size):
            x_adv = attacks.pgd(model, x, y, threat=config.threat, steps=config.train.steps,
                                step_size=config.train.step_size, generator=generator)
            said.append(torch.stack([model(z).argmax(1) for z in (x, x_adv)]))
    return list(torch.cat(said, 1).cpu().numpy().astype(np.int16))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's parameters and statistics on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def load(config: Config, data: Dataset, device: torch.device) -> Trained:
    """What stage `train` wrote for this run. By hand, in `smoke`, a run that is not there is trained on the spot."""
    folder = config.folder("train")
    if (folder / "last.pt").exists():
        states = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in CHECKPOINTS}
        with np.load(folder / "trace.npz") as trace:
            return Trained(pd.read_csv(folder / "history.csv"), states, dict(trace))
    on_the_spot("train", config, folder / "last.pt")
    return fit(config, data, device, log=lambda line: None)


def model(config: Config, trained: Trained, checkpoint: str, data: Dataset, device: torch.device) -> nn.Module:
    """The classifier at a checkpoint ('best' or 'last'), on `device`, in eval mode."""
    known("checkpoint", checkpoint, CHECKPOINTS)
    network = initial(config, methods.build(config), data, device)
    network.load_state_dict(trained.states[checkpoint])
    return network.eval()
