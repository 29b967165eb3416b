"""params.yaml: what is merged, typed and refused."""

import json
from dataclasses import make_dataclass

import pytest
import yaml
from dvc.utils.serialize import modify_yaml

from lib import __main__ as commands
from lib import config, params, sources, stages


def test_fractions_and_merge(project):
    cifar = config.load("paper", "cifar10", "pgd", 0)
    assert cifar.threat.eps == 8 / 255
    assert cifar.train.weight_decay == 5e-4 and cifar.train.step_size == 0.25
    assert cifar.landscape.points == 41 and config.load("default", "digits").landscape.points == 13
    assert cifar.knobs["pgd"] == {"warmup": 0.0, "batchnorm": "train"}
    assert config.load("paper", "mnist").evaluate.headline in config.load("paper", "mnist").attacks


def test_a_recipe_like_another_says_only_where_it_differs(project, edit):
    cifar, hundred, svhn = (config.load("paper", name) for name in ("cifar10", "cifar100", "svhn"))
    assert hundred.train.augment == ["crop", "flip", "rotate"] and svhn.train.step_size == 1 / 8
    assert hundred.model == cifar.model and hundred.knobs == cifar.knobs and hundred.attacks == cifar.attacks
    edit(project / "params.yaml", "recipes:\n", "recipes:\n  without_8: {like: digits, data: {source: digits, "
         "without: [8]}}\n")
    removed, whole = config.load("default", "without_8"), config.load("default", "digits")
    assert removed.train == whole.train and removed.data.without == [8] and removed.data.source == "digits"


def test_a_recipe_drops_an_attack_by_null(project, edit):
    edit(project / "params.yaml", "recipes:\n", "recipes:\n  in_l2: {like: digits, data: {source: digits}, "
         "threat: {norm: L2, eps: 1.0}, attacks: {square: null}}\n")
    for profile in ("default", "smoke"):  # smoke gives square fewer queries, which does not bring it back
        left = config.load(profile, "in_l2").attacks
        assert set(left) == set(config.load(profile, "digits").attacks) - {"square"}
    edit(project / "params.yaml", "{square: null}}", "{pgd-20: null}}")
    with pytest.raises(params.ConfigError, match="unknown attack 'pgd-20' in evaluate.headline"):
        config.load("default", "in_l2")


@pytest.mark.parametrize("other", ["cifar1", "svhn", "cifar100"])
def test_a_recipe_is_like_another_that_exists_and_not_like_itself(project, edit, other):
    edit(project / "params.yaml", "like: cifar10\n    train: {lr", f"like: {other}\n    train: {{lr")
    edit(project / "params.yaml", "  cifar100:                # as in the code of AWP\n    like: cifar10",
         "  cifar100:\n    like: svhn")
    with pytest.raises(params.ConfigError, match="unknown data set '.*' in recipes.*like of params.yaml.*there are:"):
        config.load("paper", "svhn")


def test_every_recipe_is_complete(project):
    for name in params.read()["recipes"]:
        for profile in ("smoke", "paper"):
            assert config.load(profile, name).threat.eps > 0
    recipes = params.read()["recipes"]
    assert set(sources.SOURCES) == {name for name in recipes if "source" not in recipes[name].get("data", {})}


@pytest.mark.parametrize(("kind", "value", "result"), [
    (int | None, None, None), (int | None, 3.0, 3), (int | list | None, ["cat"], ["cat"]), (str | None, None, None),
    (int | list | None, "cat", "data.x in params.yaml is 'cat', not int | list | null"),
    (bool, 1, "data.x in params.yaml is 1, not bool"), (int, None, "data.x in params.yaml is None, not int"),
])
def test_types_of_values(kind, value, result):
    Section = make_dataclass("Section", [("x", kind)])
    if isinstance(result, str):
        with pytest.raises(params.ConfigError) as error:
            params.typed("data", Section, {"x": value})
        assert str(error.value) == result
    else:
        assert params.typed("data", Section, {"x": value}) == {"x": result}


@pytest.mark.parametrize(("before", "after", "message"), [
    ("profile: default", "profile: defualt", "unknown profile 'defualt' (did you mean 'default'?); there are:"),
    ("datasets: [digits]", "datasets: [digit]", "unknown data set 'digit' (did you mean 'digits'?); there are:"),
    ("methods: [standard, pgd, ", "methods: [standard, pdg, ", "unknown method 'pdg' in 'pdg' (did you mean 'pgd'?)"),
    ("methods: [standard, pgd, ", "methods: [standard, pgd+apw, ",
     "unknown method 'apw' in 'pgd+apw' (did you mean 'awp'?); there are: awp, balanced,"),
    ("epochs: 30, ", "epoch: 30, ", "unknown key 'epoch' in section 'train' of params.yaml (did you mean 'epochs'?)"),
    ("epochs: 30, ", "epochs: many, ", "train.epochs in params.yaml is 'many', not int"),
    ("    momentum: 0.9\n", "", "section 'train' of params.yaml lacks momentum"),
    ("eps: 0.2", "eps: 8", "threat.eps in params.yaml is 8: images lie in [0, 1], so a radius in Linf is"),
    ("eps: 0.2", "eps: 8", "threat.eps in params.yaml is 8: images lie in [0, 1], so a radius in Linf"),
    ("eps: 0.2", "eps: 8/0", "threat.eps in params.yaml is '8/0', not float"),
    ("    warmup: 0.3", "    warmpu: 0.3", "unknown knob 'warmpu' in knobs.pgd of params.yaml (did you"),
    ("  standard: {}", "  standart: {}", "unknown method 'standart' in knobs of params.yaml"),
    ("  landscape:  ", "  landscapes:  ", "unknown section 'landscapes' in base of params.yaml"),
    ("\nseeds: [", "\nseed: [", "unknown key 'seed' in params.yaml (did you mean 'seeds'?)"),
    ("headline: pgd-20", "headline: pgd-21", "unknown attack 'pgd-21' in evaluate.headline of params.yaml (did you"),
    ("profile: default", "profile: [", "params.yaml is not valid YAML"),
])
def test_refused_by_name_before_anything_runs(project, edit, capsys, before, after, message):
    """Stage `code` is the first of `dvc repro`: it takes a second, and refuses all of these."""
    edit(project / "params.yaml", before, after)
    profile = "defualt" if "defualt" in after else "default"
    assert commands.main(["code", profile]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_stage_reads_the_file_of_stage_code(project, edit, monkeypatch):
    """params.yaml may be edited while a stage runs: the stage has its numbers already."""
    stages.write("default")
    instance = next(i for i in stages.instances() if i.name == "train@default-digits-pgd-0")
    monkeypatch.setenv(config.STAGE, str(project / instance.code))
    edit(project / "params.yaml", "epochs: 30, ", "epochs: 31, ")
    assert config.load("default", "digits", "pgd", 0).train.epochs == 30
    monkeypatch.delenv(config.STAGE)
    assert config.load("default", "digits", "pgd", 0).train.epochs == 31


def test_missing_input_names_its_command(project):
    run = config.load("default", "digits", "pgd", 0)
    with pytest.raises(params.ConfigError, match="last.pt is missing: `dvc repro train@default-digits-pgd-0`"):
        config.on_the_spot("train", run, run.folder("train") / "last.pt")


def test_profile_command_changes_what_the_profile_sets(project):
    before = (project / "params.yaml").read_text().splitlines()
    assert commands.main(["profile", "smoke"]) == 0
    after = (project / "params.yaml").read_text().splitlines()
    changed = [b for a, b in zip(before, after, strict=True) if a != b]
    studies = {"landscape": ["standard", "pgd"], "trajectory": ["pgd", "pgd+awp"], "perturbation": ["pgd"],
               "removal": ["pgd"], "temperature": ["pgd"], "balance": ["pgd"], "adaptive": ["pgd+ducat"],
               "forks": ["pgd"], "failures": ["pgd", "pgd+awp"], "activations": ["pgd"],
               "gates": ["pgd"], "transplant": ["pgd"]}
    assert [line.split(":")[0] for line in changed] == ["profile", "methods", "seeds", "studies"]
    expected = {"datasets": ["digits"], "methods": ["standard", "pgd", "pgd+awp", "pgd+balanced", "pgd+ducat"],
                "seeds": [0]}
    assert config.axes("smoke") == {**expected, "studies": studies}


def test_dvc_can_edit_params_and_they_stay_what_they_are(project):
    """As `dvc exp run -S` does. DVC breaks long lines, and a key of two words in braces then breaks the file."""
    before = yaml.safe_load((project / "params.yaml").read_text())
    with modify_yaml(str(project / "params.yaml")) as given:
        given["knobs"]["pgd"]["warmup"] = 0.0
    after = yaml.safe_load((project / "params.yaml").read_text())
    assert after["knobs"]["pgd"].pop("warmup") == 0.0 != before["knobs"]["pgd"].pop("warmup")
    assert after == before


def test_unknown_command_prints_the_help(capsys):
    assert commands.main(["rnu"]) == 2
    assert "run NOTEBOOK FOLDER" in capsys.readouterr().err


def test_code_file_is_json_with_everything(project):
    stages.write("default")
    file = json.loads((project / "results/default/code/train/digits/pgd/0.json").read_text())
    assert set(file) == {"parameters", "axes", "config", "modules", "cells"}
    assert file["parameters"] == {"profile": "default", "dataset": "digits", "method": "pgd", "seed": 0}
