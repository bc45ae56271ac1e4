"""MTS-UNET is MONAI's SwinUNETR with heads of its own."""

import pytest
import torch
import torch.nn.functional as F

from gliomoe.models import create_model
from gliomoe.models.blocks.intensity import centred
from gliomoe.models.errors import ModelError
from gliomoe.models.heads.regions import region_logits
from gliomoe.models.heads.swin_unetr import from_swin_unetr
from gliomoe.models.registry import parameter_counts

TASKS = ("seg", "idh", "1p19q", "grade")
SMALL = {
    "feature_size": 12,
    "heads": (1, 2, 2, 4),
    "window": 3,
    "tafe_width": 16,
    "cmd_channels": 2,
    "dropout": 0.0,
}
FOUR = (0, 1, 2, 3)


def small(tasks=TASKS, **settings):
    torch.manual_seed(0)
    return create_model("mts_unet", tasks, **{**SMALL, **settings})


@pytest.mark.parametrize(("cmd", "published"), [(True, 124e6), (False, 62e6)])
def test_sizes_of_the_paper(cmd, published):
    with torch.device("meta"):
        total, _ = parameter_counts(create_model("mts_unet", TASKS, cmd=cmd))
    assert abs(total / published - 1) < 0.01


def test_the_weights_of_swin_unetr_give_its_map(make_batch):
    from monai.networks.nets import SwinUNETR

    torch.manual_seed(1)
    theirs = SwinUNETR(
        in_channels=4, out_channels=4, feature_size=12, num_heads=(1, 2, 2, 4), window_size=3
    ).eval()
    ours = small(("seg",)).eval()
    missing, unexpected = ours.load_state_dict(from_swin_unetr(theirs.state_dict()), strict=False)
    assert not unexpected
    assert [name.split(".")[2] for name in missing] == ["out", "out"]
    ours.heads["seg"].out.load_state_dict(theirs.out.state_dict())
    batch = make_batch([FOUR, (3, 1, 0, 2)], (64, 32, 32))
    order = [0, 1, 2, 3, 6, 5, 7, 4]
    stacked = centred(batch.voxels[order].view(2, 4, 64, 32, 32))
    with torch.no_grad():
        prediction, levels = ours(batch), theirs.swinViT(stacked)
        for level, expected in zip(prediction.features.pyramid[1:], levels, strict=True):
            torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(prediction.classes, theirs(stacked), atol=1e-4, rtol=1e-3)


def test_regions_are_sums_of_classes(make_batch):
    prediction = small().eval()(make_batch([FOUR, FOUR]))
    assert prediction.classes.shape == (2, 4, 16, 12, 20)
    share = F.softmax(prediction.classes, 1)
    whole = prediction.seg.sigmoid()[:, 2]
    torch.testing.assert_close(whole, share[:, 1:].sum(1))
    assert torch.equal(prediction.seg, region_logits(prediction.classes))


def test_map_of_the_mismatch_in_evaluation_only(make_batch):
    model, batch = small(), make_batch([FOUR])
    assert not model.train()(batch).maps
    attention = model.eval()(batch).maps["mismatch"]
    assert attention.shape == (1, 1, 16, 12, 20)
    assert 0 <= attention.min() < attention.max() <= 1
    assert not small(cmd=False).eval()(batch).maps


def test_heads_of_the_asked_tasks_only():
    assert set(small(("seg",)).heads) == {"seg"}
    assert set(small(("grade",)).heads) == {"tafe", "markers"}
    assert set(small(("idh",), cmd=False).heads) == {"tafe", "markers"}
    assert {"cmd", "dsf"} <= set(small(("idh",)).heads)
    assert not small(()).heads


def test_the_tumour_gates_the_mismatch(make_batch):
    model, batch = small().eval(), make_batch([FOUR])
    before = model(batch).markers
    bias = model.heads["seg"].out.conv.conv.bias
    with torch.no_grad():
        bias[3] += 3
    after = model(batch).markers
    assert (after["idh"] - before["idh"]).abs() > 1e-6
    assert torch.equal(after["grade"], before["grade"])


def test_markers_do_not_bend_the_segmentation(make_batch):
    model = small()
    model(make_batch([FOUR])).markers["idh"].sum().backward()
    assert all(p.grad is None for p in model.heads["seg"].parameters())


@pytest.mark.parametrize("patch_size", [8, 16, 32])
def test_pretraining_trains_what_it_does_not_freeze(make_batch, patch_size):
    encoder = small((), patch_size=patch_size).encoder
    for name in encoder.dense_only:
        encoder.get_submodule(name).requires_grad_(False)
    batch = make_batch([FOUR, FOUR], (48, 40, 36))
    grid = [-(-side // patch_size) for side in (48, 40, 36)]
    keep = torch.rand(2, *grid, generator=torch.Generator().manual_seed(0)) < 0.7
    encoder(batch, keep).tokens.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.0}, "gamma 1.0"),
        ({"tafe_stages": 5}, "tafe_stages 5"),
        ({"patch_size": 12}, "patch_size 12"),
        ({"min_gate": 2.0}, "min_gate 2.0"),
        ({"feature_size": 10, "heads": (4, 2, 2, 4)}, "heads 4 of stage 1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ModelError, match=message):
        small(**settings)
