"""Subsets of the sequences: every one, each measured as an evaluation would."""

import csv
import json

import pytest
import torch

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.finetune.studies.subsets import only, refuse_empty, subsets
from gliomoe.launch.cli import main


def test_four_sequences_have_fifteen_subsets():
    found = subsets(["t1", "t1ce", "t2", "flair"])
    assert len(found) == len(set(found)) == 15
    assert found[0] == ("t1", "t1ce", "t2", "flair") and found[-1] == ("flair",)
    assert [len(subset) for subset in found] == [4] + [3] * 4 + [2] * 6 + [1] * 4
    assert ("t1", "t2") in found and ("t2", "t1") not in found


def test_a_subset_keeps_its_volumes():
    numbers = [SEQUENCES.index(name) for name in ("flair", "t1", "t2")]
    sample = StudySample("s", torch.arange(3.0).reshape(3, 1, 1, 1), torch.tensor(numbers),
                         torch.ones(3))  # fmt: skip
    kept = only(sample, ("t1", "flair"))
    assert kept.voxels.flatten().tolist() == [0, 1]
    assert kept.sequence.tolist() == numbers[:2]


def test_an_empty_sequence_is_named():
    numbers = torch.tensor([SEQUENCES.index(name) for name in ("flair", "t1")])
    voxels = torch.ones(2, 2, 2, 2)
    refuse_empty(StudySample("s", voxels, numbers, torch.ones(3)))
    voxels[1] = 0
    with pytest.raises(DataError, match="case s: t1 is empty"):
        refuse_empty(StudySample("s", voxels, numbers, torch.ones(3)))


def command(folder, out, *more):
    return ["study", "subsets", str(folder / "run"), "--data", str(folder / "cases"),
            "--labels", str(folder / "labels.tsv"), "--out", str(out), *more]  # fmt: skip


def test_every_subset_is_measured(folder, evaluation, tmp_path, capsys):
    assert main(command(folder, tmp_path, "--json")) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((tmp_path / "study.json").read_text())
    rows = {(row["subset"], row["measure"]): row for row in content["rows"]}
    assert {subset for subset, _ in rows} == {"t1+flair", "t1", "flair"}
    metrics = json.loads((evaluation / "metrics.json").read_text())
    full = rows["t1+flair", "Dice WT"]
    assert full["value"] == pytest.approx(metrics["regions"]["WT"]["dice"]["mean"], abs=1e-6)
    assert [full["low"], full["high"]] == pytest.approx(
        metrics["regions"]["WT"]["dice"]["interval"], abs=1e-6
    )
    area = rows["t1+flair", "AUC IDH"]
    assert area["value"] == pytest.approx(metrics["markers"]["idh"]["auc"]["value"])
    assert full["difference"] is None and area["cases"] == 6
    for row in (rows["t1", "Dice WT"], rows["flair", "AUC IDH"]):
        whole = rows["t1+flair", row["measure"]]["value"]
        assert row["difference"] == pytest.approx(row["value"] - whole)
        assert row["p_value"] is None or row["p_holm"] >= row["p_value"]
    table = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["measure"] for row in table] == [row["measure"] for row in content["rows"]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sequences", "t1", "t2"], "--sequences t2: 6 of 6 cases lack it"),
        (["--sequences", "t1", "t9"], "--sequences t9: not one of t1, t1ce"),
        (["--sequences", "t1"], "subsets of 1 sequences (t1); name 2 to 6"),
    ],
)
def test_wrong_sequences_are_one_line(folder, tmp_path, capsys, more, message):
    assert main(command(folder, tmp_path / "out", *more)) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("subsets", "mdl_ca needs t1 and takes no subsets"),
        ("experts", "mdl_ca has no mixture of experts"),
    ],
)
def test_a_model_that_has_no_part_for_a_study(folder, tmp_path, capsys, study, message):
    call = [study, str(folder / "genomic"), *command(folder, tmp_path / "out")[3:]]
    assert main(["study", *call]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()
