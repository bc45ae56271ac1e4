"""Real MRI through every command: shards of two layouts, pretraining, fine-tuning, prediction.

A fixture a step, each going on where the one before it stopped.
"""

import json
import statistics

import nibabel
import numpy as np
import pytest

from gliomoe.launch.cli import main

pytestmark = [pytest.mark.real, pytest.mark.slow]

SPACING = 3.5
TRAIN_CASES = 5


def gliomoe(*args):
    assert main([str(arg) for arg in args]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def shards(real_data, folder):
    out = folder / "shards"
    sources = (real_data / "bids", real_data / "brats")
    # The heavy steps have tests of their own; 31 brain extractions would be most of this one.
    steps = ("--steps", "background", "grid", "crop")
    gliomoe("shards", "build", *sources, "--out", out, "--spacing", SPACING, *steps)
    return out


@pytest.fixture(scope="module")
def pretrained(shards, folder):
    run = folder / "pretraining"
    # So few steps learn something with most seeds, not with all.
    settings = ("--run.steps", 60, "--run.seed", 1, "--views.size", 24, "--optim.lr", 2e-3)
    gliomoe("pretrain", "smoke", "--data.train", shards, "--run.out", run, *settings)
    return run


@pytest.fixture(scope="module")
def checkpoint(pretrained, folder):
    out = folder / "checkpoint"
    gliomoe("export", pretrained, "--out", out)
    return out


@pytest.fixture(scope="module")
def cases(real_data, folder):
    """Folders of the cases to train on and of those held out."""
    found = sorted(path for path in (real_data / "brats").iterdir() if path.is_dir())
    for part, chosen in (("train", found[:TRAIN_CASES]), ("test", found[TRAIN_CASES:])):
        (folder / part).mkdir()
        for case in chosen:
            (folder / part / case.name).symlink_to(case)
    return folder / "train", folder / "test"


@pytest.fixture(scope="module")
def finetuned(checkpoint, cases, folder):
    run = folder / "run"
    settings = {
        "--tasks": "seg", "--shots": 5, "--only-folds": 0, "--crop.size": "32 40 32",
        "--train.epochs": 2, "--train.steps-per-epoch": 15, "--allow-leakage": True,
    }  # fmt: skip
    flags = [part for name, value in settings.items() for part in (name, *str(value).split())]
    gliomoe(
        "finetune", "quickstart", "--from", checkpoint, "--data", cases[0], "--out", run, *flags
    )
    return run


def test_one_set_of_two_layouts(shards, capsys):
    gliomoe("shards", "verify", shards)
    capsys.readouterr()
    gliomoe("shards", "inspect", shards, "--json")
    info = json.loads(capsys.readouterr().out)
    assert info["studies"] == 31
    assert info["sequences"] == {"t1": 31, "t1ce": 7, "t2": 9, "flair": 21}
    assert info["labelled"] == 7


def test_the_loss_of_pretraining_falls(pretrained):
    lines = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    error = [line["reconstruction"] for line in lines]
    assert len(error) == 60
    assert statistics.mean(error[-10:]) < statistics.mean(error[:10]) - 0.01


def test_cases_of_the_pretraining_are_refused(checkpoint, cases, folder, capsys):
    """The leakage guard recognises them, although their keys are hashed in the shards."""
    out = folder / "leaking"
    command = ["finetune", "quickstart", "--from", checkpoint, "--data", cases[0], "--out", out]
    assert main([str(part) for part in (*command, "--tasks", "seg", "--shots", "5")]) == 2
    assert "brats" in capsys.readouterr().err
    assert not (out / "run.json").exists()  # only the preprocessed cases are kept


def test_held_out_cases(finetuned, cases, folder):
    out = folder / "metrics"
    gliomoe("evaluate", finetuned, "--data", cases[1], "--out", out, "--allow-leakage")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["cases"] == 2
    assert metrics["regions"]["WT"]["dice"]["mean"] > 0.2
    empty = metrics["regions"]["ET"]["empty"]
    assert empty["truth"] + empty["both"] == 1  # one of the two has no enhancing tumour


def test_prediction_in_the_space_of_the_input(finetuned, cases, folder):
    out = folder / "predictions"
    gliomoe("predict", finetuned, cases[1], "--out", out)
    records = sorted(out.glob("*.json"))
    assert len(records) == 2
    for path in records:
        record = json.loads(path.read_text())
        image = nibabel.load(record["sequences"]["files"][record["reference"]["sequence"]])
        seg = nibabel.load(path.with_name(path.stem + "_seg.nii.gz"))
        assert seg.shape == image.shape
        np.testing.assert_allclose(seg.affine, image.affine)
        assert set(np.unique(seg.dataobj)) <= {0, 1, 2, 4}
        assert np.any(seg.dataobj)


def test_a_subject_with_t1_alone(finetuned, real_data, folder):
    out = folder / "t1_alone"
    gliomoe("predict", finetuned, real_data / "bids/sub-ixi01", "--out", out)
    (path,) = out.glob("*.json")
    record = json.loads(path.read_text())
    assert record["sequences"]["used"] == ["t1"]
    assert record["sequences"]["missing"] == ["t1ce", "t2", "flair"]
