"""Smaller than an ensemble: chosen members, pruned experts, and the study that compares them."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune import prune
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.refit import refit_markers
from gliomoe.finetune.run import FinetunedRun
from gliomoe.finetune.studies.smaller import Measured, rows_of
from gliomoe.launch.cli import main
from gliomoe.models.checkpoint import FINGERPRINTS, load_checkpoint, read_config, save_checkpoint
from gliomoe.models.moe.statistics import mixtures

CHANGES = {"experts": 4, "renormalise": True, "router_bias": True}


@pytest.fixture(scope="module")
def test_shards(ball_shards) -> Path:
    return ball_shards(range(20, 23))


@pytest.fixture(scope="module")
def run(tmp_path_factory, ball_shards, write_labels, tiny_preset, tiny_settings) -> Path:
    """Two folds that find tumour, two experts of each mixture getting no token."""
    folder = tmp_path_factory.mktemp("pruning")
    changes = [f"{name}={value}" for name, value in {**tiny_settings, **CHANGES}.items()]
    labels = write_labels(folder / "labels.tsv", range(8))
    where = ["--data", str(ball_shards(range(8))), "--labels", str(labels)]
    what = ["--tasks", "seg", "idh", "--arch.set", *changes, "--out", str(folder / "run")]
    assert main(["finetune", str(tiny_preset), *where, *what, "--refit", "0"]) == 0
    for member in FinetunedRun.open(folder / "run").folders:
        without_experts(member, [0, 2])
    return folder / "run"


def without_experts(member: Path, numbers: list[int]) -> None:
    """Rewrite a checkpoint so that some experts are never chosen."""
    model, config = load_checkpoint(member), read_config(member)
    seen = (member / FINGERPRINTS).read_bytes()
    for layer in mixtures(model).values():
        layer.router.bias[numbers] = -10.0
    torch.nn.init.zeros_(model.heads["seg"].logits.bias)  # as likely as not
    shutil.rmtree(member)
    about = {name: config[name] for name in ("training", "preprocessing", "sequences")}
    save_checkpoint(member, model, card="", fingerprints=seen, **about)


@pytest.fixture(scope="module")
def smaller(run) -> Path:
    """Without the experts that are never chosen."""
    out = run.parent / "smaller"
    assert main(["prune", str(run), "--experts", "2", "--out", str(out)]) == 0
    return out


def error_of(capsys) -> str:
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error" in line
    return line


def tensors(run: Path, fold: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / f"fold_{fold}").state_dict()


def test_experts_that_are_never_chosen_are_not_missed(run, smaller, test_shards):
    study = ShardSet.open(test_shards).read(0)
    whole, pruned = FinetunedRun.open(run), FinetunedRun.open(smaller)
    for before, after in zip(whole.models(), pruned.models(), strict=True):
        assert [len(part.router.weight) for part in mixtures(after).values()] == [2]
        expected = predict_study([before], study, whole.inference)
        found = predict_study([after], study, pruned.inference)
        torch.testing.assert_close(found.regions, expected.regions)
        torch.testing.assert_close(found.markers, expected.markers)
    assert pruned.seen() == whole.seen()


def test_a_pruned_run_is_a_run(run, smaller, test_shards, tmp_path, capsys):
    command = ["evaluate", str(smaller), "--data", str(test_shards), "--out", str(tmp_path / "e")]
    assert main([*command, "--against", str(run)]) == 0
    (against,) = json.loads((tmp_path / "e/metrics.json").read_text())["against"]
    assert against["dice"]["WT"]["difference"] == 0
    config = read_config(smaller / "fold_1")
    source = str(run / "fold_1")
    assert config["training"]["pruned"] == {"from": source, "experts": 2}
    assert config["model"]["overrides"]["experts"] == 2
    assert (smaller / "splits.json").read_bytes() == (run / "splits.json").read_bytes()
    size = [(r / "fold_0/model.safetensors").stat().st_size for r in (smaller, run)]
    assert size[0] < size[1]


def test_with_all_experts_nothing_changes(run, tmp_path):
    out = tmp_path / "same"
    command = ["prune", str(run), "--experts", "4", "--out", str(out)]
    assert main([*command, "--dry-run"]) == 0 and not out.exists()
    assert main(command) == 0
    for fold in (0, 1):
        before, after = tensors(run, fold), tensors(out, fold)
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_markers_are_fitted_anew_where_the_run_did(
    tmp_path, ball_shards, write_labels, tiny_preset, tiny_settings
):
    shards = ball_shards(range(8))
    labels = write_labels(tmp_path / "labels.tsv", range(8))
    changes = [f"{name}={value}" for name, value in {**tiny_settings, "experts": 4}.items()]
    where = ["--data", str(shards), "--labels", str(labels), "--only_folds", "0"]
    what = ["--tasks", "seg", "idh", "--arch.set", *changes, "--out", str(tmp_path / "run")]
    assert main(["finetune", str(tiny_preset), *where, *what]) == 0
    smaller = tmp_path / "smaller"
    assert main(["prune", str(tmp_path / "run"), "--experts", "2", "--out", str(smaller)]) == 0
    before, after = (load_checkpoint(run / "fold_0") for run in (tmp_path / "run", smaller))
    found = after.heads["markers"].classify["idh"].weight.clone()
    assert not torch.equal(found, before.heads["markers"].classify["idh"].weight)
    (fold, *_) = json.loads((smaller / "splits.json").read_text())["folds"]
    opened = ShardSet.open(shards)
    studies = [study for study in map(opened.read, range(8)) if study.key in fold["train"]]
    odd = [float(int(study.key.rpartition("-")[2]) % 2) for study in studies]  # are mutant
    cases = [replace(s, targets={"idh": idh}) for s, idh in zip(studies, odd, strict=True)]
    windows = replace(FinetunedRun.open(smaller).inference, precision="fp32")  # the preset's
    refit_markers(after, cases, 1.0, windows)
    torch.testing.assert_close(after.heads["markers"].classify["idh"].weight, found)


def test_an_interrupted_pruning_continues(run, smaller, tmp_path, monkeypatch, capsys):
    out, judge, calls = tmp_path / "out", prune.validate, []

    def stop(*args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*args)

    command = ["prune", str(run), "--experts", "2", "--out", str(out)]
    monkeypatch.setattr(prune, "validate", stop)
    assert main(command) == 75
    assert (out / "fold_0").is_dir() and not (out / "fold_1").exists()
    assert main(["prune", str(run), "--experts", "3", "--out", str(out)]) == 2
    assert "holds another run, which differs in experts" in error_of(capsys)
    assert main(command) == 0
    assert len(calls) == 3
    for name in ("fold_0/model.safetensors", "fold_1/model.safetensors"):
        assert (out / name).read_bytes() == (smaller / name).read_bytes()


@pytest.mark.parametrize(
    ("which", "experts", "message"),
    [
        ("run", "1", "keep 1: must be from 2 to 4 experts"),
        ("run", "5", "keep 5: must be from 2 to 4 experts"),
        ("run/fold_0", "2", "has no run.json; give the folder of a whole run"),
        ("nowhere", "2", "neither a fine-tuned run nor a checkpoint"),
    ],
)
def test_what_cannot_be_pruned(run, tmp_path, capsys, which, experts, message):
    command = ["prune", str(run.parent / which), "--experts", experts]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_moved_labels_must_be_named(run, tmp_path, capsys):
    table = run.parent / "labels.tsv"
    moved = table.rename(tmp_path / "moved.tsv")
    try:
        command = ["prune", str(run), "--experts", "2", "--out", str(tmp_path / "out")]
        assert main([*command, "--dry-run"]) == 2
        assert f"{table}: no such label table" in error_of(capsys)
        assert main([*command, "--labels", str(moved), "--dry-run"]) == 0
    finally:
        moved.rename(table)


def test_members_of_an_ensemble_are_chosen(run, test_shards, tmp_path, capsys):
    assert FinetunedRun.open(run, [1]).folders == (run / "fold_1",)
    assert FinetunedRun.open(run, [1, 0]).folders == (run / "fold_0", run / "fold_1")
    with pytest.raises(UsageError, match="fold 2 is not there or not finished, but 0, 1"):
        FinetunedRun.open(run, [0, 2])
    with pytest.raises(UsageError, match="no folds to choose from"):
        FinetunedRun.open(run / "fold_0", [0])
    command = ["evaluate", str(run), "--data", str(test_shards), "--out", str(tmp_path / "e")]
    assert main([*command, "--folds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folds"] == 1


def test_rows_by_hand():
    ours = np.array([[0.2, 0.4, 0.6], [0.8, 0.8, 0.8]])
    theirs = np.array([[0.1, 0.2, 0.3], [0.8, 0.8, 0.8]])
    first = Measured("a", 2, 8_000_000, 6_000_000, 32_000_000, ours, np.array([2.0, 4.0]))
    other = Measured("b", 1, 1_000_000, 500_000, 4_000_000, theirs, np.array([0.5, 0.5]))
    rows = {(row["run"], row["measure"]): row for row in rows_of([first, other])}
    assert rows["a", "Dice mean"]["value"] == pytest.approx(0.6)
    assert rows["b", "Dice mean"]["difference"] == pytest.approx(-0.1)
    assert rows["b", "Dice kept"]["value"] == pytest.approx(0.5 / 0.6)
    # Samples of the cases: the first twice, both, the second twice.
    assert rows["b", "Dice kept"]["low"] == pytest.approx(0.5)
    assert rows["b", "Dice kept"]["high"] == pytest.approx(1.0)
    assert rows["a", "seconds a case"]["value"] == 3.0
    assert rows["b", "M parameters"]["value"] == 1.0 and rows["a", "MB on disk"]["value"] == 32.0
    assert "difference" not in rows["a", "Dice mean"] and rows["a", "Dice kept"]["value"] == 1


def test_dice_kept_of_nothing_does_not_exist():
    nothing = Measured("a", 1, 1, 1, 1, np.zeros((2, 3)), np.ones(2))
    other = Measured("b", 1, 1, 1, 1, np.full((2, 3), 0.5), np.ones(2))
    kept = [row for row in rows_of([nothing, other]) if row["measure"] == "Dice kept"]
    assert [(row["value"], row["low"], row["high"]) for row in kept] == [(None, None, None)] * 2


def test_the_study_compares_runs(run, smaller, test_shards, tmp_path, capsys):
    runs = [str(run), str(run / "fold_0"), str(smaller)]
    where = ["--data", str(test_shards), "--out", str(tmp_path / "s")]
    assert main(["study", "smaller", *runs, *where]) == 0
    assert "Dice kept" in capsys.readouterr().out
    with (tmp_path / "s/table.csv").open() as file:
        rows = {(row["run"], row["measure"]): row for row in csv.DictReader(file)}
    assert list(dict.fromkeys(name for name, _ in rows)) == ["run", "fold_0", "smaller"]
    assert rows["smaller", "Dice kept"]["value"] == "1.0"
    assert float(rows["run", "M parameters"]["value"]) == pytest.approx(
        2 * float(rows["fold_0", "M parameters"]["value"])
    )
    disk = (smaller / "fold_0/model.safetensors").stat().st_size * 2 / 1e6
    assert float(rows["smaller", "MB on disk"]["value"]) == pytest.approx(disk)
    assert (tmp_path / "s/plot.png").is_file()


def test_the_study_refuses_cases_that_were_seen(run, tmp_path, capsys):
    data = json.loads((run / "run.json").read_text())["config"]["data"]
    assert main(["study", "smaller", str(run), "--data", data, "--out", str(tmp_path)]) == 2
    assert "was trained on 8 of 8 cases" in error_of(capsys)
