"""The masking checks of the activations study: known answers, and a network that does hide its gradients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import config, train
from lib.gating import checks, measured

CPU, N = torch.device("cpu"), 100
NAMES = ["ordering", "fgsm", "black-box", "transfer", "steps", "sweep", "large-eps"]
HEALTHY = {"clean": 95, "noise": 94, "fgsm": 80, "pgd-20": 60, "margin-20": 62, "square": 70, "pgd-50": 59, "quick": 55}
CONTROLS = {"transfer": 85, "large radius": 5}
STEPS, RADII = {20: 56, 5: 60, 1: 75}, {1.0: 55, 0.5: 75}


@pytest.fixture(scope="module")
def run():
    """PGD on digits in smoke, with 50 steps as the most."""
    found = config.load("smoke", "digits", "pgd", 0)
    return replace(found, activations=replace(found.activations, many=[1, 5, 20, 50]))


def rows(column, rates, activation, last=()):
    """Predictions of N images of ten labels, of which the first are right, in per cent; of those in `last` the last."""
    parts, index = [], np.arange(N)
    for value, rate in rates.items():
        right = index >= N - rate if value in last else index < rate
        label = index % 10
        parts.append(pd.DataFrame({"method": "pgd", "seed": 3, "activation": activation, column: value, "index": index,
                                   "label": label, "predicted": np.where(right, label, (label + 1) % 10)}))
    columns = ["method", "seed", "activation", column, "index", "label", "predicted"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def network(activation="sparta", last=(), steps=STEPS, radii=RADII, controls=CONTROLS, **changes):
    """The tables of one network: right images in per cent by attack, those of a healthy network but for `changes`."""
    rates = {**HEALTHY, **{name.replace("_", "-"): rate for name, rate in changes.items()}}
    sample = rows("attack", {name: rate for name, rate in rates.items() if rate is not None}, activation, last)
    few = rows("attack", {"clean": 0, "pgd-20": 0}, activation)  # of validation images, which have no part in it
    return {"per_sample": pd.concat([sample.assign(split="test"), few.assign(split="validation")]),
            "controls": rows("attack", {**CONTROLS, **controls}, activation, last),
            "steps": rows("steps", steps, activation), "radii": rows("radius", radii, activation)}


def verdicts(run, **changes):
    """Check -> verdict of one network."""
    return {alarm.name: alarm.verdict for alarm in checks.checks(run, network(**changes))}


def test_a_healthy_network_passes_all(run):
    assert verdicts(run) == dict.fromkeys(NAMES, "pass")


@pytest.mark.parametrize(("check", "changes"), [
    ("ordering", {"pgd_50": 70}), ("ordering", {"quick": 65, "steps": {}}), ("ordering", {"fgsm": 98, "noise": 90}),
    ("ordering", {"steps": {20: 70, 5: 60}}), ("ordering", {"fgsm": 100}),
    ("fgsm", {"fgsm": 50}),
    ("black-box", {"square": 50}), ("black-box", {"last": ("square",)}),
    ("transfer", {"controls": {"transfer": 50}}), ("transfer", {"last": ("transfer",)}),
    ("steps", {"last": ("pgd-50",)}), ("steps", {"steps": {1: 75, 5: 60, 20: 51}}),
    ("sweep", {"radii": {1.0: 75, 0.5: 60}}), ("sweep", {"radii": {0.5: 99}}),
    ("large-eps", {"controls": {"large radius": 11}}),
])
def test_each_check_sounds(run, check, changes):
    found = verdicts(run, **changes)
    assert {name for name, verdict in found.items() if verdict == "ALARM"} == {check}


@pytest.mark.parametrize(("check", "changes"), [
    ("black-box", {"square": 53}),                     # two images of a hundred, found by luck
    ("transfer", {"controls": {"transfer": 52}}),      # three
    ("steps", {"pgd_50": 53, "steps": {}}),
    ("ordering", {"pgd_50": 63}),                      # within two standard errors
    ("large-eps", {"controls": {"large radius": 10}}),  # by always naming one class
])
def test_chance_sounds_no_alarm(run, check, changes):
    assert verdicts(run, **changes)[check] == "pass"


@pytest.mark.parametrize(("check", "changes"), [
    ("fgsm", {"fgsm": None}), ("black-box", {"square": None}), ("sweep", {"radii": {}})])
def test_what_was_not_measured_is_not_judged(run, check, changes):
    found = verdicts(run, **changes)
    assert found.pop(check) == "not judged" and set(found.values()) == {"pass"}
    tables = network()
    tables["controls"] = tables["controls"].query("attack != 'transfer'")
    assert {alarm.name for alarm in checks.checks(run, tables) if alarm.passed is None} == {"transfer"}


def test_values_by_hand(run):
    found = {alarm.name: alarm for alarm in checks.checks(run, network(square=50, pgd_50=66, radii={1.0: 70, 0.5: 60}))}
    assert (found["black-box"].value, found["black-box"].limit) == pytest.approx((0.05, 0.03))
    assert found["black-box"].note == "accuracy along gradients 55.0%; square 50.0%"
    assert (found["ordering"].value, found["ordering"].limit) == pytest.approx((0.06, 2 * 6 ** 0.5 / 100))
    assert found["ordering"].note == "pgd-20 60.0%, pgd-50 66.0%"
    assert found["sweep"].note == "0.5 eps 60.0%, 1 eps 70.0%"
    assert (found["large-eps"].value, found["large-eps"].limit) == pytest.approx((0.05, 0.1))
    assert found["fgsm"].value == pytest.approx(60 / 100 - 80 / 100)


def test_fewer_steps_than_the_headline_attack_are_the_weaker_attack(run):
    few = replace(run, activations=replace(run.activations, many=[1, 5]))
    tables = network()
    tables["per_sample"] = tables["per_sample"].replace({"attack": {"pgd-50": "pgd-5"}})
    tables["per_sample"] = pd.concat([tables["per_sample"].query("attack != 'pgd-5'"), rows(
        "attack", {"pgd-5": 70}, "sparta").assign(split="test")])
    last = tables["per_sample"].query("attack == 'quick'")
    tables["per_sample"] = pd.concat([tables["per_sample"].query("attack != 'quick'"), last])
    assert {alarm.verdict for alarm in checks.checks(few, tables)} == {"pass"}


def test_table_of_all_networks(run):
    each = [network("relu", square=50), network("silu"), network("additive", steps={}, radii={})]
    tables = {name: pd.concat([tables[name] for tables in each], ignore_index=True) for name in each[0]}
    found = checks.table(run, tables)
    assert found.columns.tolist() == [*checks.COLUMNS, "meaning", "what to do"]
    assert checks.COLUMNS == ["method", "seed", "activation", "check", "verdict", "value", "limit", "note"]
    assert found.check.tolist() == NAMES * 3 and set(found.method) == {"pgd"} and set(found.seed) == {3}
    assert found.activation.tolist() == ["relu"] * 7 + ["silu"] * 7 + ["additive"] * 7
    alarms = found[found.verdict == "ALARM"]
    assert alarms[["activation", "check"]].values.tolist() == [["relu", "black-box"]]
    assert found[found.verdict == "not judged"][["activation", "check"]].values.tolist() == [["additive", "sweep"]]
    assert alarms["meaning"].str.contains("masked").all()


class Rounded(nn.Module):
    """A network whose images are rounded, so that no gradient comes through."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        """Logits of images of nine grey levels."""
        return self.network((x * 8).round() / 8)


def test_a_network_that_hides_its_gradients_is_found(run, digits):
    run = replace(run, threat=config.Threat("Linf", 0.15), activations=replace(run.activations, many=[5, 22]))
    images = replace(digits, test=digits.test.first(100))
    model = train.model(run, train.fit(run, digits, CPU, lambda line: None), "last", digits, CPU)
    found = {}
    for name, each in (("plain", model), ("rounded", Rounded(model))):
        tables = {"per_sample": measured.attacked(run, each, images, CPU),
                  "controls": measured.controls(run, each, nn.Sequential(model), images, CPU),
                  **measured.sweeps(run, each, images, CPU, True, True)}
        found[name] = {alarm.name: alarm.verdict for alarm in checks.checks(run, tables)}
    assert set(found["plain"].values()) == {"pass"}
    assert {name for name, verdict in found["rounded"].items() if verdict == "ALARM"} >= {"black-box", "transfer",
                                                                                        "large-eps"}
