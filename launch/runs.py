"""A run's folder: claimed by one configuration, described by `run.json`."""

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json

RECORD = "run.json"

_RECORDED = ("gliomoe", "torch", "monai", "deepspeed", "numpy", "blosc2")


def claim(
    out: Path,
    command: str,
    config: dict[str, Any],
    free: tuple[str, ...] = (),
    *,
    beside: tuple[str, ...] = (),
    data: dict[str, Any] | None = None,
) -> bool:
    """Take a folder for a run, or recognise the same run in it.

    Of several processes only the first may call it.

    Args:
        out: The run's folder.
        command: `pretrain` or `finetune`.
        config: Effective configuration as plain values.
        free: Dotted keys that may differ between a run and its continuation.
        beside: Names of what may lie in the folder already, such as a cache.
        data: What the run reads, to be recorded: paths and fingerprint.

    Returns:
        True if the folder holds this very run, which is to be continued.

    Raises:
        UsageError: If the folder holds another run, or files that are none.
    """
    record = out / RECORD
    if record.is_file():
        found = json.loads(record.read_text("utf-8"))
        if found.get("command") != command:
            raise UsageError(f"{out}: holds a {found.get('command')} run; choose another folder")
        changed = _differences(found["config"], config)
        if other := sorted(set(changed) - set(free)):
            raise UsageError(
                f"{out}: holds another run, which differs in {', '.join(other[:5])}; "
                "choose another folder or repeat its options"
            )
        if data and found["data"] and found["data"]["fingerprint"] != data["fingerprint"]:
            raise UsageError(
                f"{out}: the shards changed since this run began; "
                "bring them back or choose another folder"
            )
        return True
    if out.is_dir() and any(entry.name not in beside for entry in out.iterdir()):
        raise UsageError(f"{out}: not empty and not a run; choose another folder")
    content = {"command": command, "config": config, "data": data}
    write_json(record, {**content, "machine": machine(), "git": _commit()})
    return False


def release(out: Path) -> None:
    """Give back a folder that was claimed for a run which could not start."""
    (out / RECORD).unlink()
    if not any(out.iterdir()):
        out.rmdir()


def machine() -> dict[str, Any]:
    """Versions and hardware, for every result that is written."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _RECORDED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }


def _processor() -> str:
    """Model of the processor, which Python's `platform` does not tell on Linux."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text("utf-8").splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None outside one, or without git."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
