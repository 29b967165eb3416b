"""The networks of the activations study: which there are, that they differ in nothing else, and their tables."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lib import activations, attacks, compute, config, cost, evaluate, methods, models, params, stages, train
from lib.gating import measured, networks
from lib.gating.networks import KEPT, Setting

CPU = torch.device("cpu")
LADDER = ["relu", "bias", "map", "pooled", "sparta", "silu"]


@pytest.fixture(scope="module")
def run():
    """PGD on digits in smoke, with few activations and weak attacks, at a radius that some images survive."""
    found = config.load("smoke", "digits", "pgd", 0)
    numbers = {**found.attacks, "square": {"attack": "square", "queries": 5}}
    return replace(found, threat=config.Threat("Linf", 0.1), train=replace(found.train, steps=2, epochs=3, trace=2),
                   attacks=numbers, activations=config.Activations(
                       ["gelu", "relu", "gelu"], {"additive": {"form": "add"}, "left out": None}, [0.5, 1.0], [3, 1]))


@pytest.fixture(scope="module")
def found(run, few):
    """What the study leaves, and its log."""
    lines = []
    return networks.explore(run, few, CPU, lines.append), lines


def fit(run, images, method):
    """The network that `train.fit` leaves, and what it kept."""
    run = replace(run, method=method)
    fitted = train.fit(run, images, CPU, lambda line: None)
    return train.model(run, fitted, "last", images, CPU), fitted


def rows(table, **values):
    """The rows of a table with these values in their columns."""
    return table[np.all([table[column] == value for column, value in values.items()], axis=0)].reset_index(drop=True)


def changed(run, **changes):
    """The run with other numbers of its section `activations`."""
    return replace(run, activations=replace(run.activations, **changes))


class TestSettings:
    def test_names_and_specs(self, run, few):
        wanted = networks.settings(run)
        assert [s.activation for s in wanted] == [*LADDER, "gelu", "wide silu", "additive"]
        assert [networks.recipe(run, s, few).method for s in wanted] == [
            "pgd+relu", *["pgd+sparta"] * 4, "pgd+silu", "pgd+gelu", "pgd+silu", "pgd+sparta"]
        assert list(networks.LADDER) == ["A0", "A1", "A2", "A3", "A4"]
        assert [*networks.LADDER.values(), "silu"] == LADDER == list(KEPT)

    def test_only_the_activation_differs(self, run, few):
        own = run.knobs["sparta"]
        expected = {"bias": {"context": "bias"}, "map": {"context": "map"}, "pooled": {"context": "pooled"},
                    "additive": {"form": "add"}}
        for setting in networks.settings(run):
            made = networks.recipe(run, setting, few)
            assert made.knobs["sparta"] == {**own, **expected.get(setting.activation, {})}
            rest = {"method": "pgd", "knobs": run.knobs, "model": run.model}
            assert replace(made, **rest) == run
            assert made.model == replace(run.model, width=18 if setting.wide else 16)
        assert "context" in own and run.knobs["sparta"] is own

    def test_of_a_method_without_an_adversary_the_ladder(self, run):
        assert [s.activation for s in networks.settings(replace(run, method="standard"))] == LADDER

    def test_add_ons_stay(self, run, few):
        awp = replace(run, method="pgd+awp")
        assert [networks.recipe(awp, s, few).method for s in networks.settings(awp)][:2] == ["pgd+awp+relu",
                                                                                            "pgd+awp+sparta"]

    @pytest.mark.parametrize("profile", ["smoke", "default"])
    def test_those_of_params_yaml(self, profile):
        run = config.load(profile, "digits", "pgd", 0)
        names = [s.activation for s in networks.settings(run)]
        variants = [name for name, changes in run.activations.variants.items() if changes is not None]
        assert len(names) == len(set(names)) and set(names) == {*LADDER, *run.activations.compared, "wide silu",
                                                                *variants}

    @pytest.mark.parametrize(("method", "changes", "message"), [
        ("pgd+silu", {}, r"studies.activations .* 'pgd\+silu': name it without silu"),
        ("pgd+awp+sparta", {}, "name it without sparta"),
        ("pgd", {"compared": ["relu", "glu"]}, "unknown activation 'glu' in activations.compared .* mean 'gelu'"),
        ("pgd", {"variants": {"odd": {"form": "sum"}}}, "'odd' of activations.variants .*: unknown form 'sum'"),
        ("pgd", {"variants": {"odd": {"kernels": 3}}}, "'odd' of activations.variants .*: unknown knob 'kernels'"),
        ("pgd", {"variants": {"odd": {"kernel": 2}}}, "'odd' of activations.variants .* odd"),
        ("pgd", {"variants": {"odd": 3}}, "activations.variants.odd in params.yaml is 3, not a mapping"),
        ("pgd", {"variants": {"silu": {}}}, "'silu' of activations.variants .* name of another network"),
        ("pgd", {"variants": {"wide silu": {}}}, "'wide silu' .* name of another network"),
        ("pgd", {"many": []}, r"activations.many in params.yaml is \[\]"),
        ("pgd", {"many": [5, 0]}, r"activations.many in params.yaml is \[5, 0\]: .* at least 1"),
    ])
    def test_bad_settings_are_refused_in_one_line(self, run, few, method, changes, message):
        with pytest.raises(params.ConfigError, match=message) as error:
            networks.explore(replace(changed(run, **changes), method=method), few, CPU, print)
        assert "\n" not in str(error.value)

    def test_the_wide_network_is_the_narrowest_that_is_large_enough(self, run):
        large = replace(run, model=config.Model("resnet18", 64, "relu"))
        images = SimpleNamespace(shape=(3, 32, 32), classes=range(10), statistics=([0.5] * 3, [0.2] * 3))
        wide, sparta, silu = (networks.recipe(large, setting, images) for setting in (
            Setting("wide silu", "silu", wide=True), Setting("sparta", "sparta"), Setting("silu", "silu")))
        assert (wide.model.width, silu.model.width, sparta.model.width) == (65, 64, 64)
        assert networks.size(silu, images) == 11_173_962 < networks.size(sparta, images) <= networks.size(wide, images)


@pytest.mark.parametrize(("name", "places", "image"), [("bias", 0, 0), ("map", 1, 0), ("pooled", 0, 1),
                                                       ("sparta", 1, 1)])
def test_each_rung_adds_its_property(run, few, name, places, image):
    setting = next(s for s in networks.settings(run) if s.activation == name)
    made = networks.recipe(run, setting, few)
    model = train.initial(made, methods.build(made), few, CPU).eval()
    gate = model.get_submodule(models.sites(model)[1].name)
    for parameter in activations.undecayed(gate) + [p for p in gate.parameters() if p.ndim > 1]:
        parameter.data = torch.randn(parameter.shape, generator=compute.generator(1))
    x = torch.rand(5, 16, 8, 8, generator=compute.generator(2))
    added = gate.logits(x) - gate.slope[:, None, None] * x
    assert bool(added.std((2, 3)).mean() > 1e-3) == places and bool(added.std(0).mean() > 1e-3) == image


class TestExplore:
    def test_one_row_an_image(self, found):
        explored, lines = found
        tables = explored.tables
        assert {name: list(table.columns) for name, table in tables.items()} == {
            "per_sample": ["method", "seed", "activation", "split", "attack", "index", "label", "predicted"],
            "radii": ["method", "seed", "activation", "radius", "index", "label", "predicted"],
            "steps": ["method", "seed", "activation", "steps", "index", "label", "predicted"],
            "controls": ["method", "seed", "activation", "attack", "index", "label", "predicted"],
            "cost": ["method", "seed", "activation", "parameters", "flops"],
            "history": ["method", "seed", "activation", "epoch", "loss", "clean", "robust", "test_robust"]}
        counts = tables["per_sample"].groupby(["activation", "split", "attack"]).size().unstack("activation")
        assert (counts.loc["test"] == 60).all(axis=None) and (counts.loc["validation"] == 30).all(axis=None)
        assert set(counts.loc["validation"].index) == {"clean", "pgd-20"}
        assert set(counts.loc["test"].index) == {"clean", "noise", "fgsm", "pgd-20", "margin-20", "square", "pgd-3",
                                                 "quick"}
        radii, steps = (tables[n].groupby("activation").agg({c: "unique", "index": "size"})
                        for n, c in (("radii", "radius"), ("steps", "steps")))
        assert set(radii.index) == set(LADDER) and set(steps.index) == {"relu", "silu", "sparta"}
        assert all(map(list([0.5, 1]).__eq__, map(list, radii.radius))) and (radii["index"] == 120).all()
        assert all(list(each) == [3, 1] for each in steps.steps) and (steps["index"] == 120).all()
        assert [line.split(":")[0] for line in lines] == [f"activation {i}/9  {name}" for i, name in enumerate(
            [*LADDER, "gelu", "wide silu", "additive"], 1)]
        of = measured.errors(rows(tables["per_sample"], activation="gelu", split="test")).set_index("attack").error
        assert lines[6].endswith(f"error {of['clean']:.1%} clean, {of['pgd-20']:.1%} pgd-20, {of['quick']:.1%} quick, "
                                 f"{of['worst case']:.1%} worst case")

    def test_relu_is_the_method_itself(self, found, run, few):
        plain, fitted = fit(run, few, "pgd")
        explored, keys = found[0], ["split", "attack", "index", "label", "predicted"]
        assert all(torch.equal(value, explored.weights["relu"][name]) for name, value in plain.state_dict().items())
        expected = evaluate.attacked(run, plain, {"test": few.test, "validation": few.validation}, CPU,
                                     ["clean", "pgd-20"])
        seen = rows(explored.tables["per_sample"], activation="relu")
        seen = seen[seen.attack.isin(["clean", "pgd-20"])]
        pd.testing.assert_frame_equal(seen[keys].sort_values(keys, ignore_index=True),
                                      expected[keys].sort_values(keys, ignore_index=True))
        history = rows(explored.tables["history"], activation="relu")
        pd.testing.assert_frame_equal(history[fitted.history.columns], fitted.history)
        right = (fitted.trace["attacked"] == fitted.trace["label"]).mean(1)
        assert fitted.trace["epoch"].tolist() == [2, 3]
        assert np.isnan(history.test_robust[0]) and history.test_robust[1:].tolist() == right.tolist()

    @pytest.mark.parametrize("name", ["gelu", "pooled"])
    def test_rows_are_those_of_a_network_trained_alone(self, found, run, few, name):
        setting = next(s for s in networks.settings(run) if s.activation == name)
        made = networks.recipe(run, setting, few)
        model, _ = fit(made, few, made.method)
        relu, tables = fit(run, few, "pgd")[0], found[0].tables

        def predicted(attack, target=model, eps=0.1):
            """What the target says of the attack's examples, made on `model`."""
            attack = attacks.from_params("it", attack, config.Threat("Linf", eps))
            return evaluate.per_sample(target, few.test, attack, compute.generator(0)).predicted.tolist()

        def seen(table, **values):
            """The predictions in a table."""
            return rows(tables[table], activation=name, **values).predicted.tolist()

        pgd = {"attack": "pgd", "steps": 3, "step_size": 1 / 8}
        assert seen("per_sample", split="test", attack="pgd-3") == predicted(pgd)
        assert seen("controls", attack="large radius") == predicted({**pgd, "steps": 20}, eps=0.8)
        x, y = few.test.floats()
        shown = attacks.pgd(relu, x, y, threat=run.threat, steps=20, step_size=1 / 8, generator=compute.generator(0))
        assert seen("controls", attack="transfer") == model(shown).argmax(1).tolist()
        row = rows(tables["cost"], activation=name)
        assert row[["parameters", "flops"]].values.tolist() == [[cost.parameters(model),
                                                                 cost.flops(model, few.shape)]]
        if name == "pooled":
            assert seen("radii", radius=0.5) == predicted({"attack": "apgd", "steps": 3}, eps=0.05)
            assert seen("radii", radius=1.0) == predicted({"attack": "apgd", "steps": 3})

    def test_more_steps_are_at_the_full_radius(self, found):
        one, all_ = (rows(found[0].tables[name], activation="sparta", **value) for name, value in (
            ("radii", {"radius": 1.0}), ("steps", {"steps": 3})))
        assert one.predicted.tolist() == all_.predicted.tolist()

    def test_relu_is_not_shown_its_own_examples(self, found):
        assert set(rows(found[0].tables["controls"], activation="relu").attack) == {"large radius"}

    def test_networks_begin_alike_and_see_the_same_images(self, run, few, monkeypatch):
        first, seen = {}, {}
        plain = train.train_epoch

        def watched(config, method, model, images, optimizer, scheduler, generator, start, objective):
            """An epoch, before which weights and the generator are noted."""
            if start == 0:
                first[config.method] = model[1].features[0].weight.detach().clone()
            seen.setdefault(config.method, []).append(generator.get_state().tolist())
            return plain(config, method, model, images, optimizer, scheduler, generator, start, objective)

        monkeypatch.setattr(train, "train_epoch", watched)
        short = replace(changed(run, compared=["relu"], variants={}), train=replace(run.train, epochs=2), method="pgd")
        for setting in networks.settings(short)[::4]:
            made = networks.recipe(short, setting, few)
            train.fit(made, few, CPU, lambda line: None)
        assert set(first) == {"pgd+relu", "pgd+sparta"}
        assert torch.equal(first["pgd+relu"], first["pgd+sparta"]) and seen["pgd+relu"] == seen["pgd+sparta"]

    def test_the_same_run_is_the_same_bytes(self, run, few, tmp_path, monkeypatch):
        two, contents = networks.settings(run)[:5:4], []
        monkeypatch.setattr(networks, "settings", lambda config: two)
        run = replace(run, method="standard", train=replace(run.train, epochs=1))
        for name in "ab":
            (tmp_path / name).mkdir()
            networks.explore(run, few, CPU, lambda line: None).save(tmp_path / name)
            files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
            contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
        assert contents[0] == contents[1] and set(contents[0]) == {
            *(f"{table}.csv" for table in networks.TABLES), "weights/relu.pt", "weights/sparta.pt"}


class TestSuite:
    def test_the_tier_is_last_and_final_is_report(self, run):
        final = replace(run, evaluate=replace(run.evaluate, tier="final"))
        assert list(measured.suite(final)) == ["clean", "noise", "fgsm", "pgd-20", "margin-20", "square", "pgd-3",
                                               "report"]
        assert list(measured.suite(run))[-1] == "quick"

    def test_numbers_of_params_yaml_come_first(self, run, few):
        """An entry of the name of the longer attack is taken; elsewhere it has the headline attack's step size."""
        weak = {"pgd-3": {"attack": "noise"}, "pgd-20": {"attack": "pgd", "steps": 20, "step_size": 0.01}}
        x, y = few.test.first(8).floats()
        model = train.initial(run, methods.build(run), few, CPU).eval()

        def examples(numbers):
            """The examples of pgd-3 with these attacks in params.yaml."""
            suite = measured.suite(replace(run, attacks={**run.attacks, **numbers}))
            return suite["pgd-3"](model, x, y, generator=compute.generator(0))

        noise = attacks.noise(model, x, y, threat=run.threat, generator=compute.generator(0))
        assert torch.equal(examples({"pgd-3": weak["pgd-3"]}), noise)
        moved = (examples({"pgd-20": weak["pgd-20"]}) - noise).abs().max()
        assert 0 < moved <= 3 * 0.01 * 0.1 + 1e-6

    def test_a_radius_ends_where_any_image_is_allowed(self, run):
        assert measured.scaled(run, 0.5) == config.Threat("Linf", 0.05)
        assert measured.scaled(run, 20) == config.Threat("Linf", 1.0)
        assert measured.scaled(replace(run, threat=config.Threat("L2", 0.5)), 20) == config.Threat("L2", 10.0)


class TestTrained:
    def test_as_the_stage_left_them(self, found, run, few, project, capsys):
        folder = run.folder("activations")
        folder.mkdir(parents=True)
        found[0].save(folder)
        assert {path.name for path in (folder / "weights").iterdir()} == {f"{name}.pt" for name in LADDER}
        loaded = networks.trained(run, few, CPU)
        assert list(loaded) == LADDER and not capsys.readouterr().out
        x, _ = few.test.floats()
        for name, model in loaded.items():
            assert not any(module.training for module in model.modules())
            assert all(torch.equal(value, found[0].weights[name][key]) for key, value in model.state_dict().items())
            seen = rows(found[0].tables["per_sample"], activation=name, split="test", attack="clean")
            assert model(x).argmax(1).tolist() == seen.predicted.tolist()

    def test_on_the_spot_they_are_the_same(self, found, run, few, project, capsys):
        made = networks.trained(run, few, CPU)
        assert capsys.readouterr().out.startswith("stage activations of pgd has not run")
        for name, model in made.items():
            assert all(torch.equal(value, found[0].weights[name][key]) for key, value in model.state_dict().items())

    def test_elsewhere_the_stage_has_to_run(self, run, few, project):
        with pytest.raises(params.ConfigError, match="activations/digits/pgd/0/weights/relu.pt is missing: `dvc repro "
                                                     "activations@default-digits-pgd-0` makes it"):
            networks.trained(replace(run, profile="default"), few, CPU)


def table(**predicted):
    """A per-sample table of images of labels 0 .. 4: activation_split_attack -> predictions."""
    parts = []
    for name, said in predicted.items():
        activation, split, attack = name.split("_")
        parts.append(pd.DataFrame({"method": "pgd", "seed": 0, "activation": activation, "split": split,
                                   "attack": attack, "index": range(5), "label": range(5), "predicted": said}))
    return pd.concat(parts, ignore_index=True)


def test_errors_by_hand():
    found = measured.errors(table(b_test_clean=[0, 1, 2, 3, 0], b_test_pgd=[1, 1, 2, 3, 4],
                                  a_test_clean=[0, 1, 2, 3, 4], a_test_pgd=[1, 0, 0, 0, 0],
                                  b_validation_pgd=[0, 1, 2, 3, 4]))
    assert list(found.columns) == ["method", "seed", "activation", "split", "attack", "n", "error", "low", "high"]
    error = found.set_index(["activation", "split", "attack"]).error
    assert error.to_dict() == {
        ("b", "test", "clean"): 0.2, ("b", "test", "pgd"): 0.2, ("a", "test", "clean"): 0, ("a", "test", "pgd"): 1,
        ("b", "validation", "pgd"): 0, ("b", "test", "worst case"): 0.4, ("a", "test", "worst case"): 1,
        ("b", "validation", "worst case"): 0}
    assert (found.n == 5).all() and found.low[1] == pytest.approx(0.0362, abs=1e-4)  # Wilson, 1 of 5
    assert found.high[1] == pytest.approx(0.6245, abs=1e-4)


def test_validation_images_choose():
    right, one, two = [0, 1, 2, 3, 4], [1, 1, 2, 3, 4], [1, 2, 2, 3, 4]
    many = table(a_validation_clean=right, a_validation_pgd=two, c_validation_clean=one, c_validation_pgd=one,
                 b_validation_clean=right, b_validation_pgd=one, d_validation_clean=right, d_validation_pgd=one,
                 e_validation_clean=right, e_validation_pgd=two, e_test_clean=right, e_test_pgd=right)
    both = pd.concat([many, many[many.activation.isin(["a", "c"])].assign(seed=1)])
    found = networks.chosen(measured.errors(both), "pgd")
    assert found[["seed", "activation", "n", "validation", "validation_clean"]].values.tolist() == [
        [0, "b", 5, 0.2, 0.0], [1, "c", 5, 0.2, 0.2]]  # of equal errors the lower clean one, then the first


def test_the_stage_depends_on_all_activations_and_on_no_figure(project):
    stage = stages.describe(next(i for i in stages.instances() if i.name == "activations@default-digits-pgd-0"))
    assert {"lib.gating.networks", "lib.gating.measured", "lib.gating.checks", "lib.methods.pgd", "lib.cost",
            *(f"lib.activations.{name}" for name in activations.available())} <= set(stage["modules"])
    assert not {"lib.methods.trades", "lib.figures.style"} & set(stage["modules"])
    assert {"activations", "attacks", "evaluate", "train", "threat", "model"} <= set(stage["config"]["digits"])
