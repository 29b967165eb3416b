"""Captions: one for each figure of the results, the stage that saves it, and a command that DVC knows."""

import ast
import re
from pathlib import Path

import pytest

from lib import captions, stages
from lib.params import ConfigError

SAVED = re.compile(r"(?:\{d\}-)?([\w-]+)\.svg")


def cells(stage):
    """Code cells of the notebook of a stage."""
    instance = next(i for i in stages.instances() if i.name.startswith(f"{stage}@"))
    return stages.code_cells(Path(instance.notebook))


def saved(stage):
    """Names of the figures that the notebook of a stage saves."""
    return {name for cell in cells(stage) for call in ast.walk(ast.parse(cell)) if isinstance(call, ast.Call)
            and ast.unparse(call.func) == "figures.save" for name in SAVED.findall(ast.unparse(call.args[1]))}


def gathered():
    """What the report copies from other stages: stage -> names."""
    for cell in cells("report"):
        for node in ast.parse(cell).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "gathered":
                return ast.literal_eval(node.value)
    return {}


def test_each_figure_of_the_results_has_a_caption_with_its_stage():
    expected = {name: stage for stage, names in gathered().items() for name in names}
    expected |= dict.fromkeys(saved("report"), "report")
    assert len(expected) == 36
    assert {name: caption.stage for name, caption in captions.CAPTIONS.items()} == expected


def test_the_stage_saves_the_figure():
    for name, caption in captions.CAPTIONS.items():
        assert name in saved(caption.stage), name


def test_the_committed_figures_are_those_with_captions():
    found = {path.name for path in Path("results/default/figures").glob("*.svg")}
    assert found == {f"digits-{name}.svg" for name in captions.CAPTIONS}


def test_the_command_names_an_instance_of_dvc():
    names = {instance.name for instance in stages.instances()}
    for figure in captions.CAPTIONS:
        words = captions.command(figure, "default", "digits").split()
        assert words[:2] == ["dvc", "repro"] and words[2] in names and len(words) == 3
    assert captions.command("networks", "default", "digits") == "dvc repro gap@default-digits"
    assert captions.command("surface", "default", "digits") == "dvc repro report@default"
    assert captions.command("page", "paper", "cifar10") == "dvc repro page@paper-cifar10"
    with pytest.raises(ConfigError, match="unknown figure 'netwroks' in lib/captions.py .did you mean 'networks'"):
        captions.command("netwroks", "default", "digits")


def test_captions_are_sentences_without_results():
    for name, caption in captions.CAPTIONS.items():
        text = caption.text
        assert text.endswith(".") and text[0].isupper() and "  " not in text, name
        assert 1 <= len(re.findall(r"[.?](?= |$)", text)) <= 4, name
        numbers = set(re.findall(r"\d+(?:\.\d+)?", text.replace("95 %", ""))) - {"0"}  # only the level and 0
        assert numbers <= {"confusion": {"0.5"}, "page": {"1", "100"}, "temperature": {"1"}}.get(name, set())
