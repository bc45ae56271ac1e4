"""Checkpoints of a run: written whole, then made the latest; only between two steps.

`RUN/checkpoints/step_N/` holds DeepSpeed's state, the weights as safetensors (so that export needs
neither DeepSpeed nor pickle) and `manifest.json`, written last, with size and CRC-32 of every file.

Every rank writes and describes its own files. Only rank 0 looks for checkpoints, renames and
deletes, and tells the others how it went: the view that several nodes have of a shared folder may
be seconds old.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.files import atomic_write, write_json
from gliomoe.pretrain.checkpoints.files import check_room, damage, expected_bytes, settle
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.sections import RunConfig

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_LATEST = "latest"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps that were done when it was written."""
        return self.manifest["step"]


def save(engine: Engine, run: RunConfig, step: int, about: dict[str, Any]) -> None:
    """Write a checkpoint and drop the oldest; every rank calls it.

    Args:
        engine: What to save.
        run: Folder of the run, and which checkpoints to keep.
        step: Steps done.
        about: Further entries of the manifest.

    Raises:
        DataError: On all ranks, if one of them could not write; the checkpoints before are kept.
    """
    partial = run.out / "checkpoints" / f".step_{step}.partial"
    distributed.first_decides(lambda: _make_room(engine, run, partial))
    files, failure = _write(engine, partial)
    outcomes = distributed.gather_objects((files, failure))
    failures = [(rank, why) for rank, (_, why) in enumerate(outcomes) if why]
    everything = {name: entry for files, _ in outcomes for name, entry in files.items()}
    manifest = {"step": step, **about, "files": dict(sorted(everything.items()))}
    distributed.first_decides(lambda: _finish(run, partial, manifest, failures))


def newest(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run; damaged ones are passed over with a warning.

    Of several processes only the first may decide by it: `distributed.first_decides`.

    Raises:
        DataError: If there are checkpoints and all are damaged.
    """
    limit = _latest_step(run)
    folders = [f for f in _newest_first(run) if limit is None or _step(f) <= limit]
    for folder in folders:
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            wrong = damage(folder, manifest["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            wrong = f"{MANIFEST} cannot be read ({error})"
        if wrong is None:
            return Checkpoint(folder, manifest)
        logger.warning("%s: damaged, %s; the checkpoint before it is used", folder, wrong)
    if folders:
        raise DataError(
            f"{run}: all checkpoints are damaged; bring one back, or delete it to start anew"
        )
    return None


def tidy(checkpoint: Checkpoint) -> None:
    """Delete what is of no use to a run that goes on from a checkpoint.

    That is what was not finished, and what is newer: it is damaged, or `latest` was set back, and
    retention must not count it.
    """
    parent = checkpoint.folder.parent
    newer = [folder for folder in _newest_first(parent.parent) if _step(folder) > checkpoint.step]
    for folder in (*parent.glob(".step_*"), *newer):
        shutil.rmtree(folder)


def _make_room(engine: Engine, run: RunConfig, partial: Path) -> None:
    """An empty folder to write into, on a disk with room for it."""
    for leftover in partial.parent.glob(".step_*"):
        shutil.rmtree(leftover)
    need = expected_bytes(engine.module, _newest_manifest(run.out))
    try:
        check_room(partial.parent, need)
    except DataError:
        _drop(run, max(1, run.keep - 1))
        check_room(partial.parent, need)
    (partial / engine.TAG).mkdir(parents=True)


def _write(engine: Engine, partial: Path) -> tuple[dict[str, dict[str, int]], str | None]:
    """Write this rank's files; what they are, and what went wrong."""
    weights = engine.weights()  # before anything can fail on one rank: all take part
    try:
        paths = engine.save(partial)
        if distributed.world()[0] == 0:
            save_file(weights, partial / WEIGHTS)
            paths.append(partial / WEIGHTS)
        return {str(path.relative_to(partial)): settle(path) for path in paths}, None
    except (OSError, SafetensorError) as error:
        return {}, " ".join(str(error).split())


def _finish(
    run: RunConfig, partial: Path, manifest: dict[str, Any], failures: list[tuple[int, str]]
) -> None:
    """Turn what all ranks wrote into the latest checkpoint, or take it away."""
    folder = partial.with_name(f"step_{manifest['step']}")
    try:
        if failures:
            rank, why = failures[0]
            raise DataError(f"{folder}: process {rank} could not write it ({why})")
        for name, entry in manifest["files"].items():
            if (partial / name).stat().st_size != entry["bytes"]:
                raise DataError(f"{partial / name}: not as it was written; is the folder shared?")
        write_json(partial / MANIFEST, manifest)
        for inner in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
            settle(inner)
    except (OSError, DataError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(
            f"{' '.join(str(error).split())}; the checkpoint before it is kept: free space or mend "
            "the disk, the same command continues"
        ) from error
    if folder.exists():  # a damaged one of the same step
        shutil.rmtree(folder)
    partial.rename(folder)
    settle(folder.parent)
    with atomic_write(folder.parent / _LATEST, "w") as file:
        file.write(folder.name)
    settle(folder.parent)
    _drop(run, run.keep)


def _drop(run: RunConfig, keep: int) -> None:
    """Delete all but the newest checkpoints and those that are kept for good."""
    for folder in list(_newest_first(run.out))[keep:]:
        if not run.keep_every or _step(folder) % run.keep_every:
            shutil.rmtree(folder)


def _step(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step_"))


def _newest_first(run: Path) -> Iterator[Path]:
    """Folders of checkpoints, the newest first; a copy under another name is none."""
    folders = (run / "checkpoints").glob("step_*")
    named = [folder for folder in folders if folder.name.removeprefix("step_").isdecimal()]
    yield from sorted(named, key=_step, reverse=True)


def _newest_manifest(run: Path) -> dict[str, Any] | None:
    """The manifest of the newest checkpoint, which may be damaged."""
    for folder in _newest_first(run):
        if (folder / MANIFEST).is_file():
            return json.loads((folder / MANIFEST).read_text("utf-8"))
    return None


def _latest_step(run: Path) -> int | None:
    """The step that was made the latest, None if that cannot be told."""
    try:
        return _step(Path((run / "checkpoints" / _LATEST).read_text("utf-8").strip()))
    except (OSError, ValueError):
        return None
