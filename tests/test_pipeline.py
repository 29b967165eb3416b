"""The whole pipeline, tiny, in a clone: what the README promises of `dvc repro`."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def call(clone, *command, code=0):
    """Standard output and error of a command in the clone, which has to end with this exit code."""
    done = subprocess.run(command, cwd=clone, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == code, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def seconds(*command):
    """The processor's seconds that a command takes, and what it starts, whatever else runs beside it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = call(ROOT, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, output


def ran(output):
    """The stages that a `dvc repro` ran, without their matrix items."""
    return {name.split("@")[0] for name in re.findall(r"Running stage '([^']+)'", output)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh copy of the tree after `python -m lib smoke`, which takes no longer than it should on this machine."""
    place = tmp_path_factory.mktemp("clone") / "companion"
    imports, _ = seconds(sys.executable, "-c", "import lib.evaluate, lib.figures, lib.train")
    smoke, output = seconds(sys.executable, "-m", "lib", "smoke", str(place))
    assert "figures:   results/smoke/figures/" in output and "stage 38/38  report@smoke" in output
    assert smoke < 230 * imports  # 125 on an idle machine
    return place


def test_every_result_is_there(clone):
    smoke = clone / "results/smoke"
    names = {"attacks", "learning", "tradeoff", "landscape", "surface", "page", "removal", "temperature", "balance",
             "classes", "methods", "along", "norms", "peak", "confusion", "consistency", "gain",
             "trajectory", "networks", "perturbation", "weights",
             "protocols", "sweeps", "forks", "overlap", "always", "transfer",
             "ladder", "activations", "variants", "curves", "strength", "gates", "mechanism", "ablations", "transplant"}
    assert {p.name for p in (smoke / "figures").iterdir()} == {f"digits-{name}.svg" for name in names}
    results = json.loads((smoke / "summary.json").read_text())["results"]["digits"]
    assert set(results) == {"standard", "pgd", "pgd+awp", "pgd+balanced", "pgd+ducat"}
    sharp = {"sharpness", "test sharpness"}
    assert set(results["pgd"]["last"]) == {"clean", "pgd-20", "worst case", "worst class", "gap"} | sharp
    metric = json.loads((smoke / "metrics/digits/pgd.json").read_text())
    assert metric["clean"] == results["pgd"]["last"]["clean"]["mean"]
    assert len(list(smoke.rglob("*.ipynb"))) == 38
    claims = json.loads((smoke / "claims.json").read_text())["digits"]
    ids = "S1 S2 S3 S4 C1 C2a C4a C4b C5b C7 C6 C6a C6b C8-pgd C8m-pgd C9-pgd C10a C10b C10c C10d "
    ids += "A5-pgd A5w-pgd A3a A3b A1a A1b A1c A4a A4b A4c A5t A5t-strong A9b A6a A6b A7a A7b A7c A8a A8b A8c A8d "
    ids += "D1 D1c D1p D1r D5-pgd D5s D5t D9a D9b D9c D10p D10 D11 D12a D12b D12c "
    ids += "P1a-map P1a-pooled P1a-sparta-map P1a-sparta-pooled P1s P1x P2 P2-relu P2-silu P3-relu P3 "
    ids += " ".join(f"P{n}{c}" for n in ("4", "5", "5h") for c in ("", "+silu", "+random", "+standard"))
    ids += " P6 P7w P7m P7d"
    assert [row["id"] for row in claims] == ids.split()
    assert {row["verdict"] for row in claims} == {"inconclusive"}  # one seed
    checks = pd.read_csv(smoke / "attack/digits/pgd/0/alarms.csv")
    assert set(checks.checkpoint) == {"best", "last"} and {"state", "loss", "black-box"} <= set(checks.check)
    assert json.loads((smoke / "summary.json").read_text())["alarms"]["digits"]["checks"] > 50
    parity = pd.read_csv(smoke / "parity/digits/parity.csv", index_col="attack")
    assert parity.loc["APGD-T", "fooled by ours only"] + parity.loc["APGD-T", "by theirs only"] <= 1


def test_executed_notebooks_hold_no_error_and_no_warning(clone):
    for path in (clone / "results/smoke").rglob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", ()):
                assert output.output_type != "error" and output.get("name") != "stderr", f"{path.name}: {output}"


def test_dvc_shows_something_worth_looking_at(clone):
    assert "up to date" in call(clone, "dvc", "status")
    assert "report@smoke" in call(clone, "dvc", "dag")
    shown = call(clone, "dvc", "metrics", "show")
    assert "worst class" in shown and "digits/pgd.json" in shown
    call(clone, "dvc", "plots", "show")
    page = (clone / "dvc_plots/index.html").read_text()
    assert page.count("<img") == 36 and "://" not in page.replace("http://www.w3.org", "")


def test_nothing_left_to_do_takes_seconds(clone):
    began = time.monotonic()
    assert ran(call(clone, "dvc", "repro")) == set()
    assert time.monotonic() - began < 15


def test_prose_reruns_nothing_and_figures_only_redraw(clone, edit):
    edit(clone / "notebooks/pipeline/02_train.ipynb", "How is a network trained", "In what way is a network trained")
    assert ran(call(clone, "dvc", "repro")) == {"code"}
    edit(clone / "lib/figures/style.py", '"grid.alpha": 0.3', '"grid.alpha": 0.5')
    before = (clone / "results/smoke/figures/digits-classes.svg").read_bytes()
    assert ran(call(clone, "dvc", "repro")) == {"code", "data", "classwise", "relations", "page", "gap", "tradeoff",
                                             "gating", "papers", "report"}
    assert (clone / "results/smoke/figures/digits-classes.svg").read_bytes() != before
    edit(clone / "lib/figures/style.py", '"grid.alpha": 0.5', '"grid.alpha": 0.3')
    edit(clone / "notebooks/pipeline/02_train.ipynb", "In what way is a network trained", "How is a network trained")
    output = call(clone, "dvc", "repro")
    assert "is cached - skipping run" in output
    assert (clone / "results/smoke/figures/digits-classes.svg").read_bytes() == before


def test_a_second_run_from_scratch_gives_the_same_bytes(clone):
    """Training, attack, landscape and report again, without DVC's memory of the first run."""
    smoke = clone / "results/smoke"
    files = [p for p in smoke.rglob("*") if p.is_file()]
    first = {p: p.read_bytes() for p in files}
    lock = (clone / "dvc.lock").read_text()
    for stage in ("train@smoke-digits-pgd-0", "attack@smoke-digits-pgd-0", "landscape@smoke-digits-pgd-0",
                  "report@smoke"):
        call(clone, "dvc", "repro", "--force", "--single-item", stage)
    assert [p for p in files if p.read_bytes() != first[p]] == []
    assert (clone / "dvc.lock").read_text() == lock


def test_jobs_of_two_workers_give_the_bytes_of_the_first_run(clone):
    """A training and an attack again, as jobs, without DVC's memory of the first run."""
    again = ["train@smoke-digits-standard-0", "attack@smoke-digits-standard-0"]
    files = {p: p.read_bytes() for p in (clone / "results/smoke").rglob("*") if p.is_file()}
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    left = {name: entry for name, entry in lock["stages"].items() if name not in again}
    (clone / "dvc.lock").write_text(yaml.safe_dump({**lock, "stages": left}, sort_keys=False))
    (clone / ".dvc/cache/runs").rename(clone / ".dvc/cache/runs-before")
    output = call(clone, sys.executable, "-m", "lib", "repro", "2", "local")
    assert re.findall(r"  (\S+)  job \d+ of local", output) == again
    assert yaml.safe_load((clone / "dvc.lock").read_text()) == lock
    assert [p for p, content in files.items() if p.read_bytes() != content] == []
    shutil.rmtree(clone / ".dvc/cache/runs")
    (clone / ".dvc/cache/runs-before").rename(clone / ".dvc/cache/runs")


def test_params_edited_while_a_stage_runs_stay_out_of_its_result(clone, edit):
    """The result is filed under the numbers that it was made with, and the edit is seen by the next `dvc repro`."""
    edit(clone / "params.yaml", "train: {epochs: 4}", "train: {epochs: 40}")
    command = ["dvc", "repro", "train@smoke-digits-standard-0"]
    process = subprocess.Popen(command, cwd=clone, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "epoch 1/40" in line:
            edit(clone / "params.yaml", "train: {epochs: 40}", "train: {epochs: 4}")
    assert process.wait() == 0
    history = clone / "results/smoke/train/digits/standard/0/history.csv"
    assert len(history.read_text().splitlines()) == 41
    assert "code@smoke" in call(clone, "dvc", "status")
    assert "train" in call(clone, "dvc", "repro", "train@smoke-digits-standard-0")
    assert len(history.read_text().splitlines()) == 5


def test_ctrl_c_loses_only_the_running_stage(clone, edit):
    edit(clone / "params.yaml", "train: {epochs: 4}", "train: {epochs: 3}")
    process = subprocess.Popen(["dvc", "repro", "attack@smoke-digits-pgd-0"], cwd=clone, env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("  attack 1/"):
            os.killpg(process.pid, 2)
    assert process.wait() != 0
    assert ran("".join(lines)) == {"code", "train", "attack"}
    assert ran(call(clone, "dvc", "repro", "attack@smoke-digits-pgd-0")) == {"attack"}


def test_an_experiment_changes_a_knob_and_is_listed(clone):
    call(clone, "git", "add", "-A")
    call(clone, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "smoke")
    output = call(clone, "dvc", "exp", "run", "-n", "cold", "-S", "knobs.pgd.warmup=0.0", "train@smoke-digits-pgd-0")
    assert ran(output) == {"code", "train"}
    shown = call(clone, "dvc", "exp", "show", "--csv", "--only-changed")
    assert "knobs.pgd.warmup" in shown and "cold" in shown
    assert re.search(r"knobs.pgd.warmup\s+0.3\s+0.0", call(clone, "dvc", "params", "diff"))
    call(clone, "git", "checkout", "-q", "params.yaml", "dvc.lock")


def test_an_error_in_params_is_one_line_before_anything_runs(clone, edit):
    edit(clone / "params.yaml", "    warmup: 0.3", "    warm_up: 0.3")
    output = call(clone, "dvc", "repro", code=255)
    assert "error: unknown knob 'warm_up' in knobs.pgd of params.yaml (did you mean 'warmup'?)" in output
    assert ran(output) == {"code"}
    edit(clone / "params.yaml", "    warm_up: 0.3", "    warmup: 0.3")
