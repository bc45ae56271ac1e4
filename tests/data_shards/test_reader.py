"""A run's studies by number: weights, blocks and streams over one or several sets."""

from collections import Counter

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.reader import OrderConfig, open_reader

KINDS = ("indexed", "streaming")


@pytest.fixture
def places(make_set, make_study):
    """Sets of seven and five studies, each in several shards."""
    return [
        make_set("a", [make_study(n) for n in range(7)]),
        make_set("b", [make_study(n, ("t2",), (20, 30, 25)) for n in range(7, 12)]),
    ]


def keys(reader, numbers):
    return [reader.study(n).record["key"] for n in numbers]


@pytest.mark.parametrize("kind", KINDS)
def test_without_weights_every_study_comes_as_often(places, kind):
    reader = open_reader(places, OrderConfig(kind), 3, 4)
    counts = Counter(keys(reader, range(36)))
    assert len(counts) == 12
    assert set(counts.values()) == {3}


@pytest.mark.parametrize("kind", KINDS)
def test_weights(places, kind):
    reader = open_reader(places, OrderConfig(kind, weights=(0.2, 0.8)), 3, 1)
    counts = Counter(reader.number(n) for n in range(1000))
    assert sum(counts[n] for n in range(7)) == 200
    assert sum(counts[n] for n in range(7, 12)) == 800
    assert max(counts[n] for n in range(7)) - min(counts[n] for n in range(7)) <= 1


@pytest.mark.parametrize("order", [OrderConfig(), OrderConfig(block=2), OrderConfig("streaming")])
@pytest.mark.parametrize("weights", [(), (1.0, 2.0)])
def test_numbers_and_places_are_those_of_the_studies(places, order, weights):
    order = OrderConfig(order.reader, weights, order.block)
    reader, shards = open_reader(places, order, 3, 3), ShardSet.open(*places)
    for n in range(20):
        number, key = reader.number(n), reader.study(n).record["key"]
        assert shards.entry(number).key == key
        assert str(shards.place(number)[0]) in reader.where(n)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_may_be_asked_for(places, kind):
    reader = open_reader(places, OrderConfig(kind), 3, 4)
    forward = keys(reader, range(24))
    assert keys(reader, reversed(range(24))) == forward[::-1]
    assert keys(open_reader(places, OrderConfig(kind), 3, 4), (17, 5)) == [forward[17], forward[5]]


@pytest.mark.parametrize(("lanes", "stride"), [(4, 4), (20, 1)])
def test_object_stores_are_read_in_blocks_where_there_are_enough_studies(
    places, monkeypatch, lanes, stride
):
    monkeypatch.setattr(ShardSet, "block", property(lambda self: 3))
    assert open_reader(places, OrderConfig(), 0, lanes).stride == stride


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (OrderConfig(weights=(1.0,)), "1 weights for 2 shard sets"),
        (OrderConfig(block=2), "12 studies are too few for a batch of 13 in blocks"),
        (OrderConfig("streaming"), "12 studies are too few for 13 lanes"),
    ],
)
def test_impossible_readers(places, order, message):
    with pytest.raises(UsageError, match=message):
        open_reader(places, order, 0, 13)


@pytest.mark.parametrize("wrong", [{"weights": (0.0,)}, {"block": -1}, {"window": -1}])
def test_impossible_orders(wrong):
    with pytest.raises(ValueError):
        OrderConfig(**wrong)
