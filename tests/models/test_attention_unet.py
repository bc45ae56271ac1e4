"""The attention U-Net and Monte Carlo dropout, beyond what every registered model is tested for."""

from dataclasses import replace

import pytest
import torch

from gliomoe.models import create_model
from gliomoe.models.errors import ModelError
from gliomoe.models.registry import parameter_counts
from gliomoe.models.uncertainty import mc_dropout

TASKS = ("seg", "grade")


def small(tasks=TASKS, **overrides):
    torch.manual_seed(0)
    settings = {"channels": (4, 6, 8), "grade_hidden": 8, **overrides}
    return create_model("attention_unet", tasks, **settings)


@pytest.fixture
def batch(make_batch):
    return make_batch([(0, 1, 2, 3), (3, 2, 1, 0)], sides=(18, 16, 12))


def test_size():
    with torch.device("meta"):
        total, _ = parameter_counts(create_model("attention_unet", TASKS))
    assert 6e6 < total < 7e6


def test_gates_are_for_reports(batch):
    model = small()
    assert model.train()(batch).maps == {}
    assert {name: tuple(x.shape) for name, x in model.eval()(batch).maps.items()} == {
        "gate_0": (2, 1, 18, 16, 12),
        "gate_1": (2, 1, 9, 8, 6),
    }


def test_the_grade_looks_at_the_decoder_and_at_the_encoder(batch):
    model = small().eval()
    features = model.encoder(batch)
    _, decoded, _ = model.heads["seg"](features.pyramid)
    tumour = torch.rand(2, 1, 18, 16, 12)
    grade = model.heads["grade"](features.pyramid[-1], decoded, tumour)
    for level in range(2):
        others = [x.flip(2) if i == level else x for i, x in enumerate(decoded)]
        changed = model.heads["grade"](features.pyramid[-1], others, tumour)
        assert (grade - changed).abs().max() > 0, level
    assert (model.heads["grade"](features.pyramid[-1] + 1, decoded, tumour) != grade).any()


def test_grade_does_not_bend_the_mask_but_the_features_under_it(batch):
    model = small().train()
    model(batch).markers["grade"].sum().backward()
    segments = model.heads["seg"]
    assert segments.logits.weight.grad is None
    assert segments.decoder.blocks[0].refine.weight.grad.any()


def test_without_segmentation_the_grade_comes_of_the_encoder(batch):
    prediction = small(("grade",)).eval()(batch)
    assert prediction.seg is None
    assert prediction.markers["grade"].shape == (2, 3)


@pytest.mark.parametrize("level", [0, 2])
def test_class_activation_maps_can_be_drawn(batch, level):
    prediction = small().eval()(batch)
    features = prediction.features.pyramid[level]
    (slope,) = torch.autograd.grad(prediction.markers["grade"][:, 2].sum(), features)
    cam = (slope.mean((2, 3, 4), keepdim=True) * features).sum(1).relu()
    assert cam.shape[1:] == features.shape[2:]
    assert slope.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"norm": "layer"}, "unknown norm 'layer'"), ({"channels": (8,)}, "at least two levels")],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ModelError, match=message) as caught:
        create_model("attention_unet", **settings)
    assert "\n" not in str(caught.value)


def test_draws_of_dropout_differ_and_nothing_else_changes(batch):
    model = small().eval()
    # Normalised by their own statistics, brighter studies would look like the usual ones.
    bright = replace(batch, voxels=batch.voxels * 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    usual = model(bright)
    with torch.no_grad(), mc_dropout(model):
        draws = [model(bright) for _ in range(3)]
        assert not model.training
        assert not model.encoder.stages[0].enter[1].training
    assert not torch.equal(draws[0].seg, draws[1].seg)
    assert not torch.equal(draws[0].markers["grade"], draws[1].markers["grade"])
    assert draws[0].maps
    again = model(bright)
    assert torch.equal(usual.seg, again.seg)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_modes_are_restored_after_an_error():
    model = small().eval()
    model.heads["grade"].classify[1].train()
    modes = [part.training for part in model.modules()]
    with pytest.raises(RuntimeError, match="stop"), mc_dropout(model):
        raise RuntimeError("stop")
    assert [part.training for part in model.modules()] == modes


def test_a_model_without_dropout_says_so():
    model = small(dropout=0.0, grade_dropout=0.0)
    with pytest.raises(ModelError, match="no dropout layer"), mc_dropout(model):
        pass
