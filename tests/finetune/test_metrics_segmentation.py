"""Figures of regions against hand-computed cases, a naive reference and MONAI on whole volumes."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion

from gliomoe.finetune.metrics.segmentation import FIGURES, RATIOS, dice, region_figures


def box(*bounds: tuple[int, int], shape=(12, 14, 10)) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def naive_surface_distances(a: np.ndarray, b: np.ndarray, mm) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel of one mask to the nearest of the other, both ways."""
    edges = [np.argwhere(m & ~binary_erosion(m)) * np.array(mm) for m in (a, b)]
    gaps = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=2)
    return gaps.min(1), gaps.min(0)


def test_hand_computed_overlap():
    truth, found = box((2, 6), (2, 6), (2, 6)), box((2, 6), (2, 6), (4, 8))
    figures = region_figures(found, truth, (1, 1, 1))
    assert figures.empty == "none"
    assert figures.values["dice"] == pytest.approx(0.5)
    assert figures.values["iou"] == pytest.approx(1 / 3)
    assert figures.values["sensitivity"] == pytest.approx(0.5)
    assert figures.values["precision"] == pytest.approx(0.5)
    assert figures.values["hd95"] == pytest.approx(2.0)
    assert dice(found, truth).item() == pytest.approx(0.5)


def test_distances_against_all_pairs():
    truth, found = box((2, 9), (3, 7), (1, 6)), box((3, 10), (2, 9), (2, 5))
    mm = (1.5, 1.0, 2.0)
    values = region_figures(found, truth, mm).values
    there, back = naive_surface_distances(found.numpy(), truth.numpy(), mm)
    assert values["hd95"] == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4
    )
    for limit in (1, 2):
        near = (there <= limit).sum() + (back <= limit).sum()
        share = near / (len(there) + len(back))
        assert values[f"nsd_{limit}mm"] == pytest.approx(share, abs=1e-6)


def test_identical_masks():
    mask = box((2, 6), (2, 6), (2, 6))
    values = region_figures(mask, mask, (2, 2, 2)).values
    assert set(values) == set(FIGURES)
    assert all(values[name] == pytest.approx(1.0) for name in RATIOS)
    assert values["hd95"] == 0


@pytest.mark.parametrize("which", ["truth", "prediction", "both"])
def test_empty_masks(which):
    nothing, something = torch.zeros(3, 4, 12, dtype=torch.bool), torch.zeros(3, 4, 12).bool()
    something[1, 1, 1] = True
    found = nothing if which in ("prediction", "both") else something
    truth = nothing if which in ("truth", "both") else something
    figures = region_figures(found, truth, (1, 1, 1))
    assert figures.empty == which
    expected = 1.0 if which == "both" else 0.0
    assert all(figures.values[name] == expected for name in RATIOS)
    assert figures.values["hd95"] == (0.0 if which == "both" else pytest.approx(13.0))
    assert dice(found, truth).item() == expected


@pytest.mark.parametrize("seed", range(3))
def test_shared_distances_are_those_of_monai(seed):
    noise = torch.rand(2, 30, 26, 28, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool3d(noise, 7, 1, 3)
    found, truth = smooth > smooth.quantile(0.8)
    mm = [1.0, 2.0, 1.5]
    values = region_figures(found, truth, mm).values
    a, b = found[None, None].float(), truth[None, None].float()
    hd95 = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=mm)
    assert values["hd95"] == pytest.approx(hd95.item(), abs=1e-5)
    for limit in (1, 2):
        nsd = compute_surface_dice(a, b, [limit], include_background=True, spacing=mm)
        assert values[f"nsd_{limit}mm"] == pytest.approx(nsd.item(), abs=1e-6)
