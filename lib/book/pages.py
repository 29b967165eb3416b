"""The pages that join the others: the front page, Figures, Stages, and the guide."""

import json
from collections import Counter

from lib.book.found import CHAPTERS, Found, Page
from lib.book.links import near, rewrite
from lib.book.results import PAPERS, SIGNS
from lib.book.words import figure, row
from lib.params import root

TITLE = "Adversarial training: a reproducible companion"


def front(there: Found) -> str:
    """The first page: what this is, how to read it, what came out, and the contents."""
    claims = sum(map(len, there.claims.values()))
    counted = f"{claims} claims, each judged by a rule in code, " if claims else ""
    stages = sum(map(len, there.stages.values()))
    parts = [f"# {TITLE}", f"This site holds what profile `{there.profile}` computed: {len(there.chapters)} chapters, "
             f"{counted}{len(there.figures)} figures, and the {stages} executed notebooks behind every number. "
             "The chapters are about adversarial examples and about four papers on adversarial training. Each method "
             "is derived in small cells next to its equation and compared with the library.", _missing(there)]
    parts += [figure(there, dataset, name, "index", named=False) for dataset, name in there.figures
              if name == "tradeoff"]
    parts += ["## How to read it", _how(there), *_verdicts(there), "## Contents", *_contents(there)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _missing(there: Found) -> str:
    if not there.missing:
        return ""
    shown = ", ".join(f"`{name}`" for name in there.missing[:8]) + " and others" * (len(there.missing) > 8)
    return f"```{{note}}\n{len(there.missing)} notebooks of this profile were not run yet: {shown}.\n```"


def _how(there: Found) -> str:
    chapters = " → ".join(f"[{page.path.stem}]({page.name}.ipynb)" for page in there.chapters)
    lines = [f"**To learn the methods**, read the chapters in this order: {chapters}. The first one needs PyTorch only."
             ] if chapters else []
    lines.append("**To see what was found**, go to [Results](results.md): the main table and all claims. Each claim "
                 "leads to the figure and to the notebook that show it. [Figures](figures.md) has all figures with "
                 "the commands that draw them again.")
    if there.guides:
        pages = ", ".join(f"[{_heading(path)}](guide/{path.name})" for path in there.guides)
        lines.append(f"**To look something up**, there is the guide: {pages}.")
    lines.append("**To check a number**, open its notebook under [Stages](stages/index.md). Code that only draws "
                 "is folded away; a click opens it.")
    return "\n".join(f"- {line}" for line in lines)


def _verdicts(there: Found) -> list[str]:
    """How many claims hold, by paper."""
    tables = []
    for dataset, rows in there.claims.items():
        lines = [row(["claims", *SIGNS.values()]), row(["---", *["---:"] * len(SIGNS)])]
        for letter, (title, _) in PAPERS.items():
            count = Counter(claim["verdict"] for claim in rows if claim["id"][0] == letter)
            if count:
                slug = f"results.md#claims-{dataset}-{letter.lower()}"
                lines.append(row([f"[{letter}: {title}]({slug})", *(count[verdict] for verdict in SIGNS)]))
        tables += [f"## Verdicts: {dataset}", "\n".join(lines)]
    return tables


def _contents(there: Found) -> list[str]:
    """The trees of the sidebar."""
    def tree(caption: str, names: list[str], *options: str) -> str:
        """One of them."""
        return "\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1", *options, "", *names, "```"])

    groups = [("Chapters", [page.name for page in there.chapters]), ("Results", ["results", "figures"]),
              ("Guide", [f"guide/{path.stem}" for path in there.guides]), ("Executed notebooks", ["stages/index"])]
    return [tree(caption, names) for caption, names in groups if names]


def figures(there: Found) -> str:
    """All figures, in the order of the stages that draw them."""
    from lib import captions

    order = list(there.stages)

    def rank(name: str) -> tuple:
        """Where a figure stands."""
        stage = captions.CAPTIONS[name].stage if name in captions.CAPTIONS else ""
        return (order.index(stage) if stage in order else len(order), name)

    parts = ["# Figures", "Each figure of the results with its caption and the command that computes it again. "
             "Figures inside the notebooks are in the notebooks." if there.figures else
             f"Profile `{there.profile}` has no figures yet: the stage `report` gathers them."]
    for dataset in sorted({dataset for dataset, _ in there.figures}):
        parts.append(f"## {dataset}")
        for name in sorted((name for d, name in there.figures if d == dataset), key=rank):
            parts += [f"### {name}", figure(there, dataset, name, "figures")]
    return "\n\n".join(parts) + "\n"


def stages(there: Found) -> str:
    """The list of stages, in the order of dvc.yaml."""
    lines = [row(["stage", "question", "notebooks"]), row(["---", "---", "---:"])]
    trees = []
    for stage, pages in there.stages.items():
        page = there.stage_page(stage)
        lines.append(row([f"[{stage}]({near(page, 'stages/index')})", pages[0].title, len(pages)]))
        trees.append(f"{stage} <{page.removeprefix('stages/')}>")
    toctree = ["```{toctree}", ":hidden:", "", *trees, "```"]
    missing = [name for name in there.missing if not name.startswith(f"{CHAPTERS}@")]
    late = ["", "## Not run yet", "", *(f"- `{name}`" for name in missing)] if missing else []
    return "\n".join(["# Stages", "", "What `make repro` runs, in order; each stage is a notebook that is executed for "
                      "each data set, method and seed that it has. The chapters have pages of their own.", "",
                      "\n".join(lines), "", *toctree, *late]) + "\n"


def stage_pages(there: Found) -> dict[str, str]:
    """A page for each stage with several notebooks, by name: what it asks, and its notebooks."""
    found = {}
    for stage, pages in there.stages.items():
        if there.stage_page(stage).endswith("/index"):
            found[f"stages/{stage}/index"] = _stage(there, stage, pages)
    return found


def _stage(there: Found, stage: str, pages: list[Page]) -> str:
    name = f"stages/{stage}/index"
    first = "".join(json.loads(pages[0].path.read_text())["cells"][0]["source"]).partition("\n")[2].strip()
    source = f"notebooks/pipeline/{pages[0].path.name}"
    parts = [f"# {stage}", f"**{pages[0].title}**", rewrite(first, source, name, there)]
    for dataset in dict.fromkeys(page.about[0] for page in pages):
        of = [page for page in pages if page.about[0] == dataset]
        methods = {page.about[1:2]: [p for p in of if p.about[1:2] == page.about[1:2]] for page in of}
        lines = [row(["method", "notebooks"]), row(["---", "---"])]
        for method, each in methods.items():
            links = (f"[{p.words.split(', ')[-1]}]({near(p.name, name)})" for p in each)
            lines.append(row([f"`{''.join(method) or dataset}`", " · ".join(links)]))
        parts += [f"## {dataset}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def guides(there: Found) -> dict[str, str]:
    """The pages of the guide, by name, with links into the site."""
    return {f"guide/{path.stem}": rewrite(path.read_text(), path.relative_to(root()).as_posix(),
                                          f"guide/{path.stem}", there) for path in there.guides}


def _heading(path) -> str:
    lines = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    return lines[0].removeprefix("# ") if lines else path.stem
