"""Training crops, as a pure function of the sample number, and whole studies for validation.

Balanced placement: most crops are centred on a voxel of a tumour label, each label of the case
being equally likely, the others on any tissue.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.order import Mixture, seed_for, study_at
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune import artefacts
from gliomoe.finetune.artefacts import ArtefactConfig
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.config import CropConfig

_KEPT = 1000
"""Voxels remembered per case and label, from which centres are drawn."""


def read_case(shards: ShardSet, case: LabelledCase) -> StudySample:
    """A whole study with its targets."""
    return _with_labels(shards.read(case.position, seg=_may_look(case)), case)


def _may_look(case: LabelledCase) -> bool:
    """Whether a mask that the study carries may be read; only a teacher's studies hide theirs."""
    return not math.isnan(case.targets.get("seg", 1.0))


def _with_labels(sample: StudySample, case: LabelledCase) -> StudySample:
    """A sample with targets and genes, and an empty mask where there is none, so that all batch.

    `targets["seg"]` is NaN where the mask is missing; nothing looks at the mask then.
    """
    seg, known = sample.seg, 1.0
    if seg is None:
        seg, known = torch.zeros(sample.voxels.shape[1:], dtype=torch.uint8), math.nan
    return replace(sample, seg=seg, targets={**case.targets, "seg": known}, genes=case.genes)


class CropDataset(Dataset[StudySample]):
    """Sample number → crop of a labelled case, with its artefacts."""

    def __init__(
        self,
        shards: ShardSet,
        cases: Sequence[LabelledCase],
        crop: CropConfig,
        artefact_config: ArtefactConfig,
        seed: int,
    ) -> None:
        """Read each case once to remember where its tumour and tissue are.

        Args:
            shards: The studies.
            cases: Training cases.
            crop: Size and balance.
            artefact_config: How often and how strong.
            seed: With the sample number, decides everything.
        """
        self._shards, self._cases, self._crop = shards, list(cases), crop
        self._artefacts, self._seed = artefact_config, seed
        self._centres = [
            candidate_centres(read_case(shards, case), np.random.default_rng([seed, i]))
            for i, case in enumerate(self._cases)
        ]

    def __len__(self) -> int:
        """The number of cases; sample numbers may exceed it, each epoch in another order."""
        return len(self._cases)

    def __getitem__(self, number: int) -> StudySample:
        """Sample `number` of the run."""
        index = study_at(number, len(self._cases), self._seed)
        case, centres = self._cases[index], self._centres[index]
        generator = torch.Generator().manual_seed(seed_for(self._seed, "crop", number))
        entry = self._shards.entry(case.position)
        centre = draw_centre(centres, self._crop.tumour, generator)
        start = crop_start(centre, entry.shape, self._crop.size)
        kept = kept_sequences(entry.sequences, self._crop.sequence_dropout, generator)
        sample = self._shards.read(case.position, start, self._crop.size, kept, _may_look(case))
        sample = mirrored(_with_labels(sample, case), self._crop.flip, generator)
        if self._artefacts.active:
            drawn = artefacts.draw(self._artefacts, len(sample.sequence), generator)
            sample = artefacts.apply(sample, drawn)
        return sample


class MixedCrops(Dataset[StudySample]):
    """Sample number → crop of a labelled case, or of a study without labels."""

    def __init__(
        self, labelled: CropDataset, unlabelled: CropDataset, share: float, seed: int
    ) -> None:
        """Mix two sets of crops.

        Args:
            labelled: Crops of the training cases.
            unlabelled: Crops of other studies.
            share: Part of the samples that are of those, to a thousandth.
            seed: With the sample number, decides which.
        """
        self._parts, self._share = (labelled, unlabelled), share
        self._mixture = Mixture([1 - share, share], seed)

    def __len__(self) -> int:
        """Samples in which each labelled case comes once."""
        return math.ceil(len(self._parts[0]) / (1 - self._share))

    def __getitem__(self, number: int) -> StudySample:
        """Sample `number` of the run."""
        part, own = self._mixture.draw(number)
        return self._parts[part][own]


def fitting_crop(crop: CropConfig, shapes: Iterable[Sequence[int]]) -> CropConfig:
    """Crops no larger than the largest grid, beyond which all of them would be empty.

    Args:
        crop: As configured.
        shapes: D, H, W of all studies that are cropped.
    """
    d, h, w = np.minimum(crop.size, np.max(list(shapes), axis=0)).tolist()
    return replace(crop, size=(d, h, w))


def candidate_centres(sample: StudySample, rng: np.random.Generator) -> list[Tensor]:
    """Voxels around which crops may be placed.

    Returns:
        For each tumour label of the case [n, 3] voxel positions, at most 1000, and for any tissue
        as the last entry.
    """
    assert sample.seg is not None
    tissue = (sample.voxels != 0).any(0)
    labels = [int(label) for label in sample.seg.unique() if label]
    found = [torch.nonzero(mask) for mask in (*(sample.seg == label for label in labels), tissue)]
    return [
        voxels[torch.from_numpy(rng.permutation(len(voxels))[:_KEPT])]
        for voxels in found
        if len(voxels)
    ]


def draw_centre(centres: Sequence[Tensor], tumour: float, generator: torch.Generator) -> Tensor:
    """One voxel position, [3].

    Args:
        centres: What `candidate_centres` gives.
        tumour: Probability of a tumour voxel, where the case has one.
        generator: Source of randomness.
    """
    chance, kind, voxel = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    labels = len(centres) - 1
    group = centres[int(kind * labels)] if labels and chance < tumour else centres[-1]
    return group[int(voxel * len(group))]


def kept_sequences(present: Sequence[str], dropout: float, generator: torch.Generator) -> list[str]:
    """The sequences of a case that a crop shows, in their order (modality dropout).

    Args:
        present: What the case has.
        dropout: Probability that each is left out; where all would be, one of them stays.
        generator: Source of randomness; drawn from whatever `dropout` is.
    """
    *chances, saved = torch.rand(len(present) + 1, generator=generator).tolist()
    kept = [name for name, chance in zip(present, chances, strict=True) if chance >= dropout]
    return kept or [present[int(saved * len(present))]]


def mirrored(sample: StudySample, flip: float, generator: torch.Generator) -> StudySample:
    """A crop with its mask, mirrored along each axis with probability `flip`."""
    chances = torch.rand(3, generator=generator)
    axes = [axis for axis in range(-3, 0) if chances[axis] < flip]
    assert sample.seg is not None
    return replace(sample, voxels=sample.voxels.flip(axes), seg=sample.seg.flip(axes))


def crop_start(centre: Tensor, shape: Sequence[int], size: Sequence[int]) -> tuple[int, int, int]:
    """First voxel of a crop about a centre, inside the grid; a smaller grid sits in the middle."""
    d, h, w = (
        min(max(int(c) - side // 2, 0), whole - side) if whole >= side else (whole - side) // 2
        for c, whole, side in zip(centre, shape, size, strict=True)
    )
    return d, h, w
