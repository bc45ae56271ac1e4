"""Sliding windows: tissue only, sequences kept apart, markers weighted by tumour."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from gliomoe.data_shards.batch import StudyBatch, StudySample
from gliomoe.finetune.inference import InferenceConfig, binary_entropy, predict_study, tissue_box
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Features, Predictions


@dataclass
class Seen:
    batches: list[StudyBatch] = field(default_factory=list)


class Voxelwise(nn.Module):
    """Sequence 1 is the logit of ET, TC and WT alike; the marker is the brightest voxel."""

    def __init__(self, scale: float = 1.0, seg: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.seg, self.seen = seg, Seen()

    def forward(self, batch: StudyBatch) -> Predictions:
        self.seen.batches.append(batch)
        assert batch.voxels.shape[0] == 2 * batch.studies == len(batch.sequence)
        image = batch.voxels[batch.sequence == 1, 0] * self.scale
        empty = torch.zeros(0, 3)
        features = Features(torch.zeros(batch.studies, 4), empty, empty[:, 0].long(), empty.long())
        marker: Tensor = image.flatten(1).amax(1, keepdim=True)
        grade = torch.cat([marker, 0 * marker, 0 * marker], 1)
        seg = image.unsqueeze(1).expand(-1, 3, -1, -1, -1) if self.seg else None
        return Predictions(seg, {"idh": marker, "grade": grade}, features)


def sample(shape: tuple[int, int, int] = (20, 10, 12)) -> StudySample:
    torch.manual_seed(0)
    voxels = torch.zeros(2, *shape)
    voxels[:, 2:8, 1:9, 1:11] = torch.randn(2, 6, 8, 10)
    return StudySample("s", voxels, torch.tensor([3, 1]), torch.ones(3))


def test_windows_blend_to_the_voxelwise_answer():
    study = sample()
    config = InferenceConfig(window=(8, 8, 8), precision="fp32")
    prediction = predict_study([Voxelwise()], study, config)
    tissue = (study.voxels != 0).any(0)
    assert torch.allclose(
        prediction.regions[:, tissue], study.voxels[1, tissue].sigmoid().expand(3, -1), atol=1e-5
    )
    assert prediction.regions.shape == (3, *study.voxels.shape[1:])


def test_windows_of_air_are_not_computed_and_are_background():
    study, model = sample(), Voxelwise()
    prediction = predict_study([model], study, InferenceConfig((4, 10, 12), 0.0, precision="fp32"))
    assert all(batch.voxels.flatten(1).any(1).all() for batch in model.seen.batches)
    assert prediction.regions[:, 12:].eq(0).all()


@pytest.mark.parametrize(
    ("window", "box"),
    [
        ((4, 4, 4), ((2, 8), (1, 9), (1, 11))),  # the tissue
        ((30, 10, 12), ((0, 20), (0, 10), (0, 12))),  # no axis is longer than the window
        ((8, 4, 12), ((1, 9), (1, 9), (0, 12))),  # a window around it
        ((14, 8, 10), ((0, 14), (1, 9), (1, 11))),  # and inside the grid
    ],
)
def test_windows_cover_the_box_of_the_tissue(window, box):
    found = tissue_box(sample().voxels, window)
    assert tuple((part.start, part.stop) for part in found) == box


def test_air_around_the_tissue_costs_nothing_and_changes_nothing():
    study, config = sample((20, 10, 12)), InferenceConfig(window=(6, 8, 8), precision="fp32")
    model, alone = Voxelwise(), Voxelwise()
    prediction = predict_study([model], study, config)
    cut = replace(study, voxels=study.voxels[:, 2:8, 1:9, 1:11])
    expected = predict_study([alone], cut, config)
    inside = prediction.regions[:, 2:8, 1:9, 1:11]
    assert torch.equal(inside, expected.regions)
    assert prediction.regions.count_nonzero() == inside.count_nonzero()
    assert torch.equal(prediction.markers["idh"], expected.markers["idh"])
    assert len(model.seen.batches) == len(alone.seen.batches) == 1


def test_a_small_study_is_one_window():
    model = Voxelwise()
    prediction = predict_study([model], sample(), InferenceConfig(precision="fp32"))
    assert len(model.seen.batches) == 1
    assert prediction.regions.shape == (3, 20, 10, 12)


def test_regions_that_are_noise_are_left_out():
    whole = predict_study([Voxelwise()], sample(), InferenceConfig(precision="fp32"))
    millilitres = (whole.regions[0] > 0.5).sum().item() / 1000
    config = InferenceConfig(precision="fp32", smallest={"ET": millilitres, "TC": millilitres / 2})
    found = predict_study([Voxelwise()], sample(), config)
    assert millilitres and found.regions[0].max() < 0.5
    assert found.left_out == {"ET": pytest.approx(millilitres)} and not whole.left_out
    assert torch.equal(found.regions[1:], whole.regions[1:])
    assert torch.equal(found.uncertainty, whole.uncertainty)


def test_markers_weigh_windows_by_tumour():
    voxels = torch.full((2, 16, 8, 8), -20.0)
    voxels[1, 8:] = 3.0
    study = replace(sample(), voxels=voxels)
    prediction = predict_study([Voxelwise()], study, InferenceConfig((8, 8, 8), 0.0, 1, "fp32"))
    assert prediction.markers["idh"].item() == pytest.approx(torch.tensor(3.0).sigmoid().item())
    assert prediction.markers["grade"].shape == (3,)
    assert prediction.markers["grade"].sum().item() == pytest.approx(1)


def test_an_ensemble_is_the_mean_and_disagreement_is_uncertain():
    study = sample()
    config = InferenceConfig(precision="fp32")
    one = predict_study([Voxelwise(9.0)], study, config)
    two = predict_study([Voxelwise(-9.0)], study, config)
    both = predict_study([Voxelwise(9.0), Voxelwise(-9.0)], study, config)
    assert torch.allclose(both.regions, (one.regions + two.regions) / 2)
    assert torch.allclose(both.markers["idh"], (one.markers["idh"] + two.markers["idh"]) / 2)
    tissue = (study.voxels != 0).any(0)
    assert torch.allclose(both.uncertainty[tissue], torch.ones(int(tissue.sum())), atol=1e-4)
    assert both.uncertainty.mean() > one.uncertainty.mean()


def test_markers_without_segmentation():
    prediction = predict_study([Voxelwise(seg=False)], sample(), InferenceConfig(precision="fp32"))
    assert prediction.regions is None and prediction.uncertainty is None
    assert set(prediction.markers) == {"idh", "grade"}


def test_a_study_of_air_is_refused():
    study = StudySample("s", torch.zeros(1, 4, 4, 4), torch.tensor([0]), torch.ones(3))
    with pytest.raises(ValueError, match="study s: no voxel"):
        predict_study([Voxelwise()], study, InferenceConfig())


def test_entropy_in_bits():
    assert binary_entropy(torch.tensor(0.5)).item() == pytest.approx(1.0)
    assert binary_entropy(torch.tensor([0.0, 1.0])).max().item() < 1e-5


class Dropping(Voxelwise):
    """Loses all of its logits half of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, batch: StudyBatch) -> Predictions:
        predictions = super().forward(batch)
        kept = self.drop(torch.ones(1)).clamp(max=1)
        return replace(predictions, seg=predictions.seg * kept)


def test_dropout_draws_are_averaged_and_the_same_for_a_study():
    study, config = sample(), InferenceConfig(precision="fp32")
    once = predict_study([Dropping()], study, config).regions
    drawn = replace(config, draws=16)
    mean = predict_study([Dropping()], study, drawn).regions
    share = (mean - 0.5) / (once - 0.5)  # of the draws that kept the logits
    tissue = (study.voxels != 0).any(0)
    kept = float(share[0][tissue].median())
    assert 0 < kept < 1
    assert abs(kept * 16 - round(kept * 16)) < 1e-3
    before = torch.random.get_rng_state()
    assert torch.equal(predict_study([Dropping()], study, drawn).regions, mean)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_without_dropout_has_nothing_to_draw():
    with pytest.raises(ModelError, match="no dropout layer"):
        predict_study([Voxelwise()], sample(), InferenceConfig(precision="fp32", draws=4))


class Sloping(Voxelwise):
    """Its logits and marker lean on where a voxel is, so that a mirror image differs."""

    def forward(self, batch: StudyBatch) -> Predictions:
        slope = sum(
            (axis + 1) * torch.linspace(0, 1, side).view([-1 if a == axis else 1 for a in range(3)])
            for axis, side in enumerate(batch.voxels.shape[2:])
        )
        return super().forward(replace(batch, voxels=batch.voxels * slope))


def test_flips_are_the_mean_of_eight_predictions_by_hand():
    study, config = sample((10, 10, 12)), InferenceConfig(window=(8, 8, 8), precision="fp32")
    regions, markers = [], []
    for axes in ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)):
        mirrored = replace(study, voxels=torch.flip(study.voxels, axes))
        one = predict_study([Sloping()], mirrored, config)
        regions.append(torch.flip(one.regions, axes))
        markers.append(one.markers["grade"])
    flipped = predict_study([Sloping()], study, replace(config, flips=True))
    torch.testing.assert_close(flipped.regions, torch.stack(regions).mean(0))
    torch.testing.assert_close(flipped.markers["grade"], torch.stack(markers).mean(0))
    assert not torch.allclose(flipped.regions, regions[0], atol=1e-3)
    both = predict_study([Sloping(), Sloping(-1.0)], study, replace(config, flips=True))
    expected = torch.zeros_like(both.regions)
    expected[:, 1:9, 1:9, 1:11] = 0.5  # the box of the tissue; air beyond it is background
    torch.testing.assert_close(both.regions, expected)
