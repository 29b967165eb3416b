"""`python -m lib paper`: what it leaves, what it does a second time, and how it stops."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from lib import config, data, evaluate, figures, paper, stages, train
from lib.__main__ import main
from lib.evaluate import CLEAN, WORST
from lib.paper import clock, options, records, scores, training

ROOT = Path(__file__).parents[1]
TINY = ("profile=smoke", "dataset=digits", "name=tiny", "data.limit=10", "train.epochs=2", "train.trace=1",
        "model.width=4", "train.steps=2", "attacks.pgd-20.steps=3", "attacks.square=null", "attacks.margin-20=null")


@pytest.fixture
def tree(project, monkeypatch):
    """A copy of the project with its digits, and nothing drawn."""
    shutil.copytree(ROOT / "data", project / "data")
    monkeypatch.setattr(paper, "find_spec", lambda name: None)
    return project


@pytest.fixture
def run(tree, capsys):
    """Run it, tiny, with further options, and return what it said and the record of a method."""
    def call(*more, method="pgd", alarms="false"):
        paper.run(*TINY, f"methods={method}", f"alarms={alarms}", *more)
        return capsys.readouterr().out, tree / f"results/smoke/runs/tiny/{method}/0.json"
    return call


def digest(tree):
    """Every file of the results with its time."""
    return {p: p.stat().st_mtime_ns for p in (tree / "results").rglob("*") if p.is_file()}


def wanted(*more):
    return options.configured(options.parse([*TINY, *more]), "pgd", 0)


def test_the_files_and_what_is_in_them(run, tree):
    said, path = run(alarms="true")
    facts, table = json.loads(path.read_text()), pd.read_csv(tree / "results/smoke/attack/tiny/pgd/0/per_sample.csv")
    assert {p.name for p in (tree / "results/smoke/train/tiny/pgd/0").iterdir()} == {
        "best.pt", "last.pt", "history.csv", "trace.npz"}
    assert not (tree / "results/smoke/unfinished/train/tiny/pgd/0").exists()
    assert facts["missing"] == [] and facts["numbers"]["train"]["epochs"] == 2 and facts["dataset"] == "digits"
    assert set(facts["numbers"]["attacks"]) == {"noise", "fgsm", "pgd-20"}
    assert facts["made_on"]["device"] == "cpu" and facts["made_on"]["precision"] == "float32"
    assert {a["checkpoint"] for a in facts["alarms"]} == set(train.CHECKPOINTS)
    assert set(pd.read_csv(tree / "results/smoke/attack/tiny/pgd/0/alarms.csv").columns) >= {"check", "meaning", "seed"}
    attacks = ["clean", "noise", "fgsm", "pgd-20", "quick"]
    assert list(table.groupby(["checkpoint", "split", "attack"], sort=False).size().items()) == [
        ((c, s, a), n) for c in train.CHECKPOINTS
        for s, n, names in (("test", 100, attacks), ("train", 90, attacks[::3])) for a in names]
    assert "attack 13/15  best, train, clean" in said and f"pgd, seed 0, last: clean {rate(facts, CLEAN):.1%}" in said


def rate(facts, attack, checkpoint="last"):
    return next(r["accuracy"] for r in facts["accuracy"] if (r["checkpoint"], r["split"], r["attack"]) == (
        checkpoint, "test", attack))


def test_every_number_follows_from_the_small_file(run):
    """Accuracy, worst case and interval computed again from the .npz alone, the interval by scipy."""
    _, path = run()
    facts = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as file:
        arrays = dict(file)
    names = [CLEAN, "noise", "fgsm", "pgd-20", "quick"]
    hits = {n: arrays[f"best/test/{n}"] == arrays["label/test/100"] for n in names}
    hits[WORST] = np.all(list(hits.values()), axis=0)
    for name, right in hits.items():
        row = next(r for r in facts["accuracy"] if (r["checkpoint"], r["split"], r["attack"]) == ("best", "test", name))
        interval = binomtest(int(right.sum()), 100).proportion_ci(method="wilson")
        assert (row["n"], row["hits"]) == (100, right.sum()) and row["accuracy"] == pytest.approx(right.mean())
        assert [row["low"], row["high"]] == pytest.approx([max(interval.low, 0), interval.high], abs=1e-6)
    assert hits[WORST].sum() <= hits["quick"].sum() <= hits[CLEAN].sum()
    again = records.Record.load(path)
    assert records.accuracies(again.table) == facts["accuracy"] and again.trace["attacked"].shape == (2, 100)


def test_it_finds_what_the_stages_find(run, tree):
    """The same weights and the same table as training and evaluation in one go."""
    run()
    one, cpu = wanted(), torch.device("cpu")
    images = data.load(one)
    trained = train.fit(one, images, cpu, lambda line: None)
    assert records.weights(trained) == records.weights(train.Trained.load(one.folder("train")))
    table = evaluate.table(one, images, trained, cpu, log=lambda line: None)
    ours = pd.read_csv(one.folder("attack") / "per_sample.csv")
    assert list(ours) == list(table)
    pd.testing.assert_frame_equal(ours, table, check_dtype=False, rtol=1e-4, atol=1e-6)


def test_a_second_call_does_nothing(run, tree):
    run()
    before = digest(tree)
    said, _ = run()
    assert digest(tree) == before and not any(word in said for word in ("epoch", "attack 1/", "left"))


def test_a_method_more_or_an_attack_more_is_all_that_is_done(run, tree):
    run()
    weights = (tree / "results/smoke/train/tiny/pgd/0/last.pt").stat().st_mtime_ns
    said, _ = run("tier=report")
    assert "attack 2/2  best, test, report" in said and "epoch" not in said
    said, path = run("attacks.pgd-20.steps=4")
    assert "epoch" not in said and "attack 14/14" in said  # another attack: all is evaluated anew
    assert json.loads(path.read_text())["numbers"]["attacks"]["pgd-20"]["steps"] == 4
    assert (tree / "results/smoke/train/tiny/pgd/0/last.pt").stat().st_mtime_ns == weights
    said, _ = run("train.lr=0.05")
    assert "was recorded with other numbers: it is trained anew" in said and "pgd, seed 0: epoch 2/2" in said
    said, _ = run("train.lr=0.05", "force=true")
    assert "pgd, seed 0: epoch 2/2" in said and "attack 14/14" in said


@pytest.fixture
def out_of_time(monkeypatch):
    """The clock stops at its nth step."""
    def at(nth):
        steps = iter(range(1, 1000))
        monkeypatch.setattr(clock.Clock, "step", lambda self: (_ for _ in ()).throw(clock.OutOfTime)
                            if next(steps) == nth else None)
    return at


def test_an_interrupted_training_goes_on_to_the_same_bits(run, tree, out_of_time, monkeypatch):
    _, path = run("train.epochs=4", method="pgd+ema")
    whole = json.loads(path.read_text())["training"]
    out_of_time(3)
    said, path = run("train.epochs=4", "force=true", "seconds=100", method="pgd+ema")
    assert "stopped before the limit of 100 s" in said and "left: pgd+ema, seed 0 (training)" in said
    assert not path.exists() and len(list((tree / "results/smoke/unfinished/train/tiny/pgd+ema/0").iterdir())) == 2
    monkeypatch.undo()
    monkeypatch.setattr(paper, "find_spec", lambda name: None)
    monkeypatch.chdir(tree)
    said, _ = run("train.epochs=4", method="pgd+ema")
    again = json.loads(path.read_text())["training"]
    assert "going on from" in said and again["weights"] == whole["weights"] and again["history"] == whole["history"]
    assert again["epochs_timed"] < whole["epochs_timed"] == 3  # epochs that were only told again have no pace


def test_an_interrupted_evaluation_goes_on_where_it_was(run, tree, out_of_time, monkeypatch):
    _, path = run()
    whole = json.loads(path.read_text())["accuracy"]
    out_of_time(4)  # one step between two epochs, then one for each batch that is attacked
    said, _ = run("force=true")
    facts = json.loads(path.read_text())
    assert "left: pgd, seed 0 (evaluation)" in said
    assert "best, test, quick" in facts["missing"] and "last, test, pgd-20" not in facts["missing"]
    assert rate(facts, "pgd-20") == rate({"accuracy": whole}, "pgd-20")
    monkeypatch.setattr(clock.Clock, "step", lambda self: None)
    said, _ = run()
    assert "epoch" not in said and json.loads(path.read_text())["accuracy"] == whole


def test_evaluation_comes_before_new_training(run, tree, out_of_time, monkeypatch, capsys):
    out_of_time(3)
    run(method="trades")
    monkeypatch.setattr(clock.Clock, "step", lambda self: None)
    paper.run(*TINY, "methods=pgd,trades", "alarms=false")
    said = capsys.readouterr().out
    assert said.index("trades, seed 0: attack") < said.index("pgd, seed 0: epoch")


def test_a_limit_of_time_stops_it_cleanly(run):
    said, path = run("seconds=0.001")
    assert "stopped before the limit of 0.001 s" in said and not path.exists()
    assert "left: pgd, seed 0 (training). The same command, without force=true, goes on" in said


def test_the_clock_reckons_with_a_step_as_long_as_the_last(monkeypatch):
    now = iter([0, 10, 14, 15])
    monkeypatch.setattr(clock.time, "monotonic", lambda: next(now))
    watch = clock.Clock(16)
    watch.start()
    with pytest.raises(clock.OutOfTime):
        watch.step()  # 4 s after the last, at 14: the next would end at 18
    watch.step()      # 1 s after the last, at 15


def test_without_its_weights_a_run_is_not_evaluated(run, tree, out_of_time, monkeypatch):
    out_of_time(4)
    run()
    monkeypatch.setattr(clock.Clock, "step", lambda self: None)
    path = tree / "results/smoke/train/tiny/pgd/0/last.pt"
    state = torch.load(path)
    torch.save({name: value + 1 for name, value in state.items()}, path)  # another network
    said, _ = run()
    assert "its weights are not here" in said and "left: pgd, seed 0 (evaluation)" in said
    path.unlink()
    shutil.rmtree(tree / "data")  # nor are images needed
    said, _ = run()
    assert "its weights are not here" in said and "left: pgd, seed 0 (evaluation)" in said


def test_the_tier_on_few_images(run):
    """The worst case is then over the images that every attack saw."""
    _, path = run("tier_images=40")
    facts = json.loads(path.read_text())
    n = {r["attack"]: r["n"] for r in facts["accuracy"] if (r["checkpoint"], r["split"]) == ("last", "test")}
    assert n == {"clean": 100, "noise": 100, "fgsm": 100, "pgd-20": 100, "quick": 40, WORST: 40}
    said, path = run("tier_images=20")
    assert "attack 1/" not in said
    said, path = run()
    n = {r["attack"]: r["n"] for r in json.loads(path.read_text())["accuracy"] if r["split"] == "test"}
    assert "attack 2/2  best, test, quick" in said and set(n.values()) == {100}


def test_one_network_is_attacked_once(run, monkeypatch):
    """Where best and last are the same weights."""
    tables = []
    whole = evaluate.per_sample
    monkeypatch.setattr(evaluate, "per_sample", lambda *a: tables.append(whole(*a)) or tables[-1])
    _, path = run("train.epochs=1")
    facts = json.loads(path.read_text())
    assert facts["training"]["weights"]["best"] == facts["training"]["weights"]["last"] and len(tables) == 7
    assert rate(facts, "quick", "best") == rate(facts, "quick", "last") and facts["missing"] == []


@pytest.mark.parametrize(("pair", "said"), [
    ("method=pgd", "unknown option 'method' (did you mean 'methods'?)"),
    ("pgd", "'pgd' is not NAME=VALUE, such as methods=pgd,trades or train.epochs=110"),
    ("methods=pdg", "unknown method 'pdg' in 'pdg' (did you mean 'pgd'?)"),
    ("methods=pgd,awp", "'awp' is not an objective"),
    ("methods=", "methods= is empty"),
    ("seeds=x", "'seeds=x': seeds has to be whole numbers with commas"),
    ("seconds=soon", "'seconds=soon': seconds has to be a number"),
    ("force=yes", "'force=yes': force has to be true or false"),
    ("profile=big", "unknown profile 'big'"),
    ("checkpoints=first", "unknown checkpoint 'first' in checkpoints="),
    ("tier=strong", "unknown tier 'strong' in tier="),
    ("train.epoch=3", "unknown key 'epoch' in section 'train' of the command (did you mean 'epochs'?)"),
    ("train.epochs=many", "train.epochs in the command is 'many', not int"),
    ("trains.epochs=3", "unknown section 'trains' in 'trains.epochs=3'"),
    ("train.epochs=[3", "'train.epochs=[3': the value is not valid YAML"),
    ("knobs.pgd.heat=3", "unknown knob 'heat' in knobs.pgd"),
    ("attacks.pgd-20.stops=3", "unknown argument 'stops' in attacks.pgd-20"),
    ("name=svhn", "name=svhn is another data set of params.yaml"),
    ("name=../x", "name=../x: a name has letters, digits and . _ + -"),
    ("dataset=cats", "unknown data set 'cats'"),
])
def test_bad_words_are_one_line(tree, capsys, pair, said):
    assert main(["paper", "profile=smoke", "dataset=digits", *(["name=tiny"] if "." in pair[:8] else []), pair]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tree / "results/smoke/train").exists()


def test_other_numbers_need_a_name_of_their_own(tree, capsys):
    assert main(["paper", "profile=smoke", "dataset=digits", "train.epochs=3"]) == 1
    assert "train.epochs is not as in params.yaml" in (said := capsys.readouterr().err) and "name=digits-2" in said
    assert options.parse(["compute.device=cpu", "dataset=digits"]).name == "digits"


def test_missing_images_are_one_line(tree, capsys, monkeypatch):
    monkeypatch.setenv("DATA_HOME", str(tree / "nowhere"))
    monkeypatch.setattr("lib.sources.fetch.reach", lambda urls: (_ for _ in ()).throw(OSError("no network")))
    assert main(["paper", "profile=smoke", "dataset=cifar10_short"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "put into" in error and "cifar-10-python.tar.gz" in error


def test_a_package_that_is_missing_is_one_line(capsys, monkeypatch):
    def gone(*pairs):
        import no_such_package  # noqa: F401
    monkeypatch.setattr("lib.__main__.COMMANDS", {"paper": gone})
    assert main(["paper"]) == 1
    assert "the package 'no_such_package' is missing" in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_a_cpu_is_not_set_to_work_for_days(tree, capsys, monkeypatch):
    monkeypatch.setattr(paper, "MANY", 50)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["paper", *TINY]) == 1
    assert "torch sees no GPU here, and 2 epochs of 90 images take a CPU days" in capsys.readouterr().err
    asked = [*TINY, "methods=standard", "alarms=false", "tier_images=2"]
    assert main(["paper", *asked, "compute.device=cpu"]) == 0
    assert main(["paper", *asked, "force=true"]) == 1
    assert (tree / "results/smoke/runs/tiny/standard/0.json").exists()  # nothing is deleted that cannot be made here


def test_the_recipe_is_cifar10_with_a_short_schedule():
    short, whole = (config.load("paper", name, "pgd", 0) for name in ("cifar10_short", "cifar10"))
    assert short.data.source == "cifar10" and short.train.schedule == "onecycle" and short.train.epochs < 200
    assert (short.threat, short.model, short.knobs) == (whole.threat, whole.model, whole.knobs)
    one = options.configured(options.parse([]), "pgd+awp", 0)
    assert one.evaluate.tier == "report" and set(one.knobs) == {"pgd", "awp"} and one.dataset == "cifar10_short"


def test_training_and_evaluation_need_no_more_than_they_say():
    """Nothing of DVC, Jupyter or figures is imported on the way."""
    code = "import sys, lib.paper; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert not roots & {"dvc", "papermill", "nbformat", "nbclient", "jupyter_client", "IPython", "matplotlib",
                        "seaborn", "sklearn", "pyautoattack", "foolbox", "torchvision"}


def test_a_digest_of_code_knows_what_matters(monkeypatch):
    first = records.code("pgd")
    assert first != records.code("trades") and first == records.code("pgd")
    monkeypatch.setattr(stages, "normalised", lambda text: text.replace("attacks.pgd(", "attacks.fgsm("))
    assert records.code("pgd") != first


def made(method, seed, hits):
    """A record whose last network is right under each attack where hits, attack -> (n,) of bool, says so."""
    keys = {"method": method, "seed": seed, "checkpoint": "last", "split": "test", "label": 0}
    table = pd.concat([pd.DataFrame({"index": np.arange(len(right)), "predicted": np.where(right, 0, 1)}).assign(
        **keys, attack=name) for name, right in hits.items()], ignore_index=True)
    facts = {"method": method, "seed": seed, "numbers": {"evaluate": {"headline": "pgd-20"}},
             "accuracy": records.accuracies(table)}
    return records.Record(facts, table, {})


def test_differences_are_paired_by_image_and_seed():
    right = {CLEAN: np.arange(10) < 8, "pgd-20": np.arange(10) < 4}
    better = {CLEAN: np.arange(10) < 7, "pgd-20": np.arange(10) < 6}
    runs = [made("pgd", 0, right), made("pgd+awp", 0, better), made("trades", 1, better)]
    found = records.differences(runs, "last").set_index("attack")
    assert set(found.method) == {"pgd+awp"}  # trades has no pgd of its seed
    assert found.difference.to_dict() == pytest.approx({CLEAN: -0.1, "pgd-20": 0.2, WORST: 0.2})
    assert found.loc["pgd-20", "p"] == pytest.approx(0.5)  # two discordant images, both one way
    other = made("trades", 0, {**better, "fgsm": np.arange(10) < 2})
    assert set(records.differences([runs[0], other], "last").attack) == {CLEAN, "pgd-20"}  # not the same attacks
    assert len(records.differences(runs, "best")) == 0


def test_the_worst_case_is_over_images_that_all_attacks_saw():
    table = made("pgd", 0, {CLEAN: np.ones(10, bool), "pgd-20": np.arange(10) != 3, "quick": np.arange(6) < 3}).table
    rows = {r["attack"]: (r["n"], r["hits"]) for r in records.accuracies(table)}
    assert rows == {CLEAN: (10, 10), "pgd-20": (10, 9), "quick": (6, 3), WORST: (6, 3)}


def test_a_broken_record_is_one_line(tmp_path):
    for text in ("{", "{}"):
        (tmp_path / "0.json").write_text(text)
        with pytest.raises(records.DataError, match="0.json and its .npz are no record of a run"):
            records.Record.load(tmp_path / "0.json")


def test_numbers_of_a_machine_are_no_part_of_a_run():
    one = wanted()
    assert records.numbers(one) == records.numbers(replace(one, compute=replace(one.compute, threads=7, device="cuda")))
    assert records.numbers(one) != records.numbers(replace(one, compute=replace(one.compute, precision="bfloat16")))
    assert scores.work(one, options.parse(TINY))[0] == ("last", "test", CLEAN, 0)
    assert training.unfinished(one).relative_to(config.root()) == Path("results/smoke/unfinished/train/tiny/pgd/0")


def points(seeds):
    def value(mean):
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
    return [{"clean": value(0.8 + i / 100), "robust": value(0.5 - i / 100)} for i in range(seeds)]


@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_show_each_run(style, seeds):
    figure = figures.run_trade_off({"pgd": points(seeds), "pgd+awp": points(seeds)}, "all attacks")
    ax, = figure.axes
    assert len(ax.containers) == 2 * seeds and {t.get_text() for t in ax.texts} == {"pgd", "pgd+awp"}
    rows = [{"mean": 0.02, "low": 0.01, "high": 0.03}] * seeds
    figure = figures.run_differences({"clean": {"trades": rows}, "worst case": {"trades": rows, "mart": rows}}, "pgd")
    first, second = figure.axes
    assert len(first.containers) == seeds and len(second.containers) == 2 * seeds
    assert second.containers[0].lines[0].get_xdata()[0] == pytest.approx(2)  # points


def test_the_notebook_without_a_run_says_so(tree, capsys, style):
    cells = stages.code_cells(tree / paper.NOTEBOOK)
    exec("\n".join(cells), {})  # in the profile that a reader finds in it
    assert capsys.readouterr().out == "no runs in results/paper/runs yet: `make paper` makes them\n"
    assert not list((tree / "results").rglob("*.svg"))


def test_the_notebook_shows_what_was_recorded(run, tree, monkeypatch):
    """Executed as a user does it."""
    import nbformat

    for method in ("pgd", "pgd+awp"):
        _, path = run(method=method)
    monkeypatch.setattr(paper, "find_spec", lambda name: True)
    paper._draw(options.Options(profile="smoke"))
    outputs = [o for c in nbformat.read(tree / "results/smoke/paper.ipynb", 4).cells for o in c.get("outputs", ())]
    assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in outputs)
    text = "\n".join(o.get("text", "") or "".join(o.data.get(f"text/{kind}", "") for kind in ("plain", "markdown"))
                     for o in outputs)
    facts = json.loads(path.read_text())
    assert f"{100 * rate(facts, WORST):.1f} [" in text and "tiny: digits, 2 epochs (onecycle), Linf radius 0.2" in text
    names = ("differences", "trade-off", "classes", "learning")
    assert {p.name for p in (tree / "results/smoke/figures").iterdir()} == {f"tiny-{n}.svg" for n in names}
