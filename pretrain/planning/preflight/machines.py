"""Checks of the machines: GPUs, versions, clocks, limits."""

from collections.abc import Sequence

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.planning.plan import size
from gliomoe.pretrain.planning.preflight.facts import Facts, different
from gliomoe.pretrain.planning.preflight.finding import Finding, ranks

_CLOCK = 60.0
_OPEN_FILES = 1024


def check_devices(facts: Sequence[Facts]) -> Finding:
    """All processes on devices of one kind, since the slowest sets the pace."""
    kinds = sorted({fact.device for fact in facts})
    hosts = len({fact.host for fact in facts})
    least = min(fact.memory_bytes for fact in facts)
    where = f"{len(facts)} × {kinds[0]} on {hosts} host{'s' * (hosts > 1)}"
    if "cpu" in kinds and len(kinds) > 1:
        without = [fact.rank for fact in facts if fact.device == "cpu"]
        return Finding(
            "devices",
            "failed",
            f"{ranks(without)} see no GPU, the others do",
            "look at nvidia-smi there, or leave these hosts out",
        )
    if len(kinds) > 1:
        advice = "the slowest sets the pace, the smallest the batch"
        return Finding("devices", "warning", f"different GPUs: {', '.join(kinds)}", advice)
    return Finding("devices", "ok", f"{where}, {size(least)} each")


def check_versions(facts: Sequence[Facts]) -> Finding:
    """The same code and packages everywhere."""
    first = facts[0]
    for package, wanted in first.versions.items():
        found = [fact.versions.get(package) for fact in facts]
        if others := different(found):
            return Finding(
                "versions",
                "failed",
                f"{package} {wanted} on rank 0, {found[others[0]]} on {ranks(others)} "
                f"({facts[others[0]].host})",
                "install the same environment on all hosts",
                UsageError,
            )
    if others := different([fact.code for fact in facts]):
        return Finding(
            "versions",
            "failed",
            f"the code of gliomoe on {ranks(others)} ({facts[others[0]].host}) is not rank 0's",
            "bring all hosts to one commit",
            UsageError,
        )
    shown = ", ".join(f"{name} {number}" for name, number in first.versions.items())
    return Finding("versions", "ok", f"{shown}, code {first.code}")


def check_clocks(facts: Sequence[Facts]) -> Finding:
    """Clocks close enough for logs, certificates and files to make sense together."""
    worst = max(facts, key=lambda fact: abs(fact.clock_off))
    if abs(worst.clock_off) > _CLOCK:
        return Finding(
            "clocks",
            "warning",
            f"{worst.host} is {worst.clock_off:+.0f} s off rank 0",
            "start its time service (chrony, ntp)",
        )
    return Finding("clocks", "ok", f"within {max(1, round(abs(worst.clock_off)))} s")


def check_limits(facts: Sequence[Facts], needed: int) -> Finding:
    """Room in /dev/shm for what readers hand over, and enough open files.

    Args:
        facts: Of all processes.
        needed: Bytes in /dev/shm for each process.
    """
    for host in sorted({fact.host for fact in facts}):
        here = [fact for fact in facts if fact.host == host]
        if needed * len(here) > here[0].shared_memory:
            return Finding(
                "limits",
                "warning",
                f"/dev/shm of {host} has {size(here[0].shared_memory)}, readers may need "
                f"{size(needed * len(here))}",
                "lower data.workers, or give containers more (--shm-size)",
            )
    fewest = min(facts, key=lambda fact: fact.open_files)
    if fewest.open_files < _OPEN_FILES:
        return Finding(
            "limits",
            "warning",
            f"{fewest.host} allows {fewest.open_files} open files",
            f"ulimit -n {_OPEN_FILES * 64}",
        )
    free = min(fact.shared_memory for fact in facts)
    return Finding("limits", "ok", f"/dev/shm {size(free)} free, {fewest.open_files} open files")
