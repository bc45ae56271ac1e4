"""Names and folders become studies; nothing is guessed."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.ingest.names import sequence_of
from gliomoe.data_shards.labels import from_canonical, to_canonical
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


def test_bids_entities_decide_between_files_of_one_sequence(tmp_path):
    touch(
        tmp_path,
        "dataset_description.json",
        *(f"sub-A/anat/sub-A_{name}.nii.gz" for name in ("acq-ax_T1w", "acq-3D_run-2_T1w")),
        *(f"sub-A/anat/sub-A_{name}.nii.gz" for name in ("acq-3D_run-1_T1w", "space-MNI_T1w")),
        *(f"sub-A/anat/sub-A_{name}.nii.gz" for name in ("acq-gd_T1w", "ce-none_T2w", "T1map")),
        *(f"sub-A/anat/sub-A_{name}.nii.gz" for name in ("ce-gad_FLAIR", "rec-norm_FLAIR")),
        *(f"sub-A/anat/sub-A_{name}.nii.gz" for name in ("echo-2_PDw", "echo-1_PDw", "inv-1_X")),
        "sub-A/swi/sub-A_part-phase_swi.nii.gz",
        "sub-A/swi/sub-A_part-mag_swi.nii.gz",
        "sub-A/dwi/sub-A_dwi.nii.gz",
        "sub-A/dwi/sub-A_dwi.bval",
        "sub-A/func/sub-A_task-rest_bold.nii.gz",
    )
    with pytest.warns(UserWarning, match="'X' is not known"):
        (a,) = find_studies(tmp_path)
    assert series(a) == {
        "t1": "sub-A_acq-3D_run-1_T1w.nii.gz",
        "t1ce": "sub-A_acq-gd_T1w.nii.gz",
        "t2": "sub-A_ce-none_T2w.nii.gz",
        "flair": "sub-A_rec-norm_FLAIR.nii.gz",
        "pd": "sub-A_echo-1_PDw.nii.gz",
        "swi": "sub-A_part-mag_swi.nii.gz",
        "other": "sub-A_inv-1_X.nii.gz",
    }
    assert reasons(a) == {
        "sub-A_acq-3D_run-2_T1w.nii.gz": "a second t1 beside sub-A_acq-3D_run-1_T1w.nii.gz",
        "sub-A_acq-ax_T1w.nii.gz": "a second t1 beside sub-A_acq-3D_run-1_T1w.nii.gz",
        "sub-A_space-MNI_T1w.nii.gz": "a second t1 beside sub-A_acq-3D_run-1_T1w.nii.gz",
        "sub-A_ce-gad_FLAIR.nii.gz": "a second flair beside sub-A_rec-norm_FLAIR.nii.gz",
        "sub-A_echo-2_PDw.nii.gz": "a second pd beside sub-A_echo-1_PDw.nii.gz",
        "sub-A_part-phase_swi.nii.gz": "part-phase, not the magnitude",
        "sub-A_dwi.nii.gz": "a 4-D acquisition",
        "sub-A_T1map.nii.gz": "a derived map",
        "sub-A_task-rest_bold.nii.gz": "the folder func is not read",
    }


def test_bids_segmentations_of_tissues_are_not_taken_for_tumours(tmp_path):
    touch(
        tmp_path,
        "sub-A/anat/sub-A_T1w.nii.gz",
        *(f"derivatives/fmriprep/sub-A/anat/sub-A_{n}.nii.gz" for n in ("dseg", "desc-aseg_dseg")),
        "derivatives/raters/sub-A/anat/sub-A_desc-tissue_dseg.nii.gz",
        "derivatives/raters/sub-A/anat/sub-A_space-MNI152_dseg.nii.gz",
        "derivatives/raters/sub-A/anat/sub-A_desc-tumor_dseg.nii.gz",
    )
    (a,) = find_studies(tmp_path)
    assert a.seg.name == "sub-A_desc-tumor_dseg.nii.gz" and len(a.left_out) == 4
    assert a.seg_labels == "brats2021"


def test_bids_segmentations_may_name_the_convention_of_their_labels(tmp_path):
    name = "derivatives/raters/sub-A/anat/sub-A_desc-BraTS2023_dseg.nii.gz"
    touch(tmp_path, "sub-A/anat/sub-A_T1w.nii.gz", name)
    (a,) = find_studies(tmp_path)
    assert a.seg_labels == "brats2023"


def test_bids_sessions_beside_files_without_one(tmp_path):
    touch(tmp_path, "sub-A/anat/sub-A_T1w.nii.gz", "sub-A/ses-1/anat/sub-A_ses-1_T1w.nii.gz")
    assert [study.session for study in find_studies(tmp_path)] == [None, "ses-1"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("participant_id\tidh\nsub-A\n", "line 2: 1 cells, the header has 2"),
        ("participant_id\tidh\nA\tmutant\nsub-A\twildtype\n", "line 3: idh is 'wildtype' here"),
        ("name\tidh\nsub-A\tmutant\n", "has no column participant_id, only name, idh"),
        ("participant_id\tidh\tIDH status\nsub-A\tx\ty\n", "idh and IDH status both give idh"),
        (f"participant_id\tidh\nsub-A\t{'long ' * 20}\n", "line 2: 99 characters for idh"),
    ],
)
def test_bids_participants_that_cannot_be_used(tmp_path, table, message):
    touch(tmp_path, "sub-A/anat/sub-A_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text(table, "utf-8")
    with pytest.raises(UsageError, match=message):
        find_studies(tmp_path)


def test_bids_labels(tmp_path):
    touch(tmp_path, *(f"sub-{s}/anat/sub-{s}_T1w.nii.gz" for s in "ABC"))
    table = "participant_id\tage\tIDH status\tWHO grade\nA\t52\tmutant\t\nsub-B\t41\tn/a\tIV\n"
    (tmp_path / "participants.tsv").write_text(table, "utf-8")
    labels = [dict(study.labels) for study in find_studies(tmp_path)]
    assert labels == [{"idh": "mutant"}, {"grade": "IV"}, {}]
    (tmp_path / "participants.tsv").write_text("participant_id\tname\nA\n\tB\tx\n", "utf-8")
    assert not find_studies(tmp_path)[0].labels  # no column of labels: not even read


@pytest.mark.parametrize(
    ("folder", "subject", "session", "labels"),
    [
        ("Brats18_2013_2_1", "Brats18_2013_2_1", None, "brats2021"),
        ("BraTS20_Training_001", "BraTS20_Training_001", None, "brats2021"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005", "101", "brats2023"),
        ("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001", "1", "brats2023"),
        ("BraTS-PED-00001-000", "BraTS-PED-00001", "000", "bratsped"),
    ],
)
def test_brats_names_of_all_years(tmp_path, folder, subject, session, labels):
    new = "-" in folder
    names = ("t1n", "t1c", "t2w", "t2f") if new else ("t1", "t1ce", "t2", "flair")
    touch(tmp_path, *(f"{folder}/{folder}{'-' if new else '_'}{s}.nii" for s in (*names, "seg")))
    (study,) = find_studies(tmp_path)
    assert (study.subject, study.session, study.seg_labels) == (subject, session, labels)
    assert list(study.series) == ["t1", "t1ce", "t2", "flair"]


def test_t1c_beside_t1_follows_the_older_convention(tmp_path):
    """As in UCSF-PDGM: read by the convention of 2023, its label 4 would be a cavity."""
    touch(tmp_path, *(f"P/P_{s}.nii.gz" for s in ("T1", "T1c", "T1_bias", "tumor_segmentation")))
    touch(tmp_path, "P/P_brain_segmentation.nii.gz")
    (study,) = find_studies(tmp_path)
    assert series(study) == {"t1": "P_T1.nii.gz", "t1ce": "P_T1c.nii.gz"}
    assert (study.seg.name, study.seg_labels) == ("P_tumor_segmentation.nii.gz", "brats2021")
    assert reasons(study) == {
        "P_T1_bias.nii.gz": "a second t1 beside P_T1.nii.gz",
        "P_brain_segmentation.nii.gz": "a mask",
    }


def test_case_folders_one_level_down(tmp_path):
    touch(tmp_path, "HGG/A/A_t1.nii", "LGG/B/B_t1.nii", "week/scan/t1.nii", "empty/readme.txt")
    found = [(study.subject, study.session, len(study.series)) for study in find_studies(tmp_path)]
    assert found == [("A", None, 1), ("B", None, 1), ("empty", None, 0), ("week", "scan", 1)]


@pytest.mark.parametrize(
    ("names", "studies"),
    [
        (("T1_RAS", "T1_LPS"), {"RAS": ["t1"], "LPS": ["t1"]}),
        (("P1_t1", "P1_flair", "P1_seg", "P2_t1"), {"P1": ["t1", "flair"], "P2": ["t1"]}),
        (("x_t1", "x_t1_brain", "x_flair"), {"case": ["t1", "flair"]}),
        (("t1_axial", "t1_sagittal", "flair_axial"), {"case": ["t1", "flair"]}),
        (("t1_1", "t1_2"), {"case": ["t1"]}),
        (("a_t1", "b_flair"), {"case": ["t1", "flair"]}),
        (("a_t1", "a_t1_reg", "b_t1"), {"case": ["t1"]}),
        (("t1_post", "T1 pre", "T2_FLAIR"), {"case": ["t1", "t1ce", "flair"]}),
    ],
)
def test_flat_folder_is_one_study_unless_its_names_tell_several_apart(tmp_path, names, studies):
    folder = touch(tmp_path / "case", *(f"{name}.nii.gz" for name in names))
    found = find_studies(folder)
    assert {study.subject: list(study.series) for study in found} == studies
    listed = sum(len(study.series) + len(study.left_out) + bool(study.seg) for study in found)
    assert listed == len(names)


def test_what_only_looks_like_a_file_is_listed(tmp_path):
    touch(tmp_path, "case/t1.nii.gz", "case/t2.nii.gz/inside.txt")
    (tmp_path / "case" / "flair.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    (case,) = find_studies(tmp_path / "case")
    assert series(case) == {"t1": "t1.nii.gz"}
    assert reasons(case) == {
        "flair.nii.gz": "a link to nothing",
        "t2.nii.gz": "a folder, not a file",
    }
    with pytest.raises(UsageError, match="holds no MRI"):
        find_studies(tmp_path / "case" / "t2.nii.gz")


def test_names_of_bids_without_its_folders(tmp_path):
    touch(tmp_path / "one", "sub-A/ses-1/sub-A_ses-1_adc.nii.gz", "sub-B/sub-B_adc.nii.gz")
    with pytest.raises(UsageError, match=r"different layouts: sub-A \(brats\), sub-B \(case\)"):
        find_studies(tmp_path / "one")
    found = find_studies(tmp_path / "one", "brats")
    assert [(study.subject, study.session) for study in found] == [
        ("sub-A", "ses-1"),
        ("sub-B", None),
    ]
    (b,) = find_studies(tmp_path / "one" / "sub-B")
    assert (b.subject, list(b.series), b.layout) == ("sub-B", ["adc"], "case")


def test_sources_of_different_layouts_are_named(tmp_path):
    touch(tmp_path, "one/sub-A/anat/sub-A_T1w.nii", "two/t1.nii", "three/P/t1.nii", "notes/x.txt")
    with pytest.raises(UsageError, match=r"one \(bids\), three \(brats\), two \(case\); name them"):
        find_studies(tmp_path)
    touch(tmp_path / "sets", "a/dataset_description.json", "b/dataset_description.json")
    with pytest.raises(UsageError, match=r"several BIDS data sets; .*sets/a .*sets/b"):
        find_studies(tmp_path / "sets")
    with pytest.raises(UsageError, match="neither NIfTI, nor DICOM, nor a manifest"):
        find_studies(tmp_path / "notes" / "x.txt")
    with pytest.raises(UsageError, match="a file, but the layout bids is a folder"):
        find_studies(tmp_path / "notes" / "x.txt", "bids")
    with pytest.raises(UsageError, match="a folder, but the layout csv is a table"):
        find_studies(tmp_path, "csv")


def test_pediatric_labels():
    seg = np.array([0, 1, 2, 3, 4])
    assert to_canonical(seg, "bratsped").tolist() == [0, 3, 1, 1, 2]
    assert from_canonical(np.array([0, 1, 2, 3]), "bratsped").tolist() == [0, 2, 4, 1]


@pytest.mark.parametrize(
    ("labels", "convention", "message"),
    [
        (
            [0, 1, 2, 3, 3],
            "brats2021",
            r"labels 3 (2 voxels) are not of the convention 'brats2021'",
        ),
        ([0, 1, 2, 3, 3], "brats2021", "(0, 1, 2, 4); brats2023 and bratsped would fit; number"),
        ([0, 1, 2, 4, 5], "brats2021", "nearest known: 'brats2021' (0, 1, 2, 4)"),
        ([0, 1, 3, 4, 10, 0.5], "brats2021", "labels 0.5 (1 voxels), 3 (1 voxels), 10 (1 voxels)"),
        ([0, 1, 3, 4, 10, 0.5], "brats2021", "nearest known: 'brats2023' (0, 1, 2, 3, 4)"),
        (range(10, 20), "brats2023", "14 (1 voxels) and 5 others are not of"),
    ],
)
def test_unknown_labels_are_counted_with_the_nearest_convention(labels, convention, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        to_canonical(np.array(labels, float), convention)


@pytest.mark.real
def test_every_real_folder_is_recognised(real_data):
    with pytest.raises(UsageError, match=r"bids \(bids\), brats \(brats\), dicom \(dicom\), ori"):
        find_studies(real_data)
    found = {path.name: find_studies(path) for path in real_data.iterdir() if path.is_dir()}
    layouts = {name: (studies[0].layout, len(studies)) for name, studies in found.items()}
    assert layouts == {
        "bids": ("bids", 24),
        "brats": ("brats", 7),
        "dicom": ("dicom", 1),
        "orientations": ("case", 6),
        "raw_clinical": ("brats", 1),
        "stroke": ("case", 1),
    }
    four = ["t1", "t1ce", "t2", "flair"]
    assert list(found["raw_clinical"][0].series) == list(found["dicom"][0].series) == four
    assert list(found["stroke"][0].series) == ["flair", "dwi", "adc"]
    assert reasons(found["stroke"][0]) == {"sub-strokecase0009_msk.nii.gz": "a mask"}
    assert sum(len(study.left_out) for studies in found.values() for study in studies) == 1
