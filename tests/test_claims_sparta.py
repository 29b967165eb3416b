"""The claims of Sparta: made-up evidence on which each has to hold, and on which it has to fail."""

import numpy as np
import pandas as pd
import pytest

from lib.claims import sparta
from lib.claims.rules import Evidence

SEEDS, IMAGES = 3, 400
EASE = np.random.default_rng(0).permutation(IMAGES) / IMAGES
HEADLINE = "pgd-20"

# Accuracy under the headline attack: as the abstract has it, and the other way round.
AS_CLAIMED = {"relu": 0.5, "bias": 0.55, "map": 0.6, "pooled": 0.6, "silu": 0.55, "wide silu": 0.56, "swish": 0.57,
              "sparta": 0.7, "additive": 0.9}
REVERSED = {"relu": 0.6, "bias": 0.59, "map": 0.5, "pooled": 0.5, "silu": 0.62, "wide silu": 0.63, "swish": 0.58,
            "sparta": 0.45, "additive": 0.9}


def table(rates, **keys):
    """Rows with these accuracies, attack -> rate, of which the easiest images are right; seeds differ a little."""
    return pd.concat([pd.DataFrame({**keys, "seed": seed, "attack": attack, "index": np.arange(IMAGES), "label": 0,
                                    "predicted": (EASE >= rate + 0.005 * seed).astype(int)})
                      for seed in range(SEEDS) for attack, rate in rates.items()], ignore_index=True)


def activations(robust, clean=None, square=None):
    """The evidence of 19_activations: accuracies by activation; clean 0.95 and Square 0.1 above, unless given."""
    clean, square, found = clean or {}, square or {}, []
    for name, rate in robust.items():
        rates = {"clean": clean.get(name, 0.95), HEADLINE: rate, "square": square.get(name, rate + 0.1)}
        found += [table(rates, method="pgd", activation=name, split="test"),
                  table({HEADLINE: rate}, method="pgd", activation=name, split="validation")]
        found += [table({radius: rate + 0.2 - 0.2 * radius}, method="standard", activation=name, split="radii")
                  for radius in (0.5, 1.0)]
    rows = pd.concat(found, ignore_index=True)
    along = rows.split == "radii"
    return {"activations": rows[~along], "radii": rows[along].rename(columns={"attack": "radius"})}


def transplants(**rates):
    """The evidence of 21_transplant: accuracies by arm, in both directions between networks, and on other images."""
    usual = {"T0": 0.5, "T1": 0.55, "T2": 0.7, "T3": 0.65, "T4": 0.5, "T5": 0.52} | rates
    kinds = (("network", "a to b"), ("network", "b to a"), ("images", "halves"), ("images", "mnist"))
    rows = [table({"strong": rate, "clean": 0.95}, method="pgd", kind=kind, direction=direction, arm=arm, split="test")
            for kind, direction in kinds for arm, rate in usual.items()]
    return {"transplant": pd.concat(rows, ignore_index=True)}


def gates(detached=0.7, difference=1e-7):
    """The evidence of 20_gates."""
    rows = [table({HEADLINE: rate, "clean": 0.95}, method="pgd", activation="sparta", ablation=name)
            for name, rate in (("none", 0.6), ("detached", detached), ("averaged", 0.2))]
    same = pd.DataFrame({"method": "pgd", "seed": range(SEEDS), "identity": sparta.SWISH, "difference": difference})
    return {"gates": pd.concat(rows, ignore_index=True), "identities": same}


def evidence(**studies):
    main = table({HEADLINE: 0.5}, split="test", checkpoint="last")
    main = pd.concat([main.assign(method=method) for method in ("standard", "pgd")])
    return Evidence(main, HEADLINE, studies=studies)


def row(id_, found):
    claim = next(c for c in sparta.CLAIMS if c.id == id_)
    assert claim.applies(found)
    return claim.row(found)


def verdict(id_, found):
    given = row(id_, found)
    assert given["n_seeds"] == SEEDS and given["low"] - 1e-9 <= given["estimate"] <= given["high"] + 1e-9
    return given["verdict"]


LADDER = [f"{which}-{step}" for which in ("P1a", "P1b") for step in sparta.PROPERTIES]


@pytest.mark.parametrize("id_", [*LADDER, "P1s", "P1x", "P2", "P2-relu", "P2-silu", "P7w"])
def test_claims_on_the_activation_hold_and_fail(id_):
    good = {**AS_CLAIMED, "sparta": 0.75} if id_ == "P1x" else AS_CLAIMED
    bad = {**AS_CLAIMED, "sparta": 0.5} if id_ == "P1x" else {**REVERSED, "sparta": 0.4}
    assert verdict(id_, evidence(**activations(good))) == "holds"
    assert verdict(id_, evidence(**activations(bad))) == "fails"


def test_clean_error():
    for of_sparta, relu, best in ((0.99, "holds", "holds"), (0.952, "inconclusive", "holds"), (0.85, "fails", "fails")):
        found = evidence(**activations(AS_CLAIMED, clean={"sparta": of_sparta}))
        assert verdict("P3", found) == best and verdict("P3-relu", found) == relu


def test_estimates_are_differences_of_errors():
    given = row("P2-relu", evidence(**activations(AS_CLAIMED)))
    assert given["estimate"] == pytest.approx(-0.2, abs=0.01)
    both = row("P1x", evidence(**activations({**AS_CLAIMED, "sparta": 0.75})))
    assert both["estimate"] == pytest.approx(-0.1, abs=0.01)
    along = row("P1b-map", evidence(**activations(AS_CLAIMED)))
    assert along["estimate"] == pytest.approx(-0.05, abs=0.01)


def test_the_rival_is_chosen_on_validation_images_and_is_no_control_of_ours():
    studies = activations({**AS_CLAIMED, "wide silu": 0.8, "map": 0.8})
    assert sparta.rival(evidence(**studies)) == "swish"
    rows = studies["activations"]
    rows.loc[(rows.split == "validation") & (rows.activation == "relu"), "predicted"] = 0
    found = evidence(**studies)
    assert sparta.rival(found) == "relu"
    assert row("P2", found)["estimate"] == pytest.approx(row("P2-relu", found)["estimate"])


@pytest.mark.parametrize("number", ["4", "5", "5h"])
def test_transplants_hold_and_fail(number):
    for which in ("", "+silu", "+random", "+standard"):
        assert verdict(f"P{number}{which}", evidence(**transplants())) == "holds"
        assert verdict(f"P{number}{which}", evidence(**transplants(T3=0.4))) == "fails"
    assert row("P4", evidence(**transplants()))["n_images"] == 2 * IMAGES  # there and back


def test_a_data_set_that_is_not_at_hand_leaves_its_claim_open():
    studies = transplants()
    studies["transplant"] = studies["transplant"][studies["transplant"].direction != "mnist"]
    given = row("P5", evidence(**studies))
    assert given["verdict"] == "inconclusive" and given["n_seeds"] == 0
    assert verdict("P5h", evidence(**studies)) == "holds"


def test_masking():
    assert verdict("P7m", evidence(**activations(AS_CLAIMED))) == "holds"
    assert verdict("P7m", evidence(**activations(AS_CLAIMED, square={"sparta": 0.6}))) == "fails"
    assert verdict("P7d", evidence(**gates())) == "holds"
    assert verdict("P7d", evidence(**gates(detached=0.5))) == "fails"


def test_the_identity():
    assert verdict("P6", evidence(**gates())) == "holds"
    assert verdict("P6", evidence(**gates(difference=0.01))) == "fails"


def test_one_seed_is_inconclusive():
    studies = activations(AS_CLAIMED)
    found = evidence(**{name: rows[rows.seed == 0] for name, rows in studies.items()})
    assert all(c.row(found)["verdict"] == "inconclusive" for c in sparta.CLAIMS if c.applies(found))
