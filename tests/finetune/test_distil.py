"""The teacher's part of the loss: against its formulas, at agreement, where nothing is told."""

import math

import pytest
import torch

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.distil import (
    Answers,
    DistilConfig,
    ask,
    distil_losses,
    marker_divergence,
    region_divergence,
)
from gliomoe.finetune.losses import LossConfig
from gliomoe.models.features import Features, Predictions
from gliomoe.models.registry import create_model

TINY = {"patch_size": 4, "width": 24, "depth": 2, "heads": 2, "hidden": 32, "experts": 2}


def predictions_of(seg: torch.Tensor | None, **markers: torch.Tensor) -> Predictions:
    none = torch.zeros(0)
    return Predictions(seg, markers, Features(torch.zeros(2, 1), none, none, none))


def test_regions_diverge_by_voxel_and_region():
    torch.manual_seed(0)
    logits, wanted = 3 * torch.randn(2, 3, 2, 3, 4), torch.rand(2, 3, 2, 3, 4)
    wanted[0, 0, 0, 0, :2] = torch.tensor([0.0, 1.0])  # a teacher that is sure
    expected = 0.0
    for z, p in zip(logits.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        q = 1 / (1 + math.exp(-z))
        expected += sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a)
    assert region_divergence(logits, wanted).item() == pytest.approx(expected / 144, rel=1e-5)
    assert region_divergence(torch.logit(wanted[1]), wanted[1]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_markers_diverge_as_in_hinton_2015(classes, temperature):
    torch.manual_seed(1)
    student, teacher = torch.randn(4, classes), 2 * torch.randn(4, classes)

    def softened(logits: list[float]) -> list[float]:
        full = [0.0, *logits] if classes == 1 else logits
        powers = [math.exp(z / temperature) for z in full]
        return [power / sum(powers) for power in powers]

    expected = 0.0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(softened(theirs), softened(ours), strict=True)
        expected += temperature**2 * sum(p * math.log(p / q) for p, q in pairs) / 4
    wanted = teacher.sigmoid() if classes == 1 else teacher.softmax(1)
    assert marker_divergence(student, wanted, temperature).item() == pytest.approx(expected, 1e-4)
    same = student.sigmoid() if classes == 1 else student.softmax(1)
    assert marker_divergence(student, same, temperature).item() == pytest.approx(0, abs=1e-6)


def test_a_sure_teacher_gives_finite_gradients():
    logits = torch.tensor([[40.0], [-40.0]], requires_grad=True)
    marker_divergence(logits, torch.tensor([[0.0], [1.0]]), 2.0).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad[0] > 0 > logits.grad[1]


def test_parts_add_up_and_agreement_costs_nothing():
    torch.manual_seed(2)
    seg, idh, grade = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 1), torch.randn(2, 3)
    wanted = Answers(
        torch.rand(2, 3, 4, 4, 4), {"idh": torch.rand(2, 1), "grade": grade.softmax(1)}
    )
    config, weights = DistilConfig(temperature=3.0), LossConfig(cross_entropy=0.7, markers=0.4)
    parts = distil_losses(predictions_of(seg, idh=idh, grade=grade), wanted, config, weights)
    expected = parts["distil_dice"] + 0.7 * parts["distil_kl"] + 0.2 * parts["distil_idh"]
    assert parts["distil"].item() == pytest.approx((expected + 0.2 * parts["distil_grade"]).item())
    agreed = Answers(seg.sigmoid(), {"idh": idh.sigmoid(), "grade": grade.softmax(1)})
    parts = distil_losses(predictions_of(seg, idh=idh, grade=grade), agreed, config, weights)
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in parts.values())


def test_soft_answers_are_the_optimum():
    wanted = torch.full((2, 3, 2, 2, 2), 0.3)
    seg = torch.zeros_like(wanted, requires_grad=True)
    answers, weights = Answers(wanted, {}), LossConfig()
    optimizer = torch.optim.Adam([seg], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        distil_losses(predictions_of(seg), answers, DistilConfig(), weights)["distil"].backward()
        optimizer.step()
    torch.testing.assert_close(seg.sigmoid().detach(), wanted, atol=1e-3, rtol=0)


def test_markers_are_told_where_the_teacher_sees_tumour():
    idh = torch.zeros(2, 1, requires_grad=True)
    regions = torch.zeros(2, 3, 2, 2, 2)
    told = {"idh": torch.tensor([[0.9], [0.9]])}
    config, weights = DistilConfig(), LossConfig()

    def gradient(answers: Answers) -> list[bool]:
        idh.grad = None
        distil_losses(predictions_of(None, idh=idh), answers, config, weights)["distil"].backward()
        return idh.grad.ne(0).flatten().tolist()

    assert gradient(Answers(None, told)) == [True, True]  # a teacher that does not segment
    assert gradient(Answers(regions, told)) == [False, False]
    regions[1, 2, 0, 0, 0] = 0.6
    assert gradient(Answers(regions, told)) == [False, True]


def test_an_ensemble_answers_with_its_mean_and_no_graph(ball_shards):
    torch.manual_seed(3)
    tasks = ("seg", "idh", "grade")
    members = [create_model("gliomoe_tiny", tasks, **TINY).eval() for _ in range(2)]
    shards = ShardSet.open(ball_shards(range(2)))
    batch = collate([shards.read(i, (2, 2, 2), (16, 16, 16)) for i in range(2)])
    state = torch.get_rng_state()
    answers = ask(members, batch)
    assert torch.equal(torch.get_rng_state(), state)  # a student's draws stay as they are
    first, second = (ask([member], batch) for member in members)
    torch.testing.assert_close(answers.regions, (first.regions + second.regions) / 2)
    for task in ("idh", "grade"):
        mean = (first.markers[task] + second.markers[task]) / 2
        torch.testing.assert_close(answers.markers[task], mean)
    assert not answers.regions.requires_grad
    with torch.no_grad():
        seg = members[0](batch).seg
    torch.testing.assert_close(first.regions, seg.sigmoid())
