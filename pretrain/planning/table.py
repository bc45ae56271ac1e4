"""A preset on more and more GPUs: batch, hours, what binds, what has to change."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.cost import Speed
from gliomoe.pretrain.planning.hardware import Cluster, Gpu, find_gpu
from gliomoe.pretrain.planning.machines import Machines
from gliomoe.pretrain.planning.memory import device_memory
from gliomoe.pretrain.planning.plan import Plan, make_plan, span
from gliomoe.pretrain.planning.work import Work

_GB = 10**9


@dataclass(frozen=True)
class Row:
    """A configuration on a number of GPUs."""

    gpus: int
    nodes: int
    batch: int
    steps: int
    per_gpu: int
    """Studies of a step on one GPU."""
    hours: tuple[float, float]
    gpu_hours: tuple[float, float]
    memory_gb: float
    binds: str
    """Compute, data, network, overhead, memory or batch."""
    change: str
    """What has to be changed, empty for nothing."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def row(
    config: PretrainConfig,
    work: Work,
    gpu_name: str,
    gpus: int,
    speeds: Sequence[Speed],
    source: str,
    cluster: Cluster,
) -> Row:
    """A run of as many studies on so many GPUs, in bf16 autocast.

    A batch smaller than the GPUs is raised to one study each, with fewer steps.

    Args:
        config: Of the run.
        work: Of one study.
        gpu_name: In the table of GPUs.
        gpus: How many.
        speeds: Of each, at least one.
        source: Where the speeds come from.
        cluster: What connects them.
    """
    gpu = find_gpu(gpu_name)
    assert gpu is not None, gpu_name
    fitted, changes = fit_batch(config, gpus)
    fitted, more = fit_memory(fitted, work, gpus, gpu)
    nodes = -(-gpus // cluster.gpus_per_node)
    machines = Machines(gpus, nodes, "autocast", gpu_name, int(gpu.memory_gb * _GB))
    plan = make_plan(fitted, work, machines, speeds, source, cluster)
    assert plan.duration is not None
    changes += more + _reading(plan, fitted)
    bound = "batch" if fitted.optim.batch != config.optim.batch else ""
    if plan.memory.total > gpu.memory_gb * _GB:
        bound = "memory"
    fast, slow = (step.binds for step in plan.duration.steps)
    low, high = plan.duration.hours
    return Row(
        gpus=gpus,
        nodes=nodes,
        batch=fitted.optim.batch,
        steps=fitted.run.steps,
        per_gpu=plan.per_part * plan.accumulation,
        hours=(low, high),
        gpu_hours=(low * gpus, high * gpus),
        memory_gb=plan.memory.total / _GB,
        binds=bound or (fast if fast == slow else f"{slow} to {fast}"),
        change=", ".join(changes),
    )


def fit_batch(config: PretrainConfig, gpus: int) -> tuple[PretrainConfig, list[str]]:
    """The configuration with at least one study for each GPU, and what was changed for it."""
    parts = config.engine.accumulation * gpus
    batch = -(-config.optim.batch // parts) * parts
    if batch == config.optim.batch:
        return config, []
    steps = max(1, config.run.steps * config.optim.batch // batch)
    warmup = min(config.optim.warmup, steps)
    changed = replace(
        config,
        optim=replace(config.optim, batch=batch, warmup=warmup),
        run=replace(config.run, steps=steps),
    )
    return changed, [f"optim.batch {batch:,}", f"run.steps {steps:,}", "optim.lr tuned anew"]


def fit_memory(
    config: PretrainConfig, work: Work, gpus: int, gpu: Gpu
) -> tuple[PretrainConfig, list[str]]:
    """The configuration with so much accumulation that it fits, and what was changed for it."""
    limit, wanted = 0.9 * gpu.memory_gb * _GB, config.engine.accumulation
    share = config.optim.batch // gpus
    for accumulation in range(wanted, share + 1):
        if share % accumulation:
            continue
        tried = replace(config, engine=replace(config.engine, accumulation=accumulation))
        if device_memory(work, tried, "autocast", gpus).total <= limit:
            changes = [f"engine.accumulation {accumulation}"] if accumulation > wanted else []
            return tried, changes
    return config, ["a larger GPU"]


def _reading(plan: Plan, config: PretrainConfig) -> list[str]:
    """More readers, where the fastest GPU that is assumed would wait for them most of all."""
    assert plan.duration is not None
    step = plan.duration.steps[0]
    if step.binds != "data":
        return []
    needed = (
        step.data * max(1, config.data.workers) / max(step.compute, step.network, step.overhead)
    )
    return [f"data.workers {math.ceil(needed)}"]


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Rows as a table under a heading."""
    lines = [
        f"### {title}",
        "",
        "| GPUs | nodes | batch | per GPU | hours | GPU hours | memory, GB | binds | change |",
        "|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for found in rows:
        cells = (
            f"{found.gpus:,}",
            str(found.nodes),
            f"{found.batch:,}",
            str(found.per_gpu),
            span(found.hours),
            span(found.gpu_hours),
            f"{found.memory_gb:.1f}",
            found.binds,
            found.change or "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
