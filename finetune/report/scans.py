"""Scans and label maps as small embedded NIfTI files and as static slices.

A scan is turned to RAS, cropped to its tissue, quantised to 8 bits and, if the report would grow
too large, resampled coarser; the affine follows each step, so millimetres stay true.
"""

import base64
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

LABEL_COLOURS = {1: "#0072b2", 2: "#f0e442", 3: "#d55e00"}
"""Canonical label → colour; Okabe and Ito's palette, distinct under colour blindness."""

_AIR = 12
"""Of 255; what is darker in every sequence may be cropped away at the border."""

_MARGIN = 2


@dataclass(frozen=True)
class Scan:
    """One case for the viewer, all arrays [D, H, W] on one grid."""

    title: str
    """What the picker shows."""
    images: Mapping[str, np.ndarray]
    """Sequence → intensities."""
    labels: Mapping[str, np.ndarray]
    """Layer (`prediction`, `reference`) → canonical labels; at least one."""
    affine: np.ndarray
    """[4, 4] voxel → RAS millimetres."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Name → value, shown beside the viewer."""

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size in millimetres, [3]."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def embed(scans: Sequence[Scan], budget: int) -> list[dict[str, Any]]:
    """Scans as JSON for the page's viewer.

    Args:
        scans: The cases.
        budget: Bytes that all embedded images together may take; the grids get coarser until
            they fit.

    Returns:
        Per scan `title`, `facts`, `focus` (RAS millimetres of the tumour's middle), `slices` (a PNG
        data URI), and `images` and `labels`, each name → base64 of a gzipped NIfTI file.
    """
    prepared = [_prepare(scan) for scan in scans]
    finest = min((float(scan.spacing.min()) for scan in prepared), default=1.0)
    spacing = 0.0
    while True:
        packed = [_pack(_coarsen(scan, spacing)) for scan in prepared]
        size = sum(
            len(data)
            for case in packed
            for kind in ("images", "labels")
            for data in case[kind].values()
        )
        if size <= budget:
            break
        # Size falls with the cube of the spacing; the small excess spares a third round.
        spacing = max(spacing, finest) * 1.05 * (size / budget) ** (1 / 3)
    for case, scan in zip(packed, prepared, strict=True):
        case["slices"] = _data_uri(_static_slices(scan), "image/png")
    return packed


def focus(scan: Scan) -> tuple[int, ...]:
    """The voxel to look at first: per axis the slice with most tumour, or the middle one."""
    seg = next(iter(scan.labels.values()))
    areas = [(seg > 0).sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    return tuple(int(area.argmax()) if area.any() else len(area) // 2 for area in areas)


def _static_slices(scan: Scan) -> bytes:
    """A PNG of the axial, coronal and sagittal slice through `focus`, labels over the image.

    The first image and the first label map are shown.
    """
    image = next(iter(scan.images.values()))
    seg = next(iter(scan.labels.values()))
    tiles = []
    for axis in (2, 1, 0):
        at = focus(scan)[axis]
        spacing = np.delete(scan.spacing, axis)
        tile = _tile(image.take(at, axis), seg.take(at, axis), spacing)
        # Radiological convention: the patient's right at the picture's left.
        tiles.append(tile if axis == 0 else tile[:, ::-1])
    height = max(len(tile) for tile in tiles)
    padded = [
        np.pad(t, (((height - len(t)) // 2, (height - len(t) + 1) // 2), (4, 4), (0, 0)))
        for t in tiles
    ]
    return _png(np.concatenate(padded, axis=1))


def _prepare(scan: Scan) -> Scan:
    """Turn to RAS, quantise to 8 bits and crop to the tissue."""
    images: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    affine = scan.affine
    for kind, target in ((scan.images, images), (scan.labels, labels)):
        for name, array in kind.items():
            turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, scan.affine))
            data = np.asarray(turned.dataobj)
            target[name] = _quantise(data) if kind is scan.images else data.astype(np.uint8)
            affine = turned.affine
    tissue = np.any([image > _AIR for image in images.values()], axis=0)
    if not tissue.any():
        tissue[:] = True
    box = tuple(
        slice(max(int(found.min()) - _MARGIN, 0), int(found.max()) + 1 + _MARGIN)
        for found in np.nonzero(tissue)
    )
    shift = np.eye(4)
    shift[:3, 3] = [side.start for side in box]
    return replace(
        scan,
        images={name: image[box] for name, image in images.items()},
        labels={name: seg[box] for name, seg in labels.items()},
        affine=affine @ shift,
    )


def _quantise(image: np.ndarray) -> np.ndarray:
    """Intensities as uint8, the robust range of what is not background over 0 to 255."""
    low, high = np.percentile(image[image != 0], [0.5, 99.5]) if image.any() else (0.0, 1.0)
    low = min(low, 0.0) if low > 0 else low
    scaled = (image - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _coarsen(scan: Scan, spacing: float) -> Scan:
    """Resample axes finer than `spacing` millimetres to it; images linearly, labels by nearest."""
    factors = np.maximum(spacing / scan.spacing, 1.0)
    if np.all(factors == 1.0):
        return scan
    shape = next(iter(scan.images.values())).shape
    new = np.maximum(np.round(np.array(shape) / factors), 1)
    step = np.array(shape) / new
    to_old = np.diag([*step, 1.0])
    to_old[:3, 3] = 0.5 * step - 0.5

    def zoom(array: np.ndarray, order: int) -> np.ndarray:
        return ndimage.zoom(array, new / shape, order=order, mode="nearest", grid_mode=True)

    return replace(
        scan,
        images={name: zoom(image, 1) for name, image in scan.images.items()},
        labels={name: zoom(seg, 0) for name, seg in scan.labels.items()},
        affine=scan.affine @ to_old,
    )


def _pack(scan: Scan) -> dict[str, Any]:
    """The JSON of one scan, without its slices."""

    def pack(array: np.ndarray) -> str:
        header = nibabel.Nifti1Image(array, scan.affine)
        header.header.set_xyzt_units("mm")
        return base64.b64encode(gzip.compress(header.to_bytes(), 6, mtime=0)).decode("ascii")

    return {
        "title": scan.title,
        "facts": dict(scan.facts),
        "focus": [float(mm) for mm in scan.affine[:3] @ [*focus(scan), 1]],
        "images": {name: pack(image) for name, image in scan.images.items()},
        "labels": {name: pack(seg) for name, seg in scan.labels.items()},
    }


def _tile(image: np.ndarray, seg: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 of one slice, square pixels of 1 mm, rows downwards."""
    zoom = [max(round(n * s), 1) / n for n, s in zip(image.shape, spacing, strict=True)]
    grey = ndimage.zoom(image, zoom, order=1, mode="nearest", grid_mode=True)
    label = ndimage.zoom(seg, zoom, order=0, mode="nearest", grid_mode=True)
    rgb = np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)
    for number, colour in LABEL_COLOURS.items():
        paint = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        where = label == number
        rgb[where] = 0.5 * rgb[where] + 0.5 * paint
    # Array axes run right and up; a picture's rows run down.
    return np.round(rgb).astype(np.uint8).swapaxes(0, 1)[::-1]


def _png(rgb: np.ndarray) -> bytes:
    from matplotlib.image import imsave

    target = io.BytesIO()
    imsave(target, np.ascontiguousarray(rgb), format="png")
    return target.getvalue()


def _data_uri(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"
