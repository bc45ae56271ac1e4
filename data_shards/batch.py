"""`StudyBatch`: what passes from the data to every model, ragged over the sequences of a study.

Shapes here and in all folders: B studies, V volumes (all sequences of all studies), D H W voxels.
Notable: no padding. A study with one sequence takes one volume, a study with ten takes ten, and
permuting the volumes of a study means nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class StudySample:
    """One study (or a crop of one) on one grid, before batching."""

    key: str
    """Study key, only for messages and result tables."""
    voxels: Tensor
    """[V, D, H, W] float32, background exactly 0, robust range of the tissue about 0 to 1."""
    sequence: Tensor
    """[V] int64, positions in `SEQUENCES`."""
    spacing: Tensor
    """[3] float32, voxel size in mm along D, H, W."""
    seg: Tensor | None = None
    """[D, H, W] uint8, canonical labels (`gliomoe.data_shards.labels`), or None."""
    targets: dict[str, float] = field(default_factory=dict)
    """Case labels by task; a missing key or NaN means unknown."""
    genes: Tensor | None = None
    """[G, A] float32, assays A of the genes that a model asks for, NaN for unknown; or None."""


@dataclass(frozen=True)
class StudyBatch:
    """Several studies of one crop size."""

    voxels: Tensor
    """[V, 1, D, H, W] float."""
    sequence: Tensor
    """[V] int64, positions in `SEQUENCES`."""
    study: Tensor
    """[V] int64, ascending: the study each volume belongs to, 0 to B - 1."""
    spacing: Tensor
    """[B, 3] float, mm."""
    seg: Tensor | None = None
    """[B, D, H, W] uint8, or None where no study of the batch is labelled."""
    targets: dict[str, Tensor] = field(default_factory=dict)
    """Task → [B] float, NaN for unknown."""
    keys: tuple[str, ...] = ()
    """Study keys, only for messages and result tables; B of them or none."""
    genes: Tensor | None = None
    """[B, G, A] float32, NaN for unknown, or None where no study of the batch has a gene table."""

    @property
    def studies(self) -> int:
        """B, the number of studies."""
        return len(self.spacing)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "StudyBatch":
        """The same batch on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            voxels=move(self.voxels),
            sequence=move(self.sequence),
            study=move(self.study),
            spacing=move(self.spacing),
            seg=None if self.seg is None else move(self.seg),
            targets={task: move(values) for task, values in self.targets.items()},
            genes=None if self.genes is None else move(self.genes),
        )

    def pin_memory(self) -> "StudyBatch":
        """The same batch in page-locked memory; `torch.utils.data.DataLoader` calls this."""
        return replace(
            self,
            voxels=self.voxels.pin_memory(),
            seg=None if self.seg is None else self.seg.pin_memory(),
        )


def collate(samples: Sequence[StudySample]) -> StudyBatch:
    """Join samples of one crop size into a batch.

    Args:
        samples: At least one; all `voxels` with the same D, H, W.

    Returns:
        The batch; `seg` is there if every sample has one, `targets` holds every task that any
        sample names.

    Raises:
        ValueError: If there is no sample, shapes differ, or only some samples have a `seg`.
    """
    if not samples:
        raise ValueError("a batch needs at least one study")
    shapes = {tuple(sample.voxels.shape[1:]) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"the studies of a batch must share one crop size, got {sorted(shapes)}")
    labelled = [sample.seg for sample in samples if sample.seg is not None]
    if labelled and len(labelled) < len(samples):
        raise ValueError("either all or none of the studies of a batch carry a segmentation")
    tasks = sorted({task for sample in samples for task in sample.targets})
    counts = torch.tensor([len(sample.sequence) for sample in samples])
    return StudyBatch(
        voxels=torch.cat([sample.voxels for sample in samples]).unsqueeze(1),
        sequence=torch.cat([sample.sequence for sample in samples]),
        study=torch.repeat_interleave(torch.arange(len(samples)), counts),
        spacing=torch.stack([sample.spacing for sample in samples]),
        seg=torch.stack(labelled) if labelled else None,
        targets={
            task: torch.tensor([sample.targets.get(task, float("nan")) for sample in samples])
            for task in tasks
        },
        keys=tuple(sample.key for sample in samples),
        genes=_join_genes([sample.genes for sample in samples]),
    )


def _join_genes(tables: Sequence[Tensor | None]) -> Tensor | None:
    """Gene tables of some studies, all NaN for one that has none."""
    known = [table for table in tables if table is not None]
    if not known:
        return None
    unknown = torch.full_like(known[0], float("nan"))
    return torch.stack([unknown if table is None else table for table in tables])
