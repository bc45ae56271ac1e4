"""The plan of a run: who trains what, how long it takes, what it needs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.cost import Speed, StepTime, run_hours, step_time
from gliomoe.pretrain.planning.hardware import Cluster, find_gpu
from gliomoe.pretrain.planning.machines import Machines, find_machines
from gliomoe.pretrain.planning.memory import (
    Memory,
    checkpoint_bytes,
    device_memory,
    kept_checkpoints,
)
from gliomoe.pretrain.planning.speeds import expected_speeds
from gliomoe.pretrain.planning.work import Work


@dataclass(frozen=True)
class Duration:
    """How long the steps that are left take; from and to, equal where speed was measured."""

    hours: tuple[float, float]
    steps: tuple[StepTime, StepTime]
    source: str
    """Where the speed comes from."""


@dataclass(frozen=True)
class Plan:
    """What a configuration means on some machines."""

    model: str
    machines: Machines
    batch: int
    accumulation: int
    per_part: int
    """Studies in one forward pass of a process."""
    steps: int
    steps_done: int
    studies: int
    """Studies of the whole run."""
    data_studies: int | None
    """Studies in the shards; None if they were not looked at."""
    memory: Memory
    checkpoint_bytes: int
    checkpoints: int
    """Kept at most at one time."""
    duration: Duration | None
    """None if nobody measured a device like this."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        space = self.checkpoint_bytes * self.checkpoints
        memory = {**asdict(self.memory), "total": self.memory.total}
        return {**asdict(self), "memory": memory, "checkpoints_bytes": space}


def make_plan(
    config: PretrainConfig,
    work: Work,
    machines: Machines,
    speeds: Sequence[Speed],
    source: str,
    cluster: Cluster,
    steps_done: int = 0,
    data_studies: int | None = None,
) -> Plan:
    """Plan a run.

    Args:
        config: Of the run.
        work: From `count_work`.
        machines: Where it runs.
        speeds: Of one process: none, the measured one, or the slowest and the fastest assumed.
        source: Where they come from.
        cluster: What connects the machines.
        steps_done: Steps of the newest checkpoint.
        data_studies: Studies in the shards.

    Raises:
        UsageError: If the batch cannot be shared out.
    """
    precision = machines.precision
    return Plan(
        model=config.model.name,
        machines=machines,
        batch=config.optim.batch,
        accumulation=config.engine.accumulation,
        per_part=config.micro_batch(machines.processes),
        steps=config.run.steps,
        steps_done=steps_done,
        studies=config.run.steps * config.optim.batch,
        data_studies=data_studies,
        memory=device_memory(work, config, precision, machines.processes),
        checkpoint_bytes=checkpoint_bytes(work, config, precision),
        checkpoints=kept_checkpoints(config),
        duration=_duration(config, work, machines, speeds, source, cluster, steps_done),
    )


def plan_here(config: PretrainConfig, work: Work, data_studies: int) -> Plan:
    """Plan a run, or what is left of it, on the processes that were started.

    Args:
        config: Of the run.
        work: From `count_work`.
        data_studies: Studies in the shards.

    Raises:
        UsageError: If the batch cannot be shared out.
    """
    machines = find_machines(config)
    speeds, source = expected_speeds(config, work, machines.gpu)
    cluster = Cluster(gpus_per_node=-(-machines.processes // machines.nodes))
    done = checkpoints.newest(config.run.out)
    steps_done = done.step if done else 0
    return make_plan(config, work, machines, speeds, source, cluster, steps_done, data_studies)


def _duration(
    config: PretrainConfig,
    work: Work,
    machines: Machines,
    speeds: Sequence[Speed],
    source: str,
    cluster: Cluster,
    steps_done: int,
) -> Duration | None:
    """Hours of the steps that are left, at the fastest and at the slowest speed."""
    if not speeds:
        return None
    gpu = find_gpu(machines.gpu) if machines.gpu else None
    left = 1 - steps_done / config.run.steps
    found = []
    for speed in speeds:
        precision, world = machines.precision, machines.processes
        step = step_time(work, config, precision, world, speed, cluster, gpu)
        hours = run_hours(work, config, precision, step, speed, cluster, world)
        found.append((hours * left, step))
    found.sort(key=lambda pair: pair[0])
    (low, fast), (high, slow) = found[0], found[-1]
    return Duration((low, high), (fast, slow), source)


def render(plan: Plan) -> str:
    """The plan as text of at most 80 columns."""
    rows = [*_layout(plan), *_needs(plan)]
    return "\n".join(f"{name:13s} {text}" for name, text in rows)


def _layout(plan: Plan) -> list[tuple[str, str]]:
    """Processes, batch, steps, data."""
    machines = plan.machines
    nodes = f"{machines.nodes} node{'s' * (machines.nodes > 1)}"
    ranks = f"{machines.processes} process{'es' * (machines.processes > 1)}"
    per_rank = plan.per_part * plan.accumulation
    studies = f"{plan.studies:,}"
    if plan.data_studies:
        epochs = plan.studies / plan.data_studies
        studies += f", {epochs:.1f} epochs of {plan.data_studies:,}"
    done = f", {plan.steps_done:,} of them done" if plan.steps_done else ""
    return [
        ("model", f"{plan.model}, {machines.precision}"),
        ("machines", f"{nodes}, {ranks} on {machines.gpu or 'cpu'}"),
        ("batch", f"{plan.batch} studies a step, {per_rank} a process, {plan.per_part} a part"),
        ("steps", f"{plan.steps:,}{done}"),
        ("studies", studies),
    ]


def _needs(plan: Plan) -> list[tuple[str, str]]:
    """Memory, space, hours."""
    memory = plan.memory
    parts = [f"{name} {size(value)}" for name, value in asdict(memory).items()]
    space = size(plan.checkpoint_bytes * plan.checkpoints)
    rows = [
        ("memory", f"{size(memory.total)} a process, estimated:"),
        ("", ", ".join(parts[:2])),
        ("", ", ".join(parts[2:])),
        ("checkpoint", f"{size(plan.checkpoint_bytes)}, {plan.checkpoints} of them {space}"),
    ]
    duration = plan.duration
    if duration is None:
        return [*rows, ("hours", "unknown: nothing was measured on a device like this")]
    rows.append(("hours", f"{span(duration.hours)}, {duration.source}"))
    seconds = (duration.steps[0].seconds, duration.steps[1].seconds)
    return [*rows, ("step", f"{span(seconds)} s, bound by {duration.steps[1].binds}")]


def size(count: int) -> str:
    """Bytes for a person."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def span(values: tuple[float, float]) -> str:
    """A range in two digits, or one number where both ends are the same."""
    low, high = (f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in values)
    return low if low == high else f"{low} to {high}"
