"""Published numbers: what was read is typed in without slips, and says where it was read."""

import pytest

from lib import figures, published, tradeoff


def test_points_have_the_nrr_that_was_noted_when_they_were_read():
    points = published.ducat_points("cifar10").query("attack == 'autoattack' and extra == ''").set_index("method")
    noted = {"pgd": 59.8, "pgd+ducat": 70.6, "HAT": 62.2, "ADR+WA+AWP": 63.4, "DAJAT": 65.1}
    found = {m: 100 * float(tradeoff.nrr(points.clean[m], points.robust[m])) for m in noted}
    assert found == pytest.approx(noted, abs=0.06)


def test_every_point_says_where_it_was_read_and_one_was_not():
    points = published.ducat_points()
    relayed = points[~points.source.str.startswith("READ: ")]
    assert relayed.attack.tolist() == ["dawa"] and "relayed by a secondary text" in relayed.source.iloc[0]
    assert relayed.clean.isna().all() and points.clean.isna().sum() == 1
    assert points[["clean", "robust"]].stack().dropna().between(0.15, 0.95).all() and (points.norm == "Linf").all()
    assert (points.eps <= 8 / 255 + 1e-6).all() and points[points.eps < 0.0313].method.tolist() == ["LBGAT"] * 2
    assert published.ducat_points("digits").empty
    assert set(published.ducat_points("svhn").method) == {"HAT"}


def test_drawn_are_small_networks_without_more_images():
    drawn = published.ducat_drawn("cifar10", "Linf", 8 / 255)
    assert {"DAJAT", "SOVR", "DUCAT, as published"} <= set(drawn) and not {"LBGAT", "SCORE", "Gowal 2021"} & set(drawn)
    assert drawn["HAT"] == {"clean": 0.849, "robust": 0.4908}  # not the one with generated images
    later = {name: point["later"] for name, point in drawn.items() if "later" in point}
    assert later == {"DUCAT, as published": 0.2952}
    for elsewhere in (("digits", "Linf", 0.2), ("cifar10", "Linf", 4 / 255), ("cifar10", "L2", 0.5)):
        assert published.ducat_drawn(*elsewhere) == {}
    assert figures.crowd({name: point["robust"] for name, point in drawn.items()})


def test_the_transfer_table_is_that_of_the_counts():
    """Counts of failures among 10,000 images, as the rebuttal has them: white-box, and of PGD-AT's examples."""
    square = published.ducat_transfer().pivot(index="source", columns="target", values="accuracy")
    assert square.shape == (5, 5) and set(square.index) == set(square.columns)
    failures = {"pgd": 4869, "trades": 4745, "mart": 4630, "consistency": 4648}
    assert {m: round(1e4 * (1 - square.loc[m, m])) for m in failures} == failures
    assert round(1e4 * (1 - square.loc["pgd", "trades"])) == 3978 + 194
    below = {m: int((square[m] < square.loc[m, m]).sum()) for m in square}  # examples of others that fool it more
    assert below == {"pgd": 0, "trades": 0, "mart": 0, "consistency": 0, "pgd+ducat": 3}
