"""Grids, backgrounds and labels, against geometry that is known exactly."""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest

from gliomoe.data_shards.building.build import BuildConfig
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format.record import quantise_study
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.intensity import robust_range
from gliomoe.data_shards.nifti import Volume, read_nifti, write_nifti
from gliomoe.data_shards.preprocess import STEPS, PreprocessConfig, preprocess
from gliomoe.data_shards.preprocess.background import tissue_mask
from gliomoe.data_shards.preprocess.config import BrainConfig
from gliomoe.data_shards.preprocess.native import to_native
from gliomoe.data_shards.preprocess.resample import resample_image, resample_labels
from gliomoe.launch.options import parse, to_table

PLAIN = ("background", "grid", "crop")


def at(affine, shape):
    """mm of every voxel, [3, D, H, W]."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3, None, None, None]


def head(affine, shape, noise=0.0, seed=0):
    """A ramp inside an ellipsoid about the origin; with noise, air is not 0."""
    x, y, z = at(affine, shape)
    inside = (x / 30) ** 2 + (y / 36) ** 2 + (z / 28) ** 2 < 1
    data = np.where(inside, 500 + 4 * x + 3 * y - 5 * z, 0)
    rng = np.random.default_rng(seed)
    return (data + noise * np.abs(rng.normal(size=shape))).astype(np.float32), inside


def centred(spacing, shape, turn=0.0):
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def test_brats_case_keeps_every_voxel(tmp_path, make_case):
    folder = make_case(tmp_path)
    study = preprocess(find_studies(folder)[0], PreprocessConfig())
    assert study.history["register"]["series"] == {}
    assert study.history["brain"]["method"] == "none"
    assert study.history["n4"]["corrected"] == {}
    assert study.history["grid"]["resampled"] == []
    for name, volume in study.volumes.items():
        raw = read_nifti(folder / f"Case_00_{name}.nii.gz")
        turned = raw.data[::-1, ::-1]
        cut = study.history["crop"]
        box = tuple(slice(a, b) for a, b in zip(cut["start"], cut["stop"], strict=True))
        np.testing.assert_array_equal(volume, turned[box])
        assert np.count_nonzero(turned) == np.count_nonzero(volume)
    assert sorted(np.unique(study.seg)) == [0, 1, 2, 3]
    # The same point of space before and after.
    where = np.argwhere(study.seg == 3)[0]
    mm = study.affine @ [*where, 1]
    raw = read_nifti(folder / "Case_00_seg.nii.gz")
    assert raw.data[tuple(np.rint(np.linalg.inv(raw.affine) @ mm)[:3].astype(int))] == 4


def test_axes_do_not_matter(tmp_path):
    shape = (30, 44, 36)
    affine = centred((2.0, 1.7, 2.3), shape, 0.05)
    data, _ = head(affine, shape, noise=8)
    made = []
    for n, (order, flips) in enumerate(
        itertools.product(itertools.permutations(range(3)), [(1, 1, 1), (-1, 1, -1)])
    ):
        turned, matrix = data, np.eye(4)
        for axis, flip in enumerate(flips):
            if flip < 0:
                turned = np.flip(turned, axis)
                flipper = np.eye(4)
                flipper[axis, axis], flipper[axis, 3] = -1, shape[axis] - 1
                matrix = matrix @ flipper
        permutation = np.eye(4)[:, [*order, 3]]
        path = tmp_path / f"{n}_t1.nii.gz"
        write_nifti(path, turned.transpose(order), affine @ matrix @ permutation)
        made.append(preprocess(find_studies(path)[0], PreprocessConfig(spacing=3.0, steps=PLAIN)))
    for study in made[1:]:
        np.testing.assert_array_equal(study.volumes["t1"], made[0].volumes["t1"])
        np.testing.assert_allclose(study.affine, made[0].affine, atol=1e-4)
        assert study.fingerprint == made[0].fingerprint


def test_series_of_several_grids_meet_in_space(tmp_path):
    grids = {
        "t1": centred((1.5, 1.5, 1.5), (48, 56, 44)),
        "flair": centred((1.0, 1.0, 5.0), (70, 80, 14), 0.2),
        "adc": centred((2.0, 2.0, 2.0), (36, 42, 34)),
    }
    shapes = {"t1": (48, 56, 44), "flair": (70, 80, 14), "adc": (36, 42, 34)}
    for name, affine in grids.items():
        write_nifti(tmp_path / f"{name}.nii.gz", head(affine, shapes[name])[0], affine)
    study = preprocess(find_studies(tmp_path)[0], PreprocessConfig(spacing=3.0, steps=PLAIN))
    assert study.history["grid"]["reference"] == "t1"
    np.testing.assert_allclose(study.spacing, 3.0)
    expected, inside = head(study.affine, study.shape)
    for name, volume in study.volumes.items():
        assert volume.shape == study.shape
        deep = inside & (volume != 0)
        assert deep.sum() > 0.85 * inside.sum(), name
        # A ramp is met exactly by linear interpolation, except next to its edge.
        error = np.abs(volume - expected)[deep]
        assert np.quantile(error, 0.9) < 6, name
        assert volume[~inside].astype(bool).mean() < 0.05


def test_air_becomes_zero_and_the_head_stays():
    shape = (48, 56, 44)
    affine = centred((1.5, 1.5, 1.5), shape)
    data, inside = head(affine, shape, noise=15)
    hole = (np.abs(at(affine, shape)) < 6).all(axis=0)
    data[hole] = 0
    mask = tissue_mask(data)
    assert mask[hole].all()
    assert (mask & inside).sum() > 0.99 * inside.sum()
    assert (mask & ~inside).sum() < 0.02 * inside.sum()
    masked = np.where(inside, data, 0)
    np.testing.assert_array_equal(tissue_mask(masked), inside)


def shells(affine, shape):
    """Three nested labels about a point that is no voxel's centre."""
    x, y, z = at(affine, shape)
    radius = np.sqrt((x - 1) ** 2 + (y + 0.7) ** 2 + (z - 0.4) ** 2)
    return np.select([radius < 9, radius < 15, radius < 22], [1, 3, 2], 0).astype(np.uint8)


def test_labels_are_never_invented_and_keep_their_place():
    shape, small_shape = (60, 60, 60), (20, 20, 20)
    affine, small = centred((1.0, 1.0, 1.0), shape), centred((3.0, 3.0, 3.0), small_shape, 0.3)
    labels = shells(affine, shape)
    down = resample_labels(labels, affine, small, small_shape)
    assert down.dtype == np.uint8 and set(np.unique(down)) == {0, 1, 2, 3}
    back = resample_labels(down, small, affine, shape)
    for got, truth in ((down, shells(small, small_shape)), (back, labels)):
        assert ((got > 0) == (truth > 0))[truth > 0].mean() > 0.95
        assert (got == truth)[truth > 0].mean() > 0.9
        assert (got == truth)[truth == 0].mean() > 0.98


def test_interpolation_of_a_ramp_is_exact_up_to_the_edge():
    shape = (20, 24, 18)
    affine = centred((2.0, 2.0, 2.0), shape)
    ramp = (at(affine, shape) * np.array([1, 2, -1])[:, None, None, None]).sum(0) + 100
    fine, fine_shape = centred((1.3, 1.3, 1.3), (28, 34, 26)), (28, 34, 26)
    everywhere = np.ones(shape, bool)
    got, inside = resample_image(ramp.astype(np.float32), everywhere, affine, fine, fine_shape)
    expected = (at(fine, fine_shape) * np.array([1, 2, -1])[:, None, None, None]).sum(0) + 100
    limit = np.array([19, 23, 17])[:, None, None, None]
    inner = (np.abs(at(fine, fine_shape)) - limit < 0).all(axis=0)
    np.testing.assert_allclose(got[inner], expected[inner], atol=1e-3)
    assert inside.all()


def test_back_to_the_native_grid(tmp_path, make_case):
    folder = make_case(tmp_path)
    raw = find_studies(folder)[0]
    study = preprocess(raw, PreprocessConfig())
    reference = read_nifti(raw.series["t1"])
    seg = to_native(study.seg, study.affine, reference, labels=True)
    expected = read_nifti(raw.seg).data
    np.testing.assert_array_equal(seg, np.where(expected == 4, 3, expected))
    image = to_native(study.volumes["t1"], study.affine, reference, labels=False)
    np.testing.assert_allclose(image, reference.data, atol=1e-3)
    far = Volume(reference.data, centred((1, 1, 1), (40, 36, 30)) + 1000 * np.eye(4, k=3))
    assert not to_native(study.seg, study.affine, far, labels=True).any()


def test_settings_read_back():
    config = PreprocessConfig(spacing=2.0, steps=PLAIN, brain=BrainConfig(method="hd-bet"))
    assert PreprocessConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert PreprocessConfig.from_json({"spacing": 2.0}) == PreprocessConfig(spacing=2.0)
    for wrong in ({"spacin": 2}, {"brain": {"size": 1}}, {"n4": {"grid": 0}}, {"register": 3}):
        with pytest.raises(UsageError, match="preprocessing settings"):
            PreprocessConfig.from_json(wrong)


def test_sections_on_the_command_line():
    flags = ["--register.max-rotation", "10", "--brain.method", "none", "--n4.mode", "off"]
    options = parse(BuildConfig, [*flags, "--spacing", "2"], "gliomoe shards build")
    chosen = options.preprocess
    assert (chosen.register.max_rotation, chosen.brain.method, chosen.n4.mode) == (
        10,
        "none",
        "off",
    )
    assert parse(PreprocessConfig, [], "gliomoe", table=to_table(chosen)) == chosen


def test_an_image_that_defeats_a_step_is_named(tmp_path, make_case, monkeypatch):
    def defeated(case, config):
        raise RuntimeError("itk::ERROR:\n  Filter(0x55): no valid points")

    monkeypatch.setitem(STEPS, "register", defeated)
    folder = make_case(tmp_path)
    with pytest.raises(DataError, match=r"Case_00: step register failed \(itk.* no valid points\)"):
        preprocess(find_studies(folder)[0], PreprocessConfig())


def test_studies_that_cannot_be_used(tmp_path, make_case):
    folder = make_case(tmp_path)
    raw = find_studies(folder)[0]
    with pytest.raises(UsageError, match="unknown steps polish; known: register, brain, n4, back"):
        preprocess(raw, PreprocessConfig(steps=("polish",)))
    with pytest.raises(UsageError, match="steps are done in the order register, brain"):
        preprocess(raw, PreprocessConfig(steps=("grid", "background")))
    with pytest.raises(ValueError, match="spacing must lie between"):
        PreprocessConfig(spacing=0)
    for value in (7, -1, 1.5):
        write_nifti(raw.seg, np.full((40, 36, 30), value, np.float32), np.eye(4))
        with pytest.raises(DataError, match=rf"00_seg.nii.gz: labels {value:g} \(43200 voxels\)"):
            preprocess(raw, PreprocessConfig())
    raw.seg.unlink()
    far = centred((1, 1, 1), (40, 36, 30)) + 1000 * np.eye(4, k=3)
    write_nifti(raw.series["t2"], read_nifti(raw.series["t2"]).data, far)
    with pytest.raises(DataError, match="Case_00: t2 does not overlap t1 in space"):
        preprocess(find_studies(folder)[0], PreprocessConfig(steps=PLAIN))


def exact(study, files):
    """Stored voxels against the files as nibabel reads them: half a step, and 0 where 0."""
    cut = study.history["crop"]
    box = tuple(slice(a, b) for a, b in zip(cut["start"], cut["stop"], strict=True))
    for name, stored in quantise_study(study).items():
        image = nib.as_closest_canonical(nib.load(files[name]))
        data = image.get_fdata()
        expected, codes = data[box], stored.quantised.codes
        got = codes * stored.quantised.scale + stored.quantised.offset
        assert np.abs(got - expected).max() <= stored.quantised.scale / 2
        assert np.count_nonzero(data) == np.count_nonzero(expected)
        np.testing.assert_array_equal(codes == stored.quantised.background, expected == 0)
        moved = image.affine @ [*cut["start"], 1]
        np.testing.assert_allclose(study.affine[:, 3], moved, atol=1e-3)


@pytest.mark.parametrize("scale", [1, 0.37])
def test_a_masked_case_passes_through(tmp_path, make_case, scale):
    folder = make_case(tmp_path)
    raw = find_studies(folder)[0]
    for path in raw.series.values():
        volume = read_nifti(path)
        write_nifti(path, volume.data * np.float32(scale), volume.affine)
    exact(preprocess(raw, PreprocessConfig()), raw.series)


@pytest.mark.real
@pytest.mark.slow
def test_real_masked_cases_pass_through(real_data):
    studies = find_studies(real_data / "brats")
    assert len(studies) == 7
    for raw in studies:
        exact(preprocess(raw, PreprocessConfig()), raw.series)


@pytest.mark.real
def test_six_orientations_of_one_scan(real_data):
    files = sorted((real_data / "orientations").glob("*.nii.gz"))
    assert len(files) == 6
    made = [
        preprocess(find_studies(path)[0], PreprocessConfig(spacing=3.0, steps=PLAIN))
        for path in files
    ]
    for study in made[1:]:
        np.testing.assert_array_equal(study.volumes["t1"], made[0].volumes["t1"])
        np.testing.assert_allclose(study.affine, made[0].affine, atol=1e-3)
        assert study.fingerprint == made[0].fingerprint


@pytest.mark.real
def test_unusual_sequences(real_data):
    (raw,) = find_studies(real_data / "stroke")
    study = preprocess(raw, PreprocessConfig(spacing=2.0))
    assert list(study.volumes) == ["flair", "dwi", "adc"]
    assert study.volumes["dwi"].min() < 0 < study.volumes["adc"].max() < 5
    assert study.history["register"]["series"]["flair"]["kept"]
    # Negative values are noise of the sea around no water: tissue keeps them, none sets the scale.
    for name in ("dwi", "adc"):
        volume = study.volumes[name]
        low, high = robust_range(volume)
        assert low > volume.min() and 0 < (volume < 0).sum() < 0.01 * (volume > 0).sum()
        assert -0.1 * high < low < 0.2 * high
