"""What only the flagship's encoder promises: tokens of tissue alone, in millimetres."""

import pytest
import torch

from gliomoe.models import create_model
from gliomoe.models.model import TASKS
from gliomoe.models.moe.balance import routing_loss
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
