"""Prediction: results in the input's own grid, whole or not there, one bad case alone fails."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.nifti import read_nifti, write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.study import Study
from gliomoe.finetune.calibration import NOT_FITTED, Temperature
from gliomoe.finetune.inference import StudyPrediction
from gliomoe.finetune.predict import PredictConfig, find_cases, predict_case, predict_cases
from gliomoe.finetune.report.collect import prediction_scans
from gliomoe.launch.cli import main
from gliomoe.models.checkpoint import save_checkpoint
from gliomoe.models.registry import create_model

CENTRE = np.array([6.0, -4.0, 10.0])
"""RAS millimetres of the tumour of `write_case`."""

OBLIQUE = np.array([[-1.0, 0.15, 0.0], [0.14, 0.97, -0.6], [-0.05, -0.2, 3.9]])


def grid_mm(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    index = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)


def write_case(
    folder: Path, rotation: np.ndarray | None = None, sequences: tuple[str, ...] = ("t1", "flair")
) -> tuple[np.ndarray, np.ndarray]:
    """A head with a tumour as NIfTI files named by sequence; returns its affine and true mask."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([2.0, 2.0, 2.0]) if rotation is None else rotation
    shape = (48, 48, 48) if rotation is None else (84, 88, 22)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2)
    mm = grid_mm(affine, shape)
    head = np.linalg.norm(mm, axis=0) < 38
    distance = np.linalg.norm(mm - CENTRE[:, None, None, None], axis=0)
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for sequence in sequences:
        image = np.where(head, 300 + rng.normal(0, 5, shape), 0)
        image = np.where(distance < 14, 900, image).astype(np.float32)
        write_nifti(folder / f"{sequence}.nii.gz", image, affine)
    return affine, distance < 14


class Thresholder:
    """Stands for a predictor: half-way from tissue to tumour in FLAIR is whole tumour."""

    preprocess = PreprocessConfig(spacing=1.0)
    models = (None,)
    name, source, sha256 = "thresholder", Path("nowhere"), "0" * 64
    sequences = ("t1", "t1ce", "flair")
    thresholds = {"idh": 0.3, "tert": None}
    temperatures = {"idh": Temperature(2.0, 20, None), "tert": NOT_FITTED, "grade": NOT_FITTED}

    def __call__(self, study: Study) -> StudyPrediction:
        bright = ((torch.from_numpy(study.volumes["flair"]) - 300) / 600).clamp(0, 1)
        regions = torch.stack([torch.zeros_like(bright), bright * 0.0, bright])
        markers = {
            "idh": torch.tensor([0.4]),
            "tert": torch.tensor([0.4]),
            "grade": torch.tensor([0.1, 0.2, 0.7]),
        }
        return StudyPrediction(regions, torch.ones_like(bright), markers, {"ET": 0.2})


@pytest.mark.parametrize("rotation", [None, OBLIQUE])
def test_results_lie_in_the_reference_series_own_grid(
    tmp_path: Path, rotation: np.ndarray | None
) -> None:
    affine, truth = write_case(tmp_path / "case", rotation)
    ((name, raw),) = find_cases(tmp_path / "case").items()
    config = PredictConfig(probabilities=True, uncertainty=True)
    record = predict_case(Thresholder(), name, raw, tmp_path / "out", config)
    image = nibabel.load(tmp_path / "out" / f"{name}_seg.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    found = np.asarray(image.dataobj)
    assert found.shape == truth.shape and found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 2}
    overlap = 2 * ((found == 2) & truth).sum() / ((found == 2).sum() + truth.sum())
    assert overlap > 0.93
    volume = 4 / 3 * np.pi * 1.4**3
    assert record["segmentation"]["volumes_ml"]["WT"] == pytest.approx(volume, rel=0.08)
    assert record["segmentation"]["volumes_ml"]["ET"] == 0
    assert record["segmentation"]["left_out_ml"] == {"ET": 0.2}
    probability = nibabel.load(tmp_path / "out" / f"{name}_prob.nii.gz")
    assert probability.shape == (*truth.shape, 3)
    assert nibabel.load(tmp_path / "out" / f"{name}_uncertainty.nii.gz").shape == truth.shape


def test_the_record_tells_what_was_used_missing_and_decided(tmp_path: Path) -> None:
    write_case(tmp_path / "case")
    ((name, raw),) = find_cases(tmp_path / "case").items()
    predict_case(Thresholder(), name, raw, tmp_path, PredictConfig())
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["sequences"]["used"] == ["t1", "flair"]
    assert record["sequences"]["missing"] == ["t1ce"]
    assert record["markers"]["idh"] == {
        "probability": {"mutant": pytest.approx(0.4)},
        "threshold": 0.3,
        "threshold_from": "validation",
        "decision": "mutant",
        "temperature": {"value": 2.0, "cases": 20, "reason": None},
    }
    assert record["markers"]["tert"]["decision"] == "wild-type"
    assert record["markers"]["tert"]["threshold_from"] == "0.5"
    assert record["markers"]["grade"]["decision"] == "4"
    assert "research use only" in record["notice"].lower()


@pytest.mark.parametrize(("labels", "enhancing"), [("brats2021", 4), ("brats2023", 3)])
def test_label_conventions(tmp_path: Path, labels: str, enhancing: int) -> None:
    class Enhancing(Thresholder):
        def __call__(self, study: Study) -> StudyPrediction:
            prediction = super().__call__(study)
            assert prediction.regions is not None
            wt = prediction.regions[2]
            return replace(prediction, regions=torch.stack([wt, wt, wt]))

    write_case(tmp_path / "case")
    ((name, raw),) = find_cases(tmp_path / "case").items()
    predict_case(Enhancing(), name, raw, tmp_path, PredictConfig(labels=labels))
    found = np.asarray(nibabel.load(tmp_path / f"{name}_seg.nii.gz").dataobj)
    assert set(np.unique(found)) == {0, enhancing}


def test_one_bad_case_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_case(tmp_path / "in" / name / name, sequences=())
        for sequence in ("t1", "flair"):
            folder = tmp_path / "in" / name
            write_case(folder, sequences=(sequence,))
            (folder / f"{sequence}.nii.gz").rename(folder / f"{name}_{sequence}.nii.gz")
    for folder in (tmp_path / "in").glob("*/[abc]"):
        folder.rmdir()
    bad = tmp_path / "in" / "b" / "b_flair.nii.gz"
    bad.write_bytes(bad.read_bytes()[:2000])
    cases = find_cases(tmp_path / "in")
    assert list(cases) == ["a", "b", "c"]
    report = predict_cases(Thresholder(), cases, tmp_path / "out", PredictConfig())
    assert report.done == ["a", "c"] and list(report.failed) == ["b"]
    assert "b_flair.nii.gz" in report.failed["b"] and "\n" not in report.failed["b"]
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["a.json", "a_seg.nii.gz", "c.json", "c_seg.nii.gz"]
    again = predict_cases(Thresholder(), cases, tmp_path / "out", PredictConfig())
    assert again.skipped == ["a", "c"] and list(again.failed) == ["b"]


def test_overwriting_leaves_nothing_of_the_old_result(tmp_path: Path) -> None:
    write_case(tmp_path / "case")
    cases = find_cases(tmp_path / "case")
    (name,) = cases
    predict_cases(Thresholder(), cases, tmp_path, PredictConfig(probabilities=True))
    other = SimpleNamespace(sha256="1" * 64)
    with pytest.raises(UsageError, match="another model"):
        predict_cases(other, cases, tmp_path, PredictConfig())
    report = predict_cases(Thresholder(), cases, tmp_path, PredictConfig(overwrite=True))
    assert report.done == [name]
    assert not (tmp_path / f"{name}_prob.nii.gz").exists()


def test_a_failure_on_the_way_leaves_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(tmp_path / "case")
    cases = find_cases(tmp_path / "case")
    predict_cases(Thresholder(), cases, tmp_path / "out", PredictConfig())
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gliomoe.finetune.predict.write_json", full)
    with pytest.raises(OSError, match="No space"):
        predict_cases(Thresholder(), cases, tmp_path / "out", PredictConfig(overwrite=True))
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("model") / "fold_0"
    torch.manual_seed(0)
    tasks = ("seg", "idh", "grade")
    training = {"kind": "finetune", "tasks": tasks, "window": [48] * 3, "thresholds": {"idh": 0.5}}
    save_checkpoint(
        folder,
        create_model("gliomoe_tiny", tasks),
        training=training,
        preprocessing={"spacing": 2.0},
        sequences=["t1", "t2", "flair"],
        card="a test",
    )
    return folder


def predict(*args: object) -> int:
    return main(["predict", *map(str, args)])


@pytest.mark.slow
def test_command_on_one_file_and_on_a_folder(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path / "case", OBLIQUE)
    assert predict(checkpoint, tmp_path / "case", "--out", tmp_path / "out") == 0
    assert "1 predicted" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "case.json").read_text())
    assert record["sequences"]["missing"] == ["t2"] and record["model"]["members"] == 1
    assert set(record["markers"]) == {"idh", "grade"}
    assert predict(checkpoint, tmp_path / "case", "--out", tmp_path / "out") == 0
    assert "1 there already" in capsys.readouterr().out
    single = tmp_path / "case" / "t1.nii.gz"
    assert predict(checkpoint, single, "--out", tmp_path / "one", "--labels", "brats2023") == 0
    ((file,)) = (tmp_path / "one").glob("*.json")
    assert json.loads(file.read_text())["sequences"]["used"] == ["t1"]


def four_d(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8, 2), np.float32), np.eye(4)), path)


def spoiled(value: float) -> "np.ndarray":
    image = np.ones((8, 8, 8), np.float32)
    image[...] = value
    return image


BAD = {
    "no such": lambda folder: folder.rmdir(),
    "holds no": lambda folder: None,
    "4": lambda folder: four_d(folder / "t1.nii.gz"),
    "NaN": lambda folder: nibabel.save(
        nibabel.Nifti1Image(spoiled(np.nan), np.eye(4)), folder / "t1.nii.gz"
    ),
    "0": lambda folder: nibabel.save(
        nibabel.Nifti1Image(spoiled(0), np.eye(4)), folder / "t1.nii.gz"
    ),
    "t1.nii.gz": lambda folder: (folder / "t1.nii.gz").write_text("this is no image"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input_in_one_line(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    (tmp_path / "case").mkdir()
    BAD[said](tmp_path / "case")
    assert predict(checkpoint, tmp_path / "case", "--out", tmp_path / "out") in (1, 2)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and said in error and "case" in error
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_model_that_cannot_predict(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path / "case")
    pretrained = tmp_path / "pretrained"
    save_checkpoint(
        pretrained,
        create_model("gliomoe_tiny"),
        training={"kind": "pretrain"},
        preprocessing={"spacing": 2.0},
        sequences=["t1"],
        card="a test",
    )
    for model, said in ((pretrained, "fine-tune"), (tmp_path / "case", "checkpoint")):
        assert predict(model, tmp_path / "case", "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err.strip()
        assert said in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_series_that_lie_apart(tmp_path: Path) -> None:
    """What is seen in a misplaced FLAIR is written where the reference has it."""
    affine, truth = write_case(tmp_path / "case")
    flair = read_nifti(tmp_path / "case" / "flair.nii.gz")
    astray = flair.affine.copy()
    astray[:3, 3] += (9, -6, 4)
    write_nifti(tmp_path / "case" / "flair.nii.gz", flair.data[:, :, :46], astray)
    ((name, raw),) = find_cases(tmp_path / "case").items()
    record = predict_case(Thresholder(), name, raw, tmp_path / "out", PredictConfig())
    moved = record["preprocessing"]["register"]["series"]["flair"]
    assert moved["kept"] and record["reference"]["sequence"] == "t1"
    np.testing.assert_allclose(moved["translation_mm"], (-9, 6, -4), atol=1)
    image = nibabel.load(tmp_path / "out" / f"{name}_seg.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    found = np.asarray(image.dataobj) > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93


def test_reference_images_stay_untouched(tmp_path: Path) -> None:
    write_case(tmp_path / "case", OBLIQUE)
    before = {p: p.read_bytes() for p in (tmp_path / "case").iterdir()}
    cases = find_cases(tmp_path / "case")
    predict_cases(Thresholder(), cases, tmp_path / "out", PredictConfig())
    assert {p: p.read_bytes() for p in (tmp_path / "case").iterdir()} == before
    assert read_nifti(tmp_path / "case" / "t1.nii.gz").data.shape == (84, 88, 22)


class Bright(Thresholder):
    """The brighter half of whatever comes first."""

    def __call__(self, study: Study) -> StudyPrediction:
        volume = torch.from_numpy(next(iter(study.volumes.values())))
        bright = (volume > volume[volume != 0].median()).float()
        return StudyPrediction(torch.stack([bright] * 3), bright, {})


@pytest.mark.real
def test_real_series_on_grids_of_their_own(tmp_path: Path, real_data: Path) -> None:
    ((name, raw),) = find_cases(real_data / "raw_clinical" / "TCGA-FG-6692").items()
    predictor = Bright()
    predictor.preprocess = PreprocessConfig(spacing=2.0)
    record = predict_case(predictor, name, raw, tmp_path, PredictConfig())
    assert record["sequences"]["used"] == ["t1", "t1ce", "t2", "flair"]
    done = record["preprocessing"]
    assert all(note["kept"] for note in done["register"]["series"].values())
    assert 1400 < done["brain"]["volume_ml"] < 1900
    image = nibabel.load(raw.series[record["reference"]["sequence"]])
    seg = nibabel.load(tmp_path / f"{name}_seg.nii.gz")
    assert seg.shape == image.shape
    np.testing.assert_allclose(seg.affine, image.affine, atol=1e-3)
    assert record["segmentation"]["volumes_ml"]["ET"] > 300  # half of a head


@pytest.mark.real
def test_dicom_series_with_a_result_in_the_grid_of_one(tmp_path: Path, real_data: Path) -> None:
    ((name, raw),) = find_cases(real_data / "dicom").items()
    predictor = Bright()
    predictor.preprocess = PreprocessConfig(spacing=4.0)
    record = predict_case(predictor, name, raw, tmp_path, PredictConfig())
    assert record["sequences"]["used"] == ["t1", "t1ce", "t2", "flair"]
    seg = nibabel.load(tmp_path / f"{name}_seg.nii.gz")
    assert seg.shape == tuple(record["reference"]["shape"]) == (280, 320, 22)
    assert [len(paths) for paths in record["sequences"]["files"].values()] == [22] * 4
    (scan,) = prediction_scans(tmp_path)
    assert set(scan.images) == {"t1", "t1ce", "t2", "flair"}
