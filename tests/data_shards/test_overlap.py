"""The same scan is known again in another form; another scan is not taken for it."""

import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format.index import INDEX, Index
from gliomoe.data_shards.identity.fingerprints import FINGERPRINTS, Fingerprints
from gliomoe.data_shards.identity.overlap import THRESHOLD, find_matches, scores
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.identity.signature import SIZE, signature, unpack
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.nifti import read_nifti, write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main

SHAPE = (70, 86, 74)


def head(seed, shape=SHAPE):
    """[D, H, W]: an ellipsoid at 2 mm with smooth texture, 0 outside."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    return np.where(inside, 500 + 100 * texture / texture.std(), 0).clip(0).astype(np.float32)


def resample(volume, spacing):
    """A volume of 2 mm voxels at another spacing, with the halo that interpolation leaves."""
    factors = 2 / np.asarray(spacing)
    smooth = ndimage.gaussian_filter(volume, np.maximum(0, (1 / factors - 1) / 2))
    return ndimage.zoom(smooth, factors, order=1, grid_mode=True, mode="grid-constant")


def likeness(a, b):
    return float(scores(a[None], b[None])[0, 0])


@pytest.mark.parametrize(
    ("form", "spacing"),
    [
        (lambda v: np.pad(v, [(0, 9), (4, 0), (20, 3)]), (2, 2, 2)),
        (lambda v: v * 0.013, (2, 2, 2)),
        (lambda v: resample(v, (1.3, 1.3, 1.3)), (1.3, 1.3, 1.3)),
        (lambda v: resample(v, (3, 3, 3)), (3, 3, 3)),
        (lambda v: resample(v, (1.8, 1.8, 5)), (1.8, 1.8, 5)),
        (lambda v: np.pad(7 * resample(v, (1.5, 2, 2.5)), 5), (1.5, 2, 2.5)),
    ],
    ids=["pad", "scale", "fine", "coarse", "thick", "all"],
)
def test_a_scan_in_another_form(form, spacing):
    made = [signature(head(seed), (2, 2, 2)) for seed in (0, 1)]
    changed = signature(form(head(0)), spacing)
    assert likeness(made[0], changed) > THRESHOLD + 0.05
    assert likeness(made[1], changed) < 0.4


def test_signatures_pack_whole_numbers():
    code = signature(head(3), (2, 2, 2))
    numbers = unpack(code[None])[0]
    assert code.shape == (SIZE,) and numbers.shape == (2 * SIZE,)
    assert np.abs(numbers).max() <= 7 and 2 < numbers.std() < 3.5
    every = np.arange(256, dtype=np.uint8)[:SIZE]
    first = [(value >> 4) - 16 * (value >> 7) for value in every.tolist()]
    assert unpack(every[None])[0, ::2].tolist() == first
    assert signature(head(3), (2, 2, 2)).tobytes() == code.tobytes()
    assert not signature(np.full((3, 4, 5), 8, np.float32), (1, 1, 1)).any()
    assert scores(np.zeros((1, SIZE), np.uint8), code[None]).tolist() == [[0]]


def test_scores_are_cosines():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (n, SIZE), dtype=np.uint8) for n in (5, 7))
    expected = [
        [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in unpack(b).astype(float)]
        for x in unpack(a).astype(float)
    ]
    np.testing.assert_allclose(scores(a, b), expected, atol=1e-6)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three heads; two of them also in another form under other names, one of these exact."""
    root = tmp_path_factory.mktemp("heads")
    flipped = np.diag([-2.0, -2.0, 2.0, 1.0])
    for number in range(3):
        write_nifti(root / "a" / f"p{number}" / "t1.nii.gz", head(number), np.diag([2.0, 2, 2, 1]))
    form = resample(head(0), (3, 3, 3)) * 4
    write_nifti(root / "b" / "x0" / "t1.nii.gz", form[::-1, ::-1], np.diag([-3.0, -3, 3, 1]))
    write_nifti(root / "b" / "x1" / "t1.nii.gz", head(1)[::-1, ::-1], flipped)
    write_nifti(root / "b" / "x9" / "t1.nii.gz", head(9), flipped)
    return root


def test_commands(cohort, tmp_path, capsys):
    a, b, both = (str(tmp_path / name) for name in ("a", "b", "both"))
    build = ["--keep-ids", "True", "--spacing", "2", "--layout", "brats"]
    for name in "ab":
        assert (
            main(["shards", "build", str(cohort / name), "--out", str(tmp_path / name), *build])
            == 0
        )
    assert "same scan" not in capsys.readouterr().out
    assert main(["shards", "overlap", a, b, "--json", "True"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["key"], first["other"], first["exact"]) == ("p0", "x0", False)
    assert THRESHOLD < first["score"] < 1 and first["sequence"] == "t1"
    assert (second["key"], second["other"], second["exact"]) == ("p1", "x1", True)
    assert second["score"] == 1
    assert main(["shards", "overlap", a]) == 0
    assert "0 of 3 studies" in capsys.readouterr().out
    assert main(["shards", "merge", a, b, "--out", both]) == 0
    assert "2 pairs show the same scan" in capsys.readouterr().out
    listed = (tmp_path / "both" / "duplicates.csv").read_text().splitlines()
    assert listed[0] == "key,other,sequence,score,exact" and len(listed) == 3
    assert main(["shards", "overlap", both]) == 1
    assert "p1  x1  equal in every voxel" in capsys.readouterr().out
    assert main(["shards", "overlap", a, a]) == 2
    sources = [str(cohort / "a"), str(cohort / "b")]
    assert main(["shards", "build", *sources, "--out", str(tmp_path / "direct"), *build]) == 0
    one, two = ((tmp_path / f / "duplicates.csv").read_text() for f in ("both", "direct"))
    assert one == two


def test_what_weights_have_seen(cohort, tmp_path):
    config = BuildConfig(keep_ids=True, layout="brats", preprocess=PreprocessConfig(spacing=2.0))
    for name in "ab":
        build_shards([cohort / name], tmp_path / name, config)
    mine, theirs = (ShardSet.open(tmp_path / name) for name in "ab")
    pretraining = Seen.join(Seen.of_record(mine.record(i)) for i in range(3))
    path = tmp_path / "seen.bin"
    path.write_bytes(pretraining.to_bytes())
    assert Seen.read(path) == pretraining != Seen.read(tmp_path / "none") == Seen()
    cases = [Seen.of_record(theirs.record(i)) for i in range(3)]
    assert Seen.read(path).which(cases) == [True, True, False]
    assert Seen(pretraining.contents).which(cases) == [False, True, False]
    assert Seen().which(cases) == [False] * 3
    data = path.read_bytes()
    for bad, why in [
        (data[:-1], "cut off"),
        (data + b"\0", "cut off or too long"),
        (data[:5], "not a list"),
        (bytes(32), "not a list"),
        (data[:8] + b"\2" + data[9:], "version 2"),
    ]:
        path.write_bytes(bad)
        with pytest.raises(DataError, match=why):
            Seen.read(path)


def scans(folder):
    return Index.open(folder / INDEX), Fingerprints.open(folder / FINGERPRINTS)


def closest(a, b):
    """Highest likeness of any sequence of any study of one set with the other's."""
    found = []
    for sequence in range(11):
        mine, yours = (one[1].of_sequence(sequence)[1] for one in (a, b))
        table = scores(mine, yours) if len(mine) and len(yours) else np.zeros((1, 1))
        found.append(float(np.max(table - (2 * np.eye(len(mine)) if a is b else 0), initial=-1)))
    return max(found)


def copied(volume, rng):
    """Crop, 1.6 mm, other axes, other scale."""
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    factors = spacing / 1.6
    smooth = ndimage.gaussian_filter(volume.data, np.maximum(0, (1 / factors - 1) / 2))
    data = ndimage.zoom(smooth, factors, order=1, grid_mode=True, mode="nearest")
    affine = volume.affine.copy()
    affine[:3, :3] *= 1 / factors
    affine[:3, 3] += volume.affine[:3, :3] @ ((1 / factors - 1) / 2)
    image = nib.Nifti1Image(data, affine)
    wanted = nib.orientations.axcodes2ornt(("P", "I", "R"))
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), wanted)
    image = image.as_reoriented(turn)
    return np.asarray(image.dataobj) * np.float32(0.25), image.affine


@pytest.mark.real
@pytest.mark.slow
def test_real_scans(real_data, tmp_path):
    chain = PreprocessConfig(spacing=2.0, steps=("background", "grid", "crop"))
    config = BuildConfig(keep_ids=True, preprocess=chain, workers=2)
    sources = [real_data / "bids", real_data / "brats", real_data / "raw_clinical"]
    build_shards([*sources, real_data / "stroke"], tmp_path / "all", config)
    everything = scans(tmp_path / "all")
    assert find_matches(everything) == []
    assert closest(everything, everything) < 0.87  # the two sessions of one person
    rng = np.random.default_rng(0)
    for source in sources:
        for raw in find_studies(source):
            if raw.subject.rpartition("-")[2] in ("ixi02", "nc05", "nc08", "BraTS2021_01479"):
                for name, path in raw.series.items():
                    data, affine = copied(read_nifti(path), rng)
                    case = tmp_path / "copies" / f"copy-{raw.subject}"
                    write_nifti(case / f"{name}.nii.gz", data, affine)
    build_shards([tmp_path / "copies"], tmp_path / "again", config)
    found = find_matches(scans(tmp_path / "again"), everything)
    assert len(found) == len(list((tmp_path / "copies").iterdir())) == 4
    assert all(match.key.endswith(match.other.rpartition("-")[2]) for match in found)


@pytest.mark.real
def test_all_orientations_are_one_scan(real_data, tmp_path):
    for path in (real_data / "orientations").glob("*.nii.gz"):
        (tmp_path / "src" / path.name.split(".")[0]).mkdir(parents=True)
        shutil.copy(path, tmp_path / "src" / path.name.split(".")[0] / "t1.nii.gz")
    config = BuildConfig(keep_ids=True, preprocess=PreprocessConfig(spacing=2.0))
    report = build_shards([tmp_path / "src"], tmp_path / "set", config)
    found = find_matches(scans(tmp_path / "set"))
    assert report.info["duplicates"] == len(found) == len(list(itertools.combinations(range(6), 2)))
    assert all(match.exact and match.score == 1 for match in found)
