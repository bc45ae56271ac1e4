"""`gliomoe predict`."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

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
    written: Annotated[PredictConfig, tyro.conf.arg(name="")] = field(default_factory=PredictConfig)
    """What is written."""
    genes: Path | None = None
    """TSV with the cases' genes, for models that take them (mdl_ca)."""
    folds: tuple[int, ...] = ()
    """Members of the ensemble, counted from 0; empty: all finished folds."""
    draws: int = 0
    """Monte Carlo dropout: predict so often with dropout switched on and take the mean; 0: once,
    without."""
    flips: bool = False
    """Test-time augmentation: average over all flips along the axes, at eight times the work."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""
    json: bool = False
    """Print what became of each case as JSON."""


def run(options: Options) -> int:
    """Predict; 1 if a case failed."""
    cases = find_cases(options.input)
    predictor = Predictor.open(
        options.model, options.device, options.genes, options.draws, options.flips, options.folds
    )
    report = predict_cases(predictor, cases, options.out, options.written)
    for name, reason in report.failed.items():
        print(f"gliomoe predict: {name}: {reason}", file=sys.stderr)
    done = f"{len(report.done)} predicted"
    if report.skipped:
        done += f", {len(report.skipped)} there already (--overwrite repeats them)"
    if report.failed:
        done += f", {len(report.failed)} failed"
    if options.json:
        print(json.dumps({"out": str(options.out), **asdict(report)}))
    else:
        print(f"{done}: {options.out}")
    return 1 if report.failed else 0
