"""The rules that notebooks and modules keep."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*/*.ipynb"))
MODULES = sorted(ROOT.glob("lib/**/*.py"))


def cells(path, kind="code"):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_title_is_a_question(self, path):
        title = "".join(cells(path, "markdown")[0]["source"]).splitlines()[0]
        assert title.startswith("# ") and title.endswith("?")

    def test_cells_are_short(self, path):
        lengths = sorted(sum(bool(line.strip()) for line in c["source"]) for c in cells(path))
        assert lengths[-1] <= 25 and lengths[len(lengths) // 2] <= 8

    def test_parameters_are_literals_and_start_small(self, path):
        tagged = [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1 and cells(path)[0] is not None
        values = {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse("".join(tagged[0]["source"])).body}
        assert values["profile"] == "smoke" and set(values) <= {"profile", "dataset", "method", "seed"}

    def test_outputs_are_kept_only_where_they_are_compared(self, path):
        for cell in cells(path):
            compared = "nbval-check-output" in cell["metadata"].get("tags", [])
            assert bool(cell["outputs"]) == compared == bool(cell["execution_count"])

    def test_no_output_differs_from_run_to_run(self, path):
        code = "\n".join("".join(c["source"]) for c in cells(path))
        assert ".style" not in code and "tqdm" not in code and "time." not in code

    def test_kernel_is_the_environments_own(self, path):
        assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "papers"], ids=lambda p: p.stem)
def test_a_chapter_ends_as_promised(path):
    text = "\n".join("".join(c["source"]) for c in cells(path, "markdown"))
    order = [text.index(f"\n## {title}") for title in
             ("What to remember", "Differs from the paper", "What we could not check", "Exercises")]
    assert order == sorted(order)
    words = sum(len("".join(c["source"]).split()) for c in cells(path, "markdown"))
    lines = sum(sum(bool(line.strip()) for line in c["source"]) for c in cells(path))
    assert words / lines >= 5  # a chapter is to be read
    code = "\n".join("".join(c["source"]) for c in cells(path))
    assert code.count("BEGIN SOLUTION") == code.count("END SOLUTION") >= 3


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_small_and_documented(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    tree = ast.parse(text)
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert all(n.end_lineno - n.lineno < 40 for n in functions)
    public = [n for owner in (tree, *classes) for n in owner.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    for node in public:
        if not node.name.startswith("_") and node.name != "forward":
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_the_science_is_below_the_story():
    """Dependencies point one way; figures know arrays only; importing lib loads nothing."""
    def imports(name):
        package = ROOT / "lib" / name
        files = package.glob("*.py") if package.is_dir() else [package.with_suffix(".py")]
        nodes = [n for file in files for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
        found = {a.name for n in nodes if n.module == "lib" for a in n.names}
        return found | {n.module.split(".")[1] for n in nodes if (n.module or "").startswith("lib.")} - {name}
    assert imports("figures") == imports("params") == imports("stats") == set()
    assert imports("config") == {"params", "sections"} and imports("stages") == {"config", "params"}
    assert imports("notebook") == {"config", "params", "processes", "stages"} and imports("processes") == {"params"}
    assert imports("cluster") == {"params", "processes"} and imports("parallel") <= {"params", "processes", "stages"}
    assert imports("world") == {"params"} and imports("compute") == {"config", "layers", "params"}
    assert imports("attacks") <= {"compute", "config", "params", "world"} and imports("activations") == {"params"}
    assert imports("models") == {"activations", "config", "layers", "params", "residual"}
    assert imports("data") == {"augment", "config", "params", "world"}
    assert imports("sources") == {"config", "data", "params"}
    assert not imports("train") & {"evaluate", "landscape", "figures", "sources"}
    assert imports("claims") <= {"activations", "adaptive", "balance", "classwise", "config", "evaluate", "forks",
                                 "gating", "overfitting", "perturbation", "published", "removal", "stats",
                                 "temperature", "tradeoff"}
    assert imports("classwise") == {"stats"} and imports("captions") == {"params"}
    assert imports("book") == {"captions", "claims", "course", "params", "stages"}
    assert imports("course") == {"config", "params"}
