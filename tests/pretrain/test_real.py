"""Pretraining on real MRI of several protocols."""

import json
import statistics

import pytest

from gliomoe.launch.cli import main


@pytest.mark.real
@pytest.mark.slow
def test_the_loss_falls_on_real_studies(real_data, tmp_path):
    shards, run = tmp_path / "shards", tmp_path / "run"
    sources = [str(real_data / "bids"), str(real_data / "brats")]
    build = ["shards", "build", *sources, "--out", str(shards), "--preprocess.spacing", "3.5"]
    assert main(build) == 0
    options = ["--run.steps", "30", "--views.size", "32", "--optim.lr", "2e-3"]
    folders = ["--data.train", str(shards), "--run.out", str(run)]
    assert main(["pretrain", "quickstart", *folders, *options]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    error = [line["reconstruction"] for line in lines]
    assert len(error) == 30
    assert statistics.mean(error[-10:]) < statistics.mean(error[:10]) - 0.015
