"""Alarms: a healthy model sounds none, and each broken one sounds its own."""

import copy
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import alarms, attacks, compute, methods
from lib.alarms import gradient, runs, strength
from lib.config import Threat
from lib.params import ConfigError

LIMIT = 8.0  # seconds that inspecting one model on digits may take


@pytest.fixture
def numbers(robust):
    """PGD on digits, a third of the epochs."""
    return robust[2]


@pytest.fixture
def images(robust):
    """All the digits."""
    return robust[1]


@pytest.fixture
def healthy(robust):
    """The trained classifier, to break at will."""
    return copy.deepcopy(robust[0])


@pytest.fixture
def weights(healthy):
    """What PGD training left."""
    return copy.deepcopy(healthy.state_dict())


@pytest.fixture
def look(numbers, images):
    """Inspect a model on 100 test images: its alarms by name."""
    x, y = images.test.first(100).floats()

    def inspect(network, **more):
        """All checks of one model."""
        found = alarms.inspect(network, x, y, **({"threat": numbers.threat, "classes": 10} | more))
        return {alarm.name: alarm for alarm in found}
    return inspect


class Around(nn.Module):
    """A classifier with a function before it and one behind it."""

    def __init__(self, network, before=lambda x: x, behind=lambda z: z):
        super().__init__()
        self.network, self.before, self.behind = network, before, behind

    def forward(self, x):
        return self.behind(self.network(self.before(x)))


class Layer(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Stubborn(nn.BatchNorm2d):
    """BatchNorm that uses the statistics of the batch whatever its mode."""

    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


def sounding(found):
    return {name for name, alarm in found.items() if alarm.passed is False}


def test_a_healthy_model_sounds_no_alarm_and_stays_as_it_was(look, healthy, weights):
    healthy.train()
    found = look(healthy)
    assert not sounding(found) and {n for n, a in found.items() if a.passed is None} == {"transfer"}
    assert list(found) == list(alarms.CHECKS)
    assert healthy.training and all(p.requires_grad and p.grad is None for p in healthy.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in healthy.state_dict().items())


def test_l2_and_a_twin(look, healthy, numbers, images):
    torch.manual_seed(1)
    twin = methods.build(numbers).network(numbers.model, images.shape, 10, images.statistics)
    found = look(healthy, threat=Threat("L2", 0.7), twin=twin.train())
    assert not sounding(found) and found["transfer"].passed and twin.training


def test_a_twin_that_transfers_better_is_noticed(look, healthy):
    found = look(Around(healthy, before=lambda x: (x * 4).round() / 4), twin=healthy)
    assert "transfer" in sounding(found)


def test_inspection_is_cheap_and_repeatable(look, healthy):
    before = time.process_time()
    found = look(healthy)
    assert time.process_time() - before < LIMIT
    again = look(healthy)
    assert [(a.value, a.note) for a in found.values()][:-1] == [(a.value, a.note) for a in again.values()][:-1]


def test_large_logits_hide_the_cross_entropy_but_not_the_margin(look, healthy):
    found = look(Around(healthy, behind=lambda z: 100 * z))
    assert {"zero-gradient-ce", "loss"} <= sounding(found)
    assert found["zero-gradient-margin"].passed and found["loss"].value > 0.1
    assert "last operations or the loss" in found["zero-gradient-ce"].note


def test_quantised_input_has_no_gradient(look, healthy):
    found = look(Around(healthy, before=lambda x: (x * 4).round() / 4))
    assert {"zero-gradient-ce", "zero-gradient-margin", "black-box", "rising"} <= sounding(found)
    assert "before network.0 (Normalize)" in found["zero-gradient-margin"].note


def test_the_layer_that_blocks_the_gradient_is_named(look, healthy, images):
    healthy[1].features[2] = Layer(lambda h: torch.sigmoid(1e6 * h))  # its slope is zero almost everywhere
    found = look(healthy)
    assert {"zero-gradient-ce", "zero-gradient-margin"} <= sounding(found)
    assert "1.features.2 (Layer)" in found["zero-gradient-margin"].note
    x, y = images.test.first(20).floats()
    report = gradient.by_layer(healthy, x, y).set_index("layer")
    blocked = report.loc["1.features.2"]
    assert blocked.at_output == 0 and blocked.at_input > 0.01 and blocked.type == "Layer"
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in healthy.modules())


def test_a_gradient_that_is_cut_counts_as_zero(healthy):
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    for cut in (Around(healthy, before=torch.Tensor.detach), Around(nn.Flatten(), behind=torch.Tensor.detach)):
        assert gradient.zero_share(gradient.input_gradient(cut, x, y, attacks.margin)) == 1


def test_shattered_gradients_lose_to_the_black_box(look, healthy):
    found = look(Around(healthy, before=lambda x: x + 0.02 * torch.sin(2000 * x)))
    assert "black-box" in sounding(found)


def test_exploding_gradients_are_noticed(look, healthy):
    found = look(Around(healthy, before=lambda x: x + 1e-9 * torch.sin(1e19 * x)))
    assert "finite-gradient" in sounding(found)


@pytest.mark.parametrize("layer", ["the whole model", "one BatchNorm"])
def test_a_model_that_stays_in_train_mode_is_noticed(look, healthy, layer):
    if layer == "one BatchNorm":
        old = healthy[1].features[1]
        healthy[1].features[1] = Stubborn(old.num_features)
        assert sounding(look(healthy)) >= {"batch"} and look(healthy)["state"].passed
    else:
        healthy.train().eval = lambda: healthy
        assert sounding(look(healthy)) >= {"batch", "state"}


def test_random_layers_are_noticed(look, healthy):
    healthy[1].act = nn.Sequential(healthy[1].act, Layer(lambda h: h + 0.1 * torch.randn_like(h)))
    found = look(healthy)
    assert "determinism" in sounding(found) and found["batch"].passed is None


def test_probabilities_and_missing_or_additional_outputs_are_noticed(look, healthy):
    assert "logits" in sounding(look(Around(healthy, behind=lambda z: z.softmax(1))))
    assert "classes" in sounding(look(Around(healthy, behind=lambda z: torch.cat([z, z - 1], 1))))
    assert "classes" not in sounding(look(healthy, classes=None))


def test_a_model_that_changes_or_is_not_float32_is_noticed(look, healthy):
    healthy[1].register_buffer("calls", torch.zeros(()))
    healthy[1].register_forward_hook(lambda layer, inputs, output: layer.calls.add_(1) and None)
    assert "1.calls changed" in look(healthy)["state"].note
    half = look(Around(healthy, behind=lambda z: z.bfloat16()))["state"]
    assert not half.passed and "logits are torch.bfloat16" in half.note


def test_constant_outputs_survive_any_radius(look, healthy):
    found = look(Around(healthy, behind=lambda z: 1e-3 * z + torch.eye(10)[3]))
    assert "large-eps" in sounding(found)


def test_attacks_made_elsewhere_take_part(look, healthy, numbers, images):
    x, y = images.test.first(100).floats()
    strong = attacks.pgd(healthy, x, y, threat=Threat("Linf", 0.3), steps=20, step_size=0.25,
                         generator=compute.generator(0))
    assert {"in-ball", "black-box"} <= sounding(look(healthy, others={"cheat": ("black-box", strong)}))
    assert sounding(look(healthy, others={"cheat": ("white-box", strong)})) == {"in-ball"}
    assert "in-ball" in sounding(look(healthy, others={"nan": ("white-box", x * torch.nan)}))
    with pytest.raises(ConfigError, match="unknown kind 'grey-box' in attack 'it' of others"):
        look(healthy, others={"it": ("grey-box", x)})
    with pytest.raises(ValueError, match="examples of 'it' are"):
        look(healthy, others={"it": ("white-box", x[:3])})


def test_an_attack_without_its_projection_is_noticed(look, healthy, monkeypatch):
    monkeypatch.setattr("lib.attacks.gradient.project", lambda x_adv, x, threat: (x_adv + 0.01).clamp(0, 1))
    assert {"eps-zero", "in-ball"} <= sounding(look(healthy))


def test_what_cannot_be_inspected_is_refused(look, healthy, numbers, images):
    x, y = images.test.first(10).floats()
    for wrong in (x * 2 - 1, x.double(), x * torch.nan):
        with pytest.raises(ValueError, match="float32 in .0, 1."):
            alarms.inspect(healthy, wrong, y, threat=numbers.threat)
    with pytest.raises(ValueError, match="eps is 0"):
        look(healthy, threat=Threat("Linf", 0.0))


def hits(right, of=100):
    return np.arange(of) < right


def test_rules_on_hits():
    assert not strength.ordered("fgsm", {("FGSM", "PGD"): (hits(20), hits(60))}).passed
    assert strength.ordered("fgsm", {("FGSM", "PGD"): (hits(60), hits(20))}).passed
    assert strength.ordered("fgsm", {("FGSM", "PGD"): (hits(50), hits(53))}).passed  # 3 images may be chance
    chain = {("noise", "FGSM"): (hits(90), hits(60)), ("FGSM", "PGD"): (hits(60), hits(70))}
    worst = strength.ordered("ordering", chain)
    assert not worst.passed and worst.value == pytest.approx(0.1) and worst.note == "FGSM 60.0%, PGD 70.0%"
    assert strength.difference(hits(50), hits(54)) == (pytest.approx(0.04), pytest.approx(2 * 4 ** 0.5 / 100))
    assert strength.gain("black-box", hits(50), hits(47), "").passed
    assert not strength.gain("black-box", hits(50), hits(46), "").passed
    assert strength.gain("black-box", hits(500, 1000), hits(497, 1000), "").passed
    assert not strength.gain("black-box", hits(500, 1000), hits(496, 1000), "").passed


def test_rules_on_iterates():
    losses = np.ones((51, 4)) * np.linspace(0, 1, 51)[:, None]
    assert strength.rising(losses).value == pytest.approx(0.2) and not strength.rising(losses).passed
    assert strength.rising(np.minimum(losses, 0.5)).passed
    assert not strength.rising(0 * losses).passed and np.isnan(strength.rising(-losses).value)
    fooled = np.zeros((51, 100), bool)
    fooled[25, :4] = True
    assert not strength.silent(fooled).passed and strength.silent(fooled).value == pytest.approx(0.04)
    fooled[-1, :1] = True
    assert strength.silent(fooled).passed


def test_the_random_search_stays_in_the_ball_and_beats_noise(healthy, images, numbers):
    x, y = images.test.first(60).floats()
    for threat in (numbers.threat, Threat("L2", 0.7)):
        case = runs.Case(healthy, x, y, threat)
        found = runs.random_search(case, 100)
        random = attacks.noise(healthy, x, y, threat=threat, generator=case.generator())
        assert runs.excess(found, case) <= 1e-6
        with torch.no_grad():
            assert (attacks.margin(healthy(found), y) >= attacks.margin(healthy(random), y)).all()
        assert case.hits(found).sum() < case.hits(random).sum()


def test_a_factor_on_the_logits_does_not_change_the_rescaled_attack(healthy, images, numbers):
    x, y = images.test.first(40).floats()
    found = [runs.Case(Around(healthy, behind=lambda z, k=k: k * z), x, y, numbers.threat) for k in (1, 64)]
    assert torch.equal(*(case.pgd(5, runs.rescaled(case)) for case in found))


def test_table_and_threat_model(numbers, images):
    table = alarms.as_table([gradient.judge('state', 0, 0), gradient.judge('batch', 1, 0)])
    assert isinstance(table, pd.DataFrame) and list(table.verdict) == ["pass", "ALARM"]
    assert list(table) == ["check", "verdict", "value", "limit", "note", "meaning", "what to do"]
    assert "Linf radius 0.2 (51/255) around images in [0, 1]" in alarms.describe(numbers)
    assert "(8/255)" in alarms.describe(replace(numbers, threat=Threat("Linf", 8 / 255)))


def test_every_check_is_explained():
    for meaning, remedy in alarms.CHECKS.values():
        assert meaning.endswith(".") and remedy.endswith(".")
