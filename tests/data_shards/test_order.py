"""Every epoch is a permutation, and a pure function of its number, however studies are laid out."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliomoe.data_shards.order import Mixture, Order, permuted, quotas, seed_for, study_at

seeds = st.integers(0, 2**63 - 1)


@given(st.integers(1, 600), seeds, st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_each_epoch_visits_each_study_once(studies, seed, epoch):
    first = epoch * studies
    assert sorted(study_at(first + i, studies, seed) for i in range(studies)) == list(
        range(studies)
    )


@given(st.integers(1, 2**40), seeds, st.data())
@settings(max_examples=100, deadline=None)
def test_permutations_stay_inside_and_are_one_to_one(count, key, data):
    some = data.draw(st.sets(st.integers(0, count - 1), max_size=20))
    taken = {permuted(position, count, key) for position in some}
    assert len(taken) == len(some)
    assert all(0 <= position < count for position in taken)


def test_permutations_are_even():
    orders = Counter(tuple(study_at(i, 4, seed) for i in range(4)) for seed in range(12_000))
    assert len(orders) == 24
    assert all(380 < count < 620 for count in orders.values())
    epochs = {tuple(study_at(e * 100 + i, 100, 1) for i in range(100)) for e in range(20)}
    assert len(epochs) == 20


def test_orders_are_fixed_for_ever():
    assert [study_at(n, 10, 0) for n in range(12)] == [7, 8, 1, 0, 6, 3, 2, 4, 5, 9, 7, 0]
    assert seed_for(1, "mask", 5) == 8067850118444151038
    order = Order(40, seed=0, block=4, window=8, lanes=2)
    assert [order.study(n) for n in range(8)] == [16, 3, 17, 38, 10, 1, 8, 37]


def test_streams_differ():
    seeds = {seed_for(s, *stream) for s in (0, 1) for stream in [(), ("a",), ("a", 1), ("a", "1")]}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("n", "studies"), [(-1, 3), (0, 0)])
def test_impossible_samples(n, studies):
    with pytest.raises(ValueError, match="does not exist"):
        study_at(n, studies, 0)


layouts = st.tuples(
    st.integers(1, 300), st.integers(1, 40), st.integers(1, 64), st.integers(1, 8)
).filter(lambda drawn: drawn[3] <= drawn[0])


@given(layouts, seeds, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_blocks_and_lanes_repeat_nothing_and_leave_out_less_than_a_lane_each(layout, seed, epoch):
    studies, block, window, lanes = layout
    order = Order(studies, seed, block, window, lanes)
    length = studies // lanes * lanes
    seen = [order.study(epoch * length + i) for i in range(length)]
    assert len(set(seen)) == length > studies - lanes
    assert set(seen) <= set(range(studies))


def test_a_lane_stays_within_few_blocks_and_shuffles_them():
    order = Order(6400, seed=3, block=16, window=64, lanes=4)
    lane = [order.study(4 * i + 1) for i in range(1600)]
    for first in range(0, 1600, 64):
        window = lane[first : first + 64]
        # Each block may be cut in two by the place at which the epoch begins.
        assert len({study // 16 for study in window}) <= 2 * 64 / 16
        assert window != sorted(window)
    assert len(set(lane)) == 1600


def test_what_an_epoch_leaves_out_changes():
    order = Order(103, seed=1, block=4, window=8, lanes=10)
    missing = Counter()
    for epoch in range(60):
        seen = {order.study(epoch * 100 + i) for i in range(100)}
        missing.update(set(range(103)) - seen)
    assert sum(missing.values()) == 180
    assert len(missing) > 60


@pytest.mark.parametrize("change", [{"studies": 0}, {"block": 0}, {"window": 0}, {"lanes": 9}])
def test_impossible_orders(change):
    with pytest.raises(ValueError):
        Order(**{"studies": 8, "seed": 0, **change})


@pytest.mark.parametrize("lanes", [1, 4])
def test_mixtures_keep_weights_and_count_each_set(lanes):
    weights = (0.5, 0.125, 0.375)
    mixture = Mixture(weights, 9, lanes)
    drawn = [mixture.draw(n) for n in range(2000 * lanes)]
    for part, weight in enumerate(weights):
        own = [number for other, number in drawn if other == part]
        assert sorted(own) == list(range(int(2000 * lanes * weight)))
    for n, (_, own) in enumerate(drawn):
        assert own % lanes == n % lanes
    places = [n for n, (part, _) in enumerate(drawn) if part == 1]
    gaps = [b - a for a, b in zip(places, places[1:], strict=False)]
    assert len(set(gaps)) > 5


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((1,), [1000]),
        ((1, 1, 1), [334, 333, 333]),
        ((1e-9, 1), [1, 999]),
        ((3, 1), [750, 250]),
    ],
)
def test_quotas(weights, counts):
    assert quotas(weights) == counts


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_quotas_always_sum_up(weights):
    counts = quotas(weights)
    assert sum(counts) == 1000
    assert min(counts) >= 1


@pytest.mark.parametrize("weights", [(), (1.0, 0.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_impossible_mixtures(weights):
    with pytest.raises(ValueError, match="weight"):
        Mixture(weights, 0)
