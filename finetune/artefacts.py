"""MRI artefacts on top of the augmentation: bias field, k-space noise and spikes, as in TorchIO.

What is random is drawn from an explicit generator, apart from its application. TorchIO is imported
when the first spike is applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.polynomial.polynomial import polygrid3d
from torch import Tensor

from gliomoe.data_shards.batch import StudySample

BIAS_ORDER = 3
BIAS_TERMS = (BIAS_ORDER + 1) * (BIAS_ORDER + 2) * (BIAS_ORDER + 3) // 6


@dataclass(frozen=True)
class ArtefactConfig:
    """How often and how strong, per volume."""

    bias_field: float = 0.3
    """Probability of a bias field."""
    bias_strength: float = 0.3
    """Largest coefficient of the field's polynomial of order 3."""
    kspace_noise: float = 0.15
    """Probability of complex Gaussian noise in k-space."""
    kspace_sigma: float = 0.05
    """Largest standard deviation of that noise, as it is in the image."""
    spike: float = 0.05
    """Probability of one spike in k-space (a herringbone pattern)."""
    spike_strength: float = 0.3
    """Largest height of the spike, as a part of the spectrum's maximum."""

    @property
    def active(self) -> bool:
        """Whether anything can happen."""
        return max(self.bias_field, self.kspace_noise, self.spike) > 0


@dataclass(frozen=True)
class Artefacts:
    """What was drawn for one volume; None where nothing happens."""

    bias: tuple[float, ...] | None
    """Coefficients of the polynomial."""
    noise: tuple[float, int] | None
    """Standard deviation and seed."""
    spike: tuple[tuple[float, float, float], float] | None
    """Position as a part of the k-space's sides, and height."""


def draw(config: ArtefactConfig, volumes: int, generator: torch.Generator) -> list[Artefacts]:
    """Draw the artefacts of each volume of a study."""

    def uniform(count: int) -> list[float]:
        return torch.rand(count, generator=generator).tolist()

    drawn = []
    for _ in range(volumes):
        happens = uniform(3)
        coefficients = tuple(config.bias_strength * (2 * u - 1) for u in uniform(BIAS_TERMS))
        sigma, *position, height = uniform(5)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        at = (position[0], position[1], position[2])
        drawn.append(
            Artefacts(
                bias=coefficients if happens[0] < config.bias_field else None,
                noise=(config.kspace_sigma * sigma, seed)
                if happens[1] < config.kspace_noise
                else None,
                spike=(at, config.spike_strength * (2 * height - 1))
                if happens[2] < config.spike
                else None,
            )
        )
    return drawn


def apply(sample: StudySample, drawn: list[Artefacts]) -> StudySample:
    """A sample with its artefacts; the background stays exactly 0."""
    volumes = [_apply_one(volume, what) for volume, what in zip(sample.voxels, drawn, strict=True)]
    return replace(sample, voxels=torch.stack(volumes))


def _apply_one(volume: Tensor, drawn: Artefacts) -> Tensor:
    """One volume, [D, H, W]."""
    if drawn == Artefacts(None, None, None):
        return volume
    image = volume[None]
    if drawn.bias is not None:
        image = image * bias_field(tuple(volume.shape), drawn.bias)
    if drawn.noise is not None:
        image = kspace_noise(image, *drawn.noise)
    if drawn.spike is not None:
        import torchio as tio

        position, height = drawn.spike
        image = tio.Spike(spikes_positions=np.array([position]), intensity=height)(image)
    return torch.where(volume != 0, image[0].to(volume.dtype), 0.0)


def bias_field(shape: tuple[int, ...], coefficients: Sequence[float]) -> Tensor:
    """The exponential of a polynomial of order 3 on the grid, TorchIO's `BiasField`.

    TorchIO sums the terms voxel by voxel, at fifteen times the cost.

    Args:
        shape: D, H, W.
        coefficients: Of the terms x^i y^j z^k with i + j + k up to 3, k running fastest; the
            coordinates go from -1 to 1 along each side.
    """
    terms = np.indices((BIAS_ORDER + 1,) * 3).sum(0) <= BIAS_ORDER
    table = np.zeros(terms.shape)
    table[terms] = coefficients
    x, y, z = (np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in shape)
    return torch.from_numpy(np.exp(polygrid3d(x, y, z, table))).float()


def kspace_noise(image: Tensor, sigma: float, seed: int) -> Tensor:
    """The magnitude of an image with complex Gaussian noise, white in k-space as in the image."""
    generator = torch.Generator().manual_seed(seed)
    real, imaginary = sigma * torch.randn(2, *image.shape, generator=generator)
    return torch.hypot(image + real, imaginary)
