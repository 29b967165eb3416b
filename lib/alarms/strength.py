"""Is the attack as strong as it could be? Rules on hits alone: which images (N,) are still right under which attack.

Two attacks are compared on the same images, so the standard error of a difference counts only the images on which
they disagree: sqrt(b + c) / n (McNemar). A difference within two of them is chance.
"""

import numpy as np

from lib.alarms.alarm import Alarm, judge, unjudged
from lib.alarms.runs import Runs

CHANGE = 0.005           # of the accuracy with twice the steps
GAIN = 0.002             # of a black-box or transfer attack over the white-box ones (as AutoAttack's warning of Square)
LAST, RISE = 0.2, 0.05   # the last share of the steps, and the share of the loss's rise that it may bring
LARGE_EPS, SILENT = 0.01, 0.01
FEW = 3                  # images that sound no alarm of gain or silent success, however few images there are


def strength(runs: Runs) -> list[Alarm]:
    """Checks 8 to 13 on the results of all attacks."""
    main, white, hits = runs.chain[-1], runs.worst("white-box"), runs.hits
    chain = list(zip(runs.chain, runs.chain[1:], strict=False))
    radii = sorted(r for r in runs.sweep if np.isfinite(r))
    black = [name for name, kind in runs.kinds.items() if kind == "black-box"]
    wider = {(f"{a:g} eps", f"{b:g} eps"): (runs.sweep[a], runs.sweep[b])
             for a, b in zip(radii, radii[1:], strict=False)}
    found = [
        ordered("loss", {(other, main): (hits[other], hits[main]) for other in ("margin", "rescaled")}),
        ordered("ordering", {(a, b): (hits[a], hits[b]) for a, b in chain}),
        ordered("fgsm", {("FGSM", main): (hits["FGSM"], hits[main])}),
        gain("black-box", white, runs.worst("black-box"), ", ".join(black)),
        ordered("steps", {(main, "twice the steps"): (hits["twice"], hits[main])}, CHANGE),
        rising(runs.losses),
        ordered("sweep", wider),
        judge("large-eps", runs.sweep[float("inf")].mean(), LARGE_EPS, "accuracy when any image is allowed"),
        silent(runs.fooled),
    ]
    if "twin" not in hits:
        return [*found, unjudged("transfer", "no twin was given")]
    return [*found, gain("transfer", white, hits["twin"], "PGD on the twin")]


def difference(weaker: np.ndarray, stronger: np.ndarray) -> tuple[float, float]:
    """By how much more accurate the model is under the second attack, and twice the paired standard error of that.

    weaker, stronger: hits (N,) of the same images.
    """
    return stronger.mean() - weaker.mean(), 2 * (weaker != stronger).sum() ** 0.5 / len(weaker)


def ordered(name: str, pairs: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]], least: float = 0.0) -> Alarm:
    """In each pair the first attack should leave at least as many images right as the second.

    pairs: names -> hits. value: the difference of accuracy of the pair that is worst for its limit, which is two
    standard errors or `least`, whichever is more.
    """
    found = []
    for names, hits in pairs.items():
        value, limit = difference(*hits)
        limit = max(limit, least)
        found.append((value - limit, value, limit, f"{names[0]} {hits[0].mean():.1%}, {names[1]} {hits[1].mean():.1%}"))
    _, value, limit, note = max(found)
    return judge(name, value, limit, note)


def gain(name: str, white: np.ndarray, other: np.ndarray, note: str) -> Alarm:
    """Share of images that the other attack fools and no white-box attack does.

    white, other: hits (N,). The limit is `GAIN`, or `FEW` images: a point found by luck is no alarm.
    """
    return judge(name, (white & ~other).mean(), max(GAIN, FEW / len(white)), note)


def rising(losses: np.ndarray) -> Alarm:
    """Share of the rise of the mean loss that the last fifth of the steps brought.

    losses: (steps + 1, N). An attack under which the loss does not rise at all fails, with the value NaN.
    """
    mean = losses.mean(1)
    late = max(1, round(LAST * (len(mean) - 1)))
    total = mean[-1] - mean[0]
    note = f"mean loss {mean[0]:.3g} to {mean[-1]:.3g}, last {late} of {len(mean) - 1} steps"
    return judge("rising", (mean[-1] - mean[-1 - late]) / total if total > 0 else np.nan, RISE, note)


def silent(fooled: np.ndarray) -> Alarm:
    """Share of images that an iterate fooled and the last one does not, of which `FEW` may be.

    fooled: (steps + 1, N).
    """
    lost = fooled[:-1].any(0) & ~fooled[-1]
    return judge("silent-success", lost.mean(), max(SILENT, FEW / len(lost)), f"{lost.sum()} of {len(lost)} images")
