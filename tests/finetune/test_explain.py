"""Attention maps lie where they belong, and experts are those that the router chose."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gliomoe.data_shards.batch import StudyBatch, StudySample
from gliomoe.finetune.explain import coarser, expert_map, explain
from gliomoe.finetune.inference import InferenceConfig
from gliomoe.models.features import Features, Predictions, Routing

AFFINE = np.array([[0, 2.0, 0, -5], [3.0, 0, 0, 7], [0, 0, 4.0, 1], [0, 0, 0, 1]])


@dataclass
class Shown:
    batches: list[StudyBatch] = field(default_factory=list)


class Looker(nn.Module):
    """Shows its input at full and at a quarter of the resolution, and a mixture of two experts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.shown = nn.Parameter(torch.ones(())), Shown()

    def forward(self, batch: StudyBatch) -> Predictions:
        self.shown.batches.append(batch)
        position = torch.tensor([[-1, -1, -1], [0, 0, 0], [1, 0, 1]])
        routing = Routing(
            layer="blocks.1",
            probabilities=torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]),
            choice=torch.tensor([[0], [0], [1]]),
            logits=torch.zeros(3, 2),
            study=torch.zeros(3, dtype=torch.int64),
            position=position,
            patch_size=4,
        )
        empty = torch.zeros(0, 3)
        image: Tensor = batch.voxels[:, 0][None] * self.weight
        features = Features(
            torch.zeros(1, 4), empty, empty[:, 0].long(), empty.long(), [], [routing],
            maps={"fusion": image},
        )  # fmt: skip
        coarse = nn.functional.max_pool3d(image[:, :1], 4, ceil_mode=True)
        return Predictions(None, {}, features, maps={"gate": coarse})


@pytest.fixture
def study() -> StudySample:
    torch.manual_seed(0)
    return StudySample("s", torch.rand(2, 20, 7, 12) + 0.1, torch.tensor([3, 1]), torch.ones(3))


def test_maps_are_of_the_window_around_the_tumour(study):
    regions = torch.zeros(3, 20, 7, 12)
    regions[2, 15:17, 2:4, 5:7] = 1
    maps = explain(Looker(), study, regions, AFFINE, InferenceConfig((8, 8, 8), precision="fp32"))
    assert set(maps) == {"fusion", "gate", "experts_blocks.1"}
    fusion = maps["fusion"]
    assert fusion.values.shape == (8, 7, 8, 2)
    start = np.array([12, 0, 2, 1])
    np.testing.assert_allclose(fusion.values[..., 0], study.voxels[0, 12:, :, 2:10])
    np.testing.assert_allclose(fusion.affine @ [0, 0, 0, 1], AFFINE @ start)
    gate = maps["gate"]
    assert gate.values.shape == (2, 2, 2, 1)
    first = AFFINE @ (start + [1.5, 1.5, 1.5, 0])  # centre of the first 4³ voxels
    np.testing.assert_allclose(gate.affine @ [0, 0, 0, 1], first)
    np.testing.assert_allclose(gate.affine[:3, :3], 4 * AFFINE[:3, :3])


def test_without_a_tumour_it_looks_at_the_tissue(study):
    model = Looker()
    study.voxels[:, :12] = 0
    nothing = torch.zeros(3, 20, 7, 12)
    explain(model, study, nothing, AFFINE, InferenceConfig((8, 8, 8), precision="fp32"))
    explain(model, study, None, AFFINE, InferenceConfig((8, 8, 8), precision="fp32"))
    for batch in model.shown.batches:
        assert torch.equal(batch.voxels[:, 0], study.voxels[:, 12:, :, 2:10])


def test_experts_are_those_of_the_router(study):
    maps = explain(Looker(), study, None, AFFINE, InferenceConfig((8, 8, 8), precision="fp32"))
    experts = maps["experts_blocks.1"].values
    assert experts.shape == (2, 2, 2, 2)
    np.testing.assert_allclose(experts[0, 0, 0], [0.9, 0.1])
    np.testing.assert_allclose(experts[1, 0, 1], [0.2, 0.8])
    assert not experts[1, 1, 1].any()  # no token there


@pytest.mark.parametrize(("side", "factor"), [(20, 4), (13, 4), (5, 2), (16, 1), (33, 16)])
def test_the_factor_is_the_power_of_two_that_made_the_map(side, factor):
    size = (side, 64, 64)
    placed = coarser(np.eye(4), (0, 0, 0), size, [-(-n // factor) for n in size])
    assert placed[0, 0] == factor


def test_a_layer_of_finer_tokens():
    layer = Looker()(StudyBatch(torch.zeros(1, 1, 8, 8, 8), *[torch.zeros(1).long()] * 2,
                                torch.ones(1, 3))).features.routing[0]  # fmt: skip
    assert expert_map(layer, (8, 6, 5)).shape == (1, 2, 2, 2, 2)
