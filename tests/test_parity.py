"""Our attacks against independent implementations of the same, on the same trained network and images."""

import foolbox
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack

from lib import attacks, compute
from lib.config import Threat

N = 200


@pytest.fixture(scope="module")
def attacked(robust):
    """For an attack (model, x, y, threat): what the model gets right, image by image, and forward passes an image.

    On images that the model gets right, since the official code attacks no others; so both draw the same start.
    """
    model, images, run = robust
    x, y = images.test.floats()
    right = model(x).argmax(1) == y
    x, y = x[right][:N], y[right][:N]
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def measure(attack, threat=run.threat):
        passes = []
        hook = model.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
        x_adv = attack(model, x, y, threat)
        hook.remove()
        size = (x_adv - x).flatten(1).norm(p=torch.inf if threat.norm == "Linf" else 2, dim=1)
        assert size.max() <= threat.eps + 1e-5 and 0 <= x_adv.min() and x_adv.max() <= 1
        return model(x_adv).argmax(1) == y, sum(passes) / N

    return measure


def reference(kind, model, threat, seed, **more):
    """An attack of the official code with AutoAttack's numbers."""
    return kind(model, norm=threat.norm, eps=threat.eps, n_restarts=1, n_iter=100, eot_iter=1, rho=0.75, seed=seed,
                verbose=False, device="cpu", **more)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("loss", "name"), [(attacks.cross_entropy, "ce"), (attacks.dlr, "dlr")])
def test_apgd_is_the_official_one_image_by_image(attacked, robust, loss, name, norm, seed):
    threat = robust[2].threat if norm == "Linf" else Threat("L2", 1.0)
    ours, passes = attacked(lambda m, x, y, t: attacks.apgd(
        m, x, y, threat=t, loss=loss, generator=compute.generator(seed)), threat)
    theirs, others = attacked(lambda m, x, y, t: reference(APGDAttack, m, t, seed, loss=name).perturb(x, y), threat)
    assert (ours != theirs).sum() <= 1 and 0.05 < ours.float().mean() < 0.95
    assert passes == 101 and passes <= others


def test_targeted_apgd_is_the_official_one_image_by_image(attacked):
    def official(m, x, y, threat):
        attack = reference(APGDAttack_targeted, m, threat, 0)
        attack.n_target_classes = 9
        return attack.perturb(x, y)

    ours, passes = attacked(lambda m, x, y, t: attacks.apgd_targeted(m, x, y, threat=t, generator=compute.generator(0)))
    theirs, others = attacked(official)
    assert (ours != theirs).sum() <= 1 and 0.05 < ours.float().mean() < 0.95
    assert passes <= others


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_pgd_is_foolboxs_image_by_image(attacked, robust, norm):
    threat = robust[2].threat if norm == "Linf" else Threat("L2", 1.0)
    kind = foolbox.attacks.LinfPGD if norm == "Linf" else foolbox.attacks.L2PGD

    def theirs(m, x, y, t):
        attack = kind(rel_stepsize=0.125, steps=20, random_start=False)
        return attack.run(foolbox.PyTorchModel(m, bounds=(0, 1)), x, y, epsilon=t.eps)

    def ours(m, x, y, t):
        return attacks.pgd(m, x, y, threat=t, steps=20, step_size=0.125, start="image", generator=None)

    (a, passes), (b, others) = attacked(ours, threat), attacked(theirs, threat)
    assert (a != b).sum() <= 1 and 0.05 < a.float().mean() < 0.95
    assert passes == others == 20


def test_fgsm_is_foolboxs(robust):
    model, images, run = robust
    x, y = images.test.first(N).floats()
    theirs = foolbox.attacks.LinfFastGradientAttack(random_start=False).run(
        foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilon=run.threat.eps)
    assert torch.allclose(attacks.fgsm(model, x, y, threat=run.threat), theirs, atol=1e-6)


def test_square_is_not_weaker_than_the_official_one(attacked):
    """It fools more: the official code draws no square that touches the last row or column (it rounds down a number
    below h - s), which is much of an image of 8 x 8; and it shares the place of the square among the images."""
    ours, passes = attacked(lambda m, x, y, t: attacks.square(
        m, x, y, threat=t, queries=500, generator=compute.generator(0)))
    theirs, others = attacked(lambda m, x, y, t: SquareAttack(
        m, norm="Linf", eps=t.eps, n_queries=500, p_init=0.8, n_restarts=1, seed=0, verbose=False, device="cpu",
        resc_schedule=False).perturb(x, y))
    assert ours.float().mean() <= theirs.float().mean() + 0.01 and passes <= 1.02 * others
    assert (ours & ~theirs).float().mean() <= 0.03  # what only theirs fooled
