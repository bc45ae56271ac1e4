"""The mixture against a naive loop over tokens, and its balance loss against the definition."""

import pytest
import torch
import torch.nn.functional as F

from gliomoe.models.features import Routing
from gliomoe.models.moe.balance import expert_counts, routing_loss
from gliomoe.models.moe.experts import grouped_experts, looped_experts
from gliomoe.models.moe.layer import MixtureOfExperts


def naive(layer: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """MAGPIE eq. 3-4, token by token."""
    outputs = []
    for token in x:
        p = (layer.router.weight @ token).softmax(0)
        total = torch.zeros_like(token)
        for e in p.argsort(descending=True)[: layer.router.top_k]:
            gate, up = (layer.experts.gate_up[e] @ token).chunk(2)
            total = total + p[e] * (layer.experts.down[e] @ (F.silu(gate) * up))
        outputs.append(total)
    return torch.stack(outputs)


@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (4, 1), (3, 3)])
def test_layer_equals_naive_loop(experts, top_k):
    torch.manual_seed(0)
    layer = MixtureOfExperts(width=12, hidden=10, experts=experts, top_k=top_k)
    a = torch.randn(37, 12, requires_grad=True)
    b = a.detach().clone().requires_grad_()
    fast, slow = layer(a)[0], naive(layer, b)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    upstream = torch.randn_like(fast)
    fast.backward(upstream)
    grads = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    slow.backward(upstream)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_nothing_is_dropped_when_all_go_to_one_expert():
    torch.manual_seed(0)
    layer = MixtureOfExperts(width=8, hidden=6, experts=4, top_k=1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2] = 5
    x = torch.rand(50, 8)
    output, decision = layer(x)
    assert decision.choice.eq(2).all()
    torch.testing.assert_close(output, naive(layer, x), atol=1e-5, rtol=1e-4)


def test_router_is_float32_under_autocast():
    torch.manual_seed(0)
    layer = MixtureOfExperts(width=16, hidden=8, experts=8, top_k=2)
    x = torch.randn(64, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)[1]
    full = layer(x)[1]
    assert torch.equal(half.choice, full.choice)
    assert torch.equal(half.probabilities, full.probabilities)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped_mm")
def test_grouped_experts_equal_the_loop():
    torch.manual_seed(0)
    counts = torch.tensor([5, 0, 16, 3])
    x = torch.randn(24, 16).bfloat16()
    gate_up, down = torch.randn(4, 32, 16).bfloat16(), torch.randn(4, 16, 16).bfloat16()
    grouped = grouped_experts(x, counts, gate_up, down)
    looped = looped_experts(x, counts, gate_up, down)
    torch.testing.assert_close(grouped, looped, atol=0.5, rtol=0.02)


def routing(probabilities: torch.Tensor, top_k: int) -> Routing:
    tokens = len(probabilities)
    return Routing(
        layer="",
        probabilities=probabilities,
        choice=probabilities.topk(top_k).indices,
        logits=probabilities.log(),
        study=torch.zeros(tokens, dtype=torch.int64),
        position=torch.zeros(tokens, 3, dtype=torch.int64),
        patch_size=8,
    )


def test_routing_loss_equals_its_definition():
    torch.manual_seed(0)
    layers = [routing(torch.randn(40, 5).softmax(1), 2) for _ in range(3)]
    expected = 0.0
    for layer in layers:
        for e in range(5):
            share = float((layer.choice == e).sum()) / layer.choice.numel()
            expected += 5 * share * float(layer.probabilities[:, e].mean()) / 3
    torch.testing.assert_close(routing_loss(layers), torch.tensor(expected))
    torch.testing.assert_close(routing_loss(layers, expert_counts(layers)), torch.tensor(expected))


def test_routing_loss_is_one_in_balance_and_more_beside_it():
    even = torch.full((8, 4), 0.25) + 1e-3 * torch.eye(4).repeat(2, 1)
    torch.testing.assert_close(
        routing_loss([routing(even, 1)]), torch.tensor(1.0), atol=1e-2, rtol=0
    )
    uneven = torch.tensor([0.7, 0.1, 0.1, 0.1]).repeat(8, 1)
    assert routing_loss([routing(uneven, 1)]) > 2


def test_routing_loss_takes_counts_of_the_global_batch():
    layer = routing(torch.tensor([0.7, 0.1, 0.1, 0.1]).repeat(8, 1), 1)
    balanced = torch.full((1, 4), 100)
    torch.testing.assert_close(routing_loss([layer], balanced), torch.tensor(1.0))
