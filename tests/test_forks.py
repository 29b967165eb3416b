"""The controls of DUCAT: what is forked from what, bit for bit; its table, and what is read off it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lib import adaptive, config, forks, params, stages, train
from lib.forks import Setting

CPU = torch.device("cpu")
NAN = float("nan")


@pytest.fixture(scope="module")
def run():
    """PGD on digits in smoke, at a radius that some images survive, with few forks and weak attacks."""
    found = config.load("smoke", "digits", "pgd", 0)
    return replace(found, threat=config.Threat("Linf", 0.1), adaptive=replace(found.adaptive, steps=3),
                   train=replace(found.train, steps=2, trace=4),
                   forks=config.Forks([0, 0.25], [], [0.25], ["lse", "raw"], ["1/2"]))


@pytest.fixture(scope="module")
def found(run, few):
    """The table of the study, and its log."""
    lines = []
    return forks.explore(run, few, CPU, lines.append), lines


def fit(run, images, method="pgd+ducat", eps=None, **knobs):
    """The last weights of `train.fit`, with other knobs of ducat, or another radius."""
    knobs = {**run.knobs, "ducat": {**run.knobs["ducat"], **knobs}}
    run = replace(run, method=method, knobs=knobs, threat=replace(run.threat, eps=eps or run.threat.eps))
    return train.fit(run, images, CPU, lambda line: None).states["last"]


def same(model, state):
    """Whether a network has exactly these weights and statistics."""
    found = model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


class TestSettings:
    def test_each_once_under_its_first_name(self, run):
        names = [setting.fork for setting in forks.settings(run)]
        assert names == ["continued", "ducat", "half and half", "hard labels", "start 0.25", "adversary lse",
                         "radius 0.5", "radius 1"]  # w_benign 0 is 'hard labels', w_benign 0.25 and raw are 'ducat'
        more = replace(run, forks=config.Forks([0.1, "1/2"], [0.5, 1], [1, 0.75], ["max", "max"], [1, "1/4", 1.5]))
        assert [setting.fork for setting in forks.settings(more)] == [
            "continued", "ducat", "half and half", "hard labels", "w_benign 0.1", "w_benign 0.5", "w_adv 0.5",
            "start 0.75", "adversary max", "radius 0.25", "radius 1", "radius 1.5"]

    def test_one_thing_is_changed(self, run):
        by_name = {setting.fork: setting for setting in forks.settings(run)}
        expected = {"ducat": (0.25, 1, 0.5, "raw"), "half and half": (0, 0, 0.5, "raw"),
                    "hard labels": (0, 1, 0.5, "raw"), "start 0.25": (0.25, 1, 0.25, "raw"),
                    "adversary lse": (0.25, 1, 0.5, "lse")}
        for name, values in expected.items():
            assert by_name[name] == Setting(name, *values, radius=by_name[name].radius)
            knobs = forks.recipe(run, by_name[name]).knobs["ducat"]
            assert knobs == {"w_alpha": 1.0, **dict(zip(forks.KNOBS, values, strict=True))}
        half = forks.recipe(run, by_name["radius 0.5"])
        assert half == replace(run, threat=config.Threat("Linf", 0.05))

    @pytest.mark.parametrize(("changes", "message"), [
        ({"method": "pgd+ducat"}, r"studies.forks .* 'pgd\+ducat': name an objective, without add-ons"),
        ({"method": "pgd+awp"}, "name an objective, without add-ons"),
        ({"method": "standard"}, "ducat needs an objective with an adversary: pgd, trades"),
        ({"start": [1.5]}, r"'start 1.5' of forks .*start .* is 1.5: .* at least 0 and at most 1"),
        ({"start": [-0.1]}, "at least 0"),
        ({"w_benign": ["much"]}, r"'w_benign much' of forks .* is 'much': it has to be a number"),
        ({"adversary": ["none"]}, r"'adversary none' of forks .*unknown adversary 'none'.* raw, lse, max"),
        ({"radii": ["large"]}, r"forks.radii .* holds 'large': a radius is a number, in units of eps"),
        ({"radii": [20]}, r"'radius 20' of forks .* at most 1"),
        ({"radii": [-1]}, r"'radius -1' of forks .* none is below 0"),
    ])
    def test_bad_settings_are_refused_in_one_line(self, run, few, changes, message):
        method = {"method": changes.pop("method")} if "method" in changes else {}
        bad = replace(run, **method, forks=replace(run.forks, **changes))
        with pytest.raises(params.ConfigError, match=message) as error:
            forks.explore(bad, few, CPU, print)
        assert "\n" not in str(error.value)


class TestFork:
    @pytest.mark.parametrize(("start", "schedule", "moment"), [(0.5, "onecycle", 2), (0.6, "piecewise", 2),
                                                               (0.0, "onecycle", 0)])
    def test_trunk_and_fork_are_one_training(self, run, few, start, schedule, moment):
        run = replace(run, train=replace(run.train, schedule=schedule),
                      knobs={**run.knobs, "ducat": {**run.knobs["ducat"], "start": start}})
        continued, ducat = forks.settings(run)[:2]
        assert forks.begins(ducat, run.train.epochs) == moment
        trunk, states = forks.complete(forks.recipe(run, continued), few, CPU, keep=[moment])
        expected = fit(run, few)
        for _ in range(2):  # a state is not used up
            model, _ = forks.complete(forks.recipe(run, ducat), few, CPU, states.get(moment))
            assert same(model, expected) and not model.training
        assert not same(trunk, expected) and same(trunk, fit(run, few, start=1))

    def test_half_and_half_and_every_start_fork_at_their_own_moment(self, run, few):
        by_name = {setting.fork: setting for setting in forks.settings(run)}
        _, states = forks.complete(forks.recipe(run, by_name["continued"]), few, CPU, keep=[1, 2])
        assert sorted(states) == [1, 2]
        for name, moment, knobs in (("start 0.25", 1, {"start": 0.25}), ("half and half", 2, {"w_benign": 0,
                                                                                              "w_adv": 0})):
            assert forks.begins(by_name[name], 4) == moment
            assert same(forks.complete(forks.recipe(run, by_name[name]), few, CPU, states[moment])[0],
                        fit(run, few, **knobs))

    def test_a_start_is_rounded_down_to_whole_epochs(self):
        assert [forks.begins(Setting("", start=s), 30) for s in (0.3, 0.5, 0.8, 0.99, 0.31, 1.0)] == [9, 15, 24, 29, 9,
                                                                                                      30]

    def test_a_radius_is_a_training_of_its_own(self, run, few):
        model, _ = forks.complete(forks.recipe(run, Setting("radius 0.5", radius=0.5)), few, CPU)
        assert same(model, fit(run, few, "pgd", eps=0.05)) and not hasattr(model, "raw")


class TestExplore:
    def test_one_row_an_image(self, found, run, few):
        table, lines = found
        assert list(table.columns) == [
            "method", "seed", "fork", "w_benign", "w_adv", "start", "adversary", "radius", "split", "protocol",
            "attack", "index", "label", "predicted", "raw"]
        counts = table.groupby(["fork", "split", "protocol", "attack"]).size().unstack(["split", "protocol", "attack"])
        assert len(counts) == 8 and (counts["test"] == 60).all(axis=None)
        assert (counts["validation"] == 30).all(axis=None)
        both = [("adaptive", "clean"), ("as published", "pgd-10"), ("adaptive", "pgd-10"), ("adaptive", "apgd-lse")]
        tier = [("as published", "quick"), ("adaptive", "quick")]
        assert set(counts["test"].columns) == {*both, *tier} and set(counts["validation"].columns) == set(both)
        assert [line.split("  ")[0] for line in lines] == [f"fork {i}/8" for i in range(1, 9)]
        settings = table[["fork", *forks.SETTING]].drop_duplicates()
        assert len(settings) == 8 and settings.radius.dropna().tolist() == [0.5, 1]
        one = forks.by_seed(table).iloc[1]
        assert lines[1].endswith(f"ducat: clean {one.clean:.1%}, as published {one.published:.1%}, "
                                 f"worst case {one.robust:.1%}")

    @pytest.mark.parametrize(("name", "method", "knobs"), [
        ("continued", "pgd+ducat", {"start": 1}), ("adversary lse", "pgd+ducat", {"adversary": "lse"}),
        ("radius 0.5", "pgd", {"eps": 0.05})])
    def test_rows_are_those_of_a_network_trained_in_one_go(self, found, run, few, name, method, knobs):
        model = train.initial(replace(run, method=method), forks.methods.build(replace(run, method=method)), few, CPU)
        model.load_state_dict(fit(run, few, method, **knobs))
        rows, keys = found[0].query("fork == @name"), ["split", "protocol", "attack", "index"]
        expected = adaptive.attacked(run, model, {"test": few.test, "validation": few.validation}, CPU)
        expected = expected[(expected.split == "test") | (expected.attack != "quick")]  # at the full radius
        columns = [*keys, "label", "predicted", "raw"]
        pd.testing.assert_frame_equal(rows[columns].sort_values(keys, ignore_index=True),
                                      expected[columns].sort_values(keys, ignore_index=True))

    def test_only_dummies_make_the_protocols_differ(self, found):
        rows = found[0].query("attack == 'pgd-10' & split == 'test'")
        wide = rows.pivot(index=["fork", "index"], columns="protocol", values="predicted")
        differ = (wide["adaptive"] != wide["as published"]).groupby("fork").mean()
        assert differ["radius 1"] == differ["radius 0.5"] == 0 < differ["hard labels"]
        assert (found[0].query("radius > 0").raw < 10).all() and (found[0].query("fork == 'ducat'").raw >= 10).any()


def test_the_stage_depends_on_ducat_and_the_protocols(project):
    stage = stages.describe(next(i for i in stages.instances() if i.name == "forks@default-digits-pgd-0"))
    assert {"lib.methods.pgd", "lib.methods.ducat", "lib.adaptive.protocols", "lib.train"} <= set(stage["modules"])
    assert not {"lib.methods.trades", "lib.figures.style"} & set(stage["modules"])
    assert {"forks", "adaptive", "evaluate", "train", "threat"} <= set(stage["config"]["digits"])


def table(seed=0, n=100, **networks):
    """A table of `explore`: name -> rates on test images clean, published, adaptive, trapped; on validation images
    published, adaptive. The first images are right; the last ones trapped or taken for a dummy (a tenth, clean).
    """
    rows, index = [], np.arange(n)
    labels = index % 5
    for name, (clean, seen, true, trapped, chosen, better) in networks.items():
        fork = {"half": "half and half", "r1": "radius 1"}.get(name, name)
        keys = {"method": "pgd", "seed": seed, "fork": fork, "w_benign": NAN, "w_adv": 0.5, "start": NAN,
                "adversary": NAN, "radius": 1.0 if name == "r1" else NAN}
        for split, protocol, attack, rate in (
                ("test", "adaptive", "clean", clean), ("test", "as published", "pgd-10", seen),
                ("test", "as published", "quick", seen), ("test", "adaptive", "pgd-10", true),
                ("test", "adaptive", "quick", true), ("validation", "adaptive", "clean", 0.9),
                ("validation", "as published", "pgd-10", chosen), ("validation", "adaptive", "pgd-10", better)):
            right = index < round(rate * n)
            predicted = np.where(right, labels, (labels + 1) % 5)
            first = round(trapped * n) if (protocol, attack) == ("as published", "pgd-10") else n // 10
            dummy = (index < first) & (trapped > 0) | ~right & (index % 2 == 0) & (protocol == "as published")
            rows.append(pd.DataFrame({**keys, "split": split, "protocol": protocol, "attack": attack, "index": index,
                                      "label": labels, "predicted": predicted, "raw": predicted + 5 * dummy}))
    return pd.concat(rows, ignore_index=True)


SEEDS = pd.concat([
    table(continued=(0.9, 0.6, 0.6, 0, 0.5, 0.5), half=(0.95, 0.6, 0.55, 0, 0.5, 0.5),
          ducat=(0.9, 0.8, 0.3, 0.4, 0.7, 0.2), r1=(0.9, 0.6, 0.6, 0, 0.9, 0.9)),
    table(seed=1, continued=(0.8, 0.5, 0.5, 0, 0.4, 0.4), half=(0.8, 0.6, 0.6, 0, 0.5, 0.45),
          ducat=(0.9, 0.8, 0.2, 0.6, 0.4, 0.3), r1=(0.9, 0.6, 0.6, 0, 0.9, 0.9))], ignore_index=True)


def test_by_seed_by_hand():
    rows = forks.by_seed(SEEDS)
    assert rows.fork.tolist() == ["continued", "half and half", "ducat", "radius 1"] * 2
    assert rows.seed.tolist() == [0] * 4 + [1] * 4 and set(rows.w_adv) == {0.5}
    assert rows.clean.tolist() == [0.9, 0.95, 0.9, 0.9, 0.8, 0.8, 0.9, 0.9]
    assert rows.published.tolist() == [0.6, 0.6, 0.8, 0.6, 0.5, 0.6, 0.8, 0.6]
    assert rows.robust.tolist() == [0.6, 0.55, 0.3, 0.6, 0.5, 0.6, 0.2, 0.6]
    assert rows.trapped.tolist() == [0, 0, 0.4, 0, 0, 0, 0.6, 0]  # dummies of wrong classes do not count
    assert rows.dummies.tolist() == [0, 0, 0.1, 0, 0, 0, 0.1, 0]
    assert rows.validation_published.tolist()[:4] == [0.5, 0.5, 0.7, 0.9]
    assert rows.validation_robust.tolist()[4:] == [0.4, 0.45, 0.3, 0.9]
    assert rows.robust_change.tolist() == pytest.approx([0, -0.05, -0.3, 0, 0, 0.1, -0.3, 0.1])
    assert rows.clean_change.tolist() == pytest.approx([0, 0.05, 0, 0, 0, 0, 0.1, 0.1])
    wilson = stats.binomtest(30, 100).proportion_ci(method="wilson")
    assert [rows.robust_low[2], rows.robust_high[2]] == pytest.approx([wilson.low, wilson.high])
    assert (rows[["test_images", "validation_images"]] == 100).all(axis=None)
    assert rows.robust_change_high[2] < 0 < rows.published_change_low[2]
    middle, half = -30 / 102, 1.959964 * np.sqrt((31 / 102 - (30 / 102) ** 2) / 102)  # Agresti and Min: 30 lost, 0 won
    assert [rows.robust_change_low[2], rows.robust_change_high[2]] == pytest.approx([middle - half, middle + half])


def test_the_worst_case_counts_every_attack_of_both_protocols():
    rows = SEEDS[SEEDS.seed == 0].copy()
    at = (rows.fork == "half and half") & (rows.split == "test") & (rows["index"] == 0)
    rows.loc[at & (rows.protocol == "as published") & (rows.attack == "quick"), "predicted"] = 4
    one = forks.by_seed(rows).iloc[1]
    assert [one.clean, one.published, one.robust] == [0.95, 0.59, 0.54]


def test_the_choice_is_made_on_validation_images_and_among_forks():
    rows = forks.by_seed(SEEDS)
    assert rows.fork[rows.chose_published].tolist() == ["ducat", "half and half"]
    assert rows.fork[rows.chose_robust].tolist() == ["continued", "half and half"]  # of equal ones the first
    chosen = forks.choices(rows)
    assert chosen.believed.tolist() == ["as published", "adaptive"] * 2
    assert chosen.fork.tolist() == ["ducat", "continued", "half and half", "half and half"]
    assert chosen.validation.tolist() == [0.7, 0.5, 0.5, 0.45] and chosen.robust.tolist() == [0.3, 0.6, 0.6, 0.6]


def test_over_seeds_and_over_images():
    rows = forks.over(forks.by_seed(SEEDS))
    assert rows.fork.tolist() == ["continued", "half and half", "ducat", "radius 1"] and set(rows.n) == {2}
    assert rows.group.tolist() == ["controls"] * 3 + ["radius"]
    assert rows.chose_published.tolist() == [0, 1, 1, 0] and rows.chose_robust.tolist() == [1, 1, 0, 0]
    low, high = stats.t.interval(0.95, 1, loc=0.25, scale=np.std([0.3, 0.2], ddof=1) / np.sqrt(2))
    assert rows.robust[2] == pytest.approx(0.25) and [rows.robust_low[2], rows.robust_high[2]] == [max(low, 0), high]
    assert rows.robust_change[1] == pytest.approx(0.025) and rows.robust_change_low[1] == pytest.approx(
        0.025 - 12.7062 * 0.075, abs=1e-4)  # sd of -0.05 and 0.1, over root 2
    alone = forks.over(forks.by_seed(SEEDS[SEEDS.seed == 0]))
    seed = forks.by_seed(SEEDS[SEEDS.seed == 0])
    for name in (*forks.SHARES, *forks.CHANGES):
        assert alone[[f"{name}_low", f"{name}_high"]].equals(seed[[f"{name}_low", f"{name}_high"]])
    assert set(alone.n) == {1}


def test_a_table_from_disk_says_the_same(found, tmp_path):
    found[0].to_csv(tmp_path / "per_sample.csv", index=False)
    read = pd.read_csv(tmp_path / "per_sample.csv")
    pd.testing.assert_frame_equal(forks.over(forks.by_seed(read)), forks.over(forks.by_seed(found[0])),
                                  check_dtype=False)


def test_groups():
    names = {"continued": "controls", "half and half": "controls", "ducat": "controls", "hard labels": "labels",
             "w_adv 0.5": "labels", "w_benign 0.1": "labels", "start 0.3": "start", "adversary lse": "adversary",
             "radius 0.5": "radius"}
    assert {name: forks.group(name) for name in names} == names
