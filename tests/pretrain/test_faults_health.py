"""Steps that are skipped, experts that collapse, studies that are left out, signals."""

import json
import os
import signal
import statistics
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from gliomoe.data_shards.errors import DataError
from gliomoe.models.blocks.normalisation import BatchNorm
from gliomoe.pretrain import build, loop
from gliomoe.pretrain import step as steps
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.faults.damaged import DAMAGED, Damaged
from gliomoe.pretrain.faults.health import Health
from gliomoe.pretrain.faults.routers import Routers
from gliomoe.pretrain.faults.signals import stop_flag
from gliomoe.pretrain.monitoring.monitor import StepReport
from gliomoe.pretrain.samples.views import StudyViews
from gliomoe.pretrain.sections import HealthConfig
from gliomoe.pretrain.train import pretrain


def report(step, loss, norm=1.0):
    return StepReport(step, {"loss": loss}, norm, lr=1e-3, studies=4, seconds=1.0, waited=0.0)


def trace(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_spike_is_far_above_the_last_good_losses():
    losses = np.random.default_rng(3).normal(2, 0.1, 60).round(3).tolist()
    losses[40:42] = [9.0, float("inf")]
    health = Health(HealthConfig(spike=6, spike_window=15))
    good, found = [], []
    for step, loss in enumerate(losses):
        window = good[-15:]
        median = statistics.median(window or [0])
        spread = 1.4826 * statistics.median([abs(value - median) for value in window or [0]])
        spike = len(window) == 15 and loss > median + 6 * max(spread, 0.01 * median)
        assert health.spikes(loss) == spike
        found += [step] * spike
        good += [loss] * (not spike)
        health.judge(report(step, loss, None if spike else 1.0), ("case",))
    assert found == [40, 41]


def test_no_spikes_by_default_nor_before_the_window_is_full():
    health = Health(HealthConfig())
    for step in range(200):
        health.judge(report(step, 1.0), ())
    assert not health.spikes(1e9)
    health = Health(HealthConfig(spike=3, spike_window=5))
    for step in range(4):
        health.judge(report(step, 1.0), ())
        assert not health.spikes(1e9)
    health.judge(report(4, 1.0), ())
    assert health.spikes(1.04) and not health.spikes(1.03)  # constant losses: 1 % at least


def test_many_suspects_are_counted(caplog):
    health = Health(HealthConfig(bad_steps=2))
    keys = tuple(f"case-{n}" for n in range(14))
    health.judge(report(0, float("nan"), None), keys)
    assert "case-9 and 4 more" in caplog.text and "case-10" not in caplog.text
    with pytest.raises(DataError, match="2 steps in a row were skipped, the last for its loss or"):
        Health(health.config, health.state()).judge(report(1, 1.0, None), keys)


def spike_at(monkeypatch, when):
    """Make the losses of a step's last part high."""
    whole = steps.Engine.forward

    def forward(engine, views):
        outcome = whole(engine, views)
        count[0] += 1
        return outcome | {"loss": outcome["loss"] * 50} if count[0] in when else outcome

    count = [0]
    monkeypatch.setattr(steps.Engine, "forward", forward)


def test_a_spike_changes_nothing_and_a_continued_run_sees_it_too(
    config, killed_at, monkeypatch, caplog
):
    health = replace(config.health, spike=20.0, spike_window=4)
    engine = replace(config.engine, accumulation=2)
    config = replace(config, health=health, engine=engine)
    spike_at(monkeypatch, {14})  # the second part of step 6
    assert pretrain(config)
    assert [line["step"] for line in trace(config.run.out) if line["norm"] is None] == [6]
    assert "step 6 skipped, loss" in caplog.text and "is a spike (limit" in caplog.text
    monkeypatch.undo()

    broken = replace(config, run=replace(config.run, out=config.run.out.with_name("broken")))
    with killed_at(5):
        pretrain(broken)
    spike_at(monkeypatch, {14 - 6})  # the run goes on from step 3
    assert pretrain(broken)
    assert trace(broken.run.out) == trace(config.run.out)


def test_a_skipped_step_leaves_running_statistics_alone(config, monkeypatch):
    """The encoder gets a batch norm; its input is spoiled in one step."""
    whole, make, step = build.create_model, steps.make_views, steps.train_step

    def create(*args, **settings):
        model = whole(*args, **settings)
        encoder = model.encoder
        encoder.norm = torch.nn.Sequential(BatchNorm(encoder.width), encoder.norm)
        return model

    def spoil(pairs, *settings):
        views = make(pairs, *settings)
        if len(seen) == 2:
            views.visible.voxels[views.visible.voxels != 0] = float("nan")
        return views

    def train_step(training, number):
        outcome = step(training, number)
        seen.append({n: b.clone() for n, b in training.engine.module.named_buffers()})
        return outcome

    seen = []
    monkeypatch.setattr(build, "create_model", create)
    monkeypatch.setattr(steps, "make_views", spoil)
    monkeypatch.setattr(loop, "train_step", train_step)
    optim, run = replace(config.optim, ema=0.9), replace(config.run, steps=4)
    assert pretrain(replace(config, optim=optim, run=run))
    assert [line["step"] for line in trace(config.run.out) if line["norm"] is None] == [2]
    running = [name for name in seen[0] if "running" in name]
    assert sum("averaged" in name for name in running) == len(running) / 2 == 2
    for name in running:
        before, skipped, after = (seen[step][name] for step in (1, 2, 3))
        assert torch.equal(skipped, before), name
        assert after.isfinite().all() and not torch.equal(after, before), name


def test_a_collapsed_expert_is_reported_once_until_it_recovers(caplog):
    caplog.set_level("WARNING")
    config = HealthConfig(collapse_share=0.1, collapse_steps=3)
    even, uneven = [0.5, 0.5], [0.95, 0.05]
    routers = Routers(config)
    for step, use in enumerate([uneven] * 2 + [even] + [uneven] * 5 + [even] + [uneven] * 3):
        if step == 4:  # killed and continued
            routers = Routers(config, json.loads(json.dumps(routers.state())))
        seen = routers.follow([even, use])
        if step == 7:
            expected = {"unused": 1, "longest_unused": 5}
            assert seen == pytest.approx(expected)
    said = [record.getMessage().partition(" got")[0] for record in caplog.records]
    assert said == [
        "expert 1 of mixture 1",
        "expert 1 of mixture 1 is used again",
        "expert 1 of mixture 1",
    ]
    assert Routers(config).follow([]) == {}


def test_collapse_is_on_the_board(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pretrain(replace(config, health=replace(config.health, collapse_share=0.9)))
    board = EventAccumulator(str(config.run.out / "tensorboard"))
    board.Reload()
    assert board.Scalars("experts/longest_unused")[-1].value == 10
    manifest = checkpoints.newest(config.run.out).manifest
    assert {n for layer in manifest["routers"] for n in layer} == {10}
    assert len(manifest["health"]["losses"]) == 10


def test_studies_that_were_left_out_are_listed_once(tmp_path, caplog):
    damaged = Damaged(tmp_path, 0, active=True)
    damaged.add(2, ("a: broken", "b: broken"))
    damaged.add(4, ("b: broken",))
    damaged.add(5, ("c: broken",))
    continued = Damaged(tmp_path, 5, active=True)
    continued.add(7, ("d: broken",))
    lines = map(json.loads, (tmp_path / DAMAGED).read_text().splitlines())
    assert [(line["step"], line["what"][0]) for line in lines] == [(2, "a"), (2, "b"), (7, "d")]
    continued.sum_up()
    assert f"3 damaged studies left out, others took their place; see {tmp_path}" in caplog.text
    other = Damaged(tmp_path / "other", 0, active=False)
    other.add(0, ("a: broken",))
    assert not (tmp_path / "other").exists()


def soon(number, seconds):
    """Send this process a signal in a while."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def test_a_signal_while_waiting_for_data_ends_in_a_checkpoint(config, monkeypatch, caplog):
    caplog.set_level("INFO")
    whole = StudyViews.__getitem__

    def read(samples, number):
        if number == 5 * config.optim.batch:
            soon(signal.SIGTERM, 0.2)
            time.sleep(60)
        return whole(samples, number)

    monkeypatch.setattr(StudyViews, "__getitem__", read)
    begun = time.monotonic()
    assert not pretrain(config)
    assert time.monotonic() - begun < 50
    assert checkpoints.newest(config.run.out).step == 5
    assert "asked to stop by SIGTERM" in caplog.text
    monkeypatch.undo()
    assert pretrain(config)
    assert [line["step"] for line in trace(config.run.out)] == list(range(10))


def test_signals_interrupt_a_start_and_only_ctrl_c_twice_a_step(monkeypatch):
    with stop_flag() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # while it cleans up
        assert stop.name == "SIGTERM"
    with stop_flag() as stop:
        stop.defer()
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.name == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt), stop.waiting():
            pytest.fail("waits although asked to stop")
        signal.raise_signal(signal.SIGINT)  # the same key press, from the launcher
        begun = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: begun + 3)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_gradients_that_are_not_finite_suspect_all_studies(config, monkeypatch, caplog):
    whole = steps.Engine.backward

    def backward(engine, loss, last):
        count[0] += 1
        whole(engine, loss, last)
        if count[0] == 3:
            weights = list(engine.module.parameters())
            weights[-1].grad = torch.full_like(weights[-1], float("inf"))

    count = [0]
    monkeypatch.setattr(steps.Engine, "backward", backward)
    pretrain(replace(config, engine=replace(config.engine, zero_stage=0)))
    assert [line["step"] for line in trace(config.run.out) if line["norm"] is None] == [2]
    assert caplog.text.count("case-") == 4
