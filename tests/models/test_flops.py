"""FLOPs counted without computing, against counts by hand and against a real run."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gliomoe.launch.bench.inputs import full_studies, study_for
from gliomoe.models import create_model
from gliomoe.models.errors import ModelError
from gliomoe.models.flops import count_flops, count_kept_bytes


class Attention(nn.Module):
    """Attention alone, without parameters; `scale` makes its operands unknown."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        q = x * self.scale
        return F.scaled_dot_product_attention(q, q, q)


HAND = {
    "linear": (lambda: nn.Linear(7, 5), (3, 7), 2 * 3 * 7 * 5),
    "convolution": (
        lambda: nn.Conv3d(3, 8, 3, padding=1),
        (2, 3, 6, 5, 4),
        2 * 2 * 8 * 3 * 27 * 120,
    ),
    "strided": (lambda: nn.Conv3d(3, 8, 2, stride=2), (1, 3, 6, 4, 4), 2 * 8 * 3 * 8 * 12),
    "depth-wise": (
        lambda: nn.Conv3d(6, 6, 5, padding=2, groups=6),
        (1, 6, 4, 4, 4),
        2 * 6 * 125 * 64,
    ),
    "transposed": (
        lambda: nn.ConvTranspose3d(4, 3, 2, stride=2),
        (1, 4, 3, 3, 3),
        2 * 4 * 3 * 8 * 27,
    ),
    "attention": (Attention, (2, 3, 10, 8), 2 * (2 * 2 * 3 * 10 * 10 * 8)),
    # Four projections of 10 tokens, then scores and sums.
    "multi-head": (
        lambda: SelfAttention(16, 4),
        (1, 10, 16),
        4 * (2 * 10 * 16 * 16) + 2 * (2 * 10 * 10 * 16),
    ),
}


class SelfAttention(nn.MultiheadAttention):
    """torch's own module, which in evaluation takes a fused way that no counter sees."""

    def __init__(self, width, heads):
        super().__init__(width, heads, batch_first=True)

    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("case", HAND)
def test_against_counts_by_hand(case, device):
    build, shape, wanted = HAND[case]
    with torch.device(device):
        module = build().eval()
    assert count_flops(module, torch.randn(shape)) == wanted


SETTINGS = {"width": 24, "depth": 2, "heads": 2, "hidden": 32, "experts": 4, "expert_hidden": 16}


@pytest.mark.parametrize("experts", [1, 4, 7])
@pytest.mark.parametrize("studies", [1, 2])
def test_against_a_real_run(experts, studies):
    settings = {**SETTINGS, "experts": experts, "patch_size": 4}
    model = create_model("gliomoe_tiny", ["seg", "idh", "grade"], **settings).eval()
    batch = full_studies(16, studies)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    with torch.device("meta"):
        shapes = create_model("gliomoe_tiny", ["seg", "idh", "grade"], **settings).eval()
    assert count_flops(shapes, batch) == counter.get_total_flops() > 0


def test_air_costs_nothing():
    model = create_model("gliomoe_tiny", **SETTINGS, patch_size=4)
    batch = study_for(model, 16)
    full = count_flops(model.encoder, batch)
    batch.voxels[..., 8:] = 0
    assert count_flops(model.encoder, batch) < full


def test_the_model_is_left_as_it_was():
    model = create_model("gliomoe_tiny", **SETTINGS, patch_size=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_flops(model, study_for(model, 16))
    for name, tensor in model.state_dict().items():
        assert type(tensor) is torch.Tensor and torch.equal(tensor, before[name])


class Choice(nn.Module):
    """Rows sorted by a choice of a router, one product for each alternative."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.seen = []

    def forward(self, x):
        choice = self.router(x).topk(2, dim=-1)[1]
        self.seen = torch.bincount(choice.flatten(), minlength=3).tolist()
        assert all(len(set(row)) == 2 for row in choice.tolist())
        return torch.stack([row.sum() for row in x[choice.flatten() // 3].split(self.seen)])


def test_choices_of_fake_numbers_are_spread_evenly():
    module = Choice()
    assert count_flops(module, torch.randn(9, 4)) == 2 * 9 * 4 * 3
    assert module.seen == [6, 6, 6]


class Rows(nn.Module):
    """Rows that a real mask chooses, of unknown values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        mask = x[:, 0] > 0
        y = self.linear(x)
        kept = self.linear(y[mask])
        y[mask] = kept
        return self.linear(y)


def test_masks_with_data_give_shapes():
    x = torch.ones(9, 4)
    x[5:] = -1
    assert count_flops(Rows(), x) == 2 * 4 * 4 * (9 + 5 + 9)


class Overwrites(nn.Module):
    """A real tensor takes unknown values in place, then decides a shape."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        sums = torch.zeros(9, 4)
        sums.index_add_(0, torch.arange(9), self.linear(x))
        return sums[:, :2].relu().nonzero()


def test_values_that_only_a_computation_tells_are_an_error():
    message = "Overwrites: its FLOPs cannot be counted without computing: .*nonzero"
    with pytest.raises(ModelError, match=message):
        count_flops(Overwrites(), torch.ones(9, 4))


class Graph(nn.Module):
    """Edges in a buffer decide how many rows take part."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 2], [1, 0, 2, 0]]))

    def forward(self, x):
        loops = self.edges[0] == self.edges[1]
        return self.linear(self.linear(x)[self.edges[0][~loops]])


def test_buffers_that_say_where_keep_their_data():
    assert count_flops(Graph(), torch.ones(9, 4)) == 2 * 4 * 4 * (9 + 3)


def kept_by_autograd(module, *inputs):
    """Bytes of a real forward pass, each storage once, weights left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = module(*inputs)
    del output
    return sum(kept[place].nbytes() for place in kept.keys() - weights)


def test_kept_bytes_are_those_of_a_real_step():
    model = create_model("gliomoe_tiny", ("seg",)).train()
    batch = full_studies(16, 2)
    with torch.device("meta"):
        without_data = create_model("gliomoe_tiny", ("seg",)).train()
    assert count_kept_bytes(without_data, batch) == kept_by_autograd(model, batch)


def test_a_matrix_product_keeps_its_input():
    x = torch.ones(3, 7)
    assert count_kept_bytes(nn.Linear(7, 5), x) == 3 * 7 * 4
    assert count_kept_bytes(nn.Linear(7, 5), x, autocast=True) == 3 * 7 * 2
