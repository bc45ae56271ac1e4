"""NIfTI files in and out, with every way in which one can be unusable told apart.

Notable: the header is read apart from the voxels and checked before anything of its size is
allocated, and a compressed file is never unpacked further than its header says.
"""

import gzip
import logging
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import atomic_write

MAX_VOXELS = 512 * 1024**2
"""Largest volume that is read: 2 GiB as float32, four times a head at 0.4 mm."""

SUFFIXES = (".nii", ".nii.gz")

_MAX_OFFSET = 1024**2
_MAX_SPACING = 100.0
_MAX_RATIO = 100
"""Bytes of voxels for each byte of a file, above which there is no image in it but a trap."""

_LARGE = 64 * 1024**2
"""Bytes of voxels below which that does not matter."""

_PIECE = 16 * 1024**2
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_UNREADABLE = (OSError, EOFError, zlib.error)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Volume:
    """An image on a grid of its own."""

    data: np.ndarray
    """[D, H, W] float32, intensities as the file means them."""
    affine: np.ndarray
    """[4, 4] float64, voxel → RAS+ mm."""


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def read_nifti(path: Path) -> Volume:
    """Read an image.

    Raises:
        UsageError: If there is no such file.
        DataError: If the file is no NIfTI image, is truncated or damaged, is not 3-D, has an
            impossible size or affine, is compressed beyond belief, holds NaN or infinite voxels, or
            no contrast at all.
    """
    volume = _read(path, ratio=_MAX_RATIO)
    least, most = float(volume.data.min()), float(volume.data.max())
    if least == most:
        what = "all zero" if most == 0 else f"all {most:g}"
        raise DataError(f"{path}: every voxel is the same ({what}); leave the file out")
    return volume


def read_labels(path: Path) -> Volume:
    """Read a segmentation, which may be empty; otherwise as `read_nifti`."""
    return _read(path, ratio=math.inf)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an image with a header made from nothing but its grid, atomically.

    Args:
        path: `.nii` or `.nii.gz`.
        array: [D, H, W], in a data type that NIfTI has.
        affine: [4, 4], voxel → RAS+ mm.

    Raises:
        UsageError: If the name is that of no NIfTI file.
    """
    if not is_nifti(path):
        raise UsageError(f"{path}: an image is written as .nii or .nii.gz")
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    with atomic_write(path) as file:
        file.write(gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def _read(path: Path, ratio: float) -> Volume:
    """Header, checks, voxels, checks; `ratio` bounds the bytes of voxels for a byte of file."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        with _open(path) as file:
            header = _header(file, path)
            shape, affine = _shape(header, path), _affine(header, path)
            size = math.prod(shape) * header.get_data_dtype().itemsize
            if size > max(_LARGE, ratio * path.stat().st_size):
                raise DataError(f"{path}: too small a file for its {size} bytes of voxels")
            raw = _voxels(file, header, math.prod(shape), path)
    except _UNREADABLE as error:
        raise DataError(f"{path}: truncated or damaged ({error}); copy the file again") from error
    data = _scaled(raw, header, path).reshape(shape, order="F")
    if not np.isfinite(data).all():
        count = int(np.sum(~np.isfinite(data)))
        raise DataError(
            f"{path}: {count} voxels are NaN or infinite; repair the file or leave it out"
        )
    return Volume(data, affine)


def _open(path: Path) -> IO[bytes]:
    """The file as its content says, whatever its name."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


def _header(file: IO[bytes], path: Path) -> nib.Nifti1Header:
    """The fixed part of the header; extensions are skipped unread."""
    block = file.read(348)
    size = int.from_bytes(block[:4], "little")
    if size not in _HEADERS:
        size = int.from_bytes(block[:4], "big")
    if size not in _HEADERS:
        raise DataError(f"{path}: not a NIfTI file; only .nii and .nii.gz are read")
    block += file.read(size - len(block))
    kind = _HEADERS[size]
    try:
        unchecked = kind(block, check=False)
    except (WrapStructError, ValueError) as error:
        raise DataError(f"{path}: not a valid NIfTI header ({error}); convert it again") from error
    _check_spacing(unchecked, path)  # before nibabel's own check, which makes up what is missing
    try:
        header = kind(block)
    except (HeaderDataError, WrapStructError, ValueError) as error:
        raise DataError(f"{path}: not a valid NIfTI header ({error}); convert it again") from error
    offset = float(header["vox_offset"])
    if header["magic"].item()[:2] != b"n+":
        raise DataError(f"{path}: not a single-file NIfTI; only .nii and .nii.gz are read")
    if not size <= offset <= _MAX_OFFSET:
        raise DataError(f"{path}: voxels start at byte {offset:g}; convert the file again")
    file.read(int(offset) - size)
    return header


def _check_spacing(header: nib.Nifti1Header, path: Path) -> None:
    """Refuse voxel sizes that the place in space rests on and nibabel would make up for."""
    spacing = header["pixdim"][1:4]
    if header["sform_code"] == 0 and not ((spacing > 0) & np.isfinite(spacing)).all():
        sides = " x ".join(f"{side:g}" for side in spacing)
        raise DataError(f"{path}: voxels of {sides} mm; repair the header")


def _shape(header: nib.Nifti1Header, path: Path) -> tuple[int, ...]:
    """D, H, W after trailing axes of length 1 are dropped."""
    sides = [int(n) for n in header["dim"][1 : 1 + max(0, min(int(header["dim"][0]), 7))]]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) != 3:
        raise DataError(f"{path}: {len(sides)}-D image {sides}, not 3-D; extract one 3-D volume")
    if min(sides) < 2:
        raise DataError(f"{path}: impossible size {sides}; every side needs two voxels or more")
    if math.prod(sides) > MAX_VOXELS:
        raise DataError(f"{path}: {sides} is more than {MAX_VOXELS} voxels; resample the file")
    return tuple(sides)


def _affine(header: nib.Nifti1Header, path: Path) -> np.ndarray:
    """Voxel → RAS+ mm, refused unless it spans a space of a possible size."""
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise DataError(f"{path}: no valid affine ({error}); repair the header") from error
    if not np.isfinite(affine).all():
        raise DataError(f"{path}: the affine holds NaN or infinity; repair the header")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (spacing > 0).all() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise DataError(f"{path}: the affine is singular; repair the header")
    if spacing.max() > _MAX_SPACING or spacing.min() < 1 / _MAX_SPACING:
        raise DataError(
            f"{path}: voxels of {' x '.join(f'{side:g}' for side in spacing)} mm; "
            "repair the header (are its units metres or micrometres?)"
        )
    if not header["sform_code"] and not header["qform_code"]:
        _log.warning("%s: names no coordinate space; its axes are taken as L, A, S", path)
    return affine


def _voxels(file: IO[bytes], header: nib.Nifti1Header, count: int, path: Path) -> np.ndarray:
    """The stored numbers, [count], read piece by piece up to the size that the header gives."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"{path}: voxels of type {dtype} are no intensities; convert the file")
    wanted = count * dtype.itemsize
    content = bytearray()
    while len(content) < wanted:
        piece = file.read(min(_PIECE, wanted - len(content)))
        if not piece:
            raise DataError(
                f"{path}: truncated, {len(content)} of {wanted} bytes of voxels; copy it again"
            )
        content += piece
    file.read(1)  # reaches the checksum of a compressed file
    return np.frombuffer(content, dtype)


def _scaled(raw: np.ndarray, header: nib.Nifti1Header, path: Path) -> np.ndarray:
    """Stored numbers as intensities, float32."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise DataError(f"{path}: no valid intensity scale ({error}); repair it") from error
    if slope is None or (slope == 1 and not intercept):
        return raw.astype(np.float32)
    with np.errstate(over="ignore"):
        return (raw.astype(np.float64) * slope + (intercept or 0.0)).astype(np.float32)
