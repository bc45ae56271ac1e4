"""What only the flagship's encoder promises: tokens of tissue alone, in millimetres."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.models import create_model
from gliomoe.models.model import TASKS
from gliomoe.models.moe.balance import routing_loss, z_loss
from gliomoe.models.registry import parameter_counts
from gliomoe.models.tissue import tissue_positions


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", 5), ("small", 30), ("base", 120), ("large", 300)]
)
def test_sizes(name, millions):
    with torch.device("meta"):
        total, active = parameter_counts(create_model(f"gliomoe_{name}", TASKS))
    assert 0.8 * millions < total / 1e6 < 1.2 * millions
    assert active < 0.75 * total


def test_all_tissue_kept_equals_dense(make_tiny, make_batch):
    encoder, batch = make_tiny().encoder, make_batch()
    dense = encoder(batch)
    kept = encoder(batch, tissue_positions(batch, encoder.patch_size))
    assert torch.equal(dense.tokens, kept.tokens)


def test_layers_are_what_the_blocks_make(make_tiny, make_batch):
    encoder, batch = make_tiny().encoder.eval(), make_batch([(0, 1, 2), (0,)])
    keep = tissue_positions(batch, encoder.patch_size)
    made = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _, inputs, output: made.append(output[0]))
    with torch.no_grad():
        features, layers = encoder.layers(batch, keep)
        plain = encoder(batch, keep)
    counts = torch.bincount(features.study).tolist()
    registers, first, rows = len(encoder.registers), 0, []
    for count in counts:
        rows += range(first + registers, first + registers + count)
        first += registers + count
    assert len(layers) == encoder.depth == len(encoder.blocks)
    for layer, output in zip(layers, made, strict=False):
        assert torch.equal(layer, output[rows])
    assert torch.equal(encoder.norm(layers[-1]), features.tokens)
    assert torch.equal(plain.tokens, features.tokens)


def test_air_has_features_zero_and_no_token(make_tiny, make_batch):
    features = make_tiny().encoder(make_batch([(0,)], (16, 16, 16)))
    corner = features.pyramid[-1][0, :, 0, 0, 0]
    assert not corner.any()
    assert not (features.position == 0).all(1).any()


def test_routing_covers_tokens_and_registers(make_tiny, make_batch):
    features = make_tiny().encoder(make_batch())
    for layer in features.routing:
        patches = layer.position[:, 0] >= 0
        assert torch.equal(layer.position[patches], features.position)
        assert torch.equal(layer.study[patches], features.study)


def test_one_expert_is_dense(make_tiny, make_batch):
    model = make_tiny(experts=1)
    assert model.encoder(make_batch()).routing == []
    assert parameter_counts(model)[0] == parameter_counts(model)[1]
    assert float(routing_loss([])) == 0


def test_spacing_counts_in_millimetres(make_tiny, make_batch):
    encoder = make_tiny().encoder
    near, far = encoder(make_batch(spacing=1.0)), encoder(make_batch(spacing=4.0))
    assert (near.tokens - far.tokens).abs().max() > 1e-3


@pytest.mark.parametrize("side", [12, 16, 20])
def test_one_set_of_weights_serves_every_size(make_tiny, make_batch, side):
    """12, 16 and 20 voxels with patches of 4 are to each other as 96, 128 and 160 with 32."""
    model, whole = make_tiny(("seg", "idh")), make_tiny(("seg", "idh")).state_dict()
    prediction = model(make_batch([(0, 2)], (side, side, side)))
    assert prediction.seg.shape == (1, 3, side, side, side)
    assert prediction.features.pyramid[-1].shape[2:] == (side // 4,) * 3
    assert {name: t.shape for name, t in model.state_dict().items()} == {
        name: t.shape for name, t in whole.items()
    }


def test_more_air_around_the_head_changes_no_token(make_tiny, make_batch):
    encoder, batch = make_tiny().encoder, make_batch([(0, 2)], (12, 12, 12))
    padded = replace(batch, voxels=F.pad(batch.voxels, (4,) * 6))
    small, large = encoder(batch), encoder(padded)
    assert torch.equal(small.position + 1, large.position)
    torch.testing.assert_close(small.tokens, large.tokens, atol=1e-5, rtol=1e-4)


def test_positions_count_in_millimetres_along_each_axis(make_tiny):
    """Twice the patches of half the millimetres along D: H and W turn as before."""
    encoder = make_tiny().encoder
    angles = []
    for grid, mm in (((4, 4, 4), 2.0), ((8, 4, 4), (1.0, 2.0, 2.0))):
        batch = StudyBatch(
            torch.ones(1, 1, *(4 * n for n in grid)), torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, dtype=torch.int64), torch.ones(1, 3) * torch.tensor(mm),
        )  # fmt: skip
        where = torch.ones(1, *grid).nonzero()
        pack = encoder._with_registers(torch.zeros(len(where), 24), where, [len(where)])
        cos, _ = encoder._rotary(pack, batch.spacing, torch.Size(grid))
        angles.append(cos[pack.rows].view(*grid, -1))
    coarse, fine = angles
    torch.testing.assert_close(coarse[..., 2:6], fine[::2][..., 2:6])
    between = (fine[::2][..., :2].acos() + fine[1::2][..., :2].acos()) / 2
    torch.testing.assert_close(coarse[..., 1].acos(), between[..., 1], atol=1e-3, rtol=1e-3)


def test_a_batch_without_any_tissue(make_tiny, make_batch):
    model, batch = make_tiny(TASKS), make_batch([(0, 1), (2,)])
    batch.voxels.zero_()
    prediction = model(batch)
    features = prediction.features
    assert features.tokens.shape[0] == 0 and not features.pooled.any()
    assert not features.pyramid[-1].any() and prediction.seg.isfinite().all()
    total = prediction.seg.square().mean() + prediction.markers["grade"].square().mean()
    (total + routing_loss(features.routing) + z_loss(features.routing)).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_nothing_kept(make_tiny, make_batch):
    encoder, batch = make_tiny().encoder, make_batch([(0, 1), (2,)])
    nothing = torch.zeros_like(tissue_positions(batch, encoder.patch_size))
    features = encoder(batch, nothing)
    features.pooled.sum().backward()
    assert features.tokens.shape == (0, encoder.width) and not features.pooled.any()


def test_the_number_of_waits_for_a_device_stays_the_same(make_tiny, make_batch):
    """Reading a value stops Python until a GPU is done; patches and layers must not add any."""
    waits = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            waits.append(func)
            return func(*args, **(kwargs or {}))

    for depth, present in ((2, [(0,)]), (6, [range(6), (0, 1)])):
        encoder, batch = make_tiny(depth=depth).encoder, make_batch(present)
        keep = tissue_positions(batch, encoder.patch_size)
        with Count():
            encoder(batch, keep)
        assert waits.count(torch.ops.aten.nonzero.default) == 1
        waits.clear()
