"""The claims of DUCAT: made-up evidence on which each has to hold, and on which it has to fail."""

import numpy as np
import pandas as pd
import pytest

from lib import claims
from lib.adaptive import ADAPTIVE, PUBLISHED
from lib.claims import ducat, ducat_failures, ducat_forks
from lib.claims.rules import Evidence

SEEDS, IMAGES = 3, 400
EASE = np.random.default_rng(0).permutation(IMAGES) / IMAGES
OBJECTIVES = ducat.OBJECTIVES
EVERY = (*ducat_failures.CLAIMS, *ducat.CLAIMS, *ducat_forks.CLAIMS)

# Accuracy of a method under each attack: the pattern of the paper as published, and of what comes after it.
PLAIN = {"clean": 0.95, (PUBLISHED, "pgd-10"): 0.6, (PUBLISHED, ducat.TARGETED): 0.7, (ADAPTIVE, "pgd-10"): 0.6,
         (ADAPTIVE, "square"): 0.65}
TRAP = {"clean": 0.99, (PUBLISHED, "pgd-10"): 0.8, (PUBLISHED, ducat.TARGETED): 0.6, (ADAPTIVE, "pgd-10"): 0.4,
        (ADAPTIVE, "square"): 0.5, (ADAPTIVE, ducat.TRUNK): 0.7}
SOUND = {**TRAP, (PUBLISHED, ducat.TARGETED): 0.9, (ADAPTIVE, "pgd-10"): 0.8, (ADAPTIVE, "square"): 0.9,
         (ADAPTIVE, ducat.TRUNK): 0.9}
WEAK = {name: rate - 0.3 for name, rate in PLAIN.items()} | {(ADAPTIVE, ducat.TRUNK): 0.6}
SLIGHT = {**TRAP, (PUBLISHED, "pgd-10"): 0.61}


def table(rates, **keys):
    """Rows with these accuracies on the same images, of which the easiest are right; seeds differ a little."""
    tables = []
    for seed in range(SEEDS):
        for attack, rate in rates.items():
            protocol, attack = (ADAPTIVE, attack) if attack == "clean" else attack
            tables.append(pd.DataFrame({**keys, "seed": seed, "protocol": protocol, "attack": attack,
                                        "index": np.arange(IMAGES), "label": 0,
                                        "predicted": (EASE >= rate + 0.005 * seed).astype(int)}))
    return pd.concat(tables, ignore_index=True)


def evidence(**rates):
    """Evidence of 15_adaptive; keys of `rates` are methods, with _ in place of +."""
    usual = {m: PLAIN for m in OBJECTIVES} | {f"{m}_ducat": TRAP for m in OBJECTIVES} | {"trades_ducat": SLIGHT} | rates
    rows = pd.concat([table(r, method=m.replace("_", "+")) for m, r in usual.items()], ignore_index=True)
    return Evidence(rows.assign(split="test", checkpoint="last"), "pgd-10", studies={"adaptive": rows})


def verdict(id_, found):
    claim = next(c for c in EVERY if c.id == id_)
    assert claim.applies(found)
    row = claim.row(found)
    assert row["n_seeds"] == SEEDS and row["n_images"] == IMAGES
    assert row["low"] - 1e-9 <= row["estimate"] <= row["high"] + 1e-9
    return row["verdict"]


@pytest.mark.parametrize(("ids", "good", "bad"), [
    (("D2", "D3-pgd"), {}, {"pgd_ducat": WEAK}),
    (("D3-trades", "D3-mart", "D3-consistency"), {"trades_ducat": TRAP},
     {f"{m}_ducat": WEAK for m in ("trades", "mart", "consistency")}),
    ([f"D4-{m}" for m in OBJECTIVES], {f"{m}_ducat": SOUND for m in OBJECTIVES}, {"trades_ducat": TRAP}),
    ([f"D5-{m}" for m in OBJECTIVES], {f"{m}_ducat": SOUND for m in OBJECTIVES}, {"trades_ducat": TRAP}),
    (("D5s", "D5t"), {"pgd_ducat": SOUND}, {}),
    (("D3t",), {}, {"pgd_ducat": {**TRAP, (PUBLISHED, ducat.TARGETED): 0.8}}),
    (("D6-pgd", "D6-mart", "D6-consistency"), {}, {"trades_ducat": {**TRAP, (PUBLISHED, "pgd-10"): 0.95}}),
])
def test_each_claim_holds_and_fails(ids, good, bad):
    for id_ in ids:
        assert verdict(id_, evidence(**good)) == "holds", id_
        assert verdict(id_, evidence(**bad)) == "fails", id_


def forks(**rates):
    """Evidence of 16_forks; _ stands for a space, and each knob has the value in the fork's name."""
    usual = {"continued": PLAIN, "ducat": TRAP, "half_and_half": {**PLAIN, "clean": 0.99},
             "hard_labels": {**TRAP, (PUBLISHED, "pgd-10"): 0.7}, "adversary_lse": {**TRAP, (ADAPTIVE, "pgd-10"): 0.7},
             "start_0.2": {**TRAP, (PUBLISHED, "pgd-10"): 0.9, (ADAPTIVE, "pgd-10"): 0.2},
             "start_0.8": {**TRAP, (PUBLISHED, "pgd-10"): 0.7, (ADAPTIVE, "pgd-10"): 0.5, (ADAPTIVE, "square"): 0.6},
             "radius_0.5": {**PLAIN, "clean": 0.99, (ADAPTIVE, "pgd-10"): 0.5}, "radius_1": PLAIN} | rates
    tables = []
    for name, rate in usual.items():
        name = name.replace("_", " ")
        start = float(name.split()[1]) if name.startswith("start") else np.nan if "radius" in name else 0.5
        rate = {attack: value for attack, value in rate.items() if ducat.TARGETED not in attack}
        tables += [table(rate, method="pgd", fork=name, start=start, split=s) for s in ("validation", "test")]
    rows = pd.concat(tables, ignore_index=True)
    return Evidence(rows.assign(checkpoint="last"), "pgd-10", studies={"forks": rows})


@pytest.mark.parametrize(("ids", "good", "bad"), [
    (("D9a",), {}, {"hard_labels": {**TRAP, (PUBLISHED, "pgd-10"): 0.9}}),
    (("D9b",), {}, {"start_0.2": WEAK}),
    (("D9c",), {}, {"start_0.2": {**SOUND, "clean": 0.99}}),
    (("D11",), {}, {"radius_0.5": WEAK, "radius_1": WEAK}),
    (("D12a",), {}, {"half_and_half": PLAIN}),
    (("D12b",), {}, {"adversary_lse": WEAK}),
    (("D12c",), {"adversary_lse": SOUND}, {"adversary_lse": WEAK}),
])
def test_each_claim_on_forks_holds_and_fails(ids, good, bad):
    for id_ in ids:
        assert verdict(id_, forks(**good)) == "holds", id_
        assert verdict(id_, forks(**bad)) == "fails", id_


def test_the_rival_of_the_curve_is_chosen_on_validation_images():
    """On test images radius 1 has the higher NRR, on validation images radius 0.5."""
    found = forks()
    rows = found.studies["forks"]
    here = (rows.split == "validation") & (rows.attack != "clean") & (rows.fork == "radius 1")
    rows.loc[here, "predicted"] = 1
    ducat, rival = (2 * a * b / (a + b) for a, b in ((0.99, 0.4), (0.99, 0.5)))
    assert ducat_forks.below_the_curve(found)["mean"] == pytest.approx(ducat - rival, abs=0.01)


def test_balance_as_published_and_attacked_as_deployed():
    """The main table has the deployed classifier; as published the same network is above every other."""
    found = evidence(mart={**PLAIN, "clean": 0.98})
    assert verdict("D10p", found) == "holds" and verdict("D10", found) == "fails"
    assert verdict("D10", evidence(pgd_ducat=SOUND)) == "holds"
    assert verdict("D10p", evidence(pgd_ducat=WEAK)) == "fails"
    rival = 2 * 0.985 * 0.605 / (0.985 + 0.605)  # mart, whose seeds are 0, 0.005 and 0.01 above
    own = 2 * 0.995 * 0.405 / (0.995 + 0.405)
    assert ducat_forks.best_balance(None)(found)["mean"] == pytest.approx(own - rival, abs=0.005)


def test_an_attack_counts_for_its_protocol_alone():
    """As published the worst case does not see what the deployed classifier lets through, and D4 sees both.

    D3 is of the attacks that the authors report alone: not of the one towards classes, which is stronger.
    """
    found = evidence()
    worst = {p: ducat.rows(found, "pgd+ducat", p).hit.mean() for p in (PUBLISHED, ADAPTIVE, None)}
    assert worst == pytest.approx({PUBLISHED: 0.605, ADAPTIVE: 0.405, None: 0.405}, abs=0.002)


def test_each_claim_is_tested_and_has_a_source():
    ids = [c.id for c in EVERY]
    assert len(ids) == len(set(ids)) == 32
    assert all(c.source.startswith(("READ: ", "ours")) for c in EVERY)
    assert [row["id"] for row in claims.check(Evidence(evidence().table, "pgd-10"), EVERY)] == ["D10"]


def failures(all_fail=0.2, in_class=0.05, mean=0.03, published=0.4, adaptive=0.4, base=0.1):
    """Evidence of 17_failures with these shares; the seeds differ by 0.005."""
    seeds, rows = np.arange(SEEDS), {"split": "test", "population": "all", "class": "all", "n": IMAGES}
    failing = pd.DataFrame({"method": "pgd, trades", "setting": "methods", "size": 2, "seed": seeds, **rows,
                            "all_fail": all_fail + 0.005 * seeds, "in_class": in_class})
    failing = pd.concat([failing, failing.assign(setting="seeds", all_fail=0), failing.assign(size=1, all_fail=0),
                         failing.assign(split="train", all_fail=0), failing.assign(population="clean", all_fail=0)])
    difference = pd.DataFrame({"control": ["each method", "each method", "pgd"], "size": [2, 3, 3], "split": "test",
                               "mean": [-0.5, mean, -0.5], "low": [-0.6, mean - 0.02, -0.6],
                               "high": [-0.4, mean + 0.02, -0.4], "n": IMAGES})
    shares = (("pgd+ducat", PUBLISHED, published), ("pgd+ducat", ADAPTIVE, adaptive), ("pgd", "plain", base))
    rescued = pd.concat([pd.DataFrame({"method": m, "kind": k, "seed": seeds, "n": IMAGES, "right": r + 0.005 * seeds})
                         for m, k, r in shares])
    extra = rescued[rescued.method == "pgd"].assign(seed=9, right=1.0)  # a network that only this study has
    tables = {"failing": failing, "difference": difference, "rescued": pd.concat([rescued, extra])}
    return Evidence(evidence().table, "pgd-10", studies=tables)


@pytest.mark.parametrize(("id_", "bad"), [
    ("D1", {"in_class": 0.4}), ("D1c", {"mean": -0.03}), ("D1p", {"published": 0.02}), ("D1r", {"adaptive": 0.02})])
def test_each_claim_on_failures_holds_and_fails(id_, bad):
    assert verdict(id_, failures()) == "holds" and verdict(id_, failures(**bad)) == "fails"


def test_few_images_leave_a_rescue_open():
    found = failures(published=0.2)
    assert verdict("D1p", found) == "holds"
    found.studies["rescued"]["n"] = 20
    assert ducat_failures.rescues(PUBLISHED)(found)["verdict"] == "inconclusive"


def test_without_a_control_nothing_is_said():
    found = failures()
    found.studies["rescued"] = found.studies["rescued"].query("method != 'pgd'")
    assert ducat_failures.rescues(PUBLISHED)(found)["verdict"] == "inconclusive"
    found.studies["difference"]["control"] = "pgd"
    result = ducat_failures.methods_share_more(found)
    assert result["verdict"] == "inconclusive" and result["images"] == 0
