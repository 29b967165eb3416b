"""What is compared: the reference loop, and `lib.train` with one thing after the other switched on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module

import torch
from torch import nn

from lib import compute, cost, methods, train
from lib.bench.reference import Reference, supports
from lib.config import Compute, Config
from lib.data import Dataset, Images
from lib.params import ConfigError

# The reference computes as torch does by default, on a GPU with convolutions in TF32; STRICT is the same without TF32.
REFERENCE, STRICT, OURS, AUTO = "reference", "reference without TF32", "ours", "auto"
REFERENCES = (REFERENCE, STRICT)
PLAIN = {"precision": "float32", "memory_format": "contiguous", "compile": False}
# Each arm after OURS adds one thing to the arm before it; AUTO is what params.yaml's `auto` chooses on this machine.
EVAL, LAST, HALF, COMPILED = "+ BatchNorm eval", "+ channels last", "+ bfloat16", "+ compile"
ORDER = (*REFERENCES, OURS, EVAL, LAST, HALF, COMPILED, AUTO)


@dataclass(frozen=True)
class Arm:
    """One way to train `method`: by the reference loop or by ours, in an arithmetic and a mode of BatchNorm.

    precision, memory_format and compile: as in params.yaml. batchnorm: its mode while the training attack runs, eval or
    train; None: as params.yaml has it.
    """

    method: str
    name: str = AUTO
    precision: str = "auto"
    memory_format: str = "auto"
    compile: str | bool = "auto"
    batchnorm: str | None = None


def authors(spec: str) -> str:
    """The mode of BatchNorm in the training attack of the authors' code: train for PGD and AWP, else eval."""
    return "train" if spec.split("+")[0] == "pgd" and "ducat" not in spec.split("+") else "eval"


def ladder(spec: str, device: torch.device, short: bool = False) -> list[Arm]:
    """The arms of a method: the reference, where there is one, and ours from the plain arithmetic to all that is fast.

    What would change nothing is left out: BatchNorm in eval mode where the authors have it so, TF32 on a CPU, and
    bfloat16 where the device lacks it. COMPILED is on a GPU only. short: the reference and AUTO alone.
    """
    mode, cuda = authors(spec), device.type == "cuda"
    names = ([REFERENCE] if short else [REFERENCE, STRICT][:1 + cuda]) if supports(spec) else []
    arms = [Arm(spec, name, **PLAIN, batchnorm=mode) for name in names]
    if not short:
        rungs = [(OURS, {"batchnorm": mode}, True), (EVAL, {"batchnorm": "eval"}, mode != "eval"),
                 (LAST, {"memory_format": "channels_last"}, True), (HALF, {"precision": "bfloat16"}, able(device)),
                 (COMPILED, {"compile": True}, cuda)]
        now = dict(PLAIN)
        for name, change, wanted in rungs:
            now |= change if wanted else {}
            arms += [Arm(spec, name, **now)] if wanted else []
    return [*arms, Arm(spec)]


def able(device: torch.device) -> bool:
    """Whether the device computes in bfloat16."""
    compute_in = Compute(device.type, "bfloat16", "auto", "auto", "auto", 1, 0, 1)
    try:
        return compute.precision(compute_in, device) == torch.bfloat16
    except ConfigError:
        return False


def configured(config: Config, arm: Arm) -> Config:
    """The config of an arm."""
    objective, knobs = cost.base(arm.method), config.knobs
    if arm.batchnorm and "batchnorm" in knobs.get(objective, {}):
        knobs = {**knobs, objective: {**knobs[objective], "batchnorm": arm.batchnorm}}
    return replace(config, method=arm.method, knobs=knobs,
                   compute=replace(config.compute, precision=arm.precision, memory_format=arm.memory_format,
                                   compile=arm.compile))


class Ours:
    """A training of `config.method` by `lib.train`, with the interface of `Reference`."""

    def __init__(self, config: Config, dataset: Dataset, device: torch.device, total: int,
                 log: Callable[[str], None] = print):
        if device.type == "cuda":
            _make_room()
        self.config, self.method = config, methods.build(config)
        self.network = train.initial(config, self.method, dataset, device)
        example = torch.zeros(config.train.batch_size, *dataset.shape, device=device)
        compute.compiled(self.network, config.compute, example, log)
        self.optimizer, self.scheduler = train.optimizer_and_schedule(config, self.network, total)
        self.generator, self.networks = compute.generator(config.seed, device), [self.network]

    def epoch(self, images: Images, start: float, scheduler) -> dict[str, float]:
        """One pass over the images from `start`, the share of training that is done; its mean loss."""
        return {"loss": train.train_epoch(self.config, self.method, self.network, images, self.optimizer, scheduler,
                                          self.generator, start)}


def build(config: Config, arm: Arm, dataset: Dataset, device: torch.device, total: int = 1_000_000,
          workers: int = 0) -> Ours | Reference:
    """The arm, ready to train. total: steps of its schedule; by default so many that its learning rate hardly moves.

    workers: processes of the reference's loader. Raises ConfigError for an arithmetic that the device lacks.
    """
    found = configured(config, arm)
    compute.device(found.compute)
    if arm.name in REFERENCES:
        return Reference(found, dataset, device, total, workers, tf32=arm.name == REFERENCE)
    return Ours(found, dataset, device, total)


def _make_room() -> None:
    """Let torch compile as many networks as are compared: it gives up, without a word, at the ninth of one class."""
    settings = import_module("torch._dynamo").config
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        if hasattr(settings, name):
            setattr(settings, name, 4096)


def resolved(config: Config, arm: Arm, network: nn.Module, device: torch.device) -> dict[str, str | bool]:
    """What an arm's settings come to on this device, read off the network where it shows."""
    found = configured(config, arm)
    kind = str(compute.precision(found.compute, device)).removeprefix("torch.")
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    last = all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    compiled = any(module._compiled_call_impl for module in network.modules())
    mode = found.knobs.get(cost.base(arm.method), {}).get("batchnorm", "none")
    return {"precision": "tf32" if arm.name == REFERENCE and device.type == "cuda" else kind,
            "memory_format": "channels_last" if last else "contiguous", "compile": compiled, "batchnorm": mode}
