"""Checks of what was counted beforehand: memory against the device, time to finish."""

from collections.abc import Sequence

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.plan import Plan, size, span
from gliomoe.pretrain.planning.preflight.facts import Facts
from gliomoe.pretrain.planning.preflight.finding import Finding

_CLOSE = 0.9
"""Part of a device's memory above which buffers that nobody counted may not fit."""


def check_memory(facts: Sequence[Facts], plan: Plan, config: PretrainConfig) -> Finding:
    """What a process needs fits into the smallest device."""
    least, memory = min(fact.memory_bytes for fact in facts), plan.memory
    found = f"{size(memory.total)} a process, estimated, of {size(least)}"
    if memory.total <= _CLOSE * least:
        return Finding("memory", "ok", found)
    advice = f"try {' or '.join(remedies(plan, config))}"
    if memory.total <= least:
        return Finding("memory", "warning", f"{found}, which is close", advice)
    return Finding("memory", "failed", found, advice, UsageError)


def remedies(plan: Plan, config: PretrainConfig) -> list[str]:
    """Options that would lower the estimate, the most effective first."""
    memory = plan.memory
    spared = []
    if plan.per_part > 1:
        spared.append(f"engine.accumulation {2 * config.engine.accumulation}")
    if not config.engine.recompute:
        spared.append("engine.recompute True")
    sharing = []
    if config.engine.zero_stage < 2 and plan.machines.processes > 1:
        sharing.append("engine.zero_stage 2")
    state = memory.optimizer + memory.gradients
    ordered = sharing + spared if state > memory.activations else spared + sharing
    return ordered or ["a smaller model or views.size"]


def check_time(plan: Plan) -> Finding:
    """When it will be done."""
    if plan.duration is None:
        return Finding("time", "ok", "unknown: nothing was measured on a device like this")
    left = "" if not plan.steps_done else " left"
    return Finding("time", "ok", f"{span(plan.duration.hours)} h{left}, {plan.duration.source}")
