"""Methods compose, and a new one is one file."""

import importlib
import inspect
from dataclasses import replace

import nbformat
import pytest
import torch

from lib import activations, attacks, compute, methods, params, train
from lib.config import Threat
from lib.methods._classes import Watched
from lib.methods.he import Scaled
from lib.params import ConfigError

ADD_ON = '''
from contextlib import contextmanager
from dataclasses import replace

CALLS = []

def add_on(method, config, *, strength):
    """Counts the gradient steps, and scales the loss."""
    @contextmanager
    def around(model, loss, moment):
        with method.around(model, loss, moment):
            before = loss().item()
            CALLS.append((before, moment.progress))
            yield

    def loss(model, x, x_adv, y, moment):
        return strength * method.loss(model, x, x_adv, y, moment)

    return replace(method, around=around, loss=loss)
'''


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """A sixth method, `counting`, in a folder of its own on the package's path."""
    (tmp_path / "counting.py").write_text(ADD_ON)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setattr(methods, "available", lambda: ["counting", "pgd", "standard"])
    return "pgd+counting"


def test_one_file_is_a_method(counting, cfg, digits):
    run = replace(cfg, method=counting, knobs={**cfg.knobs, "counting": {"strength": 2.0}})
    trained = train.fit(run, digits, torch.device("cpu"), log=lambda line: None)
    from lib.methods.counting import CALLS
    steps = run.train.epochs * (len(digits.train) // run.train.batch_size)
    assert len(CALLS) == steps
    progress = [p for _, p in CALLS]
    assert progress == pytest.approx([i / steps for i in range(steps)])
    assert trained.history.loss[0] == pytest.approx(sum(v for v, _ in CALLS[:steps // 2]) / (steps // 2), rel=1e-4)


@pytest.mark.parametrize(("spec", "knobs", "message"), [
    ("standrad", {}, "unknown method 'standrad' in 'standrad' (did you mean 'standard'?); there are: counting, pgd"),
    ("counting", {}, "'counting' is not an objective; a spec is one objective, then add-ons"),
    ("pgd+standard", {}, "'standard' is not an add-on"),
    ("pgd+counting", {"counting": {"strenght": 1}}, "unknown knob 'strenght' in knobs.counting of params.yaml (did"),
    ("pgd+counting", {}, "knobs.counting in params.yaml lacks strength"),
])
def test_wrong_specs_are_named(counting, cfg, spec, knobs, message):
    with pytest.raises(ConfigError) as error:
        methods.build(replace(cfg, method=spec, knobs={**cfg.knobs, **knobs}))
    assert message in str(error.value)


def test_standard_trains_on_the_image_itself(cfg, digits, model):
    method = methods.build(replace(cfg, method="standard"))
    x, y = digits.train.first(32).floats()
    assert method.attack is None
    moment = methods.Moment(0.0, compute.generator(0))
    expected = attacks.cross_entropy(model(x), y)
    assert torch.allclose(method.loss(model, x, x, y, moment), expected)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.15, 0.5), (0.3, 1.0), (0.9, 1.0)])
def test_pgd_warms_its_radius_up(cfg, digits, model, progress, share):
    x, y = digits.train.first(32).floats()
    x_adv = methods.build(cfg).attack(model, x, y, methods.Moment(progress, compute.generator(0)))
    assert (x_adv - x).abs().max().item() == pytest.approx(share * cfg.threat.eps, abs=1e-5)


def test_pgd_without_warm_up_is_madrys(cfg, digits, model):
    knobs = {"pgd": {**cfg.knobs["pgd"], "warmup": 0.0}}
    x, y = digits.train.first(32).floats()
    x_adv = methods.build(replace(cfg, knobs=knobs)).attack(model, x, y, methods.Moment(0.0, compute.generator(3)))
    expected = attacks.pgd(model, x, y, threat=cfg.threat, steps=cfg.train.steps, step_size=cfg.train.step_size,
                           generator=compute.generator(3))
    assert torch.equal(x_adv, expected)


@pytest.mark.parametrize("wrap", [lambda m, x: Scaled(m, 3.0), Watched, lambda m, x: Scaled(Watched(m, x), 2.0)])
@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_an_attack_leaves_a_wrapped_model_in_its_modes(model, digits, wrap, batchnorm):
    x, _ = digits.train.first(16).floats()
    model.train()
    model[1].hidden.eval()
    wrapped = wrap(model, x)
    modes, before = {m: m.training for m in wrapped.modules()}, train.snapshot(model)
    with attacks.under_attack(wrapped, batchnorm):
        assert not wrapped.training and not any(p.requires_grad for p in model.parameters())
        wrapped(x)
    assert modes == {m: m.training for m in wrapped.modules()} and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in train.snapshot(model).items())


@pytest.mark.parametrize(("spec", "knobs", "message"), [
    ("pgd", {"warmup": 1.5}, "knobs.pgd.warmup in params.yaml is 1.5: it has to be a number at least 0 and at most 1"),
    ("trades", {"beta": -1}, "knobs.trades.beta in params.yaml is -1: it has to be a number at least 0"),
    ("mart", {"beta": "high"}, "knobs.mart.beta in params.yaml is 'high': it has to be a number at least 0"),
    ("he", {"s": 0.0}, "knobs.he.s in params.yaml is 0.0: it has to be a number above 0"),
    ("he", {"s": float("inf")}, "knobs.he.s in params.yaml is inf: it has to be a number above 0"),
    ("he", {"m": -0.1}, "knobs.he.m in params.yaml is -0.1"),
    ("cfa", {"lambda_1": -0.5}, "knobs.cfa.lambda_1 in params.yaml is -0.5: it has to be a number at least 0"),
    ("cfa", {"lambda_2": float("nan")}, "knobs.cfa.lambda_2 in params.yaml is nan"),
    ("cfa", {"begin": 10}, "knobs.cfa.begin in params.yaml is 10: it has to be a number at least 0 and at most 1"),
    ("balanced", {"strength": -1.0}, "knobs.balanced.strength in params.yaml is -1.0"),
    ("offset", {"strength": True}, "knobs.offset.strength in params.yaml is True"),
])
def test_knobs_out_of_range_are_named(cfg, spec, knobs, message):
    run = replace(cfg, method=spec if spec in ("pgd", "trades", "mart") else f"pgd+{spec}",
                  knobs={**cfg.knobs, spec: {**cfg.knobs[spec], **knobs}})
    with pytest.raises(ConfigError) as error:
        methods.build(run)
    assert message in str(error.value)


def test_a_margin_is_taken_off_the_label_alone():
    logits, y = torch.randn(6, 4, generator=compute.generator(0)), torch.arange(6) % 4
    lower = logits.clone()
    lower[torch.arange(6), y] -= 2.5
    found = methods.cross_entropy(logits, y, methods.Moment(0.0, compute.generator(0), margin=2.5))
    assert torch.allclose(found, attacks.cross_entropy(lower, y))
    plain = methods.cross_entropy(logits, y, methods.Moment(0.0, compute.generator(0)))
    assert torch.equal(plain, attacks.cross_entropy(logits, y))


class TestRadiusOfEachImage:
    radii = torch.linspace(0.0, 0.4, 40)

    @pytest.fixture
    def batch(self, digits):
        """Forty images and their labels."""
        return digits.train.first(40).floats()

    @pytest.mark.parametrize("norm", ["Linf", "L2"])
    @pytest.mark.parametrize("start", ["uniform", "near", "image"])
    def test_each_stays_in_its_ball(self, model, batch, norm, start):
        x, y = batch
        radii = self.radii * (1 if norm == "Linf" else 4)
        x_adv = attacks.pgd(model, x, y, threat=Threat(norm, radii[:, None, None, None]), steps=8, step_size=0.5,
                            start=start, generator=compute.generator(0))
        found = (x_adv - x).flatten(1).norm(dim=1, p=torch.inf if norm == "Linf" else 2)
        assert (found <= radii + 1e-5).all() and torch.equal(x_adv[0], x[0])
        assert (found[1:] > 0.6 * radii[1:]).all() and x_adv.min() >= 0 and x_adv.max() <= 1

    def test_equal_radii_are_one_radius(self, model, batch):
        x, y = batch
        one, each = (attacks.pgd(model, x, y, threat=Threat("Linf", eps), steps=5, step_size=0.5,
                                 generator=compute.generator(0)) for eps in (0.25, torch.full((40, 1, 1, 1), 0.25)))
        assert torch.equal(one, each)

    def test_starts(self, model, batch):
        x, y = batch

        def first(start):
            """Where the attack begins."""
            return attacks.pgd(model, x, y, threat=Threat("Linf", 0.2), steps=0, step_size=0.3, start=start,
                               generator=compute.generator(0)) - x
        assert not first("image").any()
        inside = (x > 0.01) & (x < 0.99)
        assert first("near")[inside].std().item() == pytest.approx(0.001, rel=0.1)
        assert first("uniform").abs().max().item() == pytest.approx(0.2, rel=0.01)
        with pytest.raises(ConfigError, match=r"unknown start 'close'.*there are: uniform, near, image"):
            first("close")


def test_the_training_notebook_tells_of_every_part_of_a_spec(capsys):
    """Of every method and of every activation."""
    cells = nbformat.read(params.root() / "notebooks" / "pipeline" / "02_train.ipynb", 4).cells
    telling = next(cell.source for cell in cells if "inspect.getdoc" in cell.source)
    named = [*methods.available(), *activations.available()]
    exec(telling, {"method": "+".join(named), "inspect": inspect, "importlib": importlib, "activations": activations})
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.split(":")[0] in named]
    assert set(told) == set(named)
