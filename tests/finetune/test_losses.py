"""Losses against their formulas, and unknown labels without any gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.labels import to_regions
from gliomoe.finetune.losses import (
    LossConfig,
    class_loss,
    dice_loss,
    focal_loss,
    losses,
    marker_loss,
    prevalence_weights,
    region_entropy,
    segmentation_losses,
)
from gliomoe.models.features import Features, Predictions, Routing
from gliomoe.models.heads.activation import probabilities

NAN = float("nan")


def test_dice_is_magpie_eq_12():
    torch.manual_seed(0)
    p, g = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 3, 4, 5, 6) > 0.7
    expected = 0.0
    for c in range(3):
        pc, gc = p[:, c].flatten().tolist(), g[:, c].flatten().tolist()
        overlap = sum(a * b for a, b in zip(pc, gc, strict=True))
        size = sum(a * a for a in pc) + sum(b * b for b in gc)
        expected += 2 * overlap / (size + 1e-5) / 3
    assert dice_loss(p, g).item() == pytest.approx(1 - expected, abs=1e-5)
    assert dice_loss(g.float(), g).item() == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(dice_loss(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 3, 2, 2, 2)))


def test_binary_marker_loss_is_weighted_bce():
    logits = torch.tensor([[0.3], [-1.2], [2.0]])
    targets = torch.tensor([1.0, 0.0, 0.0])
    assert marker_loss(logits, targets).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits[:, 0], targets).item()
    )
    weights = torch.tensor([0.75, 1.5])
    each = F.binary_cross_entropy_with_logits(logits[:, 0], targets, reduction="none")
    by_case = weights[targets.long()]
    assert marker_loss(logits, targets, weights).item() == pytest.approx(
        ((each * by_case).sum() / by_case.sum()).item()
    )
    smooth = F.binary_cross_entropy_with_logits(logits[:, 0], targets * 0.9 + 0.05)
    assert marker_loss(logits, targets, smoothing=0.1).item() == pytest.approx(smooth.item())


def test_grade_targets_are_who_grades():
    logits = torch.randn(3, 3)
    loss = marker_loss(logits, torch.tensor([2.0, 4.0, 3.0]))
    assert loss.item() == pytest.approx(F.cross_entropy(logits, torch.tensor([0, 2, 1])).item())


def test_unknown_labels_have_no_gradient():
    logits = torch.randn(3, 1, requires_grad=True)
    marker_loss(logits, torch.tensor([1.0, NAN, 0.0])).backward()
    assert logits.grad[1] == 0 and logits.grad[[0, 2]].ne(0).all()
    logits.grad = None
    loss = marker_loss(logits, torch.full((3,), NAN))
    loss.backward()
    assert loss.item() == 0 and logits.grad.eq(0).all()


def test_prevalence_weights():
    weights = prevalence_weights({0.0: 12, 1.0: 4}, "idh")
    assert weights.tolist() == pytest.approx([16 / 24, 16 / 8])
    assert (weights * torch.tensor([12, 4])).sum() == pytest.approx(16)
    assert prevalence_weights({1.0: 4}, "idh").tolist() == [1, 1]
    assert prevalence_weights({}, "idh").tolist() == [1, 1]
    assert prevalence_weights({2.0: 1, 4.0: 3}, "grade").tolist() == pytest.approx([2, 1, 2 / 3])


def scene(seg_targets, idh, seg):
    batch = StudyBatch(
        voxels=torch.ones(2, 1, 4, 4, 4),
        sequence=torch.zeros(2, dtype=torch.long),
        study=torch.arange(2),
        spacing=torch.ones(2, 3),
        seg=seg,
        targets={"seg": torch.tensor(seg_targets), "idh": torch.tensor(idh)},
    )
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    marker = torch.randn(2, 1, requires_grad=True)
    routing = Routing(
        layer="moe",
        probabilities=torch.full((6, 2), 0.5),
        choice=torch.tensor([[0], [1]] * 3),
        logits=torch.zeros(6, 2),
        study=torch.zeros(6, dtype=torch.long),
        position=torch.zeros(6, 3, dtype=torch.long),
        patch_size=8,
    )
    empty = torch.zeros(0, 3)
    features = Features(torch.zeros(2, 8), empty, empty[:, 0].long(), empty.long(), [], [routing])
    return batch, Predictions(logits, {"idh": marker}, features), logits, marker


def test_parts_add_up_and_masks_hold():
    seg = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    seg[0, :2] = 3
    batch, predictions, logits, marker = scene([1.0, NAN], [NAN, 1.0], seg)
    config = LossConfig(cross_entropy=0.5, markers=0.25, routing=0.01)
    parts = losses(predictions, batch, config, {"idh": torch.ones(2)})
    assert set(parts) == {"dice", "ce", "idh", "routing", "total"}
    total = parts["dice"] + 0.5 * parts["ce"] + 0.25 * parts["idh"] + 0.01 * parts["routing"]
    assert parts["total"].item() == pytest.approx(total.item())
    parts["total"].backward()
    assert logits.grad[0].ne(0).any() and logits.grad[1].eq(0).all()
    assert marker.grad[0] == 0 and marker.grad[1] != 0


def test_crops_without_tumour_say_nothing_about_markers():
    seg = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    seg[1, 0] = 1
    batch, predictions, _, marker = scene([1.0, 1.0], [1.0, 1.0], seg)
    losses(predictions, batch, LossConfig(), {"idh": torch.ones(2)})["total"].backward()
    assert marker.grad[0] == 0 and marker.grad[1] != 0


def prediction(seg, **more):
    empty = torch.zeros(0, 3)
    features = Features(torch.zeros(2, 8), empty, empty[:, 0].long(), empty.long())
    return Predictions(seg, {}, features, **more)


def test_classes_have_a_cross_entropy_of_classes():
    torch.manual_seed(0)
    classes, seg = torch.randn(2, 5, 4, 4, 4), torch.randint(0, 5, (2, 4, 4, 4))
    regions = torch.randn(2, 3, 4, 4, 4)
    labelled = torch.tensor([False, True])
    overlap, entropy = segmentation_losses(prediction(regions, classes=classes), seg, labelled)
    assert entropy.item() == pytest.approx(F.cross_entropy(classes[1:], seg[1:]).item())
    wanted = dice_loss(regions[1:].sigmoid(), to_regions(seg[1:]))
    assert overlap.item() == pytest.approx(wanted.item())


def test_a_label_without_a_class_is_refused():
    seg = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    seg[0, 0, 0, 0] = 4
    with pytest.raises(UsageError, match="label 4, the model tells 0 to 3 apart"):
        class_loss(torch.zeros(1, 4, 4, 4, 4), seg)


def test_coarser_outputs_count_half_as_much_with_each_level():
    torch.manual_seed(0)
    seg = torch.randint(0, 4, (2, 4, 4, 4)).repeat_interleave(4, 1)
    seg = seg.repeat_interleave(4, 2).repeat_interleave(4, 3)  # blocks of 4³ survive two halvings
    outputs = [torch.randn(2, 3, side, side, side) for side in (16, 8, 4)]
    everyone = torch.tensor([True, True])
    overlap, entropy = segmentation_losses(
        prediction(outputs[0], deep=tuple(outputs[1:])), seg, everyone
    )
    wanted = torch.zeros(2)
    for level, output in enumerate(outputs):
        truth = to_regions(seg[:, :: 2**level, :: 2**level, :: 2**level]).float()
        both = [
            dice_loss(output.sigmoid(), truth),
            F.binary_cross_entropy_with_logits(output, truth),
        ]
        wanted += torch.stack(both) * 0.5**level / 1.75
    torch.testing.assert_close(torch.stack([overlap, entropy]), wanted)


def test_entmax_loss_pulls_by_probability_minus_truth():
    logits = torch.tensor([[1.0, 0.2, -3.0], [0.0, 0.5, 0.3]], requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 1.0])
    marker_loss(logits, torch.tensor([2.0, 3.0]), weights, activation="entmax15").backward()
    shares = probabilities(logits.detach(), "entmax15")
    truth = torch.eye(3)[[0, 1]]
    torch.testing.assert_close(logits.grad, (shares - truth) * torch.tensor([[1.0], [2.0]]) / 3)


def test_focal_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # p = (1/4, 3/4), (1/2, 1/2)
    classes, weights = torch.tensor([1, 0]), torch.tensor([2.0, 1.0])
    one, two = 0.25**2 * -math.log(0.75), 0.5**2 * math.log(2)
    assert focal_loss(logits, classes, 2.0).item() == pytest.approx((one + two) / 2)
    weighted = focal_loss(logits, classes, 2.0, weights).item()
    assert weighted == pytest.approx((one + 2 * two) / 3)
    marker = marker_loss(torch.tensor([[math.log(3)]]), torch.tensor([1.0]), gamma=2.0)
    assert marker.item() == pytest.approx(one)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_without_gamma_is_cross_entropy(smoothing):
    torch.manual_seed(0)
    logits, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weights = torch.tensor([0.5, 1.0, 3.0])
    torch.testing.assert_close(
        focal_loss(logits, classes, 0.0, weights, smoothing),
        F.cross_entropy(logits, classes, weights, label_smoothing=smoothing),
    )
    voxels, seg = torch.randn(2, 4, 3, 3, 3), torch.randint(0, 4, (2, 3, 3, 3))
    torch.testing.assert_close(focal_loss(voxels, seg, 0.0), F.cross_entropy(voxels, seg))


def test_focal_loss_of_regions():
    logits = torch.tensor([math.log(3), math.log(3), 0.0]).view(1, 3, 1, 1, 1)
    truth = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1, 1)
    terms = [0.25**2 * -math.log(0.75), 0.75**2 * -math.log(0.25), 0.5**2 * math.log(2)]
    assert region_entropy(logits, truth, 2.0).item() == pytest.approx(sum(terms) / 3)


def test_focal_options_reach_the_total():
    seg = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    seg[:, :2] = 3
    batch, predictions, logits, marker = scene([1.0, 1.0], [0.0, 1.0], seg)
    config = LossConfig(focal_markers=2.0, focal_voxels=1.5, label_smoothing=0.0)
    parts = losses(predictions, batch, config, {"idh": torch.ones(2)})
    assert parts["ce"].item() == pytest.approx(
        region_entropy(logits, to_regions(seg).float(), 1.5).item()
    )
    pair = torch.cat([torch.zeros(2, 1), marker], 1)
    assert parts["idh"].item() == pytest.approx(focal_loss(pair, torch.tensor([0, 1]), 2.0).item())


def test_an_exponent_below_one_is_refused():
    with pytest.raises(ValueError, match="must be 0, or at least 1"):
        LossConfig(focal_markers=0.5)
