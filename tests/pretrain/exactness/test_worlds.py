"""Runs continued by another number of processes or at another stage of ZeRO."""

import pytest
import torch

from gliomoe.pretrain.engine import distributed

pytestmark = pytest.mark.slow


def latest(run):
    pointer = run / "checkpoints/latest"
    return int(pointer.read_text().removeprefix("step_")) if pointer.is_file() else 0


def assert_close(trace, final, one, two):
    for first, second in zip(trace(one), trace(two), strict=True):
        for name in ("loss", "reconstruction", "contrast", "routing"):
            assert second[name] == pytest.approx(first[name], rel=1e-5), (first["step"], name)
        assert second["norm"] == pytest.approx(first["norm"], rel=1e-4), first["step"]
    first, second = final(one), final(two)
    off = sum((second[name] - value).double().square().sum() for name, value in first.items())
    size = sum(value.double().square().sum() for value in first.values())
    assert (off / size).sqrt() < 1e-4


@pytest.mark.parametrize("stages", [(1, 2, 1, 2), (0, 0, 0, 0)], ids=["zero", "plain"])
def test_one_two_four_one(start, shards, tmp_path, trace, final, stages):
    """Each part of the run has another world; with ZeRO the stage changes too."""
    more = ("--model.experts", 4, "--model.set", "router_bias=true")
    calm, moved = tmp_path / "calm", tmp_path / "moved"
    ranks = start(1, shards, calm, "--engine.zero_stage", stages[0], *more)
    assert ranks.codes() == [0], ranks.said()
    for world, stage, end in zip((1, 2, 4), stages, (2, 6, 8), strict=False):
        ranks = start(world, shards, moved, "--engine.zero_stage", stage, *more)
        ranks.until(lambda at=end: latest(moved) >= at)
        ranks.kill()
        first, *others = ranks.buffers()
        assert any("router.bias" in name for name in first)
        assert all(found == first for found in others)
    ranks = start(1, shards, moved, "--engine.zero_stage", stages[3], *more)
    assert ranks.codes() == [0], ranks.said()
    assert_close(trace, final, calm, moved)
    left = {entry.name for entry in (moved / "checkpoints").iterdir()}
    assert left == {"latest", "step_10", "step_12"}


def test_two_processes_pretrain_the_quickstart_as_one_does(start, shards, tmp_path, trace, final):
    one, two = tmp_path / "one", tmp_path / "two"
    for world, run in ((1, one), (2, two)):
        ranks = start(world, shards, run, preset="quickstart")
        assert ranks.codes() == [0] * world, ranks.said()
    assert_close(trace, final, one, two)


class Neighbour:
    """Another rank, whose tensors are all 3."""

    @staticmethod
    def mean(tensor):
        return (tensor + 3) / 2


def test_running_statistics_are_those_of_all_ranks(monkeypatch):
    layer = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.LayerNorm(2))
    monkeypatch.setattr(distributed, "mean", Neighbour.mean)
    distributed.share_statistics(layer)
    assert layer[0].running_mean.tolist() == [0, 0]
    monkeypatch.setattr(distributed, "world", lambda: (0, 2))
    distributed.share_statistics(layer)
    assert layer[0].running_mean.tolist() == [1.5, 1.5]
    assert layer[0].running_var.tolist() == [2, 2]
