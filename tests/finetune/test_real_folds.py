"""Five folds over the seven real cases, two of them without enhancing tumour, and their figures."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main

pytestmark = [pytest.mark.real, pytest.mark.slow]

CASES = 7
REGIONS = ("ET", "TC", "WT")
ENHANCING = 3
FIGURES = {"dice", "iou", "sensitivity", "precision", "nsd_1mm", "nsd_2mm", "hd95"}


@pytest.fixture(scope="module")
def shards(real_data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("folds") / "shards"
    coarse = ["--spacing", "6", "--steps", "background", "grid", "crop", "--keep-ids"]
    assert main(["shards", "build", str(real_data / "brats"), "--out", str(out), *coarse]) == 0
    return out


def finetune_and_evaluate(preset: Path, shards: Path, out: Path) -> dict[str, Any]:
    """metrics.json of an ensemble of five folds on the cases that it learned."""
    more = ["--data", str(shards), "--out"]
    settings = {"tasks": "seg", "shots": CASES, "folds": 5, "train.epochs": 1, "arch.spacing": 6}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    assert main(["finetune", str(preset), *more, str(out / "run"), *flags]) == 0
    command = ["evaluate", str(out / "run"), *more, str(out / "e"), "--allow-leakage", "True"]
    assert main(command) == 0
    return json.loads((out / "e/metrics.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(shards) -> Path:
    return shards.parent


@pytest.fixture(scope="module")
def metrics(shards, folder, tiny_preset) -> dict[str, Any]:
    return finetune_and_evaluate(tiny_preset, shards, folder / "first")


def test_every_case_validates_once_and_trains_elsewhere(metrics, folder):
    folds = json.loads((folder / "first/run/splits.json").read_text())["folds"]
    keys = sorted(key for fold in folds for key in fold["validation"])
    assert len(folds) == 5 and len(keys) == len(set(keys)) == CASES
    for fold in folds:
        assert sorted(fold["train"] + fold["validation"]) == keys
    summary = json.loads((folder / "first/run/summary.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == list(range(5))
    assert all(set(fold["dice"]) == set(REGIONS) for fold in summary["folds"])


def test_figures_are_complete(metrics):
    assert metrics["cases"] == CASES and metrics["folds"] == 5
    assert list(metrics["regions"]) == list(REGIONS) and metrics["markers"] == {}
    for region in metrics["regions"].values():
        assert region["cases"] == CASES and set(region) >= FIGURES
        for figure in FIGURES:
            low, high = region[figure]["interval"]
            assert 0 <= low <= region[figure]["mean"] <= high < math.inf


def test_masks_without_enhancing_tumour_count_by_the_convention(metrics, shards, folder):
    studies = [ShardSet.open(shards).read(i) for i in range(CASES)]
    empty_et = {study.key for study in studies if not (study.seg == ENHANCING).any()}
    assert {"01477", "01480"} <= {key[-5:] for key in empty_et}  # others lose specks at 6 mm
    empty = metrics["regions"]["ET"]["empty"]
    assert empty["truth"] + empty["both"] == len(empty_et) < CASES
    for region in ("TC", "WT"):
        there = metrics["regions"][region]["empty"]
        assert there["truth"] == there["both"] == 0
    with (folder / "first/e/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    without = [row for row in rows if row["ET_empty"] in ("truth", "both")]
    assert {row["key"] for row in without} == empty_et
    for row in without:
        both = row["ET_empty"] == "both"
        assert float(row["ET_dice"]) == both and (float(row["ET_hd95"]) == 0) is both
    mean = sum(float(row["ET_dice"]) for row in rows) / CASES
    assert mean == pytest.approx(metrics["regions"]["ET"]["dice"]["mean"])


def test_a_second_run_with_the_same_seed_gives_the_same_figures(
    metrics, shards, folder, tiny_preset
):
    again = finetune_and_evaluate(tiny_preset, shards, folder / "again")
    assert {**again, "run": metrics["run"]} == metrics
