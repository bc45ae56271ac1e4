"""What a run will be, said before it: counted work, memory, cost, `--dry-run`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gliomoe.launch.cli import main
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives import OBJECTIVES
from gliomoe.pretrain.planning.cost import (
    Speed,
    all_reduce_seconds,
    run_hours,
    step_time,
)
from gliomoe.pretrain.planning.hardware import GPUS, Cluster
from gliomoe.pretrain.planning.measured import fit_line
from gliomoe.pretrain.planning.memory import checkpoint_bytes, device_memory, kept_checkpoints
from gliomoe.pretrain.planning.work import Work, count_work
from gliomoe.pretrain.sections import DataConfig, OptimConfig, RunConfig

RESULTS = Path(__file__).parents[1] / "benchmarks/results"
WORK = Work(forward_flops=10**12, kept_bytes=10**8, parameters=1100, trained=1000)


def made(**sections):
    """A configuration of 64 studies a step that names no real place."""
    whole = PretrainConfig(
        data=DataConfig(train=("none",), workers=2),
        run=RunConfig(out=Path("none"), steps=1000, checkpoint_every=100),
        optim=OptimConfig(batch=64),
    )
    return replace(
        whole, **{name: replace(getattr(whole, name), **s) for name, s in sections.items()}
    )


@pytest.mark.parametrize(
    ("stage", "precision", "parts"),
    [
        (0, "fp32", (4400, 4000, 8000)),
        (1, "autocast", (4400, 4000, 12000 // 8)),
        (2, "autocast", (4400, 4000 // 8, 12000 // 8)),
        (2, "bf16", (2200, 2000 // 8, 12000 // 8)),
    ],
)
def test_memory_by_hand(stage, precision, parts):
    config = made(engine={"zero_stage": stage, "accumulation": 2})
    memory = device_memory(WORK, config, precision, world=8)
    assert (memory.weights, memory.gradients, memory.optimizer) == parts
    assert memory.activations == 4 * 10**8  # 64 studies, 8 processes, 2 parts
    assert memory.total == sum(parts) + 4 * 10**8


def test_space_by_hand():
    assert checkpoint_bytes(WORK, made(), "fp32") == 2 * 4400 + 12 * 1000
    assert kept_checkpoints(made()) == 3  # two, and the one that is being written
    assert kept_checkpoints(made(run={"keep_every": 500})) == 5
    assert kept_checkpoints(made(run={"checkpoint_every": 1000})) == 2


def test_all_reduce_by_hand():
    h100, cluster = GPUS["H100"], Cluster()
    assert all_reduce_seconds(1e9, 1, cluster, h100) == 0
    within = 2 * 7 / 8 * 1e9 / 450e9
    assert all_reduce_seconds(1e9, 8, cluster, h100) == pytest.approx(within)
    between = 2 * 3 / 4 * (1e9 / 8) / 50e9
    assert all_reduce_seconds(1e9, 32, cluster, h100) == pytest.approx(within + between)


def test_a_step_by_hand():
    speed = Speed(flops_per_s=1e14, overhead=0.01, studies_per_s=50)
    arguments = ("autocast", 4, speed, Cluster(), GPUS["H100"])
    step = step_time(WORK, made(), *arguments)
    assert step.compute == pytest.approx(3 * 16 * 1e12 / 1e14)
    assert step.data == pytest.approx(16 / (2 * 50))
    assert step.network == pytest.approx(2 * 3 / 4 * 4000 / 450e9)
    assert step.seconds == pytest.approx(0.48 + step.network + 0.01)
    assert step.binds == "compute"
    assert step_time(WORK, made(data={"workers": 0}), *arguments).data == pytest.approx(16 / 50)
    again = step_time(WORK, made(engine={"recompute": True}), *arguments)
    assert again.compute == pytest.approx(0.64)
    parts = step_time(WORK, made(engine={"zero_stage": 2, "accumulation": 2}), *arguments)
    assert parts.network == pytest.approx(1.5 * step.network)  # two reductions, one gathering


def test_hours_by_hand():
    speed = Speed(flops_per_s=1e14, overhead=0.0, studies_per_s=None)
    config = made(monitor={"pictures_every": 0})
    step = step_time(WORK, config, "fp32", 4, speed, Cluster(), None)
    cluster = Cluster(disk_gb_s=1e-6)  # 1,000 bytes a second
    hours = run_hours(WORK, config, "fp32", step, speed, cluster, 4)
    assert hours * 3600 == pytest.approx(1000 * 0.48 + 10 * 20.8)
    shown = made(monitor={"pictures_every": 10})
    more = run_hours(WORK, shown, "fp32", step, speed, cluster, 4)
    assert (more - hours) * 3600 == pytest.approx(100 * 16 * 0.01)


def test_fit_finds_rate_and_overhead():
    rate, overhead = fit_line([(n * 1e9, 0.1 + n / 10) for n in (1, 2, 4)])
    assert (rate, overhead) == (pytest.approx(1e10), pytest.approx(0.1))
    assert fit_line([(1e9, 0.5)]) == (pytest.approx(2e9), 0)
    assert fit_line([(1e9, 0.1), (2e9, 0.3)])[1] == 0  # the line would begin below 0


def test_work_of_the_smoke_preset(config):
    work = count_work(config, "fp32")
    larger = count_work(replace(config, views=replace(config.views, size=24)), "fp32")
    assert larger.forward_flops > 3 * work.forward_flops
    assert larger.kept_bytes > 2.5 * work.kept_bytes
    assert work.trained < work.parameters  # the path that runs only without a mask is frozen
    spared = count_work(replace(config, engine=replace(config.engine, recompute=True)), "fp32")
    assert spared.kept_bytes < work.kept_bytes
    assert spared.forward_flops == work.forward_flops


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_work_of_every_objective_can_be_counted(config, objective):
    work = count_work(replace(config, loss=replace(config.loss, objective=objective)), "autocast")
    assert min(work.forward_flops, work.kept_bytes, work.trained) > 10**6


def command(config, *more):
    return [
        "pretrain", "smoke", "--data.train", str(config.data.train[0]), "--run.out",
        str(config.run.out), *more,
    ]  # fmt: skip


def test_a_dry_run_says_what_it_will_be_and_writes_nothing(config, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert main(command(config, "--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["machines"]["nodes"] == 2
    assert (plan["batch"], plan["per_part"], plan["steps"], plan["studies"]) == (4, 2, 20, 80)
    assert plan["config"]["optim"]["warmup"] == 2
    assert "dry_run" not in plan["config"]
    assert main(command(config, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "10.0 epochs of 8" in shown and "2 nodes, 2 processes on" in shown
    assert max(map(len, shown.partition("\n\n")[0].splitlines())) <= 80
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(command(config, "--dry-run")) == 2
    assert "multiple of processes" in capsys.readouterr().err
    assert not config.run.out.exists()


def test_a_dry_run_of_a_run_uses_its_own_times(config, capsys):
    config.run.out.mkdir()
    lines = [{"studies": 40, "seconds": {"step": spent}, "world": 1} for spent in (9.0, 5.0, 5.0)]
    timing = config.run.out / "timing.jsonl"
    timing.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"torn')
    assert main(command(config, "--dry-run", "--json")) == 0
    duration = json.loads(capsys.readouterr().out)["duration"]
    assert duration["source"] == f"measured: {config.run.out}, 80 studies"
    assert duration["steps"][0]["compute"] == pytest.approx(0.5)
    assert duration["hours"][0] * 3600 == pytest.approx(20 * 0.5, rel=0.1)
