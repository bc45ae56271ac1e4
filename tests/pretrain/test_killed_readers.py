"""Readers that are killed at any moment and go on with other ranks and workers lose nothing."""

import hashlib
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.reading.reader import OrderConfig, open_reader
from gliomoe.pretrain.samples.loading import Placement, load_parts
from gliomoe.pretrain.samples.views import StudyViews
from gliomoe.pretrain.sections import ViewConfig

pytestmark = pytest.mark.slow

BATCH, STEPS, SEED = 12, 60, 5
KILLS = 10
OVERSHOOT = 2
"""Steps that a rank may go on after the one at which it is to be killed, so that none gets far."""
WORLDS = (3, 1, 2, 4)


@pytest.fixture(scope="module")
def place(tmp_path_factory, write_set):
    """26 studies in several shards: a stream leaves two out of each epoch."""
    return write_set(tmp_path_factory.mktemp("set"), 26)


def digests(order, folder, rank, world, start, workers):
    """(step, sample number, digest of everything that is random about it) of one rank."""
    reader = open_reader([folder], order, SEED, BATCH)
    samples = StudyViews(reader, ViewConfig(size=16, shift=4), AugmentConfig(), 4, SEED)
    placement = Placement(BATCH, 1, rank, world)
    for step, part in enumerate(load_parts(samples, placement, start, STEPS, workers), start):
        for place, number in enumerate(placement.numbers(step, 0)):
            study = part.boxes.study == place
            draws = [view[place] for view in part.draws]
            digest = hashlib.sha256(part.boxes.codes[study].numpy().tobytes())
            for draw in draws:
                digest.update(repr((draw.start, draw.visible.tolist())).encode())
                digest.update(draw.scores.numpy().tobytes())
            yield step, number, part.boxes.keys[place] + digest.hexdigest()


def write(order, folder, out, rank, world, start, stop):
    """One rank, in a process group of its own: a line a sample, each written at once.

    Before the step `stop` it waits to be killed.
    """
    os.setsid()
    torch.set_num_threads(1)  # the parent's other threads did not come along
    with open(out, "a", buffering=1) as file:
        for step, number, digest in digests(order, folder, rank, world, start, workers=rank % 2):
            if step == stop:
                signal.pause()
            file.write(f"{step} {number} {digest}\n")


def start_ranks(order, folder, outs, start, stop):
    """A process a rank."""
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=write, args=(order, folder, out, rank, len(outs), start, stop))
        for rank, out in enumerate(outs)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def whole_lines(path):
    """Sample number → digest of the lines that were written to their end."""
    if not path.exists():
        return {}
    lines = path.read_text().split("\n")[:-1]
    return {int(number): (int(step), digest) for step, number, digest in map(str.split, lines)}


@pytest.mark.parametrize(
    "order",
    [OrderConfig(), OrderConfig(block=2, window=6), OrderConfig("streaming", window=3)],
    ids=["full", "blocks", "streaming"],
)
def test_ten_kills_and_other_worlds_give_the_undisturbed_sequence(place, tmp_path, order):
    expected = {n: digest for _, n, digest in digests(order, place, 0, 1, 0, 0)}
    assert len(expected) == BATCH * STEPS
    chance, got, done, kills = random.Random(1), {}, 0, 0
    while done < STEPS:
        world = WORLDS[kills % len(WORLDS)]
        outs = [tmp_path / f"{kills}-{rank}" for rank in range(world)]
        # Killed once a few more steps are there, in the middle of whatever it is then doing.
        goal = done + chance.randint(1, STEPS // KILLS - OVERSHOOT) if kills < KILLS else STEPS
        ranks = start_ranks(order, place, outs, done, goal + OVERSHOOT)
        while _finished(outs, done) < goal:
            assert all(rank.exitcode in (None, 0) for rank in ranks)
            time.sleep(0.01)
        time.sleep(chance.random() * 0.05)
        for rank in ranks:
            if goal < STEPS:
                os.killpg(rank.pid, signal.SIGKILL)
            rank.join()
        reached = _finished(outs, done)
        for out in outs:
            got |= {n: d for n, (step, d) in whole_lines(out).items() if step < reached}
        done, kills = reached, kills + 1
    assert kills == KILLS + 1  # and one run to the end
    assert got == expected


def _finished(outs, start):
    """Steps that every rank has finished: what a checkpoint could record."""
    share = BATCH // len(outs)
    return start + min(len(whole_lines(out)) for out in outs) // share
