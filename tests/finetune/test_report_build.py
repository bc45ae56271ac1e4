"""`gliomoe report` on a run of a few steps, its evaluation and a prediction."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.report.build import PHANTOM, PHANTOM_NOTE
from gliomoe.finetune.report.history import POINTS, read_curves
from gliomoe.launch.cli import main

TINY = """
shots = 6
folds = 2
tasks = ["seg", "idh"]
arch = { patch_size = 4, spacing = 3.0 }
crop = { size = [16, 16, 16] }
train = { epochs = 2, steps_per_epoch = 2, validate_every = 1, precision = "fp32" }
artefacts = { bias_field = 0.0, kspace_noise = 0.0, spike = 0.0 }
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory, ball_shards, write_labels) -> Path:
    """A folder with `run`, `evaluation/ours` and `predictions` of one case."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.toml").write_text(TINY, "utf-8")
    train, test = ball_shards(range(6)), ball_shards(range(20, 24))
    labels = write_labels(folder / "labels.tsv", range(6))
    test_labels = write_labels(folder / "test.tsv", range(20, 24))
    case = folder / "case"
    case.mkdir()
    image = np.pad(ShardSet.open(test).read(0).voxels[0].numpy(), 2)  # with air around the head
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    write_nifti(case / "t1.nii.gz", image, affine)
    write_nifti(case / "t2.nii.gz", image[:, :, ::2], affine @ np.diag([1, 1, 2, 1]))
    for command in (
        ["finetune", folder / "tiny.toml", "--data", train, "--labels", labels, "--out", "run"],
        ["evaluate", folder / "run", "--data", test, "--labels", test_labels, "--out", "ours"],
        ["predict", folder / "run", case, "--out", "predictions"],
    ):
        assert main([*map(str, command[:-1]), str(folder / command[-1])]) == 0
    return folder


def report(folder: Path, *more: object) -> int:
    out = ["--out", folder / "report.html"]
    return main(["report", *map(str, [folder / "run", *out, *more])])


def embedded(html: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="cases">(.*?)</script>', html)
    assert found
    return json.loads(found[1])


@pytest.mark.slow
def test_report_shows_and_prints_all_parts(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--evaluations", work / "ours", "--predictions", work / "predictions"]
    assert report(work, *more) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ +cases +Dice ET .* AUC IDH$", printed, re.MULTILINE)
    assert re.search(r"^ours +4 +\d\.\d{3} ", printed, re.MULTILINE)
    assert str(work / "report.html") in printed
    html = (work / "report.html").read_text("utf-8")
    for text in ("Training loss", "Validation Dice", "AUC IDH", "patch_size = 4", "ours"):
        assert text in html
    assert PHANTOM_NOTE not in html
    prediction, *validation = embedded(html)
    assert prediction["title"] == "case (prediction)"
    assert list(prediction["images"]) == ["t1"]  # T2 lies on another grid
    assert "p(" in prediction["facts"]["IDH"]
    splits = json.loads((work / "run" / "splits.json").read_text())
    for number, case in enumerate(validation):
        key = case["title"].partition(" ")[0]
        assert case["title"].endswith(f"fold {number + 1})")
        assert key in splits["folds"][number]["validation"]
        assert key not in splits["folds"][number]["train"]
        assert set(case["labels"]) == {"prediction", "reference"}
        assert list(case["images"]) == ["flair", "t1"]


@pytest.mark.slow
def test_phantoms_are_named_as_such(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = ShardSet.info
    monkeypatch.setattr(
        ShardSet, "info", property(lambda s: {**info.fget(s), "generated_by": [PHANTOM]})
    )
    assert report(work, "--cases", 0) == 0
    assert PHANTOM_NOTE in (work / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_calls_that_cannot_work(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (work / "report.html").read_bytes() if (work / "report.html").exists() else None
    empty = work / "empty"
    empty.mkdir()
    for more, said in (
        (["--evaluations", empty], "metrics.json"),
        (["--predictions", empty], "holds no predicted case"),
        (["--cases", -1], "must not be negative"),
    ):
        assert report(work, *more) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert said in error[-1] and len(error) == 1
    for run, said in ((empty, "neither"), (work / "run" / "fold_0", "whole run")):
        assert main(["report", str(run), "--out", str(work / "other.html")]) == 2
        assert said in capsys.readouterr().err
    assert not (work / "other.html").exists()
    assert before is None or (work / "report.html").read_bytes() == before


@pytest.mark.slow
def test_an_image_that_is_gone_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((work / "predictions" / "case.json").read_text())
    record["sequences"]["files"]["t1"] = str(work / "gone.nii.gz")
    moved = work / "moved"
    moved.mkdir()
    (moved / "case.json").write_text(json.dumps(record))
    assert report(work, "--predictions", moved) == 2
    assert "gone.nii.gz: the image of case case is no longer there" in capsys.readouterr().err


@pytest.mark.slow
def test_the_prediction_lies_on_the_reference_grid(work: Path) -> None:
    seg = nibabel.load(work / "predictions" / "case_seg.nii.gz")
    t1 = nibabel.load(work / "case" / "t1.nii.gz")
    assert seg.shape == t1.shape
    np.testing.assert_allclose(seg.affine, t1.affine, atol=1e-5)


def test_long_curves_are_thinned_and_parts_averaged(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(1000):
            writer.add_scalar("loss/total", step / 1000, step)
        for region, value in (("ET", 0.2), ("TC", 0.3), ("WT", 0.7)):
            writer.add_scalar(f"validation/dice_{region}", value, 500)
    panels = read_curves({"fold 1": tmp_path})
    assert list(panels) == ["Training loss", "Validation Dice"]
    steps, values = panels["Training loss"]["fold 1"]
    assert len(steps) == POINTS
    np.testing.assert_allclose(np.array(steps) / 1000, values, atol=1e-6)
    assert panels["Validation Dice"]["fold 1"] == ([500.0], [pytest.approx(0.4)])
