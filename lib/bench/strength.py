"""What bfloat16 does to attacks and to training. Attacked in either arithmetic, scored in float32, always."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lib import attacks, compute, stats
from lib.attacks.gradient import STARTS
from lib.attacks.threat import loss_and_gradient, project, step, under_attack
from lib.bench import arms
from lib.bench.arms import Arm
from lib.config import Config
from lib.data import Dataset

NOISE = 1_000_000  # seed of the noise of attacks; the control begins elsewhere
SIXTEEN = "bfloat16"


def low(config: Config, device: torch.device):
    """The context in which networks compute in bfloat16."""
    return compute.fast(replace(config.compute, precision=SIXTEEN), device)


def study(spec: str, device: torch.device) -> list[Arm]:
    """The arms whose networks are compared: the reference, ours in its arithmetic, and ours in bfloat16 if possible."""
    mode = arms.authors(spec)
    each = [Arm(spec, arms.REFERENCE, **arms.PLAIN, batchnorm=mode), Arm(spec, arms.OURS, **arms.PLAIN, batchnorm=mode)]
    low = Arm(spec, SIXTEEN, **arms.PLAIN | {"precision": SIXTEEN}, batchnorm=mode)
    return each + [low] * arms.able(device)


def networks(config: Config, each: Sequence[Arm], images: Dataset, device: torch.device, *, epochs: int,
             seeds: Sequence[int], log: Callable[[str], None] = print) -> dict[tuple[str, int], nn.Module]:
    """A network trained by each arm with each seed, by the name of the arm and the seed, in eval mode.

    All begin with the weights of their seed. Within a seed, arms of ours see the same images and noise.
    """
    found = {}
    for seed in seeds:
        for arm in each:
            run = replace(config, seed=seed, train=replace(config.train, epochs=epochs))
            per_epoch = max(1, len(images.train) // run.train.batch_size)
            runner = arms.build(run, arm, images, device, total=epochs * per_epoch)
            for epoch in range(epochs):
                runner.epoch(images.train, epoch / epochs, runner.scheduler)
            found[arm.name, seed] = runner.network.eval()
            log(f"network {len(found)}/{len(each) * len(seeds)}  {arm.method}, {arm.name}, seed {seed}")
    return found


def robust(config: Config, network: nn.Module, images, seed: int = NOISE, context=nullcontext) -> dict[str, np.ndarray]:
    """Hits (N,) on images, `clean` and `attacked` by PGD-20 within `context`, both in float32; and `largest`.

    largest: how far the attack went, in units of eps (Linf) (N,).
    """
    numbers, generator, parts = config.attacks["pgd-20"], compute.generator(seed, images.y.device), []
    for x, y in images.in_order(500):
        with context():
            x_adv = attacks.pgd(network, x, y, threat=config.threat, steps=numbers["steps"],
                                step_size=numbers["step_size"], generator=generator).float()
        with under_attack(network), torch.no_grad():
            parts.append(torch.stack([*(network(z).argmax(1) == y for z in (x, x_adv)),
                                      (x_adv - x).abs().amax((1, 2, 3)) / config.threat.eps]).cpu())
    clean, attacked, largest = torch.cat(parts, 1).numpy()
    return {"clean": clean > 0, "attacked": attacked > 0, "largest": largest}


def attack(config: Config, network: nn.Module, images, device: torch.device) -> list[dict]:
    """PGD-20 in float32 against itself: in bfloat16 with the same noise, and in float32 with other noise, the control.

    A row for each of the two: `against`, and float32 less it as of `stats.paired`, whose a is float32: a positive mean
    says that the other attack fools more. `accuracy`: of the network under the other attack. `largest`: of both, the
    longest step that was taken, in units of eps.
    """
    plain = robust(config, network, images)
    found = []
    for name, other in ((SIXTEEN, robust(config, network, images, context=lambda: low(config, device))),
                        ("float32, other noise", robust(config, network, images, seed=NOISE + 1))):
        found.append({"against": name, "accuracy": other["attacked"].mean(),
                      "accuracy_float32": plain["attacked"].mean(),
                      **stats.paired(plain["attacked"], other["attacked"]),
                      "largest": max(plain["largest"].max(), other["largest"].max())})
    return found


def gradients(config: Config, network: nn.Module, images, device: torch.device) -> dict:
    """How the gradients of the cross-entropy by the images agree in the two arithmetics, at random points of the balls.

    `agreement` of `agree`, over the pixels of n images.
    """
    x, y = images.floats()
    with under_attack(network):
        start = attacks.noise(network, x, y, threat=config.threat, generator=compute.generator(NOISE, x.device))
        plain = loss_and_gradient(network, start, y, attacks.cross_entropy)[1]
        with low(config, device):
            other = loss_and_gradient(network, start, y, attacks.cross_entropy)[1]
    return agree(plain, other)


def agree(plain: Tensor, other: Tensor) -> dict:
    """Two gradients (N, C, H, W): mean `cosine` over images, shares of pixels.

    `sign`: of the same sign; `weighted`: the same, each pixel with the weight |plain|; `lost`: 0 in `other` alone, of
    those that are not 0 in `plain`. Pixels that are 0 in both are left out of all. n: images.
    """
    a, b = plain.flatten(1).double(), other.flatten(1).double()
    there, moved = (a != 0) | (b != 0), (a != 0).any(1)
    same = (a.sign() == b.sign())[there].double()
    weights = a.abs()[there]
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-300)
    return {"cosine": cosine[moved].mean().item(), "sign": same.mean().item(),
            "weighted": ((same * weights).sum() / weights.sum()).item(),
            "lost": ((b == 0) & (a != 0)).sum().item() / max(1, (a != 0).sum().item()), "n": len(a)}


def trades(config: Config, network: nn.Module, images, device: torch.device) -> dict:
    """The attack of TRADES in the two arithmetics: its first step climbs a divergence that is almost 0.

    `steps`: for each step, along the float32 attack, `agree` of the bfloat16 gradient there with the float32 one, with
    the prediction for x, its target, in bfloat16 too (`all`) and with the target in float32 (`target`). `attacks`: for
    each of the attacks float32, bfloat16, and bfloat16 with the target and the first step in float32, its final
    `divergence`, and float32 less it as of `stats.paired`, all scored in float32.
    """
    x, y = images.floats()
    numbers, threat = config.train, config.threat
    start = STARTS["near"](x, threat, compute.generator(NOISE, x.device))

    def gradient(at: Tensor, target: Tensor, half: bool) -> Tensor:
        """Of the divergence from the target."""
        with low(config, device) if half else nullcontext():
            return loss_and_gradient(network, at, y, attacks.kl(target))[1]

    def climb(halves: Callable[[int], bool], target: Tensor, look=lambda at: None) -> Tensor:
        """The attack, with the steps in bfloat16 for which `halves` is true; `look` sees where each begins."""
        at = start
        for k in range(numbers.steps):
            look(at)
            ahead = step(gradient(at, target, halves(k)), threat, numbers.step_size * threat.eps)
            at = project(at + ahead, x, threat)
        return at

    with under_attack(network), torch.no_grad():
        target = network(x)
        with low(config, device):
            rough = network(x).float()
        seen = []
        ends = {"float32": climb(lambda k: False, target, seen.append), SIXTEEN: climb(lambda k: True, rough),
                "bfloat16, first step in float32": climb(lambda k: k > 0, target)}
        steps = []
        for k, at in enumerate(seen, 1):
            plain = gradient(at, target, False)
            steps.append({"step": k, "all": agree(plain, gradient(at, rough, True)),
                          "target": agree(plain, gradient(at, target, True))})
        return {"steps": steps, "attacks": _scored(network, ends, target, y)}


def _scored(network: nn.Module, ends: dict[str, Tensor], target: Tensor, y: Tensor) -> list[dict]:
    """A row for each attack, by where it ended; the first is what the others are compared with."""
    found, first = [], None
    for name, x_adv in ends.items():
        logits = network(x_adv)
        hits = (logits.argmax(1) == y).cpu().numpy()
        first = hits if first is None else first
        found.append({"attack": name, "divergence": attacks.kl(target)(logits, y).mean().item(),
                      "accuracy": hits.mean(), **stats.paired(first, hits)})
    return found


def trained(config: Config, found: dict[tuple[str, int], nn.Module], images, base: str = arms.OURS) -> dict:
    """The networks of `networks` on test images: clean, and under PGD-20, in float32.

    `networks`: a row for each, clean and robust, with Wilson's intervals, _low and _high. `differences`: for each other
    arm and seed, its robust accuracy less that of `base` with the same seed, as of `stats.paired`, whose a is the arm;
    and with more seeds than one a row of all, seed None, as of `stats.over_seeds`.
    """
    hits = {key: robust(config, network, images) for key, network in found.items()}
    rows, differences = [], []
    for (arm, seed), hit in hits.items():
        n, row = len(hit["clean"]), {"arm": arm, "seed": seed}
        for name, right in (("clean", hit["clean"]), ("robust", hit["attacked"])):
            low, high = stats.wilson(right.sum(), n)
            row |= {name: right.mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append({**row, "n": n})
    for arm in dict.fromkeys(arm for arm, _ in hits if arm != base):
        seeds = [seed for name, seed in hits if name == arm]
        each = [stats.paired(hits[arm, seed]["attacked"], hits[base, seed]["attacked"]) for seed in seeds]
        differences += [{"arm": arm, "seed": seed, **one} for seed, one in zip(seeds, each, strict=True)]
        if len(seeds) > 1:
            differences.append({"arm": arm, "seed": None, **stats.over_seeds([one["mean"] for one in each])})
    return {"networks": rows, "differences": differences}
