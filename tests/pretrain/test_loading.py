"""Where samples go: the same for every number of ranks and workers."""

import itertools
import os
import signal
import time

import pytest
import torch

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.reading.reader import OrderConfig, open_reader
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.pretrain.samples.loading import Placement, StepSampler, load_parts
from gliomoe.pretrain.samples.views import StudyViews
from gliomoe.pretrain.sections import ViewConfig


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (4, 3), (3, 4)])
def test_a_step_takes_the_next_samples_once(world, accumulation):
    ranks = [Placement(24, accumulation, rank, world) for rank in range(world)]
    for step in (0, 7):
        parts = [[r.numbers(step, part) for r in ranks] for part in range(accumulation)]
        numbers = [n for part in parts for piece in part for n in piece]
        assert numbers == list(range(step * 24, (step + 1) * 24))


def test_a_part_holds_the_same_samples_for_every_number_of_ranks():
    def part(world):
        ranks = [Placement(12, 2, rank, world) for rank in range(world)]
        return {n for rank in ranks for n in rank.numbers(3, 1)}

    assert part(1) == part(2) == part(3) == set(range(42, 48))


def test_resuming_continues_the_order():
    placement = Placement(4, 2)
    whole = list(StepSampler(placement, 0, 5))
    assert list(StepSampler(placement, 0, 2)) + list(StepSampler(placement, 2, 5)) == whole
    assert len(StepSampler(placement, 2, 5)) == 6


class Broken:
    """Samples that cannot be read."""

    forkable = True
    kind = DataError

    def __getitem__(self, number):
        raise self.kind(f"sample {number} is damaged")

    def where(self, number):
        return f"shard-000000.tar, study {number}"


class Killed(Broken):
    """Samples that cost the reader its life."""

    def __getitem__(self, number):
        os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Broken):
    """Samples that never come."""

    def __getitem__(self, number):
        time.sleep(1000)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [DataError, UsageError])
def test_an_error_stays_one_line(workers, kind):
    samples = Broken()
    samples.kind = kind
    with pytest.raises(kind) as error:
        list(itertools.islice(load_parts(samples, Placement(2, 1), 0, 1, workers), 1))
    assert str(error.value) == "sample 0 is damaged"


def test_a_reader_that_dies_is_reported_with_its_study():
    begun = time.monotonic()
    with pytest.raises(DataError) as error:
        next(load_parts(Killed(), Placement(2, 1), 3, 4, 1))
    assert "died, by SIGKILL at shard-000000.tar, study 6; " in str(error.value)
    assert time.monotonic() - begun < 30


def test_a_reader_that_hangs_is_reported_with_its_study():
    with pytest.raises(DataError, match="readers are at shard-000000.tar, study 0; look at"):
        next(load_parts(Hanging(), Placement(2, 1), 0, 4, 1, timeout=2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["indexed", "streaming"])
def test_a_server_gives_what_a_folder_gives(shards, serve, tmp_path, kind):
    def read(place, workers):
        reader = open_reader(
            [place], OrderConfig(kind, block=1), 0, 4, StorageConfig(cache=tmp_path)
        )
        samples = StudyViews(reader, ViewConfig(size=16, shift=4), AugmentConfig(), 4, 0)
        return list(load_parts(samples, Placement(4, 1), 0, 3, workers))

    with serve(shards) as url:
        remote = read(url, 1)
    for a, b in zip(remote, read(shards, 0), strict=True):
        assert a.boxes.keys == b.boxes.keys
        assert torch.equal(a.boxes.codes, b.boxes.codes)
