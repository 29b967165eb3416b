"""The loop: reproducible, does what its numbers say, and keeps both checkpoints."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from lib import compute, config, data, methods, params, sources, train

CPU = torch.device("cpu")


def quiet(line):
    """No log."""


@pytest.mark.parametrize("method", ["standard", "pgd"])
def test_same_seed_same_weights_bit_for_bit(cfg, digits, method):
    run = replace(cfg, method=method)
    first, second = (train.fit(run, digits, CPU, quiet) for _ in range(2))
    assert all(torch.equal(v, second.states["last"][k]) for k, v in first.states["last"].items())
    assert first.history.equals(second.history)
    other = train.fit(replace(run, seed=1), digits, CPU, quiet)
    assert not torch.equal(first.states["last"]["1.head.weight"], other.states["last"]["1.head.weight"])


def test_standard_epoch_equals_a_plain_loop(cfg, digits):
    """One epoch of the composable loop against the loop that everybody writes."""
    run = replace(cfg, method="standard", train=replace(cfg.train, epochs=1, schedule="piecewise", lr=0.01))
    ours = train.fit(run, digits, CPU, quiet).states["last"]
    plain = train.initial(run, methods.build(run), digits, CPU)
    optimizer = SGD(plain.parameters(), lr=0.01, momentum=run.train.momentum, weight_decay=run.train.weight_decay)
    batches = list(data.batches(digits.train, run.train.batch_size, compute.generator(run.seed)))
    milestones = (len(batches) // 2, len(batches) * 3 // 4)
    for i, (x, y) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * 0.1 ** sum(i >= m for m in milestones)
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    assert all(torch.allclose(v, ours[k], atol=1e-6) for k, v in plain.state_dict().items())


def test_it_learns_real_digits():
    run = config.load("default", "digits", "pgd", 0)
    run = replace(run, train=replace(run.train, epochs=10))
    history = train.fit(run, sources.prepare(run), CPU, quiet).history
    assert history.clean.iloc[-1] > 0.9 and history.robust.iloc[-1] > 0.5  # chance is 0.1; standard training has 0


def test_best_is_chosen_on_validation_images(cfg, digits, monkeypatch):
    scores = iter([(0.5, 0.1), (0.6, 0.3), (0.9, 0.3), (0.7, 0.2)])
    weights = []

    def validate(run, model, images):
        assert images is digits.validation
        weights.append(train.snapshot(model))
        return next(scores)

    monkeypatch.setattr(train, "validate", validate)
    trained = train.fit(replace(cfg, train=replace(cfg.train, epochs=4)), digits, CPU, quiet)
    assert all(torch.equal(v, weights[2][k]) for k, v in trained.states["best"].items())
    assert all(torch.equal(v, weights[3][k]) for k, v in trained.states["last"].items())


def test_saved_and_loaded(cfg, digits, tmp_path, monkeypatch):
    trained = train.fit(cfg, digits, CPU, quiet)
    monkeypatch.setattr(config.Config, "folder", lambda self, stage: tmp_path)
    trained.save(tmp_path)
    again = train.load(cfg, digits, CPU)
    x, _ = digits.test.floats()
    for checkpoint in train.CHECKPOINTS:
        outputs = [train.model(cfg, t, checkpoint, digits, CPU)(x) for t in (trained, again)]
        assert torch.equal(*outputs)
    assert again.history.epoch.tolist() == [1, 2]
    assert all((again.trace[key] == values).all() for key, values in trained.trace.items())


@pytest.mark.parametrize(("trace", "epochs"), [(2, [2, 4, 5]), (1, [1, 2, 3, 4, 5]), (9, [5])])
def test_the_trace_is_what_the_network_said_of_each_test_image(cfg, digits, trace, epochs):
    run = replace(cfg, train=replace(cfg.train, epochs=5, trace=trace))
    trained, plain = train.fit(run, digits, CPU, quiet), train.fit(replace(run, seed=1), digits, CPU, quiet)
    found = trained.trace
    assert found["epoch"].tolist() == epochs and found["label"].tolist() == digits.test.y.tolist()
    assert found["clean"].shape == found["attacked"].shape == (len(epochs), len(digits.test))
    again = train.predicted(run, train.model(run, trained, "last", digits, CPU), digits.test)
    assert (found["clean"][-1] == again[0]).all() and (found["attacked"][-1] == again[1]).all()
    x, _ = digits.test.floats()
    assert again[0].tolist() == train.model(run, trained, "last", digits, CPU)(x).argmax(1).tolist()
    assert (found["clean"] != plain.trace["clean"]).any()


def test_the_trace_changes_nothing(cfg, digits):
    """However often it looks, weights and history are the same bits."""
    runs = [train.fit(replace(cfg, train=replace(cfg.train, trace=n)), digits, CPU, quiet) for n in (1, 99)]
    assert all(torch.equal(v, runs[1].states["last"][k]) for k, v in runs[0].states["last"].items())
    assert runs[0].history.equals(runs[1].history)


@pytest.mark.parametrize("best", [1, 2])
def test_finish_is_applied_once_to_best_and_to_last(cfg, digits, monkeypatch, best):
    """Also where they are the same epoch; on validation images, and after all training."""
    seen, build = [], methods.build

    def finish(model, images, generator):
        assert images is digits.validation
        seen.append(torch.randint(9999, (), generator=generator).item())
        with torch.no_grad():
            model[1].head.bias += 1

    scores = iter([(0.5, float(epoch == best)) for epoch in (1, 2, 1, 2)])
    monkeypatch.setattr(train, "validate", lambda *arguments: next(scores))
    unfinished = train.fit(cfg, digits, CPU, quiet)
    monkeypatch.setattr(methods, "build", lambda run: replace(build(run), finish=finish))
    trained = train.fit(cfg, digits, CPU, quiet)
    assert len(seen) == 2 and seen[0] == seen[1]  # the same noise for both
    for checkpoint in train.CHECKPOINTS:
        before, after = unfinished.states[checkpoint], trained.states[checkpoint]
        assert torch.equal(after["1.head.bias"], before["1.head.bias"] + 1)
        assert all(torch.equal(v, after[k]) for k, v in before.items() if k != "1.head.bias")
    same = torch.equal(trained.states["best"]["1.head.weight"], trained.states["last"]["1.head.weight"])
    assert same == (best == 2)


def test_log_lines_show_progress(cfg, digits):
    lines = []
    train.fit(cfg, digits, CPU, lines.append)
    assert [line.split()[:2] for line in lines] == [["epoch", "1/2"], ["epoch", "2/2"]]


class Synchronisations(TorchDispatchMode):
    """Operations after which a GPU's host has to wait for a number or for a shape."""

    waits = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select,
             torch.ops.aten.bincount, torch.ops.aten._unique2)

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        mask = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_) and any(
            i is not None and i.dtype == torch.bool for i in args[1])
        if func.overloadpacket in self.waits or mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["pgd", "trades", "mart", "pgd+awp", "pgd+ema", "pgd+cfa", "pgd+balanced", "pgd+he",
                                    "consistency", "pgd+ducat", "pgd+sparta"])
def test_the_host_never_waits_within_an_epoch(cfg, digits, method):
    """But for its mean loss, at the end."""
    run = replace(cfg, method=method)
    made = methods.build(run)
    model, objective, *rest = train.begin(run, made, digits, CPU)
    train.train_epoch(run, made, model, digits.train, *rest, start=0.0, objective=objective)
    with Synchronisations() as seen:
        train.train_epoch(run, made, model, digits.train, *rest, start=0.5, objective=objective)
    assert seen.found == ["aten._local_scalar_dense.default"]


def test_divergence_is_an_error_that_names_the_knob(cfg, digits):
    run = replace(cfg, method="standard", train=replace(cfg.train, lr=1e30, schedule="piecewise"))
    with pytest.raises(FloatingPointError, match="lower train.lr"):
        train.fit(run, digits, CPU, quiet)


@pytest.mark.parametrize(("device", "cuda"), [("auto", False), ("cpu", False)])
def test_device(device, cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    here = config.load("smoke", "digits").compute
    assert compute.device(replace(here, device=device)).type == "cpu"
    with pytest.raises(params.ConfigError, match="compute.device is cuda, but torch sees no GPU"):
        compute.device(replace(here, device="cuda"))
