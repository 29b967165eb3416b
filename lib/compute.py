"""Where training computes and in what arithmetic, and what makes a run repeatable: `compute` of params.yaml.

The switch changes how fast a network is trained and attacked, never how it is judged: whatever the arithmetic inside, a
classifier's logits are float32, and what it says of an image is always computed in float32.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from lib.config import Compute
from lib.layers import Classifier
from lib.params import ConfigError, known

SWITCH = ("auto", True, False)
WORDS = {"device": ("auto", "cpu", "cuda"), "precision": ("auto", "float32", "bfloat16"),
         "memory_format": ("auto", "contiguous", "channels_last"), "compile": SWITCH, "deterministic": SWITCH}
LEAST = {"threads": 1, "workers": 0, "processes": 1}
GRAPHS = 64  # which torch makes of networks, one for each mode and batch size; what comes after them runs as it is
RANK = "LOCAL_RANK"  # environment variable of torchrun: which process on this machine


def device(compute: Compute) -> torch.device:
    """The device that `compute` asks for, after setting torch's threads and its deterministic algorithms.

    On one CPU thread a run gives the same bits each time. Raises ConfigError for a device or a precision that this
    machine lacks, and for any other value of `compute` that means nothing.
    """
    for name, values in WORDS.items():
        known(name.replace("_", " "), getattr(compute, name), values, f"compute.{name} of params.yaml")
    for name, least in LEAST.items():
        if (value := getattr(compute, name)) < least:
            raise ConfigError(f"compute.{name} in params.yaml is {value}: it has to be at least {least}")
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device is cuda, but torch sees no GPU here: use auto or cpu")
    torch.set_num_threads(compute.threads)
    use_cuda = compute.device != "cpu" and torch.cuda.is_available()
    chosen = torch.device("cuda", int(os.environ.get(RANK, 0))) if use_cuda else torch.device("cpu")
    deterministic = not use_cuda if compute.deterministic == "auto" else compute.deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if use_cuda:
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32; torch allows less in convolutions
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
    precision(compute, chosen)
    return chosen


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts from `seed`."""
    return torch.Generator(device).manual_seed(seed)


def precision(compute: Compute, device: torch.device) -> torch.dtype:
    """In what convolutions and matrix products of training and of attacks are computed: float32 or bfloat16.

    auto: bfloat16 where the hardware multiplies matrices in it, which is on GPUs since Ampere and on CPUs with AMX.
    Raises ConfigError for bfloat16 where it is only emulated.
    """
    known("precision", compute.precision, WORDS["precision"], "compute.precision of params.yaml")
    matrices, able = _bfloat16(device)
    if compute.precision == "bfloat16" and not able:
        raise ConfigError(f"compute.precision is bfloat16, which this {device.type} has no instructions for: "
                          "use auto or float32")
    low = compute.precision == "bfloat16" or compute.precision == "auto" and matrices
    return torch.bfloat16 if low else torch.float32


def _bfloat16(device: torch.device) -> tuple[bool, bool]:
    """Whether the device multiplies matrices in bfloat16, and whether it has any instructions for it."""
    if device.type == "cuda":
        able = torch.cuda.get_device_capability(device) >= (8, 0)
        return able, able
    found = torch.cpu.get_capabilities()
    return found.get("amx_bf16", False), found.get("amx_bf16", False) or found.get("avx512_bf16", False)


def fast(compute: Compute, device: torch.device) -> AbstractContextManager:
    """The context in which networks compute in the precision of `compute`; weights stay float32."""
    dtype = precision(compute, device)
    if dtype == torch.float32:
        return nullcontext()
    # Without the cache of cast weights: the optimiser and AWP change weights in place, and it would not notice.
    return torch.autocast(device.type, dtype, cache_enabled=False)


def exact(device: torch.device) -> AbstractContextManager:
    """Within `fast`, float32 again."""
    return torch.autocast(device.type, enabled=False)


def place(model: nn.Module, compute: Compute, device: torch.device) -> nn.Module:
    """The model on the device, with its weights, and so its activations, in the memory format of `compute`.

    auto: channels last, which CPUs and tensor cores are quicker with, but not a GPU in float32.
    """
    known("memory format", compute.memory_format, WORDS["memory_format"], "compute.memory_format of params.yaml")
    device = torch.device(device)
    last = device.type == "cpu" or precision(compute, device) == torch.bfloat16
    if compute.memory_format == "channels_last" or compute.memory_format == "auto" and last:
        return model.to(device, memory_format=torch.channels_last)
    return model.to(device)


def compiled(model: nn.Module, compute: Compute, example: torch.Tensor, log: Callable[[str], None]) -> None:
    """Have torch compile the network within a classifier, in place, if `compute` asks for it; on a GPU as CUDA graphs.

    example: a batch (N, C, H, W) of the shape that training has. auto: on a GPU. What cannot be compiled runs as it is,
    and a line says why.
    """
    if not _wanted(compute, example.device):
        return
    network = next(m for m in model.modules() if isinstance(m, Classifier))
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
        network.compile(mode="reduce-overhead" if example.is_cuda else "default", dynamic=False)
        with fast(compute, example.device):
            _try(network, example)
    except Exception as error:  # what the compiler raises is of many kinds
        network._compiled_call_impl = None
        log(f"not compiled: {type(error).__name__}: {' '.join(str(error).split())[:200] or 'no message'}")
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def _try(network: nn.Module, x: torch.Tensor) -> None:
    """Both passes of training, each of which is compiled by itself: that of a step, and that of an attack."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    torch.autograd.grad(network.train()(x).sum(), weights)
    try:
        for weight in weights:
            weight.requires_grad_(False)
        image = x.clone().requires_grad_()
        torch.autograd.grad(network.eval()(image).sum(), image)
    finally:
        network.train()
        for weight in weights:
            weight.requires_grad_(True)


def eager(compute: Compute, device: torch.device) -> AbstractContextManager:
    """The context in which a compiled network runs as it is: on other batch sizes, for each of which it would be
    compiled anew."""
    return torch.compiler.set_stance("force_eager") if _wanted(compute, device) else nullcontext()


def _wanted(compute: Compute, device: torch.device) -> bool:
    """Whether to compile."""
    return device.type == "cuda" if compute.compile == "auto" else compute.compile


@contextmanager
def memory_for(batch: int) -> Iterator[None]:
    """Where memory runs out in here, one line that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"out of memory in a training step of {batch} images: lower train.batch_size") from None


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out: torch has a kind of error for GPUs alone."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
