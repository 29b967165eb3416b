"""What an edit makes stale: prose nothing, figures.py the drawings, a method's file or knob that method."""

import json

import pytest

from lib import stages
from lib.params import ConfigError

AGGREGATED = {"classwise", "relations", "page", "gap", "failures", "tradeoff", "gating"}  # of all methods and seeds
DRAWN = AGGREGATED - {"failures"}  # with the figures' code
JUDGED = {"page", "gap", "tradeoff", "gating", "report"}  # with claims
LONG = {"trajectory", "perturbation"}  # of the AWP paper
EVALUATED = AGGREGATED | LONG | {"attack", "parity", "removal", "temperature", "balance", "adaptive", "forks",
                                 "activations", "gates", "transplant", "report"}


@pytest.fixture
def stale(project):
    """What differs after an edit: names of the stages whose code file changed."""
    stages.write("default")

    def described():
        stages._imports.cache_clear()
        return {i.name: json.dumps(stages.describe(i)) for i in stages.instances()}
    before = described()

    def compare():
        return {name.split("@")[0] for name, text in described().items() if before.get(name) != text}
    compare.instances = before
    return compare


def test_instances_are_those_of_dvc(stale):
    names = list(stale.instances)
    runs, studies = 18 * 3, (5 + 4 + 1 + 1 + 5 + 1 + 8 + 1 + 2 + 2 + 1) * 3  # one for each method
    assert len(names) == 1 + 2 * runs + len(AGGREGATED) + studies + 1 + 5 + 1
    assert names[1] == "train@default-digits-standard-0" and names[-1] == "report@default"


def test_prose_comments_and_docstrings_rerun_nothing(project, edit, stale):
    edit(project / "notebooks/pipeline/02_train.ipynb", "How is a network trained", "In what way is a network trained")
    edit(project / "lib/train.py", '"""One pass over the images', '"""A pass through the images')
    edit(project / "lib/train.py", "    model.train()\n", "    model.train()  # BatchNorm follows the batch\n\n")
    assert stale() == set()


@pytest.mark.parametrize(("file", "before", "after", "expected"), [
    ("notebooks/pipeline/02_train.ipynb", "trained.save(out)", "trained.save(out); done = 1", {"train"}),
    ("lib/figures/style.py", "WIDTH = 7.0", "WIDTH = 6.5", DRAWN | {"data", "papers", "report"}),
    ("lib/landscape.py", "distance: float = 0.5", "distance: float = 0.4",
     LONG | JUDGED | {"landscape", "papers"}),
    ("lib/evaluate.py", '"clean", "worst', '"none", "worst', EVALUATED | {"papers"}),
    ("lib/claims/spine.py", "level: float = 0.95", "level: float = 0.9", JUDGED),
    ("lib/stats.py", "draws: int = 10_000", "draws: int = 100", EVALUATED | {"landscape", "papers"}),
    ("lib/classwise/gain.py", "splits: int = 10", "splits: int = 5", DRAWN | {"report"}),
    ("lib/removal.py", "SEED_STEP = 1000", "SEED_STEP = 100", JUDGED | {"removal"}),
    ("params.yaml", "points: 13", "points: 11", LONG | JUDGED | {"landscape", "papers"}),
    # Stages after `data` read its images.npz: DVC reruns them if that changes, and only then.
    # `transplant` prepares other images by itself.
    ("params.yaml", "validation: 0.1 ", "validation: 0.2 ", {"data", "transplant", "papers"}),
    ("lib/sources/archives.py", "dimensions = content[3]", "dimensions = int(content[3])",
     {"data", "transplant", "papers"}),
])
def test_an_edit_reruns_what_uses_it(project, edit, stale, file, before, after, expected):
    edit(project / file, before, after)
    assert stale() == expected


@pytest.mark.parametrize(("file", "before", "after"), [
    ("lib/methods/pgd.py", "cross_entropy(model(x_adv)", "cross_entropy(2 * model(x_adv)"),
    ("params.yaml", "    warmup: 0.3", "    warmup: 0.1"),
])
def test_a_method_reruns_only_itself(project, edit, stale, file, before, after):
    edit(project / file, before, after)
    stages._imports.cache_clear()
    changed = {i.name for i in stages.instances() if json.dumps(stages.describe(i)) != stale.instances[i.name]}
    uses = {"pgd", "pgd+awp", "pgd+ema", "pgd+he", "pgd+cfa", "pgd+balanced", "pgd+ducat", "pgd+silu", "pgd+sparta"}
    assert {n for n in changed if n.startswith("train@")} == {f"train@default-digits-{m}-{s}" for m in uses
                                                              for s in range(3)}
    assert not any("standard" in name or "trades" in name for name in changed)


@pytest.mark.parametrize(("file", "before", "after"), [
    ("lib/activations/sparta.py", "F.relu(x) * 2", "F.relu(x) * 3"),
    ("params.yaml", "kernel: 3, reduction: 16}", "kernel: 5, reduction: 16}"),
])
def test_an_activation_reruns_what_uses_it(project, edit, stale, file, before, after):
    edit(project / file, before, after)
    changed = {i.name for i in stages.instances() if json.dumps(stages.describe(i)) != stale.instances[i.name]}
    assert {n for n in changed if n.startswith(("train@", "attack@"))} == {
        f"{stage}@default-digits-pgd+sparta-{s}" for stage in ("train", "attack") for s in range(3)}
    assert {"activations@default-digits-pgd-0", "activations@default-digits-standard-0", "gates@default-digits-pgd-0",
            "transplant@default-digits-pgd-0", "papers@default-sparta"} <= changed


def test_the_activation_of_the_networks_is_hashed_too(project, edit, stale):
    edit(project / "params.yaml", "width: 16, activation: relu", "width: 16, activation: elu")
    found = {i.name: stages.describe(i) for i in stages.instances() if i.name == "train@default-digits-pgd-0"}
    modules = found["train@default-digits-pgd-0"]["modules"]
    assert "lib.activations.elu" in modules and "lib.activations.relu" not in modules


def test_a_new_activation_is_one_file(project, edit):
    (project / "lib/activations/mine.py").write_text("def activation(channels, *, steep):\n    return None\n")
    edit(project / "params.yaml", "methods: [standard, pgd, ", "methods: [standard, pgd, pgd+mine, ")
    edit(project / "params.yaml", "  standard: {}", "  standard: {}\n  mine: {steep: 2}")
    stages.write("default")
    file = json.loads((project / "results/default/code/train/digits/pgd+mine/0.json").read_text())
    assert {"lib.activations.mine", "lib.methods.pgd"} <= set(file["modules"])
    assert file["config"]["digits"]["knobs"]["mine"] == {"steep": 2}
    edit(project / "params.yaml", "  mine: {steep: 2}", "  mine: {steeper: 2}")
    with pytest.raises(ConfigError, match="unknown knob 'steeper' in knobs.mine of params.yaml .did you mean 'steep'"):
        stages.write("default")


def test_a_new_method_is_one_file_and_two_entries(project, edit):
    (project / "lib/methods/mine.py").write_text("def add_on(method, config, *, strength):\n    return method\n")
    edit(project / "params.yaml", "methods: [standard, pgd, ", "methods: [standard, pgd, pgd+mine, ")
    edit(project / "params.yaml", "  standard: {}", "  standard: {}\n  mine: {strength: 2}")
    stages.write("default")
    file = json.loads((project / "results/default/code/train/digits/pgd+mine/0.json").read_text())
    assert {"lib.methods.mine", "lib.methods.pgd"} <= set(file["modules"])
    assert file["config"]["digits"]["knobs"] == {"mine": {"strength": 2}, "pgd": {"warmup": 0.3, "batchnorm": "eval"}}


def test_adding_a_method_leaves_the_others_alone(project, edit, stale):
    (project / "lib/methods/mine.py").write_text("def add_on(method, config):\n    return method\n")
    edit(project / "params.yaml", "methods: [standard, pgd, ", "methods: [standard, pgd, pgd+mine, ")
    changed = {i.name for i in stages.instances() if json.dumps(stages.describe(i)) != stale.instances.get(i.name)}
    assert {n.split("@")[0] for n in changed if "mine" not in n} == AGGREGATED | {"parity", "report"}


def test_a_chapter_has_its_data_set_whatever_the_profile_runs(project, edit):
    edit(project / "params.yaml", "datasets: [digits]", "datasets: [mnist]")
    stages.write("default")
    chapter, report = (json.loads((project / f"results/default/code/{name}.json").read_text())["config"]
                       for name in ("papers/pgd", "report"))
    assert list(chapter) == ["digits"] and list(report) == ["mnist"]
    assert set(chapter["digits"]["knobs"]) == {"pgd", "standard"}


def test_normalised_source():
    text = '"""Doc."""\nimport os  # why\n%matplotlib inline\ndef f(x):\n    "Doc."\n    # note\n    return (x)\n'
    assert stages.normalised(text) == "import os\n\ndef f(x):\n    return x"
    assert stages.normalised("def f():\n    'only a docstring'") == "def f():\n    pass"


def test_the_data_stage_reads_no_numbers_of_training(stale):
    found = json.loads(next(text for name, text in stale.instances.items() if name.startswith("data@")))
    assert set(found["config"]["digits"]) == {"data", "compute"}
