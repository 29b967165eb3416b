"""JupyterLab as `make lab` starts it: it finds the environment's kernel, opens every notebook and runs one."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
import websocket
from conftest import ROOT
from nbformat.sign import NotebookNotary

NOTEBOOKS = sorted(path.relative_to(ROOT / "notebooks").as_posix() for path in ROOT.glob("notebooks/**/*.ipynb")
                   if ".ipynb_checkpoints" not in path.parts)
LAUNCH = 60  # seconds that a busy machine may take


class Server:
    """A running server: its REST interface and its kernels."""

    def __init__(self, folder: Path, port: int, token: str):
        self.folder, self.address, self.token = folder, f"http://127.0.0.1:{port}", token

    def ask(self, path: str, method="GET", /, **body):
        """The answer to a request: what its JSON says, or the bytes of a page."""
        request = urllib.request.Request(f"{self.address}/{path}", json.dumps(body).encode() if body else None,
                                         {"Authorization": f"token {self.token}"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith((b"[", b"{")) else text

    def execute(self, path: str, sources: list[str]) -> list[tuple[str, str]]:
        """Run cells one after another in the kernel of a notebook: of each its printed text and its error."""
        session = self.ask("api/sessions", "POST", path=path, name=path, type="notebook", kernel={"name": "python3"})
        address = f"{self.address.replace('http', 'ws')}/api/kernels/{session['kernel']['id']}/channels"
        channels = websocket.create_connection(f"{address}?token={self.token}", timeout=LAUNCH)
        try:
            return [self._one(channels, source) for source in sources]
        finally:
            channels.close()
            self.ask(f"api/sessions/{session['id']}", "DELETE")

    @staticmethod
    def _one(channels, source: str) -> tuple[str, str]:
        name, text, error = secrets.token_hex(8), "", ""
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False}
        header = {"msg_id": name, "msg_type": "execute_request", "username": "", "session": name, "version": "5.3"}
        channels.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content,
                                  "channel": "shell", "buffers": []}))
        while True:
            message = json.loads(channels.recv())
            kind, said = message["header"]["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != name:
                continue
            if kind == "stream":
                text += said["text"]
            elif kind == "error":
                error = said["evalue"]
            elif kind == "status" and said["execution_state"] == "idle":
                return text, error


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a copy of the project, with no settings of the user's."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("notebooks", "data"):
        shutil.copytree(ROOT / name, folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Server(folder, port, secrets.token_hex(8))
    target = re.search(r"(?m)^lab:.*\n\tjupyter (lab .*)$", (ROOT / "Makefile").read_text())[1]
    words = [sys.executable, "-m", "jupyter", *target.split(), "--no-browser", "--ip=127.0.0.1", f"--port={port}",
             "--ServerApp.port_retries=0", f"--IdentityProvider.token={found.token}", "--allow-root"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")} | {
        f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        end = time.monotonic() + LAUNCH
        while True:
            try:
                found.ask("api/status")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(LAUNCH)


def test_the_page_is_there_and_wants_its_token(server):
    assert b"jupyter-config-data" in server.ask("lab")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        Server(server.folder, int(server.address.rsplit(":", 1)[1]), "wrong").ask("api/contents")


def test_the_kernel_is_of_this_environment_and_finds_the_project(server):
    found = server.ask("api/kernelspecs")
    assert found["default"] == "python3" and "python3" in found["kernelspecs"]
    code = "import sys, os, lib.params; print(sys.executable, os.getcwd(), lib.params.root(), lib.__file__, sep='\\n')"
    [(text, error)] = server.execute("papers/pgd.ipynb", [code])
    assert error == "" and text.split() == [sys.executable, str(server.folder / "notebooks/papers"), str(server.folder),
                                            str(ROOT / "lib/__init__.py")]


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_notebook_opens(path, server):
    content = server.ask(f"api/contents/{path}?content=1&type=notebook")["content"]
    notebook = nbformat.from_dict(content)
    nbformat.validate(notebook)
    assert len(notebook.cells) == len(json.loads((ROOT / "notebooks" / path).read_text())["cells"])
    for cell in notebook.cells:
        cell.metadata.pop("trusted", None)
    assert NotebookNotary(db_file=":memory:").check_cells(notebook)  # nothing in it waits for a reader's trust
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata


def test_a_notebook_runs_from_top_to_bottom_with_its_parameters_edited(server):
    path = "pipeline/02_train.ipynb"
    cells = [cell for cell in server.ask(f"api/contents/{path}")["content"]["cells"] if cell["cell_type"] == "code"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 and 'method = "pgd"' in tagged[0]["source"]
    tagged[0]["source"] = tagged[0]["source"].replace('method = "pgd"', 'method = "trades"')
    said = server.execute(path, [cell["source"] for cell in cells])
    assert [error for _, error in said if error] == []
    assert any("trades, seed 0:" in text for text, _ in said) and any("epoch 1/" in text for text, _ in said)
    assert (server.folder / "results/scratch/train/best.pt").exists()


def test_an_error_in_a_cell_is_seen(server):
    assert server.execute("papers/pgd.ipynb", ["print(1)", "1 / 0"]) == [("1\n", ""), ("", "division by zero")]
