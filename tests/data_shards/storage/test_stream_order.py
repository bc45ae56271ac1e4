"""The order of the streaming reader, for any shards, lanes and windows, without reading one."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gliomoe.data_shards.format.dataset import DATASET
from gliomoe.data_shards.format.record import FORMAT
from gliomoe.data_shards.reading import streaming
from gliomoe.data_shards.reading.streaming import StreamSet


@pytest.fixture
def opened(monkeypatch):
    """Makes a set of shards with so many studies each; a study is its shard's name and number."""
    monkeypatch.setattr(streaming._Lane, "_take", lambda lane, shard, n: (shard.file.name, n))

    def make(counts, **arguments):
        def file(name):
            return {"name": name, "bytes": 1, "sha256": "0" * 64}

        info = {
            "format": FORMAT,
            "studies": sum(counts),
            "labelled": 0,
            "sequences": {},
            "preprocess": {},
            "index": file("index.npy"),
            "shards": [file(f"{i}.tar") | {"studies": n} for i, n in enumerate(counts)],
        }
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / DATASET).write_text(json.dumps(info))
            return StreamSet.open(folder, **arguments)

    return make


counts = st.lists(st.integers(1, 9), min_size=1, max_size=8)


# The fixture's patch is the same for all examples.
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), counts=counts, window=st.integers(1, 7), seed=st.integers(0, 99))
def test_order(opened, data, counts, window, seed):
    lanes = data.draw(st.integers(1, sum(counts)))
    plain = opened(counts, lanes=lanes, seed=seed)
    shuffled = opened(counts, lanes=lanes, seed=seed, window=window)
    everything = [(f"{i}.tar", n) for i, count in enumerate(counts) for n in range(count)]
    assert 0 <= len(everything) - plain.epoch < lanes
    for epoch in range(2):
        delivered = Counter()
        for lane in range(lanes):
            numbers = range(epoch * plain.epoch + lane, (epoch + 1) * plain.epoch, lanes)
            read, found = ([stream.study(n) for n in numbers] for stream in (plain, shuffled))
            assert len(read) == plain.epoch // lanes
            delivered.update(read)
            # A lane reads shards from first to last, all but its first and its last one whole.
            names = list(dict.fromkeys(name for name, _ in read))
            assert read == sorted(read, key=lambda study: (names.index(study[0]), study[1]))
            assert all(study in read for study in everything if study[0] in names[1:-1])
            # The window changes the order within it and nothing else.
            for at in range(0, len(read), window):
                assert sorted(read[at : at + window]) == sorted(found[at : at + window])
        assert set(delivered) <= set(everything) and set(delivered.values()) == {1}
