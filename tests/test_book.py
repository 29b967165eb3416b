"""The site of a profile, opened page by page in a browser, from files."""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import browser
import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib import book, captions
from lib.book import links, notebooks
from lib.params import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*MystReferenceResolver.app")  # between two libraries
PIXEL = base64.b64encode(bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082")).decode()
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="90"><rect width="900" height="90"/></svg>'
WIDE = "<table><tr>" + "".join(f"<td>column {n}</td>" for n in range(40)) + "</tr></table>"
GUIDE = """# Glossary

## Robust accuracy

The share of images that no attack fools, $1 - r$. See [the first chapter](../papers/pgd.ipynb), the
[licence](../../LICENSE) and [how training goes](../pipeline/02_train.ipynb).
"""
FIRST = """# Can a test fool a network?

**You need** nothing. See the [glossary](../guide/glossary.md#robust-accuracy), [another chapter](classwise.ipynb),
[one that was not run](awp.ipynb), [the code](../../lib/attacks/gradient.py) and [a stage](../pipeline/02_train.ipynb).
"""
MATHS = "## An equation\n\nFor $\\epsilon$, with $f[a](b)$:\n\n$$\\max_{\\|\\delta\\| \\le \\epsilon} \\ell. \\tag{1}$$"


def figure(kind, data, source="plt.plot()"):
    return new_code_cell(source, outputs=[new_output("display_data", {kind: data, "text/plain": "<Figure>"})])


def chapter(title=FIRST):
    """A notebook as papermill leaves it, with all that a page may hold."""
    listing = {"text/html": "<div class='highlight'><pre>x</pre></div>", "text/latex": "x",
               "text/plain": "def shown():\n    pass"}
    cells = [new_markdown_cell(title), new_code_cell('profile = "smoke"', metadata={"tags": ["parameters"]}),
             new_code_cell('# Parameters\nprofile = "default"', metadata={"tags": ["injected-parameters"]}),
             new_code_cell("import numpy as np"), new_markdown_cell(MATHS), figure("image/png", PIXEL),
             new_markdown_cell("*A black dot; it is $1$ pixel wide.*"), figure("image/svg+xml", SVG),
             new_code_cell("def asked():\n    # BEGIN SOLUTION\n    return plt.gca()\n    # END SOLUTION"),
             new_code_cell("assert asked()\n### BEGIN HIDDEN TESTS\nassert secret()\n### END HIDDEN TESTS",
                           metadata={"nbgrader": {"grade": True}}),
             new_code_cell("wide", outputs=[new_output("execute_result", {"text/html": WIDE})]),
             new_code_cell("print(long)", outputs=[new_output("stream", text="word " * 200)]),
             new_code_cell("Code(shown)", outputs=[new_output("execute_result", listing)])]
    return new_notebook(cells=cells, metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"}})


def place(folder):
    """A project in which little of profile default was run."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "notebooks/guide").mkdir(parents=True)
    (folder / "notebooks/guide/glossary.md").write_text(GUIDE)
    shutil.copytree(ROOT / "results/default/figures", folder / "results/default/figures")
    for name in ("summary.json", "claims.json"):
        shutil.copy(ROOT / "results/default" / name, folder / "results/default" / name)
    plain = chapter("# What is asked here?\n\n**In:** nothing. **Out:** nothing. **Time:** none.")
    second = chapter("# Is [this](pgd.ipynb) one?")
    for name, found in {"papers/pgd/pgd": chapter(), "papers/classwise/classwise": second,
                        "train/digits/pgd+awp/0/02_train": plain, "train/digits/pgd/1/02_train": plain,
                        "tradeoff/digits/18_tradeoff": plain, "report/90_report": plain}.items():
        path = folder / "results/default" / f"{name}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(found, path)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of that project."""
    folder = place(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return book.build("default").parent


@pytest.fixture(scope="module")
def opened():
    with browser.browser() as found:
        yield found


@pytest.fixture(scope="module")
def seen(site, opened):
    return browser.every(site, opened)


def test_every_page_is_whole(site, seen):
    assert {path.relative_to(site).as_posix() for path in seen} >= {
        "index.html", "results.html", "figures.html", "papers/pgd.html", "papers/classwise.html", "guide/glossary.html",
        "stages/index.html", "stages/train/index.html", "stages/train/digits/pgd+awp/0/02_train.html",
        "stages/report/90_report.html", "search.html"}
    assert {str(path.relative_to(site)): page["wrong"] for path, page in seen.items() if page["wrong"]} == {}
    assert browser.broken(site, seen) == []
    assert seen[site / "papers/pgd.html"]["typeset"] >= 4 and len(seen[site / "papers/pgd.html"]["images"]) == 2
    assert len(seen[site / "figures.html"]["images"]) == len(list((ROOT / "results/default/figures").glob("*.svg")))


FAULTS = {"a message": ("<script>console.error('no')</script>", "console error"),
          "a warning": ("<script>console.warn('no')</script>", "console warning"),
          "a script that fails": ("<script>nothing.at.all</script>", "script:"),
          "a picture that is not there": ("<img src='none.png' alt='a picture'>", "picture does not load"),
          "a picture without words": (f"<img src='data:image/png;base64,{PIXEL}'>", "picture without words"),
          "a style sheet from elsewhere": ("<link rel='stylesheet' href='http://127.0.0.1:9/a.css'>", "leaves"),
          "a wide table": ("<div style='width: 500px'>wide</div>", "sideways"),
          "a formula as text": ("<script>MathJax = {startup: {promise: 1}}</script><p class='math'>x</p>", "typeset"),
          "two titles": ("<h1>Another</h1>", "headings")}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name, opened, tmp_path):
    fault, expected = FAULTS[name]
    text = "<!DOCTYPE html><html><head><title>A page</title></head><body><h1>A page</h1>{}</body></html>"
    (tmp_path / "good.html").write_text(text.format("<p id='here'><a href='#here'>here</a></p>"))
    (tmp_path / "index.html").write_text(text.format(fault))
    seen = browser.every(tmp_path, opened)
    assert seen[tmp_path / "good.html"]["wrong"] == []
    assert any(expected in wrong for wrong in seen[tmp_path / "index.html"]["wrong"])


def test_a_link_to_nowhere_is_seen(opened, tmp_path):
    text = "<!DOCTYPE html><title>A page</title><h1>A page</h1><a id='a' href='{}'>there</a>"
    targets = ("a.html", "a.html#a", "b.html", "a.html#b", "/etc/hostname")
    for name, target in zip("abcde", targets, strict=True):
        (tmp_path / f"{name}.html").write_text(text.format(target.replace("b.html", "none.html")))
    wrong = browser.broken(tmp_path, browser.every(tmp_path, opened))
    assert [line.split(":")[0] for line in wrong] == ["c.html", "d.html", "e.html"]


def test_search_finds_a_word_without_a_server(site, opened):
    found, wrong = browser.search(opened, site, "equation")
    assert wrong == [] and any("Can a test fool a network?" in title for title in found)
    assert browser.search(opened, site, "xyzzy") == ([], [])


def test_figures_come_before_their_code(site, opened):
    page = opened.new_page(viewport=browser.DESK)
    page.goto((site / "papers/pgd.html").as_uri())
    closed = [found.text_content() for found in page.query_selector_all("details.hide:not([open])")]
    assert [any(code in text for text in closed) for code in
            ("import numpy", "plt.plot", "assert asked", "def asked", "print(long)")] == [True] * 3 + [False] * 2
    words = page.inner_text("article")
    assert "SOLUTION" not in words and "def asked" in words and "return plt.gca()" in words
    assert "secret" not in page.content()  # a hidden test
    assert 'profile = "default"' in words and "smoke" not in words and "# Parameters" not in words
    assert "def shown" in page.text_content("div.highlight-python")
    alt = [image.get_attribute("alt") for image in page.query_selector_all("article img")]
    assert alt == ["A black dot; it is 1 pixel wide.", "Figure of: An equation"]
    links = {link.inner_text(): link.get_attribute("href") for link in page.query_selector_all("article p a")}
    assert links["glossary"] == "../guide/glossary.html#robust-accuracy"
    assert links["another chapter"] == "classwise.html" and links["a stage"] == "../stages/train/index.html"
    assert not {"one that was not run", "the code"} & set(links) and "one that was not run" in words
    page.close()


def test_claims_lead_to_what_shows_them(site, opened):
    page = opened.new_page(viewport=browser.DESK)
    page.goto((site / "results.html").as_uri())
    rows = [row.inner_text() for row in page.query_selector_all("table.claims tbody tr")]
    claims = book.found.Found("default", [], []).claims["digits"]
    assert len(rows) == len(claims) > 100
    for claim in claims:
        row = page.query_selector(f"tr:has([id='{book.results.anchor('digits', claim['id'])}'])")
        words, targets = row.inner_text(), [link.get_attribute("href") for link in row.query_selector_all("a")]
        assert claim["statement"] in words and claim["source"] in words and claim["verdict"] in words
        assert f"{claim['n_seeds']} × {claim['n_images']}" in words
        figure = claim["figure"]
        if (ROOT / f"results/default/figures/digits-{figure}.svg").exists():
            assert f"figures.html#digits-{figure}" in targets
            assert ("stages/tradeoff/digits/18_tradeoff.html" in targets) == (
                captions.CAPTIONS[figure].stage == "tradeoff")
        elif figure == "main table":
            assert targets == ["#main-table-digits", "stages/report/90_report.html"]
    s1 = claims[0]
    assert f"{100 * s1['estimate']:.0f} [{100 * s1['low']:.0f}, {100 * s1['high']:.0f}] points" in rows[0]
    page.close()


def test_what_was_not_run_is_named(site, opened):
    page = opened.new_page()
    page.goto((site / "stages/index.html").as_uri())
    words = page.inner_text("article")
    assert "train@default-digits-pgd-2" in words and "train@default-digits-pgd-1" not in words
    page.goto((site / "index.html").as_uri())
    assert "not run yet" in page.inner_text("article")
    page.close()


def test_two_builds_are_the_same_bytes_and_name_no_machine(site, tmp_path):
    folder = place(tmp_path)
    shutil.copy(ROOT / "constraints.txt", folder)
    subprocess.run([sys.executable, "-m", "lib", "book"], cwd=folder, check=True, capture_output=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    again = folder / "results/default/book"
    files = [path.relative_to(site) for path in sorted(site.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert [f for f in files if (site / f).read_bytes() != (again / f).read_bytes()] == []
    machine = [str(Path.home()).encode(), str(ROOT).encode(), str(site.parents[2]).encode()]
    assert [f for f in files if any(word in (site / f).read_bytes() for word in machine)] == []
    assert sorted(path.name for path in again.parent.iterdir()) == sorted(
        ["book", "claims.json", "figures", "papers", "report", "summary.json", "tradeoff", "train"])


def test_a_build_that_fails_leaves_the_old_site_and_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(place(tmp_path))
    old = tmp_path / "results/default/book/index.html"
    old.parent.mkdir()
    old.write_text("old")
    with (tmp_path / "notebooks/guide/glossary.md").open("a") as guide:
        guide.write("\n[no such part](#nothing)\n")
    with pytest.raises(ConfigError, match=r"guide/glossary.md:\d+: WARNING: .*nothing"):
        book.build("default")
    assert old.read_text() == "old"


def test_a_profile_that_was_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(place(tmp_path))
    with pytest.raises(ConfigError, match="profile smoke has no executed notebooks: run `make repro` first"):
        book.build("smoke")
    with pytest.raises(ConfigError, match="unknown profile 'nine'"):
        book.build("nine")


@pytest.mark.parametrize("text, led", [
    ("[a](https://a.b/c.ipynb)", None), ("[a](#b)", None), ("`[a](pgd.ipynb)`", None), ("$f[a](pgd.ipynb)$", None),
    ("```\n[a](none.py)\n```", None), ("![a](none.png)", None), ("[`a`](pgd.ipynb#b)", "[`a`](pgd.ipynb#b)"),
    ("[a](../pipeline/18_tradeoff.ipynb)", "[a](../stages/tradeoff/digits/18_tradeoff.ipynb)"),
    ("[a](../../README.md#b)", "[a](../index.md#b)"), ("[a `b`](../../lib/stats.py)", "a `b`"),
    ("[a](../guide/none.md) and [b](pgd.ipynb)", "a and [b](pgd.ipynb)")])
def test_links(text, led, tmp_path, monkeypatch):
    monkeypatch.chdir(place(tmp_path))
    assert links.rewrite(text, "notebooks/papers/x.ipynb", "papers/x", book.found.look("default")) == (led or text)


def test_a_caption_is_the_picture_in_words():
    cells = [new_markdown_cell("# One?\n\n## Two $x$"), new_code_cell(""), new_markdown_cell("*Not* a caption.")]
    assert notebooks.alternative(cells, 1) == "Figure of: Two x"
    cells[2].source = "*A [caption](b.md)\nof **two** lines.*\n\nAnd more."
    assert notebooks.alternative(cells, 1) == "A caption of two lines."
