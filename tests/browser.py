"""A browser that is on the machine, and what a page of a site has to be in it."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1200, "height": 900}
LOOK = """() => ({
  ids: [...document.querySelectorAll('[id]')].map(e => e.id),
  links: [...document.querySelectorAll('a[href], link[href]')].map(e => e.href),
  scripts: [...document.querySelectorAll('script[src]')].map(e => e.src),
  images: [...document.images].map(i => ({src: i.src, alt: i.alt.trim(), width: i.naturalWidth})),
  width: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
  formulas: document.querySelectorAll('.math').length,
  typeset: document.querySelectorAll('mjx-container').length,
  failed: document.querySelectorAll('mjx-merror, .MathJax_Error').length,
  title: document.title, headings: document.querySelectorAll('h1').length})"""
# What a lazy picture would be, had the reader come to it.
LOAD = """() => Promise.all([...document.images].map(
  i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"""


@contextmanager
def browser():
    """A headless browser; the test is skipped where there is none."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        pytest.skip(f"no browser on this machine ({', '.join(NAMES)})")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox"] * root)
        yield opened
        opened.close()


def listen(page) -> list[str]:
    """A list that grows by whatever goes wrong on the page: the console, requests that fail or leave the machine."""
    wrong = []
    page.on("console", lambda m: wrong.append(f"console {m.type}: {m.text}") if m.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:"))
            else wrong.append(f"leaves the machine: {request.url}"))
    return wrong


def inspect(page, path: Path, wrong: list[str]) -> dict:
    """Open one file at phone width, and say what is there (LOOK) with, in `wrong`, all that is wrong with it alone."""
    wrong.clear()
    page.goto(path.as_uri())
    page.evaluate(LOAD)
    if page.query_selector(".math"):
        page.wait_for_function("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("() => MathJax.startup.promise")
    seen = page.evaluate(LOOK)
    found = [*wrong]
    found += [f"picture does not load: {i['src']}" for i in seen["images"] if not i["width"]]
    found += [f"picture without words: {i['src']}" for i in seen["images"] if len(i["alt"]) < 4]
    if seen["width"] > PHONE["width"]:
        found.append(f"scrolls sideways: {seen['width']} px wide")
    if seen["typeset"] < seen["formulas"] or seen["failed"]:
        found.append(f"{seen['typeset']} of {seen['formulas']} formulas are typeset, {seen['failed']} with an error")
    if seen["headings"] != (path.name != "search.html") or not seen["title"]:
        found.append(f"{seen['headings']} headings of first rank, title {seen['title']!r}")
    return {**seen, "wrong": found}


def broken(site: Path, seen: dict[Path, dict]) -> list[str]:
    """Links of inspected pages that lead nowhere: to a file that is not in the site, or an anchor that is not there."""
    wrong = []
    for path, page in seen.items():
        for link in {*page["links"], *page["scripts"]}:
            parts = urlsplit(link)
            target = Path(unquote(parts.path))
            if parts.scheme in ("http", "https", "data"):
                continue
            if parts.scheme != "file" or not target.is_file() or not target.is_relative_to(site):
                wrong.append(f"{path.name}: {link}")
            elif parts.fragment and target in seen and unquote(parts.fragment) not in seen[target]["ids"]:
                wrong.append(f"{path.name}: {link} (no such anchor)")
    return wrong


def every(site: Path, opened) -> dict[Path, dict]:
    """All pages of a site, inspected."""
    page = opened.new_page(viewport=PHONE)
    wrong = listen(page)
    seen = {path: inspect(page, path, wrong) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    page.close()
    return seen


def search(opened, site: Path, word: str) -> tuple[list[str], list[str]]:
    """The titles that the site's own search finds for a word that is typed in, and what went wrong meanwhile."""
    page = opened.new_page(viewport=DESK)
    wrong = listen(page)
    page.goto((site / "index.html").as_uri())
    page.fill("input[name=q]", word)
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("#search-results p.search-summary:not(:empty)")
    page.wait_for_function("() => /found|did not match/.test(document.querySelector('.search-summary').textContent)")
    titles = [link.inner_text() for link in page.query_selector_all("#search-results ul.search a")]
    page.close()
    return titles, wrong
