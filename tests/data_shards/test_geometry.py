"""Headers that contradict each other are refused by name, before anything is moved by them."""

import numpy as np
import pytest

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.nifti import read_labels, read_nifti, write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.geometry import check_geometry

SHAPE = (40, 36, 30)


def series(spacing=(1.0, 1.0, 1.0), shape=SHAPE, shift=(0, 0, 0), dtype=np.float32):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = shift
    return Series(np.ones(shape, dtype), affine)


def labels(**where):
    return series(dtype=np.uint8, **where)


BAD = {
    "a neighbour's spacing": (
        {"t1": series(), "t2": series((1, 1, 10))},
        None,
        "t1 and t2 have the same size but voxels of 1 x 1 x 1 and 1 x 1 x 10 mm",
    ),
    "field of view": (
        {"t1": series(), "t2": series((1, 1, 50), (40, 36, 24))},
        None,
        "t2 has voxels of 1 x 1 x 50 mm and so a field of view of 1200 mm",
    ),
    "labels elsewhere": (
        {"t1": series(), "t2": series((2, 2, 2), (20, 18, 15))},
        labels(shift=(30, 0, 0)),
        "the segmentation has the size of t1 but lies elsewhere",
    ),
    "labels without a header": (
        {"t1": series((0.9, 0.9, 5))},
        labels(),
        "the segmentation has the size of t1 but lies elsewhere",
    ),
    "axes exchanged": (
        {"t1": series()},
        labels(shape=(36, 40, 30)),
        "the segmentation has the size of t1 with its axes exchanged",
    ),
    "no overlap": (
        {"t1": series()},
        labels(shape=(20, 20, 20), shift=(300, 0, 0)),
        "most labels lie outside of t1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_contradictions_are_refused(name):
    images, seg, message = BAD[name]
    with pytest.raises(DataError, match=message):
        check_geometry(Case(images, seg))


@pytest.mark.parametrize(
    ("images", "seg"),
    [
        ({"t1": series(), "t2": series((1, 1, 2.5))}, None),
        ({"t1": series(), "flair": series((0.5, 0.5, 10), (80, 72, 3))}, labels()),
        ({"t1": series()}, labels(shift=(0.4, 0, -0.4))),
        ({"t1": series()}, labels(shape=(20, 20, 20), shift=(5, 5, 5))),
        ({"t1": series(), "t2": series(shift=(9, 9, 9))}, labels(shift=(9, 9, 9))),
        ({"t1": series()}, Series(np.zeros((9, 9, 9), np.uint8), np.diag([1, 1, 1, 1.0]))),
    ],
)
def test_what_real_studies_have_is_let_through(images, seg):
    check_geometry(Case(images, seg))


def test_the_file_s_own_axes_are_no_contradiction(tmp_path, make_case):
    """Transposed voxels under a header that says so are the same labels; otherwise they are not."""
    folder = make_case(tmp_path)
    (raw,) = find_studies(folder)
    expected = preprocess(raw, PreprocessConfig()).seg
    seg = read_labels(raw.seg)
    turned = seg.data.transpose(1, 0, 2).astype(np.uint8)
    write_nifti(raw.seg, turned, seg.affine @ np.eye(4)[[1, 0, 2, 3]])
    np.testing.assert_array_equal(preprocess(raw, PreprocessConfig()).seg, expected)
    write_nifti(raw.seg, turned, read_nifti(raw.series["t1"]).affine)
    with pytest.raises(DataError, match=r"Case_00: .* axes exchanged; save it again on the grid"):
        preprocess(raw, PreprocessConfig())
