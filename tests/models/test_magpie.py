"""MAGPIE: the paper's parameter counts, and switches that really take their parts out."""

from dataclasses import asdict

import pytest
import torch

from gliomoe.models import create_model
from gliomoe.models.blocks.dlka import (
    DeformableConv3d,
    DeformableLargeKernelAttention,
    WarpedConv3d,
)
from gliomoe.models.blocks.mednext import MedNeXtDown, MedNeXtUp
from gliomoe.models.blocks.msda import MultiScaleDeformableAttention
from gliomoe.models.blocks.residual import ResidualUnit
from gliomoe.models.errors import ModelError
from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.model import TASKS
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.registry import MODELS, parameter_counts
from gliomoe.models.selection import FOUR
from gliomoe.models.tissue import tissue_positions

LARGE = "magpie_mednext_l"
TINY = {
    "patch_size": 4, "channels": (4, 8, 16), "blocks": (1, 1, 1), "expansion": (2, 2, 2),
    "decoder_blocks": (1, 1), "scales": 2, "msda_width": 8, "heads": 2, "points": 2, "depth": 3,
    "experts": 4, "expert_hidden": 8,
}  # fmt: skip


def built(name=LARGE, tasks=("seg",), **settings):
    """A model without memory for its weights."""
    with torch.device("meta"):
        return create_model(name, tasks, **settings)


def small(tasks=("seg",), **settings):
    torch.manual_seed(0)
    return create_model(LARGE, tasks, **{**TINY, **settings})


def count(model, kind):
    return sum(isinstance(part, kind) for part in model.modules())


@pytest.mark.parametrize(
    ("settings", "total", "active"),
    [
        ({}, 120, 62),
        ({"top_k": 1}, None, 47),
        ({"top_k": 3}, None, 78),
        ({"experts": 16}, 178, 62),
        ({"experts": 1}, 62, 62),
    ],
)
def test_the_counts_of_table_3(settings, total, active):
    """Within 5 % of the paper, in every row that it gives."""
    found_total, found_active = parameter_counts(built(**settings))
    assert total is None or abs(found_total / 1e6 / total - 1) < 0.05
    assert abs(found_active / 1e6 / active - 1) < 0.05


def test_all_heads_change_little():
    total, active = parameter_counts(built(tasks=TASKS))
    assert abs(total / 120e6 - 1) < 0.05
    assert abs(active / 62e6 - 1) < 0.05


@pytest.mark.parametrize("name", ["magpie_unet_b", "magpie_unet_xl"])
def test_the_sizes_of_table_1(name):
    total, _ = parameter_counts(built(name))
    assert abs(total / MODELS[name].published["parameters_total"] - 1) < 0.05


def test_sizes_ascend():
    totals = [parameter_counts(built(f"magpie_mednext_{size}"))[0] for size in "sml"]
    assert totals[0] < 0.4 * totals[1] < 0.4 * totals[2]


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({"msda": False}, MultiScaleDeformableAttention),
        ({"dlka": "off"}, DeformableLargeKernelAttention),
        ({"dlka": "deformable"}, WarpedConv3d),
        ({"dlka": "warp"}, DeformableConv3d),
        ({"experts": 1}, MixtureOfExperts),
        ({"experts": 0}, (MixtureOfExperts, FeedForward)),
    ],
)
def test_a_switch_takes_its_part_out(settings, gone, make_batch):
    whole, model = small(), small(**settings)
    assert count(whole, gone) or settings == {"dlka": "warp"}
    assert not count(model, gone)
    if settings != {"dlka": "warp"}:
        assert parameter_counts(model)[0] != parameter_counts(whole)[0]
    prediction = model(make_batch())
    prediction.seg.square().mean().backward()
    assert prediction.seg.isfinite().all()
    assert all(p.grad is not None for p in model.parameters())


def test_both_attentions_off(make_batch):
    model = small(msda=False, dlka="off")
    assert not count(model, (MultiScaleDeformableAttention, DeformableLargeKernelAttention))
    assert model(make_batch()).seg.isfinite().all()


def test_fixed_channels_need_their_sequences_by_name(make_batch):
    model = small(channel_agnostic=False)
    assert model.encoder.sequences == FOUR
    assert not [name for name, _ in model.named_parameters() if name.endswith("by_sequence")]
    batch = make_batch([(3, 0, 9, 1, 2)])
    assert model(batch).seg.shape == (1, 3, 16, 12, 20)
    with pytest.raises(ModelError, match="study s0 lacks t2$|study s0 lacks t2:"):
        model(make_batch([(0, 1, 3)]))


def test_only_the_stem_knows_sequences():
    names = [name for name, _ in small().named_parameters() if name.endswith("by_sequence")]
    assert names
    assert all(name.startswith("encoder.stem.") for name in names)


def test_mixtures_route_tissue_alone(make_batch):
    encoder, batch = small(()).encoder, make_batch()
    features = encoder(batch)
    tissue = tissue_positions(batch, encoder.patch_size)
    assert [layer.layer for layer in features.routing] == ["feed_forward.0", "feed_forward.2"]
    for layer in features.routing:
        assert torch.equal(layer.position, features.position)
        assert torch.equal(layer.study, features.study)
        assert layer.patch_size == 4
        assert len(layer.position) == int(tissue.sum()) < tissue.numel()
    air = features.pyramid[-1].movedim(1, -1)[~tissue]
    assert not air.any()


def test_pretraining_trains_the_whole_encoder(make_batch):
    encoder, batch = small(()).encoder, make_batch([range(11)], (24, 24, 24))
    encoder(batch, tissue_positions(batch, 4)).tokens.square().mean().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize(
    "block", [ResidualUnit(3, 5, stride=2), MedNeXtDown(3, 5, 2, 3)], ids=["residual", "mednext"]
)
def test_down_blocks_halve(block):
    assert block(torch.randn(2, 3, 4, 6, 8)).shape == (2, 5, 2, 3, 4)


def test_up_block_doubles_and_pads_its_first_plane():
    up = MedNeXtUp(4, 3, 2, 3)
    enlarged = up(torch.randn(1, 4, 2, 3, 1))
    assert enlarged.shape == (1, 3, 4, 6, 2)
    assert not enlarged[:, :, 0].any()
    assert enlarged[:, :, 1:, 1:, 1:].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 6}, "patch_size 6"),
        ({"patch_size": 32}, "patch_size 32"),
        ({"dlka": "wrap"}, "unknown dlka 'wrap'"),
        ({"backbone": "vgg"}, "unknown backbone 'vgg'"),
        ({"blocks": (1, 1)}, "blocks: patch_size 16 needs 5"),
        ({"kernel": 4}, "kernel 4"),
        ({"scales": 6}, "scales 6"),
        ({"heads": 7}, "msda_width 256"),
        ({"top_k": 9}, "top_k 9"),
        ({"fusion": "sum"}, "unknown fusion 'sum'"),
        ({"expansions": 3}, "unknown setting 'expansions' of magpie_mednext"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ModelError, match=message) as caught:
        built(**settings)
    assert "\n" not in str(caught.value)


def test_configuration_holds_the_decoder_too():
    config = asdict(built().encoder.config)
    assert config["dlka"] == "warp"
    assert config["decoder_blocks"] == (3, 4, 8, 8)
