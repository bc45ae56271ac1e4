"""Runs all checks: every process gathers its facts, rank 0 judges, all end alike."""

import logging
import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.planning.hardware import Cluster
from gliomoe.pretrain.planning.plan import Plan, plan_here
from gliomoe.pretrain.planning.preflight import (
    estimates,
    folder,
    machines,
    network,
    shards,
)
from gliomoe.pretrain.planning.preflight import facts as seen
from gliomoe.pretrain.planning.preflight.facts import Facts
from gliomoe.pretrain.planning.preflight.finding import Finding, failure, table
from gliomoe.pretrain.planning.preflight.meeting import Meeting
from gliomoe.pretrain.planning.work import Work
from gliomoe.pretrain.samples.loading import PREFETCH

_LIMIT = 120.0
"""Seconds after which processes that have not answered are given up."""
_NETWORK_LIMIT = 60.0
_FOLDER_LIMIT = 30.0

logger = logging.getLogger(__name__)


def preflight(
    config: PretrainConfig, device: torch.device, data: Mapping[str, Any], work: Work | None
) -> None:
    """Check machines, network, folder and data; every process calls it.

    Args:
        config: Of the run.
        device: Of this process.
        data: From `describe_data`, in this process.
        work: From `count_work`; None leaves out memory, space and time.

    Raises:
        UsageError, DataError: On all processes, if a check failed or a process does not answer.
    """
    rank, world = distributed.world()
    meeting = Meeting(rank, world, _LIMIT)
    meeting.collect("here", rank)  # from here on all wait for rank 0, so that clocks compare
    token = config.run.out / f".preflight-{os.urandom(4).hex()}"
    unwritable = "" if rank else _write(token)
    try:
        start = meeting.announce("start", {"token": token.name, "time": time.time()})
        clock_off = time.time() - start["time"]
        fingerprint = data["fingerprint"]
        found = _gather(config, device, fingerprint, start["token"], clock_off, unwritable)
        told = meeting.collect("facts", asdict(found))
    finally:
        if not rank:
            token.unlink(missing_ok=True)
    if not rank:
        everyone = [Facts(**facts) for facts in told]
        plan = plan_here(config, work, data["studies"]) if work else None
        findings = judge(config, everyone, plan)
        logger.info("%s", table(findings))
        if error := failure(findings):
            meeting.end(error)
    meeting.announce("go", {})


def _write(token: Path) -> str:
    """Write the token that all others look for; why it failed, empty if it did not."""
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        return f"{token.parent} on {socket.gethostname()}: {error.strerror}"
    return ""


def _gather(
    config: PretrainConfig,
    device: torch.device,
    fingerprint: str,
    token: str,
    clock_off: float,
    unwritable: str,
) -> Facts:
    """What this process sees."""
    rank, world = distributed.world()
    name, memory = seen.hardware(device)
    shared_memory, open_files = seen.limits()
    seconds, why = network.measure_all_reduce(device, _NETWORK_LIMIT)
    damage, checked = seen.check_sizes(config, rank, world)
    return Facts(
        rank=rank,
        host=socket.gethostname(),
        device=name,
        memory_bytes=memory,
        versions=seen.versions(),
        code=seen.code_fingerprint(),
        clock_off=clock_off,
        shared_memory=shared_memory,
        open_files=open_files,
        folder=unwritable or seen.try_folder(config.run.out, rank, token, _FOLDER_LIMIT),
        free_bytes=0 if unwritable or rank else shutil.disk_usage(config.run.out).free,
        data=fingerprint,
        damage=damage,
        checked=checked,
        network_s=seconds,
        network=why,
    )


def judge(config: PretrainConfig, everyone: list[Facts], plan: Plan | None) -> list[Finding]:
    """All findings from the facts of all processes."""
    hosts = len({fact.host for fact in everyone})
    micro = config.micro_batch(len(everyone))
    needed = seen.shared_memory_needed(config, micro, PREFETCH)
    findings = [
        machines.check_devices(everyone),
        machines.check_versions(everyone),
        machines.check_clocks(everyone),
        machines.check_limits(everyone, needed),
        network.check_network(everyone, Cluster(gpus_per_node=-(-len(everyone) // hosts))),
        folder.check_folder(everyone, config.run.out),
        shards.check_data(everyone),
    ]
    if plan is None:
        return findings
    space = plan.checkpoint_bytes * (plan.checkpoints if not plan.steps_done else 1)
    return [
        *findings,
        folder.check_space(everyone, space),
        estimates.check_memory(everyone, plan, config),
        estimates.check_time(plan),
    ]
