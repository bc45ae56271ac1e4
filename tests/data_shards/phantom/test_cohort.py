"""Phantom cohorts on disk: same bytes, continued, refused, readable."""

import csv
import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.phantom import cohort
from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.launch import cli

CONFIG = CohortConfig(3, spacing=7.0, seed=11)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "labelled"
    write_cohort(out, CONFIG)
    return out


def test_bids_layout(labelled):
    description = json.loads((labelled / "dataset_description.json").read_text())
    assert description["Settings"]["seed"] == 11
    assert "never clinical evidence" in description["Notice"]
    with (labelled / "participants.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == [
        "participant_id",
        "age",
        "sex",
        "protocol",
        "grade",
        "idh",
        "1p19q",
        "tert",
        "who_type",
    ]
    for row in rows:
        name = row["participant_id"]
        anat = labelled / name / "anat"
        names = {path.name for path in anat.glob("*.nii.gz")}
        suffixes = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")
        assert names == {f"{name}_{suffix}.nii.gz" for suffix in suffixes}
        folder = labelled / "derivatives" / "segmentations" / name / "anat"
        seg = nib.load(folder / f"{name}_dseg.nii.gz")
        for path in sorted(names):
            image = nib.load(anat / path)
            np.testing.assert_array_equal(image.affine, seg.affine)
            assert image.shape == seg.shape
            assert image.get_data_dtype() == np.int16
        assert nib.aff2axcodes(seg.affine) == ("R", "A", "S")
        assert set(np.unique(seg.dataobj)) <= {0, 1, 2, 4}
        assert np.asarray(seg.dataobj).any()


def test_same_bytes_for_any_number_of_workers(labelled, tmp_path):
    write_cohort(tmp_path / "two", CONFIG, workers=2)
    assert hashes(tmp_path / "two") == hashes(labelled)


def test_another_seed_gives_other_bytes(labelled, tmp_path):
    write_cohort(tmp_path / "other", CohortConfig(1, spacing=7.0, seed=12))
    image = "sub-001/anat/sub-001_T1w.nii.gz"
    assert (tmp_path / "other" / image).read_bytes() != (labelled / image).read_bytes()


def test_a_killed_cohort_continues(labelled, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    real = cohort.render

    def killed_at_two(config, subject):
        if subject.number == 2:
            raise KeyboardInterrupt
        return real(config, subject)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cohort, "render", killed_at_two)
        write_cohort(out, CONFIG)
    assert (out / "sub-001").is_dir()
    assert not (out / "participants.tsv").exists()
    # What a kill in the middle of a subject leaves behind:
    (out / ".sub-002.tmp" / "anat").mkdir(parents=True)
    (out / ".sub-002.tmp" / "anat" / "sub-002_T1w.nii.gz").write_bytes(b"half")
    (out / "derivatives" / ".half.tmp").write_bytes(b"half")
    kept = (out / "sub-001").stat().st_mtime_ns
    report = write_cohort(out, CONFIG)
    assert (report.made, report.kept) == (2, 1)
    assert (out / "sub-001").stat().st_mtime_ns == kept
    assert hashes(out) == hashes(labelled)


def test_preprocessing_takes_them_as_extracted_and_aligned(labelled):
    for raw in find_studies(labelled):
        history = preprocess(raw, PreprocessConfig(spacing=None)).history
        assert history["register"]["series"] == {} and history["n4"]["corrected"] == {}
        assert history["brain"]["method"] == "none" and history["grid"]["resampled"] == []


def test_a_finished_cohort_is_left_alone(labelled):
    before = {path: path.stat().st_mtime_ns for path in labelled.rglob("*")}
    assert write_cohort(labelled, CONFIG).made == 0
    assert {path: path.stat().st_mtime_ns for path in labelled.rglob("*")} == before


def test_unlabelled_archive(tmp_path):
    config = CohortConfig(2, protocol="mixed", unlabelled=True, spacing=7.0)
    write_cohort(tmp_path / "archive", config)
    assert not (tmp_path / "archive" / "derivatives").exists()
    subjects = [p for p in (tmp_path / "archive").glob("sub-*") if list(p.rglob("*.nii.gz"))]
    assert len(subjects) == 2


def test_another_cohort_is_refused(labelled, capsys):
    code = cli.main(["phantom", str(labelled), "--subjects", "3", "--spacing", "7", "--seed", "1"])
    assert code == 2
    message = capsys.readouterr().err.strip()
    assert "seed" in message and len(message.splitlines()) == 1


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_cohort(tmp_path, CONFIG)
    (tmp_path / "dataset_description.json").write_text('{"Name": "real patients"}')
    with pytest.raises(UsageError, match="no phantom"):
        write_cohort(tmp_path, CONFIG)
    assert not list(tmp_path.glob("sub-*"))


@pytest.mark.parametrize("bare", [["--unlabelled"], ["--unlabelled", "True"]])
def test_command(bare, tmp_path, capsys):
    out = tmp_path / "archive"
    flags = ["--subjects", "1", "--spacing", "8", "--workers", "1", "--json"]
    assert cli.main(["phantom", str(out), *bare, *flags]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "out": str(out),
        "subjects": 1,
        "made": 1,
        "kept": 0,
    }


@pytest.mark.parametrize("flags", [["--subjects", "0"], ["--subjects", "2", "--spacing", "-1"]])
def test_bad_options(flags, tmp_path, capsys):
    assert cli.main(["phantom", str(tmp_path / "out"), *flags]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
