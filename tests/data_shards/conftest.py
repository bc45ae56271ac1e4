"""Small studies made of smooth random blobs, shard sets of them, and a disk that is soon full."""

import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.preprocess.case import Series
from gliomoe.data_shards.preprocess.resample import resample_image
from gliomoe.data_shards.preprocess.template import head_template
from gliomoe.data_shards.study import Study


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


@pytest.fixture(scope="session")
def heads():
    """Simulated heads with skull and scalp: functions that make grids, motions and scans."""
    return SimpleNamespace(axial=_axial, turned=_turned, scan=_scan, brain_on=_brain_on)


_CURVES = {
    "t1": ([0, 25, 60, 120, 200, 255], [0, 20, 60, 130, 200, 220]),
    "t2": ([0, 25, 60, 120, 200, 255], [0, 10, 255, 150, 90, 80]),
    "flair": ([0, 25, 60, 120, 200, 255], [0, 15, 40, 170, 120, 100]),
}
"""Sequence → its intensity at those of the template."""


def _axial(spacing, shape, centre=(0, -18, 5)):
    """A grid along R, A, S about a point."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _turned(degrees, shift, about=(0, -18, 10)):
    """A rigid motion: rotations about x, y, z through a point, then a shift, mm."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one = np.eye(3)
        a, b = [k for k in range(3) if k != axis]
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = one @ turn
    motion = np.eye(4)
    motion[:3, :3] = turn
    motion[:3, 3] = np.array(shift) + about - turn @ np.array(about)
    return motion


def _scan(sequence, affine, shape, motion=None, noise=3.0, seed=0):
    """A head as a scanner would store it, which a motion would bring to its place."""
    head = head_template(2.0)
    contrast = np.interp(head.image.data, *_CURVES[sequence]).astype(np.float32)
    there = affine if motion is None else motion @ affine
    everywhere = np.ones(contrast.shape, bool)
    data, _ = resample_image(contrast, everywhere, head.image.affine, there, shape)
    air = np.abs(np.random.default_rng(seed).normal(size=shape)) * noise
    return Series((data + air).astype(np.float32), affine)


def _brain_on(affine, shape):
    """Where the brain of `scan` is, bool."""
    head = head_template(2.0)
    everywhere = np.ones(head.brain.shape, bool)
    return resample_image(head.brain, everywhere, head.image.affine, affine, shape)[0] > 0.5


@pytest.fixture
def small_disk(tmp_path):
    """The function that mounts a file system of a size (`256k`)."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a file system")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)
