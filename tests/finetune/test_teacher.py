"""Who teaches which fold, what a student may look at, and that it resumes exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune import loop
from gliomoe.finetune.artefacts import ArtefactConfig
from gliomoe.finetune.cases import labelled_cases
from gliomoe.finetune.config import CropConfig
from gliomoe.finetune.dataset import CropDataset, MixedCrops
from gliomoe.finetune.loop import train_step
from gliomoe.finetune.losses import losses
from gliomoe.finetune.splits import Fold
from gliomoe.finetune.teacher import may_teach
from gliomoe.launch.cli import main
from gliomoe.models.checkpoint import read_config

OPTIONS = ["--tasks", "seg", "idh", "--train.epochs", "2"]
Finetune = Callable[..., int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("teaching")


@pytest.fixture(scope="module")
def shards(ball_shards) -> dict[str, Path]:
    """Labelled balls, others with labels, and balls of which two are labelled cases."""
    sets = {"ours": range(8), "others": range(30, 38), "more": [6, 7, 20, 21, 22]}
    return {name: ball_shards(list(numbers)) for name, numbers in sets.items()}


@pytest.fixture(scope="module")
def finetune(folder, shards, write_labels, tiny_preset) -> Finetune:
    """A function that fine-tunes on the balls, or on others."""
    labels = write_labels(folder / "labels.tsv", [*range(8), *range(30, 38)])

    def run(out: Path, *more: str, data: str = "ours") -> int:
        where = ["--data", str(shards[data]), "--labels", str(labels), "--out", str(out)]
        return main(["finetune", str(tiny_preset), *OPTIONS, *where, *map(str, more)])

    return run


@pytest.fixture(scope="module")
def teacher(folder, finetune) -> Path:
    """Both folds of a run on the balls."""
    assert finetune(folder / "teacher") == 0
    return folder / "teacher"


@pytest.fixture(scope="module")
def student(folder, finetune, teacher, shards) -> Path:
    """Its first fold taught, with more balls."""
    more = ["--distil.data", shards["more"], "--only_folds", "0"]
    assert finetune(folder / "student", "--teacher", teacher, *more) == 0
    return folder / "student"


def teachers(printed: str) -> list[list[str]]:
    """The members that a dry run names, fold by fold."""
    lines = [line.split() for line in printed.splitlines() if line.startswith("  teacher ")]
    return [[Path(path.rstrip(",")).name for path in line[1:]] for line in lines]


def error_of(capsys) -> str:
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error" in line
    return line


@pytest.mark.parametrize(
    ("validation", "shared", "expected"),
    [
        (("b",), {"a": "A", "b": "B"}, True),  # it validated there as well
        (("a",), {"a": "A", "b": "B"}, False),  # it trained on it
        (("a",), {"b": "B"}, True),  # the same name, another study
        (("c",), {"a": "A", "b": "B"}, True),  # it never saw it
        (("c",), {"a": "A", "c": "C"}, False),  # it saw it, and no fold of it says where
        (("b",), {"a": "A", "b": "A"}, False),  # it trained on another study of the subject
    ],
)
def test_who_may_teach(validation, shared, expected):
    theirs = Fold(train=("a", "x"), validation=("b",))
    assert may_teach(theirs, Fold(("y",), validation), shared) is expected


def test_on_its_own_splits_each_fold_teaches_its_own(finetune, teacher, tmp_path, capsys):
    assert finetune(tmp_path / "s", "--teacher", teacher, "--dry-run") == 0
    assert teachers(capsys.readouterr().out) == [["fold_0"], ["fold_1"]]
    other = ["--teacher", teacher, "--dry-run", "--seed", "7"]
    assert finetune(tmp_path / "s", *other) == 2
    splits = teacher / "splits.json"
    message = error_of(capsys)
    assert "no finished fold of it may teach fold 0" in message
    assert f"repeat its splits by --splits {splits} --folds 2" in message
    assert finetune(tmp_path / "s", *other, "--splits", splits) == 0
    assert teachers(capsys.readouterr().out) == [["fold_0"], ["fold_1"]]
    assert finetune(tmp_path / "s", *other, "--allow_leakage") == 0
    assert teachers(capsys.readouterr().out) == [["fold_0", "fold_1"]] * 2
    assert finetune(tmp_path / "s", "--teacher", teacher / "fold_0", "--dry-run") == 2
    assert "may teach fold 0" in error_of(capsys)


def test_a_teacher_of_other_cases_teaches_with_all_folds(finetune, teacher, tmp_path, capsys):
    assert finetune(tmp_path / "s", "--teacher", teacher, "--dry-run", data="others") == 0
    assert teachers(capsys.readouterr().out) == [["fold_0", "fold_1"]] * 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tasks", "seg", "grade"], "learned seg, idh, not grade; choose --tasks among them"),
        (["--arch.spacing", "2"], "its cases are preprocessed otherwise (spacing 3.0) than the"),
        (["--distil.share", "1"], "distil.share must lie between 0 and 1"),
        (["--distil.temperature", "0"], "distil.weight and distil.temperature must be positive"),
        (["--distil.data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_teach_is_refused(finetune, teacher, tmp_path, capsys, more, message):
    assert finetune(tmp_path / "s", "--teacher", teacher, *more) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "s").exists()


def test_settings_without_a_teacher(finetune, teacher, shards, tmp_path, capsys):
    assert finetune(tmp_path / "s", "--distil.weight", "2") == 2
    assert "settings of distil need a teacher" in error_of(capsys)
    assert finetune(tmp_path / "s", "--teacher", teacher, "--distil.data", shards["ours"]) == 2
    assert "all its 8 studies are cases of the run" in error_of(capsys)


def test_a_student_has_seen_what_its_teacher_has_and_told(student, teacher, shards, capsys):
    about = read_config(student / "fold_0")["training"]["teacher"]
    weights = read_config(teacher / "fold_0")["files"]["model.safetensors"]["sha256"]
    assert about == {"run": str(teacher), "sha256": [weights], "unlabelled": 3}
    command = ["evaluate", str(student), "--out", str(student.parent / "e"), "--data"]
    assert main([*command, str(shards["more"])]) == 2
    told = "was trained on 5 of 5 cases: case-20, case-21, case-22, case-6, case-7"
    assert told in error_of(capsys)


def test_cases_of_a_teacher_are_no_test_cases(finetune, teacher, shards, tmp_path, capsys):
    taught = ["--teacher", teacher, "--only_folds", "0"]
    assert finetune(tmp_path / "s", *taught, data="others") == 0
    command = ["evaluate", str(tmp_path / "s"), "--out", str(tmp_path / "e"), "--data"]
    assert main([*command, str(shards["ours"])]) == 2
    assert "was trained on 8 of 8 cases" in error_of(capsys)


def test_masks_of_studies_without_labels_are_not_looked_at(shards):
    opened, quiet = ShardSet.open(shards["ours"]), ArtefactConfig(0, 0, 0, 0, 0, 0)
    hidden = [
        case.__class__(case.key, case.subject, {"seg": float("nan")}, case.position, case.looks)
        for case in labelled_cases(opened, None, ["seg"])
    ]
    crops = CropDataset(opened, hidden, CropConfig(size=(16, 16, 16)), quiet, seed=0)
    assert all(not crops[n].seg.any() and crops[n].targets["seg"] != 1 for n in range(8))
    assert all(len(centres) == 1 for centres in crops._centres)  # tissue, no tumour


def test_crops_are_mixed_by_their_share():
    labelled, others = [f"l{n}" for n in range(3000)], [f"u{n}" for n in range(3000)]
    mixed = MixedCrops(labelled, others, 0.25, seed=3)
    assert len(mixed) == 4000
    drawn = [mixed[n] for n in range(2000)]
    assert drawn == [mixed[n] for n in range(2000)]
    assert sorted(drawn) == sorted([*others[:500], *labelled[:1500]])  # none twice
    assert 0 < sum(name[0] == "u" for name in drawn[:40]) < 25


def test_an_interrupted_student_ends_as_an_uninterrupted_one(
    finetune, student, teacher, shards, tmp_path, monkeypatch
):
    command = ["--teacher", teacher, "--distil.data", shards["more"], "--only_folds", "0"]

    def stop(*args: object) -> dict[str, float]:
        if args[-1] == 3:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return train_step(*args)

    monkeypatch.setattr(loop, "train_step", stop)
    assert finetune(tmp_path / "s", *command) == 75
    monkeypatch.undo()
    assert finetune(tmp_path / "s", *command) == 0
    files = [run / "fold_0/model.safetensors" for run in (student, tmp_path / "s")]
    assert files[0].read_bytes() == files[1].read_bytes()
    results = [run / "training/fold_0/result.json" for run in (student, tmp_path / "s")]
    assert json.loads(results[0].read_text()) == json.loads(results[1].read_text())


def test_the_teachers_part_is_added_with_its_weight(finetune, teacher, tmp_path, monkeypatch):
    labels, steps = [], []

    def of_labels(*args: object) -> dict[str, torch.Tensor]:
        parts = losses(*args)
        labels.append(float(parts["total"].detach()))
        return parts

    def recorded(*args: object) -> dict[str, float]:
        steps.append(train_step(*args))
        return steps[-1]

    monkeypatch.setattr(loop, "losses", of_labels)
    monkeypatch.setattr(loop, "train_step", recorded)
    more = ["--distil.weight", "0.25", "--only_folds", "0", "--train.epochs", "1"]
    assert finetune(tmp_path / "s", "--teacher", teacher, *more) == 0
    assert len(steps) == len(labels) == 2
    for parts, told in zip(steps, labels, strict=True):
        assert parts["distil_kl"] > 0 and parts["distil_dice"] > 0
        assert parts["total"] == pytest.approx(told + 0.25 * parts["distil"], rel=1e-6)
