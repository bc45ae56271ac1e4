"""Series that lie apart are brought together, against motions that are known."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import RegisterConfig
from gliomoe.data_shards.preprocess.register import register
from gliomoe.data_shards.preprocess.rigid import rotation_degrees

pytestmark = pytest.mark.slow

CENTRE = np.array([0.0, -18.0, 10.0, 1.0])
FIXED = ((2.0, 2.0, 2.0), (96, 112, 92))
MOVING = ((1.5, 1.5, 4.5), (120, 140, 38))
CONFIG = PreprocessConfig()


@pytest.fixture(scope="module")
def fixed(heads):
    return heads.scan("t1", heads.axial(*FIXED), FIXED[1])


def moved_by(before, after):
    return after.affine @ np.linalg.inv(before.affine)


def misses(found, true):
    """Degrees and millimetres at the centre of the head by which a motion is wrong."""
    rest = found @ np.linalg.inv(true)
    return rotation_degrees(rest), np.linalg.norm((found @ CENTRE - true @ CENTRE)[:3])


@pytest.mark.parametrize(
    ("sequence", "degrees", "shift"),
    [
        ("t2", (0, 0, 8), (4, -6, 9)),
        ("flair", (-10, 5, -4), (-12, 8, 3)),
        ("t2", (3, 0, 0), (0, 420, -300)),
    ],
)
def test_known_motion_is_found(fixed, heads, sequence, degrees, shift):
    true = heads.turned(degrees, shift)
    affine = heads.axial(*MOVING)
    content = heads.scan(sequence, affine, MOVING[1], seed=1)
    scan = replace(content, affine=np.linalg.inv(true) @ affine)
    after = register(Case({"t1": fixed, sequence: scan}), CONFIG)
    assert after.series["t1"] is fixed and after.series[sequence].data is scan.data
    angle, way = misses(moved_by(scan, after.series[sequence]), true)
    assert angle < 1 and way < 1
    note = after.history["register"]["series"][sequence]
    assert note["kept"] and note["rotation_degrees"] == pytest.approx(rotation_degrees(true), abs=1)
    before, reached = note["mutual_information"]
    assert (before is None) == (shift[1] > 400) and reached > (before or 0)


def test_the_same_motion_for_any_number_of_threads(fixed, heads):
    scan = heads.scan("t2", heads.axial(*MOVING), MOVING[1], heads.turned((4, 2, 5), (3, 3, 3)))
    case = Case({"t1": fixed, "t2": scan})
    affines = []
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    for threads in (1, 3, 3):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        affines.append(register(case, CONFIG).series["t2"].affine)
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert np.array_equal(affines[0], affines[1]) and np.array_equal(affines[0], affines[2])
    assert not np.array_equal(affines[0], scan.affine)


@pytest.mark.parametrize(
    ("settings", "degrees", "why"),
    [
        ({"max_rotation": 5}, 9, "an implausible motion"),
        ({"max_shift": 2}, 9, "an implausible motion"),
        ({"min_gain": 100}, 9, "too little gain"),
        ({"min_motion": 30, "min_gain": -1}, 9, "too small a motion"),
        ({}, 0, "too"),
    ],
)
def test_a_doubtful_result_is_not_kept(fixed, heads, settings, degrees, why):
    scan = heads.scan(
        "t2", heads.axial(*MOVING), MOVING[1], heads.turned((0, 0, degrees), (0,) * 3)
    )
    config = PreprocessConfig(register=RegisterConfig(**settings))
    after = register(Case({"t1": fixed, "t2": scan}), config)
    assert after.series["t2"] is scan
    note = after.history["register"]["series"]["t2"]
    assert not note["kept"] and note["why"].startswith(why)


def test_labels_stay_with_the_series_whose_grid_they_have(fixed, heads):
    motion = heads.turned((0, 6, 0), (5, 0, 5))
    scans = {
        name: heads.scan(name, heads.axial(*MOVING), MOVING[1], motion, seed=n)
        for n, name in enumerate(("t2", "flair"))
    }
    for owner, seg in (
        ("t2", Series(np.ones(MOVING[1], np.uint8), scans["t2"].affine)),
        ("t1", Series(np.ones(FIXED[1], np.uint8), fixed.affine)),
    ):
        after = register(Case({"t1": fixed, **scans}, seg), CONFIG)
        assert np.array_equal(after.seg.affine, after.series[owner].affine)
        assert not np.array_equal(after.series["t2"].affine, scans["t2"].affine)
        # Labels were drawn on both of these, which hence belong together.
        together = np.array_equal(after.series["t2"].affine, after.series["flair"].affine)
        assert together or owner == "t1"


def test_one_grid_proves_nothing_unless_the_background_is_empty(fixed, heads):
    grid = heads.axial(*FIXED)
    second = heads.scan("t2", grid, FIXED[1], heads.turned((0, 0, -7), (2, 0, 0)), seed=2)
    after = register(Case({"t1": fixed, "t2": second}), CONFIG)
    assert after.history["register"]["series"]["t2"]["kept"]
    inside = heads.brain_on(grid, FIXED[1])
    masked = {
        name: replace(one, data=np.where(inside, one.data, 0))
        for name, one in (("t1", fixed), ("t2", second))
    }
    after = register(Case(masked), CONFIG)
    assert after.series == masked and after.history["register"]["series"] == {}
