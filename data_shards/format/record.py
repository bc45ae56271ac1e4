"""A study as members of a shard: its JSON record and one frame for each sequence."""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format.codec import Quantised, encode, quantise
from gliomoe.data_shards.identity.signature import signature
from gliomoe.data_shards.intensity import robust_range
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.data_shards.study import KEY_LENGTH, Study

FORMAT = 1
"""Version of the shard format."""

SEG = "seg.b2nd"
"""Suffix of the member with the labels."""

_FIELDS = ("key", "subject", "shape", "spacing", "affine", "sequences", "has_seg")
"""What the readers need of a record."""


@dataclass(frozen=True)
class EncodedStudy:
    """A study ready to be written."""

    key: str
    members: tuple[tuple[str, bytes | memoryview], ...]
    """(name, content), the JSON record first."""


def frame_suffix(sequence: str) -> str:
    """Suffix of the member with a sequence's voxels."""
    return f"{sequence}.b2nd"


@dataclass(frozen=True)
class StoredVolume:
    """A volume as it is stored."""

    quantised: Quantised
    low: float
    """Lower robust percentile of the foreground."""
    high: float
    """Upper robust percentile of the foreground."""


def quantise_study(study: Study) -> dict[str, StoredVolume]:
    """The volumes of a study as they are stored, in the order of `SEQUENCES`.

    Raises:
        DataError: If there is no volume, or a volume has no contrast.
    """
    if not study.volumes:
        raise DataError(f"{study.key}: has no usable sequence; give it at least one image")
    stored = {}
    for name in sorted(study.volumes, key=SEQUENCES.index):
        volume = study.volumes[name]
        low, high = robust_range(volume)
        if not low < high:
            raise DataError(
                f"{study.key}: {name} has no contrast in its foreground; leave it out of the study"
            )
        stored[name] = StoredVolume(quantise(volume, low, high), low, high)
    return stored


def encode_study(study: Study, settings: str = "", origin: str = "") -> EncodedStudy:
    """Quantise and compress a study.

    Args:
        study: All volumes of one shape.
        settings: Hash of the preprocessing settings, kept in the record.
        origin: Hash of the files that the study comes from, kept in the record.

    Raises:
        DataError: If the key is unfit, there is no volume, or a volume has no contrast.
    """
    if not re.fullmatch(rf"[a-z0-9_-]{{1,{KEY_LENGTH}}}", study.key):
        raise DataError(f"{study.key!r}: not a study key ([a-z0-9_-]+); see study_key")
    sequences: dict[str, dict[str, Any]] = {}
    frames = []
    for name, stored in quantise_study(study).items():
        sequences[name] = {
            "scale": stored.quantised.scale,
            "offset": stored.quantised.offset,
            "percentiles": [stored.low, stored.high],
            "crc32": _crc32(stored.quantised.codes),
            "signature": signature(study.volumes[name], study.spacing).tobytes().hex(),
        }
        frames.append((f"{study.key}.{frame_suffix(name)}", encode(stored.quantised.codes)))
    if study.seg is not None:
        frames.append((f"{study.key}.{SEG}", encode(study.seg)))
    record = {
        "format": FORMAT,
        "key": study.key,
        "subject": study.subject,
        "layout": study.layout,
        "origin": origin,
        "shape": list(study.shape),
        "spacing": list(study.spacing),
        "affine": study.affine.tolist(),
        "sequences": sequences,
        "has_seg": study.seg is not None,
        "seg_crc32": None if study.seg is None else _crc32(study.seg),
        "fingerprint": study.fingerprint,
        "settings": settings,
        "history": study.history,
    }
    if study.labels:
        record["labels"] = dict(sorted(study.labels.items()))
    text = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
    return EncodedStudy(study.key, ((f"{study.key}.json", text), *frames))


def parse_record(text: bytes | memoryview, name: str) -> Mapping[str, Any]:
    """The JSON record of a study.

    Args:
        text: Content of the member.
        name: Member and shard, for messages.

    Raises:
        DataError: If it is no record of this format version.
    """
    try:
        record = json.loads(bytes(text))
        version = record["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: is not a study record ({error}); build the set again") from error
    if version != FORMAT:
        raise DataError(f"{name}: has format version {version}, this program reads {FORMAT}")
    if missing := [field for field in _FIELDS if field not in record]:
        raise DataError(f"{name}: record without {', '.join(missing)}; build the set again")
    return record


def _crc32(voxels: np.ndarray) -> int:
    """Checksum of voxels before they are encoded."""
    return zlib.crc32(np.ascontiguousarray(voxels).data)
