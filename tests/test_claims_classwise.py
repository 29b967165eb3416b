"""The claims of the class-wise paper: made-up evidence on which each has to hold, and on which it has to fail."""

import numpy as np
import pandas as pd
import pytest

from lib import claims, evaluate
from lib.claims import classwise, classwise_studies

CLASSES, EACH, SEEDS = 10, 200, 3
RISING = np.linspace(0.1, 0.9, CLASSES)
EQUAL = np.full(CLASSES, 0.5)


def table(accuracy, method="pgd", attack="pgd-20", split="test", taken_for=lambda c: c ^ 1):
    """Per-sample rows in which class c has accuracy[c] for every seed, up to a little noise of the images."""
    labels = np.repeat(np.arange(CLASSES), EACH)
    tables = []
    for seed in range(SEEDS):
        hit = np.random.default_rng(seed).random(len(labels)) < np.asarray(accuracy)[labels]
        predicted = np.where(hit, labels, taken_for(labels))
        tables.append(pd.DataFrame({
            "method": method, "seed": seed, "checkpoint": "last", "split": split, "attack": attack,
            "index": np.arange(len(labels)), "label": labels, "predicted": predicted}))
    return pd.concat(tables, ignore_index=True)


def evidence(*tables, **more):
    return claims.Evidence(pd.concat(tables, ignore_index=True), "pgd-20", "report", **more)


def verdict(rule, found):
    result = rule(found)
    assert result["n"] == SEEDS and result["low"] <= result["mean"] + 1e-9 and result["mean"] <= result["high"] + 1e-9
    return result["verdict"]


@pytest.mark.parametrize(("attacked", "clean", "expected"), [(RISING, EQUAL, "holds"), (EQUAL, RISING, "fails")])
def test_spread(attacked, clean, expected):
    found = evidence(table(attacked), table(clean, "standard", evaluate.CLEAN))
    assert verdict(classwise.larger_spread, found) == expected


@pytest.mark.parametrize(("other", "expected"), [(0.9 * RISING, "holds"), (RISING[::-1], "fails")])
def test_attacks_and_methods_rank_alike(other, expected):
    assert verdict(classwise.over_attacks, evidence(table(RISING), table(other, attack="fgsm"))) == expected
    found = evidence(table(RISING), table(other, "trades"), table(EQUAL, "standard"), table(EQUAL, "pgd+balanced"))
    assert verdict(classwise.over_defences, found) == expected  # those that aim at classes are no evidence


@pytest.mark.parametrize(("other", "expected"), [(0.2 + 0.6 * (RISING > 0.1), "holds"), (RISING[::-1], "fails")])
def test_one_class_is_the_weakest(other, expected):
    weak = 0.1 + 0.5 * (RISING > 0.1)
    found = evidence(table(weak), table(weak, split="train"), table(other, "trades"))
    assert verdict(classwise.same_weakest, found) == expected


@pytest.mark.parametrize(("drop", "expected"), [(RISING[::-1], "holds"), (RISING, "fails")])
def test_who_loses_to_a_stronger_attack(drop, expected):
    weak = 0.5 + 0.4 * RISING
    found = evidence(table(weak, attack="fgsm"), table(weak - 0.5 * drop, attack="report"), table(weak))
    assert verdict(classwise.gain_of_weak_classes, found) == expected
    assert verdict(classwise.share_of_bottom_half, found) == expected


def test_symmetry_and_groups():
    def attracts(labels):
        """Every image of a group goes to the other group."""
        return (labels + 5) % CLASSES

    pairs, apart = table(RISING[np.arange(CLASSES) // 2]), table(EQUAL, taken_for=attracts)
    groups = [str(c // 2) for c in range(CLASSES)]
    assert verdict(classwise.symmetric, evidence(pairs)) == "holds"
    assert verdict(classwise.symmetric, evidence(table(EQUAL, taken_for=lambda c: (c + 1) % CLASSES))) == "fails"
    assert verdict(classwise.within_group, evidence(pairs, superclasses=groups)) == "holds"
    assert verdict(classwise.within_group, evidence(apart, superclasses=groups)) == "fails"


@pytest.mark.parametrize(("norms", "expected"), [(RISING, "holds"), (RISING[::-1], "fails")])
def test_norms(norms, expected):
    rows = pd.DataFrame([{"method": "pgd", "seed": s, "label": c, "norm": norms[c], "accuracy": RISING[c]}
                         for s in range(SEEDS) for c in range(CLASSES)])
    assert verdict(classwise.norm_correlation, evidence(table(RISING), norms=rows)) == expected


def removal(gone, other):
    """Images of class 0 that were taken for class 1; right without class 1 at the rate `gone`, else at `other`."""
    rows, draw = [], np.random.default_rng(0)
    for seed in range(SEEDS):
        for removed, rate in ((1, gone), (2, other), (-1, other)):
            right = draw.random(300) < rate
            rows.append(pd.DataFrame({
                "method": "pgd", "seed": seed, "removed": removed, "index": np.arange(300), "label": 0, "clean_f": 0,
                "fooled_as": 1, "clean": 0, "transfer": 0, "adaptive": np.where(right, 0, 3)}))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(("gone", "other", "expected"), [(0.8, 0.1, "holds"), (0.2, 0.7, "fails")])
def test_homing(gone, other, expected):
    found = evidence(table(RISING), studies={"removal": removal(gone, other)})
    rows = {row["id"]: row["verdict"] for row in claims.check(found, classwise_studies.CLAIMS)}
    assert rows == {"C6": expected, "C6a": expected, "C6b": expected}


@pytest.mark.parametrize(("tempered", "expected"), [(RISING - 0.1, "holds"), (np.clip(RISING + 0.1, 0, 1), "fails")])
def test_temperature(tempered, expected):
    def rows(accuracy, attack, inverse=np.nan, split="test"):
        return table(accuracy, attack=attack, split=split).assign(inverse_temperature=inverse)

    study = pd.concat([rows(RISING, "pgd"), rows(RISING, "margin"), rows(tempered, "temperature", 5.0),
                       rows(EQUAL, "temperature", 1.0),  # better on test images, but validation does not choose it
                       rows(EQUAL - 0.2, "temperature", 5.0, "validation"),
                       rows(EQUAL, "temperature", 1.0, "validation")], ignore_index=True)
    found = evidence(table(RISING), studies={"temperature": study})
    assert verdict(classwise_studies.stronger_than("pgd"), found) == expected
    assert verdict(classwise_studies.stronger_than("margin"), found) == expected
    wider = study.copy()
    chosen = (wider.attack == "temperature") & (wider.inverse_temperature == 5) & (wider.split == "test")
    spread = RISING if expected == "holds" else EQUAL
    wider = pd.concat([wider[~chosen & (wider.attack != "pgd")], rows(spread, "temperature", 5.0),
                       rows(EQUAL if expected == "holds" else RISING, "pgd")], ignore_index=True)
    assert verdict(classwise_studies.wider_disparity("pgd"), evidence(
        table(RISING), studies={"temperature": wider})) == expected


def helped(after):
    """The study `balance`: without a defence RISING, with one `after`; validation images choose strength 1."""
    def rows(accuracy, defence, strength, split):
        return table(accuracy, attack="strong", split=split).assign(defence=defence, strength=strength)

    return pd.concat([rows(RISING, "none", 0.0, "test"), rows(RISING, "none", 0.0, "validation")] + [
        rows(accuracy, defence, strength, split) for defence in ("balanced", "offset")
        for split, strength, accuracy in (("test", 1.0, after), ("test", 2.0, EQUAL), ("validation", 1.0, EQUAL),
                                          ("validation", 2.0, RISING))], ignore_index=True)


@pytest.mark.parametrize(("after", "expected"), [(0.3 + 0.4 * RISING, "holds"),
                                                 (np.clip(1.2 * RISING - 0.1, 0, 1), "fails")])
def test_help_for_the_weakest(after, expected):
    found = evidence(table(RISING), studies={"balance": helped(after)})
    rows = {row["id"]: row["verdict"] for row in claims.check(found, classwise_studies.CLAIMS)}
    assert rows == dict.fromkeys(["C10a", "C10b", "C10c", "C10d"], expected)


def test_claims_of_what_was_not_run_are_left_out():
    found = evidence(table(RISING), table(EQUAL, "standard", evaluate.CLEAN))
    ids = [row["id"] for row in claims.check(found, [*classwise.CLAIMS, *classwise_studies.CLAIMS])]
    assert "C1" in ids and not {"C2b", "C4a", "C5a", "C6", "C7", "C8-pgd", "C10a"} & set(ids)

