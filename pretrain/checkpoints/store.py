"""Checkpoints of a run: written whole, then made the latest; only between two steps.

`RUN/checkpoints/step_N/` holds DeepSpeed's state, the weights as safetensors (so that export needs
neither DeepSpeed nor pickle) and `manifest.json`, written last, with the size of every file.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import atomic_write, write_json
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.engine import Engine

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


def save(engine: Engine, run: Path, step: int, about: dict[str, Any], keep: int) -> None:
    """Write a checkpoint and drop the oldest; every rank calls it.

    Args:
        engine: What to save.
        run: Folder of the run.
        step: Steps done.
        about: Further entries of the manifest.
        keep: Newest checkpoints to keep.
    """
    first = distributed.world()[0] == 0
    folder = _folder(run, step)
    partial = folder.with_name(f".{folder.name}.partial")
    if first:
        for leftover in folder.parent.glob(".step_*.partial"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
    distributed.barrier()
    engine.save(partial)
    weights = engine.weights()
    distributed.barrier()
    if first:
        save_file(weights, partial / WEIGHTS)
        sizes = {
            str(path.relative_to(partial)): path.stat().st_size
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        write_json(partial / MANIFEST, {"step": step, **about, "files": sizes})
        if folder.exists():  # a damaged one of the same step
            shutil.rmtree(folder)
        partial.rename(folder)
        with atomic_write(folder.parent / _LATEST, "w") as file:
            file.write(folder.name)
        for old in list(_newest_first(run))[keep:]:
            shutil.rmtree(old)
    distributed.barrier()


def newest(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run; damaged ones are passed over with a warning."""
    latest = run / "checkpoints" / _LATEST
    step = _step(Path(latest.read_text("utf-8").strip())) if latest.is_file() else -1
    for folder in _newest_first(run):
        if _step(folder) > step:
            continue
        manifest = _whole(folder)
        if manifest is not None:
            return Checkpoint(folder, manifest)
        logger.warning("%s: damaged, the checkpoint before it is used", folder)
    return None


def check_fit(checkpoint: Checkpoint, about: dict[str, Any]) -> None:
    """Refuse a checkpoint that this run's engine cannot take up.

    Raises:
        UsageError: If ZeRO stage, accumulation, sharing of experts or data differ or, with ZeRO or
            shared experts, the number of processes.
    """
    written = checkpoint.manifest
    names = {
        "zero_stage": "engine.zero_stage",
        "accumulation": "engine.accumulation",
        "expert_parallel": "engine.expert_parallel",
    }
    if about["zero_stage"] or about["expert_parallel"] > 1:
        names["world"] = "the number of processes"
    for key, name in names.items():
        if written[key] != about[key]:
            raise UsageError(
                f"{checkpoint.folder}: written with {name} {written[key]}, this run has "
                f"{about[key]}; continue it with {written[key]}"
            )
    if written["data"]["fingerprint"] != about["data"]["fingerprint"]:
        raise UsageError(
            f"{checkpoint.folder}: the shards changed since this run began; "
            "bring them back or start another run"
        )
    if written["precision"] != about["precision"]:
        logger.warning(
            "the run continues in %s after %s; the losses will differ slightly",
            about["precision"],
            written["precision"],
        )


def _folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step_{step}"


def _step(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step_"))


def _newest_first(run: Path) -> Iterator[Path]:
    """Folders of checkpoints, the newest first."""
    yield from sorted((run / "checkpoints").glob("step_*"), key=_step, reverse=True)


def _whole(folder: Path) -> dict[str, Any] | None:
    """The manifest if every file it names is there in its full size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if sizes == manifest["files"] else None
