"""Servers on the loopback: a web server and S3, behind a door that can be told to misbehave."""

import hashlib
import http.client
import logging
import re
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gliomoe.data_shards.storage.config import StorageConfig


class Door(ThreadingHTTPServer):
    """Answers from a folder or from another server.

    `faults` maps the name of a file to what happens to its next requests, one after another: a
    status, "cut" (half of the body), "stall" (half of it, then nothing) or "slow" (bit by bit).
    What is set in `always` happens to every request.
    """

    daemon_threads = True

    def __init__(self, folder=None, port=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.port = folder, port
        self.ranges = True
        self.faults, self.always = defaultdict(list), {}
        self.seen = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, name):
        """Requests for a file."""
        return sum(path.endswith(name) for path in self.seen)

    def fault(self, path):
        name = path.rpartition("/")[2]
        return self.faults[name].pop(0) if self.faults[name] else self.always.get(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.seen.append(path)
        fault = self.server.fault(path)
        if isinstance(fault, int):
            return self.answer(fault, {}, b"")
        forward = self.from_folder if self.server.folder else self.from_server
        return self.answer(*forward(), fault)

    do_HEAD = do_PUT = do_GET

    def from_folder(self):
        path = Path(self.server.folder) / self.path.lstrip("/")
        if not path.is_file():
            return 404, {}, b""
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not (wanted and self.server.ranges):
            return 200, headers, content
        part = content[int(wanted[1]) : int(wanted[2] or len(content)) + 1]
        last = int(wanted[1]) + len(part) - 1
        headers["Content-Range"] = f"bytes {wanted[1]}-{last}/{len(content)}"
        return 206, headers, part

    def from_server(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        behind = http.client.HTTPConnection("127.0.0.1", self.server.port)
        behind.request(self.command, self.path, body, dict(self.headers))
        with behind.getresponse() as response:
            names = {name.title(): value for name, value in response.getheaders()}
            return response.status, names | {"ETag": names.get("Etag", "")}, response.read()

    def answer(self, status, headers, body, fault=None):
        self.send_response(status)
        for name in ("ETag", "Last-Modified", "Content-Range"):
            if name in headers:
                self.send_header(name, headers[name])
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "slow":
            for start in range(0, len(body), len(body) // 10 + 1):
                self.wfile.write(body[start : start + len(body) // 10 + 1])
                time.sleep(0.02)
            return
        self.wfile.write(body[: len(body) // 2] if fault in ("cut", "stall") else body)
        if fault == "stall":
            time.sleep(5)
        if fault:
            self.close_connection = True


@pytest.fixture
def storage(tmp_path):
    """Small blocks, few and quick attempts, a cache folder of the test's own."""
    return StorageConfig(
        cache=tmp_path / "cache", block_mb=0.0625, retries=2, pause=0.01, timeout=20
    )


@pytest.fixture
def web(tmp_path):
    """A web server of the folder that holds the test's sets."""
    server = Door(folder=tmp_path)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def moto():
    """The port of an S3 server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def bucket(moto, monkeypatch):
    """A door to S3 with an empty bucket `data`, found through the usual variables."""
    server = Door(port=moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    connection = http.client.HTTPConnection("127.0.0.1", moto)
    for method, path in (("POST", "/moto-api/reset"), ("PUT", "/data")):
        connection.request(method, path)
        assert connection.getresponse().read() is not None
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["web", "s3"])
def served(request, shard_set):
    """A set of seven studies on a server: (door, URL, folder)."""
    folder, _ = shard_set
    if request.param == "web":
        door = request.getfixturevalue("web")
        return door, f"{door.url}/{folder.name}", folder
    door = request.getfixturevalue("bucket")
    upload(door.port, folder)
    return door, "s3://data/sets/seven", folder


def upload(port, folder):
    """Put a set into the bucket, behind the door."""
    from obstore import put
    from obstore.store import from_url

    store = from_url(
        "s3://data/sets/seven",
        config={"endpoint": f"http://127.0.0.1:{port}"},
        client_options={"allow_http": True},
    )
    for path in folder.iterdir():
        put(store, path.name, path)
