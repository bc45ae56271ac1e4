"""Augmentation against slow references and against what must not change."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from gliomoe.data_shards import augment
from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.batch import StudySample, collate

OFF = AugmentConfig(
    rotation=0, scale=0, translation=0, elastic_alpha=0, elastic_sigma=0, intensity=0, noise=0
)
SPACING = torch.tensor([1.0, 1.0, 1.0])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def blob(volumes=2, side=16):
    images = torch.zeros(volumes, side, side, side)
    images[:, 4:-4, 4:-4, 4:-4] = 0.2 + torch.rand(volumes, side - 8, side - 8, side - 8)
    return images


def batch(*volumes):
    samples = []
    for count in volumes:
        images = blob(count)
        samples.append(
            StudySample("a", images, torch.arange(count), SPACING, (images[0] > 0.7).byte())
        )
    return collate(samples)


def test_nothing_drawn_changes_nothing():
    given = batch(1, 3)
    draws = [augment.draw(OFF, (16, 16, 16), SPACING, v, rng()) for v in (1, 3)]
    found = augment.augment(given, draws)
    torch.testing.assert_close(found.voxels, given.voxels, atol=1e-5, rtol=0)
    assert torch.equal(found.seg, given.seg)


def test_spatial_part_equals_scipy():
    config = replace(OFF, rotation=15, scale=0.1, translation=0.1)
    spacing = torch.tensor([2.0, 1.0, 1.5])
    drawn = augment.draw(config, (16, 16, 16), spacing, 1, rng(3))
    image = blob(1)
    grid = augment.sampling_grid(drawn, spacing, (16, 16, 16), (16, 16, 16))
    found = augment.resample(image, grid)[0].numpy()

    mm = np.diag(spacing.numpy().astype(float))
    matrix = np.linalg.inv(mm) @ drawn.matrix.numpy().astype(float) @ mm
    centre = np.full(3, 7.5)
    offset = centre + drawn.translation.numpy() / spacing.numpy() - matrix @ centre
    expected = ndimage.affine_transform(
        image[0].numpy().astype(float), matrix, offset, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_matrix_is_rotation_times_scale():
    for seed in range(20):
        drawn = augment.draw(AugmentConfig(), (8, 8, 8), SPACING, 1, rng(seed))
        scale = torch.linalg.det(drawn.matrix) ** (1 / 3)
        assert 0.9 <= scale <= 1.1
        turn = drawn.matrix / scale
        torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-5, rtol=0)
        assert drawn.translation.abs().max() <= 0.8


def test_a_window_of_a_box_is_a_crop():
    box = torch.rand(2, 12, 14, 16)
    drawn = augment.draw(OFF, (8, 8, 8), SPACING, 2, rng())
    grid = augment.sampling_grid(drawn, SPACING, (8, 8, 8), (12, 14, 16), (4, 0, 5))
    found = augment.resample(box, grid)
    torch.testing.assert_close(found, box[:, 4:12, 0:8, 5:13], atol=1e-5, rtol=0)


def test_elastic_field_has_the_strength_of_dense_noise():
    config = AugmentConfig(elastic_alpha=250, elastic_sigma=4)
    fields = [
        augment.draw(config, (40, 40, 40), SPACING, 1, rng(seed)).elastic for seed in range(12)
    ]
    found = torch.stack(fields).std().item()
    noise = np.random.default_rng(0).uniform(-1, 1, (64, 64, 64))
    expected = 250 * ndimage.gaussian_filter(noise, 4, mode="wrap").std()
    assert found == pytest.approx(expected, rel=0.15)
    assert fields[0].shape == (3, 21, 21, 21)


def test_background_stays_zero_and_tissue_moves_together():
    images = blob(3)
    drawn = augment.draw(replace(OFF, intensity=0.1, noise=0.05), (16,) * 3, SPACING, 3, rng(1))
    found = augment.add_noise(augment.shift_intensity(images, drawn), drawn)
    assert torch.equal(found == 0, images == 0)
    change = (found - images)[:, 4:-4, 4:-4, 4:-4].flatten(1)
    torch.testing.assert_close(change.mean(1), drawn.intensity, atol=0.01, rtol=0)
    assert change.std(1).mean() == pytest.approx(0.05, rel=0.1)
    assert drawn.intensity.abs().max() <= 0.1
    assert len(set(drawn.intensity.tolist())) == 3


def test_labels_stay_labels_and_follow_the_image():
    given = batch(1)
    given = replace(given, seg=torch.randint(0, 4, (1, 16, 16, 16), dtype=torch.uint8))
    given = replace(given, voxels=given.seg[:, None].float())
    drawn = augment.draw(replace(OFF, translation=0.1), (16,) * 3, SPACING, 1, rng(5))
    whole = replace(drawn, translation=torch.tensor([2.0, -1.0, 0.0]))
    found = augment.augment(given, [whole])
    assert found.seg.dtype == torch.uint8
    torch.testing.assert_close(found.voxels[:, 0], found.seg.float(), atol=1e-4, rtol=0)


def test_a_draw_belongs_to_its_study_alone():
    draws = [augment.draw(AugmentConfig(), (16,) * 3, SPACING, v, rng(v)) for v in (1, 3)]
    given = batch(1, 3)
    together = augment.augment(given, draws).voxels[1:]
    alone = replace(
        given,
        voxels=given.voxels[1:],
        study=torch.zeros(3, dtype=torch.int64),
        spacing=given.spacing[1:],
        seg=given.seg[1:],
    )
    assert torch.equal(augment.augment(alone, draws[1:]).voxels, together)


def test_the_same_seed_draws_the_same():
    one, two = (augment.draw(AugmentConfig(), (9, 8, 7), SPACING, 2, rng(9)) for _ in range(2))
    assert torch.equal(one.elastic, two.elastic)
    assert one.noise_seed == two.noise_seed
    other = augment.draw(AugmentConfig(), (9, 8, 7), SPACING, 2, rng(10))
    assert other.noise_seed != one.noise_seed
    assert math.isfinite(float(other.matrix.sum()))


def test_impossible_ranges_are_refused():
    with pytest.raises(ValueError, match="negative"):
        AugmentConfig(noise=-1)
    with pytest.raises(ValueError, match="below 1"):
        AugmentConfig(scale=1)
