"""Every family learns: two phantoms by heart, compiled as well as not."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from gliomoe.data_shards.batch import StudyBatch, StudySample, collate
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.labels import to_canonical, to_regions
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.subject import Subject, draw_subject, render
from gliomoe.finetune.losses import GRADES, LossConfig, losses
from gliomoe.finetune.metrics.segmentation import dice
from gliomoe.models.features import Predictions
from gliomoe.models.heads.activation import class_logits
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.build import prepare_encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives import create_objective
from gliomoe.pretrain.samples.masking import apply_scores
from gliomoe.pretrain.samples.views import Views
from gliomoe.pretrain.sections import DataConfig, MaskConfig, ModelConfig, RunConfig, ViewConfig


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


COHORT = CohortConfig(subjects=100, spacing=5.0, seed=3)
SIDE = 24
MOST_STEPS = 300
LEARNING_RATE = 5e-3
POSITIVE = ("mutant", "codeleted")


def targets(subject: Subject) -> dict[str, float]:
    """Case labels as fine-tuning has them."""
    told = {task: float(subject.labels[task] in POSITIVE) for task in ("idh", "1p19q", "tert")}
    grade = float(subject.labels["grade"])
    return {"seg": 1.0, "grade": grade, "hgg": float(grade > 2), **told}


def two_unlike_subjects() -> tuple[Subject, Subject]:
    """An oligodendroglioma, and a glioma that differs from it in every label."""
    drawn = [draw_subject(COHORT, number) for number in range(1, COHORT.subjects + 1)]
    first = next(s for s in drawn if targets(s)["1p19q"])
    for other in drawn:
        if all(targets(first)[task] != targets(other)[task] for task in ("idh", "1p19q", "grade")):
            return first, other
    raise AssertionError("no such pair in the cohort")


@pytest.fixture(scope="session")
def two_phantoms() -> StudyBatch:
    """Crops of 24³ around the tumours of two phantoms of 5 mm, whose labels differ."""
    samples = []
    for subject in two_unlike_subjects():
        images = render(COHORT, subject)
        seg = to_canonical(images.seg.voxels, COHORT.convention)
        crop = tuple(
            slice(start, start + SIDE)
            for start in (
                min(max(0, int(where.mean()) - SIDE // 2), side - SIDE)
                for where, side in zip(seg.nonzero(), seg.shape, strict=True)
            )
        )
        volumes = [torch.from_numpy(image.voxels[crop]).float() for image in images.series.values()]
        samples.append(
            StudySample(
                key=str(subject.number),
                voxels=torch.stack([v / v[v > 0].quantile(0.99) for v in volumes]),
                sequence=torch.arange(len(volumes)),
                spacing=torch.full((3,), COHORT.spacing),
                seg=torch.from_numpy(seg[crop]),
                targets=targets(subject),
            )
        )
    return collate(samples)


def scores(prediction: Predictions, batch: StudyBatch) -> dict[str, float]:
    """Mean Dice of the study that is worse, and the share of right answers by task."""
    found = {}
    if prediction.seg is not None:
        truth = to_regions(batch.seg)
        found["seg"] = min(
            sum(float(dice(p, t)) for p, t in zip(mask, wanted, strict=True)) / len(wanted)
            for mask, wanted in zip(prediction.seg > 0, truth, strict=True)
        )
    for task, logits in prediction.markers.items():
        answer = class_logits(logits).argmax(1)
        wanted = batch.targets[task]
        if task == "grade":
            wanted = torch.bucketize(wanted, torch.tensor(GRADES))
        found[task] = float((answer == wanted).float().mean())
    return found


def test_two_phantoms_are_learned_by_heart(case, two_phantoms):
    batch = case.with_genes(two_phantoms)
    model = case.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    weights = {task: torch.ones(3 if task == "grade" else 2) for task in case.tasks}
    torch.manual_seed(0)
    for step in count(1):
        parts = losses(model.train()(batch), batch, LossConfig(), weights)
        optimizer.zero_grad()
        parts["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                found = scores(model.eval()(batch), batch)
            learned = all(v > (0.9 if task == "seg" else 0.99) for task, v in found.items())
            if learned:
                break
            assert step < MOST_STEPS, f"after {step} steps: {found}"


@pytest.mark.parametrize("name", ["mae+contrast", "jepa", "swin_unetr"])
def test_masked_pretraining_trains_the_encoder(case, name):
    encoder = case.bare.encoder.train()
    side = max(32, 2 * encoder.patch_size)  # some positions to see, some to predict
    batch = case.batch(sides=(side,) * 3)
    batch.voxels.requires_grad_()
    model = ModelConfig(case.name, decoder_width=64, decoder_depth=1)
    config = PretrainConfig(DataConfig(("nowhere",)), RunConfig(Path("nowhere")), model)
    with pytest.raises(UsageError, match="hide False") if encoder.sequences else nullcontext():
        prepare_encoder(encoder, config)
    views, loss = ViewConfig(size=side, shift=0, hide=False), replace(config.loss, objective=name)
    config = replace(config, views=views, loss=loss)
    objective = create_objective(prepare_encoder(encoder, config), config)
    tissue = tissue_positions(batch, encoder.patch_size)
    scores = torch.rand(tissue.shape, generator=torch.Generator().manual_seed(0))
    mask = apply_scores(tissue, scores, MaskConfig(ratio=0.5))
    parts = objective(Views(batch, batch, mask, torch.tensor([0]), turns=(0, 1)))
    assert parts["loss"].isfinite()
    parts["loss"].backward()
    assert batch.voxels.grad.any()  # all the way from the loss to the images


@pytest.mark.slow
def test_compiled_gives_the_same(case):
    # The code generator takes minutes of a compiler; what it is given is what a model can spoil.
    # tests/benchmarks/compiled.py runs all of it.
    torch._dynamo.reset()
    model, batch = case.model().eval(), case.batch(sides=(16, 16, 16))
    some, same = model(batch), torch.compile(model, backend="aot_eager")(batch)
    close(some.features.tokens, same.features.tokens)
    if some.seg is not None:
        close(some.seg, same.seg)
    for task in some.markers:
        close(some.markers[task], same.markers[task])
    same.features.pooled.sum().backward()
    assert any(p.grad is not None for p in model.encoder.parameters())
