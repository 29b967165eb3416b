"""Sparta: identities, starts, what its gate depends on, and what training may move."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import activations, attacks, compute, config, methods, models, train
from lib.activations.sparta import CONTEXTS, Constant, Sparta
from lib.config import Model
from lib.params import ConfigError

KNOBS = {"form": "gate", "context": "spatial", "slope": True, "start": "zero", "one_map": False, "kernel": 3,
         "reduction": 16}
CPU = torch.device("cpu")


def make(channels=6, moved=True, **changes):
    """Sparta of so many channels in float64; moved: with parameters other than its first ones."""
    torch.manual_seed(0)
    module = activations.build("sparta", KNOBS | changes)(channels)
    module(torch.zeros(1, channels, 5, 7))
    module = module.double()
    if moved:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.7)
    return module


@pytest.fixture
def x():
    return torch.randn(4, 6, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_formula_a_second_time(x):
    sparta = make()
    look, first, _, second = sparta.g
    around = torch.zeros_like(x)
    padded = F.pad(x, (1, 1, 1, 1))
    for i in range(3):
        for j in range(3):
            around += look.weight[:, 0, i, j].view(-1, 1, 1) * padded[:, :, i:i + 5, j:j + 7]
    hidden = torch.einsum("hc,ncij->nhij", first.weight[:, :, 0, 0], around) + first.bias.view(-1, 1, 1)
    hidden = hidden / (1 + (-hidden).exp())
    g = torch.einsum("ch,nhij->ncij", second.weight[:, :, 0, 0], hidden) + second.bias.view(-1, 1, 1)
    z = sparta.slope.view(-1, 1, 1) * x + g
    torch.testing.assert_close(sparta(x), x / (1 + (-z).exp()))
    torch.testing.assert_close(sparta.logits(x), z)


@pytest.mark.parametrize("context", CONTEXTS)
def test_it_begins_as_silu_whatever_it_looks_at(x, context):
    torch.testing.assert_close(make(moved=False, context=context)(x), F.silu(x))


@pytest.mark.parametrize(("changes", "begins"), [
    ({"form": "relu"}, F.relu), ({"form": "threshold"}, F.relu), ({"form": "add"}, F.silu),
    ({"one_map": True}, F.silu)])
def test_variants_begin_as_what_they_extend(x, changes, begins):
    torch.testing.assert_close(make(moved=False, **changes)(x), begins(x))


def test_without_g_it_is_swish_and_towards_steep_slopes_relu(x):
    sparta = make(context="none")
    torch.testing.assert_close(sparta(x), x * torch.sigmoid(sparta.slope.view(-1, 1, 1) * x))
    distances = []
    for slope in (1.0, 10.0, 100.0, 1000.0):
        nn.init.constant_(sparta.slope, slope)
        distances.append((sparta(x) - F.relu(x)).abs().max().item())
        assert distances[-1] < 0.2785 / slope  # max of u sigmoid(-u) for u > 0, here with u = slope |x|
    assert distances == sorted(distances, reverse=True)


def test_variants_a_second_time(x):
    for form, wanted in {"relu": lambda g: F.relu(x) * 2 / (1 + (-g).exp()), "threshold": lambda g: torch.max(x, g),
                         "add": lambda g: x / (1 + (-x).exp()) + g}.items():
        sparta = make(form=form)
        assert sparta.slope is None
        torch.testing.assert_close(sparta(x), wanted(sparta.g(x)))
    bare = make(slope=False, start="random")
    torch.testing.assert_close(bare(x), x * torch.sigmoid(bare.g(x)))
    for slope in (True, False):
        assert make(moved=False, slope=slope, start="random").g(x).std() > 0.01


def changed(sparta, x, place=(2, 3)):
    """Where the gate moves, (N, H, W), if one image changes in all channels at one position."""
    other = x.clone()
    other[0, :, place[0], place[1]] += 1
    return (sparta.g(x) - sparta.g(other)).expand_as(x).abs().amax(1) > 1e-9


def test_what_each_context_looks_at(x):
    near = torch.zeros(5, 7, dtype=torch.bool)
    near[1:4, 2:5] = True
    assert torch.equal(changed(make(), x)[0], near)
    wide = changed(make(context="full"), x)[0]
    assert wide[0:5, 1:6].all() and not wide[:, 0].any() and not wide[:, 6].any()
    alone = changed(make(kernel=1), x)[0]
    assert alone[2, 3] and alone.sum() == 1
    assert changed(make(context="pooled"), x)[0].all()
    assert torch.equal(changed(make(context="agnostic", kernel=1), x)[0], alone)
    for context in ("map", "bias", "none"):
        assert not changed(make(context=context), x).any()
    assert not any(changed(make(context=c), x)[1:].any() for c in CONTEXTS)  # nor the other images of the batch


def test_where_each_context_varies(x):
    even = x.mean(dim=(2, 3), keepdim=True).expand_as(x).contiguous()  # all positions alike
    assert make(context="map").g(even).std(dim=(1, 2)).min() > 0.1
    for context in ("pooled", "bias"):
        assert make(context=context).g(even).expand_as(x).std(dim=(2, 3)).max() < 1e-12
    one = make(one_map=True).g(x)
    assert one.shape == (4, 1, 5, 7)
    assert make(context="agnostic").g.each[0].weight.shape[1] == 1


@pytest.mark.parametrize("changes", [{}, {"context": "full"}, {"context": "pooled"}, {"context": "map"},
                                     {"context": "agnostic"}, {"form": "relu"}, {"form": "add"},
                                     {"slope": False, "start": "random"}])
def test_gradients_go_through_the_gate(changes):
    sparta = make(channels=2, **changes)
    x = torch.randn(1, 2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(sparta, (x,), atol=1e-6)


def test_bad_knobs_are_one_line():
    for changes, message in (({"context": "spacial"}, "unknown context 'spacial' .*did you mean 'spatial'"),
                             ({"form": "gated"}, "unknown form 'gated'"),
                             ({"slope": False}, "without a slope and with start zero .* set start: random"),
                             ({"start": "one"}, "unknown start 'one'"), ({"kernel": 2}, "knobs.sparta.kernel .* odd"),
                             ({"reduction": 0}, "knobs.sparta.reduction .* above 0")):
        with pytest.raises(ConfigError, match=message):
            make(**changes)


@pytest.mark.parametrize(("context", "extra"), [("spatial", (220_360, 402_744)), ("full", (1_602_440, 2_881_912))])
def test_parameters_in_the_networks_of_the_abstract(context, extra):
    for name, relu, more in zip(("resnet18", "resnet34"), (11_173_962, 21_282_122), extra, strict=True):
        with torch.device("meta"):
            found = [models.build(Model(name, 64, "relu"), (3, 32, 32), 10, ([0.5] * 3, [0.2] * 3), activation)
                     for activation in (None, activations.build("sparta", KNOBS | {"context": context}))]
        counts = [sum(p.numel() for p in network.parameters()) for network in found]
        assert counts == [relu, relu + more]


@pytest.fixture
def spec(cfg):
    return lambda spec, **knobs: replace(cfg, method=spec, knobs={
        **cfg.knobs, "sparta": {**config.load("smoke", "digits").knobs["sparta"], **knobs}})


def test_at_first_the_network_is_the_one_of_silu(spec, digits):
    found = {}
    for name in ("pgd+silu", "pgd+sparta", "pgd", "pgd+relu"):
        run = spec(name)
        found[name] = train.initial(run, methods.build(run), digits, CPU).eval()
    x, _ = digits.test.first(8).floats()
    torch.testing.assert_close(found["pgd+silu"](x), found["pgd+sparta"](x))
    assert torch.equal(found["pgd"](x), found["pgd+relu"](x)) and not torch.equal(found["pgd"](x), found["pgd+silu"](x))
    own = {name: value for name, value in found["pgd+sparta"].state_dict().items() if ".g." not in name
           and "slope" not in name}
    for name, value in found["pgd+silu"].state_dict().items():
        assert torch.equal(own[name], value)


def test_weight_decay_leaves_slopes_and_biases_alone(spec, digits):
    run = spec("pgd+sparta")
    model = train.initial(run, methods.build(run), digits, CPU)
    optimizer, _ = train.optimizer_and_schedule(run, model, 10)
    decayed, alone = optimizer.param_groups
    assert decayed["weight_decay"] == run.train.weight_decay > 0 == alone["weight_decay"]
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".g.")[-1].split(".")[-1] for p in alone["params"]} == {"slope", "bias"}
    gates = [m for m in model.modules() if isinstance(m, Sparta)]
    assert len(alone["params"]) == 3 * len(gates) == 15
    assert len(decayed["params"]) + len(alone["params"]) == len(list(model.parameters()))
    gates[0].slope.requires_grad_(False)
    groups = train.optimizer_and_schedule(run, model, 10)[0].param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 1


def test_a_network_without_learned_activations_has_one_group(cfg, digits):
    model = train.initial(cfg, methods.build(cfg), digits, CPU)
    (group,) = train.optimizer_and_schedule(cfg, model, 10)[0].param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize("name", ["pgd+sparta+awp", "trades+sparta", "pgd+sparta+ducat", "pgd+ducat+sparta",
                                  "mart+awp+sparta", "pgd+he+sparta", "standard+sparta"])
def test_it_composes(spec, digits, name):
    run = spec(name)
    method = methods.build(run)
    model = train.initial(run, method, digits, CPU)
    before = [gate.slope.detach().clone() for gate in model.modules() if isinstance(gate, Sparta)]
    optimizer, scheduler = train.optimizer_and_schedule(run, model, 10)
    loss = train.train_epoch(run, method, model, digits.train.first(128), optimizer, scheduler, compute.generator(0),
                             start=0.9)
    after = [gate.slope for gate in model.modules() if isinstance(gate, Sparta)]
    assert len(after) == 5 and loss < float("inf")
    assert all((a - b).abs().max() > 0 for a, b in zip(after, before, strict=True))


def test_a_spec_has_one_activation_and_an_objective(spec):
    for name, message in (("pgd+silu+sparta", "names 2 activations, silu and sparta: choose one"),
                          ("sparta", "'sparta' is an activation; a spec begins with an objective"),
                          ("pgd+spartan", "unknown method 'spartan' in 'pgd.spartan' .did you mean 'sparta'")):
        with pytest.raises(ConfigError, match=message):
            methods.build(spec(name))


def test_a_gate_without_its_gradient_is_not_what_an_attack_sees(spec, digits):
    """The term of J_g: an attack that takes the gate for a constant ascends another gradient."""
    run = spec("pgd+sparta")
    model = train.initial(run, methods.build(run), digits, CPU).eval()
    for gate in (m for m in model.modules() if isinstance(m, Sparta)):
        nn.init.normal_(gate.g[-1].weight, std=10)
    x, y = digits.test.first(16).floats()
    found = []
    for cut in (False, True):
        hooks = [gate.g.register_forward_hook(lambda module, inputs, output: output.detach())
                 for gate in model.modules() if isinstance(gate, Sparta) and cut]
        given = x.clone().requires_grad_()
        found.append(torch.autograd.grad(attacks.cross_entropy(model(given), y).sum(), given)[0])
        for hook in hooks:
            hook.remove()
    assert F.cosine_similarity(*(g.flatten(1) for g in found)).mean() < 0.99


def test_a_fixed_g_is_given_back():
    value = torch.randn(3, 2, 2)
    assert torch.equal(Constant(value)(torch.zeros(5, 3, 2, 2)), value)


def test_a_map_keeps_its_size_in_a_saved_network(spec, digits, tmp_path):
    run = spec("standard+sparta", context="map")
    model = train.initial(run, methods.build(run), digits, CPU)
    gates = [m for m in model.modules() if isinstance(m, Sparta)]
    assert [tuple(g.g.map.shape) for g in gates] == [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2 + [(128, 1, 1)]
    assert model.training and all(m.num_batches_tracked == 0 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    nn.init.normal_(gates[0].g.map)
    torch.save(model.state_dict(), tmp_path / "map.pt")
    again = train.initial(run, methods.build(run), digits, CPU)
    again.load_state_dict(torch.load(tmp_path / "map.pt", weights_only=True))
    x, _ = digits.test.first(4).floats()
    assert torch.equal(model.eval()(x), again.eval()(x))
