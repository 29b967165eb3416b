"""The benchmark: its reference is a real training and the same one as ours, passes are counted, floors are right."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import __main__, attacks, bench, compute, config, figures, stats, train
from lib.attacks.threat import uniform_in_ball
from lib.bench import arms, compare, floor, machine, measure, plans, sets, strength
from lib.bench.arms import Arm
from lib.bench.measure import Timing, Trial
from lib.bench.reference import PAD, Reference, _Changed
from lib.cost import Passes
from lib.data import Images
from lib.params import ConfigError
from lib.sources import fetch

CPU = torch.device("cpu")
LATE = 0.99


@pytest.fixture
def plain(cfg):
    """PGD-3 on digits in plain arithmetic, with BatchNorm as the authors have it, and AWP from the beginning."""
    knobs = {**cfg.knobs, "awp": {**cfg.knobs["awp"], "warmup": 0.0}}
    return replace(cfg, knobs=knobs, train=replace(cfg.train, steps=3, batch_size=32))


def arm(spec, name=arms.OURS):
    """An arm in plain arithmetic, with the authors' mode of BatchNorm."""
    return Arm(spec, name, **arms.PLAIN, batchnorm=arms.authors(spec))


def built(config, spec, name, dataset, total=1000):
    return arms.build(config, arm(spec, name), dataset, CPU, total)


@pytest.mark.parametrize("spec", ["pgd", "trades", "pgd+awp"])
def test_the_reference_trains(plain, digits, spec):
    """The loss of one batch, at a fixed radius, falls by more than a quarter within 30 steps."""
    runner = built(plain, spec, arms.REFERENCE, digits)
    x, y = digits.train.first(32).floats()
    log = [runner.step(x, y, LATE) for _ in range(30)]
    assert np.mean([entry["loss"] for entry in log[-3:]]) < 0.75 * np.mean([entry["loss"] for entry in log[:3]])
    assert log[-1]["clean"] > log[0]["clean"] and all(0 <= entry["robust"] <= 1 for entry in log)


def first_batch(config, dataset, images, spec):
    """What `train_epoch` draws first: its order, here of one batch, and the noise of the attack."""
    generator = compute.generator(config.seed)
    order = torch.randperm(len(images), generator=generator)
    x, y = images.take(order).floats()
    noise = (0.001 * torch.randn(x.shape, generator=generator) if spec.startswith("trades")
             else uniform_in_ball(x, config.threat, generator))
    return x, y, noise


def apart(one, other):
    """The distance of the gradients of two runners, over the length of the first."""
    gradients = [torch.cat([p.grad.flatten() for p in runner.network.parameters()]) for runner in (one, other)]
    assert gradients[0].norm() > 0.1
    return ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item()


@pytest.mark.parametrize("spec", ["pgd", "trades", "pgd+awp", "trades+awp"])
def test_its_gradient_is_ours(plain, digits, spec):
    """On one batch with the same noise, in float64: rounding would decide the signs of an attack's small gradients.

    With AWP less exactly: v is rounded otherwise, and networks have kinks.
    """
    images = digits.train.first(32)
    ours, theirs = (built(plain, spec, name, digits) for name in (arms.OURS, arms.REFERENCE))
    x, y, noise = first_batch(plain, digits, images, spec)
    for runner in (ours, theirs):
        runner.network.double()
    ours.epoch(images, LATE, ours.scheduler)
    theirs.step(x, y, LATE, noise)
    assert apart(ours, theirs) < (1e-2 if "awp" in spec else 1e-5)
    if "awp" in spec:
        without = built(plain, spec.split("+")[0], arms.OURS, digits)
        without.network.double()
        without.epoch(images, LATE, without.scheduler)
        assert apart(ours, without) > 5e-2
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours.network.parameters(), theirs.network.parameters(),
                                                              strict=True))


def test_batchnorm_follows_the_attack_in_the_reference_alone(plain, digits):
    """The running statistics see K + 2 batches there (the attack, the step, the log), and one in ours."""
    images = digits.train.first(32)
    for name, batches in ((arms.REFERENCE, plain.train.steps + 2), (arms.OURS, 1)):
        runner = built(plain, "pgd", name, digits)
        runner.epoch(images, LATE, runner.scheduler)
        layer = next(m for m in runner.network.modules() if isinstance(m, nn.BatchNorm2d))
        assert layer.num_batches_tracked == batches


def test_awp_of_the_reference_steps_from_w_plus_v(plain, digits):
    """v has norm gamma ||w_l||, vectors stay, and it is taken off again."""
    runner = built(plain, "pgd+awp", arms.REFERENCE, digits)
    x, y = digits.train.first(32).floats()
    before = train.snapshot(runner.network)
    v = runner._ascend(x, x, y)
    assert all(torch.equal(value, before[name]) for name, value in runner.network.state_dict().items())
    for name, w in runner.network.named_parameters():
        assert (name in v) == (w.dim() > 1)
        if name in v:
            assert v[name].norm() == pytest.approx(plain.knobs["awp"]["gamma"] * w.norm().item(), rel=1e-3)
    runner._move(v, 1)
    with torch.no_grad():
        higher = F.cross_entropy(runner.network(x), y)
    runner._move(v, -1)
    with torch.no_grad():
        assert higher > F.cross_entropy(runner.network(x), y)
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in runner.network.named_parameters())


def test_unknown_to_the_reference(plain, digits):
    for spec in ("mart", "pgd+ducat", "standard"):
        with pytest.raises(ConfigError, match=f"no reference loop for '{spec.replace('+', '.')}': it knows pgd and tr"):
            Reference(replace(plain, method=spec), digits, CPU, 10)


def test_images_of_the_reference_are_cut_and_mirrored():
    x = torch.arange(2 * 36, dtype=torch.uint8).view(2, 1, 6, 6)
    images = Images(x, torch.tensor([3, 5]))
    torch.manual_seed(0)
    same, y = _Changed(images, [])[1]
    assert torch.equal(same, x[1].float() / 255) and y == 5
    cut = torch.stack([_Changed(images, ["crop"])[1][0] for _ in range(200)])
    padded = F.pad(x[1].float() / 255, [PAD] * 4)
    windows = {padded[:, i:i + 6, j:j + 6].numpy().tobytes() for i in range(9) for j in range(9)}
    seen = {one.numpy().tobytes() for one in cut}
    assert seen <= windows and len(seen) > 50
    mirrored = [bool((_Changed(images, ["flip"])[1][0] == same.flip(2)).all()) for _ in range(100)]
    assert 25 < sum(mirrored) < 75
    turned = _Changed(images, ["rotate"])[1][0]
    assert turned.shape == same.shape and not torch.equal(turned, same)


@pytest.mark.parametrize(("spec", "steps", "reference", "ours"), [
    ("pgd", 10, 34, 23), ("trades", 10, 36, 27), ("pgd+awp", 10, 37, 26), ("trades+awp", 2, 18, 17),
    ("pgd+silu", 1, 7, 5),
])
def test_passes(cfg, digits, spec, steps, reference, ours):
    run = replace(cfg, train=replace(cfg.train, steps=steps, batch_size=8))
    found = [measure.work(Trial(arm(spec, name), run, digits), CPU)[0] for name in (arms.REFERENCE, arms.OURS)]
    assert [passes.equivalents for passes in found] == [reference, ours]
    if spec == "pgd":
        assert found == [Passes(steps + 2, 0, steps + 1), Passes(steps + 1, steps, 1)]


def test_the_floor_of_a_known_product(monkeypatch):
    """A clock that says 1 ms for a product of 100 x 100 matrices, and then 4 ms for one of 200 x 200."""
    monkeypatch.setattr(floor, "_product", lambda a, b, device: {100: 1e-3, 200: 4e-3}[len(a)])
    found = floor.rate("float32", CPU, sizes=(100, 200))
    assert found == {"rate": pytest.approx(2 * 200**3 / 4e-3), "size": 200}
    assert floor.seconds(23, 10**9, 1e11) == pytest.approx(0.23)
    assert floor.utilisation(0.23, 0.92) == pytest.approx(0.25)


def test_a_rate_is_that_of_real_products():
    before = torch.get_float32_matmul_precision()
    for precision in ("float32", "tf32", *["bfloat16"] * arms.able(CPU)):
        found = floor.rate(precision, CPU, sizes=(64,), repeats=2)
        assert 0 < found["rate"] < 1e14 and found["size"] == 64
    assert torch.get_float32_matmul_precision() == before


def test_operations_of_a_step_are_those_of_its_layers(plain, digits):
    """Counted by hand for one convolution and one matrix product, two an addition and its product."""
    run = replace(plain, train=replace(plain.train, batch_size=8))
    _, flops = measure.work(Trial(arm("pgd"), run, digits), CPU)
    w = run.model.width
    convolutions = 64 * 9 * (1 * w + w * w) + 16 * 9 * (w * 2 * w + 4 * w * w)
    assert flops == 2 * 8 * (convolutions + 2 * w * 4 * 128 + 128 * 10)


def test_a_ladder_adds_one_thing_at_a_time(monkeypatch):
    monkeypatch.setattr(arms, "able", lambda device: device.type == "cuda")
    cpu, gpu = (arms.ladder("pgd", torch.device(kind)) for kind in ("cpu", "cuda"))
    assert [one.name for one in cpu] == [arms.REFERENCE, arms.OURS, arms.EVAL, arms.LAST, arms.AUTO]
    assert [one.name for one in gpu] == [arms.REFERENCE, arms.STRICT, arms.OURS, arms.EVAL, arms.LAST, arms.HALF,
                                         arms.COMPILED, arms.AUTO]
    assert gpu[0].batchnorm == "train" and gpu[-1] == cpu[-1] == Arm("pgd")
    rungs = [(one.precision, one.memory_format, one.compile, one.batchnorm) for one in gpu[2:-1]]
    assert rungs[0] == ("float32", "contiguous", False, "train")
    assert rungs[-1] == ("bfloat16", "channels_last", True, "eval")
    changes = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in zip(rungs, rungs[1:], strict=False)]
    assert changes == [1] * 4
    assert [one.name for one in arms.ladder("trades", CPU)] == [arms.REFERENCE, arms.OURS, arms.LAST, arms.AUTO]
    assert [one.name for one in arms.ladder("mart", CPU, short=True)] == [arms.AUTO]
    assert [arms.authors(spec) for spec in ("pgd", "pgd+awp", "pgd+ducat", "trades+awp", "mart")] == [
        "train", "train", "eval", "eval", "eval"]


def test_an_arm_is_built_as_it_says(cfg, digits):
    one = Arm("trades", "", "float32", "channels_last", False, "train")
    found = arms.configured(cfg, one)
    assert (found.method, found.knobs["trades"]["batchnorm"], found.compute.memory_format) == (
        "trades", "train", "channels_last")
    assert cfg.knobs["trades"]["batchnorm"] == "eval"
    runner = arms.build(cfg, one, digits, CPU)
    assert arms.resolved(cfg, one, runner.network, CPU) == {
        "precision": "float32", "memory_format": "channels_last", "compile": False, "batchnorm": "train"}
    plain_runner = arms.build(cfg, arm("standard"), digits, CPU)
    assert arms.resolved(cfg, arm("standard"), plain_runner.network, CPU) == {
        "precision": "float32", "memory_format": "contiguous", "compile": False, "batchnorm": "none"}
    assert type(arms.build(cfg, arm("pgd", arms.REFERENCE), digits, CPU)) is Reference


class Ticking:
    """A runner whose steps take so many ticks, by a clock that only it moves."""

    def __init__(self, config, ticks, turns):
        self.config, self.ticks, self.turns, self.scheduler, self.network = config, ticks, turns, Schedule(), None

    def epoch(self, images, start, scheduler):
        for _ in range(len(images) // self.config.train.batch_size):
            now[0] += self.ticks
            scheduler.step()
        self.turns.append((self.ticks, len(images) // self.config.train.batch_size, start))


class Schedule:
    """Counts its steps."""

    steps = 0

    def step(self):
        self.steps += 1


now = [0.0]


def test_arms_take_turns(cfg, digits, monkeypatch):
    turns, runners = [], []

    def build(config, one, *more, **others):
        """A runner of one or two ticks a step."""
        runners.append(Ticking(config, {"pgd": 1.0, "trades": 2.0}[one.method], turns))
        return runners[-1]

    monkeypatch.setattr(arms, "build", build)
    monkeypatch.setattr(arms, "resolved", lambda *more: {"precision": "float32"})
    monkeypatch.setattr(measure, "work", lambda *more: (Passes(1, 1, 1), 100))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    trials = [Trial(Arm(spec), cfg, digits) for spec in ("pgd", "trades")]
    lines = []
    found = measure.timed(trials, CPU, warmup=2, steps=3, rounds=2, log=lines.append)
    assert [one.seconds.tolist() for one in found] == [[[1.0] * 3] * 2, [[2.0] * 3] * 2]
    late = 1 - 1 / cfg.train.epochs
    warm = [(ticks, steps, start) for ticks in (1.0, 2.0) for steps, start in ((1, 0.0), (2, late))]
    assert turns == [*warm, *[(1.0, 3, late), (2.0, 3, late)] * 2]
    assert [one.startup for one in found] == [0.0, 0.0] and runners[0].scheduler.steps == 9
    assert lines[0].startswith("arm 1/2  pgd auto: 4 forward-") and lines[-1] == "round 2/2"


def timing(spec, name, seconds, passes, settings=("float32", "contiguous", False, "eval"), flops=100, label=()):
    """A timing of these seconds (rounds, steps)."""
    run = config.load("smoke", "digits", spec, 0)
    keys = ("precision", "memory_format", "compile", "batchnorm")
    return Timing(Trial(Arm(spec, name), run, None, label), passes, flops, dict(zip(keys, settings, strict=True)),
                  np.array(seconds, float), startup=1.5)


def test_rows_compare_within_rounds():
    """A machine that is ten times slower in the second round leaves the speed-up as it is."""
    slow = [[4, 4, 4], [40, 40, 40]], [[2, 2, 2], [20, 20, 20]]
    both = [timing("pgd", name, seconds, Passes(12, 0, 11)) for name, seconds in zip((arms.REFERENCE, arms.OURS), slow,
                                                                                      strict=True)]
    mart = timing("mart", arms.AUTO, [[1, 1]], Passes(1, 1, 1))
    rates = {"float32": {"rate": 1000.0, "size": 8}}
    reference, ours, other = measure.rows([*both, mart], rates, epoch=1000)
    assert ours["speedup"] == {"median": 2.0, "low": 2.0, "high": 2.0, "n": 2} and other["speedup"] is None
    assert reference["floor"] == pytest.approx(34 * 100 / 1000) and reference["equivalents"] == 34
    assert ours["seconds"] == {"median": 11.0, "low": 2.0, "high": 20.0, "n": 6}
    assert ours["utilisation"] == pytest.approx(3.4 / 11) and ours["images_a_second"] == pytest.approx(64 / 11)
    assert ours["seconds_an_epoch"] == pytest.approx(1000 // 64 * 11) and ours["startup"] == 1.5


def test_overheads_are_over_pgd_with_the_same_settings():
    last = ("float32", "channels_last", False, "eval")
    timings = [timing("pgd", arms.REFERENCE, [[9]], Passes(12, 0, 11)),
               timing("pgd", arms.OURS, [[2], [4]], Passes(11, 10, 1)),
               timing("trades", arms.OURS, [[3], [5]], Passes(13, 10, 2)),
               timing("pgd+ducat", arms.OURS, [[2], [4]], Passes(11, 10, 1), flops=150),
               timing("trades", arms.LAST, [[3], [5]], Passes(13, 10, 2), last)]
    trades, ducat = compare.overheads(timings)
    assert (trades["method"], ducat["method"]) == ("trades", "pgd+ducat")
    assert trades["passes"] == trades["operations"] == pytest.approx(4 / 23)
    assert trades["measured"]["median"] == pytest.approx((0.5 + 0.25) / 2) and trades["measured"]["n"] == 2
    assert trades["points"] == pytest.approx(100 * (0.375 - 4 / 23))
    assert ducat["passes"] == 0 and ducat["operations"] == pytest.approx(0.5) and ducat["points"] == 0


def test_growth_changes_one_number(cfg, digits):
    trials = compare.growth_trials(cfg, digits, batch=[8, 16], size=[12], classes=[7], attack_steps=[2])
    assert [one.label for one in trials] == [("batch", 8), ("batch", 16), ("size", 12), ("classes", 7),
                                             ("attack_steps", 2)]
    numbers = [(one.config.train.batch_size, one.dataset.shape, len(one.dataset.classes), one.config.train.steps)
               for one in trials]
    b, k = cfg.train.batch_size, cfg.train.steps
    assert numbers == [(8, (1, 8, 8), 10, k), (16, (1, 8, 8), 10, k), (b, (1, 12, 12), 10, k), (b, (1, 8, 8), 7, k),
                       (b, (1, 8, 8), 10, 2)]
    assert all(one.arm.compile is False for one in trials)


def test_a_file_of_real_timings(cfg, digits, tmp_path):
    """Every number is there, finite and, where it is a time, positive."""
    run = replace(cfg, train=replace(cfg.train, steps=1, batch_size=8))
    trials = [Trial(one, run, digits) for spec in ("pgd", "trades") for one in arms.ladder(spec, CPU, short=True)]
    timings = measure.timed(trials, CPU, warmup=1, steps=1, rounds=2, log=lambda line: None)
    rates = measure.rates(timings, CPU, sizes=(64,))
    grown = compare.growth_trials(run, digits, batch=[4, 8])
    growth = compare.growth(measure.timed(grown, CPU, warmup=1, steps=1, rounds=2, log=lambda line: None), rates)
    machine.write(tmp_path / "a" / "bench.json", {
        "machine": machine.describe(CPU, run.compute), "rates": rates, "steps": measure.rows(timings, rates, 1000),
        "overheads": compare.overheads(timings), "growth": growth})
    found = json.loads((tmp_path / "a" / "bench.json").read_text())
    assert [(row["method"], row["arm"]) for row in found["steps"]] == [
        ("pgd", "reference"), ("pgd", "auto"), ("trades", "reference"), ("trades", "auto")]
    for row in [*found["steps"], *found["growth"]]:
        numbers = [*row["seconds"].values(), row["floor"], row["utilisation"], row["images_a_second"]]
        assert all(math.isfinite(number) and number > 0 for number in numbers)
    row = found["steps"][1]
    assert set(row) == {"method", "arm", "precision", "memory_format", "compile", "batchnorm", "batch", "attack_steps",
                        "forward", "backward_image", "backward_weights", "equivalents", "flops_forward", "seconds",
                        "floor", "utilisation", "images_a_second", "seconds_an_epoch", "speedup", "startup", "memory"}
    assert set(row["seconds"]) == set(row["speedup"]) == {"median", "low", "high", "n"} and row["memory"] is None
    assert [row["method"] for row in found["overheads"]] == ["trades"]
    assert {"device", "cpu", "flags", "cores", "threads", "load", "torch", "commit"} <= set(found["machine"])


def test_what_is_written_is_plain(tmp_path):
    machine.write(tmp_path / "x.json", {"a": np.float32(1 / 3), "b": [np.int64(2), np.True_, float("nan"), np.inf],
                                        3: {"c": np.arange(2), "d": None, "e": "é", "f": (1, 2.0)}})
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "a": 0.333333, "b": [2, True, None, None], "3": {"c": [0, 1], "d": None, "e": "é", "f": [1, 2.0]}}


def test_names_of_machines(monkeypatch):
    monkeypatch.setattr(machine, "_first", lambda *more: "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz")
    assert machine.name(CPU) == "intel-xeon-platinum-8480"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert machine.name(torch.device("cuda")) == "nvidia-h200"


def test_sets_that_are_absent_become_random(cfg, digits, monkeypatch):
    found = sets.load(cfg, CPU)
    assert found.real and found.described == "digits, 1 x 8 x 8, 10 classes" and found.epoch == len(found.images.train)

    def absent(config, device):
        """As if nothing were there, and nothing may be downloaded."""
        assert not fetch._ALLOWED.get()
        raise fetch.Absent("not on this machine")

    monkeypatch.setattr(sets.data, "load", absent)
    found = sets.load(config.load("default", "cifar10", "pgd", 0), CPU)
    assert not found.real and found.described == "random images of the shape of cifar10, 3 x 32 x 32, 10 classes"
    assert found.epoch == 49_000 and found.images.train.x.dtype == torch.uint8 and len(found.images.classes) == 10
    assert found.images.train.y.unique().tolist() == list(range(10))
    with pytest.raises(fetch.Absent):
        sets.load(replace(cfg, dataset="stl10"), CPU)


def test_settings_and_repeated_images(cfg, digits):
    changed = sets.settings(cfg, digits, batch=5, attack_steps=2, width=3, threads=1)
    assert (changed.train.batch_size, changed.train.steps, changed.model.width) == (5, 2, 3)
    assert sets.settings(cfg, digits) == cfg
    few = digits.train.first(3)
    assert torch.equal(sets.repeated(few, 7).y, few.y[torch.tensor([0, 1, 2, 0, 1, 2, 0])])
    assert torch.equal(sets.repeated(digits.train, 2).x, digits.train.x[:2])


def test_plans():
    gpu = torch.device("cuda")
    assert plans.plan("smoke", "preact_resnet18", gpu).short and plans.plan("paper", "preact_resnet18", gpu).steps == 50
    small, large = (plans.plan("default", name, CPU) for name in ("small_cnn_deep", "preact_resnet18"))
    assert (small.width, large.width, plans.plan("default", "preact_resnet18", gpu).width) == (0, 16, 0)
    assert set(large.growth) == {"batch", "size", "classes", "attack_steps"}


def test_agreement_of_known_gradients():
    plain = torch.tensor([[3.0, -4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 4]).view(3, 1, 2, 2)
    other = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [0.0] * 4]).view(3, 1, 2, 2)
    found = strength.agree(plain, other)
    assert found["cosine"] == pytest.approx((-7 / 25 + 3 / math.sqrt(12)) / 2)
    assert found["sign"] == pytest.approx(4 / 6) and found["weighted"] == pytest.approx((11 - 5) / 11)
    assert found["lost"] == pytest.approx(1 / 6) and found["n"] == 3


@pytest.fixture
def fooled(monkeypatch):
    """An attack that leaves the images, and noise that adds 1: so the images that change are known."""
    def pgd(model, x, y, *, generator, **numbers):
        """In bfloat16 the first image is turned black; from other noise the first two are."""
        low = torch.is_autocast_enabled("cpu")
        n = 1 if low else 2 if generator.initial_seed() != strength.NOISE else 0
        return torch.cat([torch.zeros_like(x[:n]), x[n:]])

    monkeypatch.setattr(strength.attacks, "pgd", pgd)


@pytest.mark.skipif(not arms.able(CPU), reason="no bfloat16 here")
def test_attacks_are_compared_image_by_image(cfg, digits, fooled):
    class Reads(nn.Module):
        """Right unless the image is black."""

        def forward(self, x):
            logits = F.one_hot(y[:len(x)], 10).float()
            return torch.where((x.amax((1, 2, 3)) > 0)[:, None], logits, -logits)

    images = digits.test.first(20)
    y = images.y
    low, control = strength.attack(cfg, Reads(), images, CPU)
    assert (low["against"], low["n"], low["a_only"], low["b_only"], low["p"]) == ("bfloat16", 20, 1, 0, 1.0)
    assert low["accuracy"] == 0.95 and low["accuracy_float32"] == 1.0 and low["mean"] == pytest.approx(0.05)
    assert (control["a_only"], control["b_only"]) == (2, 0) and control["p"] == pytest.approx(0.5)
    assert control["low"] < control["mean"] < control["high"] and control["mean"] == pytest.approx(0.1)
    expected = stats.paired([True] * 20, [False] * 2 + [True] * 18)
    assert control["low"] == expected["low"]


@pytest.mark.skipif(not arms.able(CPU), reason="no bfloat16 here")
def test_the_first_step_of_trades_is_the_rough_one(cfg, model, digits):
    run = replace(cfg, train=replace(cfg.train, steps=3))
    images = digits.test.first(40)
    found = strength.trades(run, model.eval(), images, CPU)
    first, *later = [step["all"]["sign"] for step in found["steps"]]
    assert len(later) == 2 and first < 0.9 < min(later)
    plain, low, mended = found["attacks"]
    assert [plain["a_only"], plain["b_only"], plain["n"]] == [0, 0, 40] and plain["divergence"] > 0
    assert abs(mended["divergence"] - plain["divergence"]) <= abs(low["divergence"] - plain["divergence"]) + 1e-3
    x, y = images.floats()
    generator, threat = compute.generator(strength.NOISE), run.threat
    with torch.no_grad():
        clean = model(x)
    x_adv = attacks.pgd(model, x, y, threat=threat, steps=3, step_size=run.train.step_size, start="near",
                        loss=attacks.kl(clean), generator=generator)
    with torch.no_grad():
        assert plain["divergence"] == pytest.approx(attacks.kl(clean)(model(x_adv), y).mean().item(), rel=1e-4)


@pytest.mark.skipif(not arms.able(CPU), reason="no bfloat16 here")
def test_gradients_agree_but_for_small_ones(cfg, model, digits):
    found = strength.gradients(cfg, model.eval(), digits.test.first(40), CPU)
    assert 0.9 < found["sign"] < found["weighted"] <= 1 and 0.9 < found["cosine"] < 1 and found["lost"] < 0.01


def test_networks_are_compared_seed_by_seed(cfg, few):
    each = strength.study("pgd", CPU)[:2]
    lines = []
    found = strength.networks(cfg, each, few, CPU, epochs=1, seeds=[0, 1], log=lines.append)
    assert list(found) == [("reference", 0), ("ours", 0), ("reference", 1), ("ours", 1)] and len(lines) == 4
    assert not any(network.training for network in found.values())
    result = strength.trained(cfg, found, few.test)
    assert [(row["arm"], row["seed"], row["n"]) for row in result["networks"]] == [
        (arm, seed, 60) for arm, seed in found]
    assert all(0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1 for row in result["networks"]
               for name in ("clean", "robust"))
    one, other, mean = result["differences"]
    assert (one["seed"], other["seed"], mean["seed"], mean["n"]) == (0, 1, None, 2)
    assert mean["mean"] == pytest.approx((one["mean"] + other["mean"]) / 2)
    rows = {(row["arm"], row["seed"]): row["robust"] for row in result["networks"]}
    assert one["mean"] == pytest.approx(rows["reference", 0] - rows["ours", 0])


def test_the_command_runs_the_notebook_beside_the_results(project, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("lib.notebook.execute", lambda *place, **parameters: ran.append((*place, parameters)))
    monkeypatch.setattr(machine, "name", lambda device: "a-cpu")
    monkeypatch.setenv(config.OUT, "")
    assert __main__.main(["bench"]) == 0
    assert __main__.main(["bench", "cifar10", "pgd", "rounds=2", "pgd+awp"]) == 0
    assert "results/bench/a-cpu/cifar10/bench.json" in capsys.readouterr().out
    assert [(str(out.relative_to(project)), given) for _, out, given in ran] == [
        ("results/bench/a-cpu/digits", {"profile": "default", "dataset": "digits", "methods": ""}),
        ("results/bench/a-cpu/cifar10", {"profile": "default", "dataset": "cifar10", "methods": "pgd pgd+awp",
                                         "rounds": 2})]
    assert ran[0][0] == bench.NOTEBOOK and (project / bench.NOTEBOOK).exists()
    assert __main__.main(["bench", "nowhere"]) == 1
    assert "unknown data set 'nowhere'" in capsys.readouterr().err


def bars(names):
    """Bars of these arms."""
    return [{"name": name, "seconds": 2.0 + i, "low": 1.5 + i, "high": 2.5 + i, "floor": 0.5, "text": f"{i}×"}
            for i, name in enumerate(names)]


@pytest.mark.usefixtures("style")
def test_figures(tmp_path):
    def each():
        """One of each figure."""
        yield figures.step_bars({"pgd": bars(["reference", "ours", "auto"]), "trades": bars(["ours"])})
        yield figures.step_overheads({"more": [
            {"method": m, "arm": a, "passes": 0.13, "measured": 0.1, "low": 0.0, "high": 0.2}
            for m in ("trades", "pgd+awp") for a in ("auto", "ours")]}, ["reference", "ours", "auto"])
        yield figures.step_growth({"batch": [{"value": v, "seconds": v / 100, "low": v / 110, "high": v / 90,
                                              "operations": 7 * v} for v in (16, 64)]})
        yield figures.sign_agreement([1, 2], {"all": [0.5, 0.9], "target": [0.6, 1.0]})

    first, second = list(each()), list(each())
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        figures.save(one, tmp_path / f"a{number}.svg")
        figures.save(other, tmp_path / f"b{number}.svg")
        assert (tmp_path / f"a{number}.svg").read_bytes() == (tmp_path / f"b{number}.svg").read_bytes()
    top, bottom = first[0].axes
    assert [patch.get_width() for patch in top.patches] == [2, 3, 4]
    assert [text.get_text() for text in top.get_yticklabels()] == ["reference", "ours", "auto"]
    assert top.patches[0].get_facecolor() != top.patches[1].get_facecolor() == bottom.patches[0].get_facecolor()
    assert [line.get_xdata()[0] for line in top.lines if len(set(line.get_xdata())) == 1
            and len(line.get_xdata()) == 2] == [0.5] * 3
    legend = [text.get_text() for text in first[1].legends[0].texts]
    assert legend == ["what the passes predict", "ours", "auto"]
    dashed, measured = first[2].axes[0].lines[:2]
    assert dashed.get_ydata() == pytest.approx([0.16, 0.64]) and measured.get_ydata() == pytest.approx([0.16, 0.64])
