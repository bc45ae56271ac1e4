"""Check of the shard sets: the same on all processes, and their files of full size.

The files are shared out among the processes.
"""

from collections.abc import Sequence

from gliomoe.pretrain.planning.preflight.facts import Facts, different
from gliomoe.pretrain.planning.preflight.finding import Finding, ranks


def check_data(facts: Sequence[Facts]) -> Finding:
    """Every process reads the same sets, and every file of them is there in its full size."""
    if others := different([fact.data for fact in facts]):
        found = f"the shards on {ranks(others)} ({facts[others[0]].host}) are not those of rank 0"
        return Finding("data", "failed", found, "copy one set to all nodes, or share its folder")
    damage = [text for fact in facts for text in fact.damage]
    checked = sum(fact.checked for fact in facts)
    if damage:
        more = f" and {len(damage) - 1} more" if len(damage) > 1 else ""
        advice = "gliomoe shards verify names the studies; copy or build the set again"
        return Finding("data", "failed", f"{damage[0]}{more}", advice)
    if not checked:
        return Finding("data", "warning", "sizes not checked", "pipes do not tell theirs")
    return Finding("data", "ok", f"{checked} files have their size")
