"""Good files are read as nibabel reads them; every kind of bad one is refused in one line."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.nifti import read_labels, read_nifti, write_nifti

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 0, 1.5, -4], [0, 3, 0, 2], [0, 0, 0, 1]])


def picture(dtype=np.int16, shape=(6, 5, 4)):
    return (np.arange(np.prod(shape)).reshape(shape) - (0 if dtype == np.uint8 else 7)).astype(
        dtype
    )


def content(data, srow=None, **fields):
    """A file whose header says what nibabel would not let it say."""
    header = nib.Nifti1Image(data, AFFINE).header
    if srow is not None:
        fields.update(sform_code=1, qform_code=0)
        fields.update({f"srow_{axis}": row for axis, row in zip("xyz", srow, strict=False)})
    for name, value in {"vox_offset": 352, **fields}.items():
        header[name] = value
    return header.binaryblock + bytes(4) + data.tobytes(order="F")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_as_nibabel_reads(tmp_path, dtype, kind, suffix):
    path = tmp_path / f"a{suffix}"
    image = kind(picture(dtype), AFFINE)
    image.header.set_slope_inter(2.5, -3) if dtype == np.uint8 else None
    nib.save(image, path)
    expected = nib.load(path)
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.data, expected.get_fdata().astype(np.float32))
    np.testing.assert_allclose(volume.affine, expected.affine)
    assert volume.data.dtype == np.float32


def test_big_endian_and_trailing_axes(tmp_path):
    path = tmp_path / "a.nii"
    data = picture()[..., None]
    image = nib.Nifti1Image(data, AFFINE, nib.Nifti1Header(endianness=">"))
    path.write_bytes(image.to_bytes())
    np.testing.assert_array_equal(read_nifti(path).data, data[..., 0])


def test_written_files_carry_nothing_but_the_grid(tmp_path):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in paths:
        write_nifti(path, picture(np.uint8), AFFINE)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    image = nib.load(paths[0])
    np.testing.assert_array_equal(np.asarray(image.dataobj), picture(np.uint8))
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8 and image.header["descrip"].item() == b""
    with pytest.raises(UsageError, match="written as .nii or .nii.gz"):
        write_nifti(tmp_path / "a.png", picture(), AFFINE)


def float_with(value):
    data = picture(np.float32)
    data[1, 2, 3] = value
    return data


ZERO, NAN, FLAT = np.zeros((4, 4)), AFFINE * np.nan, np.diag([1.0, 1, 0, 1])

BAD = {
    "truncated": (gzip.compress(content(picture()))[:-40], "truncated"),
    "short": (content(picture())[:-10], "truncated, 230 of 240 bytes"),
    "flipped": (gzip.compress(content(picture()))[:-8] + bytes(8), "damaged"),
    "text": (b"this is no image, whatever its name says" * 20, "not a NIfTI file"),
    "empty": (b"", "not a NIfTI file"),
    "four_d": (content(np.zeros((4, 4, 4, 3), np.int16)), r"4-D image \[4, 4, 4, 3\]"),
    "two_d": (content(np.zeros((4, 4), np.int16)), "2-D image"),
    "slice": (content(np.zeros((4, 4, 1), np.int16)), "impossible size"),
    "nan": (content(float_with(np.nan)), "1 voxels are NaN"),
    "infinite": (content(float_with(np.inf)), "1 voxels are NaN or infinite"),
    "zeros": (content(np.zeros((4, 5, 6), np.int16)), r"every voxel is the same \(all zero\)"),
    "constant": (content(np.full((4, 5, 6), 3, np.int16)), "every voxel is the same"),
    "huge": (content(picture(), dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "more than"),
    "negative": (content(picture(), dim=[3, -6, 5, 4, 1, 1, 1, 1]), "impossible size"),
    "no_size": (content(picture(), dim=[3, 0, 0, 0, 1, 1, 1, 1]), "impossible size"),
    "offset": (content(picture(), vox_offset=1e9), "start at byte 1e"),
    "complex": (content(picture().astype(np.complex64)), "no intensities"),
    "affine_zero": (content(picture(), ZERO), "affine is singular"),
    "affine_flat": (content(picture(), FLAT), "affine is singular"),
    "affine_nan": (content(picture(), NAN), "affine holds NaN"),
    "spacing_zero": (
        content(picture(), sform_code=0, qform_code=0, pixdim=[1, 1, 0, 1, 0, 0, 0, 0]),
        "voxels of 1 x 0 x 1 mm",
    ),
    "spacing_negative": (
        content(picture(), sform_code=0, qform_code=1, pixdim=[1, 1, -2, 1, 0, 0, 0, 0]),
        "voxels of 1 x -2 x 1 mm",
    ),
    "spacing_infinite": (
        content(picture(), sform_code=0, qform_code=1, pixdim=[1, 1, np.inf, 1, 0, 0, 0, 0]),
        "voxels of 1 x inf x 1 mm",
    ),
    "qform_impossible": (
        content(picture(), sform_code=0, qform_code=1, quatern_b=2.0, quatern_c=2.0),
        "no valid affine",
    ),
    "metres": (content(picture(), AFFINE * 1e-3), "voxels of 0.002"),
    "slope": (content(picture(), scl_slope=2, scl_inter=np.inf), "no valid intensity scale"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, name):
    data, message = BAD[name]
    path = tmp_path / f"{name}.nii.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read_nifti(path)
    assert str(error.value).count(str(path)) == 1
    assert "\n" not in str(error.value)


def test_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(content(picture()) + bytes(200_000_000), 1))
    taken = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: taken.append(n) or read(self, n))
    assert read_nifti(path).data.shape == (6, 5, 4)
    assert min(taken) >= 0 and sum(taken) < 1000


def test_bombs_that_fit_their_header_are_not_unpacked(tmp_path, monkeypatch):
    """Equal voxels shrink a hundredfold, images never do; labels may, and then are read."""
    path = tmp_path / "bomb.nii.gz"
    sides = (512, 512, 144)
    head = content(picture(), dim=[3, *sides, 1, 1, 1, 1])[:352]
    path.write_bytes(gzip.compress(head + bytes(2 * 512 * 512 * 144), 1))
    taken = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: taken.append(n) or read(self, n))
    with pytest.raises(DataError, match="too small a file for its 75497472 bytes of voxels"):
        read_nifti(path)
    assert sum(taken) < 1000
    assert read_labels(path).data.shape == sides


def test_an_affine_that_is_missing_is_named(tmp_path, caplog):
    path = tmp_path / "a.nii"
    path.write_bytes(content(picture(), sform_code=0, qform_code=0))
    volume = read_nifti(path)
    assert f"{path}: names no coordinate space; its axes are taken as L, A, S" in caplog.text
    assert (np.diag(volume.affine)[:3] * [-1, 1, 1] > 0).all()


def test_what_cannot_be_opened(tmp_path, monkeypatch):
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(UsageError, match="no such file"):
        read_nifti(tmp_path / "folder.nii.gz")
    path = tmp_path / "a.nii.gz"
    write_nifti(path, picture(), AFFINE)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        read_nifti(path)


def test_labels_may_be_empty_and_files_may_not_be_there(tmp_path):
    path = tmp_path / "seg.nii.gz"
    write_nifti(path, np.zeros((4, 5, 6), np.uint8), AFFINE)
    assert not read_labels(path).data.any()
    with pytest.raises(UsageError, match="no such file"):
        read_nifti(tmp_path / "none.nii.gz")
