"""Flatness: networks whose flatness is known by hand, the ball it is taken over, and a trained network."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn

from lib import attacks, compute, flatness, landscape, train, weights
from lib.config import Threat

CPU = torch.device("cpu")


def of(cfg, *, eps=0.0, norm="Linf", **numbers):
    """A configuration with another threat model and other numbers of flatness."""
    return replace(cfg, threat=Threat(norm, eps), flatness=replace(cfg.flatness, **numbers))


@pytest.fixture
def squares(monkeypatch):
    """Squared logits, summed, as the loss in place of cross-entropy."""
    monkeypatch.setattr(attacks, "cross_entropy", lambda logits, y: logits.square().sum(1))
    # The default of PGD's argument is the true cross-entropy, bound when it was defined.
    pgd = attacks.pgd
    monkeypatch.setattr(attacks, "pgd", lambda *a, **kw: pgd(*a, **kw, loss=attacks.cross_entropy))


def linear(weight, bias):
    """Images (N, 1, 1, columns) -> weight x + bias."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weight[0]), len(weight)))
    model[1].weight.data, model[1].bias.data = torch.tensor(weight), torch.tensor(bias)
    return model


X, Y = torch.tensor([[[[0.5, 0.2]]]]), torch.zeros(1, dtype=torch.long)
W, B = [[1.0, -0.5], [0.3, 0.8]], [0.4, 0.1]


def test_average_of_a_linear_network(cfg, squares):
    """Where W x + b = 0, E |(W + v) x + b|^2 = rows |x|^2 r^2 / (D + 2) over the ball of radius r in D dimensions."""
    numbers, image = of(cfg, average=0.5, draws=3000, steps=1), X[0].flatten().numpy()
    model = linear(W, [float(-value) for value in np.array(W) @ image])
    values = flatness.average(numbers, model, X, Y, compute.generator(0))
    radius, error = 0.5 * np.linalg.norm(W), values.std() / np.sqrt(len(values))
    expected = 2 * image @ image * radius**2 / (4 + 2)
    assert abs(values.mean() - expected) < 3 * error < 0.1 * expected


def test_worst_of_a_linear_network(cfg, squares):
    """max |(W + v) x + b|^2 over |v| <= r is (|W x + b| + r |x|)^2."""
    numbers = of(cfg, worst=0.1, restarts=2, steps=60)
    values = flatness.worst(numbers, linear(W, B), X, Y, compute.generator(0))
    output, radius = np.linalg.norm(np.array(W) @ X[0].flatten().numpy() + B), 0.1 * np.linalg.norm(W)
    expected = (output + radius * X[0].norm().item()) ** 2 - output**2
    assert values == pytest.approx(expected, rel=1e-3)


def test_worst_is_of_the_image_and_the_weight_at_once(cfg, squares):
    """A weight of 2 and an image of 0.5: (2 (1 + xi) (0.5 + eps))^2 - (2 (0.5 + eps))^2."""
    numbers = of(cfg, eps=0.25, worst=0.1, restarts=3, steps=30)
    model, x = linear([[2.0]], [0.0]), torch.full((1, 1, 1, 1), 0.5)
    values = flatness.worst(numbers, model, x, Y, compute.generator(0))
    assert values == pytest.approx((2 * 1.1 * 0.75) ** 2 - (2 * 0.75) ** 2, rel=1e-5)


def test_v_is_uniform_in_the_ball():
    model, generator = linear(W, B), compute.generator(0)
    drawn = torch.stack([flatness.uniform_in_ball(model, 0.3, generator)["1.weight"].flatten() for _ in range(4000)])
    share = drawn.norm(dim=1) / (0.3 * model[1].weight.detach().norm())
    assert share.max() <= 1 + 1e-6
    assert scipy_stats.kstest(share.numpy() ** 4, "uniform").pvalue > 0.01  # P(norm <= s) = s^4 in four dimensions
    assert drawn.mean(0).abs().max() < 0.03 and torch.cov(drawn.T).diagonal().std() < 0.1 * drawn.var()


def test_only_weights_of_two_dimensions_move_and_in_high_dimension_to_the_sphere(model):
    v = flatness.uniform_in_ball(model, 0.5, compute.generator(0))
    norms = {name: p.detach().norm() for name, p in model.named_parameters() if p.dim() > 1}
    assert set(v) == set(norms)
    assert all(0.95 * 0.5 < v[name].norm() / norm <= 0.5 * 1.0001 for name, norm in norms.items())


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_joint_ascent_stays_in_the_ball_and_draws_anew(cfg, digits, model, norm):
    x, y = digits.test.first(20).floats()
    numbers, generator = of(cfg, eps=0.2, norm=norm, worst=0.05), compute.generator(0)
    one, other = (flatness.climbed(numbers, model, x, y, generator) for _ in range(2))
    for v in (one, other):
        for name, w in weights.movable(model).items():
            assert v[name].norm() <= 0.05 * w.norm() * 1.0001 and not v[name].requires_grad
    assert not torch.allclose(one["1.head.weight"], other["1.head.weight"])


def test_gradients_are_those_of_a_moved_copy(cfg, digits, model, monkeypatch):
    x, y = digits.test.first(20).floats()
    v = flatness.uniform_in_ball(model, 0.1, compute.generator(0))
    plain = copy.deepcopy(model).eval()
    for name, p in plain.named_parameters():
        p.data += v.get(name, 0.0)
    image = x.clone().requires_grad_()
    nn.functional.cross_entropy(plain(image), y, reduction="sum").backward()
    for batch in (500, 7):
        monkeypatch.setattr(landscape, "BATCH", batch)
        with attacks.under_attack(model):
            of_images, of_weights = flatness._gradients(model, v, x, y)
        assert torch.allclose(of_images, image.grad, atol=1e-5)
        assert all(torch.allclose(g, dict(plain.named_parameters())[n].grad, atol=1e-4) for n, g in of_weights.items())


def test_average_is_the_plain_difference_over_its_draws(cfg, digits, model):
    x, y = digits.test.first(30).floats()
    numbers = of(cfg, eps=0.2, draws=2, steps=4)
    found = flatness.average(numbers, model, x, y, compute.generator(5))

    def rho(network):
        made = attacks.pgd(network, x, y, threat=numbers.threat, steps=4, step_size=cfg.landscape.step_size,
                           generator=compute.generator(0))
        return nn.functional.cross_entropy(network.eval()(made), y).item()

    generator, plain = compute.generator(5), []
    for _ in range(2):
        v, other = flatness.uniform_in_ball(model, 0.5, generator), copy.deepcopy(model)
        for name, p in other.named_parameters():
            p.data += v.get(name, 0.0)
        plain.append(rho(other) - rho(copy.deepcopy(model)))
    assert found == pytest.approx(plain, abs=1e-5)


def test_the_network_is_left_as_it_was(cfg, digits, model):
    x, y = digits.test.first(20).floats()
    model.train()[1].head.weight.requires_grad_(False)
    before, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    flatness.average(cfg, model, x, y, compute.generator(0))
    flatness.worst(cfg, model, x, y, compute.generator(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    assert [p.requires_grad for p in model.parameters()] == flags


@pytest.fixture(scope="module")
def measured(robust):
    """A trained network, its images, a small configuration, its landscape and its table."""
    model, images, run = robust
    run = replace(run, landscape=replace(run.landscape, images=64, points=5, directions=3, surface_points=3),
                  flatness=replace(run.flatness, draws=4, restarts=3, steps=10))
    before = train.snapshot(model)
    trained = train.Trained(None, {"last": before}, {})
    found = landscape.explore(run, images, trained, CPU, lambda line: None)
    table = flatness.measure(run, images, model, found, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return model, images, run, found, table


class TestTrainedNetwork:
    def test_the_worst_is_worse_than_chance(self, measured):
        model, images, run, *_ = measured
        x, y = landscape.sample(run, images)["test"]
        numbers = replace(run, flatness=replace(run.flatness, average=0.02, worst=0.02, draws=10))
        chance = flatness.average(numbers, model, x, y, compute.generator(0))
        worst = flatness.worst(numbers, model, x, y, compute.generator(0))
        assert (worst > 0).all() and worst.min() > 3 * np.abs(chance).max()

    def test_table(self, measured):
        *_, run, found, table = measured
        value = table.set_index(["split", "measure", "number"]).value.sort_index()
        assert list(table) == flatness.COLUMNS and set(table.method) == {"pgd"} and set(table.seed) == {0}
        assert table.groupby(["split", "measure"], sort=False).size().to_dict() == {
            ("train", "loss"): 1, ("train", "sharpness"): 3, ("train", "frozen"): 3, ("train", "near"): 3,
            ("train", "far"): 3, ("test", "loss"): 1, ("test", "sharpness"): 3, ("test", "average"): 4,
            ("test", "worst"): 3}
        assert value["test", "loss", 0] == found["test"][0, 2]
        assert value["train", "frozen", 1] == pytest.approx((found["frozen"][1, 1] + found["frozen"][1, 3]) / 2
                                                            - found["frozen"][1, 2])
        less = found["train"][2] - found["frozen"][2]
        assert value["train", "far", 2] == pytest.approx((less[0] + less[4]) / 2)
        assert value["train", "near", 2] == pytest.approx((less[1] + less[3]) / 2)
        assert 0 < value["train", "near"].min() and value["train", "near"].max() < value["train", "far"].min()

    def test_errors_are_over_images(self, measured):
        *_, found, table = measured
        error = table.drop_duplicates(["split", "measure"]).set_index(["split", "measure"]).error
        assert (table.images == 64).all() and (error > 0).all()
        middle = found["test_images"][2]
        assert error["test", "loss"] == pytest.approx(scipy_stats.sem(middle), rel=1e-6)
        sharp = found["train_images"][[1, 3]].mean(0) - found["train_images"][2]
        assert error["train", "sharpness"] == pytest.approx(scipy_stats.sem(sharp), rel=1e-4)

    def test_summary(self, measured):
        *_, table = measured
        rows = flatness.summary(table).set_index(["split", "measure"])
        values = table[(table.measure == "average")].value
        low, high = scipy_stats.t.interval(0.95, len(values) - 1, values.mean(), scipy_stats.sem(values))
        found = rows.loc["test", "average"]
        assert [found.value, found.low, found.high, found.n] == pytest.approx([values.mean(), low, high, 4])
        worst = rows.loc["test", "worst"]
        assert worst.value == table[table.measure == "worst"].value.max() and np.isnan(worst.low) and worst.n == 3
        assert flatness.interval([1.0, 2.0, 3.0])["mean"] == 2

    def test_draws_and_restarts_are_of_test_images_and_of_the_seed(self, measured):
        model, images, run, found, table = measured
        x, y = landscape.sample(run, images)["test"]
        generator = compute.generator(flatness.DRAWS_SEED + run.seed)  # the directions take run.seed
        draws, restarts = (f(run, model, x, y, generator) for f in (flatness.of_random, flatness.of_worst))
        for name, values in (("average", draws), ("worst", restarts)):
            assert table[table.measure == name].value.to_numpy() == pytest.approx(values.mean(1), rel=1e-6)
        highest = restarts[restarts.mean(1).argmax()]
        assert table[table.measure == "worst"].error.to_numpy() == pytest.approx(scipy_stats.sem(highest), rel=1e-6)
        again = flatness.measure(replace(run, seed=1), images, model, found, CPU)
        assert not np.allclose(again[again.measure == "average"].value, draws.mean(1))

    def test_the_joint_ascent_moves_both(self, measured, monkeypatch):
        """The examples of its last iteration are worse than its first at any v, and so is v for any examples."""
        model, images, run, *_ = measured
        x, y = landscape.sample(run, images)["test"]
        seen, gradients = [], flatness._gradients
        monkeypatch.setattr(flatness, "_gradients", lambda model, v, x_adv, y: (
            seen.append((x_adv, v)), gradients(model, v, x_adv, y))[1])
        flatness.climbed(run, model, x, y, compute.generator(0))
        loss = np.empty((2, 2))
        for i, (x_adv, _) in enumerate((seen[0], seen[-1])):
            for j, (_, v) in enumerate((seen[0], seen[-1])):
                with weights.moved(model, (1.0, v)):
                    loss[i, j] = landscape.losses(model, x_adv, y).mean()
        assert len(seen) == run.flatness.steps
        assert (loss[1] > loss[0] + 0.1).all() and (loss[:, 1] > loss[:, 0]).all()
        assert all((x_adv - x).abs().max() <= run.threat.eps * 1.001 for x_adv, _ in seen)
