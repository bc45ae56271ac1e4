"""Pooling over the predicted tumour against loops over voxels."""

import itertools

import pytest
import torch

from gliomoe.models.blocks.mask_pooling import FLOOR, MaskPooling, masked_mean, resample_mask


@pytest.mark.parametrize("sides", [(4, 8, 4), (5, 3, 9)])
def test_resampled_mask_is_the_share_of_each_cube(sides):
    torch.manual_seed(0)
    mask = torch.rand(1, 1, *sides)
    coarse = resample_mask(mask, 4)
    for cell in itertools.product(*(range(-(-side // 4)) for side in sides)):
        i, j, k = (slice(4 * at, 4 * at + 4) for at in cell)
        torch.testing.assert_close(coarse[(0, 0, *cell)], mask[0, 0, i, j, k].sum() / 64)
    assert resample_mask(mask, 1) is mask


def slow(pool: MaskPooling, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Σ m exp(w · tanh(V F)) F / Σ m exp(w · tanh(V F))."""
    results = []
    for study, gate in zip(features, mask, strict=True):
        above, below = torch.zeros(len(study)), torch.zeros(())
        for i, j, k in itertools.product(*(range(side) for side in gate.shape[1:])):
            vector = study[:, i, j, k]
            score = pool.score.weight[0] @ torch.tanh(pool.project.weight @ vector)
            share = (gate[0, i, j, k] + FLOOR) * score.exp()
            above, below = above + share * vector, below + share
        results.append(above / below)
    return torch.stack(results)


def test_pooling_equals_the_definition_with_gradients():
    torch.manual_seed(0)
    pool = MaskPooling(5, 3)
    features, mask = torch.randn(2, 5, 2, 3, 2), torch.rand(2, 1, 2, 3, 2)
    a, b = features.clone().requires_grad_(), features.clone().requires_grad_()
    fast, slowly = pool(a, mask)[0], slow(pool, b, mask)
    torch.testing.assert_close(fast, slowly)
    upstream = torch.randn_like(fast)
    fast.backward(upstream)
    grads = [p.grad.clone() for p in pool.parameters()]
    pool.zero_grad()
    slowly.backward(upstream)
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(grads, [p.grad for p in pool.parameters()])


def test_what_lies_outside_a_mask_hardly_counts():
    torch.manual_seed(0)
    pool = MaskPooling(4, 8)
    mask = torch.zeros(1, 1, 4, 4, 4)
    mask[..., 1, 2, 3] = 1
    features = torch.randn(1, 4, 4, 4, 4)
    changed = torch.where(mask > 0, features, torch.randn_like(features))
    torch.testing.assert_close(pool(features, mask)[0], pool(changed, mask)[0], atol=0.1, rtol=0)
    torch.testing.assert_close(
        masked_mean(features, mask), features[..., 1, 2, 3], atol=0.05, rtol=0
    )


def test_an_empty_mask_is_no_mask():
    torch.manual_seed(0)
    pool = MaskPooling(4, 8)
    features = torch.randn(2, 4, 3, 3, 3, requires_grad=True)
    empty = torch.zeros(2, 1, 3, 3, 3, requires_grad=True)
    pooled, attention = pool(features, empty)
    torch.testing.assert_close(pooled, pool(features)[0])
    torch.testing.assert_close(attention.sum((1, 2, 3, 4)), torch.ones(2))
    torch.testing.assert_close(masked_mean(features, empty), features.mean((2, 3, 4)))
    (pooled.sum() + masked_mean(features, empty).sum()).backward()
    assert features.grad.isfinite().all()
    assert empty.grad.isfinite().all()


def test_masked_mean_equals_a_loop():
    torch.manual_seed(0)
    features, mask = torch.randn(2, 3, 2, 2, 3), torch.rand(2, 1, 2, 2, 3)
    for study in range(2):
        above, below = torch.zeros(3), 0.0
        for i, j, k in itertools.product(range(2), range(2), range(3)):
            share = mask[study, 0, i, j, k] + FLOOR
            above, below = above + share * features[study, :, i, j, k], below + share
        torch.testing.assert_close(masked_mean(features, mask)[study], above / below)


def test_float32_under_autocast():
    pool, features = MaskPooling(4, 8), torch.randn(1, 4, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        pooled, attention = pool(features.bfloat16(), torch.rand(1, 1, 3, 3, 3))
        mean = masked_mean(features.bfloat16(), torch.rand(1, 1, 3, 3, 3))
    assert pooled.dtype == attention.dtype == mean.dtype == torch.float32
