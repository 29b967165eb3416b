"""What a training step costs: passes, counted, against what the methods are known to do; and the command."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lib import __main__, compute, cost, methods, train
from lib.cost import Passes

CPU = torch.device("cpu")
AWP = {"gamma": 0.01, "warmup": 0.9, "alternations": 1, "steps": 1, "direction": "adversarial"}


def counted(cfg, digits, spec, k=4, batchnorm="eval", **awp):
    """The passes of a step of `spec` with PGD of k steps and these knobs of AWP, which starts late in training."""
    knobs = {**cfg.knobs, "awp": AWP | awp, "pgd": {"warmup": 0.3, "batchnorm": batchnorm}}
    run = replace(cfg, method=spec, knobs=knobs, train=replace(cfg.train, steps=k))
    return cost.passes(run, digits, CPU)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_pgd_takes_2k_plus_3(cfg, digits, k):
    assert counted(cfg, digits, "pgd", k) == Passes(forward=k + 1, image=k, weights=1)
    assert counted(cfg, digits, "pgd", k).equivalents == 2 * k + 3
    assert counted(cfg, digits, "pgd", k, "train") == counted(cfg, digits, "pgd", k)


@pytest.mark.parametrize(("knobs", "more"), [
    ({}, 3), ({"steps": 2}, 6), ({"steps": 5}, 15), ({"alternations": 2}, 3 + 3 + 8),
    ({"alternations": 3, "steps": 2}, 6 + 2 * (6 + 8)), ({"direction": "random"}, 0), ({"gamma": 0.0}, 0),
])
def test_what_awp_adds(cfg, digits, knobs, more):
    """An ascent is a forward pass and one back to the weights, 3; an alternation is another attack, 2K, and its own."""
    assert counted(cfg, digits, "pgd+awp", **knobs).equivalents == 2 * 4 + 3 + more


@pytest.mark.parametrize(("spec", "expected"), [
    ("standard", Passes(1, 0, 1)), ("standard+awp", Passes(2, 0, 2)),
    ("trades", Passes(1 + 4 + 2, 4, 2)),       # the prediction for x; the attack; both in the loss
    ("trades+awp", Passes(1 + 4 + 4, 4, 4)), ("mart", Passes(4 + 2, 4, 2)), ("mart+awp", Passes(4 + 4, 4, 4)),
    ("pgd+ema", Passes(5, 4, 1)), ("pgd+he", Passes(5, 4, 1)), ("pgd+cfa", Passes(5, 4, 1)),
    ("pgd+balanced+awp", Passes(6, 4, 2)), ("consistency", Passes(10, 8, 2)),   # two views of each image
    ("pgd+ducat", Passes(4 + 2, 4, 2)), ("trades+ducat", Passes(1 + 4 + 2, 4, 2)),  # x and x' in one pass
    ("pgd+sparta", Passes(5, 4, 1)), ("pgd+awp+frelu", Passes(6, 4, 2)),
    ("standard+denoising", Passes(1, 0, 1)),  # an activation adds no pass
])
def test_other_methods(cfg, digits, spec, expected):
    assert counted(cfg, digits, spec) == expected


def test_a_backward_pass_to_image_and_weights_reaches_weights(cfg, digits, model):
    """As the attack in the code of AWP's authors does it, whose gradients of the weights nobody uses."""
    x, y = digits.train.first(8).floats()
    with cost.counted(model, 8) as counts:
        torch.nn.functional.cross_entropy(model(x.requires_grad_()), y).backward()
        with torch.no_grad():
            model(x)
    assert counts == {"forward": 2, "image": 0, "weights": 1}
    model(x)
    assert counts["forward"] == 2  # the hook is gone


def test_counting_changes_nothing(cfg, digits, model):
    """A counted step leaves the weights that the same step leaves by itself."""
    left = []
    for watched in (False, True):
        run = replace(cfg, method="pgd+awp", knobs={**cfg.knobs, "awp": AWP})
        step, network = cost._stepper(run, digits, CPU)
        if watched:
            with cost.counted(network, 64):
                step(cost.LATE)
        else:
            step(cost.LATE)
        left.append(train.snapshot(network))
    assert all(torch.equal(value, left[1][name]) for name, value in left[0].items())
    fresh = train.initial(cfg, methods.build(cfg), digits, CPU).state_dict()
    assert not torch.equal(fresh["1.head.weight"], left[0]["1.head.weight"])  # it was a step
    before = train.snapshot(model)
    cost.passes(cfg, digits, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_methods_take_turns(cfg, digits, monkeypatch):
    turns = []

    def stepper(config, dataset, device):
        """Notes who steps, and when in training."""
        return lambda done: turns.append((config.method, done)), None

    monkeypatch.setattr(cost, "_stepper", stepper)
    monkeypatch.setattr(cost.time, "perf_counter", iter(np.cumsum([0, 1, 0, 2] * 3)).__next__)
    found = cost.seconds([cfg, replace(cfg, method="trades")], digits, CPU, repeats=3)
    assert found.tolist() == [[1, 1, 1], [2, 2, 2]]
    assert [name for name, _ in turns] == ["pgd", "trades"] * 6 and turns[-1][1] == cost.LATE


def test_the_table_compares_with_the_objective(cfg, digits, monkeypatch):
    times = {"pgd": [1.0, 2.0, 3.0, 2.0, 2.0], "pgd+awp": [1.1, 2.4, 3.3, 2.2, 2.0], "trades": [2.0] * 5}
    monkeypatch.setattr(cost, "seconds", lambda runs, *more: np.array([times[run.method] for run in runs]))
    table = cost.table(cfg, ["pgd+awp", "trades"], digits, CPU, repeats=5).set_index("method")
    assert list(table.index) == ["pgd", "pgd+awp", "trades"]  # the objective comes along
    k = cfg.train.steps
    assert table.predicted["pgd+awp"] == pytest.approx(3 / (2 * k + 3)) and np.isnan(table.predicted["trades"])
    assert table.ms["pgd"] == 2000 and table.ms_low["pgd"] == 2000
    row = table.loc["pgd+awp"]  # by round: 10, 20, 10, 10 and 0 %
    assert [row.measured_low, row.measured, row.measured_high] == pytest.approx([0.1, 0.1, 0.1])
    text = cost.shown(table.reset_index())
    assert re.search(r"pgd\+awp +9 +7 +2 +20 +\+18% +2200\.0 \[2000\.0, 2400\.0\] +\+10% \[\+10%, \+10%\]", text)


SITES = [(16, 64), (16, 64), (32, 16), (32, 16), (128, 1)]  # channels and positions in small_cnn of width 16 on digits


def of_activation(name):
    """Parameters and flops that an activation of these has in small_cnn, counted by hand."""
    c, at = np.array(SITES).T
    h = np.maximum(8, c // 16)
    weights = {"relu": 0 * c, "silu": 0 * c, "simam": 0 * c, "swish": c, "frelu": 9 * c + 2 * c,
               "se": 2 * c * h, "sparta": 9 * c + 2 * c * h + h + c + c, "denoising": 2 * c * c + 2 * c}
    work = {**dict.fromkeys(["relu", "silu", "simam", "swish"], 0 * c), "frelu": 9 * c * at, "se": 2 * c * h,
            "sparta": (9 * c + 2 * c * h) * at,
            "denoising": 2 * c * c * at + (c // 2 + c) * at**2}  # theta, phi and W; then A and the means
    return weights[name].sum(), 2 * work[name].sum()


@pytest.mark.parametrize("name", ["relu", "silu", "simam", "swish", "frelu", "se", "sparta", "denoising"])
def test_parameters_and_flops(cfg, digits, name):
    run = replace(cfg, method=f"pgd+{name}")
    model = train.initial(run, methods.build(run), digits, CPU).train()
    before = train.snapshot(model)
    convolutions = [9 * 1 * 16 * 64, 9 * 16 * 16 * 64, 9 * 16 * 32 * 16, 9 * 32 * 32 * 16]
    weights, work = of_activation(name)
    assert cost.flops(model, digits.shape) == 2 * (sum(convolutions) + 128 * 128 + 128 * 10) + work
    plain = 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32) + 2 * (16 + 16 + 32 + 32) + 129 * 128 + 129 * 10
    assert cost.parameters(model) == plain + weights
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules()) and model[1].head.weight.requires_grad
    assert isinstance(cost.flops(model, digits.shape), int) and isinstance(cost.parameters(model), int)


def test_parameters_count_fixed_ones(model):
    every = cost.parameters(model)
    model[1].head.requires_grad_(False)
    assert cost.parameters(model) == every > 0


def test_flops_are_of_the_network_that_trains(cfg, digits, monkeypatch):
    """DUCAT's has twice the outputs, and what acts on the gradient alone changes nothing."""
    monkeypatch.setattr(cost, "seconds", lambda runs, *more: np.ones((len(runs), 2)))
    table = cost.table(cfg, ["pgd+ducat", "pgd+awp", "pgd+silu", "pgd+sparta"], digits, CPU, repeats=2)
    table = table.set_index("method")
    assert list(table.columns[-2:]) == ["parameters", "flops"] and table.flops["pgd"] == 791_040
    assert table.flops["pgd+ducat"] - table.flops["pgd"] == 2 * 128 * 10
    assert table.parameters["pgd+ducat"] - table.parameters["pgd"] == 129 * 10
    same = ["pgd", "pgd+awp", "pgd+silu"]
    assert table.flops[same].nunique() == table.parameters[same].nunique() == 1
    assert table.predicted["pgd+silu"] == table.predicted["pgd+sparta"] == 0
    assert cost.flops(nn.Conv2d(2, 3, 3), (2, 6, 5)) == 2 * 9 * 2 * 3 * 4 * 3  # so many multiplications and additions
    text = cost.shown(table.reset_index())
    assert re.search(r"\n +pgd .* 34,266 +0\.79\n", text) and re.search(r"\npgd\+sparta .* 40,354 +0\.95\n", text)
    assert "Mflop: millions of operations" in text and text.endswith("elementwise work is not in it")


def test_seconds_are_of_real_steps(cfg, digits):
    run = replace(cfg, train=replace(cfg.train, steps=10), threat=replace(cfg.threat, eps=0.1))
    standard, pgd = cost.seconds([replace(run, method="standard"), run], digits, CPU, repeats=5)
    assert standard.shape == pgd.shape == (5,) and (standard > 0).all()
    assert np.median(pgd) > 2 * np.median(standard)


def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(cost, "seconds", lambda runs, *more: np.ones((len(runs), 30)))
    assert __main__.main(["cost", "digits", "mart+awp"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("digits: a batch of 64, training attacks of 7 steps, on ")
    assert re.search(r"\n +mart +9 +7 +2 +20 ", out) and re.search(r"\n *mart\+awp +11 +7 +4 +26 +\+30% ", out)
    assert __main__.main(["cost", "digits", "pgb"]) == 1
    assert "unknown method 'pgb'" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(cfg, digits):
    from lib import data

    device = torch.device("cuda")
    images = data.load(cfg, device)
    assert cost.passes(cfg, images, device) == cost.passes(cfg, digits, CPU)
    assert cost.seconds([cfg], images, device, repeats=2).min() > 0
    assert compute.generator(0, device).device.type == "cuda"
