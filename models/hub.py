"""Checkpoints from a path or a web address: resumed, checked by sha256, cached.

Notable: `config.json` comes first and names the sha256 of every other file, so a download is
checked against it and cached under the hash of that configuration. Bytes that are already here
are not fetched again, and without a network the newest cached revision serves.
"""

import hashlib
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gliomoe.models.checkpoint import (
    CONFIG,
    load_encoder,
    parse_config,
    read_config,
    verify_files,
    whole_folder,
)
from gliomoe.models.errors import CheckpointError, ModelError
from gliomoe.models.model import Model
from gliomoe.models.registry import create_model

CACHE_VARIABLE = "GLIOMOE_CACHE"
TIMEOUT_S = 30
ATTEMPTS = 5
LARGEST_CONFIG = 1 << 20
CHUNK = 1 << 20

logger = logging.getLogger(__name__)


def load_pretrained(source: str | Path, tasks: Sequence[str] = (), **overrides: Any) -> Model:
    """A model with the encoder of a checkpoint and new heads.

    Args:
        source: As `fetch` takes it.
        tasks: Tasks of the new heads.
        **overrides: Settings of the encoder that differ from the checkpoint's.

    Raises:
        CheckpointError: If the checkpoint cannot be fetched, is damaged or does not fit.
        ModelError: If a task or setting is unknown.
    """
    folder = fetch(source)
    settings = read_config(folder)["model"]
    model = create_model(settings["name"], tasks, **{**settings["overrides"], **overrides})
    load_encoder(model, folder)
    return model


def fetch(source: str | Path, out: Path | None = None) -> Path:
    """A checkpoint folder on this machine, every file checked.

    Args:
        source: Path of a folder, or http(s) address of one. Downloads are kept in the folder
            that `GLIOMOE_CACHE` names, by default `~/.cache/gliomoe`.
        out: Also copy the checkpoint to this folder, and return it.

    Raises:
        CheckpointError: If there is no checkpoint, a file is damaged, or `out` holds another.
        ModelError: If `source` is neither the folder of a checkpoint nor an http(s) address.
    """
    text = str(source)
    if text.startswith(("https://", "http://")):
        folder = _download(text.rstrip("/"))
    else:
        folder = Path(text.removeprefix("file://"))
        if "://" in str(folder) or not folder.is_dir():
            raise ModelError(f"{text}: neither a folder nor an http(s) address of one")
        if not (folder / CONFIG).is_file():
            raise ModelError(
                f"{text}: no checkpoint, it has no {CONFIG}; gliomoe export "
                "makes one of a pretraining run"
            )
        verify_files(folder, read_config(folder))
    if out is None or out.resolve() == folder.resolve():
        return folder
    with whole_folder(out) as temporary:
        for name in (CONFIG, *read_config(folder)["files"]):
            shutil.copyfile(folder / name, temporary / name)
    return out


def cache_folder() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/gliomoe").expanduser()


def _download(url: str) -> Path:
    """The cached folder of an address, completed by what is missing."""
    revisions = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        with _open(f"{url}/{CONFIG}") as response:
            content = response.read(LARGEST_CONFIG)
    except CheckpointError as error:
        cached = [path for path in revisions.glob("*") if path.suffix != ".part"]
        if not cached or not isinstance(error.__cause__, OSError):
            raise
        newest = max(cached, key=lambda path: path.stat().st_mtime)
        logger.warning("%s; using the copy in %s", error, newest)
        verify_files(newest, read_config(newest))
        return newest
    config = parse_config(content, f"{url}/{CONFIG}")
    folder = revisions / hashlib.sha256(content).hexdigest()[:16]
    if folder.is_dir():
        verify_files(folder, config)
        return folder
    part = folder.with_suffix(".part")
    part.mkdir(parents=True, exist_ok=True)
    for name, facts in config["files"].items():
        _fetch_file(f"{url}/{name}", part / name, facts["size"])
        if not _whole(part / name, facts["sha256"]):
            (part / name).unlink()
            raise CheckpointError(f"{url}/{name}: its sha256 is not the one that {CONFIG} names")
    (part / CONFIG).write_bytes(content)
    os.replace(part, folder)
    return folder


def _fetch_file(url: str, path: Path, size: int) -> None:
    """Complete a file to `size` bytes, going on where it ends."""
    path.touch()
    with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
        for _ in range(ATTEMPTS):
            start = path.stat().st_size
            if start > size:
                path.write_bytes(b"")
                continue
            bar.update(start - bar.n)
            if start == size:
                return
            _append(url, path, start, size, bar)
    found = path.stat().st_size
    raise CheckpointError(f"{url}: stopped at {found} of {size} bytes; the same command continues")


def _append(url: str, path: Path, start: int, size: int, bar: "tqdm[Any]") -> None:
    """Append what one response brings, at most to one byte beyond `size`."""
    with _open(url, start) as response, path.open("ab") as file:
        if start and response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)  # the server knows no ranges and begins anew
            bar.update(-start)
            start = 0
        while start <= size and (chunk := _read_some(response, size + 1 - start)):
            file.write(chunk)
            bar.update(len(chunk))
            start += len(chunk)


def _read_some(response: http.client.HTTPResponse, most: int) -> bytes:
    """The next bytes; a broken connection reads as the end, the caller sees what is missing."""
    try:
        return response.read(min(CHUNK, most))
    except (OSError, http.client.HTTPException):
        return b""


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
    """The response to a request for a file from byte `start` on."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        return urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        raise CheckpointError(f"{url}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CheckpointError(f"{url}: cannot be fetched ({reason}); check the address") from error


def _whole(path: Path, sha256: str) -> bool:
    """Whether a file has the sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
