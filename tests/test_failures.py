"""Always-failing images and transfer: known answers, brute force, and intervals that cover what they should."""

import itertools
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn

from lib import attacks, compute, config, data, failures, methods, stats, train
from lib.config import Threat
from lib.failures import ADAPTIVE, METHODS, PLAIN, PUBLISHED, SEEDS, TRUNK, NetworkSet
from lib.methods.ducat import Recovered
from lib.params import ConfigError, DataError

CPU = torch.device("cpu")
AXES = {"methods": ["standard", "pgd", "trades", "pgd+awp", "pgd+ducat"], "seeds": [0, 2],
        "studies": {"failures": ["pgd", "trades"]}}


def predictions(sources, targets, n=40, classes=3, seed=0, **arrays):
    """Random predictions of sources (method, seed, kind) and targets (method, seed); the second half is of training."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, classes, n)
    known = {"predicted": draw.integers(0, classes, (len(sources), len(targets), n)),
             "clean": np.where(draw.random((len(targets), n)) < 0.8, label, 0),
             "margin": draw.normal(size=(len(targets), n)),
             "split": np.where(np.arange(n) < n // 2, "test", "train"), "label": label, **arrays}
    names = [np.array(each) for each in (*zip(*sources, strict=True), *zip(*targets, strict=True))]
    return failures.Predictions(*names, **known)


def plain(fails, n=None, seed=0):
    """Predictions of plain networks that fail on themselves as `fails` says: (method, seed) -> (N,) of 0 and 1."""
    who, images = list(fails), len(next(iter(fails.values())))
    found = predictions([(*w, PLAIN) for w in who], who, images, split=np.full(images, "test"), seed=seed)
    for i, failing in enumerate(fails.values()):
        found.predicted[i, i] = np.where(failing, (found.label + 1) % 3, found.label)
    return found


FOUR = [(m, s) for m in ("a", "b") for s in (0, 1)] + [("a", 2)]


class TestNetworks:
    def test_which_runs(self):
        cfg = config.load("smoke", "digits")
        few = replace(cfg, failures=replace(cfg.failures, networks=4))
        study = [(m, s) for m in ("pgd", "trades", "standard", "pgd+ducat") for s in (0, 2)]
        assert failures.runs(few, AXES) == [*study, ("pgd", 1), ("pgd", 3)]
        assert failures.runs(cfg, AXES) == study
        assert failures.runs(cfg, {**AXES, "seeds": [0, 1, 2], "methods": ["pgd", "trades"]})[3:] == [
            ("trades", s) for s in range(3)]

    def test_all_are_made_and_the_trunk_is_found(self, project, digits, capsys):
        cfg = config.load("smoke", "digits")
        cfg = replace(cfg, train=replace(cfg.train, epochs=1, steps=1))
        small = replace(digits, **{split: getattr(digits, split).first(64) for split in data.SPLITS})
        axes, lines = {**AXES, "seeds": [0], "studies": {"failures": ["pgd"]}}, []
        targets, sources = failures.networks(cfg, axes, small, CPU, lines.append)
        assert [t.name for t in targets] == ["pgd, seed 0", "standard, seed 0", "pgd+ducat, adaptive, seed 0",
                                             "pgd, seed 1"] and lines == ["pgd, seed 1: trained here"]
        assert [(s.method, s.kind) for s in sources] == [("pgd", PLAIN), ("standard", PLAIN), ("pgd+ducat", PUBLISHED),
                                                         ("pgd+ducat", ADAPTIVE), ("pgd", PLAIN)]
        x, _ = small.test.first(3).floats()
        assert sources[2].net(x).shape == (3, 20) and sources[3].net(x).shape == (3, 10)
        assert not torch.equal(sources[0].net(x), sources[-1].net(x))

        run = replace(cfg, method="pgd+ducat", seed=0)
        torch.manual_seed(7)
        other = train.initial(replace(run, seed=7), methods.build(run), small, CPU).eval()
        run.folder("train").mkdir(parents=True)
        torch.save(other.state_dict(), run.folder("train") / "trunk.pt")
        targets, sources = failures.networks(cfg, axes, small, CPU, lines.append)
        trunk = [s for s in sources if s.kind == TRUNK]
        assert len(trunk) == 1 and len(targets) == 4 and torch.equal(trunk[0].net(x), other(x))
        assert "stage train of pgd has not run" in capsys.readouterr().out


class Nearest(nn.Module):
    """Takes an image of two pixels for the nearest centre."""

    def __init__(self, *centres):
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(centres))

    def forward(self, x):
        return -10 * (x.flatten(1)[:, None] - self.centres).square().sum(2)


class Trap(nn.Module):
    """Its own logits, and dummies that are five times as sure: an attack on all of them climbs towards the label."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        z = self.inner(x)
        return torch.cat([z - 100, 5 * z], 1)


@pytest.fixture(scope="module")
def toy():
    """Two nearly equal classifiers of two pixels, one of them with a trap; some images are far from the border."""
    cfg = config.load("smoke", "digits")
    cfg = replace(cfg, threat=Threat("Linf", 0.15), failures=replace(cfg.failures, steps=10))
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(300, 1, 1, 2, generator=draw)
    first = Nearest([0.3, 0.5], [0.7, 0.5])
    y = first(x).argmax(1)
    images = data.Images((255 * x).round().to(torch.uint8), y)
    dataset = data.Dataset("toy", ["a", "b"], None, ([0.0], [1.0]), images, images, images)
    trap = Recovered(Trap(Nearest([0.31, 0.5], [0.7, 0.5])))
    plain, shown = failures.Network("pgd", 0, PLAIN, first), failures.Network("pgd+ducat", 0, ADAPTIVE, trap)
    sources = [plain, failures.Network("pgd+ducat", 0, PUBLISHED, trap.raw), shown]
    return cfg, dataset, [plain, shown], sources


class TestCross:
    def test_every_source_is_shown_to_every_target(self, toy):
        cfg, dataset, targets, sources = toy
        lines = []
        found = failures.cross(cfg, dataset, targets, sources, lines.append, batch_size=1000)
        assert found.predicted.shape == (3, 2, 600) and len(lines) == 2 and lines[1].startswith("image 600/600  train")
        assert found.split.tolist() == ["test"] * 300 + ["train"] * 300
        x, y = dataset.test.floats()
        for s, source in enumerate(sources):
            noise = compute.generator(zlib.crc32(source.name.encode()))
            x_adv = attacks.pgd(source.net, x, y, threat=cfg.threat, steps=10, step_size=1 / 4, generator=noise)
            for t, target in enumerate(targets):
                assert found.predicted[s, t, :300].tolist() == target.net(x_adv).argmax(1).tolist()
        logits = targets[0].net(x)
        assert found.clean[0, :300].tolist() == y.tolist() == found.label[:300].tolist()
        gap = (logits[:, 1] - logits[:, 0]) * (1 - 2 * y)
        assert found.margin[0, :300] == pytest.approx(gap.detach().numpy(), abs=1e-5) and (found.margin[0] <= 0).all()

    def test_it_finds_the_trap(self, toy):
        """As published the trap is attacked in vain; examples of the other network fool it, and adaptive ones do."""
        cfg, dataset, targets, sources = toy
        found = failures.cross(cfg, dataset, targets, sources, lambda line: None)
        table = failures.masking(found).set_index(["method", "kind"])
        assert table.white_box["pgd+ducat", PUBLISHED] > 0.9
        assert table.white_box["pgd+ducat", ADAPTIVE] == pytest.approx(table.white_box["pgd", PLAIN], abs=0.05)
        assert table.stronger.to_dict() == {("pgd", PLAIN): False, ("pgd+ducat", PUBLISHED): True,
                                            ("pgd+ducat", ADAPTIVE): False}
        marked = failures.grid(failures.means(failures.pairs(found)))
        assert marked["stronger"].tolist() == [[False, True], [False, False], [False, False]]
        assert marked["framed"].tolist() == [[True, False], [False, True], [False, True]]

    def test_what_cannot_be_attacked_is_refused(self, toy):
        cfg, dataset, targets, sources = toy
        bad = replace(dataset, test=data.Images(dataset.test.x, dataset.test.y + 1))
        with pytest.raises(ConfigError, match="labels run from 1 to 2"):
            failures.cross(cfg, bad, targets, sources, lambda line: None)


class TestPredictions:
    def test_round_trip(self, tmp_path):
        found = predictions([("a", 0, PLAIN), ("a", 0, TRUNK)], [("a", 0)])
        found.save(tmp_path / "predicted.npz")
        again = failures.Predictions.load(tmp_path / "predicted.npz")
        assert all(np.array_equal(getattr(found, name), getattr(again, name)) for name in vars(found))
        assert again.source("a", 0, TRUNK) == 1 and again.target("a", 0) == 0
        np.savez(tmp_path / "other.npz", a=1)
        with pytest.raises(DataError, match="not what stage `failures` writes"):
            failures.Predictions.load(tmp_path / "other.npz")

    def test_what_is_not_there(self):
        with pytest.raises(ConfigError, match="no network 'a, trunk, seed 1'"):
            predictions([("a", 0, PLAIN)], [("a", 0)]).source("a", 1, TRUNK)


class TestSets:
    def test_by_hand(self):
        found = plain({who: np.zeros(3) for who in FOUR})
        groups = failures.sets(found, ["a", "b"])
        assert [g.members for g in groups if g.setting == METHODS] == [(("a", s), ("b", s)) for s in (0, 1)]
        assert sorted(g.members for g in groups if g.setting == SEEDS and len(g.members) == 2) == [
            (("a", 0), ("a", 1)), (("a", 0), ("a", 2)), (("a", 1), ("a", 2)), (("b", 0), ("b", 1))]
        assert sum(len(g.members) == 1 for g in groups) == 5 and len(groups) == 11
        assert groups[-1].keys == {"method": "b", "seed": "0, 1", "setting": SEEDS, "size": 2}
        assert NetworkSet(METHODS, (("a", 1), ("b", 1))).keys["method"] == "a, b"

    def test_the_largest_of_each_kind(self):
        who = [(m, s) for m in "abc" for s in (0, 1)] + [("a", 2)]
        groups = failures.sets(plain({w: np.zeros(3) for w in who}), ["a", "b", "c"])
        sizes = {(g.setting, g.members[0][0] if g.setting == SEEDS else ""): len(g.members)
                 for g in failures.largest(groups)}
        assert sizes == {(METHODS, ""): 3, (SEEDS, "a"): 3, (SEEDS, "b"): 2, (SEEDS, "c"): 2}
        alone = failures.sets(plain({("a", 0): np.zeros(3), ("b", 0): np.zeros(3)}), ["a", "b"])
        assert [g.setting for g in failures.largest(alone)] == [METHODS]  # one network is no set of seeds


class TestFailing:
    def test_agrees_with_loops(self):
        found = predictions([(*w, PLAIN) for w in FOUR], FOUR)
        groups = failures.sets(found, ["a", "b"])
        rows = failures.failing(found, groups)
        for row in rows.itertuples():
            group = next(g for g in groups if g.keys == {"method": row.method, "seed": row.seed, "setting": row.setting,
                                                         "size": row.size})
            members, kept, shares = [FOUR.index(m) for m in group.members], 0, np.zeros(5)
            rates = np.zeros(len(members))
            for i in range(40):
                right = all(found.clean[t, i] == found.label[i] for t in range(5))
                if found.split[i] != row.split or row.population != "all" and not right or (
                        row[7] != "all" and found.label[i] != int(row[7])):
                    continue
                fails = [found.predicted[m, m, i] != found.label[i] for m in members]
                one = np.mean([all(found.predicted[s, t, i] != found.label[i] for t in members) for s in members])
                shares += [all(fails), not any(fails), any(fails) and not all(fails), one,
                           all(found.clean[t, i] != found.label[i] for t in members)]
                kept, rates = kept + 1, rates + fails
            assert kept == row.n
            assert (row.all_fail, row.all_work, row.mixed, row.one_for_all, row.clean_wrong) == pytest.approx(
                shares / kept)
            assert (row.independent, row.least) == pytest.approx(((rates / kept).prod(), (rates / kept).min()))
        assert len(rows) > 100 and set(rows["class"]) == {"all", "0", "1", "2"}
        assert tuple(rows.loc[0, ["mixed_low", "mixed_high"]]) == pytest.approx(
            stats.wilson(rows.mixed[0] * rows.n[0], rows.n[0]))

    def test_what_independent_failures_would_share(self):
        """Networks that fail at random, but in one class more than in another."""
        draw = np.random.default_rng(0)
        label = np.repeat([0, 1], 20_000)
        rate = np.where(label == 0, 0.9, 0.1)
        found = replace(plain({w: draw.random(40_000) < rate for w in [("a", 0), ("b", 0)]}))
        fails = np.stack([found.predicted[i, i] != found.label for i in range(2)])
        found = replace(found, label=label, predicted=np.where(
            np.eye(2, dtype=bool)[:, :, None], np.where(fails, 1 - label, label), label))
        row = failures.failing(found, failures.sets(found, ["a", "b"])).query("setting == 'methods'").iloc[0]
        assert row.independent == pytest.approx(0.25, abs=0.01)
        assert row.all_fail == pytest.approx(row.in_class, abs=0.01) == pytest.approx(0.41, abs=0.01)

    def test_pooled(self):
        found = predictions([(*w, PLAIN) for w in FOUR], FOUR)
        rows = failures.failing(found, failures.sets(found, ["a", "b"]))
        whole = rows[(rows.population == "all") & (rows["class"] == "all") & (rows.split == "test")]
        table = failures.pooled(whole).set_index(["method", "size"])
        each = whole[(whole.method == "a") & (whole["size"] == 2)].all_fail
        row = table.loc[("a", 2)]
        assert row[["all_fail", "all_fail_least", "all_fail_most", "sets"]].tolist() == [
            each.mean(), each.min(), each.max(), 3]
        assert (row.all_fail_low, row.all_fail_high) == pytest.approx(stats.wilson(20 * each.mean(), 20))
        assert table.loc[("a, b", 2), "sets"] == 2 and table.loc[("b", 2), "sets"] == 1


def trained(draw, methods="abcd", seeds=3, images=150, of_method=0.0, of_seed=0.7):
    """Networks of which each has its own skill, its own taste and, with weight `of_method`, that of its method."""
    hardness, found = draw.normal(size=images), {}
    taste = {m: draw.normal(size=images) for m in methods}
    for m, s in itertools.product(methods, range(seeds)):
        own = of_seed * draw.normal(size=images) + 0.15 * draw.normal()
        found[m, s] = hardness + of_method * taste[m] + own > 0.4 * np.sqrt(1 + of_method**2 + of_seed**2)
    return found


class TestCompare:
    def test_equal_networks_differ_by_nothing(self):
        fails = np.arange(30) % 3 == 0
        found = plain(dict.fromkeys(FOUR, fails))
        rows = failures.compare(found, failures.sets(found, ["a", "b"]))
        assert rows.control.tolist() == ["a", "b", failures.EACH] and rows.across.tolist() == [2, 2, 2]
        assert rows.within.tolist() == [3, 1, 4] and (rows.methods == fails.mean()).all()
        assert (rows[["mean", "low", "high"]] == 0).all(axis=None)
        assert rows.single.tolist() == [0, 1, 1]

    def test_by_hand(self):
        """Methods share image 0 alone, seeds of a share images 0 and 1."""
        ones = {("a", 0): [1, 1, 0, 0], ("a", 1): [1, 1, 0, 0], ("b", 0): [1, 0, 1, 0], ("b", 1): [1, 0, 0, 1]}
        found = plain({who: np.array(each, bool) for who, each in ones.items()})
        rows = failures.compare(found, failures.sets(found, ["a", "b"])).set_index("control")
        assert rows["mean"].to_dict() == {"a": 0.25 - 0.5, "b": 0.25 - 0.25, failures.EACH: 0.25 - 0.375}

    def test_without_a_second_seed_it_is_the_t_interval_over_images(self):
        a, b, c = np.random.default_rng(0).random((3, 50)) < 0.5
        alone, other = NetworkSet(METHODS, (("a", 0), ("b", 0))), NetworkSet(SEEDS, (("a", 0), ("a", 0)))
        found = failures.difference({alone: a & b, other: a & c}, [alone], [[other]])
        each = (a & b).astype(float) - (a & c)
        closed = scipy_stats.t.interval(0.95, 49, each.mean(), scipy_stats.sem(each))
        assert (found["low"], found["high"]) == pytest.approx(closed) and found["single"] == 2

    def test_the_jackknife_leaves_a_seed_out_of_every_set(self):
        fails = trained(np.random.default_rng(1), "ab", images=100_000)  # so many images that only seeds count
        found = plain(fails)
        groups = failures.sets(found, ["a", "b"])
        row = failures.compare(found, groups).query("control == 'a'").iloc[0]
        both = {s: (fails["a", s] & fails["b", s]).mean() for s in range(3)}
        pair = {s: (fails["a", (s + 1) % 3] & fails["a", (s + 2) % 3]).mean() for s in range(3)}
        left = [np.mean([both[k] for k in range(3) if k != s]) - pair[s] for s in range(3)]
        half = scipy_stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * np.sum((left - np.mean(left)) ** 2))
        assert row["mean"] == pytest.approx(np.mean(list(both.values())) - np.mean(list(pair.values())))
        assert row.high - row["mean"] == pytest.approx(half, rel=0.1)

    @pytest.mark.parametrize(("size", "control", "least"), [(2, failures.EACH, 0.9), (2, "a", 0.9), (3, "a", 0.8)])
    def test_the_interval_covers_no_difference(self, size, control, least):
        draw, covered = np.random.default_rng(size), []
        for _ in range(150):
            found = plain(trained(draw))
            groups = [g for g in failures.sets(found, list("abcd")) if len(g.members) == size or len(g.members) == 1]
            row = failures.compare(found, groups).query(f"control == '{control}'").iloc[0]
            covered.append(row.low <= 0 <= row.high)
        assert least <= np.mean(covered)

    def test_it_sees_what_a_method_adds(self):
        """Where the seeds of one method share its taste, methods share less."""
        found = plain(trained(np.random.default_rng(0), of_method=0.8, images=1000))
        rows = failures.compare(found, failures.sets(found, list("abcd")))
        row = rows[(rows["size"] == 2) & (rows.control == failures.EACH)].iloc[0]
        assert row.high < 0 and row["mean"] < -0.02


def by_pairs(scores, positive):
    """The share of pairs in which the positive one scores higher."""
    gaps = np.subtract.outer(scores[positive], scores[~positive])
    return ((gaps > 0) + 0.5 * (gaps == 0)).mean()


class TestAuc:
    def test_is_the_share_of_pairs_and_counts_ties_half(self):
        draw = np.random.default_rng(0)
        positive = draw.random(200) < 0.3
        scores = np.round(draw.normal(size=200) + positive, 1)
        found = failures.auc(scores, positive)
        assert found["auc"] == pytest.approx(by_pairs(scores, positive))
        assert failures.auc(np.zeros(200), positive)["auc"] == 0.5

    def test_the_interval_is_as_wide_as_the_resamples(self):
        draw = np.random.default_rng(1)
        positive = np.arange(300) < 100
        scores = draw.normal(size=300) + positive
        found = failures.auc(scores, positive)
        draws = ([draw.choice(scores[:100], 100), draw.choice(scores[100:], 200)] for _ in range(400))
        drawn = [by_pairs(np.concatenate(each), positive) for each in draws]
        assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.15)

    def test_too_few(self):
        assert np.isnan(failures.auc(np.arange(5.0), np.arange(5) == 0)["auc"])

    def test_only_networks_outside_of_a_set_predict_it(self):
        fails = dict.fromkeys([*FOUR, ("standard", 0)], np.arange(12) % 2 == 0)
        found = plain(fails)
        found.margin[:] = fails["a", 0] - 0.5
        rows = failures.predictability(found, failures.sets(found, ["a", "b"]))
        assert (rows.auc == 1).all() and (rows.failing == 6).all() and (rows.n == 12).all()
        of = rows[rows.setting == METHODS].groupby("seed")[["predictor", "predictor_seed"]].apply(
            lambda each: sorted(map(tuple, each.to_numpy())))
        assert of["0"] == [("a", 1), ("a", 2), ("b", 1), ("standard", 0)]


def test_rescued_by_hand():
    """Both methods fail on images 0 and 1 of four. That with dummies has 0 right as published, and none adaptively."""
    who = [("a", 0), ("b", 0), ("a+ducat", 0)]
    found = predictions([("a", 0, PLAIN), ("b", 0, PLAIN), ("a+ducat", 0, PUBLISHED), ("a+ducat", 0, ADAPTIVE),
                         ("a+ducat", 0, TRUNK)], who, 4, split=np.full(4, "test"), label=np.zeros(4, int),
                        predicted=np.zeros((5, 3, 4), int))
    for (source, target), fails in {(0, 0): [1, 1, 1, 0], (1, 1): [1, 1, 0, 0], (2, 2): [0, 1, 1, 1],
                                    (3, 2): [1, 1, 0, 0]}.items():
        found.predicted[source, target] = fails
    rows = failures.rescued(found, failures.sets(found, ["a", "b"])).set_index(["method", "kind"])
    assert rows.right.to_dict() == {("a+ducat", PUBLISHED): 0.5, ("a+ducat", ADAPTIVE): 0}
    assert (rows.n == 2).all() and rows.set_method.unique().tolist() == ["a, b"]
    found.predicted[0, 0] = 0
    assert failures.rescued(found, failures.sets(found, ["a", "b"])).right.isna().all()  # nothing to rescue


SOURCES = [("a", 0, PLAIN), ("a", 1, PLAIN), ("a", 2, PLAIN), *((m, s, k) for m in ("a+ducat",) for s in (0, 1)
                                                               for k in (PUBLISHED, ADAPTIVE, TRUNK))]
TARGETS = [("a", 0), ("a", 1), ("a", 2), ("a+ducat", 0), ("a+ducat", 1)]


class TestTransfer:
    def test_who_belongs_together(self):
        found = predictions(SOURCES, TARGETS)
        how = {(SOURCES[s], TARGETS[t]): failures.pairing(found, s, t) for s, t in np.ndindex(9, 5)}
        assert how[("a", 0, PLAIN), ("a", 0)] == how[("a+ducat", 1, PUBLISHED), ("a+ducat", 1)] == "white box"
        assert how[("a", 2, PLAIN), ("a", 0)] == how[("a+ducat", 1, ADAPTIVE), ("a+ducat", 0)] == "another seed"
        assert how[("a+ducat", 1, TRUNK), ("a+ducat", 1)] == how[("a", 1, PLAIN), ("a+ducat", 1)] == "same seed"
        assert how[("a+ducat", 1, TRUNK), ("a+ducat", 0)] is how[("a", 2, PLAIN), ("a+ducat", 1)] is None

    def test_pairs_agree_with_loops(self):
        found = predictions(SOURCES, TARGETS)
        rows = failures.pairs(found)
        assert len(rows) == 2 * sum(failures.pairing(found, s, t) is not None for s, t in np.ndindex(9, 5))
        for row in rows.itertuples():
            s, t = SOURCES.index((row.source, row.source_seed, row.kind)), TARGETS.index((row.method, row.seed))
            own = SOURCES.index((row.method, row.seed, PUBLISHED if "ducat" in row.method else PLAIN))
            there = [i for i in range(40) if found.split[i] == row.split]
            hits, white = ([found.predicted[k, t, i] == found.label[i] for i in there] for k in (s, own))
            assert (row.n, row.accuracy, row.white_box) == (20, np.mean(hits), np.mean(white))
            assert (row.low, row.high) == pytest.approx(stats.wilson(sum(hits), 20))

    def test_means_over_seeds(self):
        found = predictions(SOURCES, TARGETS)
        rows, table = failures.pairs(found), failures.means(failures.pairs(found))
        keys = ["method", "source", "kind", "pairing", "split"]
        one = table.set_index(keys).loc[("a+ducat", "a", PLAIN, "same seed", "test")]
        part = rows[(rows[keys] == ["a+ducat", "a", PLAIN, "same seed", "test"]).all(axis=1)]
        assert one.seeds == 2 and one.accuracy == part.accuracy.mean()
        assert one.stronger == (part.accuracy < part.white_box).sum()
        closed = scipy_stats.t.interval(0.95, 1, part.accuracy.mean(), scipy_stats.sem(part.accuracy))
        assert (one.low, one.high) == pytest.approx(np.clip(closed, 0, 1))
        other = table.set_index(keys).loc[("a", "a", PLAIN, "another seed", "test")]
        part = rows[(rows[keys] == ["a", "a", PLAIN, "another seed", "test"]).all(axis=1)]
        assert other.seeds == 2 and len(part) == 6 and other.n == 20  # seed 2 is no target: a+ducat lacks it
        assert other.accuracy == pytest.approx(part[part.seed < 2].accuracy.mean())

    def test_grid(self):
        found = failures.grid(failures.means(failures.pairs(predictions(SOURCES, TARGETS))))
        assert found["sources"] == ["a", "a+ducat, as published", "a+ducat, adaptive", "a+ducat, trunk",
                                    "same method, another seed"]
        assert found["targets"] == ["a", "a+ducat"] and found["lines"] == [1, 2, 3, 4]
        assert found["framed"].tolist() == [[True, False], [False, True], [False, True], [False, False], [False, False]]
        assert np.isfinite(found["accuracy"]).all() and not (found["stronger"] & found["framed"]).any()


class TestMasking:
    def test_the_strongest_source_and_all_together(self):
        found = predictions(SOURCES, TARGETS, 200)
        row = failures.masking(found).set_index(["method", "seed", "kind"]).loc[("a+ducat", 0, PUBLISHED)]
        right = found.right[:, 3, :100]
        others = [0, 5, 6, 7]  # of seed 0 the plain one and the trunk, of seed 1 the two other white boxes
        rates = {SOURCES[s]: right[s].mean() for s in others}
        assert (row.source, row.source_seed, row.source_kind) == min(rates, key=rates.get) and row.sources == 4
        assert row.every == right[others].all(0).mean() and row.white_box == right[3].mean()
        best = right[others[int(np.argmin(list(rates.values())))]]
        wide = stats.paired(right[3], best, level=1 - 0.05 / 4)
        assert (row.gain, row.low, row.high) == (wide["mean"], wide["low"], wide["high"])

    def test_it_rarely_cries_wolf(self):
        """All attacks equally strong: of many sources the strongest looks stronger, and that is allowed for."""
        wrong = [failures.masking(predictions(SOURCES, TARGETS, 200, seed=s)).stronger.mean() for s in range(40)]
        assert np.mean(wrong) < 0.05

    def test_alone_there_is_nothing_to_compare(self):
        assert failures.masking(predictions([("a", 0, PLAIN)], [("a", 0)])).empty


def test_tables_are_tidy(tmp_path):
    """Read back from a file, a table says the same."""
    found = predictions([(*w, PLAIN) for w in FOUR], FOUR)
    rows = failures.failing(found, failures.sets(found, ["a", "b"]))
    rows.to_csv(tmp_path / "failing.csv", index=False)
    again = pd.read_csv(tmp_path / "failing.csv")
    pd.testing.assert_frame_equal(failures.pooled(again), failures.pooled(rows))
