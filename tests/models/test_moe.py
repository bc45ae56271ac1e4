"""The mixture against a naive loop over tokens, its losses against their definitions."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.moe.balance import expert_counts, routing_loss, update_bias, z_loss
from gliomoe.models.moe.dispatch import combine, dispatch, make_plan
from gliomoe.models.moe.experts import grouped_experts
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.moe.looped import looped_experts


def naive(layer: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """MAGPIE eq. 3-4, token by token."""
    outputs, router = [], layer.router
    for token in x:
        p = (router.weight @ token).softmax(0)
        score = p if router.bias is None else p + router.bias
        best = score.argsort(descending=True)[: router.top_k]
        total = torch.zeros_like(token)
        for e in best:
            gate, up = (layer.experts.gate_up[e] @ token).chunk(2)
            share = p[e] / p[best].sum() if router.renormalise else p[e]
            total = total + share * (layer.experts.down[e] @ (F.silu(gate) * up))
        outputs.append(total)
    return torch.stack(outputs)


def check_against_naive(layer: MixtureOfExperts) -> None:
    """Outputs and all gradients."""
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


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("experts", [4, 8, 16, 64])
def test_layer_equals_naive_loop(experts, top_k):
    torch.manual_seed(0)
    check_against_naive(MixtureOfExperts(12, 10, experts, top_k))


@pytest.mark.parametrize("renormalise", [False, True])
def test_renormalised_and_biased_layers_equal_the_naive_loop(renormalise):
    torch.manual_seed(0)
    layer = MixtureOfExperts(12, 10, 8, 2, renormalise, router_bias=True)
    layer.router.bias.uniform_(-0.1, 0.1)
    check_against_naive(layer)
    x = torch.randn(37, 12)
    biased = layer(x)[1].choice
    layer.router.bias.zero_()
    assert not torch.equal(biased, layer(x)[1].choice)


def test_all_experts_chosen_is_the_full_softmax():
    torch.manual_seed(0)
    decision = MixtureOfExperts(12, 10, 3, 3)(torch.randn(9, 12))[1]
    torch.testing.assert_close(decision.gate.sum(1), torch.ones(9))


def test_no_token_at_all():
    layer = MixtureOfExperts(12, 10, 4, 2)
    output, decision = layer(torch.zeros(0, 12))
    output.sum().backward()
    assert output.shape == (0, 12) and decision.choice.shape == (0, 2)
    assert not layer.experts.down.grad.any()


def test_compiled_without_a_break():
    torch.manual_seed(0)
    layer = MixtureOfExperts(12, 10, 4, 2, renormalise=True, router_bias=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for tokens in (9, 30):
        x = torch.randn(tokens, 12, requires_grad=True)
        eager, same = layer(x)[0], compiled(x)[0]
        torch.testing.assert_close(eager, same)
        inputs = (x, *layer.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(eager.square().sum(), inputs),
            torch.autograd.grad(same.square().sum(), inputs),
        )


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


def separate(x, counts, weight, gate_up, down):
    """Expert after expert, by autograd."""
    outputs = []
    for part, w, first, second in zip(
        x.split(counts.tolist()), weight.split(counts.tolist()), gate_up, down, strict=True
    ):
        gate, up = (part @ first.T).chunk(2, dim=1)
        outputs.append(w.unsqueeze(1) * ((F.silu(gate) * up) @ second.T))
    return torch.cat(outputs)


def expert_inputs(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """24 rows of 8 channels for four experts of 16 hidden channels, one without rows."""
    torch.manual_seed(0)
    shapes = [(24, 8), (24,), (4, 32, 8), (4, 8, 16)]
    x, weight, gate_up, down = (torch.randn(shape, dtype=dtype) for shape in shapes)
    for tensor in (x, weight, gate_up, down):
        tensor.requires_grad_()
    return x, torch.tensor([5, 0, 16, 3]), weight, gate_up, down


def test_looped_experts_equal_autograd():
    x, counts, *weights = expert_inputs(torch.float64)
    fast, slow = looped_experts(x, counts, *weights), separate(x, counts, *weights)
    torch.testing.assert_close(fast, slow)
    upstream = torch.randn(8, 24, dtype=torch.float64).T  # not contiguous
    inputs = (x, *weights)
    torch.testing.assert_close(
        torch.autograd.grad(fast, inputs, upstream), torch.autograd.grad(slow, inputs, upstream)
    )


def test_looped_experts_keep_the_rules_of_operators():
    torch.library.opcheck(torch.ops.gliomoe.looped_experts.default, expert_inputs(torch.float32))


def test_flops_are_those_of_the_products():
    inputs = expert_inputs(torch.float32)
    with FlopCounterMode(display=False) as fast:
        looped_experts(*inputs).sum().backward()
    with FlopCounterMode(display=False) as slow:
        separate(*inputs).sum().backward()
    assert fast.get_total_flops() == slow.get_total_flops() > 0


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped_mm")
def test_the_kernel_equals_the_loop():
    inputs = expert_inputs(torch.bfloat16)
    kernel, loop = grouped_experts(*inputs), looped_experts(*inputs)
    torch.testing.assert_close(kernel, loop, atol=0.5, rtol=0.02)


@pytest.mark.parametrize("top_k", [1, 3])
def test_dispatch_and_combine_are_gathers_and_sums(top_k):
    torch.manual_seed(0)
    choice = torch.rand(11, 5).topk(top_k).indices
    plan = make_plan(choice)
    x = torch.randn(11, 4).double().requires_grad_()
    rows = dispatch(x, plan)
    experts = choice.flatten()[plan.order]
    assert experts.diff().min() >= 0
    for row, (expert, choice_number) in enumerate(zip(experts, plan.order, strict=True)):
        token = int(choice_number) // top_k
        assert torch.equal(rows[row], x[token])
        assert expert in choice[token]
    torch.testing.assert_close(combine(rows, plan), top_k * x)
    assert torch.autograd.gradcheck(lambda x: dispatch(x, plan), x)
    assert torch.autograd.gradcheck(lambda rows: combine(rows, plan), rows)


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


def routing_of(layer: MixtureOfExperts, x: torch.Tensor) -> Routing:
    decision = layer(x)[1]
    entry = routing(decision.probabilities, 1)
    return replace(entry, choice=decision.choice, logits=decision.logits)


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
    balanced = torch.full((1, 4), 2)  # eight tokens on average
    torch.testing.assert_close(routing_loss([layer], balanced), torch.tensor(1.0))


def test_z_loss_equals_its_definition():
    torch.manual_seed(0)
    layers = [routing(torch.rand(40, 5), 2) for _ in range(2)]
    expected = 0.0
    for layer in layers:
        for token in layer.logits:
            expected += math.log(sum(math.exp(float(x)) for x in token)) ** 2 / 80
    torch.testing.assert_close(z_loss(layers), torch.tensor(expected))
    assert float(z_loss([])) == 0


def test_the_bias_moves_towards_the_mean_load():
    layer = MixtureOfExperts(4, 4, 4, 1, router_bias=True)
    update_bias(layer, torch.tensor([[10, 4, 4, 2]]), 0.01)
    torch.testing.assert_close(layer.router.bias, torch.tensor([-0.01, 0.01, 0.01, 0.01]))
    update_bias(layer, torch.tensor([[5, 5, 6, 4]]), 0.01)
    torch.testing.assert_close(layer.router.bias, torch.tensor([-0.01, 0.01, 0.0, 0.02]))
    assert not layer.router.bias.requires_grad


def test_the_bias_evens_a_crooked_router():
    torch.manual_seed(0)
    layer = MixtureOfExperts(8, 4, 4, 1, router_bias=True)
    with torch.no_grad():
        layer.router.weight.normal_()
        layer.router.weight[2] += 0.5
    x = torch.rand(200, 8)

    def largest_load() -> float:
        counts = expert_counts([routing_of(layer, x)])
        update_bias(layer, counts, 0.02)
        return float(counts.max() / counts.sum())

    before = largest_load()
    for _ in range(100):
        after = largest_load()
    assert before > 0.5 and after < 0.35


def test_biases_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="1 layers of counts for 0 routers"):
        update_bias(MixtureOfExperts(4, 4, 4, 1), torch.ones(1, 4), 0.1)
