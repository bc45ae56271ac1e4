"""A cohort of phantoms on disk, in BIDS, made by several processes and continued after a kill.

A subject's folder appears whole, by renaming; it is the sign that the subject is finished. The
bytes of a subject depend on the configuration and its number alone.
"""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path

from tqdm import tqdm

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import atomic_write, write_json
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.phantom.grid import brain_grid
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition
from gliomoe.data_shards.phantom.subject import (
    GENERATOR_VERSION,
    CohortConfig,
    Subject,
    draw_subject,
    render,
)

NOTICE = "Simulated: a test bed for software, never clinical evidence."

_SUFFIXES = {"t1": "T1w", "t1ce": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}
_SEGMENTATIONS = Path("derivatives", "segmentations")
_BIDS_VERSION = "1.9.0"
_GENERATED_BY = [{"Name": "gliomoe phantom", "Version": str(GENERATOR_VERSION)}]


@dataclasses.dataclass(frozen=True)
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
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: at least 1 is needed")
    _claim(out, config)
    for folder in out.glob(".sub-*.tmp"):
        shutil.rmtree(folder)
    for file in out.rglob(".*.tmp"):
        file.unlink()
    names = {number: _name(config, number) for number in range(1, config.subjects + 1)}
    missing = [number for number, name in names.items() if not (out / name).is_dir()]
    if not (out / "participants.tsv").is_file() or missing:
        bar = tqdm(
            total=len(names), initial=len(names) - len(missing), unit="subject", disable=None
        )
        with bar:
            for _ in _make(out, config, missing, min(workers, len(missing))):
                bar.update()
        if not config.unlabelled:
            _describe_segmentations(out)
        _write_participants(out, config)
    return CohortReport(config.subjects, len(missing), config.subjects - len(missing))


def write_subject(out: Path, config: CohortConfig, number: int) -> None:
    """Simulate one subject; its folder in `out` appears as the last thing."""
    subject = draw_subject(config, number)
    images, seg = render(config, subject)
    affine = brain_grid(config.spacing).affine
    name = _name(config, number)
    if not config.unlabelled:
        write_nifti(out / _SEGMENTATIONS / name / "anat" / f"{name}_dseg.nii.gz", seg, affine)
    partial = out / f".{name}.tmp"
    for sequence, image in images.items():
        stem = partial / "anat" / f"{name}_{_SUFFIXES[sequence]}"
        write_nifti(Path(f"{stem}.nii.gz"), image, affine)
        write_json(Path(f"{stem}.json"), _sidecar(subject.session[sequence]))
    os.replace(partial, out / name)


def _claim(out: Path, config: CohortConfig) -> None:
    """Describe the data set, or check that the one there is this cohort."""
    record = out / "dataset_description.json"
    settings = dataclasses.asdict(config)
    description = {
        "Name": "GlioMoE phantom cohort",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "raw",
        "GeneratedBy": _GENERATED_BY,
        "Notice": NOTICE,
        "Settings": settings,
    }
    if record.is_file():
        try:
            found = json.loads(record.read_text("utf-8"))
        except ValueError:
            found = {}
        if "Settings" not in found:
            raise UsageError(f"{out}: holds a data set that is no phantom; choose another folder")
        if found.get("GeneratedBy") != _GENERATED_BY:
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
    write_json(record, description)


def _is_temporary(path: Path) -> bool:
    """Whether a file is what a kill in the first moment left."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _make(out: Path, config: CohortConfig, numbers: list[int], workers: int) -> Iterator[int]:
    """Simulate subjects; yields each number when it is on disk."""
    if workers <= 1:
        for number in numbers:
            write_subject(out, config, number)
            yield number
        return
    # A server that has loaded the slow libraries forks the workers; this process may hold threads
    # of other libraries and must not be forked.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([write_subject.__module__])
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        running = {pool.submit(write_subject, out, config, number): number for number in numbers}
        for done in as_completed(running):
            done.result()
            yield running[done]
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """An interrupt ends a worker after its subject, the parent's death ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    """End this process when the one of a sentinel has ended."""
    wait([sentinel])
    os._exit(1)


def _name(config: CohortConfig, number: int) -> str:
    """`sub-007`; as many digits as the largest number needs, at least three."""
    return f"sub-{number:0{max(3, len(str(config.subjects)))}d}"


def _sidecar(acquisition: Acquisition) -> dict[str, float | str]:
    """BIDS metadata, times in seconds."""
    times = {
        "RepetitionTime": acquisition.tr,
        "EchoTime": acquisition.te,
        "InversionTime": acquisition.ti,
    }
    return {
        "MagneticFieldStrength": acquisition.field,
        **{key: round(ms / 1000, 6) for key, ms in times.items() if ms is not None},
        "SliceThickness": round(acquisition.thickness, 3),
        "Notice": NOTICE,
    }


def _describe_segmentations(out: Path) -> None:
    """The description that BIDS wants of derived data."""
    description = {
        "Name": "True segmentations of a GlioMoE phantom cohort",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": _GENERATED_BY,
        "Labels": "1 necrotic or non-enhancing core, 2 oedema and infiltration, 4 enhancing",
    }
    write_json(out / _SEGMENTATIONS / "dataset_description.json", description)


def _write_participants(out: Path, config: CohortConfig) -> None:
    """The table of all subjects, and what its columns mean."""

    def row(subject: Subject) -> list[str]:
        name = _name(config, subject.number)
        return [name, str(subject.age), subject.sex, subject.protocol, *subject.labels.values()]

    subjects = [draw_subject(config, number) for number in range(1, config.subjects + 1)]
    header = ["participant_id", "age", "sex", "protocol", *subjects[0].labels]
    with atomic_write(out / "participants.tsv", "w") as file:
        file.writelines("\t".join(line) + "\n" for line in (header, *map(row, subjects)))
    columns = {
        "age": {"Description": "Age at the scan", "Units": "years"},
        "sex": {"Levels": {"M": "male", "F": "female"}},
        "protocol": {"Description": "Kind of centre that scanned: A, B or C"},
        "grade": {"Description": "WHO 2021 grade of the glioma"},
        "idh": {"Levels": {"mutant": "IDH1 or IDH2 mutated", "wildtype": "neither"}},
        "1p19q": {"Levels": {"codeleted": "1p and 19q deleted", "intact": "not both"}},
        "tert": {"Levels": {"mutant": "TERT promoter mutated", "wildtype": "not"}},
        "who_type": {"Description": "WHO 2021 type of the glioma"},
    }
    write_json(out / "participants.json", columns)
