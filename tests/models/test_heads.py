"""Regions of classes, and probabilities of markers, against their definitions."""

import pytest
import torch
from torch.autograd import gradcheck

from gliomoe.data_shards.labels import REGIONS
from gliomoe.models.heads.activation import probabilities
from gliomoe.models.heads.regions import REGION_CLASSES, region_logits


def test_the_regions_are_those_of_the_data():
    assert tuple(REGIONS.values()) == REGION_CLASSES


@pytest.mark.parametrize("classes", [4, 5])
def test_region_probabilities_are_sums_of_class_probabilities(classes):
    torch.manual_seed(0)
    logits = 5 * torch.randn(2, classes, 3, 4, 2, dtype=torch.float64)
    shares = logits.softmax(1)
    found = region_logits(logits).sigmoid()
    for region, labels in enumerate(REGION_CLASSES):
        wanted = sum(shares[:, label] for label in labels)
        torch.testing.assert_close(found[:, region].double(), wanted, atol=1e-6, rtol=1e-5)


def test_region_logits_stay_finite_where_classes_are_certain():
    logits = torch.zeros(1, 4, 1, 1, 1)
    logits[:, 0] = 200
    logits.requires_grad_()
    regions = region_logits(logits)
    regions.sum().backward()
    assert regions.isfinite().all()
    assert regions.max() < -100
    assert logits.grad.isfinite().all()


def test_binary_and_graded_markers():
    binary, grade = torch.tensor([[0.3], [-2.0]]), torch.randn(2, 3)
    torch.testing.assert_close(probabilities(binary, "softmax"), binary.sigmoid())
    torch.testing.assert_close(probabilities(grade, "softmax"), grade.softmax(1))


def test_entmax_is_the_maximiser_of_its_definition():
    """p = argmax p·z + H(p) with Tsallis entropy of α 1.5: p_i = (z_i / 2 - τ)² where positive."""
    logits = torch.tensor([[2.0, 1.0, -3.0], [0.1, 0.0, 0.2]])
    found = probabilities(logits, "entmax15")
    for z, p in zip(logits, found, strict=True):
        low, high = float(z.max()) / 2 - 1, float(z.max()) / 2
        for _ in range(60):
            tau = (low + high) / 2
            total = float((z / 2 - tau).clamp(min=0).square().sum())
            low, high = (tau, high) if total > 1 else (low, tau)
        torch.testing.assert_close(p, (z / 2 - low).clamp(min=0).square(), atol=1e-5, rtol=1e-4)
    assert found[0, 2] == 0
    binary = probabilities(torch.tensor([[5.0]]), "entmax15")
    assert binary.tolist() == [[1.0]]


def test_entmax_has_a_gradient():
    logits = torch.tensor([[0.3, 0.1, -0.2]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda z: probabilities(z, "entmax15"), logits, atol=1e-2, eps=1e-2)
