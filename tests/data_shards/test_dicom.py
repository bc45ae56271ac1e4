"""DICOM folders: series by header and geometry, voxels exact, nobody's name in a shard."""

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from gliomoe.data_shards.building.build import build_shards
from gliomoe.data_shards.building.failures import read_failures
from gliomoe.data_shards.building.plan import BuildConfig
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.ingest import find_studies, survey
from gliomoe.data_shards.ingest.dicom_table import first_fit, read_rules
from gliomoe.data_shards.ingest.source import read_source
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.study import DicomSeries, to_paths, to_source
from gliomoe.launch.cli import main

_spec = importlib.util.spec_from_file_location(
    "dicom_files", Path(__file__).with_name("dicom_files.py")
)
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)


@pytest.fixture(scope="module")
def clinical(tmp_path_factory):
    """One examination as an archive sends it: everything in one folder, names that say nothing."""
    folder = tmp_path_factory.mktemp("archive") / "ex port"
    files.write_series(folder, "Ax T1", array=files.voxels(seed=1), SeriesNumber=3)
    files.write_series(
        folder, "Sag T1 thick", array=files.voxels(seed=2), spacing=(1.5, 2.0, 6.0), SeriesNumber=2
    )
    files.write_series(folder, "T1 MPRAGE +C", array=files.voxels(seed=3))
    files.write_enhanced(folder, "T2 TSE", array=files.voxels(seed=4))
    files.write_series(folder, "3-plane Localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    files.write_series(folder, "T1 MPR", ImageType=["DERIVED", "SECONDARY", "MPR"])
    files.write_series(folder, "ADC", ImageType=["DERIVED", "PRIMARY", "ADC"])
    files.write_series(folder, "FLAIR", array=files.voxels((20, 24, 3)))
    for time in range(2):
        files.write_series(folder / f"time {time}", "ep2d", SeriesInstanceUID="1.2.840.9")
    files.write_capture(folder)
    files.copy_to(min(path for path in folder.iterdir() if path.is_file()), folder)
    (folder / "readme.txt").write_text("no image")
    return folder


def test_series_by_header_and_geometry(clinical):
    found = survey(clinical)
    (study,) = found.studies
    assert (study.subject, study.layout, len(study.session)) == ("MRN-7741290", "dicom", 8)
    assert list(study.series) == ["t1", "t1ce", "t2", "adc"]
    assert [len(source.files) for source in study.series.values()] == [8, 8, 1, 8]
    assert sorted(one.reason.partition(", coarser")[0] for one in study.left_out) == [
        "a 4-D acquisition (16 images at 8 positions)",
        "a derived image",
        "a localiser",
        "a second t1",
        "only 3 slices: a localiser or an incomplete series",
    ]
    assert sorted(one.reason for one in found.left_out) == [
        "a copy of another file",
        "a screenshot (Secondary Capture Image Storage)",
        "not a DICOM file",
    ]


@pytest.mark.parametrize(("sequence", "seed"), [("t1", 1), ("t1ce", 3), ("t2", 4)])
def test_voxels_lie_where_the_scanner_put_them(clinical, sequence, seed):
    volume = read_source(find_studies(clinical)[0].series[sequence])
    assert sorted(volume.data.shape) == [8, 20, 24]
    assert (volume.data == files.expected(files.voxels(seed=seed), volume)).all()


def test_any_order_of_files_gives_the_same(tmp_path):
    paths = files.write_series(tmp_path / "a")
    shuffled = random.Random(3).sample(paths, len(paths))
    for number, path in enumerate(shuffled):
        target = tmp_path / "b" / f"deep {number % 3}" / f"{number} ü\n.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    a, b = (find_studies(tmp_path / name)[0] for name in "ab")
    assert (a.subject, a.session) == (b.subject, b.session)
    one, other = (read_source(study.series["t1"]) for study in (a, b))
    assert (one.data == other.data).all() and (one.affine == other.affine).all()


def test_sessions_and_subjects(tmp_path):
    files.write_series(tmp_path, "T1", "visit 1")
    files.write_series(tmp_path, "T1", "visit 2")
    files.write_series(tmp_path, "T1", "other", PatientID="P2")
    files.write_series(tmp_path, "T1", "nobody", PatientID="")
    studies = find_studies(tmp_path)
    assert len({(study.subject, study.session) for study in studies}) == 4
    subjects = [study.subject for study in studies]
    assert subjects[:3] == ["MRN-7741290", "MRN-7741290", "P2"]
    assert subjects[3].startswith("study-")


def test_echoes_and_weightings_of_one_series_are_apart(tmp_path):
    """Stacks that share a series: two echoes, and diffusion without and with weighting."""
    for echo in (15, 90):
        files.write_series(
            tmp_path / str(echo),
            "PD T2 dual",
            array=files.voxels(seed=echo),
            SeriesInstanceUID="1.2.3",
            EchoTime=echo,
        )
    for b in (0.0, 1000.0):
        files.write_series(tmp_path / f"b{b}", "ep2d", SeriesInstanceUID="1.2.4", DiffusionBValue=b)
    (study,) = find_studies(tmp_path)
    assert list(study.series) == ["t2", "pd", "dwi"]
    for name, echo in (("pd", 15), ("t2", 90)):
        volume = read_source(study.series[name])
        assert (volume.data == files.expected(files.voxels(seed=echo), volume)).all()
    reasons = [one.reason for one in study.left_out]
    assert reasons == ["diffusion without weighting (b = 0)"]


@pytest.mark.parametrize(
    ("headers", "sequence"),
    [
        ({"SeriesDescription": "t1_mprage_sag_p2_iso"}, "t1"),
        ({"SeriesDescription": "AX T1 POST GD"}, "t1ce"),
        ({"SeriesDescription": "Ax T1 FSE+C"}, "t1ce"),
        ({"SeriesDescription": "T1pre_reg"}, "t1"),
        ({"SeriesDescription": "AX T1", "ContrastBolusAgent": "Gadovist"}, "t1ce"),
        ({"SeriesDescription": "AX T1 PRE", "ContrastBolusAgent": "Gadovist"}, "t1"),
        ({"SeriesDescription": "T1 MPRAGE post-op without contrast"}, "t1"),
        ({"SeriesDescription": "T1 posterior fossa"}, "t1"),
        ({"SeriesDescription": "AX T1 W/O CONTRAST"}, "t1"),
        ({"SeriesDescription": "AX T1 W CONTRAST"}, "t1ce"),
        ({"SeriesDescription": "postop_t1_se_+C"}, "t1ce"),
        ({"SeriesDescription": "GD T1 SPACE"}, "t1ce"),
        ({"SeriesDescription": "SAG T2 C-SPINE"}, "not the head"),
        ({"SeriesDescription": "Ax T2 FLAIR ASSET"}, "flair"),
        ({"SeriesDescription": "Sag T1 FLAIR"}, "t1"),
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, "flair"),
        ({"SeriesDescription": "T2W_TSE"}, "t2"),
        ({"SeriesDescription": "Ax T2* GRE"}, "t2star"),
        ({"SeriesDescription": "t1_gre_3d"}, "t1"),
        ({"SeriesDescription": "SWI_Images"}, "swi"),
        ({"SeriesDescription": "ep2d_diff_3scan_trace_TRACEW"}, "dwi"),
        ({"SeriesDescription": "ep2d_diff_ADC"}, "adc"),
        ({"SeriesDescription": "3D ASL (non-contrast)"}, "asl"),
        ({"SeriesDescription": "PD_tse", "EchoTime": 20}, "pd"),
        ({"AcquisitionContrast": "FLUID_ATTENUATED"}, "flair"),
        ({"ScanningSequence": "SE", "RepetitionTime": 500, "EchoTime": 12}, "t1"),
        ({"ScanningSequence": "SE", "RepetitionTime": 4000, "EchoTime": 95}, "t2"),
        ({"ScanningSequence": "IR", "InversionTime": 2500, "EchoTime": 90}, "flair"),
        ({"SeriesDescription": "perf_ep2d_DSC"}, "a perfusion series"),
        ({"SeriesDescription": "TOF_3D_multi-slab"}, "an angiogram"),
        ({"SeriesDescription": "relCBV map"}, None),
        ({"SeriesDescription": "mIP_Images(SW)"}, "a projection"),
        ({"SeriesDescription": "AAHead_Scout"}, "a localiser"),
        ({"SeriesDescription": "eADC"}, "a derived map"),
        ({"SeriesDescription": "SWI", "ImageType": "P"}, "a phase, real or imaginary image"),
        ({"SeriesDescription": "thing"}, None),
    ],
)
def test_sequence_by_headers(headers, sequence):
    rule = first_fit(read_rules(None), {key: (value,) for key, value in headers.items()})
    assert sequence == (rule and (rule.sequence or rule.leave_out))


def test_unknown_sequence_is_other_with_a_warning(tmp_path, caplog):
    files.write_series(tmp_path, "zzz", EchoTime=45)
    (study,) = find_studies(tmp_path)
    assert list(study.series) == ["other"] and "no rule knows its sequence" in caplog.text


def test_own_table_comes_first(tmp_path):
    files.write_series(tmp_path / "in", "zzz")
    files.write_series(tmp_path / "in", "T1 reformatted", ImageType=["DERIVED", "PRIMARY", "MPR"])
    table = tmp_path / "own.toml"
    table.write_text(
        "[[rule]]\nsequence = 't2w'\ntext = 'zzz'\nEchoTime = { max = 10 }\n"
        "[[rule]]\nsequence = 't1'\ntext = 'reformatted'\n"
    )
    (study,) = survey(tmp_path / "in", dicom_table=table).studies
    assert list(study.series) == ["t1", "t2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]\n", "own.toml: not TOML"),
        ("rules = 1\n", "holds \\[\\[rule\\]\\] entries"),
        ("[[rule]]\ntext = 'x'\n", "rule 1: needs either sequence or leave_out"),
        ("[[rule]]\nsequence = 't9'\ntext = 'x'\n", "rule 1: 't9' is not one of t1, t1ce"),
        ("[[rule]]\nsequence = 't1'\ntext = '('\n", "rule 1: text is not a regular expression"),
        ("[[rule]]\nsequence = 't1'\nEchoTimes = 3\n", "EchoTimes is not a DICOM keyword"),
        ("[[rule]]\nsequence = 't1'\nEchoTime = {least = 3}\n", "may have min and max, not least"),
        ("[[rule]]\nsequence = 't1'\n", "would fit every series"),
    ],
)
def test_own_table_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_rules(tmp_path / "own.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_rules(tmp_path / "gone.toml")


def test_nothing_that_names_a_person_reaches_a_shard(clinical, tmp_path):
    settings = BuildConfig(preprocess=PreprocessConfig(spacing=None, steps=("grid",)))
    report = build_shards([clinical], tmp_path / "out", settings)
    assert report.info["sequences"] == {"t1": 1, "t1ce": 1, "t2": 1, "adc": 1}
    secrets = [*files.SECRETS.values(), "MPRAGE", "Ax T1", files.uid("study"), "20200101", "ACME"]
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes().lower()
        assert not [secret for secret in secrets if secret.lower().encode() in content], path


def test_truncated_file_and_missing_slice_fail_their_study_alone(tmp_path):
    whole = files.write_series(tmp_path / "in", "T1", "whole", PatientID="A")
    cut = files.write_series(tmp_path / "in", "T1", "cut", PatientID="B")
    cut[3].write_bytes(cut[3].read_bytes()[:-300])
    files.write_series(tmp_path / "in", "T1", "gap", PatientID="C")[3].unlink()
    settings = BuildConfig(preprocess=PreprocessConfig(spacing=None, steps=("grid",)))
    report = build_shards([tmp_path / "in"], tmp_path / "out", settings)
    assert report.info["studies"] == 1 and len(whole) == 8
    reasons = sorted(one.reason.partition("more: ")[2] for one in read_failures(tmp_path / "out"))
    assert reasons == [
        "a file is truncated; copy the series again",
        "slices are not evenly spaced, as when one is missing",
    ]


def test_damaged_header_is_named(tmp_path, caplog):
    first, *_ = files.write_series(tmp_path)
    first.write_bytes(first.read_bytes()[:400])
    found = survey(tmp_path)
    assert [Path(one.name) for one in found.left_out] == [first]
    assert "damaged" in found.left_out[0].reason and first.name in caplog.text


def test_folder_without_an_image_series(tmp_path):
    files.write_capture(tmp_path)
    with pytest.raises(UsageError, match=r"holds no MRI .*; left out: 1 × a screenshot \(Second"):
        find_studies(tmp_path)
    with pytest.raises(UsageError, match="holds no MRI"):
        find_studies(tmp_path, "bids")


def test_files_that_are_no_volume_together(tmp_path):
    one = files.write_series(tmp_path / "a", "T1", "one")
    other = files.write_series(tmp_path / "b", "T2", "two", array=files.voxels((30, 30, 8)))
    with pytest.raises(DataError, match="gives 2 volumes, not one"):
        read_source(DicomSeries((*one, *other)))


@pytest.mark.parametrize(
    ("owner", "group", "element", "kind", "value", "sequences"),
    [
        ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", 1000, ["t1", "dwi"]),
        ("GEMS_PARM_01", 0x0043, 0x39, "IS", [1_000_000_800, 8, 0, 0], ["t1", "dwi"]),
        ("Philips Imaging DD 001", 0x2001, 0x03, "FL", 0.0, ["t1"]),
        ("SOMEBODY ELSE", 0x0019, 0x0C, "IS", 1000, ["t1", "other"]),
    ],
)
def test_b_values_of_the_makers(tmp_path, owner, group, element, kind, value, sequences):
    files.write_series(tmp_path / "t1", "T1")
    for path in files.write_series(tmp_path / "x", "ep2d", EchoTime=45):
        image = dcmread(path)
        image.private_block(group, owner, create=True).add_new(element, kind, value)
        image.save_as(path)
    (study,) = find_studies(tmp_path)
    assert list(study.series) == sequences


def test_colour_images_and_links_in_a_circle(tmp_path):
    paths = files.write_series(tmp_path / "a", "T1")
    image = dcmread(paths[0])
    image.SOPInstanceUID, image.SeriesInstanceUID, image.SamplesPerPixel = "1.2.5", "1.2.6", 3
    image.save_as(tmp_path / "a" / "colour")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    found = survey(tmp_path / "linked")
    assert [one.reason for one in found.left_out] == ["a colour image"]
    assert [len(source.files) for source in found.studies[0].series.values()] == [8]


def test_mosaic(tmp_path):
    array = files.voxels((20, 24, 9), seed=5)
    files.write_mosaic(tmp_path, array=array)
    (study,) = find_studies(tmp_path)
    assert list(study.series) == ["dwi"]
    volume = read_source(study.series["dwi"])
    assert volume.data.shape == (24, 20, 9)
    assert (volume.data == files.expected(array, volume)).all()


def test_mosaics_of_one_series_are_a_4d_acquisition(tmp_path):
    files.write_series(tmp_path / "in", "T1")
    for seed in range(2):
        path = files.write_mosaic(tmp_path / "in", "ep2d", files.voxels((20, 24, 9), seed))
        image = dcmread(path)
        image.SOPInstanceUID = files.uid(f"mosaic {seed}")
        image.save_as(tmp_path / "in" / f"mosaic {seed}")
        path.unlink()
    (study,) = find_studies(tmp_path / "in")
    assert [one.reason for one in study.left_out] == ["a 4-D acquisition (2 volumes)"]


def test_source_of_a_prediction_is_found_again(tmp_path):
    series = DicomSeries((tmp_path / "b", tmp_path / "a"))
    assert to_source(json.loads(json.dumps(to_paths(series)))) == series
    assert to_source(to_paths(tmp_path / "a.nii")) == tmp_path / "a.nii"


def test_single_multi_frame_file(tmp_path):
    path = files.write_enhanced(tmp_path, "T2")
    (study,) = find_studies(path)
    assert list(study.series) == ["t2"]


def test_dry_run_shows_everything_and_writes_nothing(clinical, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["shards", "build", str(clinical), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "MRN-7741290, session" in text and "and 7 more" in text
    assert "left out" in text and "a localiser" in text and "a screenshot" in text
    assert main(["shards", "build", str(clinical), "--dry-run", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    (study,) = listed["sources"][0]["studies"]
    assert len(study["series"]["t1"]) == 8 and len(study["left_out"]) == 5
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.real
def test_real_series(real_data):
    (study,) = find_studies(real_data / "dicom" / "gbm_study3")
    folders = {name: source.files[0].parent.name for name, source in study.series.items()}
    assert folders == {
        "t1": "26401-T1prereg-52906",
        "t1ce": "11-T1post-18670",
        "t2": "37830-T2reg-78532",
        "flair": "36468-FLAIRreg-58706",
    }
    source = study.series["flair"]
    volume = read_source(source)
    assert volume.data.shape == (280, 320, 22)
    for path in source.files[::7]:
        slice_ = dcmread(path)
        row, column = np.array(slice_.ImageOrientationPatient, float).reshape(2, 3)
        dy, dx = map(float, slice_.PixelSpacing)
        position = np.array(slice_.ImagePositionPatient, float)
        for y, x in ((100, 90), (170, 200)):
            ras = (position + row * dx * x + column * dy * y) * [-1, -1, 1]
            i, j, k = np.rint(np.linalg.inv(volume.affine) @ [*ras, 1])[:3].astype(int)
            assert volume.data[i, j, k] == slice_.pixel_array[y, x]
