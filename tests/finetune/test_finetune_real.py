"""Five of the real glioma cases train, the other two are evaluated."""

import json
from pathlib import Path

import pytest

from gliomoe.launch.cli import main

TRAIN_CASES = 5


@pytest.mark.real
def test_finetune_on_five_cases_and_evaluate_two(real_data: Path, tmp_path: Path) -> None:
    cases = sorted(path for path in (real_data / "brats").iterdir() if path.is_dir())
    for part, chosen in (("train", cases[:TRAIN_CASES]), ("test", cases[TRAIN_CASES:])):
        (tmp_path / part).mkdir()
        for case in chosen:
            (tmp_path / part / case.name).symlink_to(case)
    settings = {
        "--tasks": "seg", "--shots": "5", "--only_folds": "0",
        "--arch.spacing": "4", "--train.epochs": "2", "--train.steps_per_epoch": "15",
    }  # fmt: skip
    flags = [part for pair in settings.items() for part in pair]
    data, run = str(tmp_path / "train"), str(tmp_path / "run")
    assert main(["finetune", "quickstart", "--data", data, "--out", run, *flags]) == 0
    data, out = str(tmp_path / "test"), str(tmp_path / "metrics")
    assert main(["evaluate", run, "--data", data, "--out", out]) == 0
    metrics = json.loads((tmp_path / "metrics/metrics.json").read_text())
    assert metrics["cases"] == 2
    assert metrics["regions"]["WT"]["dice"]["mean"] > 0.3
    assert metrics["regions"]["ET"]["empty"]["truth"] + metrics["regions"]["ET"]["empty"]["both"]
