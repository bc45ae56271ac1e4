"""Channel-agnostic models: any number of any sequences in any order."""

from dataclasses import replace

import pytest
import torch

from gliomoe.models.errors import ModelError
from gliomoe.models.model import TASKS
from gliomoe.models.stem import OTHER


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def test_order_of_volumes_means_nothing(make_model, make_batch):
    model, batch = make_model(TASKS), make_batch([(0, 1, 2, 3), (2,)])
    order = torch.tensor([2, 0, 3, 1, 4])
    shuffled = replace(batch, voxels=batch.voxels[order], sequence=batch.sequence[order])
    a, b = model(batch), model(shuffled)
    close(a.seg, b.seg)
    close(a.features.tokens, b.features.tokens)
    close(a.markers["grade"], b.markers["grade"])


def test_exchanged_contents_change_the_features(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch([(0, 3)])
    exchanged = replace(batch, voxels=batch.voxels.flip(0))
    a, b = encoder(batch), encoder(exchanged)
    assert (a.tokens - b.tokens).abs().mean() > 0.01 * a.tokens.abs().mean()
    assert (a.pyramid[0] - b.pyramid[0]).abs().mean() > 0.01 * a.pyramid[0].abs().mean()


def test_a_volume_given_twice_counts_once(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch([(1,)])
    twice = replace(
        batch,
        voxels=batch.voxels.repeat(2, 1, 1, 1, 1),
        sequence=batch.sequence.repeat(2),
        study=batch.study.repeat(2),
    )
    close(encoder(batch).tokens, encoder(twice).tokens)


def test_every_set_of_sequences_runs(make_model, make_batch):
    model = make_model(TASKS)
    for present in [(9,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]:
        assert model(make_batch([present])).seg.isfinite().all()


def test_a_number_outside_the_table_is_other(make_model, make_batch):
    encoder, batch = make_model().encoder, make_batch([(OTHER,)])
    unknown = replace(batch, sequence=torch.tensor([77]))
    assert torch.equal(encoder(batch).tokens, encoder(unknown).tokens)


def test_a_study_without_any_sequence_is_named(make_model, make_batch):
    batch = make_batch([(0, 1), (3,)])
    first = batch.study == 0
    lacking = replace(
        batch, voxels=batch.voxels[first], sequence=batch.sequence[first], study=batch.study[first]
    )
    with pytest.raises(ModelError, match="study number 1 of the batch has no sequence"):
        make_model()(lacking)
