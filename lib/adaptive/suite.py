"""The full evaluation of one run: attacks as published, each with an adaptive twin, and those that are only adaptive.

T0 clean images; T1 as published; T2 along gradients; T3 towards one class after the other; T4 the strongest; T5 without
gradients, and examples made on other networks; T6 noise, and sweeps of the number of steps and of the radius.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, compute, evaluate, methods, train
from lib.adaptive import ascent
from lib.adaptive.decisions import rays
from lib.adaptive.protocols import ADAPTIVE, PUBLISHED, TEN, adaptive, per_sample, published, raw
from lib.config import Config
from lib.data import Dataset, Files, Images

Suite = dict[tuple[str, str, str], attacks.Attack | None]  # (protocol, tier, attack's name) -> the attack; None: clean
KEYS = ["method", "seed", "protocol", "tier", "attack"]
SQUARE, RAYS, NOISE, TARGETED = "square", "rays", "noise", "pgd-10-targeted"
TRANSFER = "transfer"  # how the names of attacks begin that are made on another network
LOSSES = {"ce": attacks.cross_entropy, "margin": attacks.margin, "dlr": attacks.dlr}
ASCENDED = (("ce", "max"), ("margin", "max"), ("dlr", "max"), ("ce", "lse"), ("margin", "lse"))  # a loss of a pair
SWEEPS = ["protocol", "sweep", "value"]


def suite(config: Config, trunk: nn.Module | None = None, dummies: bool = True) -> Suite:
    """The attacks on one run by protocol, tier and name, in the order of the tiers; see the module.

    An attack as published has an adaptive twin of its name. Their numbers are those of `adaptive` in params.yaml and,
    of PGD-10, the authors'. The tier of the run, as published, is N1: an image is done once its raw prediction is not
    the label. `<tier>-n2` differs in that the deployed classifier decides which images the next attack of the tier is
    given. `<tier>-raw`, `<tier>-lse`: its losses on the 2C logits or the soft pairs, while the deployed classifier
    tells success at every iterate. Of `final`, these three are of `report`; see `ascent.tier`. trunk: the network just
    before its dummy classes came, None if there is none. dummies: whether the classifier has any. In L2 there is
    neither Square nor RayS.
    """
    found: Suite = {(ADAPTIVE, "T0", evaluate.CLEAN): None}
    own = config.evaluate.tier
    above = "report" if own == "final" else own  # AutoAttack's own code takes one classifier for everything
    for name, attack in _simple(config).items():
        found[PUBLISHED, "T6" if name == NOISE else "T1", name] = published(attack)
        found[ADAPTIVE, {SQUARE: "T5", NOISE: "T6", own: "T4"}.get(name, "T1"), name] = attack
    each = [attacks.from_params(above, numbers, config.threat) for numbers in evaluate.TIERS[above].values()]
    for protocol, of_tier in ((PUBLISHED, map(published, each)), (ADAPTIVE, each)):
        found[protocol, "T1", f"{above}-n2"] = evaluate.cascade(*of_tier)
        found[protocol, "T1", TARGETED] = ascent.towards_classes(protocol, threat=config.threat, steps=TEN["steps"],
                                                                 step_size=TEN["step_size"])
    found |= {(ADAPTIVE, *key): attack for key, attack in _along_gradients(config).items()}
    found |= {(ADAPTIVE, "T4", f"{above}-{pair}"): ascent.tier(config, pair) for pair in ("raw", "lse")}
    if config.threat.norm == "Linf":
        found[ADAPTIVE, "T5", RAYS] = partial(rays, threat=config.threat, queries=config.adaptive.queries)
    found |= {(ADAPTIVE, "T5", name): attack for name, attack in _transfers(config, trunk, dummies).items()}
    return dict(sorted(found.items(), key=lambda item: item[0][1]))


def _simple(config: Config) -> dict[str, attacks.Attack]:
    """The attacks that need nothing but a classifier: the 2C logits or the deployed one."""
    numbers = {"fgsm": {"attack": "fgsm"}, "pgd-10": TEN, **{f"pgd-{n}": _pgd(config, n)
                                                             for n in (20, config.adaptive.steps)}}
    if config.threat.norm == "Linf":
        numbers[SQUARE] = {"attack": "square", "queries": config.adaptive.queries}
    numbers[NOISE] = {"attack": "noise"}
    found = {name: attacks.from_params(name, kind, config.threat) for name, kind in numbers.items()}
    return found | {config.evaluate.tier: evaluate.all_attacks(config)[config.evaluate.tier]}


def _pgd(config: Config, steps: int, loss: str = "cross_entropy") -> dict:
    """PGD as an entry of `attacks` in params.yaml would describe it."""
    return {"attack": "pgd", "steps": steps, "step_size": config.adaptive.step_size, "loss": loss}


def _along_gradients(config: Config) -> dict[tuple[str, str], attacks.Attack]:
    """T2 and T3: (tier, name) -> attack."""
    numbers, found = config.adaptive, {}
    plain = {"threat": config.threat, "steps": numbers.steps}
    for loss, pair in ASCENDED:
        found["T2", f"pgd-{loss}-{pair}"] = ascent.tracked_pgd(LOSSES[loss], pair, step_size=numbers.step_size,
                                                               restarts=numbers.restarts, **plain)
        found["T2", f"apgd-{loss}-{pair}"] = adaptive(attacks.apgd, LOSSES[loss], pair, **plain)
    return found | {("T3", f"multi-{pair}"): ascent.multi_targeted(pair, **plain) for pair in ("max", "raw")}


class Classes(nn.Module):
    """The classifier as if it had no dummies: the first C of its 2C logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> logits (N, C)."""
        logits = raw(self.model)(x)
        return logits[:, :logits.shape[1] // 2]


def _transfers(config: Config, trunk: nn.Module | None, dummies: bool) -> dict[str, attacks.Attack]:
    """PGD-20 made on the trunk, and on the logits of the classes alone; by name."""
    found = {short: attacks.from_params(TRANSFER, _pgd(config, 20, loss), config.threat)
             for short, loss in (("ce", "cross_entropy"), ("margin", "margin"))}
    on_trunk = {f"{TRANSFER}-trunk-{short}": attacks.transfer(trunk, attack) for short, attack in found.items()}
    on_classes = {f"{TRANSFER}-classes-{short}": _on_classes(attack) for short, attack in found.items()}
    return (on_trunk if trunk is not None else {}) | (on_classes if dummies else {})


def _on_classes(attack: attacks.Attack) -> attacks.Attack:
    """The attack, on a classifier without its dummies."""
    return lambda model, x, y, *, generator: attack(Classes(model), x, y, generator=generator)


def trunk(config: Config, dataset: Dataset, device: torch.device) -> nn.Module | None:
    """The network just before its dummy classes came, as stage `train` kept it; None where it kept none."""
    path = config.folder("train") / "trunk.pt"
    if not path.exists():
        return None
    network = train.initial(config, methods.build(config), dataset, device)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def table(config: Config, model: nn.Module, images: Images | Files, device: torch.device,
          trunk: nn.Module | None = None, log: Callable[[str], None] = print) -> pd.DataFrame:
    """Every image under every attack of the suite: columns KEYS, index, label, predicted and raw.

    predicted: by the deployed classifier; raw: the largest of the 2C logits. RayS has the first `adaptive.decisions`
    images alone. What comes down to the same attack is run once: without dummies both protocols and all pairs.
    """
    dummies = raw(model) is not model
    found, done, tables = suite(config, trunk, dummies), {}, []
    if config.threat.norm != "Linf":
        log("Square and RayS are written for Linf: left out")
    if trunk is None:
        log("no trunk: no examples are made on it")
    for number, ((protocol, tier, name), attack) in enumerate(found.items(), 1):
        some = images.first(config.adaptive.decisions) if name == RAYS else images
        same = _same(protocol, name, dummies)
        if same not in done:
            size = len(images) if name == "final" else 500  # AutoAttack cuts its batches itself
            done[same] = per_sample(model, some, attack, compute.generator(config.seed, device), size)
        rows, keys = done[same], dict(zip(KEYS, (config.method, config.seed, protocol, tier, name), strict=True))
        tables.append(rows.assign(**keys)[[*KEYS, *rows.columns]])
        rate = (rows.label == rows.predicted).mean()
        log(f"attack {number}/{len(found)}  {protocol}, {tier}, {name}: {rate:.1%} of {len(rows)} images")
    return pd.concat(tables, ignore_index=True)


def _same(protocol: str, name: str, dummies: bool) -> tuple[str, str]:
    """Equal for attacks that are the same, with or without dummies."""
    if dummies and protocol == PUBLISHED:
        return protocol, name
    short = name.removesuffix("-n2")  # on the deployed classifier that is the tier
    return ADAPTIVE, short if dummies else short.removesuffix("-lse").removesuffix("-max").removesuffix("-raw")


def sweeps(config: Config, model: nn.Module, images: Images | Files, device: torch.device,
           log: Callable[[str], None] = print) -> pd.DataFrame:
    """Auto-PGD on cross-entropy with more and more steps, and at larger and larger radii, in both protocols.

    Columns method, seed, SWEEPS, index, label, predicted. sweep 'steps': value is their number; 'radii': in units of
    eps, with `adaptive.steps` steps; a radius in Linf beyond 1 is 1, which allows any image.
    """
    numbers, widest = config.adaptive, 1.0 if config.threat.norm == "Linf" else float("inf")
    work = [("steps", steps, steps, config.threat.eps) for steps in numbers.many]
    work += [("radii", radius, numbers.steps, min(radius * config.threat.eps, widest)) for radius in numbers.radii]
    protocols = {PUBLISHED: published, ADAPTIVE: lambda attack: attack}
    done, tables = {}, []
    for protocol, as_protocol in protocols.items():
        for sweep, value, steps, eps in work:
            same = protocol if raw(model) is not model else ADAPTIVE, steps, eps
            if same not in done:
                attack = partial(attacks.apgd, threat=replace(config.threat, eps=eps), steps=steps)
                rows = per_sample(model, images, as_protocol(attack), compute.generator(config.seed, device))
                done[same] = rows.drop(columns="raw")
            rows, keys = done[same], (config.method, config.seed, protocol, sweep, value)
            rows = rows.assign(**dict(zip(["method", "seed", *SWEEPS], keys, strict=True)))
            tables.append(rows[["method", "seed", *SWEEPS, "index", "label", "predicted"]])
            rate = (rows.label == rows.predicted).mean()
            log(f"sweep {len(tables)}/{2 * len(work)}  {protocol}, {sweep} {value:g}: {rate:.1%}")
    return pd.concat(tables, ignore_index=True)
