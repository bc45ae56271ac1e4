"""What each voxel consists of: healthy tissue, tumour compartments, lesions; and its label."""

import numpy as np

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, smooth_step
from gliomoe.data_shards.phantom.tumour.growth import Tumour

CORE, OEDEMA, ENHANCING = 1, 2, 4
"""Labels of BraTS up to 2022. As there, necrosis and solid tumour without enhancement share 1."""

_FLUID = ("csf", "vessel")
"""What disease of tissue does not replace."""


def compose(
    anatomy: Anatomy,
    tumour: Tumour | None = None,
    lesions: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Shares of every tissue.

    Args:
        anatomy: The brain on the grid to render, with the tumour's mass effect.
        tumour: Its fields on the model grid, or None.
        lesions: Tissue → share on the model grid, of disease in grey and white matter.

    Returns:
        Tissue (`TISSUES` of the scanner) → [D, H, W] float32; they sum to 1
        in the brain and to 0 outside.
    """
    x, y, z = anatomy.position
    # The sagittal sinus and the falx: the vessels that a skull-stripped T1ce shows first.
    midline = smooth_step(np.abs(x), 5, 2.5) * ((z > 25) | (y < -65))
    vessel = np.float32(0.5) * midline * anatomy.csf
    shares = {
        "gm": anatomy.gm,
        "wm": anatomy.wm,
        "csf": anatomy.csf - vessel,
        "vessel": vessel,
    }
    for tissue, field in (lesions or {}).items():
        lesion = MODEL_GRID.resample(field, anatomy.grid)
        solid = sum(share for name, share in shares.items() if name not in _FLUID)
        shares = _replace(shares, {tissue: lesion * solid}, lesion, _FLUID)
    if tumour is not None:
        shares = _add_tumour(shares, tumour, anatomy)
    return shares


def label(shares: dict[str, np.ndarray]) -> np.ndarray:
    """Segmentation of a composition with a tumour.

    Args:
        shares: What `compose` returned.

    Returns:
        [D, H, W] uint8, labels 0, 1, 2, 4.
    """
    enhancing = shares["enhancing"]
    rest = shares["necrosis"] + shares["solid"] + shares["mismatch"] + shares["calcification"]
    core = enhancing + rest
    seg = np.zeros(core.shape, np.uint8)
    seg[core + shares["oedema"] >= 0.5] = OEDEMA
    seg[core >= 0.5] = CORE
    seg[(core >= 0.5) & (enhancing > rest)] = ENHANCING
    return seg


def _replace(
    shares: dict[str, np.ndarray],
    added: dict[str, np.ndarray],
    share: np.ndarray,
    spared: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Scale what was there by what is left after `share`, but for the spared, and add."""
    kept = {
        name: field if name in spared else field * (1 - share) for name, field in shares.items()
    }
    return {**kept, **added}


def _add_tumour(
    shares: dict[str, np.ndarray], tumour: Tumour, anatomy: Anatomy
) -> dict[str, np.ndarray]:
    """Put oedema into tissue, then the core over everything."""

    def at(field: np.ndarray) -> np.ndarray:
        return MODEL_GRID.resample(field, anatomy.grid)

    density = at(tumour.density)
    wet = np.maximum(smooth_step(density, 0.1, 0.4), at(tumour.oedema))
    solid = sum(share for name, share in shares.items() if name not in _FLUID)
    shares = _replace(shares, {"oedema": wet * solid}, wet, _FLUID)

    core = smooth_step(density, 0.4, 0.6) * anatomy.brain
    necrosis = smooth_step(at(tumour.necrosis), -0.8, 0.8)
    living = 1 - necrosis
    calcification = at(tumour.calcification) * living
    enhancing = at(tumour.enhancing) * (living - calcification)
    mismatch = at(tumour.interior) * (living - calcification - enhancing)
    parts = {
        "necrosis": necrosis,
        "calcification": calcification,
        "enhancing": enhancing,
        "mismatch": mismatch,
        "solid": living - calcification - enhancing - mismatch,
    }
    return _replace(shares, {name: core * part for name, part in parts.items()}, core)
