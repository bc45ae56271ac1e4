"""Losses against slow, obviously right ones."""

import math
from dataclasses import replace

import pytest
import torch

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.reader import OrderConfig, open_reader
from gliomoe.models.registry import create_model
from gliomoe.pretrain.objectives import OBJECTIVES, create_objective
from gliomoe.pretrain.objectives.contrast import info_nce, positives
from gliomoe.pretrain.objectives.decoder import pair_patches, target_patches
from gliomoe.pretrain.objectives.reconstruction import reconstruction_loss
from gliomoe.pretrain.samples.views import StudyViews, collate_pairs, make_views
from gliomoe.pretrain.train import prepare_encoder


@pytest.fixture
def views(config):
    reader = open_reader(config.data.train, OrderConfig(), 0, 1)
    data = StudyViews(reader, config.views, AugmentConfig(), 4, 0)
    return make_views(collate_pairs([data[n] for n in range(4)]), 16, 4, config.mask)


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
    from dataclasses import replace

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
