"""The page Results: the main table, the trade-off figure, and every claim with the figure and notebook that show it."""

import re

from lib.book.found import Found
from lib.book.links import near
from lib.book.words import cell, figure, row

# Claims are named by a letter and a number: their title, and the chapter that they belong to.
PAPERS = {"S": ("Attacks and adversarial training", "pgd"), "C": ("Class-wise robustness", "classwise"),
          "A": ("Adversarial weight perturbation", "awp"), "D": ("Dummy classes (DUCAT)", "ducat"),
          "P": ("A gate that looks around (Sparta)", "sparta")}
SIGNS = {"holds": "✔ holds", "fails": "✘ fails", "inconclusive": "? inconclusive"}
MAIN, ENDS = "main table", "best and last"  # what a claim may name that is a table, and so in a notebook only
TABLES = {MAIN: "report", ENDS: "gap"}
COLUMNS = ("clean", "worst case", "worst class", "gap")


def page(there: Found) -> str:
    """The source of the page."""
    parts = ["# Results", _opening(there)]
    for dataset, methods in there.summary.get("results", {}).items():
        parts += [f"## Main table: {dataset}", _main_note(there, dataset), _main(methods, "last"),
                  "### At the checkpoint that validation images chose", _main(methods, "best")]
        if (dataset, "tradeoff") in there.figures:
            parts += [f"## The trade-off: {dataset}", figure(there, dataset, "tradeoff", "results", named=False)]
    for dataset, rows in there.claims.items():
        parts += [f"## Claims: {dataset}", _reading(rows)]
        for letter in sorted({claim["id"][0] for claim in rows}, key=_order):
            parts += _paper(there, dataset, letter, [claim for claim in rows if claim["id"][0] == letter])
    return "\n\n".join(parts) + "\n"


def _opening(there: Found) -> str:
    if not there.summary and not there.claims:
        return (f"Profile `{there.profile}` has no numbers yet: the stage `report` writes them. "
                "`make repro` runs what is missing.")
    made = there.summary.get("made with", {})
    seeds = ", ".join(map(str, made.get("seeds", [])))
    return (f"Profile `{there.profile}`, seeds {seeds}, from `summary.json` and `claims.json` of "
            f"`results/{there.profile}`.")


def _main_note(there: Found, dataset: str) -> str:
    images = {claim["n_images"] for claim in there.claims.get(dataset, []) if claim["id"] == "S1"}  # of all test images
    of = f" of {images.pop()} test images" if images else ""
    return (f"Percent{of}: the mean over seeds, Student's 95 % interval over seeds, and n, the number of seeds. The "
            "worst case counts an image only if none of all attacks fools it; the worst class is the lowest of it. The "
            "gap is the accuracy under the headline attack on training images less that on test images. Networks are "
            "those of the last epoch.")


def _main(methods: dict, checkpoint: str) -> str:
    """A table of all methods at one checkpoint."""
    found = {method: numbers[checkpoint] for method, numbers in methods.items() if checkpoint in numbers}
    first = next(iter(found.values()), {})
    headline = [name for name in first if name not in COLUMNS and "sharpness" not in name]
    names = ["clean", *headline, *COLUMNS[1:]]
    lines = [row(["method", "clean", *(f"under {name}" for name in headline), *COLUMNS[1:], "n"]),
             row(["---"] * (len(names) + 2))]
    for method, numbers in found.items():
        lines.append(row([f"`{method}`", *(_percent(numbers[name]) for name in names), numbers["clean"]["n"]]))
    return "{.main}\n" + "\n".join(lines)


def _percent(value: dict) -> str:
    mean, low, high = (None if value[key] is None else round(100 * value[key], 1) + 0.0 for key in
                       ("mean", "low", "high"))
    return f"{mean:.1f}" + ("" if low is None or high is None else f" [{low:.1f}, {high:.1f}]")


def _order(letter: str) -> tuple:
    return ([*PAPERS, letter].index(letter), letter)


def _reading(rows: list[dict]) -> str:
    return (f"{len(rows)} sentences that the results may contradict, each with a rule in code (`lib/claims`). "
            f"*{SIGNS['holds']}*: the whole 95 % interval lies on the claimed side. *{SIGNS['fails']}*: none of it "
            f"does. *{SIGNS['inconclusive']}*: the interval lies across, or there are fewer than three seeds. "
            "Accuracies, shares and their differences are in points, correlations and losses as they are. n: seeds × "
            "images. The claims are judged one by one, each at its own level: of so many a few may be wrong. A source "
            "that begins with *READ* was read in a paper; thresholds and comparisons of ours are named.")


def _paper(there: Found, dataset: str, letter: str, rows: list[dict]) -> list[str]:
    """The claims of one paper: a title, a way to the chapter, and a table."""
    from lib.claims import shown

    title, chapter = PAPERS.get(letter, ("Other claims", ""))
    known = {page.path.stem: page for page in there.chapters}
    read = [f"Read the chapter: [{known[chapter].title}]({known[chapter].name}.ipynb)"] if chapter in known else []
    lines = [row(["claim", "statement", "verdict", "estimate", "n", "source", "shown by"]), row(["---"] * 7)]
    for claim in rows:
        lines.append(row([f"[{claim['id']}]{{#{anchor(dataset, claim['id'])}}}", cell(claim["statement"]),
                          f"[{SIGNS[claim['verdict']]}]{{.{claim['verdict']}}}", shown(claim),
                          f"{claim['n_seeds']} × {claim['n_images']}", cell(claim["source"]),
                          evidence(there, dataset, claim["figure"])]))
    return [f"(claims-{dataset}-{letter.lower()})=\n### {letter}: {title}", *read, "{.claims}\n" + "\n".join(lines)]


def anchor(dataset: str, claim: str) -> str:
    """The id of a claim on the page."""
    return re.sub(r"[^a-z0-9]+", "-", f"claim-{dataset}-{claim}".lower())


def evidence(there: Found, dataset: str, name: str) -> str:
    """Links to the figure and to the notebook that show a claim; what was not made is named without a link."""
    from lib import captions

    caption = captions.CAPTIONS.get(name)
    notebook = near(there.stage_page(caption.stage if caption else TABLES.get(name, ""), dataset), "results")
    links = [f"[figure {name}](figures.md#{dataset}-{name})" if (dataset, name) in there.figures else
             f"[{name}](#main-table-{dataset})" if name == MAIN and there.summary else name]
    return ", ".join(links + [f"[notebook]({notebook})"] * bool(notebook))
