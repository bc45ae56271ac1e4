"""`gliomoe predict`."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

from gliomoe.finetune.predict import PredictConfig, find_cases, predict_cases
from gliomoe.finetune.predictor import Predictor

EXAMPLE = "gliomoe predict runs/finetuned patients/case_01 --out predictions"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    model: tyro.conf.Positional[Path]
    """A fine-tuned run (the ensemble of its folds), or one of its checkpoint folders."""
    input: tyro.conf.Positional[Path]
    """A case's folder, a NIfTI file named by sequence, or a folder of cases (BIDS, BraTS)."""
    out: Path
    """Folder for the results."""
    labels: Literal["brats2021", "brats2023"] = "brats2021"
    """Numbering of the label map: 1, 2, 4 of BraTS up to 2022, or 1, 2, 3 since."""
    probabilities: bool = False
    """Also write the probability of each region."""
    uncertainty: bool = False
    """Also write the map of uncertainty, in bits."""
    overwrite: bool = False
    """Predict cases again whose results are there."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""
    json: bool = False
    """Print what became of each case as JSON."""


def run(options: Options) -> int:
    """Predict; 1 if a case failed."""
    cases = find_cases(options.input)
    predictor = Predictor.open(options.model, options.device)
    config = PredictConfig(
        options.labels, options.probabilities, options.uncertainty, options.overwrite
    )
    report = predict_cases(predictor, cases, options.out, config)
    for name, reason in report.failed.items():
        print(f"gliomoe predict: {name}: {reason}", file=sys.stderr)
    done = f"{len(report.done)} predicted"
    if report.skipped:
        done += f", {len(report.skipped)} there already (--overwrite True repeats them)"
    if report.failed:
        done += f", {len(report.failed)} failed"
    if options.json:
        print(json.dumps({"out": str(options.out), **asdict(report)}))
    else:
        print(f"{done}: {options.out}")
    return 1 if report.failed else 0
