"""The reference AutoAttack behind its adapter: the same result, on a model and with arguments that cannot be wrong."""

import builtins
import copy
import hashlib
import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path

import pyautoattack
import pytest
import torch
from torch import nn

from lib import attacks, autoattack, compute
from lib.config import Threat
from lib.params import ConfigError

LINF, L2 = Threat("Linf", 0.05), Threat("L2", 0.3)
QUICK = ("apgd-ce",)


def quiet(line):
    """No log."""


def run(model, digits, threat=LINF, n=40, seed=0, log=quiet, **more):
    x, y = digits.test.first(n).floats()
    return autoattack.standard(model, x, y, threat=threat, seed=seed, log=log, **{"attacks": QUICK} | more)


def same(a, b):
    equal = torch.equal(a.x_adv, b.x_adv) and torch.equal(a.robust, b.robust)
    return equal and (a.counts, a.flags) == (b.counts, b.flags)


def few_classes(classes):
    """Only the first logits of a fixed linear classifier of 8 x 8 images."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


@pytest.fixture(scope="module")
def plain(digits):
    """A trained classifier without BatchNorm, quick enough for 5,000 queries of Square."""
    x, y = digits.train.floats()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def test_standard_is_the_packages_own_result(plain, digits):
    """Images, order of the attacks, batches and count: to the bit what the package gives when called directly."""
    x, y = digits.test.first(12).floats()
    lines = []
    found = autoattack.standard(plain, x, y, threat=LINF, seed=3, batch_size=8, log=lines.append)
    x_adv, labels = pyautoattack.AutoAttack(plain, norm="Linf", eps=LINF.eps, seed=3).run_standard_evaluation(
        x, y, batch_size=8)
    assert torch.equal(found.x_adv, x_adv) and torch.equal(found.robust, labels == y)
    assert tuple(found.counts) == ("clean", *autoattack.STANDARD) and set(found.seconds) == set(autoattack.STANDARD)
    assert list(found.counts.values()) == sorted(found.counts.values(), reverse=True)
    assert 0 < found.counts["square"] == int(found.robust.sum()) < found.counts["clean"]
    assert found.flags == [] and found.version == "0.2.0"
    assert lines[0].startswith("AutoAttack (pyautoattack 0.2.0)") and lines[-1].startswith("AutoAttack square: ")


def test_its_gradient_attacks_in_l2_are_the_packages_own(plain, digits):
    x, y = digits.test.first(12).floats()
    found = run(plain, digits, L2, n=12, seed=3, batch_size=8, attacks=autoattack.STANDARD[:3])
    reference = pyautoattack.AutoAttack(plain, norm="L2", eps=L2.eps, seed=3)
    reference.attacks_to_run = list(autoattack.STANDARD[:3])
    assert torch.equal(found.x_adv, reference.run_standard_evaluation(x, y, batch_size=8)[0])
    assert 0 < (found.x_adv - x).flatten(1).norm(dim=1).max() <= L2.eps + 1e-5


@pytest.mark.parametrize("wrong", [0, 1, 5])
def test_images_that_are_wrong_from_the_start_are_left_alone(plain, digits, wrong):
    x, y = digits.test.first(5).floats()
    labels = plain(x).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 10
    for n in (1, 5):
        found = autoattack.standard(plain, x[:n], labels[:n], threat=LINF, seed=0, log=quiet,
                                    attacks=["apgd-ce", "fab-t"])
        assert found.counts["clean"] == max(n - wrong, 0) and torch.equal(found.x_adv[:wrong], x[:min(n, wrong)])


def test_the_score_is_the_untouched_models(model, digits):
    x, y = digits.test.first(40).floats()
    found = run(model, digits)
    model.eval()
    assert torch.equal(found.robust, model(found.x_adv).argmax(1) == y)
    assert int(found.robust.sum()) == found.counts["apgd-ce"]
    assert (found.x_adv - x).abs().max() <= LINF.eps + 1e-6


def test_a_model_in_train_mode_is_attacked_in_eval_and_left_as_it_was(model, digits):
    in_eval = run(model.eval(), digits)
    model.train().zero_grad()
    model[1].head.bias.requires_grad_(False)
    model[1].head.weight.grad = torch.ones_like(model[1].head.weight)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert same(run(model, digits), in_eval)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert [p.grad is None for p in model.parameters()].count(False) == 1 and (model[1].head.weight.grad == 1).all()


def test_it_is_attacked_in_float32(plain, digits):
    with torch.autocast("cpu", torch.bfloat16):
        assert same(run(plain, digits), run(copy.deepcopy(plain).double(), digits))
        found = run(plain, digits)
    assert same(found, run(plain, digits)) and found.x_adv.dtype == torch.float32


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_fewer_than_ten_classes(classes):
    network = few_classes(classes)
    x = torch.rand(10, 1, 8, 8, generator=compute.generator(0))
    y = network(x).argmax(1)
    found = autoattack.standard(network, x, y, threat=Threat("Linf", 0.03), seed=0, log=quiet)
    expected = [name for name in autoattack.STANDARD if classes >= 4 or name != "apgd-t"]
    assert list(found.counts) == ["clean", *expected] and found.counts["clean"] == 10
    assert [flag.startswith("not the standard version: apgd-t needs 4 classes") for flag in found.flags] == \
        [True] * (classes < 4)
    if classes < 4:
        with pytest.raises(ConfigError, match="apgd-t needs 4 classes .*leave it out of attacks"):
            autoattack.standard(network, x, y, threat=LINF, seed=0, attacks=["apgd-t"], log=quiet)


class Wrapped(nn.Module):
    """A network whose logits pass through a function."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x):
        """Logits."""
        return self.function(self.network(x), x)


def gradient_inside(logits, x):
    """A defence that differentiates within its forward pass."""
    with torch.enable_grad():
        probe = torch.ones(1, requires_grad=True)
        torch.autograd.grad(probe.sum(), probe)
    return logits


@pytest.mark.parametrize("function, flag", [
    (lambda z, x: z + 3 * torch.randn_like(z), "randomized defense"),
    (lambda z, x: z + 3 * torch.randn_like(z), "from call to call"),
    (lambda z, x: z.softmax(1), "probability distribution"),
    (gradient_inside, "dynamic defense"),
    (lambda z, x: z + 5 * x.mean() * torch.arange(10), "the rest of its batch")])
def test_doubts_are_kept_as_flags(plain, digits, function, flag):
    lines = []
    found = run(Wrapped(plain, function), digits, log=lines.append)
    assert sum(flag in kept for kept in found.flags) == 1 and "flags_doc" not in str(found.flags)
    assert not any("dynamic" in kept for kept in run(plain, digits).flags)  # one model's flags are not the next one's


def test_zero_gradients_are_one_flag(plain, digits):
    lines = []
    found = run(Wrapped(plain, lambda z, x: z.detach() + 0 * z), digits, attacks=["apgd-t"], n=12, batch_size=5,
                log=lines.append)
    assert len(found.flags) == 1 and re.match(r"there are \d points with zero gradient", found.flags[0])
    assert sum(line.startswith("AutoAttack warns: ") for line in lines) == 1


def test_gradients_that_mislead_are_flagged(plain, digits):
    found = run(Wrapped(plain, lambda z, x: (z * 4).round() / 4 + 0 * z), digits, Threat("Linf", 0.15), n=20,
                attacks=["apgd-ce", "square"])
    assert found.counts["apgd-ce"] > found.counts["square"] and any("Square" in flag for flag in found.flags)


def test_a_count_that_differs_is_flagged_and_a_point_outside_is_an_error(plain, digits, monkeypatch):
    original = pyautoattack.AutoAttack.run_standard_evaluation
    def moved(by, self, x, y, **more):
        """The result of the package, moved."""
        x_adv, labels = original(self, x, y, **more)
        return (x_adv + by).clamp(0, 1), torch.zeros_like(labels) - 1
    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", lambda *a, **k: moved(0, *a, **k))
    found = run(plain, digits)
    assert "scored anew" in found.flags[-1] and found.counts["apgd-ce"] == 0 < int(found.robust.sum())
    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", lambda *a, **k: moved(0.1, *a, **k))
    with pytest.raises(RuntimeError, match="left the threat model: radius 0.1"):
        run(plain, digits)


class TestResume:
    """A run that was cut off goes on; nobody else's progress is taken for its own."""

    arguments = {"n": 12, "batch_size": 5, "threat": Threat("Linf", 0.03)}
    two = arguments | {"attacks": ("apgd-ce", "apgd-t")}

    @pytest.fixture(autouse=True)
    def save_always(self, monkeypatch):
        """A state after every batch."""
        monkeypatch.setattr(autoattack, "SAVE_EVERY", 0)

    def cut_off(self, model, digits, path, after, arguments):
        """A run that is stopped when it logs that line; where its state is."""
        def stop(line):
            """The interruption."""
            if line.startswith(after):
                raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            run(model, digits, state_path=path, log=stop, **arguments)
        assert path.exists()
        return path

    @pytest.mark.parametrize("after", ["AutoAttack apgd-ce, 10 of", "AutoAttack apgd-ce: ", "AutoAttack apgd-t, 5 of"])
    def test_goes_on_to_the_same_result(self, plain, digits, tmp_path, after):
        whole = run(plain, digits, **self.two)
        path, lines = self.cut_off(plain, digits, tmp_path / "new" / "state.pt", after, self.two), []
        resumed = run(plain, digits, state_path=path, log=lines.append, **self.two)
        assert same(resumed, whole) and "going on from" in lines[0] and not any(after in line for line in lines)
        assert set(resumed.seconds) == set(whole.seconds) and list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("change", [
        {"seed": 1}, {"threat": Threat("Linf", 0.04)}, {"threat": Threat("L2", 0.03)}, {"n": 11}, {"batch_size": 4},
        {"attacks": ("apgd-ce", "fab-t")}, "weights", "forward"], ids=str)
    def test_another_run_starts_anew(self, plain, digits, tmp_path, change):
        path, lines = self.cut_off(plain, digits, tmp_path / "state.pt", "AutoAttack apgd-ce, 5 of", self.arguments), []
        other, more = plain, self.arguments
        if change == "weights":
            other = nn.Sequential(*plain[:-1], nn.Linear(32, 10))
        elif change == "forward":
            other = nn.Sequential(plain[0], plain[1], nn.Tanh(), plain[3])  # the same weights
        else:
            more = more | change
        fresh = run(other, digits, **more)
        assert same(run(other, digits, state_path=path, log=lines.append, **more), fresh)
        assert lines[0].endswith("is of another model, other images or other arguments: starting anew")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"{}"])
    def test_a_broken_file_is_one_line(self, plain, digits, tmp_path, content):
        path, lines = tmp_path / "state.pt", []
        path.write_bytes(content)
        found = run(plain, digits, state_path=path, log=lines.append, **self.arguments)
        assert same(found, run(plain, digits, **self.arguments)) and not path.exists()
        assert re.fullmatch(r".*state.pt cannot be read \(\w+\): starting anew", lines[0])


def test_the_process_is_left_as_it_was(plain, digits):
    logger = logging.getLogger("auto-attack")
    logger.setLevel(logging.ERROR)
    before = torch.get_rng_state(), logger.level, logger.propagate, list(logger.handlers)
    def trace(frame, event, argument):
        """A debugger that does nothing."""
    others = sys.gettrace()
    sys.settrace(trace)
    try:
        run(plain, digits)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(others)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (logger.level, logger.propagate, logger.handlers) == before[1:]


def test_the_seed_decides(plain, digits):
    torch.manual_seed(5)
    first = run(plain, digits, seed=1)
    torch.manual_seed(6)
    assert same(run(plain, digits, seed=1), first) and not torch.equal(run(plain, digits, seed=2).x_adv, first.x_adv)


def test_it_is_no_weaker_than_pgd(model, digits):
    x, y = digits.test.first(40).floats()
    x_adv = attacks.pgd(model, x, y, threat=LINF, steps=20, step_size=0.125, generator=compute.generator(0))
    model.eval()
    assert int((model(x_adv).argmax(1) == y).sum()) >= run(model, digits).counts["apgd-ce"]


@pytest.mark.parametrize("change, message", [
    ({"x": lambda x: x * 255}, r"images from 0 to 255: AutoAttack needs them in \[0, 1\], not normalised"),
    ({"x": lambda x: x - 0.5}, "images from -0.5"),
    ({"x": lambda x: x.index_fill(0, torch.tensor([1]), torch.nan)}, "1 images contain NaN"),
    ({"x": lambda x: x[0]}, r"images \(1, 8, 8\)"),
    ({"x": lambda x: x[:0]}, r"images \(0, 1, 8, 8\)"),
    ({"x": lambda x: (x * 255).byte()}, "torch.uint8"),
    ({"y": lambda y: y + 5}, "labels from 5 to 14, but the model has 10 classes"),
    ({"y": lambda y: y - 1}, "labels from -1 to 8"),
    ({"y": lambda y: y[:3]}, r"labels \(3,\) of torch.int64: AutoAttack needs 40 integers"),
    ({"y": lambda y: y.float()}, "needs 40 integers"),
    ({"threat": Threat("L2", 128.0)}, "radius 128 in L2: .* at most 8;"),
    ({"threat": Threat("Linf", 0.0)}, "radius 0 in Linf"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"attacks": ["apgdce"]}, "unknown attack 'apgdce' in AutoAttack .did you mean 'apgd-ce'"),
    ({"attacks": []}, "needs an attack"),
    ({"model": lambda m: nn.Sequential(*m, nn.Unflatten(1, (10, 1)))}, r"returns \(40, 10, 1\) for 40 images"),
    ({"model": lambda m: Wrapped(m, lambda z, x: z * torch.nan)}, "or NaN"),
    ({"model": lambda m: Wrapped(m, lambda z, x: z[:, :1])}, "labels from 0 to 9, but the model has 1 classes"),
])
def test_what_would_be_wrong_is_refused_in_one_line(plain, digits, change, message):
    x, y = digits.test.first(40).floats()
    change = dict(change)
    model, x, y = (change.pop(k, lambda v: v)(v) for k, v in (("model", plain), ("x", x), ("y", y)))
    with pytest.raises(ConfigError, match=message) as error:
        autoattack.standard(model, x, y, **{"threat": LINF, "seed": 0, "log": quiet} | change)
    assert "\n" not in str(error.value)


def test_without_the_package_it_says_what_to_install(plain, digits, monkeypatch):
    original = builtins.__import__
    def without(name, *more):
        """An environment that lacks the package."""
        if name.startswith("pyautoattack"):
            raise ImportError(name)
        return original(name, *more)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="not installed: pip install pyautoattack==0.2.0"):
        run(plain, digits)


def test_importing_it_loads_no_package():
    code = "import sys, lib.evaluate; assert not {'pyautoattack', 'foolbox'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module, recorded", [
    ("autopgd_base", "8d8d7e596a6280af"),
    ("fab_base", "f832b96c9f30cfcf"), ("fab_pt", "d2f9f516f9747822"),
    ("fab_projections", "0afb22947453d345"), ("square", "970fb6ec5b08113e"),
    ("checks", "376eab03ee325f39")])
def test_the_package_is_the_one_that_was_read(module, recorded):
    """The attacks' code without its import lines and blanks at line ends: with another, the name would mislead."""
    source = Path(importlib.util.find_spec(f"pyautoattack.{module}").origin).read_text()
    lines = [line.rstrip() for line in source.splitlines() if not re.match(r"\s*(from|import)\s", line)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == recorded
