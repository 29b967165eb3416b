"""The claims on weight perturbation: made-up evidence on which each has to hold, and on which it has to fail."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lib import claims
from lib.claims import awp_perturbation as rules
from lib.perturbation import ADVERSARIAL, NONE, RANDOM

IMAGES, SEEDS = 2000, 3
GAMMAS = (0.0, 0.01, 0.02, 0.03)
AWP = [0.9, 0.8, 0.7, 0.6], [0.3, 0.4, 0.5, 0.4]        # training and test accuracy by gamma: the gap closes
OVERFITS = [0.6, 0.7, 0.8, 0.9], [0.3, 0.25, 0.2, 0.3]  # the reverse


def rows(direction, gamma, seen, tested, alternations=1, steps=1, validation=0.5, seed=range(SEEDS)):
    """Rows of one setting for each seed, with accuracies up to the noise of the images and of the seeds."""
    tables = []
    for s in seed:
        draw = np.random.default_rng([s, int(1000 * gamma), alternations, steps, len(direction)])
        for split, attack, rate in (("train", "pgd-20", seen), ("validation", "strong", validation),
                                    ("test", "clean", max(tested, 0.1) + 0.1 * (tested > 0.1)),
                                    ("test", "pgd-20", tested), ("test", "strong", tested)):
            labels = np.arange(IMAGES) % 10
            predicted = np.where(draw.random(IMAGES) < rate, labels, (labels + 1) % 10)
            tables.append(pd.DataFrame({
                "method": "pgd", "seed": s, "direction": direction, "gamma": gamma, "alternations": alternations,
                "steps": steps, "split": split, "attack": attack, "index": np.arange(IMAGES), "label": labels,
                "predicted": predicted}))
    return pd.concat(tables, ignore_index=True)


def sweep(seen, tested, validation=(0.5, 0.6, 0.7, 0.5)):
    """Every gamma of the adversarial direction, none first; validation images choose 0.02."""
    return [rows(ADVERSARIAL if g else NONE, g, *rates, validation=v)
            for g, *rates, v in zip(GAMMAS, seen, tested, validation, strict=True)]


def evidence(*tables, **more):
    table = pd.concat(tables, ignore_index=True)
    return claims.Evidence(table.assign(checkpoint="last"), "pgd-20", studies={"perturbation": table, **more})


def verdict(rule, found):
    result = rule(found)
    assert result["n"] == SEEDS and result["low"] <= result["mean"] + 1e-9 and result["mean"] <= result["high"] + 1e-9
    assert result["images"] in (IMAGES, 2 * IMAGES)
    return result["verdict"]


@pytest.mark.parametrize(("more", "expected"), [(0.30, "holds"), (0.55, "fails"), (0.41, "inconclusive")])
def test_one_ascent_is_enough(more, expected):
    for name, setting in (("steps", {"steps": 5}), ("alternations", {"alternations": 3})):
        found = evidence(*sweep(*AWP), rows(ADVERSARIAL, 0.01, 0.8, more, **setting),
                         rows(ADVERSARIAL, 0.01, 0.8, 0.7, **{name: 2}))  # of several, the largest is asked
        assert verdict(rules.one_is_enough(name), found) == expected
    nothing = rules.one_is_enough("steps")(evidence(*sweep(*AWP)))
    assert nothing["verdict"] == "inconclusive" and np.isnan(nothing["mean"])


@pytest.mark.parametrize(("seen", "tested", "expected"), [(0.9, 0.3, "holds"), (0.5, 0.5, "fails")])
def test_direction(seen, tested, expected):
    """At 0.02, the largest gamma of both: 0.03 is not random's; and at ten times 0.03 as 0.3."""
    found = evidence(*sweep(*AWP), rows(RANDOM, 0.01, 0.7, 0.5), rows(RANDOM, 0.02, seen, tested))
    assert verdict(rules.direction_matters(1), found) == expected
    result = rules.direction_matters(1)(found)
    assert result["mean"] == pytest.approx(seen - tested - 0.2, abs=0.03)
    found = evidence(*sweep(*AWP), rows(RANDOM, 0.1, 0.7, 0.5), rows(RANDOM, 0.3, seen, tested))
    assert verdict(rules.direction_matters(10), found) == expected
    assert np.isnan(rules.direction_matters(1)(found)["mean"])  # no gamma was given to both


def test_a_network_at_chance_is_no_evidence_of_a_closed_gap():
    dead = [0.9, 0.8, 0.7, 0.1], [0.3, 0.4, 0.5, 0.1]
    found = evidence(*sweep(*dead), rows(RANDOM, 0.03, 0.9, 0.3), rows(RANDOM, 0.02, 0.8, 0.6))
    assert rules.direction_matters(1)(found)["mean"] == pytest.approx(0, abs=0.03)  # at 0.02
    rising = [0.6, 0.7, 0.8, 0.1], [0.5, 0.5, 0.5, 0.1]
    for quantity in (lambda a, b: a, lambda a, b: a - b):
        assert verdict(rules.falls(quantity), evidence(*sweep(*rising))) == "fails"
        assert verdict(rules.falls(quantity), evidence(*sweep(*dead))) == "holds"


@pytest.mark.parametrize(("seen", "expected"), [(0.9, "holds"), (0.8, "fails"), (0.97, "fails")])
def test_random_barely_changes_the_gap(seen, expected, monkeypatch):
    monkeypatch.setattr(rules, "BARELY", 0.05)  # 2 points ask for more images than are drawn here
    found = evidence(*sweep(*AWP), rows(RANDOM, 0.02, seen, 0.3))
    assert verdict(rules.random_barely, found) == expected
    result = rules.random_barely(found)
    assert result["mean"] == pytest.approx(abs(seen - 0.9), abs=0.02) and result["low"] >= 0


@pytest.mark.parametrize(("rates", "expected"), [(AWP, "holds"), (OVERFITS, "fails")])
def test_gamma_trades(rates, expected):
    found = evidence(*sweep(*rates))
    for claim in rules.CLAIMS:
        if claim.id in ("A8a", "A8b"):
            assert verdict(claim.rule, found) == expected


def test_rank_correlation_is_spearmans():
    draw = np.random.default_rng(0)
    values = draw.integers(0, 4, (50, 5))
    values[0] = 2
    expected = [spearmanr(v, range(5)).statistic if np.ptp(v) else 0 for v in values]
    assert rules._ranked(values) == pytest.approx(expected)


def test_the_interval_sees_images():
    """Seeds that agree by chance of a few images are not certain: three seeds alike, 40 images."""
    table = pd.concat([rows(ADVERSARIAL if g else NONE, g, 0.9 - g, 0.4, seed=[0]) for g in GAMMAS])
    table = pd.concat([table[table["index"] < 40].assign(seed=s) for s in range(SEEDS)], ignore_index=True)
    result = rules.falls(lambda a, b: a - b)(evidence(table))
    assert result["n"] == SEEDS and result["high"] - result["low"] > 0.5


@pytest.mark.parametrize(("largest", "expected"), [(0.3, "holds"), (0.7, "fails")])
def test_too_large_hurts(largest, expected):
    found = evidence(*sweep([0.9, 0.8, 0.7, 0.6], [0.3, 0.4, 0.5, largest]))
    assert verdict(rules.too_large_hurts, found) == expected
    assert rules.too_large_hurts(found)["mean"] == pytest.approx(largest - 0.5, abs=0.03)
    found = evidence(*sweep([0.9, 0.8, 0.7, 0.6], [0.3, 0.4, 0.5, largest], validation=(0.5, 0.6, 0.7, 0.9)))
    assert verdict(rules.too_large_hurts, found) == "inconclusive"  # the largest was chosen: none was too large


@pytest.mark.parametrize(("values", "expected"), [([5, 3, 2, 1], "holds"), ([1, 2, 3, 5], "fails")])
def test_flatter(values, expected):
    each = pd.DataFrame([{"method": "pgd", "seed": s, "direction": d, "gamma": g, "alternations": 1, "steps": k,
                          "number": n, "value": v + 0.1 * n, "images": IMAGES}
                         for s in range(SEEDS) for n in range(2)
                         for d, g, k, v in [*zip([NONE, *[ADVERSARIAL] * 3], GAMMAS, [1] * 4, values, strict=True),
                                            (RANDOM, 0.05, 1, 9), (ADVERSARIAL, 0.01, 2, 0)]])
    assert verdict(rules.flatter, evidence(*sweep(*AWP), ablation=each)) == expected


def test_every_claim_has_a_row_where_its_study_has_run():
    tables = [*sweep(*AWP), rows(RANDOM, 0.02, 0.9, 0.3), rows(RANDOM, 0.2, 0.9, 0.3),
              rows(ADVERSARIAL, 0.01, 0.8, 0.3, steps=2), rows(ADVERSARIAL, 0.01, 0.8, 0.3, alternations=2)]
    found = {row["id"]: row for row in claims.check(evidence(*tables), rules.CLAIMS)}
    assert list(found) == ["A6a", "A6b", "A7a", "A7b", "A7c", "A8a", "A8b", "A8c"]  # A8d needs the sharpness too
    assert {row["verdict"] for name, row in found.items() if name != "A7b"} == {"holds"}
    assert not any(row["source"].startswith("READ") for row in found.values())
    assert claims.check(claims.Evidence(evidence(*tables).table, "pgd-20"), rules.CLAIMS) == []
