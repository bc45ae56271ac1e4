"""What a shard set is to hold, and whether a folder is for it."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.format.record import FORMAT
from gliomoe.data_shards.ingest import Survey, survey
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.study import RawStudy, keyed_hash, study_key

BUILD = "build.json"

IDENTITY = ("preprocess", "keep_ids", "shard_mb", "keys")
"""Entries of `build.json` and `dataset.json` that tell a set from another, its files apart."""

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
    part: str = "1/1"
    """Build the I-th of N parts only, as I/N, for job arrays; `gliomoe shards merge` joins them."""
    workers: int = 1
    """Processes that read and preprocess; from 2 on a study that exhausts memory is left out."""
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
        number, count = self.share
        if not 1 <= number <= count:
            raise ValueError(f"part must be I/N with I from 1 to N, such as 3/8, not {self.part!r}")

    @property
    def share(self) -> tuple[int, int]:
        """Number of the part, from 1, and how many there are; 0, 0 if `part` is no such text."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.part)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def limit(self) -> int:
        """Bytes after which a shard is closed."""
        return round(self.shard_mb * 1e6)

    @property
    def secret(self) -> str | None:
        """The salt of the keys, None to keep ids."""
        return None if self.keep_ids else self.salt


@dataclass(frozen=True)
class Plan:
    """What one shard set is to hold."""

    studies: dict[str, RawStudy]
    """Key → files, sorted by key; of one part only its share."""
    origins: dict[str, str]
    """Key → hash of layout, file names and sizes, as the study's record keeps it."""
    identity: dict[str, Any]
    """Entries of `build.json` and `dataset.json` that tell this set from another."""
    inputs: str
    """Hash over the files of all parts."""
    generated_by: list[str]
    """Programs that made the sources."""


def make_plan(sources: Sequence[Path], config: BuildConfig) -> Plan:
    """Find the studies of all sources and take the share of this part.

    Raises:
        UsageError: If a source has no studies, or two studies have one key.
    """
    studies = _find(sources, config)
    origins = {key: _origin(raw, config.secret) for key, raw in studies.items()}
    identity: dict[str, Any] = {
        "preprocess": config.preprocess.to_json(),
        "keep_ids": config.keep_ids,
        "shard_mb": config.shard_mb,
        "keys": digest(list(studies)),
    }
    number, count = config.share
    if count > 1:
        identity["part"] = [number, count]
    share = list(studies)[number - 1 :: count]
    return Plan(
        studies={key: studies[key] for key in share},
        origins={key: origins[key] for key in share},
        identity=identity,
        inputs=digest(list(origins.items())),
        generated_by=_generators(sources),
    )


def claim(out: Path, identity: dict[str, Any], kind: str = BUILD) -> None:
    """Take a folder for a set, or recognise that it was taken for this very one.

    Args:
        out: Folder of the set.
        identity: What tells the set from another.
        kind: Name of the file that says so.

    Raises:
        UsageError: If the folder is for another set, or holds other files.
    """
    path = out / kind
    wanted = {"format": FORMAT, **identity}
    if not path.is_file():
        if out.is_dir() and any(not _is_left(path) for path in out.iterdir()):
            raise UsageError(f"{out}: not empty and not a shard set; choose another folder")
        write_json(path, wanted)
    found = json.loads(path.read_text("utf-8"))
    names = {*wanted, *found}
    if changed := sorted(name for name in names if found.get(name) != wanted.get(name)):
        raise other_set(out, changed)
    for left in filter(_is_left, out.iterdir()):
        left.unlink()


def other_set(out: Path, changed: Sequence[str]) -> UsageError:
    """A folder holds another set than the one to make."""
    return UsageError(
        f"{out}: holds another shard set, which differs in {', '.join(changed)}; "
        "choose another folder or repeat its sources and options"
    )


def digest(content: Any) -> str:
    """Hash of plain values, 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def _is_left(path: Path) -> bool:
    """Whether a file is what a killed process had not finished."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _origin(raw: RawStudy, secret: str | None) -> str:
    """Hash of what tells a study's files from others, 16 hexadecimal digits."""
    files = [(path.name, _size(path)) for path in raw.files]
    listed = [raw.layout, raw.seg_labels, files, *_said(raw)]
    return keyed_hash(json.dumps(listed), secret or "", 8)


def _said(raw: RawStudy) -> list[Any]:
    """What of a study its files' names do not tell: sequences that others name, and labels."""
    sequences = [list(raw.series)] if raw.layout in ("csv", "dicom") else []
    return [*sequences, *([dict(raw.labels)] if raw.labels else [])]


def _size(path: Path) -> int:
    """Bytes of a file, -1 if it cannot be reached; reading it then says why."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


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
            key = study_key(raw.subject, raw.session, config.secret)
            if key in found:
                raise UsageError(
                    f"{raw.source} and {found[key].source} are both study {key}; "
                    "build them as two sets, which every command reads together"
                )
            found[key] = raw
    return dict(sorted(found.items()))
