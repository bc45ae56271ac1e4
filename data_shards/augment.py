"""Augmentation of MAGPIE's list, drawn for one study at a time and applied with one resampling.

What is random is drawn first (`draw`, on the CPU, from an explicit generator) and applied later
(`resample`, `shift_intensity`, `add_noise`, or all of them by `augment`), on any device. Rotation,
scaling, translation, elastic deformation and the crop out of a larger box are a single resampling;
lengths are in millimetres, so that the same settings mean the same at every voxel size.
Background stays exactly 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.data_shards.batch import StudyBatch

_STEPS_PER_SIGMA = 2.0
_REACH = 3.0


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentation (MAGPIE, implementation details)."""

    rotation: float = 15.0
    """Largest angle about each axis, degrees."""
    scale: float = 0.1
    """Scaling is drawn from 1 - scale to 1 + scale."""
    translation: float = 0.1
    """Largest shift along each axis, as a part of the side."""
    elastic_alpha: float = 250.0
    """Strength of the elastic deformation, mm per unit of noise smoothed by `elastic_sigma`."""
    elastic_sigma: float = 10.0
    """Width of the Gaussian that smooths the elastic deformation, mm; 0 turns it off."""
    intensity: float = 0.1
    """Largest shift of a sequence's intensities, whose robust range is 0 to 1."""
    noise: float = 0.05
    """Standard deviation of the Gaussian noise."""

    def __post_init__(self) -> None:
        """Refuse ranges that mean nothing."""
        if min(vars(self).values()) < 0:
            raise ValueError("augmentation ranges must not be negative")
        if self.scale >= 1:
            raise ValueError("augment.scale must be below 1")


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for one study."""

    matrix: Tensor
    """[3, 3] float32, rotation and scaling: offset from the centre in the result (mm) → in the
    input (mm)."""
    translation: Tensor
    """[3] float32, mm."""
    elastic: Tensor | None
    """[3, d, h, w] float32, displacement at control points that span the result, mm; or None."""
    intensity: Tensor
    """[V] float32, shift of each volume."""
    noise: float
    """Standard deviation of the noise."""
    noise_seed: int
    """Seed of the noise, which is as large as the image and therefore made when it is applied."""


def draw(
    config: AugmentConfig,
    size: Sequence[int],
    spacing: Tensor,
    volumes: int,
    generator: torch.Generator,
) -> Augmentation:
    """Draw the augmentation of one study.

    Args:
        config: Ranges.
        size: D, H, W of the result, voxels.
        spacing: [3] mm.
        volumes: V of this study.
        generator: A CPU generator; its state alone decides the result.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    extent = torch.tensor([float(side) for side in size]) * spacing
    angles = uniform(3) * math.radians(config.rotation)
    return Augmentation(
        matrix=_rotation(angles) * (1 + config.scale * uniform(1)),
        translation=uniform(3) * config.translation * extent,
        elastic=_draw_elastic(config, extent, generator),
        intensity=uniform(volumes) * config.intensity,
        noise=config.noise,
        noise_seed=int(torch.randint(2**62, (1,), generator=generator)),
    )


def augment(batch: StudyBatch, draws: Sequence[Augmentation]) -> StudyBatch:
    """Apply what was drawn for each study; the segmentation follows with nearest neighbours.

    Args:
        batch: B studies.
        draws: B augmentations, each drawn for the size and the volumes of its study.

    Returns:
        A batch of the same shapes, on the same device.
    """
    size = batch.voxels.shape[2:]
    voxels, segs = [], []
    for index, drawn in enumerate(draws):
        images = batch.voxels[batch.study == index, 0]
        grid = sampling_grid(drawn, batch.spacing[index], size, size)
        images = shift_intensity(resample(images, grid), drawn)
        voxels.append(add_noise(images, drawn))
        if batch.seg is not None:
            segs.append(resample(batch.seg[index, None], grid, "nearest")[0])
    return replace(
        batch,
        voxels=torch.cat(voxels).unsqueeze(1),
        seg=torch.stack(segs) if segs else None,
    )


def sampling_grid(
    drawn: Augmentation,
    spacing: Tensor,
    size: Sequence[int],
    box: Sequence[int],
    start: Sequence[int] | None = None,
) -> Tensor:
    """Where each voxel of the result lies in the input.

    Args:
        drawn: Rotation, scaling, translation and elastic deformation, about the result's centre.
        spacing: [3] mm; its device is the result's.
        size: D, H, W of the result.
        box: D, H, W of the input.
        start: Voxel of the input at which an unaugmented result would begin; None centres it.

    Returns:
        [D, H, W, 3] float32, coordinates for `torch.nn.functional.grid_sample` (W, H, D order,
        `align_corners=False`).
    """
    device = spacing.device
    sides = torch.tensor([float(side) for side in box], device=device)
    extent = torch.tensor([float(side) for side in size], device=device)
    begin = (sides - extent) / 2 if start is None else torch.tensor(start, device=device)
    centre = begin + (extent - 1) / 2
    matrix = drawn.matrix.to(device)
    axes = [
        (torch.arange(n, device=device) - (n - 1) / 2) * step
        for n, step in zip(size, spacing, strict=True)
    ]
    offset = (
        axes[0][:, None, None, None] * matrix[:, 0]
        + axes[1][None, :, None, None] * matrix[:, 1]
        + axes[2][None, None, :, None] * matrix[:, 2]
        + drawn.translation.to(device)
    )
    if drawn.elastic is not None:
        field = drawn.elastic.to(device)[None]
        field = F.interpolate(field, tuple(size), mode="trilinear", align_corners=True)
        offset = offset + field[0].permute(1, 2, 3, 0)
    voxel = centre + offset / spacing
    return ((2 * voxel + 1) / sides - 1).flip(-1)


def resample(images: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Images at the points of a sampling grid; outside the input they are 0.

    Args:
        images: [V, D, H, W], all of one study.
        grid: [d, h, w, 3] from `sampling_grid`.
        mode: `bilinear` (trilinear in three dimensions) or `nearest` for labels.

    Returns:
        [V, d, h, w] of the images' type.
    """
    found = F.grid_sample(
        images[None].to(grid.dtype),
        grid[None],
        mode=mode,
        padding_mode="zeros",
        align_corners=False,
    )
    return found[0].to(images.dtype)


def shift_intensity(images: Tensor, drawn: Augmentation) -> Tensor:
    """Add each volume's shift to its tissue, [V, D, H, W] → the same."""
    shift = drawn.intensity.to(images)[:, None, None, None]
    return torch.where(images == 0, images, images + shift)


def add_noise(images: Tensor, drawn: Augmentation) -> Tensor:
    """Add Gaussian noise to the tissue, [V, D, H, W] → the same.

    The noise of one seed is the same on every machine with the same kind of device.
    """
    if drawn.noise == 0:
        return images
    generator = torch.Generator(images.device).manual_seed(drawn.noise_seed)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return torch.where(images == 0, images, images + drawn.noise * noise)


def _rotation(angles: Tensor) -> Tensor:
    """[3, 3] rotation about the three axes in turn, by angles in radians."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (k for k in range(3) if k != axis)
        turn = torch.eye(3)
        turn[i, i] = turn[j, j] = angle.cos()
        turn[i, j], turn[j, i] = -angle.sin(), angle.sin()
        matrix = matrix @ turn
    return matrix


def _draw_elastic(
    config: AugmentConfig, extent: Tensor, generator: torch.Generator
) -> Tensor | None:
    """Smoothed noise at control points half a sigma apart.

    Uniform noise in -1 to 1 at every millimetre, smoothed by a Gaussian of width sigma and
    multiplied by alpha, has the standard deviation below; drawing it on the coarse grid gives the
    same field at a small part of the work.
    """
    sigma = config.elastic_sigma
    if sigma == 0 or config.elastic_alpha == 0:
        return None
    deviation = config.elastic_alpha / math.sqrt(3) / (2 * math.sqrt(math.pi) * sigma) ** 1.5
    reach = int(_STEPS_PER_SIGMA * _REACH)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / _STEPS_PER_SIGMA) ** 2)
    kernel = kernel / kernel.norm()  # keeps unit variance
    points = [math.ceil(float(side) * _STEPS_PER_SIGMA / sigma) + 1 for side in extent]
    field = torch.randn(3, *(n + 2 * reach for n in points), generator=generator)
    for axis, n in enumerate(points, start=1):
        field = torch.movedim(torch.movedim(field, axis, -1) @ _smoothing(kernel, n), -1, axis)
    return (field * deviation).contiguous()


def _smoothing(kernel: Tensor, points: int) -> Tensor:
    """[points + K - 1, points] matrix that applies a kernel [K] wherever it fits."""
    band = torch.zeros(points + len(kernel) - 1, points)
    for column in range(points):
        band[column : column + len(kernel), column] = kernel
    return band
