"""Two overlapping views of a study, each with its own augmentation and its own sequences.

`StudyViews` reads one box of a study and draws everything that is random about its views; every
draw is a pure function of the run's seed and the sample's number. `make_views` applies the draws
on the device: crop, rotation, scaling and deformation are one resampling of the box.

Shapes: B studies of a batch; both views of it together are 2B studies, view 1 of all of them first.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gliomoe.data_shards import augment
from gliomoe.data_shards.augment import Augmentation, AugmentConfig
from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format.codec import BLOCK
from gliomoe.data_shards.order import seed_for
from gliomoe.data_shards.reading.codes import CodeBatch, CodeSample, collate_codes
from gliomoe.data_shards.reading.reader import Reader
from gliomoe.data_shards.reading.sample import StoredStudy
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.samples.masking import Mask, apply_scores, draw_scores
from gliomoe.pretrain.sections import MaskConfig, ViewConfig

_PLACES = 8
_LEAST_TISSUE = 1 / 16
_REPLACEMENTS = 10
_EVERY = 4
"""Tissue is looked for at every fourth voxel along each axis."""


@dataclass(frozen=True)
class ViewDraw:
    """What was drawn for one view of one study."""

    start: tuple[int, int, int]
    """Voxel of the box at which the view begins, before augmentation."""
    augmentation: Augmentation
    """Rotation, scaling, translation, deformation, intensities, noise."""
    visible: Tensor
    """[V] bool, the sequences that the encoder gets."""
    scores: Tensor
    """[Gd, Gh, Gw] from `masking.draw_scores`."""
    turns: int
    """Quarter turns about the axial axis, for objectives that turn views."""


@dataclass(frozen=True)
class ViewPair:
    """Sample number n of a run."""

    box: CodeSample
    """The part of the study that holds both views, all sequences."""
    subject: int
    """A number for the subject, equal for all its sessions."""
    draws: tuple[ViewDraw, ViewDraw]
    """The two views."""
    damaged: tuple[str, ...] = ()
    """Messages about studies that could not be read and that this one stands in for."""


@dataclass(frozen=True)
class PairBatch:
    """Several samples, on their way to the device."""

    boxes: CodeBatch
    """B boxes."""
    subject: Tensor
    """[B] int64."""
    draws: tuple[tuple[ViewDraw, ...], tuple[ViewDraw, ...]]
    """For each view, the draws of B studies."""
    damaged: tuple[str, ...] = ()
    """As in `ViewPair`, of all samples."""

    def to(self, device: torch.device) -> "PairBatch":
        """The same batch with its boxes on another device."""
        return replace(self, boxes=self.boxes.to(device), subject=self.subject.to(device))

    def pin_memory(self) -> "PairBatch":
        """The same batch in page-locked memory; `torch.utils.data.DataLoader` calls this."""
        return replace(self, boxes=self.boxes.pin_memory())


@dataclass(frozen=True)
class Views:
    """What an objective sees: 2B studies, study b and study b + B being views of one."""

    visible: StudyBatch
    """With noise, without the hidden sequences."""
    complete: StudyBatch
    """Without noise, all sequences: the targets of reconstruction."""
    mask: Mask
    """Positions that are seen and predicted."""
    subject: Tensor
    """[B] int64."""
    turns: tuple[int, ...]
    """2B quarter turns that were drawn but not applied; `swin_unetr` applies them."""


class StudyViews(Dataset[ViewPair]):
    """Sample number → two views of a study.

    Args:
        reader: Sample number → study.
        views: Size and overlap of the views.
        ranges: Augmentation.
        patch_size: Side of a position of the mask, voxels.
        seed: Seed of the run.
    """

    def __init__(
        self,
        reader: Reader,
        views: ViewConfig,
        ranges: AugmentConfig,
        patch_size: int,
        seed: int,
    ):
        self.reader, self.views, self.ranges = reader, views, ranges
        self.patch_size, self.seed = patch_size, seed

    def __getitem__(self, number: int) -> ViewPair:
        """Sample `number`, the same whichever process asks; another study for a damaged one.

        Raises:
            DataError: If `_REPLACEMENTS` studies in a row are damaged.
        """
        damaged: list[str] = []
        for attempt in range(_REPLACEMENTS):
            try:
                study = self.reader.study(number + attempt * self.reader.stride)
                pair = self._pair(number, study)
            except DataError as error:
                damaged.append(str(error))
            else:
                return replace(pair, damaged=tuple(damaged))
        raise DataError(f"{_REPLACEMENTS} studies in a row are damaged, the last: {damaged[-1]}")

    @property
    def forkable(self) -> bool:
        """Whether a forked process can read; otherwise use forkserver or spawn."""
        return self.reader.forkable

    def where(self, number: int) -> str:
        """Shard and study of a sample, for messages."""
        return self.reader.where(number)

    def _pair(self, number: int, study: StoredStudy) -> ViewPair:
        """Read a study's box and draw its views."""
        box = self._read_box(number, study)
        subject = hashlib.sha256(study.record["subject"].encode()).digest()[:8]
        return ViewPair(
            box=box,
            subject=int.from_bytes(subject, "big", signed=True),
            draws=(self._draw(number, 0, box), self._draw(number, 1, box)),
        )

    def _read_box(self, number: int, study: StoredStudy) -> CodeSample:
        """A box at a random place; further places are tried while it holds mostly air."""
        side, step = self.views.box, box_step(self.views.shift)
        for attempt in range(_PLACES):
            generator = self._generator(number, "place", attempt)
            start = tuple(
                step * _between(generator, 0, -(-(length - side) // step))
                if length > side
                else (length - side) // 2
                for length in study.record["shape"]
            )
            box = study.codes(start, (side,) * 3)
            if box.tissue(_EVERY) >= _LEAST_TISSUE:
                break
        return box

    def _draw(self, number: int, view: int, box: CodeSample) -> ViewDraw:
        """Draw one view."""
        generator = self._generator(number, "view", view)
        size = (self.views.size,) * 3
        volumes = len(box.sequence)
        d, h, w = (_between(generator, 0, self.views.shift) for _ in range(3))
        drawn = augment.draw(self.ranges, size, box.spacing, volumes, generator)
        visible = torch.ones(volumes, dtype=torch.bool)
        if self.views.hide:
            shown = _between(generator, 1, volumes)
            visible[torch.randperm(volumes, generator=generator)[shown:]] = False
        grid = [side // self.patch_size for side in size]
        scores = draw_scores(grid, generator)
        return ViewDraw((d, h, w), drawn, visible, scores, _between(generator, 0, 3))

    def _generator(self, number: int, *stream: int | str) -> torch.Generator:
        """The generator of one stream of a sample."""
        return torch.Generator().manual_seed(seed_for(self.seed, number, *stream))


def box_step(shift: int) -> int:
    """Voxels between the places at which a box may begin.

    A view begins up to `shift` voxels after its box, so that boxes at multiples of no more than
    that still give views everywhere; at multiples of a block far fewer blocks are decoded.
    """
    return 1 << (max(1, min(shift, BLOCK)).bit_length() - 1)


def collate_pairs(pairs: Sequence[ViewPair]) -> PairBatch:
    """Join samples into a batch."""
    return PairBatch(
        boxes=collate_codes([pair.box for pair in pairs]),
        subject=torch.tensor([pair.subject for pair in pairs]),
        draws=(tuple(pair.draws[0] for pair in pairs), tuple(pair.draws[1] for pair in pairs)),
        damaged=tuple(message for pair in pairs for message in pair.damaged),
    )


def make_views(pairs: PairBatch, size: int, patch_size: int, mask: MaskConfig) -> Views:
    """Apply what was drawn for both views, on the device of the boxes.

    Args:
        pairs: B samples.
        size: Side of a view, voxels.
        patch_size: Side of a position of the mask, voxels.
        mask: Parts to mask and to predict.
    """
    boxes = pairs.boxes.decode()
    complete, noisy, shown = [], [], []
    for draws in pairs.draws:
        for study, draw in enumerate(draws):
            images = boxes.voxels[boxes.study == study, 0]
            grid = augment.sampling_grid(
                draw.augmentation,
                boxes.spacing[study],
                (size,) * 3,
                images.shape[1:],
                draw.start,
            )
            images = augment.shift_intensity(augment.resample(images, grid), draw.augmentation)
            complete.append(images)
            visible = draw.visible.to(images.device)
            noisy.append(augment.add_noise(images[visible], draw.augmentation))
            shown.append(visible)
    whole = StudyBatch(
        voxels=torch.cat(complete).unsqueeze(1),
        sequence=boxes.sequence.repeat(2),
        study=torch.cat([boxes.study, boxes.study + boxes.studies]),
        spacing=boxes.spacing.repeat(2, 1),
        keys=boxes.keys * 2,
    )
    visible = torch.cat(shown)
    tissue = tissue_positions(whole, patch_size)
    scores = torch.stack([draw.scores for draws in pairs.draws for draw in draws])
    return Views(
        visible=replace(
            whole,
            voxels=torch.cat(noisy).unsqueeze(1),
            sequence=whole.sequence[visible],
            study=whole.study[visible],
        ),
        complete=whole,
        mask=apply_scores(tissue, scores.to(tissue.device), mask),
        subject=pairs.subject,
        turns=tuple(draw.turns for draws in pairs.draws for draw in draws),
    )


def _between(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))
