"""One list of dependencies for both roads, at pinned versions, with no host in it."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
YML = yaml.safe_load((ROOT / "environment.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"]]


def pins():
    """Name and version of each line of constraints.txt that holds for this interpreter."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().split("\n"):
        pin, _, marker = line.partition(" ; ")
        if pin and (not marker or Marker(marker).evaluate()):
            name, _, number = pin.partition("==")
            found[name] = number
    return found


def test_make_installs_what_conda_installs(tmp_path):
    """The lines that `make env` takes out of environment.yml are those that conda hands to pip."""
    conda = next(d["pip"] for d in YML["dependencies"] if isinstance(d, dict))
    recipe = (ROOT / "Makefile").read_text()
    awk = re.search(r"\tawk '(.*?)' environment.yml", recipe)[1].replace("$$", "$")
    made = subprocess.run(["awk", awk, "environment.yml"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == conda == ["-c constraints.txt", "-e ."]


def test_every_direct_dependency_is_pinned_and_installed_so():
    pinned = pins()
    for requirement in DIRECT:
        assert requirement.specifier.contains(pinned[requirement.name])
    if Path(sys.prefix).name == ".venv":  # other environments, such as torch 2.11's, may differ on purpose
        assert {r.name: version(r.name) for r in DIRECT} == {r.name: pinned[r.name] for r in DIRECT}


def test_every_dependency_has_a_reason():
    block = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("\n]")[0].strip().split("\n")
    assert len(block) == len(DIRECT) and all("  # " in line for line in block)


def test_python_versions_agree():
    asked = next(d for d in YML["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert SpecifierSet(asked.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


@pytest.mark.parametrize("name", ["constraints.txt", "environment.yml", "pyproject.toml", "Makefile", ".dvc/config"])
def test_no_host_is_named(name):
    assert "://" not in (ROOT / name).read_text()


def test_dvc_is_quiet():
    text = (ROOT / ".dvc/config").read_text()
    assert "analytics = false" in text and "check_update = false" in text
