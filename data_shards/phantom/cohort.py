"""A cohort of phantoms on disk, made by several processes and continued after a kill.

A subject's folder appears whole, by renaming, and its labels before it; it is the sign that the
subject is finished. The bytes of a subject depend on the configuration and its number alone.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import FULL, disk_full, write_json
from gliomoe.data_shards.parallel import ordered_map
from gliomoe.data_shards.phantom import bids
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.subject import draw_subject, render


@dataclass(frozen=True)
class CohortReport:
    """What a call did."""

    subjects: int
    made: int
    kept: int
    """Subjects that an earlier call had finished."""


def write_cohort(out: Path, config: CohortConfig, workers: int = 1) -> CohortReport:
    """Simulate a cohort, or what is missing of it.

    Args:
        out: BIDS folder; new, empty, or with the same cohort in it.
        config: What to simulate.
        workers: Processes; 1 stays in this one.

    Raises:
        UsageError: If `out` holds anything else, or `workers` is not positive.
        DataError: If the disk is full; what is finished stays and is continued by the next call.
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: at least 1 is needed")
    _claim(out, config)
    _sweep(out)
    names = {number: bids.subject_name(config, number) for number in range(1, config.subjects + 1)}
    missing = [number for number, name in names.items() if not (out / name).is_dir()]
    if not (out / "participants.tsv").is_file() or missing:
        bar = tqdm(
            total=len(names), initial=len(names) - len(missing), unit="subject", disable=None
        )
        try:
            with bar:
                jobs = ((out, config, number) for number in missing)
                for _ in ordered_map(_write, jobs, max(1, min(workers, len(missing)))):
                    bar.update()
        finally:
            _sweep(out)
        bids.write_tables(out, config, [draw_subject(config, number) for number in names])
    return CohortReport(config.subjects, len(missing), config.subjects - len(missing))


def write_subject(out: Path, config: CohortConfig, number: int) -> None:
    """Simulate one subject; its folder in `out` appears as the last thing."""
    subject = draw_subject(config, number)
    images = render(config, subject)
    name = bids.subject_name(config, number)
    partial = out / f".{name}.tmp"
    try:
        if not config.unlabelled:
            bids.write_labels(partial / "seg", name, config, images)
            labels = bids.segmentation_folder(out, name)
            labels.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / "seg", labels)
        bids.write_images(partial / "images", name, subject, images)
        os.replace(partial / "images", out / name)
        partial.rmdir()
    except OSError as error:
        if error.errno in FULL:
            raise DataError(f"{out}: {disk_full(error)}") from error
        raise


def _write(job: tuple[Path, CohortConfig, int]) -> None:
    """`write_subject`, of one argument."""
    write_subject(*job)


def _claim(out: Path, config: CohortConfig) -> None:
    """Describe the data set, or check that the one there is this cohort."""
    record = out / "dataset_description.json"
    described = bids.description(config)
    settings = described["Settings"]
    if record.is_file():
        try:
            found = json.loads(record.read_text("utf-8"))
        except ValueError:
            found = {}
        if "Settings" not in found:
            raise UsageError(f"{out}: holds a data set that is no phantom; choose another folder")
        if found.get("GeneratedBy") != bids.GENERATED_BY:
            raise UsageError(f"{out}: made by another generator version; choose another folder")
        keys = sorted({*found["Settings"], *settings})
        changed = [key for key in keys if found["Settings"].get(key) != settings.get(key)]
        if changed:
            raise UsageError(
                f"{out}: holds another cohort, which differs in {', '.join(changed)}; "
                "choose another folder or repeat its options"
            )
        return
    if out.exists() and not (out.is_dir() and all(map(_is_temporary, out.iterdir()))):
        raise UsageError(f"{out}: not an empty folder and no cohort; choose another folder")
    write_json(record, described)


def _is_temporary(path: Path) -> bool:
    """Whether a file is what a kill in the first moment left."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _sweep(out: Path) -> None:
    """Remove what unfinished subjects left."""
    for folder in out.glob(".sub-*.tmp"):
        shutil.rmtree(folder)
    for file in out.rglob(".*.tmp"):
        file.unlink()
    for labels in bids.segmentation_folder(out, "sub").parent.glob("sub-*"):
        if not (out / labels.name).is_dir():
            shutil.rmtree(labels)
