"""The per-sample table and its group-bys."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib import attacks, compute, config, evaluate, params, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(digits):
    run = config.load("smoke", "digits", "pgd", 0)
    run = replace(run, train=replace(run.train, epochs=2))
    trained = train.fit(run, digits, CPU, lambda line: None)
    model = train.model(run, trained, "last", digits, CPU)
    return evaluate.table(run, digits, trained, CPU, lambda line: None), model


def test_every_image_under_every_attack(table, digits):
    rows, _ = table
    counts = rows.groupby(["checkpoint", "split", "attack"]).size().unstack("split")
    assert set(rows.attack) == {"clean", "noise", "fgsm", "pgd-20", "margin-20", "square", "quick"}
    assert (counts["test"] == len(digits.test)).all()
    assert counts["train"].dropna().to_dict() == {(c, a): len(digits.train) for c in train.CHECKPOINTS
                                                  for a in ("clean", "pgd-20")}
    one = rows.query("checkpoint == 'last' & split == 'test' & attack == 'fgsm'")
    assert one["index"].tolist() == list(range(len(digits.test))) and one.label.tolist() == digits.test.y.tolist()


def test_the_table_agrees_with_the_model(table, digits):
    rows, model = table
    x, y = digits.test.floats()
    clean = rows.query("checkpoint == 'last' & split == 'test' & attack == 'clean'")
    assert clean.predicted.tolist() == model(x).argmax(1).tolist()
    rate = evaluate.accuracy(clean, ["attack"])
    assert rate.accuracy[0] == (model(x).argmax(1) == y).double().mean().item() and rate.n[0] == len(y)


def test_batch_size_does_not_change_clean_predictions(table, digits):
    _, model = table
    small, large = (evaluate.per_sample(model, digits.test, None, compute.generator(0), size) for size in (7, 500))
    assert small.equals(large)


def test_by_class_is_a_group_by(table):
    rows, _ = table
    one = rows.query("checkpoint == 'last' & split == 'test' & attack == 'pgd-20'")
    classes = evaluate.by_class(one)
    assert classes.label.tolist() == list(range(10)) and classes.n.sum() == len(one)
    matrix = evaluate.confusion(one, 10)
    assert np.allclose(np.diag(matrix), classes.accuracy) and np.allclose(matrix.sum(1), 1)


def test_worst_case_counts_an_image_that_any_attack_fools(table):
    rows, _ = table
    attacked = rows.query("checkpoint == 'last' & split == 'test'")
    worst = evaluate.worst_case(attacked)
    hits = attacked.assign(hit=attacked.label == attacked.predicted).groupby("index").hit.all()
    assert len(worst) == len(hits)
    assert (worst.label == worst.predicted).tolist() == hits.tolist()


def test_tables_of_a_profile_come_together(project):
    rows = pd.DataFrame({"index": [0], "label": [1], "predicted": [1]})
    for method in ("standard", "pgd"):
        for seed in (0, 1):
            folder = project / f"results/default/attack/digits/{method}/{seed}"
            folder.mkdir(parents=True)
            rows.assign(method=method, seed=seed).to_csv(folder / "per_sample.csv", index=False)
    axes = {"methods": ["standard", "pgd"], "seeds": [0, 1]}
    found = evaluate.load_all("default", "digits", axes)
    runs = [("standard", 0), ("standard", 1), ("pgd", 0), ("pgd", 1)]
    assert list(zip(found.method, found.seed, strict=True)) == runs
    (project / "results/default/attack/digits/pgd/1/per_sample.csv").unlink()
    with pytest.raises(params.ConfigError, match="`dvc repro attack@default-digits-pgd-1` makes it"):
        evaluate.load_all("default", "digits", axes)


def test_loss_and_margin_are_of_the_attacked_image(table, digits):
    rows, model = table
    x, y = digits.test.floats()
    clean = rows.query("checkpoint == 'last' & split == 'test' & attack == 'clean'")
    logits = model(x).detach()
    assert np.allclose(clean.loss, torch.nn.functional.cross_entropy(logits, y, reduction="none"), atol=1e-5)
    assert np.allclose(clean.margin, attacks.margin(logits, y), atol=1e-5)
    assert ((rows.margin > 0) == (rows.label != rows.predicted)).all()


def test_a_cascade_attacks_only_what_is_left(table, digits):
    _, model = table
    x, y = digits.test.floats()
    asked = []

    def counted(one):
        """The attack, with a note of how many images it gets."""
        def attack(model, x, y, *, generator):
            asked.append(len(x))
            return one(model, x, y, generator=generator)
        return attack

    run = config.load("smoke", "digits")
    first, second = (attacks.from_params("a", {"attack": "pgd", "loss": loss, "steps": 5, "step_size": 0.3}, run.threat)
                     for loss in ("cross_entropy", "margin"))
    x_adv = evaluate.cascade(counted(first), counted(second))(model, x, y, generator=compute.generator(0))
    right = [model(z).argmax(1) == y for z in (x, first(model, x, y, generator=compute.generator(0)), x_adv)]
    assert asked[0] == right[0].sum() and asked[1] < asked[0] and right[2].sum() < right[1].sum()
    assert torch.equal(x_adv[~right[0]], x[~right[0]])  # wrong without any attack


def test_tiers_by_name(cfg):
    for tier in evaluate.TIERS:
        assert tier in evaluate.all_attacks(replace(cfg, evaluate=replace(cfg.evaluate, tier=tier)))
    with pytest.raises(params.ConfigError, match="unknown tier 'reprot' in evaluate.tier .*did you mean 'report'"):
        evaluate.all_attacks(replace(cfg, evaluate=replace(cfg.evaluate, tier="reprot")))


def test_the_final_tier_is_autoattack_and_keeps_its_report(cfg, table, digits, project):
    _, model = table
    final = evaluate.all_attacks(replace(cfg, evaluate=replace(cfg.evaluate, tier="final")))["final"]
    few = digits.test.first(12)
    rows = evaluate.per_sample(model, few, final, compute.generator(0), len(few))
    report, = final.reports
    assert list(report["counts"]) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert (rows.label == rows.predicted).sum() == report["counts"]["square"] and report["version"] == "0.2.0"
    assert list((project / "results/smoke/unfinished").iterdir()) == []


def test_images_that_cannot_be_attacked_are_refused(table, digits):
    _, model = table
    with pytest.raises(params.ConfigError, match="labels run from 10 to 10, but the model has 10 outputs"):
        evaluate.per_sample(model, replace(digits.test, y=torch.full_like(digits.test.y, 10)), None, None)
