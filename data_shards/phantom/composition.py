"""What each voxel consists of: healthy tissue, tumour compartments, lesions; and its label."""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.labels import from_canonical
from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import FWHM_PER_SIGMA, MODEL_GRID, Grid, smooth_step
from gliomoe.data_shards.phantom.tumour.growth import Tumour
from gliomoe.data_shards.phantom.tumour.satellites import paint

CORE, OEDEMA, ENHANCING, CAVITY = 1, 2, 3, 4
"""Canonical labels. As in BraTS, necrosis and solid tumour without enhancement share 1."""

_FLUID = ("csf", "vessel", "dura")
"""What disease of tissue does not replace."""
_CORE_TISSUES = ("calcification", "enhancing", "necrosis", "mismatch", "solid")
_GREY_SPARED = 0.65
"""Share by which grey matter takes up less oedema than white."""
_SEEN = 0.3
"""Abnormal share of a voxel from which a rater draws it; oedema fades further out."""
_BRIGHT = 0.42
"""Enhancing share of the core from which a rater calls it enhancing."""

Shares = dict[str, np.ndarray]


def compose(
    anatomy: Anatomy,
    tumour: Tumour | None = None,
    lesions: Shares | None = None,
    envelope: Shares | None = None,
) -> Shares:
    """Shares of every tissue.

    Args:
        anatomy: The brain on the grid to render, with the tumour's mass effect.
        tumour: What `grow_tumour` gave, or None.
        lesions: Tissue → share on the model grid, of disease in grey and white matter.
        envelope: Tissue → share on the brain's grid, of what takes the place of CSF.

    Returns:
        Tissue (`TISSUES` of the scanner) → [D, H, W] float32; they sum to 1 in the brain and to 0
        outside.
    """
    shares = {"gm": anatomy.gm, "wm": anatomy.wm, "csf": anatomy.csf.copy(), **(envelope or {})}
    for share in (envelope or {}).values():
        shares["csf"] -= share
    for tissue, field in (lesions or {}).items():
        lesion = MODEL_GRID.resample(field, anatomy.grid)
        solid = sum(share for name, share in shares.items() if name not in _FLUID)
        shares = _replace(shares, {tissue: lesion * solid}, lesion, _FLUID)
    if tumour is not None:
        shares = _add_tumour(shares, tumour, anatomy)
    return shares


def label(shares: Shares, convention: str = "brats2021") -> np.ndarray:
    """Segmentation of a composition with a tumour, as a rater would draw it.

    A voxel belongs to what there is most of, once enough of it is abnormal.

    Args:
        shares: What `compose` returned.
        convention: A key of `CONVENTIONS` in `labels.py`.

    Returns:
        [D, H, W] uint8, labels of that convention.

    Raises:
        ValueError: If there is a cavity and the convention has no label for it.
    """
    core = np.zeros_like(shares["oedema"])
    for name in _CORE_TISSUES:
        core += shares[name]
    oedema, cavity = shares["oedema"], shares["cavity"]
    seg = np.zeros(core.shape, np.uint8)
    abnormal = core + oedema
    seen = (abnormal >= _SEEN) & (abnormal >= cavity)
    seg[seen] = OEDEMA
    seen &= core >= oedema
    seg[seen] = CORE
    seg[seen & (shares["enhancing"] >= np.float32(_BRIGHT) * core)] = ENHANCING
    seg[(cavity >= _SEEN) & (cavity > abnormal)] = CAVITY
    return from_canonical(seg, convention)


def signal_texture(tumour: Tumour, grid: Grid) -> np.ndarray:
    """What a tumour adds to the factor of the signal on a grid, [D, H, W] float32."""
    out = np.zeros(grid.shape, np.float32)
    box, part = _overlap(tumour.grid, grid)
    out[box] = _render(tumour.texture[None], tumour.grid, part)[0]
    return out


def _replace(
    shares: Shares, added: Shares, share: np.ndarray, spared: tuple[str, ...] = ()
) -> Shares:
    """Scale what was there by what is left after `share`, but for the spared, and add."""
    kept = {
        name: field if name in spared else field * (1 - share) for name, field in shares.items()
    }
    for name, field in added.items():
        kept[name] = kept[name] + field if name in kept else field
    return kept


def _add_tumour(shares: Shares, tumour: Tumour, anatomy: Anatomy) -> Shares:
    """Put oedema into tissue, the core over everything, then satellites and the cavity."""
    grid = anatomy.grid
    box, part = _overlap(tumour.grid, grid)
    fields = [*(tumour.core * tumour.parts[name] for name in _CORE_TISSUES)]
    fields += [tumour.core, tumour.engulfed, tumour.oedema, tumour.cavity]
    rendered = _render(np.stack(fields), tumour.grid, part)
    parts = dict(zip(_CORE_TISSUES, rendered, strict=False))
    member, engulfed, wet, cavity = rendered[len(_CORE_TISSUES) :]
    brain = anatomy.brain[box]

    local = {name: share[box] for name, share in shares.items()}
    # At its border a tumour leaves CSF free; sulci deep in it are filled.
    open_water = smooth_step(anatomy.csf[box] * (1 - engulfed), 0.5, 0.9)
    held = brain * (1 - open_water)
    tissue = sum(share for name, share in local.items() if name not in _FLUID)
    grey = anatomy.gm[box] / np.maximum(anatomy.gm[box] + anatomy.wm[box], np.float32(1e-3))
    wet = wet * (1 - np.float32(_GREY_SPARED) * grey) * (1 - member)
    local = _replace(local, {"oedema": wet * tissue}, wet, _FLUID)
    parts = {name: share * held for name, share in parts.items()}
    local = _replace(local, parts, sum(parts.values()))
    local = _replace(local, {"cavity": cavity * brain}, cavity * brain)

    out = {name: np.zeros(grid.shape, np.float32) for name in local if name not in shares}
    out |= {name: share.copy() for name, share in shares.items()}
    for name, share in local.items():
        out[name][box] = share
    for satellite in tumour.satellites:
        box, focus = paint(satellite, grid)
        focus = focus * anatomy.brain[box]
        for share in out.values():
            share[box] *= 1 - focus
        out[tumour.satellite_tissue][box] += focus
    return out


def _overlap(inner: Grid, grid: Grid) -> tuple[tuple[slice, ...], Grid]:
    """The box of a grid that lies in another, as slices and as a grid."""
    box, origin = [], []
    for axis in range(3):
        low = inner.origin[axis]
        high = low + inner.spacing * (inner.shape[axis] - 1)
        start = max(int(np.ceil((low - grid.origin[axis]) / grid.spacing)), 0)
        stop = int(np.floor((high - grid.origin[axis]) / grid.spacing)) + 1
        stop = max(min(stop, grid.shape[axis]), start + 1)
        box.append(slice(start, stop))
        origin.append(grid.origin[axis] + grid.spacing * start)
    shape = tuple(side.stop - side.start for side in box)
    return tuple(box), Grid(shape, grid.spacing, tuple(origin))


def _render(fields: np.ndarray, inner: Grid, grid: Grid) -> np.ndarray:
    """Fields [C, D, H, W] of the detail grid in the voxels of a grid, averaged over coarse ones."""
    width = np.sqrt(max(grid.spacing**2 - inner.spacing**2, 0.0)) / FWHM_PER_SIGMA / inner.spacing
    if width:
        fields = np.stack([ndimage.gaussian_filter(field, width) for field in fields])
    return inner.resample(fields, grid)
