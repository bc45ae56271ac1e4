"""Prediction of raw cases: NIfTI in, label map in the reference series' own grid and JSON out.

A case's results appear together, the JSON last; a case that fails leaves nothing and does not stop
the others.
"""

import glob
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.ingest.source import read_source
from gliomoe.data_shards.labels import REGIONS, from_canonical, from_regions
from gliomoe.data_shards.nifti import Volume, write_nifti
from gliomoe.data_shards.preprocess import preprocess
from gliomoe.data_shards.preprocess.native import to_native
from gliomoe.data_shards.study import RawStudy, Study, study_key, to_paths
from gliomoe.finetune.explain import AttentionMap
from gliomoe.finetune.inference import StudyPrediction
from gliomoe.finetune.predictor import Predictor

log = logging.getLogger(__name__)

NOTICE = "Research use only. Not a medical device; not for diagnosis or treatment."

CLASSES = {
    "idh": ("wild-type", "mutant"),
    "1p19q": ("intact", "codeleted"),
    "tert": ("wild-type", "mutant"),
    "grade": ("2", "3", "4"),
    "hgg": ("LGG", "HGG"),
}
"""Task → names of its classes; of a binary marker the second is what its probability is of."""

TASK_NAMES = {"idh": "IDH", "1p19q": "1p/19q", "tert": "TERT", "grade": "grade", "hgg": "LGG / HGG"}
"""Task → how people write it."""


@dataclass(frozen=True)
class PredictConfig:
    """What is written for each case."""

    labels: Literal["brats2021", "brats2023"] = "brats2021"
    """Numbering of the label map: 1, 2, 4 of BraTS up to 2022, or 1, 2, 3 since."""
    probabilities: bool = False
    """Also write the probability of each region, 4-D in the order ET, TC, WT."""
    uncertainty: bool = False
    """Also write the map of uncertainty (entropy of the ensemble's mean, in bits)."""
    maps: bool = False
    """Also write what the model looked at: attention and experts around the tumour, 4-D, each on
    its own grid."""
    overwrite: bool = False
    """Predict cases again whose results are there."""


@dataclass(frozen=True)
class PredictReport:
    """What became of the cases, by name."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Their results were there already."""
    failed: dict[str, str] = field(default_factory=dict)
    """Case → one line saying why."""


def find_cases(source: Path) -> dict[str, RawStudy]:
    """Cases of a folder or file by name.

    Raises:
        UsageError: If there is no case, or two cases would write the same files.
    """
    studies = find_studies(source)
    keys = [study_key(study.subject, study.session) for study in studies]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise UsageError(f"{source}: several cases are named {twice[0]}; predict them apart")
    return dict(zip(keys, studies, strict=True))


def predict_cases(
    predictor: Predictor, cases: Mapping[str, RawStudy], out: Path, config: PredictConfig
) -> PredictReport:
    """Predict cases one after the other into `out`.

    Raises:
        UsageError: If `out` holds results of another model.
    """
    report = PredictReport()
    bar = tqdm(cases.items(), desc="predict", unit="case", disable=None if len(cases) > 1 else True)
    for name, raw in bar:
        if not config.overwrite and _finished(out / f"{name}.json", predictor):
            report.skipped.append(name)
            continue
        try:
            predict_case(predictor, name, raw, out, config)
            report.done.append(name)
        except DataError as error:
            report.failed[name] = str(error)
    return report


def predict_case(
    predictor: Predictor, name: str, raw: RawStudy, out: Path, config: PredictConfig
) -> dict[str, Any]:
    """Predict one case and write its files.

    Returns:
        The content of `<name>.json`.

    Raises:
        DataError: If the case cannot be read or has no sequence to predict from.
    """
    # A segmentation beside the images must not take part, not even in where the box is cut.
    study = preprocess(replace(raw, seg=None), predictor.preprocess)
    prediction = predictor(study)
    # Without the step `grid` all series share one grid, and any of them will do.
    series = study.history.get("grid", {}).get("reference", next(iter(study.volumes)))
    reference = read_source(raw.series[series])
    record = _record(predictor, name, raw, study, series, reference)
    with _together(out, name) as folder:
        if prediction.regions is not None:
            record["segmentation"] = _write_maps(
                prediction, study.affine, reference, folder, name, config
            )
        if config.maps:
            record["maps"] = _write_attention(predictor.explain(study, prediction), folder, name)
        record["markers"] = {
            task: {
                **decide(task, probability.tolist(), predictor.thresholds.get(task)),
                "temperature": asdict(predictor.temperatures[task]),
            }
            for task, probability in prediction.markers.items()
        }
        write_json(folder / f"{name}.json", record)
    return record


def _finished(path: Path, predictor: Predictor) -> bool:
    """Whether a case's results by this model are there."""
    if not path.is_file():
        return False
    if read_record(path)["model"]["sha256"] != predictor.sha256:
        raise UsageError(
            f"{path}: was predicted by another model; choose another folder or --overwrite"
        )
    return True


def _record(
    predictor: Predictor,
    name: str,
    raw: RawStudy,
    study: Study,
    series: str,
    reference: Volume,
) -> dict[str, Any]:
    """What is known of a case before its prediction."""
    return {
        "case": name,
        "notice": NOTICE,
        "reference": {
            "sequence": series,
            "shape": list(reference.data.shape),
            "spacing_mm": [float(s) for s in np.linalg.norm(reference.affine[:3, :3], axis=0)],
        },
        "sequences": {
            "used": list(study.volumes),
            "missing": [s for s in predictor.sequences if s not in study.volumes],
            "files": {s: to_paths(source) for s, source in raw.series.items()},
        },
        "preprocessing": study.history,
        "model": {
            "name": predictor.name,
            "source": str(predictor.source),
            "members": len(predictor.models),
            "sha256": predictor.sha256,
        },
        "versions": {package: version(package) for package in ("gliomoe", "torch", "monai")},
    }


def _write_maps(
    prediction: StudyPrediction,
    affine: np.ndarray,
    reference: Volume,
    folder: Path,
    name: str,
    config: PredictConfig,
) -> dict[str, Any]:
    """Write the maps in the reference's grid; returns what the JSON says of them.

    Probabilities are resampled and then compared with ½, which leaves smooth borders where the
    nearest label would leave steps.
    """
    assert prediction.regions is not None and prediction.uncertainty is not None

    def native(array: torch.Tensor) -> np.ndarray:
        return to_native(array.numpy(), affine, reference, labels=False)

    regions = np.stack([native(region) for region in prediction.regions])
    seg = from_regions(torch.from_numpy(regions >= 0.5)).numpy()
    files = {"labels": f"{name}_seg.nii.gz"}
    write_nifti(folder / files["labels"], from_canonical(seg, config.labels), reference.affine)
    if config.probabilities:
        files["probabilities"] = f"{name}_prob.nii.gz"
        write_nifti(
            folder / files["probabilities"],
            np.moveaxis(regions, 0, -1).astype(np.float32),
            reference.affine,
        )
    if config.uncertainty:
        files["uncertainty"] = f"{name}_uncertainty.nii.gz"
        write_nifti(folder / files["uncertainty"], native(prediction.uncertainty), reference.affine)
    voxel_ml = abs(float(np.linalg.det(reference.affine[:3, :3]))) / 1000
    return {
        "files": files,
        "convention": config.labels,
        "volumes_ml": {
            region: round(float(np.isin(seg, labels).sum()) * voxel_ml, 3)
            for region, labels in REGIONS.items()
        },
        "left_out_ml": {region: round(ml, 3) for region, ml in prediction.left_out.items()},
    }


def _write_attention(maps: Mapping[str, AttentionMap], folder: Path, name: str) -> dict[str, str]:
    """Write attention maps; name of the map → file."""
    files = {title: f"{name}_map-{title.replace('.', '-')}.nii.gz" for title in maps}
    for title, found in maps.items():
        write_nifti(folder / files[title], found.values, found.affine)
    return files


def decide(task: str, probability: Sequence[float], threshold: float | None) -> dict[str, Any]:
    """Probabilities by class and the decision for one marker, or for the grade.

    Args:
        task: A key of `CLASSES`.
        probability: One of the second class, or one for each class.
        threshold: Of a binary marker; None means 0.5.
    """
    names = CLASSES[task]
    if len(probability) == 1:
        used = 0.5 if threshold is None else threshold
        return {
            "probability": {names[1]: probability[0]},
            "threshold": used,
            "threshold_from": "0.5" if threshold is None else "validation",
            "decision": names[probability[0] >= used],
        }
    return {
        "probability": dict(zip(names, probability, strict=True)),
        "decision": names[int(np.argmax(probability))],
    }


@contextmanager
def _together(out: Path, name: str) -> Iterator[Path]:
    """A folder whose files replace all results of a case in `out` when the block ends well.

    The JSON goes first and comes last: results with a JSON are whole and belong together.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".predict-") as temporary:
        folder = Path(temporary)
        yield folder
        (out / f"{name}.json").unlink(missing_ok=True)
        for kind in ("seg", "prob", "uncertainty"):
            (out / f"{name}_{kind}.nii.gz").unlink(missing_ok=True)
        for old in out.glob(f"{glob.escape(name)}_map-*.nii.gz"):
            old.unlink()
        for path in sorted(folder.iterdir(), key=lambda p: p.suffix == ".json"):
            os.replace(path, out / path.name)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON of a predicted case.

    Raises:
        UsageError: If the file is no such JSON.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        if "model" not in record or "reference" not in record:
            raise ValueError("not written by gliomoe predict")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a predicted case ({error})") from error
    return record
