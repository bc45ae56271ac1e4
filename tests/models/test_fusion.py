"""Fusion of the volumes of a study, against softmaxes written out place by place."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gliomoe.models.fusion import FUSIONS, Fusion, segment_softmax
from gliomoe.models.stem import OTHER, SEQUENCES, DetailStem, share_other

SEQUENCE, STUDY = torch.tensor([0, 3, 3, 1, 7]), torch.tensor([0, 0, 0, 1, 1])


def test_segment_softmax_is_a_softmax_of_each_study():
    scores = torch.tensor([1.0, 300.0, -2.0, 0.5, 0.5])
    weights = segment_softmax(scores, torch.tensor([0, 0, 1, 2, 2]), 3)
    expected = torch.cat([scores[:2].softmax(0), torch.ones(1), torch.tensor([0.5, 0.5])])
    torch.testing.assert_close(weights, expected)


def test_segment_softmax_has_the_gradient_of_a_softmax():
    scores = torch.randn(5, requires_grad=True)
    upstream = torch.randn(5)
    (segment_softmax(scores, torch.zeros(5, dtype=torch.int64), 1) * upstream).sum().backward()
    reference = scores.detach().clone().requires_grad_()
    (reference.softmax(0) * upstream).sum().backward()
    torch.testing.assert_close(scores.grad, reference.grad)


def test_scalar_fusion_follows_the_importance_of_a_sequence():
    fusion = Fusion("scalar", 11)
    with torch.no_grad():
        fusion.by_sequence[3] = math.log(3)
    weights = fusion.weights(torch.tensor([0, 3, 3]), torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.75, 1.0]))
    mean = Fusion("mean", 11).weights(torch.tensor([0, 3, 3]), torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(mean, torch.tensor([0.5, 0.5, 1.0]))


@pytest.fixture
def content() -> Fusion:
    """Fusion by content with weights that are not those of the start."""
    torch.manual_seed(0)
    fusion = Fusion("content", len(SEQUENCES), 6)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.normal_()
    return fusion


def by_voxel(fusion: Fusion, volumes: torch.Tensor) -> torch.Tensor:
    """Volumes [V, n, C] → [B, n, C], every place by itself."""
    content, fused = fusion.content, []
    for study in STUDY.unique():
        mine = (study == STUDY).nonzero().flatten()
        for place in range(volumes.shape[1]):
            scores = []
            for v in mine:
                s = SEQUENCE[v]
                hidden = content.hidden.weight @ volumes[v, place] + content.hidden.bias
                hidden = F.gelu(hidden + content.by_sequence[s])
                scores.append(fusion.by_sequence[s] + (content.out * hidden).sum())
            shares = torch.stack(scores).softmax(0)
            fused.append(sum(w * volumes[v, place] for w, v in zip(shares, mine, strict=True)))
    return torch.stack(fused).unflatten(0, (-1, volumes.shape[1]))


def test_content_fusion_equals_a_loop_over_places(content):
    volumes = torch.randn(5, 7, 6)
    fused = torch.stack(content(iter(volumes), SEQUENCE, STUDY, 2))
    torch.testing.assert_close(fused, by_voxel(content, volumes))
    shares = content.weights(SEQUENCE, STUDY, 2)
    assert (fused[0] - (shares[:3, None, None] * volumes[:3]).sum(0)).abs().max() > 0.1


def test_content_fusion_has_the_gradients_of_the_loop(content):
    content.double()
    volumes = torch.randn(5, 3, 6, dtype=torch.float64, requires_grad=True)
    inputs = (volumes, *content.parameters())
    fused = torch.stack(content(volumes, SEQUENCE, STUDY, 2))
    upstream = torch.randn_like(fused)
    fast = torch.autograd.grad(fused, inputs, upstream)
    slow = torch.autograd.grad(by_voxel(content, volumes), inputs, upstream)
    torch.testing.assert_close(fast, slow)

    def fuse(volumes: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.stack(content(volumes, SEQUENCE, STUDY, 2))

    assert torch.autograd.gradcheck(fuse, inputs)


def test_content_fusion_stands_large_scores(content):
    with torch.no_grad():
        content.by_sequence.mul_(1000)
    volumes = torch.randn(5, 7, 6)
    fused = torch.stack(content(volumes, SEQUENCE, STUDY, 2))
    torch.testing.assert_close(fused, by_voxel(content, volumes))


def test_content_fusion_starts_as_scalar_fusion():
    content, scalar = Fusion("content", len(SEQUENCES), 6), Fusion("scalar", len(SEQUENCES))
    with torch.no_grad():
        scalar.by_sequence.normal_()
        content.by_sequence.copy_(scalar.by_sequence)
    volumes = torch.randn(5, 7, 6)
    for a, b in zip(*(f(volumes, SEQUENCE, STUDY, 2) for f in (content, scalar)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", FUSIONS)
def test_order_means_nothing_and_a_volume_given_twice_counts_once_more(kind):
    torch.manual_seed(0)
    fusion = Fusion(kind, len(SEQUENCES), 6)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.normal_()
    volumes, order = torch.randn(5, 7, 6), torch.tensor([2, 0, 1, 4, 3])
    straight = fusion(volumes, SEQUENCE, STUDY, 2)
    shuffled = fusion(volumes[order], SEQUENCE[order], STUDY, 2)
    torch.testing.assert_close(straight, shuffled)
    alone = fusion(volumes[3:4], SEQUENCE[3:4], STUDY[:1], 1)
    torch.testing.assert_close(alone[0], volumes[3])
    twice = fusion(volumes[[3, 3]], SEQUENCE[[3, 3]], STUDY[:2], 1)
    torch.testing.assert_close(twice[0], volumes[3])
    fewer = fusion(volumes[:4], SEQUENCE[:4], STUDY[:4], 2)
    torch.testing.assert_close(fewer[0], straight[0])
    torch.testing.assert_close(fewer[1], volumes[3])


def test_unseen_sequences_take_the_weights_of_other():
    stem = DetailStem(channels=4, fusion="scalar")
    with torch.no_grad():
        stem.weight.by_sequence[OTHER] = 7
        stem.fusion.by_sequence[OTHER] = 2
    before = stem.weight.by_sequence.clone()
    share_other(stem, ["t1", "flair"])
    seen, unseen = SEQUENCES.index("flair"), SEQUENCES.index("swi")
    assert torch.equal(stem.weight.by_sequence[seen], before[seen])
    assert stem.weight.by_sequence[unseen].eq(7).all()
    assert stem.fusion.by_sequence[unseen] == 2


def test_unseen_sequences_fuse_like_other_by_content(make_tiny, make_batch):
    encoder = make_tiny(fusion="content").encoder
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "fusion" in name:
                parameter.normal_()
    swi = make_batch([(0, SEQUENCES.index("swi"))])
    other = replace(swi, sequence=torch.tensor([0, OTHER]))
    assert not torch.equal(encoder(swi).tokens, encoder(other).tokens)
    share_other(encoder, ["t1"])
    a, b = encoder(swi), encoder(other)
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.pyramid[0], b.pyramid[0])


def test_content_fusion_trains_in_a_model(make_tiny, make_batch):
    model = make_tiny(("seg",), fusion="content")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):  # in the first step the score is 0, and only its last layer moves
        optimizer.zero_grad()
        model(make_batch([range(len(SEQUENCES)), (0, 1)])).seg.square().mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if "fusion" in name:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_content_fusion_under_autocast(make_tiny, make_batch):
    encoder, batch = make_tiny(fusion="content").encoder, make_batch()
    full = encoder(batch).tokens
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(batch).tokens
    assert (full - half).abs().mean() < 0.05 * full.std()
