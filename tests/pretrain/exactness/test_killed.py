"""Runs of several processes, killed at random steps and continued: equal to the bit."""

import random

import pytest
import torch

pytestmark = pytest.mark.slow

KILLS = 5


def assert_same(trace, final, one, two):
    assert trace(one) == trace(two)
    assert [line["step"] for line in trace(one)] == list(range(12))
    first, second = final(one), final(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def steps(trace, run):
    return len(trace(run)) if (run / "metrics.jsonl").is_file() else 0


def partial(run):
    return list(run.glob("checkpoints/.step_*.partial"))


def kill_while_saving(ranks, run):
    """Kill a run in the middle of writing a checkpoint; False if that was just finished."""
    ranks.until(lambda: partial(run))
    ranks.kill()
    return bool(partial(run))


@pytest.mark.parametrize(
    ("world", "stage", "accumulation"), [(1, 1, 1), (2, 0, 2), (2, 1, 1), (2, 2, 2)]
)
def test_five_kills_change_nothing(
    start, shards, tmp_path, trace, final, world, stage, accumulation
):
    options = ("--engine.zero_stage", stage, "--engine.accumulation", accumulation)
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    ranks = start(world, shards, calm, *options)
    assert ranks.codes() == [0] * world, ranks.said()

    draw = random.Random(f"{world} {stage}")
    cut = 0
    for step in sorted(draw.sample(range(1, 12), KILLS - 1)):
        ranks = start(world, shards, broken, *options)
        ranks.until(lambda at=step: steps(trace, broken) >= at)
        ranks.kill()
        cut += bool(partial(broken))
    while not cut:  # one more, where no kill has met a checkpoint half-written
        cut += kill_while_saving(start(world, shards, broken, *options), broken)
    ranks = start(world, shards, broken, *options)
    assert ranks.codes() == [0] * world, ranks.said()
    assert_same(trace, final, calm, broken)
