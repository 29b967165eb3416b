"""The per-sample table and its group-bys."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib import compute, config, evaluate, params, train

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


def test_tables_of_a_profile_come_together(project, edit, monkeypatch):
    edit(project / "params.yaml", "seeds: [0, 1, 2]", "seeds: [0, 1]")
    rows = pd.DataFrame({"index": [0], "label": [1], "predicted": [1]})
    for method in ("standard", "pgd"):
        for seed in (0, 1):
            folder = project / f"results/default/attack/digits/{method}/{seed}"
            folder.mkdir(parents=True)
            rows.assign(method=method, seed=seed).to_csv(folder / "per_sample.csv", index=False)
    found = evaluate.load_all("default", "digits", config.axes("default"))
    runs = [("standard", 0), ("standard", 1), ("pgd", 0), ("pgd", 1)]
    assert list(zip(found.method, found.seed, strict=True)) == runs
    (project / "results/default/attack/digits/pgd/1/per_sample.csv").unlink()
    with pytest.raises(params.ConfigError, match="`dvc repro attack@default-digits-pgd-1` makes it"):
        evaluate.load_all("default", "digits", config.axes("default"))
