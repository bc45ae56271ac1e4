"""From folders of MRI to a finished shard set: in parallel, continued after a kill, the same bytes.

Notable: studies are prepared by worker processes but written by one, in the order of their keys;
`build.json` tells which studies and settings a folder is for, whole shards tell what is done, and
`dataset.json` appears last.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tqdm import tqdm

from gliomoe.data_shards import parallel
from gliomoe.data_shards.dataset import DATASET, read_dataset, seal
from gliomoe.data_shards.errors import DataError, UsageError, printable
from gliomoe.data_shards.failures import Failure, read_failures, write_failures
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.index import scan_shard
from gliomoe.data_shards.ingest import Survey, survey
from gliomoe.data_shards.prepare import prepare
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.preprocess.pipeline import check_steps
from gliomoe.data_shards.record import FORMAT, EncodedStudy
from gliomoe.data_shards.study import RawStudy, study_key
from gliomoe.data_shards.writer import ShardInfo, hash_file, shard_name, write_shards

if TYPE_CHECKING:
    from gliomoe.data_shards.indexed import ShardSet

BUILD = "build.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildConfig:
    """How a shard set is built."""

    layout: str = "auto"
    """Layout of the sources: auto, bids, brats, case, csv or dicom."""
    dicom_table: Path | None = None
    """TOML file with rules that say which sequence a DICOM series is; they are asked first."""
    keep_ids: bool = False
    """Keep subject and session in the keys instead of a salted hash."""
    salt: str = "gliomoe"
    """Text that salts the hashed keys; with one of your own nobody else can recompute them."""
    seg_labels: Literal["auto", "brats2021", "brats2023", "bratsped"] = "auto"
    """Convention of the labels in segmentations; auto goes by the spelling of the file names."""
    workers: int = 1
    """Processes that read and preprocess."""
    shard_mb: float = 512.0
    """Megabytes after which a shard is closed."""
    preprocess: Annotated[PreprocessConfig, tyro.conf.arg(name="")] = field(
        default_factory=PreprocessConfig
    )
    """Preprocessing."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.workers < 1:
            raise ValueError("workers must be at least 1")
        if not self.shard_mb > 0:
            raise ValueError("shard_mb must be positive")


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    out: Path
    info: dict[str, Any]
    """`dataset.json`."""
    failed: tuple[Failure, ...]
    """Studies that could not be used, with the reason."""
    built: int
    """Studies that this call added; the rest were there already."""
    seconds: float


def build_shards(sources: Sequence[Path], out: Path, config: BuildConfig) -> BuildReport:
    """Build a shard set, or continue or recognise the one in `out`.

    Args:
        sources: Data sets, case folders or files, which may have different layouts.
        out: Folder of the set; `failed.csv` in it lists studies that could not be used.
        config: Settings. Workers do not change the bytes.

    Raises:
        UsageError: If a source has no studies, two studies have one key, or `out` holds another
            set or other files.
        DataError: If no study could be used.
    """
    begun = time.monotonic()
    check_steps(config.preprocess)
    studies = _find(sources, config)
    plan = _plan(studies, config)
    if _claim(out, plan):
        return BuildReport(out, read_dataset(out), tuple(read_failures(out)), 0, 0.0)
    shards, done = _whole_shards(out)
    last = max(done, default="")
    failed = [failure for failure in read_failures(out) if failure.key <= last]
    known = done | {failure.key for failure in failed}
    todo = {key: raw for key, raw in studies.items() if key not in known}
    encoded = _encoded(todo, config, failed, out)
    for shard in write_shards(out, encoded, round(config.shard_mb * 1e6), len(shards)):
        shards.append(shard)
    write_failures(out, failed)
    if not shards:
        raise DataError(f"{out}: none of {len(studies)} studies could be used; see failed.csv")
    info = seal(out, shards, **plan, failed=len(failed), generated_by=_generators(sources))
    seconds = time.monotonic() - begun
    return BuildReport(out, info, tuple(failed), info["studies"] - len(done), seconds)


def open_or_build(data: Path, cache: Path, config: BuildConfig) -> "ShardSet":
    """A shard set as it is, or one built once from a raw folder.

    Args:
        data: A finished shard set, or a data set, case folder or file.
        cache: Where built sets are kept, each in a folder of its own for its files and settings.
        config: Settings of the build; ids are kept, because tables of labels name them.

    Raises:
        UsageError: If `data` holds neither.
        DataError: If a study cannot be used; a labelled case is never left out in silence.
    """
    from gliomoe.data_shards.indexed import ShardSet  # needs torch, which a build does not

    if (data / DATASET).is_file():
        return ShardSet.open(data)
    if (data / BUILD).is_file():
        read_dataset(data)  # raises: an unfinished set
    config = replace(config, keep_ids=True)
    studies = _find([data], config)
    changed = [path.stat().st_mtime_ns for raw in studies.values() for path in raw.files]
    text = json.dumps([_plan(studies, config), str(data.resolve()), changed]).encode()
    folder = cache / hashlib.blake2b(text, digest_size=8).hexdigest()
    report = build_shards([data], folder, config)
    if report.failed:
        first = report.failed[0]
        raise DataError(
            f"{data}: {len(report.failed)} studies cannot be used, first {first.key}: "
            f"{first.reason}; repair or remove them"
        )
    return ShardSet.open(folder)


def _generators(sources: Sequence[Path]) -> list[str]:
    """Programs that made the sources, as BIDS data sets name them; phantoms are known by it."""
    names = set()
    for path in (source / "dataset_description.json" for source in sources):
        if not path.is_file():
            continue
        try:
            described = json.loads(path.read_text("utf-8"))
            names |= {program["Name"] for program in described.get("GeneratedBy", [])}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s: not a valid BIDS description (%s)", path, error)
    return sorted(names)


def _find(sources: Sequence[Path], config: BuildConfig) -> dict[str, RawStudy]:
    """Key → study, sorted by key."""
    surveys = survey_sources(sources, config)
    for source, one in zip(sources, surveys, strict=True):
        if count := len(one.left_out) + sum(len(study.left_out) for study in one.studies):
            _log.info("%s: %d files or series are not used; --dry-run lists them", source, count)
    return by_key(surveys, config)


def survey_sources(sources: Sequence[Path], config: BuildConfig) -> list[Survey]:
    """What each source holds; nothing is read but names and headers.

    Raises:
        UsageError: If there is no source, or one holds no studies.
    """
    if not sources:
        raise UsageError("no source given; name a data set, a case folder or a file")
    return [survey(source, config.layout, config.dicom_table) for source in sources]


def by_key(surveys: Sequence[Survey], config: BuildConfig) -> dict[str, RawStudy]:
    """Key → study, sorted by key.

    Raises:
        UsageError: If two studies have one key.
    """
    found: dict[str, RawStudy] = {}
    for one in surveys:
        for raw in one.studies:
            if config.seg_labels != "auto":
                raw = replace(raw, seg_labels=config.seg_labels)
            key = study_key(raw.subject, raw.session, _salt(config))
            if key in found:
                raise UsageError(
                    f"{raw.source} and {found[key].source} are both study {key}; "
                    "build them as two sets, which every command reads together"
                )
            found[key] = raw
    return dict(sorted(found.items()))


def _salt(config: BuildConfig) -> str | None:
    """The salt of the keys, None to keep ids."""
    return None if config.keep_ids else config.salt


def _plan(studies: dict[str, RawStudy], config: BuildConfig) -> dict[str, Any]:
    """What tells this set from another: settings, and a hash of keys and files."""
    listed = [
        [
            *(key, raw.layout, raw.seg_labels, *_said(raw)),
            *((path.name, path.stat().st_size) for path in raw.files),
        ]
        for key, raw in studies.items()
    ]
    return {
        "preprocess": config.preprocess.to_json(),
        "keep_ids": config.keep_ids,
        "shard_mb": config.shard_mb,
        "inputs": hashlib.blake2b(json.dumps(listed).encode(), digest_size=16).hexdigest(),
    }


def _said(raw: RawStudy) -> list[Any]:
    """What of a study its files' names do not tell: sequences that others name, and labels."""
    sequences = [list(raw.series)] if raw.layout in ("csv", "dicom") else []
    return [*sequences, *([dict(raw.labels)] if raw.labels else [])]


def _claim(out: Path, plan: dict[str, Any]) -> bool:
    """Take a folder for a set; True if this very set is finished in it."""
    path = out / BUILD
    wanted = {"format": FORMAT, **plan}
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"{out}: not empty and not a shard set; choose another folder")
        write_json(path, wanted)
        return False
    found = json.loads(path.read_text("utf-8"))
    if changed := [name for name in wanted if found.get(name) != wanted[name]]:
        raise UsageError(
            f"{out}: holds another shard set, which differs in {', '.join(changed)}; "
            "choose another folder or repeat its sources and options"
        )
    for left in out.glob(".*.tmp"):  # of a build that was killed
        left.unlink()
    return (out / DATASET).is_file()


def _whole_shards(out: Path) -> tuple[list[ShardInfo], set[str]]:
    """The shards that an interrupted build finished, and the keys of their studies."""
    shards: list[ShardInfo] = []
    keys: set[str] = set()
    while (path := out / shard_name(len(shards))).is_file():
        rows = scan_shard(path, len(shards))
        shards.append(ShardInfo(path.name, path.stat().st_size, hash_file(path), len(rows)))
        keys |= {row[0].decode() for row in rows}
    return shards, keys


def _encoded(
    todo: dict[str, RawStudy], config: BuildConfig, failed: list[Failure], out: Path
) -> Iterator[EncodedStudy]:
    """The studies that can be used, in order; the others go to `failed` and into its file."""
    jobs = [(raw, config.preprocess, _salt(config)) for raw in todo.values()]
    results = parallel.ordered_map(prepare, jobs, config.workers)
    bar = tqdm(zip(todo.items(), results, strict=True), "shards", len(jobs), disable=None)
    for (key, raw), result in bar:
        if isinstance(result, EncodedStudy):
            yield result
            continue
        failed.append(Failure(key, printable(str(raw.source)), result))
        # Before the shard that follows is whole, so that a continued build still knows.
        write_failures(out, failed)
        _log.warning("%s: left out: %s", key, result)
