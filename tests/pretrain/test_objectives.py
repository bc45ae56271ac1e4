"""Losses against slow, obviously right ones."""

import math
from dataclasses import replace

import pytest
import torch

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.reader import OrderConfig, open_reader
from gliomoe.models.registry import create_model
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.build import prepare_encoder
from gliomoe.pretrain.objectives import OBJECTIVES, create_objective
from gliomoe.pretrain.objectives.contrast import info_nce, positives
from gliomoe.pretrain.objectives.decoder import TokenDecoder, pair_patches, target_patches
from gliomoe.pretrain.objectives.jepa import deviation
from gliomoe.pretrain.objectives.reconstruction import reconstruction_loss
from gliomoe.pretrain.objectives.swin_unetr import turn
from gliomoe.pretrain.samples.views import StudyViews, collate_pairs, make_views

OF_STUDIES = [
    ("mae", "reconstruction"),
    ("jepa", "prediction"),
    ("swin_unetr", "inpainting"),
    ("swin_unetr", "rotation"),
]
"""Parts of losses that are means over studies."""


@pytest.fixture
def make(config):
    """The function that makes the views of some samples."""
    reader = open_reader(config.data.train, OrderConfig(), 0, 1)
    data = StudyViews(reader, config.views, AugmentConfig(), 4, 0)

    def make(*numbers, mask=config.mask):
        return make_views(collate_pairs([data[n] for n in numbers]), 16, 4, mask)

    return make


@pytest.fixture
def views(make):
    return make(0, 1, 2, 3)


def objective(config, name="mae+contrast"):
    torch.manual_seed(0)
    model = create_model(config.model.name, **config.model.overrides)
    config = replace(config, loss=replace(config.loss, objective=name))
    return create_objective(prepare_encoder(model.encoder, config), config)


def test_reconstruction_loss_equals_a_loop():
    predicted, target = torch.randn(6, 8), torch.randn(6, 8)
    target[4] = 0  # no tissue: does not count
    study = torch.tensor([0, 2, 0, 2, 0, 2])
    means = []
    for number in (0, 2):
        errors = []
        for row in range(6):
            if study[row] == number and target[row].any():
                values = target[row].double()
                wanted = (values - values.mean()) / math.sqrt(values.var(correction=0) + 1e-6)
                errors.append(((predicted[row] - wanted) ** 2).mean())
        means.append(sum(errors) / len(errors))
    expected = float(sum(means) / 2)
    assert reconstruction_loss(predicted, target, study, 3).item() == pytest.approx(expected)


def test_pairs_are_all_predicted_positions_of_all_sequences(views):
    pairs = pair_patches(views.mask, views.complete)
    targets = target_patches(pairs, views.complete, 4)
    expected = {}
    tokens = views.mask.predict.nonzero().tolist()
    for volume, study in enumerate(views.complete.study.tolist()):
        for token, (owner, d, h, w) in enumerate(tokens):
            if owner == study:
                box = views.complete.voxels[volume, 0, 4 * d :, 4 * h :, 4 * w :][:4, :4, :4]
                expected[token, volume] = box.flatten()
    found = list(zip(pairs.token.tolist(), pairs.volume.tolist(), strict=True))
    assert len(found) == len(set(found)) == len(expected)
    for row, pair in enumerate(found):
        assert torch.equal(targets[row], expected[pair])
    sequence = views.complete.sequence[pairs.volume].tolist()
    assert sequence == [number for number, size in pairs.sequences for _ in range(size)]


def test_seen_positions_are_decoded_from_what_was_seen(config, make):
    found = make(0, 1, 2, 3, mask=replace(config.mask, seen=0.5))
    encoder = objective(config).encoder
    features = encoder(found.visible, found.mask.keep)
    decoder = TokenDecoder(encoder.width, 4, width=64, depth=0)
    decoded = decoder(features, found.mask, found.complete.spacing)
    rows = torch.cat([features.study[:, None], features.position], 1).tolist()
    token_at = {tuple(row): token for row, token in zip(rows, features.tokens, strict=True)}
    places = [tuple(place) for place in found.mask.predict.nonzero().tolist()]
    assert 0 < sum(place in token_at for place in places) < len(places)
    wanted = [
        decoder.enter(token_at[place]) if place in token_at else decoder.masked for place in places
    ]
    assert torch.allclose(decoded, decoder.norm(torch.stack(wanted)), atol=1e-6)


def test_info_nce_equals_equation_8():
    own = torch.nn.functional.normalize(torch.randn(6, 5, dtype=torch.float64), dim=1)
    subject = torch.tensor([7, 8, 7] * 2)  # studies 0 and 2 are sessions of one subject
    logits = info_nce(own, own, subject, 0, 0.1)
    partner = positives(6, 0, own.device)
    found = torch.nn.functional.cross_entropy(logits, partner)
    total = 0.0
    for i in range(6):
        j = (i + 3) % 6
        allowed = [k for k in range(6) if k == j or subject[k] != subject[i]]
        below = sum(math.exp(own[i] @ own[k] / 0.1) for k in allowed)
        total -= math.log(math.exp(own[i] @ own[j] / 0.1) / below)
    assert found.item() == pytest.approx(total / 6)


def test_rows_of_another_rank_are_found_in_the_gathered_ones():
    rows = torch.nn.functional.normalize(torch.randn(8, 5), dim=1)
    subject = torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])
    second = info_nce(rows[4:], rows, subject, 4, 0.1)
    assert positives(4, 4, rows.device).tolist() == [6, 7, 4, 5]
    assert torch.isfinite(second).sum() == 4 * 7  # all but oneself


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_every_weight_but_the_dense_path(name, config, views):
    module = objective(config, name)
    parts = module(views)
    parts["loss"].backward()
    assert all(torch.isfinite(value).all() for value in parts.values())
    without = [
        key
        for key, weight in module.named_parameters()
        if weight.requires_grad and weight.grad is None
    ]
    assert not without
    assert not any(weight.requires_grad for weight in module.encoder.detail.parameters())


def test_hidden_sequences_are_reconstructed_and_masked_content_is_not_seen(config, views):
    module = objective(config)
    before = module(views)["loss"]
    masked = views.mask.masked[views.visible.study]
    for axis in (1, 2, 3):
        masked = masked.repeat_interleave(4, axis)
    views.visible.voxels[masked.unsqueeze(1)] *= -3
    assert torch.equal(module(views)["loss"], before)


def test_a_picture_keeps_what_was_seen(config, views):
    module = objective(config)
    filled = module.picture(views)
    seen = ~views.mask.masked[views.complete.study]
    for axis in (1, 2, 3):
        seen = seen.repeat_interleave(4, axis)
    seen = seen.unsqueeze(1)
    assert torch.equal(filled[seen], views.complete.voxels[seen])
    assert not torch.equal(filled[~seen], views.complete.voxels[~seen])


def test_a_study_without_tissue_does_no_harm(config, views):
    empty = views.mask
    for part in (empty.keep, empty.predict, empty.masked):
        part[0] = False
    parts = objective(config)(replace(views, mask=empty))
    assert torch.isfinite(parts["loss"])
    parts["loss"].backward()


def test_an_unknown_objective_lists_the_known(config):
    with pytest.raises(UsageError, match=r"unknown loss.objective 'mea'; known: mae, contrast"):
        objective(config, "mea")


def test_the_z_loss_counts_by_its_weight(config, views):
    plain = objective(config)(views)
    weighed = objective(replace(config, loss=replace(config.loss, router_z=0.5)))(views)
    assert "router_z" not in plain
    added = weighed["loss"] - plain["loss"]
    torch.testing.assert_close(added, 0.5 * weighed["router_z"], atol=1e-5, rtol=1e-4)
    assert weighed["router_z"] > 0


@pytest.mark.parametrize(("name", "part"), OF_STUDIES)
def test_studies_do_not_know_of_each_other(config, make, name, part):
    module = objective(config, name)
    with torch.no_grad():
        together = module(make(0, 1, 2))[part]
        alone = [module(make(number))[part] for number in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns(config, views, name):
    module = objective(config, name)
    optimizer = torch.optim.AdamW([w for w in module.parameters() if w.requires_grad], lr=1e-3)
    losses = []
    for step in range(12):
        optimizer.zero_grad()
        parts = module(views)
        parts["loss"].backward()
        optimizer.step()
        module.after_step(step)
        losses.append(parts["loss"].item())
    assert losses[-1] < 0.9 * losses[0]
    if name == "jepa":
        assert parts["target_deviation"] > 0.5  # no collapse


def test_patches_of_all_studies_can_weigh_the_same():
    predicted, target = torch.randn(6, 8), torch.randn(6, 8)
    target[4] = 0  # no tissue: does not count
    study = torch.tensor([0, 0, 0, 1, 1, 1])
    settings = {"normalised": False, "by_study": False}
    errors = [(p - t).square().mean() for p, t in zip(predicted, target, strict=True) if t.any()]
    found = reconstruction_loss(predicted, target, study, 2, **settings)
    torch.testing.assert_close(found, sum(errors) / 5)
    found = reconstruction_loss(
        predicted, target, study, 2, distance=torch.nn.functional.l1_loss, **settings
    )
    errors = [(p - t).abs().mean() for p, t in zip(predicted, target, strict=True) if t.any()]
    torch.testing.assert_close(found, sum(errors) / 5)


def test_plain_predictions_fill_a_picture_as_they_are(config, views):
    module = objective(replace(config, loss=replace(config.loss, normalise=False)), "mae")
    with torch.no_grad():
        module.reconstruction.decoder.weight.zero_()
        module.reconstruction.decoder.bias.fill_(0.3)
    masked = enlarge(views.mask.masked)[views.complete.study].unsqueeze(1)
    assert torch.allclose(module.picture(views)[masked], torch.tensor(0.3))


def enlarge(mask):
    """Positions as voxels."""
    for axis in (1, 2, 3):
        mask = mask.repeat_interleave(4, axis)
    return mask


def test_jepa_equals_a_loop(config, views):
    module = objective(config, "jepa")
    with torch.no_grad():
        for weight in module.teacher.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)  # no copy of the encoder any more
        features = module.encoder(views.visible, views.mask.keep)
        tokens = module.predictor(features, views.mask, views.complete.spacing)
        predicted = iter(module.leave(tokens).double())
        everything = module.teacher.module(views.complete)  # all tissue, as in inference
        by_place = {
            (int(study), *place.tolist()): token.double()
            for study, place, token in zip(
                everything.study, everything.position, everything.tokens, strict=True
            )
        }
        means = []
        for study in range(8):
            errors = []
            for place in views.mask.predict[study].nonzero().tolist():
                token = by_place[study, *place]
                target = (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()
                gap = (next(predicted) - target).abs()
                errors.append(torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean())
            means.append(sum(errors) / len(errors))
        found = module(views)["prediction"]
    assert next(predicted, None) is None
    assert found.item() == pytest.approx(float(sum(means) / 8), rel=1e-5)


def test_the_teacher_sees_all_and_teaches_without_gradient(config, views):
    module = objective(config, "jepa")
    before = module.targets(views)
    views.visible.voxels.zero_()  # noise and hidden sequences are not its concern
    assert torch.equal(module.targets(views), before)
    masked = enlarge(views.mask.masked)[views.complete.study].unsqueeze(1)
    views.complete.voxels[masked] *= -3
    assert not torch.allclose(module.targets(views), before)
    module(views)["loss"].backward()
    assert all(weight.grad is None for weight in module.teacher.parameters())


def test_the_teacher_stops_at_the_last_step(config):
    module = objective(config, "jepa")
    (first,) = (w for name, w in module.teacher.named_parameters() if name.endswith("registers"))
    start = first.clone()
    with torch.no_grad():
        module.encoder.registers.add_(1)
    module.after_step(0)
    torch.testing.assert_close(first - start, torch.full_like(start, 1 - 0.996), atol=1e-6, rtol=0)
    half = first.clone()
    module.after_step(config.run.steps // 2)
    torch.testing.assert_close(first - half, 0.002 * (start + 1 - half), atol=1e-6, rtol=1e-4)
    stopped = first.clone()
    module.after_step(config.run.steps)
    assert torch.equal(first, stopped)


def test_a_collapse_is_seen():
    token = torch.randn(64)
    assert deviation(token.repeat(100, 1)) < 1e-2
    assert deviation(torch.randn(4000, 64)) == pytest.approx(1, abs=0.02)
    assert deviation(torch.zeros(0, 64)) == 0


def test_turned_views_are_turned_voxel_by_voxel(views):
    spacing = torch.tensor([1.0, 2.0, 3.0]).repeat(8, 1)
    views = replace(views, complete=replace(views.complete, spacing=spacing))
    assert set(views.turns) == {0, 1, 2, 3}
    found = turn(views)
    last = 16 - 1
    for volume, study in enumerate(views.complete.study.tolist()):
        before, after = views.complete.voxels[volume, 0], found.complete.voxels[volume, 0]
        for d, h in ((0, 0), (3, 5), (12, 7)):
            place = d, h
            for _ in range(views.turns[study]):
                place = last - place[1], place[0]
            assert torch.equal(after[place], before[d, h])
    odd = torch.tensor(views.turns) % 2 == 1
    assert torch.equal(found.complete.spacing[odd], torch.tensor([[2.0, 1.0, 3.0]] * odd.sum()))
    assert torch.equal(found.complete.spacing[~odd], spacing[~odd])


def test_a_turned_mask_fits_the_turned_images(views):
    found = turn(views)
    assert torch.equal(tissue_positions(found.complete, 4), found.mask.keep | found.mask.masked)
    for part in ("keep", "predict", "masked"):
        before, after = getattr(views.mask, part), getattr(found.mask, part)
        hidden = enlarge(before)[views.complete.study].unsqueeze(1)
        turned = enlarge(after)[views.complete.study].unsqueeze(1)
        for study in range(8):
            own = views.complete.study == study
            one = views.complete.voxels[own][hidden[own]].sort().values
            two = found.complete.voxels[own][turned[own]].sort().values
            assert torch.equal(one, two)
    assert not (found.mask.predict & ~found.mask.masked).any()


def test_the_parts_of_swin_unetr_are_weighed(config, views):
    weights = {"reconstruction": 2.0, "rotation": 3.0, "contrast": 5.0, "routing": 7.0}
    config = replace(config, loss=replace(config.loss, **weights))
    module = objective(config, "swin_unetr")
    parts = module(views)
    expected = sum(
        weight * parts["inpainting" if name == "reconstruction" else name]
        for name, weight in weights.items()
    )
    torch.testing.assert_close(parts["loss"], expected)
    turned = turn(views)
    pooled = module.encoder(turned.visible, turned.mask.keep).pooled
    logits = module.rotation(pooled).double()
    chances = [logits[row].softmax(0)[count].log() for row, count in enumerate(views.turns)]
    assert parts["rotation"].item() == pytest.approx(-float(sum(chances) / 8), rel=1e-5)
    right = [int(logits[row].argmax()) == count for row, count in enumerate(views.turns)]
    assert parts["rotation_accuracy"].item() == sum(right) / 8
