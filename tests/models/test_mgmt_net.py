"""MGMT-Net: its parts together, beyond what every registered model is tested for."""

from dataclasses import replace

import pytest
import torch

from gliomoe.models import create_model
from gliomoe.models.encoders.hybrid import Fuse
from gliomoe.models.errors import ModelError
from gliomoe.models.heads.regions import region_logits
from gliomoe.models.registry import parameter_counts

TASKS = ("seg", "idh", "1p19q", "tert")
SMALL = {
    "channels": (4, 6, 8, 12),
    "blocks": 1,
    "swin_width": 4,
    "swin_heads": (1, 1, 2, 2),
    "window": 3,
    "pooling_hidden": 8,
    "marker_hidden": 8,
}


def small(tasks=TASKS, **overrides):
    torch.manual_seed(0)
    return create_model("mgmt_net", tasks, **{**SMALL, **overrides})


@pytest.fixture
def batch(make_batch):
    return make_batch([(0, 1, 2, 3), (3, 2, 1, 0)], sides=(18, 16, 12))


def test_size():
    with torch.device("meta"):
        total, _ = parameter_counts(create_model("mgmt_net", TASKS))
    assert 8.5e6 < total < 9.5e6


def test_classes_and_regions_say_the_same(batch):
    prediction = small().eval()(batch)
    assert prediction.classes.shape == (2, 5, 18, 16, 12)
    torch.testing.assert_close(prediction.seg, region_logits(prediction.classes))


def test_a_fresh_model_says_background(batch):
    assert small().eval()(batch).classes.softmax(1)[:, 0].mean() > 0.7


def test_deep_supervision_is_for_training(batch):
    model = small()
    deep = model.train()(batch).deep
    assert [tuple(x.shape) for x in deep] == [(2, 3, 9, 8, 6), (2, 3, 5, 4, 3)]
    assert model.eval()(batch).deep == ()


def test_maps_are_for_reports(batch):
    model = small(attention_gates=True)
    assert model.train()(batch).maps == {}
    maps = model.eval()(batch).maps
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        "cmaf": (2, 4, 18, 16, 12),
        "gate_0": (2, 1, 18, 16, 12),
        "gate_1": (2, 1, 9, 8, 6),
        "gate_2": (2, 1, 5, 4, 3),
        "markers": (2, 1, 3, 2, 2),
    }
    torch.testing.assert_close(maps["cmaf"].sum(1), torch.ones(2, 18, 16, 12))
    assert maps["markers"].amax((1, 2, 3, 4)).eq(1).all()


def test_order_of_volumes_means_nothing(batch):
    model = small().eval()
    order = torch.tensor([2, 0, 3, 1, 7, 5, 4, 6])
    shuffled = replace(batch, voxels=batch.voxels[order], sequence=batch.sequence[order])
    torch.testing.assert_close(model(batch).classes, model(shuffled).classes)


def test_markers_do_not_bend_the_segmentation(batch):
    model = small().train()
    sum(x.sum() for x in model(batch).markers.values()).backward()
    assert all(p.grad is None for p in model.heads["seg"].parameters())
    assert all(p.grad is not None for p in model.encoder.cnn.parameters())


def test_markers_look_where_the_tumour_is(batch):
    model = small().eval()
    features = model(batch).features.pyramid[-1]
    mask = torch.zeros(2, 1, *features.shape[2:])
    mask[:, :, 1, 1, 1] = 1
    _, attention = model.heads["markers"](features, mask)
    assert attention[:, :, 1, 1, 1].min() > 0.99


def test_without_segmentation_the_attention_is_plain(batch):
    model = small(("idh",)).eval()
    prediction = model(batch)
    assert prediction.seg is prediction.classes is None
    logits, _ = model.heads["markers"](prediction.features.pyramid[-1], None)
    assert torch.equal(prediction.markers["idh"], logits["idh"])


def test_fusion_equals_its_definition():
    torch.manual_seed(0)
    fuse = Fuse(3, [4, 5])
    local, same = torch.randn(1, 3, 5, 4, 2), torch.randn(1, 4, 5, 4, 2)
    coarse = torch.randn(1, 5, 3, 2, 1)
    normed = [
        (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        for x in (same, coarse)
    ]
    larger = torch.nn.functional.interpolate(normed[1], scale_factor=2, mode="trilinear")
    joined = torch.cat([local, normed[0], larger[:, :, :5]], 1).flatten(2)
    expected = fuse.mix.weight.flatten(1) @ joined + fuse.mix.bias[:, None]
    torch.testing.assert_close(fuse(local, [same, coarse]).flatten(2), expected)


def test_keeping_some_positions_shows_no_maps(batch):
    encoder = small(()).encoder.eval()
    keep = torch.ones(2, 3, 2, 2, dtype=torch.bool)
    assert encoder(batch, keep).maps == {}


def test_pretraining_reaches_all_but_the_skips(batch):
    encoder = small(()).encoder.train()
    keep = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.6
    encoder(batch, keep).tokens.square().mean().backward()
    for name, parameter in encoder.named_parameters():
        used = parameter.grad is not None
        assert used is not name.startswith(encoder.dense_only), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"channels": (8, 16)}, "channels .8, 16.: give 4"),
        ({"swin_heads": (3, 6)}, "swin_heads .3, 6.: give 4"),
        ({"swin_width": 40}, "40 channels of stage 1"),
        ({"se_reduction": 32}, "se_reduction 32: must be between 1 and 16"),
    ],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ModelError, match=message) as caught:
        create_model("mgmt_net", **settings)
    assert "\n" not in str(caught.value)
