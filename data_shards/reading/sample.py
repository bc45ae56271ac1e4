"""From a study, stored or in memory, to a `StudySample`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format.codec import Frame, background_code
from gliomoe.data_shards.format.record import SEG, frame_suffix, quantise_study
from gliomoe.data_shards.intensity import normalise
from gliomoe.data_shards.reading.codes import CodeSample
from gliomoe.data_shards.sequences import sequence_number
from gliomoe.data_shards.study import Study

Extent = Sequence[int]
"""Three numbers of voxels, along D, H, W."""


@dataclass(frozen=True)
class StoredStudy:
    """A study as a shard holds it, not yet decoded."""

    members: Mapping[str, memoryview | bytes]
    """Suffix → content of the study's members."""
    record: Mapping[str, Any]
    """Its JSON record: key, grid, sequences, history."""

    def read(
        self,
        start: Extent | None = None,
        size: Extent | None = None,
        sequences: Sequence[str] | None = None,
        seg: bool = True,
    ) -> StudySample:
        """The study or a crop of it; arguments and errors as of `decode_sample`."""
        return decode_sample(self.members, self.record, start, size, sequences, seg)

    def codes(self, start: Extent, size: Extent) -> CodeSample:
        """A crop of all sequences, not normalised.

        Args:
            start: First voxel along D, H, W, which may lie outside the grid.
            size: Voxels along D, H, W; what lies outside is background.

        Raises:
            DataError: If the study is damaged.
        """
        window = _Window.of(start, size, self.record["shape"])
        names = list(self.record["sequences"])
        levels = np.array([_levels(self.record["sequences"][name]) for name in names])
        codes = np.empty((len(names), *size), np.int16)
        for name, out, (scale, offset, *_) in zip(names, codes, levels, strict=True):
            if not window.full(size):
                out.fill(background_code(scale, offset))
            _decode(self.members, frame_suffix(name), self.record, window, out)
        return CodeSample(
            key=self.record["key"],
            codes=codes,
            levels=levels,
            sequence=torch.tensor([sequence_number(name) for name in names]),
            spacing=torch.tensor(self.record["spacing"], dtype=torch.float32),
        )


def decode_sample(
    members: Mapping[str, memoryview | bytes],
    record: Mapping[str, Any],
    start: Extent | None = None,
    size: Extent | None = None,
    sequences: Sequence[str] | None = None,
    seg: bool = True,
) -> StudySample:
    """Decode and normalise a study or a crop of it.

    Args:
        members: Suffix → content of the study's members.
        record: The study's JSON record.
        start: First voxel along D, H, W, which may lie outside the grid; None is 0, 0, 0.
        size: Voxels along D, H, W; None goes to the grid's end. What lies outside is 0.
        sequences: Canonical names in the order wanted; None takes all.
        seg: Whether to decode the labels, if the study has any.

    Raises:
        DataError: If the study lacks a sequence or is damaged.
    """
    key, shape = record["key"], record["shape"]
    names = list(record["sequences"]) if sequences is None else list(sequences)
    if missing := [name for name in names if name not in record["sequences"]]:
        raise DataError(f"{key}: has no {', '.join(missing)}, only {list(record['sequences'])}")
    start = (0, 0, 0) if start is None else start
    size = [n - a for n, a in zip(shape, start, strict=True)] if size is None else size
    window = _Window.of(start, size, shape)
    voxels = np.zeros((len(names), *size), np.float32)
    codes = np.empty(tuple(size), np.int16)
    for name, out in zip(names, voxels, strict=True):
        _decode(members, frame_suffix(name), record, window, codes)
        levels = _levels(record["sequences"][name])
        normalise(codes[window.inside], *levels, out[window.inside])
    labels = None
    if seg and record["has_seg"]:
        labels = np.zeros(tuple(size), np.uint8)
        _decode(members, SEG, record, window, labels)
    return StudySample(
        key=key,
        voxels=torch.from_numpy(voxels),
        sequence=torch.tensor([sequence_number(name) for name in names]),
        spacing=torch.tensor(record["spacing"], dtype=torch.float32),
        seg=None if labels is None else torch.from_numpy(labels),
    )


def to_sample(study: Study) -> StudySample:
    """A study in memory, the same to the bit as written to a shard and read back; without labels.

    Raises:
        DataError: If there is no volume, or a volume has no contrast.
    """
    volumes = quantise_study(study)
    voxels = np.zeros((len(volumes), *study.shape), np.float32)
    for stored, out in zip(volumes.values(), voxels, strict=True):
        how = stored.quantised
        normalise(how.codes, how.scale, how.offset, stored.low, stored.high, out)
    return StudySample(
        key=study.key,
        voxels=torch.from_numpy(voxels),
        sequence=torch.tensor([sequence_number(name) for name in volumes]),
        spacing=torch.tensor(study.spacing, dtype=torch.float32),
    )


@dataclass(frozen=True)
class _Window:
    """The part of a crop that lies inside a grid."""

    start: tuple[int, ...]
    """First voxel of the grid."""
    stop: tuple[int, ...]
    """The one after the last."""
    inside: tuple[slice, ...]
    """Where these voxels lie in the crop."""

    @classmethod
    def of(cls, start: Extent, size: Extent, shape: Extent) -> "_Window":
        """The overlap of the crop at `start` with a grid of `shape`, possibly empty."""
        low = [min(max(a, 0), n) for a, n in zip(start, shape, strict=True)]
        high = [max(b, min(a + s, n)) for a, s, n, b in zip(start, size, shape, low, strict=True)]
        inside = tuple(
            slice(lo - a, hi - a) if hi > lo else slice(0, 0)
            for lo, hi, a in zip(low, high, start, strict=True)
        )
        return cls(tuple(low), tuple(high), inside)

    def full(self, size: Extent) -> bool:
        """Whether the whole crop lies inside the grid."""
        return all(b - a == n for a, b, n in zip(self.start, self.stop, size, strict=True))


def _levels(how: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Scale and offset of a volume's codes, and the intensities that become 0 and 1."""
    low, high = how["percentiles"]
    return how["scale"], how["offset"], low, high


def _decode(
    members: Mapping[str, memoryview | bytes],
    suffix: str,
    record: Mapping[str, Any],
    window: _Window,
    out: np.ndarray,
) -> None:
    """The window's voxels of one member, into their place in a crop; the rest is left alone."""
    shape = tuple(record["shape"])
    try:
        frame = Frame(members[suffix])
        if frame.shape != shape or frame.dtype != out.dtype:
            raise ValueError(f"{frame.shape} {frame.dtype}, promised were {shape} {out.dtype}")
        frame.read_into(out[window.inside], window.start, window.stop)
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{record['key']}.{suffix}: cannot be decoded ({error}); "
            "gliomoe shards verify tells more"
        ) from error
