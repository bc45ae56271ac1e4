"""A fine-tuned model of random weights, labelled cases, and an evaluation of it."""

import json
from pathlib import Path

import pytest
import torch

from gliomoe.finetune.evaluate import EvaluateConfig, evaluate
from gliomoe.models.checkpoint import save_checkpoint
from gliomoe.models.registry import create_model

NUMBERS = range(20, 26)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, ball_shards, write_labels) -> Path:
    """Checkpoints `run` and `genomic` (mdl_ca), `cases` of six ball studies, their `labels.tsv`."""
    folder = tmp_path_factory.mktemp("studies")
    shards = ball_shards(NUMBERS)
    (folder / "cases").symlink_to(shards)
    torch.manual_seed(0)
    models = {
        "run": create_model("gliomoe_tiny", ("seg", "idh", "grade"), patch_size=4),
        "genomic": create_model("mdl_ca", ("idh",), sequences=["t1"], layers=[1, 1, 1, 1],
                                growth=4, stem_channels=8, width=16),
    }  # fmt: skip
    training = {
        "kind": "finetune",
        "window": [20, 20, 20],
        "thresholds": {"idh": 0.5},
        "temperatures": {"idh": {"value": 2.0, "cases": 20, "reason": None}},
    }
    for name, model in models.items():
        save_checkpoint(
            folder / name,
            model,
            training=training,
            preprocessing=json.loads((shards / "dataset.json").read_text())["preprocess"],
            sequences=["t1", "flair"],
            card="a test",
        )
    write_labels(folder / "labels.tsv", NUMBERS)
    return folder


@pytest.fixture(scope="session")
def evaluation(folder) -> Path:
    """What `gliomoe evaluate` writes about it."""
    out = folder / "evaluation"
    evaluate(EvaluateConfig(folder / "run", folder / "cases", out, folder / "labels.tsv"), {})
    return out
