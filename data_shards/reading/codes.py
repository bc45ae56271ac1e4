"""Crops as the codes of a shard, to be normalised where they are used.

Notable: int16 codes are half of what a loader would otherwise hand from process to process and
copy to a device, and the device normalises them in no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.format.codec import background_code
from gliomoe.data_shards.intensity import CEILING, FLOOR, normalise


@dataclass(frozen=True)
class CodeSample:
    """A crop of one study."""

    key: str
    """Study key, only for messages."""
    codes: np.ndarray
    """[V, D, H, W] int16."""
    levels: np.ndarray
    """[V, 4] float64: scale and offset of the codes, intensities that become 0 and 1."""
    sequence: Tensor
    """[V] int64, positions in `SEQUENCES`."""
    spacing: Tensor
    """[3] float32, mm."""

    def tissue(self, every: int = 1) -> float:
        """Share of the voxels with tissue in some sequence, looked at every so many voxels."""
        seen = self.codes[:, ::every, ::every, ::every]
        background = [background_code(scale, offset) for scale, offset, *_ in self.levels]
        return float((seen != np.reshape(background, (-1, 1, 1, 1))).any(0).mean())


@dataclass(frozen=True)
class CodeBatch:
    """Crops of several studies, all of one size; fields as of `StudyBatch`."""

    codes: Tensor
    """[V, D, H, W] int16."""
    levels: np.ndarray
    """[V, 4] float64, as in `CodeSample`."""
    sequence: Tensor
    """[V] int64."""
    study: Tensor
    """[V] int64, ascending."""
    spacing: Tensor
    """[B, 3] float32, mm."""
    keys: tuple[str, ...]
    """B study keys."""

    def to(self, device: torch.device) -> "CodeBatch":
        """The same batch on another device."""
        return replace(
            self,
            codes=self.codes.to(device, non_blocking=True),
            sequence=self.sequence.to(device),
            study=self.study.to(device),
            spacing=self.spacing.to(device),
        )

    def pin_memory(self) -> "CodeBatch":
        """The same batch in page-locked memory."""
        return replace(self, codes=self.codes.pin_memory())

    def decode(self) -> StudyBatch:
        """The normalised intensities, on the device of the codes."""
        return StudyBatch(
            voxels=_normalised(self.codes, self.levels).unsqueeze(1),
            sequence=self.sequence,
            study=self.study,
            spacing=self.spacing,
            keys=self.keys,
        )


def collate_codes(samples: Sequence[CodeSample]) -> CodeBatch:
    """Join samples of one crop size into a batch."""
    counts = torch.tensor([len(sample.sequence) for sample in samples])
    return CodeBatch(
        codes=torch.cat([torch.from_numpy(sample.codes) for sample in samples]),
        levels=np.concatenate([sample.levels for sample in samples]),
        sequence=torch.cat([sample.sequence for sample in samples]),
        study=torch.repeat_interleave(torch.arange(len(samples)), counts),
        spacing=torch.stack([sample.spacing for sample in samples]),
        keys=tuple(sample.key for sample in samples),
    )


def _normalised(codes: Tensor, levels: np.ndarray) -> Tensor:
    """[V, D, H, W] float32, the same to the bit on every device."""
    voxels = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    for volume, out, (scale, offset, low, high) in zip(codes, voxels, levels.tolist(), strict=True):
        if codes.device.type == "cpu":  # where passes over memory are dear
            normalise(volume.numpy(), scale, offset, low, high, out.numpy())
            continue
        factor, shift = np.float32(scale / (high - low)), np.float32((offset - low) / (high - low))
        out.copy_(volume).mul_(float(factor)).add_(float(shift)).clamp_(FLOOR, CEILING)
        out.mul_(volume != background_code(scale, offset))
    return voxels
