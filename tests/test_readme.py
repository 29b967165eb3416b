"""The README's numbers, paths and commands are those of the tree."""

import json
import re
from pathlib import Path

import pytest
from torchvision import datasets

from lib import __main__ as commands
from lib import config, sources
from lib.claims import rules
from lib.sources import archives, own

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
RESULTS = json.loads((ROOT / "results/default/summary.json").read_text())["results"]["digits"]


@pytest.mark.parametrize("method", RESULTS)
def test_the_table_is_that_of_the_summary(method):
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{method}` |"))
    last = RESULTS[method]["last"]

    def shown(name):
        value = {k: 100 * v for k, v in last[name].items() if k != "n"}
        return f"{value['mean']:.1f} [{value['low']:.1f}, {value['high']:.1f}]"
    worst = f"{100 * last['worst class']['mean']:.1f}"
    expected = [shown("clean"), shown("pgd-20"), shown("worst case"), worst]
    assert [c.strip() for c in row.split("|")[2:6]] == expected
    assert last["clean"]["n"] == 3


def test_the_claims_are_those_of_the_file():
    """Each row of the tables: id, statement, verdict, estimate."""
    claims = {row["id"]: row for row in json.loads((ROOT / "results/default/claims.json").read_text())["digits"]}
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in TEXT.splitlines()
            if re.match(r"\| [ACDP]\d", line)]
    assert {key[0] for key, *_ in rows} == {"A", "C", "D", "P"} and len(rows) >= 40
    for key, statement, verdict, shown in rows:
        row = claims[key]
        assert (statement, verdict, shown) == (row["statement"], row["verdict"], rules.shown(row))


def test_the_findings_on_the_first_screen_are_claims_with_their_n():
    claims = {row["id"]: row for row in json.loads((ROOT / "results/default/claims.json").read_text())["digits"]}
    first = TEXT.split("\n## ")[0]
    found = re.findall(r"(-?\d+ \[-?\d+, -?\d+\] points)\s\((\S+): (\d+) images, (\d) seeds\)", first)
    assert len(found) >= 3 and len(found) == first.count(" points")
    for shown, key, images, seeds in found:
        row = claims[key]
        assert (shown, int(images), int(seeds)) == (rules.shown(row), row["n_images"], row["n_seeds"])
    assert "digits-tradeoff.svg" in first and len(first.splitlines()) < 45
    assert re.findall(r"^make (\w+)", first, re.M) == ["repro", "test"]


def test_the_speed_is_that_of_the_benchmark():
    steps = json.loads((ROOT / "results/bench/amd-epyc/digits/bench.json").read_text())["steps"]
    speedup = next(step["speedup"] for step in steps if (step["method"], step["arm"]) == ("pgd", "auto"))
    assert "{median:.2f} [{low:.2f}, {high:.2f}] times as fast".format(**speedup) in TEXT


def test_the_cost_of_sparta_is_that_of_the_benchmark():
    found = json.loads((ROOT / "results/bench/intel-xeon-processor/digits/bench.json").read_text())["overheads"]
    for method in ("pgd+sparta", "pgd+silu"):
        measured = next(row["measured"] for row in found if (row["method"], row["arm"]) == (method, "auto"))
        percent = {name: 100 * measured[name] for name in ("median", "low", "high")}
        assert "{median:.0f} % [{low:.0f}, {high:.0f}]".format(**percent) in TEXT


def test_every_path_exists():
    linked = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert linked and all((ROOT / path).exists() for path in linked)
    tree = TEXT.split("```\nREADME.md")[1].split("```")[0]
    for name in re.findall(r"^  ([a-z/ ]+?)  ", tree, re.M):
        for module in name.split():
            assert (ROOT / "lib" / module).exists() or (ROOT / f"lib/{module}.py").exists()
    modules = {p.stem for p in (ROOT / "lib").glob("[a-z]*.py")}
    assert modules <= set(re.findall(r"\w+", tree))


def test_commands_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make (\w+)", TEXT, re.M)) <= targets
    assert set(re.findall(r"python -m lib (\w+)", TEXT)) <= set(commands.COMMANDS)
    lines = len((ROOT / "lib/methods/pgd.py").read_text().splitlines())
    assert f"(lib/methods/pgd.py), which has {lines} lines" in TEXT


def test_own_data_lists_the_arrays():
    assert all(f"`{name}`" in TEXT for name in own.GIVEN)
    assert config.load("default", "digits").threat.eps == 0.2


def test_the_sets_and_their_files_are_listed():
    rows = {row.split("|")[1].strip().strip("`"): row for row in TEXT.splitlines() if row.startswith("| `")}
    assert set(sources.SOURCES) <= set(rows)
    for name, kind in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100), ("stl10", datasets.STL10)):
        assert f"`{kind.filename}`" in rows[name]
    for name, kind in (("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)):
        assert f"`{kind.__name__}/raw/`" in rows[name]
        assert all(f"`{file}`" in TEXT for file, _ in kind.resources)
    assert all(f"`{datasets.SVHN.split_list[part][1]}`" in rows["svhn"] for part in ("train", "test"))
    assert f"`{archives.TINY['file']}`" in rows["tiny_imagenet"]
