"""IoU of experts with tissues on hand-made maps, and what chance gives."""

import json

import numpy as np
import pytest
import torch

from gliomoe.finetune.studies.experts import TISSUES, chosen, overlap, tissue_counts
from gliomoe.launch.cli import main
from gliomoe.models.features import Routing


def test_voxels_of_each_tissue_in_each_token():
    labels = torch.full((3, 2, 2), -1)
    labels[0] = 0
    labels[1, 0] = 3
    labels[2, 0, 0] = 4  # a cavity: tissue of no class
    counts = tissue_counts(labels, 2)
    assert counts.shape == (5, 2, 1, 1)
    names = [*TISSUES, "any"]
    assert dict(zip(names, counts[:, 0].flatten().tolist(), strict=True)) == {
        "NCR": 0, "ED": 0, "ET": 2, "healthy": 4, "any": 6}  # fmt: skip
    assert dict(zip(names, counts[:, 1].flatten().tolist(), strict=True)) == {
        "NCR": 0, "ED": 0, "ET": 0, "healthy": 0, "any": 1}  # fmt: skip


def test_any_choice_of_a_token_counts_and_registers_do_not():
    layer = Routing(
        layer="blocks.1",
        probabilities=torch.full((4, 3), 1 / 3),
        choice=torch.tensor([[2, 1], [0, 1], [2, 0], [1, 0]]),
        logits=torch.zeros(4, 3),
        study=torch.zeros(4, dtype=torch.int64),
        position=torch.tensor([[-1, -1, -1], [0, 0, 0], [1, 0, 0], [1, 0, 0]]),
        patch_size=4,
    )
    where = chosen(layer, (7, 4, 3)).squeeze()
    assert where.int().tolist() == [[1, 1], [1, 1], [0, 1]]


def test_iou_by_hand():
    """Four tokens in a row: 8 ED voxels; 4 ED and 4 healthy; 8 healthy; 8 healthy, not routed."""
    counts = torch.zeros(5, 4, 1, 1)
    counts[1, :2, 0, 0] = torch.tensor([8.0, 4.0])
    counts[3, :, 0, 0] = torch.tensor([0.0, 4.0, 8.0, 8.0])
    counts[4] = counts[:4].sum(0)
    where = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    found = overlap(where.reshape(3, 4, 1, 1), counts)
    assert np.isnan(found.iou[:, [0, 2]]).all()  # no NCR, no ET
    np.testing.assert_allclose(found.iou[:, 1], [12 / 16, 4 / (16 + 12 - 4), 0])
    np.testing.assert_allclose(found.iou[:, 3], [4 / (16 + 20 - 4), 12 / (16 + 20 - 12), 0])
    np.testing.assert_allclose(found.share, [16 / 24, 16 / 24, 0])
    # 16 of 24 routed voxels are the expert's: 8 of 12 ED voxels by chance.
    np.testing.assert_allclose(found.chance[:, 1], [8 / (16 + 12 - 8)] * 2 + [0])


def test_chance_is_the_mean_of_shuffled_tokens():
    rng = np.random.default_rng(0)
    counts = torch.zeros(5, 400)
    counts[torch.from_numpy(rng.integers(0, 4, 400)), torch.arange(400)] = 64
    counts[4] = counts.sum(0)
    where = torch.from_numpy(rng.random((3, 400)) < [[0.1], [0.3], [1.0]])
    shape = (-1, 400, 1, 1)
    found = overlap(where.reshape(shape), counts.reshape(shape))
    shuffled = [
        overlap(where[:, rng.permutation(400)].reshape(shape), counts.reshape(shape)).iou
        for _ in range(200)
    ]
    np.testing.assert_allclose(found.chance, np.mean(shuffled, 0), rtol=0.03)


def test_a_study_of_experts(folder, tmp_path, capsys):
    call = ["study", "experts", str(folder / "run"), "--data", str(folder / "cases"),
            "--labels", str(folder / "labels.tsv"), "--out", str(tmp_path)]  # fmt: skip
    assert main(call) == 0
    assert "IoU ED" in capsys.readouterr().out
    rows = json.loads((tmp_path / "study.json").read_text())["rows"]
    layers = {row["layer"] for row in rows}
    assert len(rows) == len(layers) * 8 * 5
    for layer in layers:
        shares = [r["value"] for r in rows if r["layer"] == layer and r["measure"] == "share"]
        assert sum(shares) == pytest.approx(2)  # each token chooses two experts
    for row in rows:
        if row["measure"] != "share":
            assert row["difference"] == pytest.approx(row["value"] - row["chance"])
