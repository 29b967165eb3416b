"""The guide's pages say what the code does, and every link of a page or chapter leads somewhere."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lib import adaptive, alarms

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "notebooks" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
CHAPTERS = sorted((ROOT / "notebooks" / "papers").glob("*.ipynb"))
GLOSSARY, EVALUATING = GUIDE / "glossary.md", GUIDE / "evaluating.md"
ADDED = {"no weaker"}  # a check of lib/adaptive that no alarm of lib/alarms has


def text(path):
    """What a page says; of a notebook its Markdown."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def prose(path):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text(path), flags=re.M | re.S)


def headings(path):
    """The titles of a page, of every level, in order."""
    return re.findall(r"^#+ +(.*?)\s*$", prose(path), re.M)


def slug(heading):
    """The anchor that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(path):
    """The relative links of a page: (file, anchor or '')."""
    found = re.findall(r"\]\(([^()\s]+)\)", prose(path))
    return [(to, anchor) for to, _, anchor in (f.partition("#") for f in found) if "://" not in to]


@pytest.mark.parametrize("path", [*PAGES, *CHAPTERS], ids=lambda p: p.stem)
class TestLinks:
    def test_lead_to_a_file_and_a_heading_there(self, path):
        for to, anchor in links(path):
            there = (path.parent / to).resolve() if to else path
            assert there.exists(), f"{path.name}: {to} is not there"
            if anchor:
                assert anchor in map(slug, headings(there)), f"{path.name}: {to} has no heading #{anchor}"

    def test_code_and_results_that_are_named_are_there(self, path):
        for name in re.findall(r"`((?:lib|notebooks|tests|results/default/figures)/[^`*<>\s]+)`", prose(path)):
            assert (ROOT / name).exists(), f"{path.name}: {name}"

    def test_notebooks_that_are_named_are_there(self, path):
        names = {p.stem for p in ROOT.glob("notebooks/pipeline/*.ipynb")}
        assert set(re.findall(r"[`\[](\d\d_[a-z]+)[`\]]", prose(path))) <= names


class TestGlossary:
    def test_terms_are_unique_and_alphabetical(self):
        terms = re.findall(r"^## (.*)$", GLOSSARY.read_text(), re.M)
        keys = [re.sub(r"[^a-z0-9 ]", "", term.lower()) for term in terms]
        assert keys == sorted(set(keys)) and len(terms) > 50

    def test_every_term_is_explained_and_placed(self):
        """A sentence or more, and somewhere to go on: code, a chapter, a page or another term."""
        for entry in re.split(r"^## ", GLOSSARY.read_text(), flags=re.M)[1:]:
            term, _, body = entry.partition("\n")
            assert 8 <= len(body.split()) <= 90, term
            assert re.search(r"`(lib|params|dvc|results|notebooks|data)[/.`]|\]\(", body) or term == "Control", term

    def test_terms_that_others_link_to(self):
        wanted = ("threat-model", "norm-ball", "adversarial-example", "adversarial-training", "robust-accuracy",
                  "worst-case-over-all-attacks", "gradient-masking", "adaptive-attack", "method-and-spec", "trade-off")
        assert set(wanted) <= set(map(slug, headings(GLOSSARY)))


def titled():
    """The checks that the page explains: headings in code."""
    return re.findall(r"^### `(.*)`$", EVALUATING.read_text(), re.M)


class TestEvaluating:
    def test_every_alarm_has_its_heading_and_no_other_has(self):
        assert len(titled()) == len(set(titled())) and set(titled()) == set(alarms.CHECKS) | ADDED

    def test_alarms_come_in_the_order_of_the_report(self):
        assert [name for name in titled() if name not in ADDED] == list(alarms.CHECKS)

    def test_every_check_says_what_why_how_much_and_what_then(self):
        for section in re.split(r"^### `", EVALUATING.read_text(), flags=re.M)[1:]:
            parts = [section.find(f"**{part}") for part in ("Looks at**", "Why.**", "Limit.**", "Then**")]
            assert parts == sorted(parts) and min(parts) > 0, section.splitlines()[0]

    def test_limits_are_those_of_the_code(self):
        found = re.findall(r"`(\w+)\.([A-Z_]+)`\s=\s([\d.e-]*\d)", EVALUATING.read_text())
        for module, name, value in found:
            home = "lib" if module == "autoattack" else "lib.alarms"
            assert getattr(importlib.import_module(f"{home}.{module}"), name) == float(value), name
        limits = {(m, n) for m, n, _ in found}
        assert {("strength", n) for n in ("GAIN", "FEW", "CHANGE", "LAST", "RISE", "LARGE_EPS", "SILENT")} <= limits
        assert {("gradient", n) for n in ("ZERO_CE", "ZERO_MARGIN", "WATCH", "HUGE")} <= limits

    def test_flags_are_autoattacks(self):
        rows = re.findall(r"^\| `(.*?)` \|", EVALUATING.read_text(), re.M)
        code = (ROOT / "lib" / "autoattack.py").read_text()
        assert len(rows) == 5 and all(row in code for row in rows)

    def test_the_lines_of_code_run(self, digits, model):
        code = re.search(r"^```python\n(.*?)^```", EVALUATING.read_text(), re.M | re.S)[1]
        x, y = digits.test.first(20).floats()
        names = {"network": model, "x": x, "y": y}
        exec(code.replace("alarms.as_table", "rows = alarms.as_table"), names)
        assert len(names["rows"]) == len(alarms.CHECKS) and "what to do" in names["rows"]

    def test_adaptive_checks_are_the_ones_named(self, cfg, digits, model):
        """`lib.adaptive` makes these checks for each protocol, and adds one."""
        run = replace(cfg, adaptive=replace(cfg.adaptive, steps=2, many=[1, 2], radii=[1, 2], queries=3, decisions=4))
        images = digits.test.first(6)
        tables = [make(run, model, images, images.y.device, log=lambda line: None)
                  for make in (adaptive.table, adaptive.sweeps)]
        found = [alarm.name for alarm in adaptive.checks(*tables)]
        text = " ".join(EVALUATING.read_text().split())
        named = re.search(r"makes the checks (.*?) for each protocol", text)[1]
        each = set(re.findall(r"`(.*?)`", named))
        assert set(found) == {f"{name}, {p}" for name in each for p in (adaptive.PUBLISHED, adaptive.ADAPTIVE)} | {
            "no weaker, adaptive"}
