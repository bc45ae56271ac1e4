"""What judges a run never reaches it: cases left out, and within a fold those that validate."""

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main

Finetune = Callable[..., Path]


@pytest.fixture(scope="module")
def finetune(tmp_path_factory, ball_shards, tiny_preset) -> Finetune:
    """A function that fine-tunes eight of ten balls, the labels of some of them turned round."""
    folder = tmp_path_factory.mktemp("nested")
    shards = ball_shards(range(10))

    def run(name: str, turned: Collection[str] = (), *more: str) -> Path:
        rows = ["participant_id\tidh\tgrade"]
        for number in range(10):
            mutant = (number % 2 == 1) is (f"case-{number}" not in turned)
            rows.append(f"case-{number}\t{int(mutant)}\t{2 if mutant else 4}")
        labels = folder / f"{name}.tsv"
        labels.write_text("\n".join(rows) + "\n", "utf-8")
        command = ["finetune", str(tiny_preset), "--only_folds", "0", "--data", str(shards)]
        where = ["--labels", str(labels), "--out", str(folder / name)]
        assert main([*command, *where, *more]) == 0
        return folder / name

    return run


@pytest.fixture(scope="module")
def plain(finetune) -> Path:
    """The run with every label as it is."""
    return finetune("plain")


def weights(run: Path) -> bytes:
    return (run / "fold_0/model.safetensors").read_bytes()


def split(run: Path) -> dict[str, list[str]]:
    return json.loads((run / "splits.json").read_text("utf-8"))["folds"][0]


def test_cases_left_out_decide_nothing(finetune, plain, monkeypatch):
    chosen = {*split(plain)["train"], *split(plain)["validation"]}
    left_out = {f"case-{n}" for n in range(10)} - chosen
    assert len(left_out) == 2
    seen = set()
    read = ShardSet.read

    def spy(shards: ShardSet, i: int, *how: object, **more: object) -> object:
        sample = read(shards, i, *how, **more)
        seen.add(sample.key)
        return sample

    monkeypatch.setattr(ShardSet, "read", spy)
    other = finetune("left_out", left_out, "--splits", str(plain / "splits.json"))
    assert seen == chosen
    assert weights(other) == weights(plain)
    assert (other / "summary.json").read_text() == (plain / "summary.json").read_text()


def test_validation_cases_judge_and_do_not_train(finetune, plain):
    judges = split(plain)["validation"]
    other = finetune("judges", judges, "--splits", str(plain / "splits.json"))
    assert weights(other) == weights(plain)
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (plain, other))
    assert ours["folds"][0]["log_loss"] != theirs["folds"][0]["log_loss"]
    assert ours["folds"][0]["dice"] == theirs["folds"][0]["dice"]


def test_thresholds_come_from_the_validation_of_the_fold(plain):
    result = json.loads((plain / "training/fold_0/result.json").read_text())
    assert sorted(result["markers"]) == sorted(split(plain)["validation"])
