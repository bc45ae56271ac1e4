"""A small all-reduce over all processes, and whether it was fast enough."""

import math
import time
from collections.abc import Sequence

import torch
import torch.distributed as dist

from gliomoe.pretrain.planning.cost import all_reduce_seconds
from gliomoe.pretrain.planning.hardware import Cluster, find_gpu
from gliomoe.pretrain.planning.preflight.facts import Facts
from gliomoe.pretrain.planning.preflight.finding import Finding, ranks

BYTES = 64 * 10**6
_ROUNDS = 3
_SLOWER = 4.0
"""Times the data sheet's seconds after which a network is called slow."""


def measure_all_reduce(device: torch.device, limit: float) -> tuple[float | None, str]:
    """Seconds of an all-reduce of `BYTES`, the mean of a few after one that does not count.

    Args:
        device: Of this process.
        limit: Seconds after which it is given up.

    Returns:
        Seconds, None with one process or if it failed; and why it failed.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None, ""
    values = torch.ones(BYTES // 4, device=device)
    end = time.monotonic() + limit
    try:
        begun = time.perf_counter()
        for number in range(_ROUNDS + 1):
            work = dist.all_reduce(values, async_op=True)
            while not work.is_completed():  # `wait` of NCCL would block for as long as it likes
                if time.monotonic() > end:
                    return None, f"no all-reduce within {limit:.0f} s"
                time.sleep(1e-4)
            work.wait()
            if number == 0:
                begun = time.perf_counter()
    except RuntimeError as error:
        return None, str(error).splitlines()[0][:200]
    # Rounded: so many ones are no longer an exact float32 with hundreds of processes.
    if not math.isclose(float(values[0]), dist.get_world_size() ** (_ROUNDS + 1), rel_tol=1e-4):
        return None, "an all-reduce gave a wrong sum"
    return (time.perf_counter() - begun) / _ROUNDS, ""


def check_network(facts: Sequence[Facts], cluster: Cluster) -> Finding:
    """All processes reached each other, at a rate that fits the hardware."""
    world = len(facts)
    if world == 1:
        return Finding("network", "ok", "one process, nothing to send")
    failed = [fact for fact in facts if fact.network_s is None]
    if failed:
        return Finding(
            "network",
            "failed",
            f"{ranks([fact.rank for fact in failed])} ({failed[0].host}): {failed[0].network}",
            "look at firewall and interface (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME)",
        )
    seconds = max(fact.network_s or 0.0 for fact in facts)
    rate = 2 * (world - 1) / world * BYTES / seconds / 1e9
    found = f"all-reduce of 64 MB in {1000 * seconds:.1f} ms, {rate:.2f} GB/s (bus bandwidth)"
    gpu = find_gpu(facts[0].device)
    if gpu and seconds > _SLOWER * all_reduce_seconds(BYTES, world, cluster, gpu):
        advice = "NCCL_DEBUG=INFO shows what it uses; is it the fast network?"
        return Finding("network", "warning", f"{found}, slow for {facts[0].device}", advice)
    return Finding("network", "ok", found)
