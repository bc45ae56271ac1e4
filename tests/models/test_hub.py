"""Downloads from a server of our own: resumed, checked, cached, usable without it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from gliomoe.launch.cli import main
from gliomoe.models import create_model, load_pretrained
from gliomoe.models.checkpoint import CONFIG, WEIGHTS, save_checkpoint
from gliomoe.models.errors import CheckpointError, ModelError
from gliomoe.models.hub import fetch


@dataclass
class Server:
    """A folder over http, with faults to order."""

    folder: Path
    ranges: bool = True
    cut_after: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name, wanted = handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((name, wanted))
        if not (self.folder / name).is_file():
            handler.send_error(404)
            return
        content = (self.folder / name).read_bytes()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        end = len(content)
        if self.cut_after is not None and name == WEIGHTS:
            end = min(end, start + self.cut_after)
        handler.wfile.write(content[start:end])


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("GLIOMOE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    sizes = {"width": 12, "depth": 2, "heads": 2, "hidden": 16, "expert_hidden": 8}
    save_checkpoint(
        tmp_path / "published",
        create_model("gliomoe_tiny", **sizes, stem_hidden=8, patch_size=2),
        training={},
        preprocessing={},
        sequences=["t1"],
        card="# card\n",
    )
    served = Server(tmp_path / "published")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *args) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    http.shutdown()
    http.server_close()
    thread.join()


def same(a: Path, b: Path) -> bool:
    names = {path.name for path in a.iterdir()}
    return names == {path.name for path in b.iterdir()} and all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in names
    )


def test_download_and_cache(server):
    folder = fetch(server.url)
    assert same(folder, server.folder)
    assert server.requests == [(CONFIG, None), (WEIGHTS, None), ("README.md", None)]
    assert fetch(f"{server.url}/") == folder
    assert server.requests[3:] == [(CONFIG, None)]
    assert load_pretrained(server.url).encoder.width == 12


def test_a_cut_download_goes_on_where_it_ended(server):
    size = (server.folder / WEIGHTS).stat().st_size
    server.cut_after = size // 3 + 1
    assert same(fetch(server.url), server.folder)
    ranges = [wanted for name, wanted in server.requests if name == WEIGHTS]
    assert ranges == [None, f"bytes={size // 3 + 1}-", f"bytes={2 * (size // 3 + 1)}-"]


def test_another_call_goes_on_too(server):
    size = (server.folder / WEIGHTS).stat().st_size
    server.cut_after = size // 20
    with pytest.raises(CheckpointError, match="the same command continues"):
        fetch(server.url)
    server.cut_after = None
    server.requests.clear()
    assert same(fetch(server.url), server.folder)
    (wanted,) = (wanted for name, wanted in server.requests if name == WEIGHTS)
    assert wanted is not None


def test_a_server_without_ranges(server):
    server.ranges = False
    server.cut_after = (server.folder / WEIGHTS).stat().st_size // 2
    with pytest.raises(CheckpointError, match="stopped at"):
        fetch(server.url)
    server.cut_after = None
    assert same(fetch(server.url), server.folder)


@pytest.mark.parametrize("longer", [False, True])
def test_wrong_bytes_are_refused_and_not_kept(server, longer):
    path = server.folder / WEIGHTS
    right = path.read_bytes()
    path.write_bytes(right + b"x" if longer else right[:-1] + b"\x01")
    with pytest.raises(CheckpointError):
        fetch(server.url)
    path.write_bytes(right)
    assert same(fetch(server.url), server.folder)


def test_without_a_network_the_cache_serves(server, monkeypatch, caplog):
    folder = fetch(server.url)

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    assert fetch(server.url) == folder
    assert "using the copy" in caplog.text
    with pytest.raises(CheckpointError, match="no route to host"):
        fetch("https://elsewhere.example/model")


def test_a_damaged_cache_is_noticed(server):
    folder = fetch(server.url)
    (folder / "README.md").write_text("changed")
    with pytest.raises(CheckpointError, match="damaged"):
        fetch(server.url)


def test_a_new_revision_is_fetched_beside_the_old(server):
    old = fetch(server.url)
    config = json.loads((server.folder / CONFIG).read_text())
    config["training"] = {"steps": 5}
    (server.folder / CONFIG).write_text(json.dumps(config))
    new = fetch(server.url)
    assert new != old and old.is_dir()


def test_paths(server, tmp_path):
    assert fetch(server.folder) == server.folder
    assert fetch(f"file://{server.folder}", tmp_path / "copy") == tmp_path / "copy"
    assert same(tmp_path / "copy", server.folder)
    (server.folder / "README.md").write_text("changed")
    with pytest.raises(CheckpointError, match="damaged"):
        fetch(server.folder)
    for source in ("nowhere", "ftp://example.org/model"):
        with pytest.raises(ModelError, match="neither a folder"):
            fetch(source)


def test_pull_command(server, tmp_path, capsys):
    out = tmp_path / "out" / "tiny"
    assert main(["pull", server.url, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert same(out, server.folder)
    assert main(["pull", server.url, "--out", str(out)]) == 0
    (out / "README.md").write_text("mine")
    assert main(["pull", server.url, "--out", str(out)]) == 1
    assert (out / "README.md").read_text() == "mine"
    assert main(["pull", f"{server.url}/nothing"]) == 1
    assert "404" in capsys.readouterr().err
    assert main(["pull", str(tmp_path / "none")]) == 2


def test_models_command(capsys):
    assert main(["models", "gliomoe_*", "--json", "True"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["name"] == "gliomoe_tiny"
    assert rows[0]["parameters_active"] < rows[0]["parameters_total"] < 6_000_000
    assert main(["models", "gliomoe_l*"]) == 0
    assert "gliomoe_large" in capsys.readouterr().out
    assert main(["models", "resnet*"]) == 2
    assert "no model matches" in capsys.readouterr().err
