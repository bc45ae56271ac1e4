"""Statistics, pruning and upcycling of the experts of whole models."""

import math

import pytest
import torch

from gliomoe.models.checkpoint import load_checkpoint, save_checkpoint
from gliomoe.models.errors import ModelError
from gliomoe.models.moe.balance import expert_counts, update_bias
from gliomoe.models.moe.pruning import prune_experts
from gliomoe.models.moe.statistics import counted_choices, expert_use, mixtures
from gliomoe.models.moe.upcycling import upcycle
from gliomoe.models.stem import SEQUENCES


def test_counted_choices_are_those_of_the_routing(make_tiny, make_batch):
    model, batches = make_tiny(depth=4), [make_batch(seed=0), make_batch([(2,)], seed=1)]
    with torch.no_grad(), counted_choices(model) as counts:
        routings = [model.encoder(batch).routing for batch in batches]
    expected = sum(expert_counts(routing) for routing in routings)
    assert list(counts) == ["encoder.blocks.1.feed_forward", "encoder.blocks.3.feed_forward"]
    assert torch.equal(torch.stack(list(counts.values())), expected)
    model.encoder(batches[0])
    assert torch.equal(torch.stack(list(counts.values())), expected)


def test_expert_use_of_loads_that_are_known():
    even, single, some = expert_use(
        {
            "even": torch.tensor([5, 5, 5, 5]),
            "single": torch.tensor([0, 9, 0, 0]),
            "some": torch.tensor([500, 300, 195, 5]),
        }
    )
    assert (even.entropy, even.peak, even.idle) == (pytest.approx(1), pytest.approx(1), 0)
    assert (single.entropy, single.peak, single.idle) == (pytest.approx(0), pytest.approx(4), 3)
    assert some.share == pytest.approx((0.5, 0.3, 0.195, 0.005))
    entropy = -sum(p * math.log(p) for p in some.share) / math.log(4)
    assert (some.entropy, some.peak, some.idle) == (pytest.approx(entropy), pytest.approx(2), 1)


def test_counts_of_a_batch_move_the_biases_of_a_model(make_tiny, make_batch):
    model = make_tiny(depth=4, router_bias=True)
    routing = model.encoder(make_batch()).routing
    update_bias(model, expert_counts(routing), 0.01)
    for layer, entry in zip(mixtures(model).values(), routing, strict=True):
        counts = expert_counts([entry])[0].float()
        expected = 0.01 * (counts.mean() - counts).sign()
        torch.testing.assert_close(layer.router.bias, expected)


def test_experts_that_nobody_uses_go_unnoticed(make_tiny, make_batch):
    model, batch = make_tiny(("seg",), experts=6, renormalise=True, router_bias=True), make_batch()
    (layer,) = mixtures(model).values()
    layer.router.bias[[1, 4]] = -10
    with torch.no_grad(), counted_choices(model) as counts:
        before = model(batch).seg
    smaller = prune_experts(model, counts, 4)
    torch.testing.assert_close(smaller(batch).seg, before)
    (kept,) = mixtures(smaller).values()
    assert torch.equal(kept.experts.down, layer.experts.down[[0, 2, 3, 5]])
    assert smaller.config["overrides"]["experts"] == 4


def test_pruned_probabilities_are_the_smaller_softmax(make_tiny, make_batch, tmp_path):
    model, batch = make_tiny(("idh",), experts=5), make_batch()
    (name,) = mixtures(model)
    smaller = prune_experts(model, {name: torch.tensor([3, 9, 9, 1, 4])}, 3)
    logits = model.encoder(batch).routing[0].logits[:, [1, 2, 4]]
    torch.testing.assert_close(smaller.encoder(batch).routing[0].probabilities, logits.softmax(1))
    facts = {"training": {}, "preprocessing": {}, "sequences": SEQUENCES, "card": ""}
    save_checkpoint(tmp_path / "ck", smaller, **facts)
    loaded = load_checkpoint(tmp_path / "ck")
    assert torch.equal(loaded(batch).markers["idh"], smaller(batch).markers["idh"])
    smaller(batch).markers["idh"].sum().backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("experts", "top_k"), [(4, 2), (8, 2), (6, 3)])
def test_upcycling_keeps_the_function(make_tiny, make_batch, experts, top_k):
    dense, batch = make_tiny(("seg", "idh"), experts=1, top_k=top_k, depth=4), make_batch()
    sparse = upcycle(dense, experts)
    before, after = dense(batch), sparse(batch)
    torch.testing.assert_close(after.seg, before.seg, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after.features.tokens, before.features.tokens, atol=1e-5, rtol=1e-4)
    for layer in after.features.routing:
        groups = layer.choice.sort(dim=1).values
        assert groups.diff(dim=1).eq(1).all() and groups[:, 0].remainder(top_k).eq(0).all()
        assert groups[:, 0].unique().numel() > 1
    assert sparse.config["overrides"]["experts"] == experts
    assert sum(p.numel() for p in sparse.parameters()) > sum(p.numel() for p in dense.parameters())


def test_upcycled_models_train_and_copies_part(make_tiny, make_batch):
    sparse = upcycle(make_tiny(experts=1), 4, router_bias=True)
    (layer,) = mixtures(sparse).values()
    assert torch.equal(layer.experts.down[0], layer.experts.down[2])
    sparse.encoder(make_batch()).pooled.square().sum().backward()
    assert layer.router.weight.grad.any()
    assert not torch.equal(layer.experts.down.grad[0], layer.experts.down.grad[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda make: prune_experts(make(), {}, 2), "no counts for encoder.blocks.1"),
        (lambda make: prune_experts(make(experts=1), {}, 2), "no mixtures"),
        (lambda make: _pruned(make(), 1), "keep 1: must be from 2 to 4"),
        (lambda make: _pruned(make(), 5), "keep 5: must be from 2 to 4"),
        (lambda make: upcycle(make(), 4), "only a dense model"),
        (lambda make: upcycle(make(experts=1), 5), "experts 5: must be a multiple"),
        (lambda make: upcycle(make(experts=1), 2), "experts 2: must be a multiple"),
        (lambda make: upcycle(make(experts=1), 4, expert_hidden=8), "has 32 hidden channels"),
        (lambda make: upcycle(make(experts=1, top_k=1), 4), "renormalise"),
    ],
)
def test_what_does_not_fit_is_refused(make_tiny, call, message):
    with pytest.raises(ModelError, match=message) as caught:
        call(make_tiny)
    assert "\n" not in str(caught.value)


def _pruned(model, keep):
    return prune_experts(model, {name: torch.arange(4) for name in mixtures(model)}, keep)
