"""Folders become shard sets: the same bytes whatever happens, and nothing dropped in silence."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gliomoe.data_shards.building import build as build_module
from gliomoe.data_shards.building.build import BuildConfig, build_shards, open_or_build
from gliomoe.data_shards.building.failures import read_failures
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format.codec import quantise
from gliomoe.data_shards.intensity import FLOOR, robust_range
from gliomoe.data_shards.nifti import read_nifti, write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main

KEEP = BuildConfig(keep_ids=True, shard_mb=0.1)


@pytest.fixture
def cohort(tmp_path, make_case):
    """Five cases; the third has a damaged file."""
    folder = tmp_path / "cohort"
    for number in range(5):
        make_case(folder, number)
    path = folder / "Case_02" / "Case_02_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_intensities_survive_to_half_a_step(cohort, tmp_path):
    build_shards([cohort], tmp_path / "out", KEEP)
    shards = ShardSet.open(tmp_path / "out")
    i = shards.position("case_01")
    record, sample = shards.record(i), shards.read(i)
    raw = read_nifti(cohort / "Case_01" / "Case_01_t1.nii.gz").data[::-1, ::-1]
    cut = record["history"]["crop"]
    raw = raw[tuple(slice(a, b) for a, b in zip(cut["start"], cut["stop"], strict=True))]
    low, high = record["sequences"]["t1"]["percentiles"]
    assert (low, high) == robust_range(raw)
    stored = quantise(raw, low, high)
    assert np.abs(stored.codes * stored.scale + stored.offset - raw).max() <= stored.scale / 2
    back = sample.voxels[0].numpy() * (high - low) + low
    inner = (raw > low + FLOOR * (high - low)) & (raw < high)
    assert np.abs(back - raw)[inner].max() <= stored.scale / 2
    assert ((sample.voxels[0].numpy() == 0) == (raw == 0)).all()
    assert shards.entry(i).fingerprint != shards.entry(i + 1).fingerprint


def test_workers_do_not_change_the_bytes(cohort, tmp_path):
    reports = []
    for workers in (1, 3):
        config = BuildConfig(keep_ids=True, shard_mb=0.1, workers=workers)
        reports.append(build_shards([cohort], tmp_path / f"w{workers}", config))
    assert content(tmp_path / "w1") == content(tmp_path / "w3")
    assert reports[0].info["studies"] == 4 and len(reports[0].info["shards"]) > 1
    (failure,) = reports[0].failed
    assert failure.key == "case_02" and "Case_02_t2.nii.gz: truncated" in failure.reason


@pytest.mark.parametrize("studies", [0, 1, 4])
def test_killed_at_any_instant_and_continued(cohort, tmp_path, studies):
    whole = tmp_path / "whole"
    build_shards([cohort], whole, KEEP)
    broken = tmp_path / "broken"

    def die():
        prepare, count = build_module.prepare, iter(range(100))
        build_module.prepare = lambda job: os._exit(9) if next(count) == studies else prepare(job)
        build_shards([cohort], broken, KEEP)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert child.exitcode == 9
    assert not (broken / "dataset.json").exists()
    with pytest.raises(UsageError, match="not a finished shard set"):
        ShardSet.open(broken)
    report = build_shards([cohort], broken, KEEP)
    assert len(report.failed) == 1
    assert content(broken) == content(whole)
    assert build_shards([cohort], broken, KEEP).built == 0


def test_building_needs_no_torch():
    program = "import sys, gliomoe.data_shards.building.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_folders_that_hold_something_else(cohort, tmp_path, make_case):
    out = tmp_path / "out"
    build_shards([cohort], out, KEEP)
    other = BuildConfig(keep_ids=True, shard_mb=0.1, preprocess=PreprocessConfig(spacing=3.0))
    with pytest.raises(UsageError, match="holds another shard set, which differs in preprocess"):
        build_shards([cohort], out, other)
    shutil.rmtree(cohort / "Case_04")
    with pytest.raises(UsageError, match="differs in keys"):
        build_shards([cohort], out, KEEP)
    make_case(cohort, 4)
    build_shards([cohort], out, KEEP)
    make_case(cohort, 4, shape=(44, 36, 30))
    with pytest.raises(UsageError, match="differs in inputs"):
        build_shards([cohort], out, KEEP)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="not empty and not a shard set"):
        build_shards([cohort], tmp_path / "mine", KEEP)
    with pytest.raises(UsageError, match="are both study case_00"):
        build_shards([cohort, cohort], tmp_path / "twice", KEEP)


def test_ids_are_hashed_unless_kept(cohort, tmp_path):
    out = tmp_path / "out"
    build_shards([cohort], out, BuildConfig(shard_mb=0.1))
    for name in ("dataset.json", "index.npy", "shard-000000.tar"):
        assert b"case_0" not in (out / name).read_bytes().lower()
    other = tmp_path / "other"
    build_shards([cohort], other, BuildConfig(salt="mine"))
    assert ShardSet.open(out).entry(0).key != ShardSet.open(other).entry(0).key


def test_open_or_build(cohort, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="1 studies cannot be used, first case_02: .*truncated"):
        open_or_build(cohort, cache, BuildConfig())
    shutil.rmtree(cohort / "Case_02")
    shards = open_or_build(cohort, cache, BuildConfig())
    assert [shards.entry(i).key for i in range(4)] == ["case_00", "case_01", "case_03", "case_04"]
    folder = next(path.parent for path in cache.glob("*/dataset.json") if len(shards) == 4)
    stamps = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    again = open_or_build(cohort, cache, BuildConfig())
    assert again.fingerprint == shards.fingerprint
    assert stamps == {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert open_or_build(folder, cache, BuildConfig()).info["studies"] in (4, 5)


def test_command(cohort, tmp_path, capsys):
    (cohort / "Case_05").mkdir()
    args = ["shards", "build", str(cohort), "--out", str(tmp_path / "out"), "--spacing", "2"]
    assert main([*args, "--json", "True"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["studies"] == 4 and result["sequences"]["t1ce"] == 4
    assert any("Case_02_t2.nii.gz: truncated" in f["reason"] for f in result["failed"])
    listed = read_failures(tmp_path / "out")
    assert len(listed) == 2 and any("no usable sequence" in f.reason for f in listed)
    assert main([*args, "--spacing", "3"]) == 2
    assert "differs in preprocess" in capsys.readouterr().err
    assert main([*args, "--steps", "polish"]) == 2
    assert "unknown steps polish; known: register" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["shards", "build", str(tmp_path / "empty"), "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()
    assert main(["shards", "build", "--out", str(tmp_path / "x")]) == 2


def test_bad_studies_are_listed_with_their_reason(tmp_path, make_case):
    folder = tmp_path / "cohort"
    shape = (40, 36, 30)
    bad = {
        "zeros": np.zeros(shape, np.int16),
        "nan": np.full(shape, np.nan, np.float32),
        "four": np.ones((*shape, 2), np.int16),
    }
    make_case(folder, 9)
    for number, data in enumerate(bad.values()):
        write_nifti(make_case(folder, number) / f"Case_0{number}_t1.nii.gz", data, np.eye(4))
    (make_case(folder, 3) / "Case_03_flair.nii.gz").write_bytes(b"no image")
    report = build_shards([folder], tmp_path / "out", KEEP)
    reasons = [failure.reason for failure in report.failed]
    assert report.info["studies"] == 1
    for reason, text in zip(reasons, ["all zero", "NaN", "4-D", "not a NIfTI"], strict=True):
        assert text in reason
    with pytest.raises(DataError, match="none of 1 studies could be used; first .*: "):
        build_shards([folder / "Case_03"], tmp_path / "none", KEEP)


@pytest.mark.real
def test_two_layouts_in_one_set(real_data, tmp_path):
    small = tmp_path / "bids"
    for name in ("sub-ixi01", "sub-nc05", "sub-ms01"):
        shutil.copytree(real_data / "bids" / name, small / name)
    cases = tmp_path / "brats"
    for name in ("BraTS2021_00006", "BraTS2021_01477"):
        shutil.copytree(real_data / "brats" / name, cases / name)
    steps = ("background", "grid", "crop")  # 31 brain extractions would tell nothing more here
    config = BuildConfig(workers=2, preprocess=PreprocessConfig(spacing=4.0, steps=steps))
    report = build_shards([small, cases], tmp_path / "out", config)
    assert not report.failed
    assert report.info["sequences"] == {"t1": 6, "t1ce": 2, "t2": 4, "flair": 5}
    assert report.info["labelled"] == 2
    shards = ShardSet.open(tmp_path / "out")
    assert len({shards.entry(i).subject for i in range(6)}) == 5
    for i in range(6):
        sample = shards.read(i)
        assert (sample.voxels.flatten(1) > 0).float().mean(1).min() > 0.15
        assert sample.spacing.tolist() == pytest.approx([4, 4, 4], abs=1e-3)


@pytest.mark.real
def test_real_brats_case_keeps_every_voxel(real_data, tmp_path):
    source = real_data / "brats" / "BraTS2021_00006"
    build_shards([source], tmp_path / "out", BuildConfig(keep_ids=True))
    shards = ShardSet.open(tmp_path / "out")
    record = shards.record(0)
    sample = shards.read(0)
    cut = record["history"]["crop"]
    box = tuple(slice(a, b) for a, b in zip(cut["start"], cut["stop"], strict=True))
    for voxels, name in zip(sample.voxels.numpy(), record["sequences"], strict=True):
        raw = read_nifti(source / f"{source.name}_{name}.nii.gz").data[::-1, ::-1][box]
        how = record["sequences"][name]
        low, high = how["percentiles"]
        inner = (raw > low + FLOOR * (high - low)) & (raw < high)
        back = voxels * (high - low) + low
        assert np.abs(back - raw)[inner].max() <= how["scale"] / 2
        assert ((voxels == 0) == (raw == 0)).all()
