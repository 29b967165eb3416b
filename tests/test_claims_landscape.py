"""The claims about landscapes: made-up tables of flatness on which each has to hold, to fail, or to be left open."""

import numpy as np
import pandas as pd
import pytest

from lib import claims
from lib.claims import awp_landscape

SEEDS, METHODS = 3, ("standard", "pgd", "trades", "mart", "pgd+awp")


def study(values, error=0.01, seeds=SEEDS, methods=METHODS):
    """Rows of flatness.csv: values has for each (split, measure) one value, or one for each of the methods."""
    rows = []
    for (split, measure), value in values.items():
        for method, of_method in zip(methods, np.broadcast_to(value, len(methods)), strict=True):
            for seed in range(seeds):
                for number, shift in enumerate((-0.02, 0.0, 0.02)):
                    rows.append({"method": method, "seed": seed, "split": split, "measure": measure, "number": number,
                                 "value": of_method + shift + 0.01 * seed, "error": error, "images": 128})
    return pd.DataFrame(rows)


def verdicts(rows, methods=METHODS):
    runs = pd.DataFrame({"method": list(methods), "attack": "pgd-20"})
    found = claims.check(claims.Evidence(runs, "pgd-20", studies={"flatness": rows[rows.method.isin(methods)]}),
                         awp_landscape.CLAIMS)
    for row in found:
        assert row["n_images"] == 128 and not row["low"] > row["estimate"] and not row["high"] < row["estimate"]
    return {row["id"]: row for row in found}


def frozen(far, near, **more):
    found = verdicts(study({("train", "far"): far, ("train", "near"): near}, **more), ("pgd",))
    assert set(found) == {"A3a", "A3b"}
    return found


@pytest.mark.parametrize(("far", "near", "expected"), [
    (2.0, 0.1, ("holds", "holds")), (-1.0, 0.1, ("fails", "fails")), (0.5, 0.9, ("holds", "fails")),
    (0.0, 0.0, ("inconclusive", "inconclusive"))])
def test_frozen_examples(far, near, expected):
    found = frozen(far, near)
    assert (found["A3a"]["verdict"], found["A3b"]["verdict"]) == expected
    assert found["A3a"]["estimate"] == pytest.approx(-far - 0.01) and found["A3a"]["n_seeds"] == 3
    assert found["A3b"]["estimate"] == pytest.approx(far - near)


def test_images_and_seeds_count():
    assert frozen(2.0, 0.1, error=1.2)["A3a"]["verdict"] == "inconclusive"  # 2 lies within 1.96 x 1.2 of 0
    assert frozen(2.0, 0.1, error=0.8)["A3a"]["verdict"] == "holds"
    assert frozen(2.0, 0.1, error=0.8)["A3b"]["verdict"] == "inconclusive"  # but not two such errors
    assert frozen(2.0, 0.1, seeds=2)["A3a"]["verdict"] == "inconclusive"


MANY = (*METHODS, *(f"method {i}" for i in range(7)))


def flat(average, worst, methods=METHODS):
    """The rows of A10a and A10b where the robust loss rises from method to method, and flatness is in these orders."""
    order = np.arange(len(methods))
    made = {("test", "loss"): order, ("test", "average"): average(order), ("test", "sharpness"): average(order),
            ("test", "worst"): worst(order), ("train", "far"): 1, ("train", "near"): 0}
    found = verdicts(study(made, methods=methods), methods)
    return [found[name] for name in ("A10a", "A10b") if name in found]


def up(order):
    return order


def down(order):
    return order[::-1]


@pytest.mark.parametrize(("average", "worst", "estimate", "verdict"), [
    (up, down, 2, "holds"), (down, up, -2, "fails"), (up, up, 0, "inconclusive")])
def test_correlations_over_methods(average, worst, estimate, verdict):
    for methods, expected in ((MANY, verdict), (METHODS, "inconclusive")):  # four methods and standard show nothing
        rows = flat(average, worst, methods)
        assert len(rows) == 2
        for row in rows:
            assert row["estimate"] == pytest.approx(estimate) and row["n_seeds"] == 3 and row["verdict"] == expected


def test_standard_training_plays_no_part():
    rows = study({("test", name): [1000 * (name == "worst"), 1, 2, 3, 4] for name in ("loss", "average", "sharpness",
                                                                                   "worst")})
    rows = pd.concat([rows, study({("train", "far"): 1, ("train", "near"): 0})])
    assert verdicts(rows)["A10a"]["estimate"] == pytest.approx(0)


def test_four_methods_are_needed():
    assert flat(up, down, METHODS[:4]) == []  # without AWP
    assert flat(up, down, METHODS[1:])[0]["estimate"] == pytest.approx(2)


def test_the_worst_is_the_largest_restart_and_test_images_are_read():
    order = np.arange(len(METHODS))
    made = {(split, name): order if split == "test" else -order for split in ("test", "train")
            for name in ("loss", "average", "sharpness", "worst")}
    rows = study({**made, ("train", "far"): 1, ("train", "near"): 0})
    worst = (rows.split == "test") & (rows.measure == "worst")
    highest, lowest = (worst & (rows.number == number) for number in (2, 0))
    rows.loc[highest, "value"] = 100 - 10 * rows.value[highest]
    rows.loc[lowest, "value"] = 30 * rows.value[lowest] - 1000  # the mean keeps the order
    assert verdicts(rows)["A10a"]["estimate"] == pytest.approx(2)
