"""Corruptions: nothing at severity 0, more with each degree, the same every time."""

import numpy as np
import pytest
import torch

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.intensity import FLOOR, robust_range
from gliomoe.finetune.studies.corruptions import CORRUPTIONS, HIGHEST, corrupt


@pytest.fixture(scope="module")
def sample() -> StudySample:
    """Two volumes of a head with smooth structure on a 2 mm grid."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 3, indexing="ij"))
    head = grid.norm(dim=0) < 0.95
    waves = torch.sin(9 * grid[0]) * torch.cos(7 * grid[1]) + torch.sin(8 * grid[2])
    low, high = robust_range(torch.where(head, waves, 0).numpy())
    waves = ((waves - low) / (high - low)).clamp(FLOOR, 1)
    volumes = torch.stack([torch.where(head, waves, 0), torch.where(head, 1 - waves + FLOOR, 0)])
    return StudySample("case", volumes, torch.tensor([0, 3]), torch.full((3,), 2.0))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_degree_takes_a_scan_further_from_itself(name, sample):
    assert corrupt(sample, name, 0) is sample
    distances = [
        (corrupt(sample, name, severity).voxels - sample.voxels).abs().mean().item()
        for severity in range(1, HIGHEST + 1)
    ]
    assert distances[-1] > 0.01
    steps = np.diff([0, *distances])
    assert (steps > 0).all(), distances


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_a_corrupted_scan_is(name, sample):
    found = corrupt(sample, name, 3)
    assert torch.equal(found.voxels != 0, sample.voxels != 0)
    for volume in found.voxels:
        low, high = robust_range(volume.numpy())
        assert (low, high) == (pytest.approx(0, abs=2e-3), pytest.approx(1, abs=2e-3))
    assert torch.equal(found.voxels, corrupt(sample, name, 3).voxels)


@pytest.mark.parametrize("name", ["bias_field", "noise", "motion"])
def test_chance_differs_by_seed_and_volume(name, sample):
    found = corrupt(sample, name, 3).voxels
    assert not torch.equal(found, corrupt(sample, name, 3, seed=1).voxels)
    twice = StudySample("case", sample.voxels[[0, 0]], torch.tensor([0, 3]), sample.spacing)
    one, other = corrupt(twice, name, 3).voxels
    assert not torch.equal(one, other)


def test_thick_slices_leave_the_plane_sharp(sample):
    """A pattern that is constant along the third axis does not change inside the head."""
    flat = sample.voxels[:, :, :, 16:17].expand(-1, -1, -1, 32).clone()
    still = StudySample("case", flat, sample.sequence, sample.spacing)
    found = corrupt(still, "thick_slices", 5).voxels
    torch.testing.assert_close(found, corrupt(still, "thick_slices", 1).voxels, atol=1e-4, rtol=0)
