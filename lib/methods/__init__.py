"""Methods of training: what differs from the loop of `lib.train`, and nothing else.

A spec is an objective and add-ons joined by '+': 'pgd', 'pgd+awp'. The module lib/methods/<name>.py defines
`objective(config, **knobs) -> Method` or `add_on(method, config, **knobs) -> Method`; its keyword-only arguments
are the keys of knobs.<name> in params.yaml. A new method is one such file and its entries in params.yaml. One of the
add-ons may be an activation of `lib.activations`: 'pgd+silu'.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import activations
from lib.config import Config, Threat
from lib.data import Images
from lib.params import ConfigError, known


@dataclass(frozen=True)
class Moment:
    """Where training stands, and what add-ons ask for image by image.

    progress: the share of training that is done, in [0, 1). generator: all randomness of training comes from it.
    radius, beta: factors of eps and of the regulariser's weight, one number or (N,); 1 unless an add-on sets them.
    margin: what `cross_entropy` takes off the logit of the label; 0 unless an add-on sets it.
    """

    progress: float
    generator: torch.Generator
    radius: float | Tensor = 1.0
    beta: float | Tensor = 1.0
    margin: float = 0.0

    def threat(self, threat: Threat, warmup: float) -> Threat:
        """The threat model of this step: eps grows linearly over the share `warmup` of training (ours; 0: at once)."""
        share = min(1.0, self.progress / warmup) if warmup else 1.0
        each = self.radius if isinstance(self.radius, float) else self.radius[:, None, None, None]
        return replace(threat, eps=share * threat.eps * each)


@dataclass(frozen=True)
class Method:
    """The places in which methods of adversarial training differ.

    network: builds the classifier from (model, shape, classes, statistics), the arguments of `lib.models.build`, and
    an activation, if one is given.
    attack: the training adversary (model, x, y, moment) -> x_adv, or None where the method trains on x itself.
    loss: (model, x, x_adv, y, moment) -> the loss of each image (N,); training descends their mean.
    around: (model, loss, moment) -> the context in which the gradient is taken; `loss` there is the closure of the
    batch, the mean as a scalar.
    deploy: model -> the classifier that training would hand over now, which is validated and kept.
    finish: (model, images, generator) changes the trained classifier in place; `images` are the validation images.
    memory: what the method keeps from step to step, by the name of its part: tensors and numbers, in dictionaries. An
    interrupted training goes on with it.
    """

    network: Callable[..., nn.Module]
    attack: Callable[[nn.Module, Tensor, Tensor, Moment], Tensor] | None
    loss: Callable[[nn.Module, Tensor, Tensor, Tensor, Moment], Tensor]
    around: Callable[..., AbstractContextManager] = lambda model, loss, moment: nullcontext()
    deploy: Callable[[nn.Module], nn.Module] = lambda model: model
    finish: Callable[[nn.Module, Images, torch.Generator], None] = lambda model, images, generator: None
    memory: dict = field(default_factory=dict)


def cross_entropy(logits: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """-log p_y of each image in a training loss, (N,), with `moment.margin` off the logit of the label."""
    if moment.margin:
        logits = logits - torch.zeros_like(logits).scatter(1, y[:, None], moment.margin)
    return F.cross_entropy(logits, y, reduction="none")


def bounded(knob: str, value: float, *, above: float = -math.inf, least: float = -math.inf,
            most: float = math.inf) -> None:
    """Raise a ConfigError unless a knob ('he.s') is a finite number above, at least and at most these bounds."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and above < value and least <= value <= most):
        bounds = (("above", above), ("at least", least), ("at most", most))
        rule = " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))
        raise ConfigError(f"knobs.{knob} in params.yaml is {value!r}: it has to be a number {rule}")


def available() -> list[str]:
    """The names that a spec may be made of: one a file of this folder."""
    return sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def build(config: Config) -> Method:
    """The method that `config.method` spells, with the numbers of `config.knobs`.

    Raises ConfigError for an unknown name or knob, a missing knob, add-ons without an objective, or two activations.
    """
    first, *add_ons = config.method.split("+")
    method, shapes = _make(first, "objective", config), activations.available()
    if len(named := [name for name in add_ons if name in shapes]) > 1:
        raise ConfigError(f"'{config.method}' names {len(named)} activations, {' and '.join(named)}: choose one")
    for name in add_ons:
        method = activated(method, name, config) if name in shapes else _make(name, "add_on", config, method)
    return method


def activated(method: Method, name: str, config: Config) -> Method:
    """The method, with this activation in place of every one of its network."""
    activation = activations.build(name, config.knobs.get(name))

    def network(model, shape, classes, statistics):
        """The method's network, with the activation."""
        return method.network(model, shape, classes, statistics, activation)

    return replace(method, network=network)


def _make(name: str, kind: str, config: Config, *method: Method) -> Method:
    """Call `objective` or `add_on` of lib/methods/<name>.py with its knobs."""
    known("method", name, [*available(), *activations.available()], f"'{config.method}'")
    if name in activations.available():
        raise ConfigError(f"'{config.method}': '{name}' is an activation; a spec begins with an objective")
    module = importlib.import_module(f"{__name__}.{name}")
    if not hasattr(module, kind):
        raise ConfigError(f"'{config.method}': '{name}' is not an {kind.replace('_', '-')}; "
                          "a spec is one objective, then add-ons")
    make = getattr(module, kind)
    knobs = config.knobs.get(name, {})
    names = [p.name for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in knobs:
        known("knob", key, names, f"knobs.{name} of params.yaml")
    missing = [key for key in names if key not in knobs]
    if missing:
        raise ConfigError(f"knobs.{name} in params.yaml lacks {', '.join(missing)}")
    return make(*method, config, **knobs)
