"""Activations against their formulas, written again in numpy; how they relate; and that each goes everywhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit as sigmoid
from scipy.special import softmax
from torch import nn

from lib import activations, config, methods, models
from lib.activations import _parts
from lib.config import Model
from lib.params import ConfigError

KNOBS = config.load("default", "digits").knobs
LEARNED = ["acon", "atac", "denoising", "dyrelu", "frelu", "pssilu", "se", "smoothrelu", "sparta", "swish"]


def build(name, channels=5, **changes):
    """The activation with the knobs of params.yaml, but for some."""
    torch.manual_seed(0)
    return activations.build(name, {**KNOBS.get(name, {}), **changes})(channels)


def trained(name, channels=5, **changes):
    """The activation in float64, in eval mode, every number of it far from its first value."""
    module = build(name, channels, **changes).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(0.3 + torch.rand(tensor.shape, generator=generator).double())
                tensor.mul_(torch.where(torch.rand(tensor.shape, generator=generator) < 0.3, -1, 1))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var.abs_()
    return module


def features(*shape, seed=2):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The formulas in numpy ------------------------------------------------------------------------------------------------
def value(parameter):
    return parameter.detach().numpy()


def across(layer, x):
    """A 1 x 1 convolution."""
    bias = 0 if layer.bias is None else value(layer.bias)[:, None, None]
    return np.tensordot(value(layer.weight)[:, :, 0, 0], x, (1, 1)).swapaxes(0, 1) + bias


def normalised(layer, x):
    """BatchNorm, in the mode that it is in."""
    mean, variance = ((x.mean((0, 2, 3)), x.var((0, 2, 3))) if layer.training
                      else (value(layer.running_mean), value(layer.running_var)))
    each = [a[:, None, None] for a in (mean, np.sqrt(variance + 1e-5), value(layer.weight), value(layer.bias))]
    return (x - each[0]) / each[1] * each[2] + each[3]


def neighbours(layer, x):
    """A convolution of each channel alone."""
    weight, height, width = value(layer.weight), *x.shape[2:]
    reach = weight.shape[2] // 2
    wide = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    return sum(weight[:, 0, i, j][:, None, None] * wide[:, :, i:i + height, j:j + width]
               for i in range(weight.shape[2]) for j in range(weight.shape[3]))


def pssilu(m, x):
    a, b = abs(m.slope.item()), min(abs(m.shift.item()), 0.9)
    return x * (sigmoid(a * x) - b) / (1 - b)


def smoothrelu(m, x):
    b = m.root.item() ** 2
    return np.maximum(x - np.log(1 + b * np.abs(x)) / b, 0)  # as it is written in the authors' code


def dyrelu(m, x):
    hidden = np.maximum(across(m.chosen[1], x.mean((2, 3), keepdims=True)), 0)
    theta = (2 * sigmoid(across(m.chosen[3], hidden)) - 1).reshape(len(x), 4, -1, 1, 1)
    return np.max([(1 + theta[:, 0]) * x + theta[:, 2] / 2, theta[:, 1] * x + theta[:, 3] / 2], 0)


def acon(m, x):
    p, q = value(m.p)[:, None, None], value(m.q)[:, None, None]
    mean = x.mean((2, 3), keepdims=True)
    beta = sigmoid(normalised(m.beta[4], across(m.beta[3], normalised(m.beta[2], across(m.beta[1], mean)))))
    return (p * x - q * x) * sigmoid(beta * (p * x - q * x)) + q * x


def atac(m, x):
    hidden = np.maximum(normalised(m.gate[1], across(m.gate[0], x)), 0)
    return x * sigmoid(normalised(m.gate[4], across(m.gate[3], hidden)))


def se(m, x):
    w1, w2 = (value(m.gate[i].weight)[:, :, 0, 0] for i in (1, 3))
    return np.maximum(x * sigmoid(np.maximum(x.mean((2, 3)) @ w1.T, 0) @ w2.T)[:, :, None, None], 0)


def simam(m, x):
    count = x.shape[2] * x.shape[3]
    variance = x.var((2, 3), ddof=1, keepdims=True) if count > 1 else 0
    away = (x - x.mean((2, 3), keepdims=True)) ** 2
    return np.maximum(x * sigmoid(away / (4 * (variance + 1e-4)) + 0.5), 0)


def denoising(m, x):
    theta, phi, y = across(m.theta, x), across(m.phi, x), np.zeros_like(x)
    for n, i, j in np.ndindex(len(x), *x.shape[2:]):
        affinity = np.einsum("c,chw->hw", theta[n, :, i, j], phi[n])
        if m.affinity == "softmax":
            y[n, :, i, j] = (x[n] * softmax(affinity / np.sqrt(len(phi[n])))).sum((1, 2))
        else:
            y[n, :, i, j] = (x[n] * affinity).mean((1, 2))
    return np.maximum(x + normalised(m.back[1], across(m.back[0], y)), 0)


FORMULAS = {
    "relu": lambda m, x: np.maximum(x, 0),
    "softplus": lambda m, x: np.logaddexp(x, 0),
    "elu": lambda m, x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda m, x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "silu": lambda m, x: x * sigmoid(x),
    "swish": lambda m, x: x * sigmoid(value(m.slope)[:, None, None] * x),
    "pssilu": pssilu, "smoothrelu": smoothrelu,
    "frelu": lambda m, x: np.maximum(x, normalised(m.condition[1], neighbours(m.condition[0], x))),
    "dyrelu": dyrelu, "acon": acon, "atac": atac, "se": se, "simam": simam, "denoising": denoising,
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("name", "knobs"), [*((name, {}) for name in FORMULAS), ("frelu", {"kernel": 5}),
                                             ("denoising", {"affinity": "dot"}), ("atac", {"reduction": 1})])
def test_formulas(name, knobs, mode):
    module = trained(name, 12, **knobs).train(mode == "train")
    for x in (features(3, 12, 4, 3), features(3, 12, 1, 1), 30 * features(2, 12, 2, 2)):
        expected = FORMULAS[name](module, x.numpy())
        np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_every_activation_is_compared_and_has_its_knobs():
    compared = config.load("default", "digits").activations.compared
    assert sorted(compared) == activations.available() == sorted([*FORMULAS, "sparta"])
    assert compared[0] == "relu" and compared[-1] == "sparta"


# How they relate ------------------------------------------------------------------------------------------------------
def test_swish():
    x = features(2, 5, 3, 3)
    sparta = build("sparta", context="none").double()
    assert torch.equal(build("swish").double()(x), F.silu(x)) or torch.allclose(build("swish").double()(x), F.silu(x))
    swish = trained("swish")
    with torch.no_grad():
        sparta.slope.copy_(swish.slope)
    assert torch.equal(sparta(x), swish(x)) and not torch.allclose(swish(x), F.silu(x), atol=0.01)
    with torch.no_grad():
        swish.slope.fill_(1e4)
    assert torch.allclose(swish(x), F.relu(x), atol=1e-4)


def test_pssilu():
    x, module = features(2, 5, 3, 3), build("pssilu").double()
    assert torch.allclose(module(x), F.silu(x))
    with torch.no_grad():
        module.shift.fill_(0.4)
    shifted = module(x)
    with torch.no_grad():
        module.shift.fill_(-0.4)
        module.slope.neg_()
    assert torch.equal(module(x), shifted) and (shifted > F.silu(x))[x < 0].all() and shifted[x < -2].min() > 0
    with torch.no_grad():
        module.shift.fill_(0.9)
    most = module(x)
    with torch.no_grad():
        module.shift.fill_(1.0)
    assert torch.equal(module(x), most) and most.isfinite().all()  # 1 - |b| is never 0


@pytest.mark.parametrize(("shift", "sign"), [(0.0, 1), (0.2, 1), (-0.2, -1), (0.95, 0)])
def test_the_gradient_of_pssilus_shift(shift, sign):
    """As of |b|, but 1 at b = 0, so that b leaves its first value; none above the bound."""
    module = build("pssilu").double()
    with torch.no_grad():
        module.shift.fill_(shift)
    module(-features(100).abs().view(1, 5, 4, 5)).sum().backward()
    assert torch.sign(module.shift.grad) == sign  # where x < 0, a larger |b| is a larger output


def test_smoothrelu():
    x = features(2, 5, 3, 3)
    errors = [(build("smoothrelu", b=b).double()(x) - F.relu(x)).abs().max().item() for b in (1.0, 400.0, 1e6)]
    assert errors[0] > 0.3 and errors[1] < 0.02 and errors[2] < 2e-5
    module = build("smoothrelu")
    assert module.root.item() == 20.0
    inputs = torch.tensor([-1e30, -1.0, 0.0, 1e-30, 1e-3, 1e30]).view(1, 1, 1, -1).requires_grad_()
    module(inputs).sum().backward()
    assert inputs.grad.isfinite().all() and (module(inputs) > -1e-9).all()
    expected = [0, 0, 0, 0, 0.4 / 1.4, 1]  # b x / (1 + b x)
    assert inputs.grad.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        module.root.zero_()
    assert module(inputs).isfinite().all()


def test_frelu_is_at_least_its_input():
    x = features(2, 5, 4, 4)
    found = trained("frelu")(x)
    assert (found >= x).all() and (found > x).any() and (found == x).any()


def test_first_values():
    x = features(3, 5, 4, 4).float()
    for mode in (True, False):
        for affinity in ("softmax", "dot"):
            assert torch.equal(build("denoising", affinity=affinity).train(mode)(x), F.relu(x))
        assert torch.equal(build("dyrelu").train(mode)(x), F.relu(x))
        for name in ("swish", "pssilu", "sparta"):
            assert torch.allclose(build(name).train(mode)(x), F.silu(x), atol=1e-6)
    assert torch.allclose(build("se")(x), F.relu(x) / 2, atol=0.1 * x.max().item())
    acon = build("acon", 4000)
    numbers = torch.stack([acon.p, acon.q])
    assert numbers.mean().abs() < 0.05 and abs(numbers.std() - 1) < 0.05 and not torch.equal(acon.p, acon.q)
    for name in ("denoising", "dyrelu", "sparta"):  # no other first value keeps them there
        assert not torch.allclose(trained(name).float()(x), F.relu(x), atol=0.1)


POSITION, NEIGHBOURHOOD, EVERYWHERE = 1, 9, 25
REACH = {**dict.fromkeys(activations.available(), POSITION), "frelu": NEIGHBOURHOOD, "sparta": NEIGHBOURHOOD,
         **dict.fromkeys(["dyrelu", "acon", "se", "simam", "denoising"], EVERYWHERE)}


@pytest.mark.parametrize("name", activations.available())
def test_where_an_output_looks(name):
    """Which positions of a 5 x 5 image move the output at its centre, and that no other image does."""
    module, x = trained(name), (features(2, 5, 5, 5).abs() / 5 + 0.1).requires_grad_()
    gradient = torch.autograd.grad(module(x)[0, :, 2, 2].sum(), x)[0]
    looked = gradient[0].abs().sum(0) > 1e-12
    assert looked.sum() == REACH[name] and looked[2, 2] and not gradient[1].any()
    if REACH[name] == NEIGHBOURHOOD:
        assert looked[1:4, 1:4].all()


@pytest.mark.parametrize("name", activations.available())
def test_gradients(name):
    module = trained(name)
    for shape in ((2, 5, 2, 3), (2, 5, 1, 1)):
        assert torch.autograd.gradcheck(module, (features(*shape).requires_grad_(),))


CORNERED = ["relu", "frelu", "se", "simam"]
SMOOTH = ["softplus", "elu", "gelu", "silu", "swish", "pssilu", "smoothrelu", "acon", "sparta"]


@pytest.mark.parametrize("name", CORNERED + SMOOTH)
def test_corners(name):
    """Whether the slope jumps where a channel passes 0; there, for those whose corner is at 0."""
    module, slopes = trained(name, 1), []
    if name == "frelu":
        with torch.no_grad():
            module.condition[1].running_mean.zero_()
            module.condition[1].bias.zero_()
    for side in (-1e-7, 1e-7):
        x = torch.full((1, 1, 1, 1), side, dtype=torch.float64, requires_grad=True)
        slopes.append(torch.autograd.grad(module(x).sum(), x)[0].item())
    assert (abs(slopes[1] - slopes[0]) > 0.1) == (name in CORNERED)


# As parts of networks -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", activations.available())
def test_any_features(name):
    """Any number of channels and any size, in both modes, of one image too; the same bits each time."""
    for channels in (1, 3, 20):
        module = build(name, channels)
        for shape in ((1, 1), (5, 2)):
            for images in (1, 4):
                x = features(images, channels, *shape).float().requires_grad_()
                module.train()(x)
                found = module.eval()(x)
                assert found.shape == x.shape and found.dtype == torch.float32 and torch.equal(module(x), found)
                assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()
                assert torch.equal(build(name, channels).eval()(x), build(name, channels).eval()(x))


@pytest.mark.parametrize("network", models.NETWORKS)
@pytest.mark.parametrize("name", activations.available())
def test_every_activation_goes_into_every_network(network, name):
    def made(activation):
        torch.manual_seed(3)
        return models.build(Model(network, 1 if "wide" in network else 2, "relu"), (1, 8, 8), 3, ([0.5], [0.5]),
                            activation)

    plain, model = made(None), made(activations.build(name, KNOBS.get(name)))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(4)).requires_grad_()
    logits = model(x)
    gradient = torch.autograd.grad(logits.square().sum(), x)[0]
    assert logits.shape == (4, 3) and gradient.isfinite().all() and gradient.flatten(1).any(1).all()
    own, weights = dict(model.named_parameters()), dict(plain.named_parameters())
    assert weights.keys() <= own.keys() and all(torch.equal(own[key], weight) for key, weight in weights.items())
    inside = activations.learned(model)
    assert len(inside) == (len(models.sites(model)) if name in LEARNED else 0)


@pytest.mark.parametrize("name", LEARNED)
def test_all_parameters_learn(name):
    """None is stuck at its first value, as b of PSSiLU would be under torch's abs; vectors and numbers stay so."""
    module = build(name, 12)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for seed in range(4):
        x = features(8, 12, 4, 4, seed=seed).float()
        optimizer.zero_grad()
        (module(x) - x.roll(1, 1).square()).square().mean().backward()
        optimizer.step()
    for key, parameter in module.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[key]), key
        assert parameter.dim() == 4 or parameter.dim() <= 1


@pytest.mark.parametrize(("name", "names"), [
    ("relu", []), ("simam", []), ("se", []), ("swish", ["slope"]), ("pssilu", ["slope", "shift"]),
    ("smoothrelu", ["root"]), ("frelu", ["condition.1.weight", "condition.1.bias"]),
    ("dyrelu", ["chosen.1.bias", "chosen.3.bias"]),
    ("acon", ["p", "q", *(f"beta.{i}.{part}" for i in (2, 4) for part in ("weight", "bias"))]),
    ("atac", [f"gate.{i}.{part}" for i in (1, 4) for part in ("weight", "bias")]),
    ("denoising", ["back.1.weight", "back.1.bias"]), ("sparta", ["slope", "g.1.bias", "g.3.bias"])])
def test_what_weight_decay_leaves_alone(name, names):
    module = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), build(name))
    own = dict(module[2].named_parameters())
    assert {id(p) for p in activations.undecayed(module)} == {id(own[key]) for key in names}
    assert all(own[key].dim() <= 1 for key in names)
    assert isinstance(module[2], activations.Learned) == (name in LEARNED) == bool(own)


def test_batch_norm_of_one_value():
    """As torch's, but where torch's cannot say a variance."""
    own, plain = _parts.BatchNorm(3).train(), nn.BatchNorm2d(3).train()
    x = features(4, 3, 1, 1).float()
    assert torch.equal(own(x), plain(x)) and torch.equal(own.running_var, plain.running_var)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        plain(x[:1])
    assert torch.equal(own(x[:1]), plain.eval()(x[:1])) and torch.equal(own.running_mean, plain.running_mean)
    assert own.num_batches_tracked == 1


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "changes", "message"), [
    ("swich", {}, "unknown activation 'swich' .*did you mean 'swish'"),
    ("_parts", {}, "unknown activation '_parts'"),
    ("swish", {"slope": 1}, "unknown knob 'slope' in knobs.swish of params.yaml; there are: none"),
    ("se", {"reductoin": 2}, "unknown knob 'reductoin' in knobs.se .*did you mean 'reduction'"),
    ("se", {"reduction": 0}, "knobs.se.reduction in params.yaml is 0: it has to be a whole number above 0$"),
    ("acon", {"reduction": 1.5}, "knobs.acon.reduction in params.yaml is 1.5"),
    ("atac", {"reduction": True}, "knobs.atac.reduction in params.yaml is True"),
    ("dyrelu", {"reduction": "4"}, "knobs.dyrelu.reduction in params.yaml is '4'"),
    ("frelu", {"kernel": 2}, "knobs.frelu.kernel in params.yaml is 2: it has to be a whole number above 0 and odd"),
    ("smoothrelu", {"b": 0}, "knobs.smoothrelu.b in params.yaml is 0: it has to be a number above 0"),
    ("simam", {"regulariser": "no"}, "knobs.simam.regulariser in params.yaml is 'no': it has to be a number above 0"),
    ("denoising", {"affinity": "max"}, "unknown affinity 'max' in knobs.denoising .*there are: softmax, dot")])
def test_errors_are_one_line(name, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        build(name, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in activations.available() if KNOBS.get(name)])
def test_knobs_that_are_missing(name):
    names = ", ".join(KNOBS[name])
    with pytest.raises(ConfigError, match=f"^knobs.{name} in params.yaml lacks (.*)$") as error:
        activations.build(name)
    assert set(str(error.value).split(" lacks ")[1].split(", ")) == set(names.split(", "))


@pytest.mark.parametrize(("spec", "message"), [
    ("pgd+silu+sparta", "'pgd\\+silu\\+sparta' names 2 activations, silu and sparta: choose one"),
    ("pgd+swish+awp+swish", "names 2 activations, swish and swish: choose one"),
    ("silu", "'silu': 'silu' is an activation; a spec begins with an objective"),
    ("swish+pgd", "'swish' is an activation; a spec begins with an objective"),
    ("pgd+swich", "unknown method 'swich' in 'pgd\\+swich' \\(did you mean 'swish'")])
def test_specs_that_are_none(cfg, spec, message):
    with pytest.raises(ConfigError, match=message) as error:
        methods.build(replace(cfg, method=spec))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["pgd+swish", "pgd+awp+denoising", "trades+frelu+awp"])
def test_a_spec_puts_it_into_the_network(cfg, digits, spec):
    name = next(part for part in spec.split("+") if part in LEARNED)
    method = methods.build(replace(cfg, method=spec))
    network = method.network(cfg.model, digits.shape, 10, digits.statistics)
    assert {type(one) for one in activations.learned(network)} == {type(build(name))}
    assert len(activations.learned(network)) == len(models.sites(network)) == 5
