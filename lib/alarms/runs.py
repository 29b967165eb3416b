"""The attacks whose results `strength` compares: all on the same images, from the same random start."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from lib import attacks, compute
from lib.alarms.alarm import Alarm, judge
from lib.config import Threat
from lib.params import known

KINDS = ("white-box", "black-box")
SWEEP = (0.0, 0.5, 1.0, 2.0, 4.0)  # radii, in units of eps
SWEEP_STEPS = 20
QUERIES = 200                      # of the random search
TRAVEL = 5.0  # path in units of eps, so that a step is TRAVEL / steps; with 2.5 the loss of PGD-50 on digits still rose
SPREAD = 5.0  # standard deviation of rescaled logits; of 1 to 20 the strongest attack on two PGD-trained digits models
RESTARTS, RESTART_STEPS = 5, 20


@dataclass(frozen=True)
class Case:
    """What is inspected: a model, images (N, C, H, W) in [0, 1], labels (N,), and the threat model."""

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int = 0

    def generator(self) -> torch.Generator:
        """A generator on the images' device, the same at every call: attacks are compared from one random start."""
        return compute.generator(self.seed, self.x.device)

    def pgd(self, steps: int, loss: attacks.Loss = attacks.cross_entropy) -> Tensor:
        """PGD from a random start with steps of TRAVEL / steps."""
        return attacks.pgd(self.model, self.x, self.y, threat=self.threat, steps=steps, step_size=TRAVEL / steps,
                           loss=loss, generator=self.generator())

    def hits(self, x: Tensor) -> np.ndarray:
        """Which of the images x, (N, C, H, W), the model gets right: (N,) of bool."""
        with torch.no_grad():
            return (self.model(x).argmax(1) == self.y).cpu().numpy()


@dataclass
class Trace:
    """A loss that keeps, at each call, each image's loss and whether it is misclassified; PGD calls it once a step."""

    loss: attacks.Loss
    losses: list[Tensor] = field(default_factory=list)
    fooled: list[Tensor] = field(default_factory=list)

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Logits (N, C), labels (N,) -> the loss of each image (N,)."""
        losses = self.loss(logits, y)
        self.losses.append(losses.detach().float())
        self.fooled.append(logits.detach().argmax(1) != y)
        return losses


@dataclass(frozen=True)
class Runs:
    """Results of all attacks. `hits`: by name, which images (N,) the model still gets right; `kinds`: white-box,
    black-box, control or transfer. chain: names from the weakest to the strongest. losses, fooled: (steps + 1, N) of
    the iterates of the main attack, `chain[-1]`. sweep: hits by radius in units of eps, and inf for all of the cube.
    """

    examples: dict[str, Tensor]
    hits: dict[str, np.ndarray]
    kinds: dict[str, str]
    chain: list[str]
    losses: np.ndarray
    fooled: np.ndarray
    sweep: dict[float, np.ndarray]

    def worst(self, kind: str) -> np.ndarray:
        """Which images (N,) the model gets right under every attack of a kind."""
        return np.all([hits for name, hits in self.hits.items() if self.kinds[name] == kind], axis=0)


def run(case: Case, steps: int, twin: nn.Module | None = None,
        others: Mapping[str, tuple[str, Tensor]] | None = None) -> Runs:
    """Make the examples of every attack and score them.

    steps: of the main attack; a fifth and twice as many are tried as well. twin: another model of the same classes,
    on which transfer examples are made. others: name -> (kind, examples like case.x), made elsewhere.
    """
    trace, few, main = Trace(attacks.cross_entropy), f"PGD-{max(1, steps // 5)}", f"PGD-{steps}"
    plain = {"threat": case.threat, "generator": case.generator()}
    found = {
        "noise": ("control", attacks.noise(case.model, case.x, case.y, **plain)),
        "FGSM": ("white-box", attacks.fgsm(case.model, case.x, case.y, threat=case.threat)),
        few: ("white-box", case.pgd(max(1, steps // 5))),
        main: ("white-box", case.pgd(steps, trace)),
        "twice": ("white-box", case.pgd(2 * steps)),
        "margin": ("white-box", case.pgd(steps, attacks.margin)),
        "rescaled": ("white-box", case.pgd(steps, rescaled(case))),
        "restarts": ("white-box", _restarts(case)),
        "random search": ("black-box", random_search(case, QUERIES)),
    }
    if twin is not None:
        found["twin"] = ("transfer", replace(case, model=twin).pgd(steps))
    for name, (kind, x_adv) in (others or {}).items():
        known("kind", kind, KINDS, f"attack '{name}' of others")
        if x_adv.shape != case.x.shape:
            raise ValueError(f"examples of '{name}' are {tuple(x_adv.shape)}, the images {tuple(case.x.shape)}")
        found[name] = (kind, x_adv)
    with torch.no_grad():
        trace(case.model(found[main][1]), case.y)
    return Runs(examples={name: x_adv for name, (_, x_adv) in found.items()},
                hits={name: case.hits(x_adv) for name, (_, x_adv) in found.items()},
                kinds={name: kind for name, (kind, _) in found.items()}, chain=["noise", "FGSM", few, main],
                losses=torch.stack(trace.losses).cpu().numpy(), fooled=torch.stack(trace.fooled).cpu().numpy(),
                sweep=sweep(case, steps))


def _restarts(case: Case) -> Tensor:
    """PGD on the margin from several random starts: what a single start misses is not yet masked."""
    return attacks.pgd(case.model, case.x, case.y, threat=case.threat, steps=RESTART_STEPS, loss=attacks.margin,
                       step_size=TRAVEL / RESTART_STEPS, restarts=RESTARTS, keep_best=True,
                       generator=case.generator())


def rescaled(case: Case) -> attacks.Loss:
    """Cross-entropy of logits whose standard deviation within an image, averaged over the images, is `SPREAD`.

    A factor on the logits, which changes no prediction, then changes no attack either.
    """
    with torch.no_grad():
        scale = case.model(case.x).std(1).mean().clamp_min(1e-12) / SPREAD
    return lambda logits, y: attacks.cross_entropy(logits / scale, y)


def sweep(case: Case, steps: int) -> dict[float, np.ndarray]:
    """Hits under PGD at the radii of `SWEEP` and, with `steps` steps, at one that covers the cube [0, 1]^d (inf)."""
    found = {}
    for factor in SWEEP:
        at = replace(case, threat=replace(case.threat, eps=factor * case.threat.eps))
        found[factor] = at.hits(at.pgd(SWEEP_STEPS))
    cube = 1.0 if case.threat.norm == "Linf" else case.x[0].numel() ** 0.5
    at = replace(case, threat=replace(case.threat, eps=cube))
    return found | {float("inf"): at.hits(at.pgd(steps))}


def random_search(case: Case, queries: int) -> Tensor:
    """A plain black-box attack: random patches of random colour, kept where the margin rises.

    After the idea of Square (Andriushchenko et al. 2020), without its schedule; it asks for no gradient.
    """
    x, y, generator, side = case.x, case.y, case.generator(), case.x.shape[-1]
    reach = 2 if case.threat.norm == "Linf" else 0.5  # in Linf from one face of the ball to the other

    def score(images):
        """The margin of each image."""
        with torch.no_grad():
            return attacks.margin(case.model(images), y)

    best = attacks.noise(case.model, x, y, threat=case.threat, generator=generator)
    highest = score(best)
    for query in range(queries):
        width = max(1, round(side * 0.5 * (1 - query / queries)))
        top, left = torch.randint(side - width + 1, (2,), generator=generator, device=x.device).tolist()
        patch = torch.zeros_like(x)
        colour = torch.randn(*x.shape[:2], 1, 1, generator=generator, device=x.device)
        patch[:, :, top:top + width, left:left + width] = colour
        step = attacks.step(patch, case.threat, reach * case.threat.eps)
        candidate = attacks.project(best + step, x, case.threat)
        scores = score(candidate)
        better = scores > highest
        best = torch.where(better[:, None, None, None], candidate, best)
        highest = torch.where(better, scores, highest)
    return best


def threat_model(case: Case, examples: dict[str, Tensor]) -> list[Alarm]:
    """Check 6. eps-zero: largest change of a pixel at eps = 0. in-ball: by how much examples leave the ball or [0, 1].

    NaN and types other than float32 count as infinitely far.
    """
    none = replace(case, threat=replace(case.threat, eps=0.0))
    same = [attacks.noise(none.model, none.x, none.y, threat=none.threat, generator=none.generator()),
            attacks.fgsm(none.model, none.x, none.y, threat=none.threat), none.pgd(3)]
    far = {name: excess(x_adv, case) for name, x_adv in examples.items()}
    farthest = max(far, key=far.get)
    return [judge("eps-zero", max((x_adv - case.x).abs().max().item() for x_adv in same), 0),
            judge("in-ball", far[farthest], 1e-6, f"farthest: {farthest}")]


def excess(x_adv: Tensor, case: Case) -> float:
    """By how much the farthest image leaves the ball or [0, 1]; infinite for NaN or another type than float32."""
    if x_adv.dtype != torch.float32 or x_adv.isnan().any():
        return float("inf")
    delta = (x_adv - case.x).double().flatten(1)
    size = delta.norm(p=torch.inf if case.threat.norm == "Linf" else 2, dim=1).max().item()
    return max(size - case.threat.eps, -x_adv.min().item(), x_adv.max().item() - 1, 0.0)
