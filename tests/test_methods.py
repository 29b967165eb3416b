"""Methods compose, and a new one is one file."""

from dataclasses import replace

import pytest
import torch

from lib import attacks, compute, methods, train
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
