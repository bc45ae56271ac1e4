"""A web server with byte ranges that costs next to nothing: what limits a reader is the reader.

    with serve(folder) as url: ...                      in a process of its own
    python tests/benchmarks/range_server.py FOLDER      until interrupted; --measure reads from it

One thread a connection, kept alive; files go from the page cache to the socket by `sendfile`.
"""

import argparse
import re
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

_REQUEST = re.compile(rb"(GET|HEAD) (\S+) HTTP/1\.1\r\n")
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d*)\r\n", re.IGNORECASE)


class _Handler(socketserver.BaseRequestHandler):
    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the reader has enough
            self.answer_all()

    def answer_all(self) -> None:
        text = b""
        while True:
            while b"\r\n\r\n" not in text:
                more = self.request.recv(65536)
                if not more:
                    return
                text += more
            head, text = text.split(b"\r\n\r\n", 1)
            self.answer(head + b"\r\n")

    def answer(self, head: bytes) -> None:
        found = _REQUEST.match(head)
        if found is None:
            return self.start("400 Bad Request", 0)
        path = (self.server.folder / unquote(found[2].decode()).lstrip("/")).resolve()
        if not (path.is_relative_to(self.server.folder) and path.is_file()):
            return self.start("404 Not Found", 0)
        with path.open("rb") as file:
            size = path.stat().st_size
            start, stop, status, more = 0, size, "200 OK", ""
            if part := _RANGE.search(head):
                start, stop = int(part[1]), min(int(part[2] or size) + 1, size)
                if start >= size:
                    return self.start("416 Range Not Satisfiable", 0, f"bytes */{size}")
                status, more = "206 Partial Content", f"bytes {start}-{stop - 1}/{size}"
            tag = f"{path.stat().st_mtime_ns:x}-{size:x}"
            self.start(status, stop - start, more, tag)
            if found[1] == b"GET" and stop > start:
                self.request.sendfile(file, start, stop - start)
        return None

    def start(self, status: str, length: int, part: str = "", tag: str = "") -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Accept-Ranges: bytes"]
        lines += [f"Content-Range: {part}"] if part else []
        lines += [f'ETag: "{tag}"'] if tag else []
        self.request.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder.resolve()


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The URL of a folder, served by a process that ends with the block."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def measure(folder: Path, seconds: float = 5.0, piece: int = 16 << 20) -> float:
    """MB/s that one `obstore` reader gets from the server in pieces of the folder's files."""
    import obstore
    from obstore.store import from_url

    with serve(folder) as url:
        store = from_url(url, client_options={"allow_http": True})
        read, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            for path in (path for path in sorted(folder.iterdir()) if path.is_file()):
                size = path.stat().st_size
                for start in range(0, size, piece):
                    part = {"range": (start, min(start + piece, size))}
                    read += len(obstore.get(store, path.name, options=part).bytes())
        return read / (time.monotonic() - begun) / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measure", action="store_true", help="read from it, print MB/s")
    options = parser.parse_args()
    if options.measure:
        print(f"{measure(options.folder):.0f} MB/s")
    else:
        with _Server(options.folder) as server:
            print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
            server.serve_forever()
