"""Scans corrupted by degrees, as scanners and patients do it: severity 0 (untouched) to 5.

What is random is drawn from study, sequence and seed and is the same at every severity, which
scales its strength alone: a severity is comparable with the next one, in the manner of Hendrycks
and Dietterich 2019. The corrupted volume is normalised as preprocessing does it. Transforms are
TorchIO's, imported when the first is applied.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.intensity import CEILING, FLOOR, robust_range
from gliomoe.data_shards.order import seed_for
from gliomoe.finetune.artefacts import BIAS_TERMS, bias_field, kspace_noise

HIGHEST = 5
"""The strongest severity."""


def corrupt(sample: StudySample, corruption: str, severity: int, seed: int = 0) -> StudySample:
    """A study whose volumes are each corrupted; the background stays exactly 0.

    Args:
        sample: The whole study.
        corruption: A key of `CORRUPTIONS`.
        severity: 0 to `HIGHEST`; 0 gives the study back as it is.
        seed: With the study's key and the sequence, decides what is random.
    """
    if severity == 0:
        return sample
    spacing = tuple(sample.spacing.tolist())
    volumes = []
    for volume, sequence in zip(sample.voxels, sample.sequence.tolist(), strict=True):
        stream = seed_for(seed, "corruption", corruption, sample.key, sequence)
        generator = Generator().manual_seed(stream)
        changed = CORRUPTIONS[corruption](volume, spacing, severity, generator)
        volumes.append(_normalised(changed, volume != 0))
    return replace(sample, voxels=torch.stack(volumes))


def _normalised(volume: Tensor, tissue: Tensor) -> Tensor:
    """The robust range of the tissue to 0–1, all else 0."""
    inside = torch.where(tissue, volume, 0.0)
    low, high = robust_range(inside.numpy())
    scaled = ((inside - low) / max(high - low, FLOOR)).clamp(FLOOR, CEILING)
    return torch.where(tissue, scaled, 0.0)


Spacing = tuple[float, ...]
"""Voxel size in mm along D, H, W."""


def _bias_field(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """A factor of exp(polynomial of order 3) with coefficients up to 0.1 a degree."""
    drawn = 2 * torch.rand(BIAS_TERMS, generator=generator) - 1
    coefficients = (0.1 * severity * drawn).tolist()
    return volume * bias_field(tuple(volume.shape), coefficients)


def _noise(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """Rician noise with a standard deviation of 4 % of the tissue's range a degree."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return kspace_noise(volume[None], 0.04 * severity, seed)[0]


def _blur(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """A Gaussian with a standard deviation of 0.6 mm a degree."""
    import torchio as tio

    image = tio.ScalarImage(tensor=volume[None], affine=np.diag([*spacing, 1.0]))
    return tio.Blur(std=(0.6 * severity,) * 3)(image).data[0]


def _thick_slices(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """Axial slices with a Gaussian profile, 2 mm at half its height a degree."""
    import torchio as tio

    image = tio.ScalarImage(tensor=volume[None], affine=np.diag([*spacing, 1.0]))
    return tio.Blur(std=(0, 0, 2 * severity / 2.355))(image).data[0]


def _gamma(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """Another contrast: to the power exp(±0.12) a degree, up or down by chance."""
    import torchio as tio

    sign = 1 if torch.rand(1, generator=generator).item() < 0.5 else -1
    return tio.Gamma(float(np.exp(0.12 * severity * sign)))(volume[None])[0]


def _ghosting(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """4 to 10 ghosts along an in-plane axis, from planes of k-space weakened by 15 % a degree."""
    import torchio as tio

    ghosts = int(torch.randint(4, 11, (1,), generator=generator))
    axis = int(torch.randint(2, (1,), generator=generator))
    ghosted = tio.Ghosting(ghosts, axis, intensity=0.15 * severity, restore=0.02)(volume[None])
    return ghosted[0]


def _motion(volume: Tensor, spacing: Spacing, severity: int, generator: Generator) -> Tensor:
    """Two movements during the scan, each up to 1.5° and 1.5 mm along each axis a degree."""
    import torchio as tio

    degrees, shift = (2 * torch.rand(2, 2, 3, generator=generator).numpy() - 1) * 1.5 * severity
    times = torch.rand(2, generator=generator).sort().values.numpy()
    image = tio.ScalarImage(tensor=volume[None], affine=np.diag([*spacing, 1.0]))
    return tio.Motion(degrees, shift, times, "linear")(image).data[0]


CORRUPTIONS: dict[str, Callable[[Tensor, Spacing, int, Generator], Tensor]] = {
    "bias_field": _bias_field,
    "noise": _noise,
    "blur": _blur,
    "thick_slices": _thick_slices,
    "gamma": _gamma,
    "ghosting": _ghosting,
    "motion": _motion,
}
"""Name → function of volume [D, H, W], spacing, severity and what is random."""
