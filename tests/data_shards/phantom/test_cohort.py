"""Phantom cohorts on disk: same bytes, continued, refused, readable."""

import contextlib
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliomoe.data_shards.errors import DataError, UsageError
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
        seg = nib.load(folder / f"{name}_desc-brats2021_dseg.nii.gz")
        for path in sorted(names):
            image = nib.load(anat / path)
            np.testing.assert_array_equal(image.affine, seg.affine)
            assert image.shape == seg.shape
            assert image.get_data_dtype() == np.int16
        assert nib.aff2axcodes(seg.affine) == ("R", "A", "S")
        assert set(np.unique(seg.dataobj)) <= {0, 1, 2, 4}
        assert np.asarray(seg.dataobj).any()


def test_tables_beside_the_images(labelled):
    def rows(path: str) -> list[dict[str, str]]:
        with (labelled / path).open() as file:
            return list(csv.DictReader(file, delimiter="\t"))

    names = [f"sub-{number:03d}" for number in (1, 2, 3)]
    genes, traits = rows("phenotype/genes.tsv"), rows("derivatives/truth/traits.tsv")
    for table, described in ((genes, "phenotype/genes"), (traits, "derivatives/truth/traits")):
        assert [row["participant_id"] for row in table] == names
        columns = json.loads((labelled / f"{described}.json").read_text())
        assert list(table[0]) == ["participant_id", *columns]
    by_name = {row["participant_id"]: row for row in rows("participants.tsv")}
    for row in genes:
        mutated = {row["IDH1_mutation"], row["IDH2_mutation"]} - {"n/a"}
        wild = by_name[row["participant_id"]]["idh"] == "wildtype"
        assert "1" not in mutated if wild else mutated != {"0"}
    truth = json.loads((labelled / "derivatives/truth/ceiling.json").read_text())
    assert set(truth["markers"]) >= {"idh", "1p19q", "tert", "grade"}
    lookup = rows("derivatives/segmentations/dseg.tsv")
    assert [(row["index"], row["abbreviation"]) for row in lookup] == [
        ("1", "NCR"),
        ("2", "ED"),
        ("4", "ET"),
    ]


def test_withheld_labels_are_in_no_table(tmp_path):
    config = CohortConfig(1, spacing=8.0, seed=3, missing_labels=1.0)
    write_cohort(tmp_path / "hidden", config)
    (row,) = csv.DictReader((tmp_path / "hidden/participants.tsv").open(), delimiter="\t")
    assert {row[name] for name in ("grade", "idh", "1p19q", "tert", "who_type")} == {"n/a"}
    (genes,) = csv.DictReader((tmp_path / "hidden/phenotype/genes.tsv").open(), delimiter="\t")
    told = ("IDH1_mutation", "IDH2_mutation", "TERT_mutation")
    assert {genes[name] for name in told} == {"n/a"}


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
    (out / "derivatives" / "segmentations" / "sub-002" / "anat").mkdir(parents=True)
    kept = (out / "sub-001").stat().st_mtime_ns
    report = write_cohort(out, CONFIG)
    assert (report.made, report.kept) == (2, 1)
    assert (out / "sub-001").stat().st_mtime_ns == kept
    assert hashes(out) == hashes(labelled)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_whole_subjects(workers, labelled, small_disk):
    """On a real small file system: the second subject does not fit."""
    sizes = [path.stat().st_size for path in labelled.rglob("sub-001*") if path.is_file()]
    out = small_disk(f"{int(1.6 * sum(sizes)) // 1024}k") / "cohort"
    with pytest.raises(DataError, match="free space and repeat"):
        write_cohort(out, CONFIG, workers)
    assert not list(out.rglob(".*.tmp")) and not (out / "participants.tsv").exists()
    whole = {path.name for path in out.glob("sub-*")}
    assert {path.name for path in out.glob("derivatives/segmentations/sub-*")} == whole
    for name in whole:
        theirs = {k: v for k, v in hashes(labelled).items() if k.startswith(f"{name}/")}
        assert {f"{name}/{k}": v for k, v in hashes(out / name).items()} == theirs


def test_killed_at_any_moment_it_leaves_whole_subjects_and_continues(labelled, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "gliomoe", "phantom", str(out), "--subjects", "3"]
    command += ["--spacing", "7", "--seed", "11", "--workers", "2"]
    # Killed while it starts, interrupted while it simulates, and once more as the impatient do.
    for wait, number in ((2.5, signal.SIGKILL), (6.0, signal.SIGINT)):
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(wait)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
            os.killpg(child.pid, number)
        child.communicate(timeout=60)
        for folder in out.glob("sub-*"):
            assert len(list(folder.rglob("*.nii.gz"))) == len(list(folder.rglob("*.json"))) == 4
    assert cli.main(command[3:]) == 0
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


def test_raw_form(tmp_path):
    config = CohortConfig(1, form="raw", spacing=4.0, seed=11, sequences=("t1", "flair", "dwi"))
    write_cohort(tmp_path / "raw", config)
    for study in find_studies(tmp_path / "raw"):
        assert list(study.series) == ["t1", "flair", "dwi"]
        series = {name: nib.load(path) for name, path in study.series.items()}
        assert len({image.affine.tobytes() for image in series.values()}) == 3
        seg = nib.load(study.seg)
        (same,) = [image for image in series.values() if np.array_equal(image.affine, seg.affine)]
        assert same.shape == seg.shape and np.asarray(seg.dataobj).any()
        finest = min(series.values(), key=lambda image: np.prod(image.header.get_zooms()))
        assert same is finest
        t1 = np.asarray(series["t1"].dataobj)
        shell = np.concatenate([t1[0].ravel(), t1[-1].ravel()])
        assert np.count_nonzero(t1) > 0.95 * t1.size and shell.any()  # noise in the air
        assert len(preprocess(study, PreprocessConfig(spacing=4.0)).volumes) == 3


def test_resected_cohorts_have_the_labels_of_2023(tmp_path):
    out = tmp_path / "after"
    write_cohort(out, CohortConfig(2, spacing=4.0, seed=5, resected_share=1.0))
    for raw in find_studies(out):
        assert raw.seg_labels == "brats2023"
        study = preprocess(raw, PreprocessConfig(spacing=None))
        assert (study.seg == 4).sum() * 4.0**3 / 1000 > 1  # ml of cavity
    rows = (out / "derivatives/segmentations/dseg.tsv").read_text().splitlines()
    assert rows[1:] == ["1\tNCR\tnecrotic or non-enhancing core", "2\tED\toedema", *rows[3:]]
    assert rows[3:] == ["3\tET\tenhancing", "4\tRC\tresection cavity"]


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


@pytest.mark.parametrize(
    "flags",
    [
        ["--subjects", "0"],
        ["--subjects", "2", "--spacing", "-1"],
        ["--subjects", "2", "--sequences", "t1", "ct"],
        ["--subjects", "2", "--sequences", "t1", "t1"],
        ["--subjects", "2", "--form", "cooked"],
        ["--subjects", "2", "--resected-share", "2"],
    ],
)
def test_bad_options(flags, tmp_path, capsys):
    assert cli.main(["phantom", str(tmp_path / "out"), *flags]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
