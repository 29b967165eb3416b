"""Transplants: which site gets which, what stays fixed, the controls, from where to where, and what is read off."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib import attacks, compute, config, data, evaluate, methods, models, train
from lib.gating import arms, directions, transplant
from lib.params import ConfigError, DataError
from lib.sources import fetch

CPU = torch.device("cpu")
GREY = ([0.3], [0.3])


def silent(line):
    """No log."""


def network(name, width=2, shape=(1, 8, 8), **knobs):
    """An untrained network with Sparta, and sites whose parameters all differ."""
    spec = {"form": "gate", "context": "spatial", "slope": True, "start": "zero", "one_map": False, "kernel": 3,
            "reduction": 16}
    made = models.build(config.Model(name, width, "relu"), shape, 4, GREY,
                        models.activations.build("sparta", spec | knobs))
    generator = torch.Generator().manual_seed(1)
    for site in models.sites(made):
        for parameter in made.get_submodule(site.name).parameters():
            parameter.data.normal_(generator=generator)
    return made


def by_name(source, target):
    """Names of the sites of the target and of their counterparts, between untrained networks."""
    one, other = network(source), network(target)
    found = arms.counterparts(models.sites(one), models.sites(other), (source, target))
    return {site.name.split(".", 1)[1]: there.name.split(".", 1)[1] for site, there in found.items()}


@pytest.fixture(scope="module")
def run():
    """PGD on digits in smoke, for one epoch with weak attacks, in small networks."""
    found = config.load("smoke", "digits", "pgd", 0)
    return replace(found, threat=config.Threat("Linf", 0.1), model=replace(found.model, width=4),
                   train=replace(found.train, steps=1, epochs=1),
                   attacks={"pgd-20": {"attack": "pgd", "steps": 1, "step_size": 1.0}})


@pytest.fixture(scope="module")
def few(digits):
    """Few of the digits: three steps an epoch."""
    return replace(digits, train=digits.train.first(200), validation=digits.validation.first(20),
                   test=digits.test.first(40))


@pytest.fixture(scope="module")
def found(run, few):
    """The table of the study, its log, its directions, and what was trained by `train.fit` and by `last`."""
    calls, lines, patch = [], [], pytest.MonkeyPatch()
    fit, last = train.fit, transplant.last
    patch.setattr(train, "fit", lambda *a, **k: calls.append(("fit", a[0].model.name, a[1].name)) or fit(*a, **k))
    patch.setattr(transplant, "last", lambda *a: calls.append(("last", a[0].config.model.name)) or last(*a))
    ways = directions.directions(run, few, CPU, lines.append)
    table = transplant.explore(run, ways, CPU, lines.append)
    patch.undo()
    return table, lines, ways, calls


@pytest.fixture(scope="module")
def trained(run, few):
    """An end, what was planted, and the network after training: fixed, and trained on."""
    end = directions.End("x", run, few)
    given = arms.placed(arms.states(network("small_cnn_deep", 4)), transplant.fresh(end, CPU), ("a", "b"))
    ways = {fixed: arms.planted(transplant.method(end, "sparta"), given, fixed) for fixed in (True, False)}
    return end, given, ways, {fixed: transplant.last(end, way, CPU) for fixed, way in ways.items()}


class TestCounterparts:
    def test_resnet18_to_34_and_back(self):
        """The first block of a group from the first, every other from the last; R18 has 2 2 2 2 blocks, R34 3 4 6 3."""
        there, back = by_name("resnet18", "resnet34"), by_name("resnet34", "resnet18")
        assert len(there) == 33 and len(back) == 17
        first = {34: [0, 3, 7, 13, 16], 18: [0, 2, 4, 6, 8]}  # blocks at which groups begin
        for group in range(4):
            for place in ("act1", "act2"):
                begin, end = first[34][group:group + 2]
                one, other = first[18][group], first[18][group] + 1
                assert there[f"blocks.{begin}.{place}"] == f"blocks.{one}.{place}"
                assert {there[f"blocks.{n}.{place}"] for n in range(begin + 1, end)} == {f"blocks.{other}.{place}"}
                assert back[f"blocks.{one}.{place}"] == f"blocks.{begin}.{place}"
                assert back[f"blocks.{other}.{place}"] == f"blocks.{end - 1}.{place}"
        assert there["act"] == back["act"] == "act"

    def test_small_networks(self):
        assert by_name("small_cnn", "small_cnn_deep") == {
            "features.2": "features.2", "features.5": "features.5", "features.8": "features.5",
            "features.12": "features.9", "features.15": "features.12", "features.18": "features.12", "act": "act"}
        assert by_name("small_cnn_deep", "small_cnn") == {
            "features.2": "features.2", "features.5": "features.8", "features.9": "features.12",
            "features.12": "features.18", "act": "act"}

    @pytest.mark.parametrize("name", ["small_cnn_deep", "resnet34", "preact_resnet18"])
    def test_as_many_blocks_one_to_one(self, name):
        found = by_name(name, name)
        assert all(site == other for site, other in found.items()) and len(found) > 5

    @pytest.mark.parametrize(("source", "target", "site"), [
        ("resnet18", "resnet50", "blocks.0.act3"), ("small_cnn", "resnet18", "blocks.0.act2")])
    def test_no_counterpart(self, source, target, site):
        with pytest.raises(ConfigError, match=f"{source} has no site for 1.{site} of {target}"):
            by_name(source, target)


class TestPlaced:
    def test_values_arrive(self):
        source, target = network("small_cnn"), network("small_cnn_deep")
        placed = arms.placed(arms.states(source), target, ("a", "b"))
        assert set(placed) == {site.name for site in models.sites(target)}
        for value, expected in zip(placed["1.features.8"].values(),
                                   source.get_submodule("1.features.5").state_dict().values(), strict=True):
            assert torch.equal(value, expected)

    def test_another_width_is_one_line_that_names_all(self):
        with pytest.raises(ConfigError, match=r"1.features.2 of narrow does not fit 1.features.2 of wide, .*\(2,\) and "
                                              r"\(3,\): knobs.sparta.context agnostic fits any width") as error:
            arms.placed(arms.states(network("small_cnn", 2)), network("small_cnn", 3), ("narrow", "wide"))
        assert "\n" not in str(error.value)

    def test_agnostic_fits_any_width(self):
        """Its network for all channels as it is, and for each slope the mean of the source's."""
        source, target = network("small_cnn", 2, context="agnostic"), network("small_cnn", 3, context="agnostic")
        placed = arms.placed(arms.states(source), target, ("a", "b"))
        given = source.get_submodule("1.features.2").state_dict()
        assert placed["1.features.2"]["slope"].tolist() == pytest.approx([given["slope"].mean().item()] * 3)
        assert torch.equal(placed["1.features.2"]["g.each.0.weight"], given["g.each.0.weight"])
        for name, state in placed.items():
            target.get_submodule(name).load_state_dict(state)
        assert torch.equal(placed["1.act"]["slope"], source.get_submodule("1.act").state_dict()["slope"])  # as wide


class TestFixed:
    def test_fixed_activations_stay_bit_for_bit_and_all_else_moves(self, trained):
        end, given, ways, after = trained
        before, now = transplant.fresh(end, CPU, ways[True]).state_dict(), after[True].state_dict()
        own = {f"{site}.{name}" for site, state in given.items() for name in state}
        assert all(torch.equal(now[f"{site}.{name}"], value) for site, state in given.items()
                   for name, value in state.items())
        moved = {name for name in now if not torch.equal(before[name], now[name])}
        assert moved == set(now) - own - {"0.mean", "0.std"}

    def test_trained_on_they_move(self, trained):
        _, given, _, after = trained
        now = after[False].state_dict()
        assert not any(torch.equal(now[f"{site}.{name}"], value) for site, state in given.items()
                       for name, value in state.items() if value.numel() > 1)

    def test_the_optimiser_never_has_them_and_attacks_leave_them_fixed(self, trained, run, few):
        end, given, ways, _ = trained
        model = transplant.fresh(end, CPU, ways[True])
        optimizer, _ = train.optimizer_and_schedule(run, model, 10)
        frozen = {id(p) for site in given for p in model.get_submodule(site).parameters()}
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert frozen and not frozen & held and frozen | held == {id(p) for p in model.parameters()}
        with attacks.under_attack(model):
            assert not any(p.requires_grad for p in model.parameters())
        assert {id(p) for p in model.parameters() if not p.requires_grad} == frozen

    def test_the_rest_begins_as_without_a_transplant(self, trained):
        end, given, ways, _ = trained
        fresh, relu = (transplant.fresh(end, CPU, one).state_dict()
                       for one in (ways[True], transplant.method(end, "relu")))
        assert all(torch.equal(fresh[name], value) for name, value in relu.items()) and len(relu) > 10

    def test_last_is_what_fit_ends_with(self, run, few):
        end = directions.End("x", replace(run, train=replace(run.train, epochs=2)), few)
        given = transplant.method(end, "silu")
        wanted = train.fit(end.config, few, CPU, silent, method=given).states["last"]
        got = transplant.last(end, given, CPU)
        assert all(torch.equal(value, wanted[name]) for name, value in got.state_dict().items())
        assert not got.training


class TestControls:
    def test_random_g_has_the_mean_and_deviation_of_the_trained_one_and_nothing_else(self):
        given = arms.states(network("small_cnn", 8))
        found, again, other = (arms.randomised(given, seed) for seed in (0, 0, 1))
        for site, state in given.items():
            assert list(found[site]) == list(state)
            for name, value in state.items():
                drawn = found[site][name]
                if name == "slope":
                    assert torch.equal(drawn, value)
                    continue
                assert torch.equal(drawn, again[site][name]) and not torch.equal(drawn, other[site][name])
                assert drawn.mean().item() == pytest.approx(value.mean().item(), abs=1e-5)
                assert drawn.std().item() == pytest.approx(value.std().item(), rel=1e-4)
                assert abs(np.corrcoef(drawn.flatten(), value.flatten())[0, 1]) < 4 / value.numel() ** 0.5
            assert found[site]["g.3.weight"].abs().min() > 0  # W2

    def test_a_single_number_stays(self):
        given = arms.states(network("small_cnn", 2, context="agnostic"))
        bias = next(iter(given.values()))["g.each.2.bias"]
        assert bias.numel() == 1 and torch.equal(next(iter(arms.randomised(given, 0).values()))["g.each.2.bias"], bias)

    @pytest.mark.parametrize("name", ["small_cnn", "small_cnn_deep", "resnet50"])
    def test_permuted_within_group_and_shape_and_none_at_its_place(self, name):
        given = arms.states(network(name))
        found, again = arms.permuted(given, 0), arms.permuted(given, 0)
        from_where = {site: next(s for s, state in given.items() if state is found[site]) for site in given}
        assert sorted(from_where.values()) == sorted(given) and all(found[s] is again[s] for s in given)
        for site, other in from_where.items():
            assert other.group == site.group and found[site]["slope"].shape == given[site]["slope"].shape
            alike = [s for s in given if s.group == site.group and len(given[s]["slope"]) == len(given[site]["slope"])]
            assert (other == site) == (len(alike) == 1)
        assert sum(site != other for site, other in from_where.items()) == len(given) - 1  # hidden layer, or stem

    def test_seeds_give_different_orders(self):
        given = arms.states(network("resnet34"))
        orders = {tuple(id(state["slope"]) for state in arms.permuted(given, seed).values()) for seed in range(3)}
        assert len(orders) == 3

    def test_arms_without_a_control_that_cannot_be_made(self):
        given = arms.states(network("small_cnn"))
        assert arms.possible(given) == ["T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7"]
        assert arms.possible(dict([*given.items()][-1:])) == ["T0", "T1", "T2", "T3", "T4", "T5", "T6"]
        swish = arms.states(network("small_cnn", context="none"))
        assert arms.possible(swish) == ["T0", "T1", "T2", "T3", "T5", "T6", "T7"]


def with_sets(run, **sets):
    """The run with these entries."""
    return replace(run, transplant=replace(run.transplant, sets=sets))


class TestDirections:
    def test_every_ordered_pair_then_images(self, run, few):
        nets = replace(run, transplant=config.Transplant(["small_cnn", "small_cnn_deep", "small_cnn"], {"halves": {}}))
        ways = directions.directions(nets, few, CPU)
        assert [(way.name, way.kind, way.source.name, way.target.name) for way in ways] == [
            ("small_cnn to small_cnn_deep", "network", "small_cnn", "small_cnn_deep"),
            ("small_cnn_deep to small_cnn", "network", "small_cnn_deep", "small_cnn"),
            ("halves", "images", "first half", "second half")]
        assert [transplant.names(way) for way in ways] == [
            ("small_cnn", "small_cnn_deep"), ("small_cnn_deep", "small_cnn"), ("small_cnn", "small_cnn")]
        assert all(way.source.images is way.target.images is few for way in ways[:2])

    def test_one_network_twice_has_two_seeds(self, run, few):
        *nets, halves = directions.directions(run, few, CPU)
        assert {end.config.seed for way in nets for end in (way.source, way.target)} == {0}
        assert halves.source.config.seed == 1000 and halves.target.config.seed == 0
        one, other = (transplant.fresh(end, CPU).state_dict() for end in (halves.source, halves.target))
        assert not torch.equal(one["1.features.0.weight"], other["1.features.0.weight"])

    @pytest.mark.parametrize(("spec", "nets", "message"), [
        ("standard", None, r"studies.transplant in params.yaml names 'standard': name an objective with an adversary"),
        ("pgd+awp", None, "names 'pgd\\+awp'.* without add-ons"), ("pgd+silu", None, "without add-ons"),
        ("pgd", ["resnet81"], "unknown network 'resnet81' in transplant.networks of params.yaml"),
        ("pgd", [], "transplant.networks in params.yaml is empty")])
    def test_refused(self, run, few, spec, nets, message):
        sets = config.Transplant(run.transplant.networks if nets is None else nets, {"halves": {}})
        with pytest.raises(ConfigError, match=message):
            directions.directions(replace(run, method=spec, transplant=sets), few, CPU)

    def test_numbers_of_an_entry(self, run, few):
        entry = {"lr": "1/8", "epochs": 3, "augment": [], "batch_size": 16, "eps": "8/255"}
        way = directions.directions(with_sets(run, halves=entry), few, CPU)[-1]
        changed = way.target.config.train
        assert way.target.config.threat == config.Threat("Linf", 8 / 255) and way.source.config.threat == run.threat
        assert (changed.lr, changed.epochs, changed.batch_size, changed.trace) == (0.125, 3, 16, 3)
        assert changed.momentum == run.train.momentum
        assert way.source.config.train == replace(run.train, trace=run.train.epochs)

    @pytest.mark.parametrize(("entry", "message"), [
        ({"rate": 1}, "unknown key 'rate' in transplant.sets.halves of params.yaml"),
        ({"limit": 5}, "unknown key 'limit' in transplant.sets.halves"),
        ({"lr": "fast"}, "transplant.sets.halves.lr in params.yaml is 'fast', not float"),
        ({"eps": None}, "transplant.sets.halves.eps in params.yaml is None, not float"),
        (3, "transplant.sets.halves of params.yaml is 3: it has to be a mapping")])
    def test_entries_refused_by_name(self, run, few, entry, message):
        with pytest.raises(ConfigError, match=message):
            directions.directions(with_sets(run, halves=entry), few, CPU)

    def test_a_fit_is_looked_at_before_anything_is_trained(self, run, few, monkeypatch):
        monkeypatch.setattr(train, "train_epoch", None)
        nets = replace(run, transplant=config.Transplant(["small_cnn", "preact_resnet18"], {}))
        with pytest.raises(ConfigError, match="small_cnn has no site|small_cnn does not fit"):
            transplant.explore(nets, directions.directions(nets, few, CPU), CPU, silent)


class TestHalves:
    def test_all_images_of_half_the_classes(self, digits):
        first, second = directions.halves(digits)
        assert first.classes == list("01234") and second.classes == list("56789")
        assert first.statistics == second.statistics == digits.statistics and first.name != second.name
        for part in data.SPLITS:
            whole, low, high = (getattr(one, part) for one in (digits, first, second))
            assert len(low) + len(high) == len(whole)
            assert torch.equal(low.x, whole.x[whole.y < 5]) and torch.equal(high.x, whole.x[whole.y >= 5])
            assert torch.equal(low.y, whole.y[whole.y < 5]) and torch.equal(high.y + 5, whole.y[whole.y >= 5])

    def test_odd_numbers_few_classes_and_images_on_disk(self, digits, tmp_path):
        y = torch.tensor([0, 4, 2, 3, 1])
        files = data.Files(tmp_path, np.array([b"a", b"b", b"c", b"d", b"e"]), y, 8, 0)
        five = replace(digits, classes=list("abcde"), superclasses=list("uuvvv"), train=files, validation=files,
                       test=files)
        first, second = directions.halves(five)
        assert first.classes == ["a", "b"] and first.superclasses == ["u", "u"] and second.superclasses == list("vvv")
        assert second.test.paths.tolist() == [b"b", b"c", b"d"] and second.test.y.tolist() == [2, 0, 1]
        with pytest.raises(ConfigError, match="has 3 classes, and two halves need four"):
            directions.halves(replace(digits, classes=list("abc")))


class TestOtherImages:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch):
        """A data home, and a network that nobody may ask."""
        monkeypatch.setenv("DATA_HOME", str(tmp_path))
        monkeypatch.setattr(fetch, "reach", lambda urls: pytest.fail("asked the network"))
        return tmp_path

    def own(self, home, channels):
        """The set 'other' of 16 x 16, three classes of six images."""
        y = np.repeat(np.arange(3), 6)
        x = np.random.default_rng(0).integers(0, 256, (len(y), 16, 16, channels), dtype=np.uint8)
        np.savez(home / "other.npz", train_x=x, train_y=y, test_x=x, test_y=y, classes=np.array(list("abc")))
        return x

    def test_in_the_form_of_the_run(self, run, few, home):
        x = self.own(home, 1)[..., 0]
        small = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR)) for image in x]
        run = replace(run, data=replace(run.data, classes=["1", "2"], without=["3"]))  # of the run's own set
        way = directions.between_images(with_sets(run, other={"limit": 4}), few, CPU)[0]
        got = way.target.images
        assert (way.name, way.kind, way.source.name, way.target.name) == ("other", "images", "digits", "other")
        assert got.classes == ["a", "b", "c"] and got.shape == (1, 8, 8) and got.name == "other"
        assert len(got.test) == 12 and len(got.train) + len(got.validation) == 12
        x = got.train.x.numpy() / 255
        assert got.statistics[0] == pytest.approx([x.mean()]) and got.statistics[1] == pytest.approx([x.std()])
        places = [next(i for i, one in enumerate(small) if (one == each).all()) for each in got.test.x[:, 0].numpy()]
        assert len(set(places)) == 12 and [i // 6 for i in places] == got.test.y.tolist() and way.source.images is few

    def test_grey_becomes_colour(self, run, few, home):
        self.own(home, 1)
        colour = replace(few, train=data.Images(few.train.x.repeat(1, 3, 1, 1), few.train.y))
        got = directions.prepared(run, colour, "other", None, CPU)
        assert got.shape == (3, 8, 8) and got.test.shape == got.validation.shape == (3, 8, 8)
        assert torch.equal(got.test.x[:, 0], got.test.x[:, 2]) and len({*got.statistics[0]}) == 1
        assert [len(values) for values in got.statistics] == [3, 3]

    def test_colour_in_a_grey_run_and_images_that_are_not_square(self, run, few, home):
        self.own(home, 3)
        with pytest.raises(ConfigError, match="transplant.sets.other of params.yaml: its images are in colour"):
            directions.prepared(run, few, "other", None, CPU)
        broad = replace(few, train=data.Images(few.train.x[:, :, :4], few.train.y))
        with pytest.raises(ConfigError, match="images of digits are 8 x 4"):
            directions.prepared(run, broad, "other", None, CPU)

    def test_what_is_not_here_is_left_out_and_nothing_is_downloaded(self, run, few, home):
        lines = []
        sets = with_sets(run, mnist={"limit": 5}, svhn={}, cifar10={}, imagenet={}, digits={}, stl10=None)
        assert directions.between_images(sets, few, CPU, lines.append) == [] and list(home.iterdir()) == []
        assert lines == [*(f"{name}: left out, it is not on this machine (`python -m lib fetch {name}` brings it)"
                           for name in ("mnist", "svhn", "cifar10", "imagenet")),
                         "digits: left out, these are the images of the run itself"]

    def test_a_name_that_nobody_knows_is_no_set_that_is_missing(self, run, few, home):
        with pytest.raises(DataError, match="data set 'mnits' is none of digits, mnist"):
            directions.between_images(with_sets(run, mnits={}), few, CPU)

    def test_offline_ends(self, home):
        with pytest.raises(fetch.Absent), fetch.offline():
            directions.sources.given("mnist")
        with pytest.raises(pytest.fail.Exception, match="asked the network"):
            directions.sources.given("mnist")


class TestStudy:
    def test_one_row_an_image(self, found, few):
        table, lines, ways, _ = found
        assert list(table) == ["method", "seed", "direction", "kind", "source", "target", "arm", "split", "attack",
                               "index", "label", "predicted"]
        counts = table.groupby(["direction", "arm", "attack"], sort=False).size()
        halves = int((few.test.y >= 5).sum())
        assert len(counts) == 3 * 8 * 3 and set(table.attack) == {"clean", "pgd-20", "strong"}
        assert set(counts["halves"]) == {halves} and set(counts.drop("halves")) == {len(few.test)}
        assert table[table.direction == "halves"].predicted.max() < 5 and set(table.split) == {"test"}
        assert [line.split("  ")[0] for line in lines] == [f"arm {i}/24" for i in range(1, 25)]
        assert lines[3].startswith("arm 4/24  small_cnn to small_cnn_deep, T3: error clean ")

    def test_each_network_with_sparta_is_trained_once(self, found):
        fits = [call[1:] for call in found[3] if call[0] == "fit"]
        assert sorted(fits) == sorted([
            *[("small_cnn", "digits"), ("small_cnn_deep", "digits")] * 2,  # by PGD and by standard training
            *[("small_cnn", "digits, first half")] * 2, ("small_cnn", "digits, second half")])
        assert sum(call[0] == "last" for call in found[3]) == 3 * 7

    @pytest.mark.parametrize(("arm", "spec", "change"), [
        ("T3", "pgd", None), ("T5", "standard", None), ("T4", "pgd", "randomised"), ("T7", "pgd", "permuted")])
    def test_an_arm_by_hand(self, found, run, few, arm, spec, change):
        """The source's best checkpoint, its activations in a new network by the mapping, frozen, the rest by SGD."""
        source = replace(run, method=f"{spec}+sparta")
        states = train.fit(source, few, CPU, silent).states["best"]
        donor = train.initial(source, methods.build(source), few, CPU)
        donor.load_state_dict(states)
        given = arms.states(donor)
        given = getattr(arms, change)(given, run.seed) if change else given
        named = {site.name: state for site, state in given.items()}
        target = replace(run, method="pgd+sparta", model=replace(run.model, name="small_cnn_deep"))
        pgd = methods.build(target)
        model = train.initial(target, pgd, few, CPU)
        for number, other in {2: 2, 5: 5, 8: 5, 12: 9, 15: 12, 18: 12}.items():
            model.get_submodule(f"1.features.{number}").load_state_dict(named[f"1.features.{other}"])
        model.get_submodule("1.act").load_state_dict(named["1.act"])
        for module in models.activations.learned(model):
            module.requires_grad_(False)
        optimizer, schedule = train.optimizer_and_schedule(target, model, 3)
        train.train_epoch(target, pgd, model, few.train, optimizer, schedule, compute.generator(0), 0.0)
        expected = evaluate.attacked(target, model.eval(), {"test": few.test}, CPU, ["clean", "pgd-20"])
        table = found[0][(found[0].direction == "small_cnn to small_cnn_deep") & (found[0].arm == arm)]
        assert table[table.attack != "strong"][list(expected)].reset_index(drop=True).equals(expected)

    def test_strong_goes_on_where_the_headline_attack_ends(self, found):
        """An image that is wrong clean or under the headline attack stays wrong; the latter with the same answer."""
        label = found[0].groupby(["direction", "arm", "index"]).label.first()
        said = found[0].set_index(["direction", "arm", "index", "attack"]).predicted.unstack("attack")
        wrong = said.ne(label, axis=0)
        assert (said.strong == said["pgd-20"])[wrong["pgd-20"]].all()
        assert wrong.strong[wrong.clean | wrong["pgd-20"]].all()
        assert wrong.strong.sum() > wrong["pgd-20"].sum() + 20

    def test_strong_on_what_is_left_is_strong_on_all(self, run, few, model):
        """Up to the noise that the attacks draw."""
        end = directions.End("x", replace(run, threat=config.Threat("Linf", 0.02)), few)
        got = transplant.attacked(end, model, CPU)
        whole = evaluate.attacked(end.config, model, {"test": few.test}, CPU)
        assert list(got) == list(whole) and got.drop(columns="predicted").equals(whole.drop(columns="predicted"))
        assert got[got.attack != "strong"].equals(whole[whole.attack != "strong"])
        agree = (got.predicted == whole.predicted)[got.attack == "strong"].mean()
        assert agree >= 0.9 and (got.predicted == got.label)[got.attack == "strong"].any()

    def test_own_arms_are_the_same_in_any_direction(self, run, few):
        """T0 is the network that the method trains by itself."""
        trained = train.fit(run, few, CPU, silent)
        model = train.model(run, trained, "last", few, CPU)
        way = directions.directions(run, few, CPU)[1]
        got = transplant.Trainings(CPU).target(way, "T0")
        assert all(torch.equal(value, got.state_dict()[name]) for name, value in model.state_dict().items())

    def test_the_mapping_as_a_table(self, found):
        table = transplant.mapping(found[2], CPU)
        assert list(table) == ["direction", "site", "group", "block", "place", "channels", "size", "from", "parameters"]
        deep = table[table.direction == "small_cnn to small_cnn_deep"]
        assert deep["from"].str[2:].tolist() == ["features.2", "features.5", "features.5", "features.9", "features.12",
                                                 "features.12", "act"]
        assert deep.channels.tolist() == [4] * 3 + [8] * 3 + [128] and deep["size"].tolist() == [8] * 3 + [4] * 3 + [1]
        c = deep.channels
        assert (deep.parameters == c + 9 * c + (c + 1) * 8 + 9 * c).all()  # slopes, DW, W1 and b1, W2 and b2


class TestReadings:
    @pytest.fixture
    def table(self):
        """Ten images; under the attack T0 is wrong on 4, T1 on 2, T3 on 1."""
        same = {"method": "pgd", "seed": 0, "direction": "d", "kind": "network", "source": "s", "target": "t"}
        return pd.DataFrame([
            same | {"arm": arm, "split": "test", "attack": attack, "index": i, "label": 0, "predicted": int(i < wrong)}
            for arm, under_attack in (("T0", 4), ("T1", 2), ("T3", 1))
            for attack, wrong in (("clean", 0), ("strong", under_attack)) for i in range(10)])

    def test_errors(self, table):
        found = transplant.errors(table).set_index(["arm", "attack"])
        assert found.error["T0", "strong"] == pytest.approx(0.4) and found.error["T3", "clean"] == 0
        assert found.low["T0", "strong"] == pytest.approx(0.1682, abs=1e-4)  # Wilson's interval of 4 in 10
        assert found.high["T0", "strong"] == pytest.approx(0.6873, abs=1e-4) and set(found.n) == {10}

    def test_networks_that_have_not_learned(self, table):
        """Eight images of class 0, two of class 1: one answer is wrong on two."""
        label = (table["index"] > 7).astype(int)
        lazy = table.assign(label=label, predicted=np.where(table.arm == "T1", 0, label))
        found = transplant.errors(lazy)
        assert found.chance.tolist() == pytest.approx([0.2] * 6)
        assert transplant.at_chance(found) == {("d", "T0"), ("d", "T1"), ("d", "T3")}  # of ten images, nobody knows
        more = pd.concat([lazy.assign(index=lazy["index"] + 10 * i) for i in range(10)])
        assert transplant.at_chance(transplant.errors(more)) == {("d", "T1")}

    def test_below_zero_the_arm_is_better(self, table):
        found = transplant.differences(table).set_index(["arm", "reference", "attack"])
        row = found.loc["T3", "T0", "strong"]
        assert row.difference == pytest.approx(-0.3) and row.low < -0.3 < row.high and row.n == 10
        assert row.p == pytest.approx(0.25)  # three discordant images, all on one side: 2 / 2^3
        assert found.difference["T0", "T1", "strong"] == pytest.approx(0.2)
        assert (found.xs("clean", level="attack").difference == 0).all()
        pairs = {(arm, other) for arm, other, _ in found.index}
        assert pairs == {("T0", "T1"), ("T1", "T0"), ("T3", "T0"), ("T3", "T1")}
