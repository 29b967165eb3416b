"""Methods with some knobs changed, images and labels to try them on, and losses a second time in numpy's float64."""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import log_softmax, softmax

from lib import compute, methods
from lib.methods import Moment


def built(cfg, spec, **knobs):
    """The method of a spec, some of its knobs changed: trades={'beta': 2.0}."""
    changed = {name: {**cfg.knobs[name], **values} for name, values in knobs.items()}
    return methods.build(replace(cfg, method=spec, knobs={**cfg.knobs, **changed}))


def moment(progress=0.9, seed=0, **more):
    return Moment(progress, compute.generator(seed), **more)


def noisy(digits):
    """Images, noisy ones in their place, and labels, of which some are wrong."""
    x, y = digits.train.first(32).floats()
    noise = torch.randn(x.shape, generator=compute.generator(1))
    return x, (x + 0.2 * noise).clamp(0, 1), torch.where(torch.arange(32) % 4 == 0, (y + 1) % 10, y)


def logits(model, *images):
    """What the model says of each tensor of images, as float64."""
    model.eval()
    with torch.no_grad():
        return [model(x).double().numpy() for x in images]


def cross_entropy(z, y):
    return -log_softmax(z, 1)[np.arange(len(y)), y]


def divergence(z, other):
    p, q = softmax(z, 1), softmax(other, 1)
    return (p * np.log(p / q)).sum(1)
