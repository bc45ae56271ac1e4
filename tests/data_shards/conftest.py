"""Small studies made of smooth random blobs, and shard sets of them."""

import numpy as np
import pytest

from gliomoe.data_shards.dataset import seal
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.record import encode_study
from gliomoe.data_shards.study import Study
from gliomoe.data_shards.writer import write_shards


def _blob(shape, seed, scale=1000.0):
    """[D, H, W] float32: an ellipsoid of positive texture, 0 outside."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.9
    return np.where(inside, scale * (0.2 + rng.random(shape)), 0).astype(np.float32)


@pytest.fixture(scope="session")
def make_study():
    """The function that makes a study from a number."""
    return _study


def _study(number, sequences=("t1", "flair"), shape=(40, 37, 45), seg=True):
    """A study on a 2 mm grid."""
    labels = np.zeros(shape, np.uint8)
    labels[10:20, 12:22, 9:30] = 2
    labels[12:16, 14:18, 12:20] = 3
    return Study(
        key=f"case-{number:04d}",
        subject=f"case-{number // 2:04d}",
        volumes={name: _blob(shape, [number, i]) for i, name in enumerate(sequences)},
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        seg=labels if seg else None,
        fingerprint=f"{number + 1:032x}",
        layout="synthetic",
    )


@pytest.fixture
def make_set(tmp_path):
    """Write studies into a finished set."""

    def make(name, studies, limit=200_000, encode=encode_study):
        folder = tmp_path / name
        shards = list(write_shards(folder, map(encode, studies), limit))
        seal(folder, shards, {"spacing": 2.0})
        return folder

    return make


@pytest.fixture
def shard_set(make_set):
    """Seven studies in several shards: pairs share a subject, the last lacks a segmentation."""
    studies = [_study(n, seg=n < 6) for n in range(7)]
    return make_set("set", studies), studies


@pytest.fixture(scope="session")
def make_case():
    """Write a case in the layout of BraTS: common grid, empty background, 1 mm, axes L, P, S."""

    def make(folder, number=0, sequences=("t1", "t1ce", "t2", "flair"), shape=(40, 36, 30)):
        name = f"Case_{number:02d}"
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[:3, 3] = 12, 239, -5
        for i, sequence in enumerate(sequences):
            data = np.zeros(shape, np.int16)
            inner = _blob([side - 8 for side in shape], [number, i])
            data[4:-4, 4:-4, 4:-4] = np.rint(inner)
            write_nifti(folder / name / f"{name}_{sequence}.nii.gz", data, affine)
        seg = np.zeros(shape, np.uint8)
        seg[10:24, 10:22, 10:20] = 2
        seg[12:20, 12:18, 12:16] = 1
        seg[14:18, 14:17, 12:16] = 4
        write_nifti(folder / name / f"{name}_seg.nii.gz", seg, affine)
        return folder / name

    return make
