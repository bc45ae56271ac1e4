"""Sequences by name against a loop; what is missing is said in one line."""

import pytest
import torch

from gliomoe.models.errors import ModelError
from gliomoe.models.selection import FOUR, select_sequences
from gliomoe.models.stem import SEQUENCES


def test_channels_are_the_named_volumes(make_batch):
    batch = make_batch([(3, 0, 8, 1, 2), (2, 1, 0, 3, 0)], sides=(4, 3, 5))
    chosen = select_sequences(batch, FOUR, "net")
    assert chosen.shape == (2, 4, 4, 3, 5)
    for study in (0, 1):
        for channel, name in enumerate(FOUR):
            here = (batch.study == study) & (batch.sequence == SEQUENCES.index(name))
            first = batch.voxels[here][0, 0]  # of two T1 the first counts
            assert torch.equal(chosen[study, channel], first)


def test_a_study_that_lacks_sequences_is_named(make_batch):
    batch = make_batch([(0, 1, 2, 3), (0, 2)])
    with pytest.raises(ModelError, match="net needs t1, t1ce, t2, flair; study s1 lacks t1ce, fl"):
        select_sequences(batch, FOUR, "net")
