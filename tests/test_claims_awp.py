"""The claims of AWP's long training: made-up evidence on which each has to hold, and on which it has to fail."""

import numpy as np
import pandas as pd
import pytest

from lib import claims
from lib.claims import awp_trajectory
from lib.overfitting import EARLY

EPOCHS = np.array([20, 60, 80, 100, 101, 120, 140, 200])
SEEDS = 3
NETWORKS = {"pgd": 5.0, "mart": 4.0, "trades": 3.0, "pgd+awp": 2.0}  # S at the last epoch
N = {"train": 300, "test": 400}


def looks(sharp, before=0.1, early=1.0, last=0.0, gaps=1.0):
    """S is level up to epoch 100 but for `before`, then rises to `sharp`, and `last` more; the gap is `gaps` x S."""
    tables = []
    for seed in range(SEEDS):
        for method, s in sharp.items():
            along = np.array([9, 1, 1 + before, 1, 1, s, s, s + last]) * (1 + 0.01 * seed)
            table = pd.DataFrame({"method": method, "seed": seed, "checkpoint": "along", "epoch": EPOCHS,
                                  "lr": np.where(EPOCHS <= 100, 0.1, 0.01), "sharpness": along,
                                  "gap": gaps * along / 10, "radius": [0.5] + [1.0] * 7})
            best = table.iloc[[4]].assign(checkpoint="best", sharpness=early * (1 + 0.01 * seed),
                                          gap=gaps * early / 10)
            tables += [table, best, table.iloc[[-1]].assign(checkpoint="last")]
    return pd.concat(tables, ignore_index=True)


def samples(accuracy):
    """Per-sample rows with accuracy[method, checkpoint][split], the same images for all; seeds differ a little."""
    tables, ease = [], {split: np.random.default_rng(0).permutation(n) / n for split, n in N.items()}
    for (method, checkpoint), splits in accuracy.items():
        for seed in range(SEEDS):
            for split, attack in (("train", "pgd-20"), ("test", "pgd-20"), ("test", "strong")):
                wrong = ease[split] >= splits[split] + 0.005 * seed - 0.05 * (attack == "strong")
                tables.append(pd.DataFrame({
                    "method": method, "seed": seed, "checkpoint": checkpoint, "split": split, "attack": attack,
                    "index": np.arange(N[split]), "label": 0, "predicted": wrong.astype(int)}))
    return pd.concat(tables, ignore_index=True)


def evidence(sharp=None, accuracy=None, **more):
    """Evidence of both tables; accuracy: (method, checkpoint) -> (train, test), by default with a gap like S."""
    sharp = NETWORKS if sharp is None else sharp
    usual = {(m, "last"): (0.95, 0.95 - s / 10) for m, s in NETWORKS.items()}
    usual |= {(m, "best"): usual[m, "last"] for m in NETWORKS} | {("pgd", "best"): (0.8, 0.7)} | (accuracy or {})
    rows = samples({key: dict(zip(N, both, strict=True)) for key, both in usual.items()})
    values = pd.DataFrame([{"method": m, "seed": s, "split": "train", "images": 128}
                           for m in NETWORKS for s in range(SEEDS)])
    return claims.Evidence(rows, "pgd-20", studies={"trajectory": rows, "looks": looks(sharp, **more),
                                                    "sharpness": values})


def verdict(id_, found):
    claim = next(c for c in awp_trajectory.CLAIMS if c.id == id_)
    assert claim.applies(found)
    row = claim.row(found)
    assert row["n_seeds"] == SEEDS and row["low"] <= row["estimate"] + 1e-9 and row["estimate"] <= row["high"] + 1e-9
    assert row["n_images"] in (128, 300, 400, 700)
    return row["verdict"]


FLAT = dict.fromkeys(NETWORKS, 0.5)
TURNED = {"pgd": 2.0, "mart": 3.0, "trades": 4.0, "pgd+awp": 5.0}
SAME = {("pgd+awp", "last"): (0.95, 0.45), ("pgd+awp", "best"): (0.95, 0.55)}


@pytest.mark.parametrize(("ids", "good", "bad"), [
    (("A1a",), {}, {"sharp": FLAT}),
    (("A1b",), {}, {"before": 0.1, "sharp": dict.fromkeys(NETWORKS, 1.0), "last": 9.0}),  # it rises, but late
    (("A1c",), {}, {"gaps": -1.0}),
    (("A2",), {}, {"sharp": TURNED, "early": 6.0, "gaps": -1.0, "accuracy": {("pgd", "best"): (0.75, 0.7)}}),
    (("A4a",), {}, {"sharp": TURNED}),
    (("A4b",), {}, {"accuracy": SAME}),
    (("A4c",), {}, {"accuracy": {("pgd+awp", "last"): (0.95, 0.2)}}),
    (("A5t", "A5t-strong"), {}, {"accuracy": {("pgd+awp", "last"): (0.6, 0.3)}}),
    (("A9a",), {}, {"early": 6.0}),
    (("A9b",), {}, {"accuracy": {("pgd", "best"): (0.9, 0.9)}}),
])
def test_each_claim_holds_and_fails(ids, good, bad):
    for id_ in ids:
        assert verdict(id_, evidence(**good)) == "holds", id_
        assert verdict(id_, evidence(**bad)) == "fails", id_


def test_the_strong_attack_is_another_one():
    found = evidence()
    table = found.studies["trajectory"]
    table.loc[(table.method == "pgd+awp") & (table.attack == "strong"), "predicted"] = 1
    assert verdict("A5t", found) == "holds" and verdict("A5t-strong", found) == "fails"


def test_each_claim_is_tested():
    assert [c.id for c in awp_trajectory.CLAIMS] == ["A1a", "A1b", "A1c", "A2", "A4a", "A4b", "A4c", "A5t",
                                                      "A5t-strong", "A9a", "A9b"]
    assert all(c.source.startswith(("READ: ", "ours")) for c in awp_trajectory.CLAIMS)


def test_the_gap_is_of_both_splits_and_sees_the_images():
    """What AWP adds: -0.1 on training images and +0.1 on test images, of which the seeds agree."""
    found = evidence(accuracy={("pgd", "last"): (0.9, 0.5), ("pgd+awp", "last"): (0.8, 0.6)})
    row = awp_trajectory.smaller_gap(found)
    assert row["mean"] == pytest.approx(-0.2, abs=0.005) and row["images"] == 700
    assert 0.04 < row["high"] - row["low"] < 0.12  # Student's t over these seeds is far narrower


def test_a_rank_that_hangs_on_few_images_is_left_open():
    """All gaps alike up to an image or two: each seed ranks them as S does, but other images may not."""
    close = {(m, "last"): (0.95, 0.65 - 0.005 * s) for m, s in NETWORKS.items()} | {("pgd", "best"): (0.95, 0.65)}
    found = awp_trajectory.together_across(evidence(accuracy=close))
    assert found["mean"] > 0.9 and found["verdict"] == "holds"  # the same images, so nested: the order stays
    other = evidence(accuracy=close)
    table = other.studies["trajectory"]
    rows = table[(table.split == "test") & (table.attack == "pgd-20")]
    for number, (_, of) in enumerate(rows.groupby(["method", "checkpoint", "seed"])):
        table.loc[of.index, "predicted"] = np.random.default_rng(number).permutation(of.predicted.to_numpy())
    found = awp_trajectory.together_across(other)
    assert found["mean"] > 0.9 and found["low"] < found["mean"] - 0.3


def test_without_a_drop_it_stays_open():
    found = evidence()
    found.studies["looks"]["lr"] = 0.1
    for id_ in ("A1a", "A1b", "A1c"):
        assert next(c for c in awp_trajectory.CLAIMS if c.id == id_).row(found)["verdict"] == "inconclusive"


def test_claims_need_their_studies():
    found = evidence()
    bare = claims.Evidence(found.table, "pgd-20", studies={"looks": found.studies["looks"]})
    assert not claims.check(bare, awp_trajectory.CLAIMS)
    assert EARLY in set(awp_trajectory._networks(found).sharpness.columns)
