"""A clinical study as it left the scanner: four series of 5.5 mm slices, each where it was."""

import itertools

import numpy as np
import pytest

from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.preprocess.atlas import brain_mask
from gliomoe.data_shards.preprocess.orient import to_ras
from gliomoe.data_shards.preprocess.pipeline import STEPS, _read
from gliomoe.data_shards.preprocess.resample import resample_image

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def raw(real_data):
    (raw,) = find_studies(real_data / "raw_clinical")
    return _read(raw).map(to_ras)


def brains(before, after, found):
    """The brain found in each series alone, moved as the series was, on one grid."""
    grid = found["t1"]
    placed = {}
    for name, mask in found.items():
        data = mask.data.astype(np.float32)
        motion = after.series[name].affine @ np.linalg.inv(before.series[name].affine)
        everywhere = np.ones(data.shape, bool)
        share, _ = resample_image(
            data, everywhere, motion @ mask.affine, grid.affine, grid.data.shape
        )
        placed[name] = share > 0.5
    return placed


def test_registered_series_show_one_brain(raw):
    """Masks found in each series by itself overlap more once the series are moved."""
    moved = STEPS["register"](raw, PreprocessConfig())
    assert all(note["kept"] for note in moved.history["register"]["series"].values())
    found = {name: brain_mask(one, 3.0) for name, one in raw.series.items()}
    volumes = [mask.data.sum() * 0.008 for mask in found.values()]
    assert min(volumes) > 1500 and max(volumes) < 1.1 * min(volumes)
    before, after = brains(raw, raw, found), brains(raw, moved, found)
    for a, b in itertools.combinations(found, 2):
        overlap, was = (
            2 * np.sum(masks[a] & masks[b]) / (masks[a].sum() + masks[b].sum())
            for masks in (after, before)
        )
        assert overlap > 0.94 and overlap > was, (a, b)


def test_the_chain_leaves_the_brain_alone(raw):
    case = raw
    for name in PreprocessConfig().steps:
        case = STEPS[name](case, PreprocessConfig())
    assert case.history["brain"]["cut_out_of"] == ["t1", "t1ce", "t2", "flair"]
    assert 1500 < case.history["brain"]["volume_ml"] < 1900
    assert set(case.history["n4"]["corrected"]) == {"t1", "t1ce", "t2", "flair"}
    shared = np.mean([one.data != 0 for one in case.series.values()], axis=0)
    assert np.mean(shared[shared > 0] == 1) > 0.85  # fields of view end at other slices
