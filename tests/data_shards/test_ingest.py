"""Names and folders become studies; nothing is guessed."""

import warnings
from pathlib import Path

import pytest

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.ingest.names import sequence_of
from gliomoe.data_shards.study import study_key


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def series(study):
    return {name: path.name for name, path in study.series.items()}


def reasons(found):
    return {Path(one.name).name: one.reason for one in found.left_out}


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("sub-01_T1w.nii.gz", "t1"),
        ("sub-01_ce-gad_T1w.nii.gz", "t1ce"),
        ("sub-01_ses-2_acq-ax_FLAIR.nii", "flair"),
        ("BraTS2021_00006_t1ce.nii.gz", "t1ce"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "flair"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "t1"),
        ("fla.nii.gz", "flair"),
        ("T1_AIR.nii.gz", "t1"),
        ("sub-01_adc.nii.gz", "adc"),
    ],
)
def test_sequences_by_name(name, sequence):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sequence_of(Path(name)) == sequence


def test_unknown_sequence_is_other():
    with pytest.warns(UserWarning, match="'thing' is not known"):
        assert sequence_of(Path("case_thing.nii.gz")) == "other"


def test_bids(tmp_path):
    touch(
        tmp_path,
        "dataset_description.json",
        "sub-A/anat/sub-A_T1w.nii.gz",
        "sub-A/anat/sub-A_ce-gd_T1w.nii.gz",
        "sub-A/anat/sub-A_T1w.json",
        "sub-A/anat/sub-A_mask.nii.gz",
        "sub-A/dwi/sub-A_dwi.nii.gz",
        "sub-A/dwi/sub-A_dwi.bval",
        "sub-A/dwi/sub-A_adc.nii.gz",
        "sub-B/ses-1/anat/sub-B_ses-1_FLAIR.nii.gz",
        "sub-B/ses-1/anat/sub-B_ses-1_PDw.nii.gz",
        "sub-B/ses-2/anat/sub-B_ses-2_T2w.nii.gz",
        "sub-C/func/sub-C_bold.nii.gz",
        "derivatives/segmentations/sub-A/anat/sub-A_dseg.nii.gz",
        "derivatives/segmentations/sub-B/ses-2/anat/sub-B_ses-2_dseg.nii.gz",
    )
    a, b1, b2, c = find_studies(tmp_path)
    assert (a.subject, a.session, a.seg.name) == ("sub-A", None, "sub-A_dseg.nii.gz")
    assert list(a.series) == ["t1", "t1ce", "adc"]
    assert (b1.subject, b1.session, b1.seg) == ("sub-B", "ses-1", None)
    assert list(b1.series) == ["flair", "pd"]
    assert b2.session == "ses-2" and b2.seg.name == "sub-B_ses-2_dseg.nii.gz"
    assert not c.series and c.layout == "bids"
    assert find_studies(tmp_path / "sub-A") == [a]
    assert find_studies(tmp_path / "sub-B") == [b1, b2]


def test_brats_in_both_spellings(tmp_path):
    touch(tmp_path, *[f"X_1/X_1_{s}.nii.gz" for s in ("t1", "t1ce", "t2", "flair", "seg")])
    touch(tmp_path, *[f"Y-2/Y-2-{s}.nii.gz" for s in ("t1n", "t1c", "t2w", "t2f", "seg")])
    old, new = find_studies(tmp_path)
    assert list(old.series) == list(new.series) == ["t1", "t1ce", "t2", "flair"]
    assert (old.seg_labels, new.seg_labels) == ("brats2021", "brats2023")
    assert (old.seg.name, new.seg.name) == ("X_1_seg.nii.gz", "Y-2-seg.nii.gz")
    assert find_studies(tmp_path / "X_1")[0].series == old.series


def test_case_of_plain_names_and_a_single_file(tmp_path):
    touch(tmp_path, *[f"case/{s}.nii.gz" for s in ("t1", "t1c", "fla", "brain_mask", "b_t1")])
    (case,) = find_studies(tmp_path / "case")
    assert series(case) == {"t1": "t1.nii.gz", "t1ce": "t1c.nii.gz", "flair": "fla.nii.gz"}
    assert reasons(case) == {
        "b_t1.nii.gz": "a second t1 beside t1.nii.gz",
        "brain_mask.nii.gz": "a mask",
    }
    (one,) = find_studies(tmp_path / "case" / "fla.nii.gz")
    assert series(one) == {"flair": "fla.nii.gz"} and one.subject == "fla"


def test_sources_that_hold_nothing(tmp_path):
    touch(tmp_path, "notes/readme.txt")
    with pytest.raises(UsageError, match="holds no MRI"):
        find_studies(tmp_path)
    with pytest.raises(UsageError, match="holds no MRI in the layout bids"):
        find_studies(tmp_path, "bids")
    with pytest.raises(UsageError, match="no such file or folder"):
        find_studies(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="unknown layout 'bidz'; known: auto, bids"):
        find_studies(tmp_path, "bidz")


def test_study_keys():
    assert study_key("Sub.X 1", "ses-2") == "sub-x-1_ses-2"
    hashed = study_key("Sub-X", None, "salt")
    assert len(hashed) == 32 and hashed != study_key("Sub-X", None, "other salt")
    assert hashed != study_key("Sub-X", "1", "salt") and "x" not in hashed
    with pytest.raises(DataError, match="gives a study key of 0 characters"):
        study_key("...")
