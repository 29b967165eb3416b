"""Claims on tables made so that each holds, fails, or is left open."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import claims, config, evaluate
from lib.claims import rules, spine

ROOT = Path(__file__).parents[1]
CLASSES, IMAGES = 10, 400


def rows(method, seed, attack, rate, split="test", classes=None):
    """Per-sample rows of one run: `rate` of the images right; classes: the accuracy of each class instead."""
    label = np.arange(IMAGES) % CLASSES
    turn = np.arange(IMAGES) // CLASSES  # 40 images a class
    right = turn < np.round(40 * np.asarray(classes if classes is not None else [rate] * CLASSES))[label]
    return pd.DataFrame({"method": method, "seed": seed, "checkpoint": "last", "split": split, "attack": attack,
                         "index": np.arange(IMAGES), "label": label,
                         "predicted": np.where(right, label, (label + 1) % CLASSES)})


def evidence(standard, pgd, clean=((0.95,), (0.95,)), train=None, classes=None):
    """Accuracy under attack of both methods, seed by seed; clean and training accuracy; class accuracies of pgd."""
    tables = []
    for seed, (s, p) in enumerate(zip(standard, pgd, strict=True)):
        by_class = classes[seed] if classes else None
        tables += [rows("standard", seed, "pgd-20", s), rows("pgd", seed, "pgd-20", p, classes=by_class),
                   rows("standard", seed, "clean", clean[0][seed % len(clean[0])]),
                   rows("pgd", seed, "clean", clean[1][seed % len(clean[1])])]
        tables += [rows("pgd", seed, "pgd-20", train[seed], split="train")] if train else []
    return rules.Evidence(pd.concat(tables, ignore_index=True), "pgd-20")


class TestJudge:
    @pytest.mark.parametrize(("low", "high", "above", "below"), [
        (0.1, 0.2, "holds", "fails"), (-0.2, -0.1, "fails", "holds"), (-0.1, 0.1, "inconclusive", "inconclusive"),
        (0.0, 0.0, "fails", "fails"), (0.0, 0.1, "inconclusive", "fails"), (-0.1, 0.0, "fails", "inconclusive"),
        (np.nan, np.nan, "inconclusive", "inconclusive")])
    def test_sides_of_zero(self, low, high, above, below):
        estimate = {"mean": (low + high) / 2, "low": low, "high": high, "n": 3}
        assert (rules.judge(estimate, above=0), rules.judge(estimate, below=0)) == (above, below)

    def test_too_few_seeds_are_no_success_and_no_failure(self):
        for low in (0.1, -0.2):
            estimate = {"mean": low, "low": low, "high": low + 0.05, "n": 2}
            assert rules.judge(estimate, above=0) == "inconclusive"
            assert rules.judge(estimate, above=0, seeds=2) == ("holds" if low > 0 else "fails")

    def test_one_side_must_be_named(self):
        for sides in ({}, {"above": 0, "below": 0}):
            with pytest.raises(ValueError, match="either above or below"):
                rules.judge({"mean": 1, "low": 1, "high": 1, "n": 3}, **sides)


LOW, MIDDLE, HIGH = (0.1, 0.125, 0.15), (0.1, 0.5, 0.9), (0.6, 0.625, 0.65)
EQUAL, WEAK = [0.6] * 10, [0.1] + [0.65] * 9
UNSTEADY = [[0.025] + [0.65] * 9, EQUAL, EQUAL]
MADE = {
    "S1": {"holds": dict(standard=LOW, pgd=HIGH), "fails": dict(standard=HIGH, pgd=LOW),
           "inconclusive": dict(standard=(0.5, 0.5, 0.5), pgd=MIDDLE)},
    "S2": {"holds": dict(clean=(HIGH, LOW)), "fails": dict(clean=(LOW, HIGH)),
           "inconclusive": dict(clean=((0.5, 0.5, 0.5), MIDDLE))},
    "S3": {"holds": dict(classes=[WEAK] * 3), "fails": dict(classes=[EQUAL] * 3),
           "inconclusive": dict(classes=UNSTEADY)},
    "S4": {"holds": dict(train=HIGH, pgd=LOW), "fails": dict(train=LOW, pgd=HIGH),
           "inconclusive": dict(train=MIDDLE, pgd=(0.5, 0.5, 0.5))},
}
FILLED = dict(standard=LOW, pgd=HIGH, train=HIGH)


@pytest.mark.parametrize(("name", "verdict"), [(n, v) for n in MADE for v in MADE[n]])
def test_each_claim_holds_fails_or_is_left_open(name, verdict):
    found = {row["id"]: row for row in claims.check(evidence(**{**FILLED, **MADE[name][verdict]}))}
    assert found[name]["verdict"] == verdict
    assert found[name]["low"] <= found[name]["estimate"] <= found[name]["high"]
    assert found[name]["n_seeds"] == 3 and found[name]["n_images"] == IMAGES * (2 if name == "S4" else 1)


@pytest.mark.parametrize("name", MADE)
def test_two_seeds_never_suffice(name):
    made = {**FILLED, **MADE[name]["holds"]}
    two = {key: tuple(v[:2] for v in value) if key == "clean" else value[:2] for key, value in made.items()}
    assert {row["id"]: row["verdict"] for row in claims.check(evidence(**two))}[name] == "inconclusive"


def test_estimates_are_those_of_the_table():
    found = {row["id"]: row for row in claims.check(evidence(**FILLED, clean=((0.9,), (0.8,))))}
    assert found["S1"]["estimate"] == pytest.approx(0.5) and found["S2"]["estimate"] == pytest.approx(-0.1)
    assert found["S4"]["estimate"] == 0


def test_seeds_are_paired():
    """Seeds that differ much, and by the same amount in both methods: the difference is certain."""
    found = claims.check(evidence(standard=(0.1, 0.4, 0.7), pgd=(0.2, 0.525, 0.8), train=HIGH))[0]
    assert found["verdict"] == "holds" and found["high"] - found["low"] < 0.1


def test_unequal_classes_need_every_seed(monkeypatch):
    """The interval lies below, but one seed alone is not significant after Holm."""
    table = evidence(**{**FILLED, "classes": [WEAK] * 3})
    assert spine.unequal_classes(table)["verdict"] == "holds"
    monkeypatch.setattr(spine.stats, "holm", lambda p: np.array([0.001, 0.001, 0.03]))
    assert spine.unequal_classes(table)["verdict"] == "inconclusive"


def test_only_the_last_checkpoint_and_the_right_rows_are_judged():
    table = evidence(**FILLED)
    others = [table.table.assign(checkpoint="best", predicted=-1), rows("other", 0, "pgd-20", 0.0)]
    more = rules.Evidence(pd.concat([table.table, *others]), "pgd-20")
    assert claims.check(more) == claims.check(table)


def test_robustness_is_that_of_the_worst_case_over_all_attacks():
    table = evidence(**FILLED)
    stronger = pd.concat([table.table, *(rows("pgd", seed, "square", 0.3) for seed in range(3))])
    found = {row["id"]: row["estimate"] for row in claims.check(rules.Evidence(stronger, "pgd-20"))}
    before = {row["id"]: row["estimate"] for row in claims.check(table)}
    assert found["S1"] == pytest.approx(0.3 - np.mean(LOW)) and found["S1"] < before["S1"]
    assert (found["S2"], found["S4"]) == (before["S2"], before["S4"])


def test_a_claim_about_a_method_that_was_not_run_is_left_out():
    table = evidence(**FILLED)
    alone = rules.Evidence(table.table[table.table.method == "pgd"], "pgd-20")
    assert [row["id"] for row in claims.check(alone)] == ["S3", "S4", "C5b"]


def test_claims_have_their_own_names_sources_and_figures():
    ids = [claim.id for claim in claims.ALL]
    assert len(set(ids)) == len(ids)
    assert all(claim.source.startswith(("ours", "READ: ")) for claim in claims.ALL)
    cells = json.loads((ROOT / "notebooks/pipeline/90_report.ipynb").read_text())["cells"]
    report = "".join(line for cell in cells for line in cell["source"]).lower()
    assert all(claim.figure in report for claim in claims.ALL)


def test_a_study_is_there_only_as_a_whole(project, monkeypatch):
    monkeypatch.setattr(evaluate, "load_all", lambda *names: None)
    axes = {"studies": {stage: ["pgd", "trades"] for stage in config.axes("smoke")["studies"]}, "seeds": [0]}
    found = []
    for method in axes["studies"]["adaptive"]:
        path = config.folder("adaptive", profile="smoke", dataset="digits", method=method, seed=0) / "sweeps.csv"
        path.parent.mkdir(parents=True)
        pd.DataFrame({"method": [method]}).to_csv(path)
        found.append(claims.gather("smoke", "digits", axes, None).studies)
    assert found[0] == {} and list(found[1]) == ["sweeps"] and list(found[1]["sweeps"].method) == ["pgd", "trades"]
