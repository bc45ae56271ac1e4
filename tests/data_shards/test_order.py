"""Every epoch is a permutation, and a pure function of its number."""

from collections import Counter

import pytest

from gliomoe.data_shards.order import seed_for, study_at


@pytest.mark.parametrize("studies", [1, 2, 3, 16, 17, 100, 1025])
def test_each_epoch_visits_each_study_once(studies):
    epochs = [[study_at(e * studies + i, studies, 7) for i in range(studies)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(studies))
    if studies > 16:
        assert len({tuple(epoch) for epoch in epochs}) == 3


def test_positions_are_spread():
    first = Counter(study_at(0, 8, seed) for seed in range(4000))
    assert set(first) == set(range(8))
    assert all(400 < count < 600 for count in first.values())


def test_orders_are_fixed_for_ever():
    assert [study_at(n, 10, 0) for n in range(12)] == [0, 3, 5, 2, 4, 9, 1, 6, 8, 7, 1, 7]
    assert seed_for(1, "mask", 5) == 8067850118444151038


def test_streams_differ():
    seeds = {seed_for(s, *stream) for s in (0, 1) for stream in [(), ("a",), ("a", 1), ("a", "1")]}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("n", "studies"), [(-1, 3), (0, 0)])
def test_impossible_samples(n, studies):
    with pytest.raises(ValueError, match="does not exist"):
        study_at(n, studies, 0)
